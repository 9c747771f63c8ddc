"""A plan at the smallest size, and records as its trials would leave them, without any training."""

from pathlib import Path

import numpy as np

from configs import default
from cyclesh.evidence import records
from cyclesh.evidence.plan import plan_for
from cyclesh.evidence.records import RUNS
from cyclesh.evidence.trials import DICE, MEASURED, S_SCORE, Plan, Trial
from cyclesh.files import write_json
from cyclesh.workdir import CHECKPOINTS

LAST_STEP = 4  # 2 epochs of 2 steps
CASES = {"ct": ("ct_1", "ct_2", "ct_3"), "mr": ("mr_1", "mr_2", "mr_3")}


def tiny_config(items: str = ""):
    return default.build(f"tiny,epochs=2{items}", "joint")


def tiny_plan(items: str = "") -> Plan:
    return plan_for(tiny_config(items))


def value_of(trial: Trial, modality: str, structure: int) -> float:
    """A Dice that tells trials, modalities and structures apart."""
    gain = {"ours": 0.2, "ada": 0.1, "no_sc": 0.05, "real": 0.3}.get(trial.arm, 0.0)
    return 0.3 + gain + 0.01 * trial.seed + 0.02 * structure + 0.005 * (modality == "mr")


def leave_checkpoint(trial: Trial, workdir: Path, step: int) -> None:
    (workdir / RUNS / trial.name / CHECKPOINTS / str(step)).mkdir(parents=True, exist_ok=True)


def leave_record(plan: Plan, trial: Trial, workdir: Path) -> None:
    """As a trial would: a checkpoint, and a record with made-up scores."""
    if trial.arm != "judge":
        leave_checkpoint(trial, workdir, LAST_STEP)
    names = plan.structures

    def table(modality: str) -> dict:
        values = {n: value_of(trial, modality, i) for i, n in enumerate(names)}
        return {"mean": float(np.mean(list(values.values()))), **values}

    def judged(modality: str) -> dict:
        return {
            "untranslated": 0.31,
            "histogram_matched": 0.07 if modality == "ct" else 0.08,
            "ceiling": 0.91,
            "ceiling_by_structure": {"mean": 0.91, **dict.fromkeys(names, 0.91), names[0]: 0.95},
        }

    def alike(modality: str) -> dict:
        gain = value_of(trial, modality, 0)
        return {"mae": 0.5 - gain / 2, "psnr_db": 10 + 10 * gain, "ssim": gain}

    unjudged = dict.fromkeys(judged("ct"))
    cases = {
        m: {n: dict.fromkeys(CASES[m], value_of(trial, m, i)) for i, n in enumerate(names)}
        for m in plan.modalities
    }
    record = {
        **records._heading(plan, trial, workdir, records.FINISHED),
        "test": {m: {"dice": table(m)} for m in plan.modalities},
        "s_score": {m: table(m) for m in plan.modalities},
        "judge": {m: judged(m) if trial.init.get("gen") else unjudged for m in plan.modalities},
        "translation": {m: alike(m) if trial.init.get("gen") else None for m in plan.modalities},
        "checkpoint": None if trial.arm == "judge" else {"step": 4, "last_step": LAST_STEP},
        "data": "d" * 64,
        "split": "s" * 64,
        "git": "g" * 40,
        "versions": {},
        "real": {"ct": 2, "mr": 4},
        "source": {"ct": 4, "mr": 4},
        "step_s": 0.5,
        "wall_s": 30.0,
        "cases": {DICE: cases, S_SCORE: cases},
        "subjects": {case: f"subject_{case}" for ids in CASES.values() for case in ids},
    }
    if trial.shift_voxels:
        heights = {"no_sc": (16.0, 15.0), "sc": (16.0, 3.0)}[trial.arm]
        record["displacement"] = [
            {"step": step, "modality": m, "subjects": 3, **dict.fromkeys(MEASURED, mm)}
            for step, mm in zip((0, 4), heights, strict=True)
            for m in plan.modalities
        ]
    write_json(records.record_path(workdir, trial.name), record)
