"""What pip installs beside the package: the dependencies above "# Tests" in requirements.txt.

All else about the package is in pyproject.toml, which cannot take a part of a file.
"""

from pathlib import Path

from setuptools import setup

listed = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8")
running = listed.partition("# Tests")[0].splitlines()
setup(install_requires=[line for line in running if line and not line.startswith("#")])
