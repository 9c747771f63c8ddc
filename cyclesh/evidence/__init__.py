"""The paper's evidence: which trials there are, and the tables and figures made of them.

Reading order: trials -> arms -> plan (what is run), records, displacement (what is measured),
tables, pages, figures, writing, readme (what is shown). `cyclesh.experiments` runs it.
"""
