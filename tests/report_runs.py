"""A made-up run with everything in it, for the tests of the report."""

import numpy as np

from cyclesh.scoring.cases import CaseScore, score_case, summarise
from cyclesh.scoring.report_data import CaseImages, Event, ReportData

STRUCTURES = ("LV", "Myo")
SHAPE = (12, 14, 16)
SPACING_MM = (4.0, 3.0, 3.0)
NAN = float("nan")


def ball(radius, shift=0.0):
    """A ball of LV within a shell of Myo, its centre `shift` voxels off along each axis."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    distance = np.sqrt(sum((g - n / 2 - shift) ** 2 for g, n in zip(grid, SHAPE, strict=True)))
    return np.where(distance < radius - 2, 1, np.where(distance < radius, 2, 0)).astype(np.uint8)


def case(number, source, target, s_score):
    """One bright voxel in the superior, anterior and right corner tells directions apart."""
    label = ball(4 + 0.3 * number)
    image = label.astype(np.float32) - 1
    image[-1, -1, -1] = 1
    return CaseImages(
        case=f"{source}_{number}",
        source_modality=source,
        target_modality=target,
        source=image,
        translation=-image,
        reconstruction=np.clip(image + 0.5, -1, 1),
        truth=-image if number == 0 else None,
        label=label,
        predicted_source=ball(4, 0.5),
        predicted_translation=ball(4, -1),
        s_score=s_score,
    )


def metrics():
    for step in range(0, 60, 2):
        losses = {f"{key}/total": 1.0 / (1 + step) for key in ("gen", "disc", "seg")}
        scores = {"val/dice_ct": 0.01 * step, "val/s_score_mr": 0.005 * step}
        phase = "pretrain" if step < 20 else "joint"
        yield {
            "step": step,
            "wall_s": 3725.0 * step / 58,
            "phase": phase,
            **losses,
            **(scores if step % 10 else {}),
        }


def results(rows):
    block = {"mean": 0.8, "LV": 0.9, "Myo": 0.7}
    return {
        "test": {m: summarise([r for r in rows if r.modality == m]) for m in ("ct", "mr")},
        "s_score": {"ct": block, "mr": block},
        "judge": {"ct": {"dice": block, "ceiling": 0.85}, "mr": {"dice": block, "ceiling": None}},
        "translation": {
            "ct": {"mae": 0.1, "psnr_db": 21.5, "ssim": 0.66},
            "mr": {"mae": None, "psnr_db": None, "ssim": None},
        },
        "checkpoint": {"step": 40, "validation": 0.75},
        "config": {"optimiser": {"learning_rate": 2e-4}, "filters": 8},
        "seed": 3,
        "split": "ab12" * 16,
        "git": "0123abc",
        "versions": {"jax": "0.10.2"},
        "wall_s": 3725.0,
    }


def whole_run() -> ReportData:
    """Four cases in both directions, their scores and the curves of 60 steps."""
    scores = (0.4, 0.9, 0.6, 0.5)
    cases = [
        case(i, source, target, score)
        for source, target in (("ct", "mr"), ("mr", "ct"))
        for i, score in enumerate(scores)
    ]
    rows = [
        row
        for c in cases
        for row in score_case(
            c.case, c.source_modality, c.predicted_source, c.label, STRUCTURES, SPACING_MM
        )
    ]
    return ReportData(
        title="joint",
        modalities=("ct", "mr"),
        structures=STRUCTURES,
        spacing_mm=SPACING_MM,
        results=results(rows),
        metrics=list(metrics()),
        events=(Event(0, "pre-training S"), Event(20, "joint"), Event(40, "joint, decay")),
        case_scores=rows,
        s_scores=[
            CaseScore(c.case, c.target_modality, name, c.s_score, NAN, NAN, "")
            for c in cases
            for name in STRUCTURES
        ],
        cases=cases,
    )
