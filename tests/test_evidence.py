"""The counts in docs/evidence.md are those of today's plan."""

import re

from configs import default
from cyclesh.data.locate import survey
from cyclesh.evidence.plan import make_plan
from docs import evidence

PHANTOM = default.PRESETS["phantom"]
EPOCH = 19  # steps: the training subjects of a modality, 0.4 of 48


def counts() -> str:
    return evidence.PAGE.read_text(encoding="utf-8").split(evidence.MARKERS[0])[1].split("<!--")[0]


def test_the_page_is_up_to_date():
    assert counts().strip() == evidence.block(), "run `python -m docs.evidence`"


def test_updates_are_those_of_the_config():
    instead = 6  # epochs in which all move where the preset's segmentors rest
    epochs = PHANTOM["schedule.constant_epochs"] + instead + PHANTOM["schedule.decay_epochs"]
    joint, whole = EPOCH * epochs, EPOCH * (30 + epochs)  # 30: the longer-trained parent's
    falling, judge = EPOCH * PHANTOM["schedule.decay_epochs"], EPOCH * PHANTOM["judge.epochs"]
    rows = [line for line in evidence.block().splitlines() if line.startswith("| `")]
    (ours,) = [row for row in rows if "`ours`" in row]
    (ada,) = [row for row in rows if "`ada`" in row]
    # Three volumes an update: real, synthetic, reconstructed; or three real ones.
    assert ours.endswith(f"| {joint} of S and G | {falling} | {3 * joint} | 8 |")
    assert ada.endswith(f"| {joint} of S | {falling} | {3 * joint} | 8 |") and "`baseline`" in ada
    assert f"| `judge` | {judge} of S | {judge // 2} | {judge} | 10 |" in rows
    (control,) = [row for row in rows if "`no_sc`" in row]
    assert control.endswith(f"| {joint} of G | {falling} | 0 | 8 |")
    # Without parents: as long as one and an arm.
    (scratch,) = [row for row in rows if "`scratch`" in row]
    assert scratch.endswith(f"| {whole} of S and G | {falling} | {3 * whole} | 23 |")
    assert f" {whole - joint} of the longer-trained " in evidence.block()
    assert f"\nand {joint} of an arm make their {whole}." in evidence.block()
    assert "19 to train on, 5 for validation, 24 for" in evidence.block()
    assert "14% of the real subjects are 3." in evidence.block()


def test_every_kind_of_trial_stands_in_the_table_of_trials():
    head = evidence.PAGE.read_text(encoding="utf-8").split(evidence.MARKERS[0])[0]
    first = (line.split("|")[1] for line in head.splitlines() if line.startswith("| `"))
    named = {name for cell in first for name in re.findall("`(.*?)`", cell)}
    base = default.build(None, "joint")
    kinds = set()
    for trial in make_plan(base, *survey(base)).trials.values():
        kind = re.sub(r"^[^-]*-|-s\d+$", "", trial.name) if trial.arm != "judge" else trial.arm
        kinds.add(re.sub(r"-plus[\d.]+", "", re.sub(r"-from\d+", "-fromN", kind)))
    assert kinds == named and {"ours-flooded", "cyclegan", "shifted-sc"} <= kinds


def test_the_prose_around_them_states_no_count_of_updates_or_seeds():
    text = evidence.PAGE.read_text(encoding="utf-8").replace(counts(), "")
    assert not re.findall(r"\d+ (?:updates|seeds|steps)|every \d+", text, re.IGNORECASE)


def test_the_answer_that_it_quotes_is_that_of_the_results():
    text = evidence.PAGE.read_text(encoding="utf-8")
    quoted = " ".join(line[2:] for line in text.splitlines() if line.startswith("> "))
    page = evidence.PAGE.parent / "results" / "phantom" / "table2.md"
    assert quoted.startswith("Does synthetic data") and f"**{quoted}**" in page.read_text()
