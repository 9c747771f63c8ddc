"""The counts in docs/evidence.md, made from the plan of the phantom: `python -m docs.evidence`."""

from collections.abc import Iterator
from pathlib import Path

from configs import default
from cyclesh.data.locate import survey
from cyclesh.evidence.arms import LIMITED, SCALES, Arms
from cyclesh.evidence.pages import markdown_table, plain
from cyclesh.evidence.plan import make_plan
from cyclesh.evidence.readme import fill_block
from cyclesh.evidence.records import RUNS
from cyclesh.evidence.trials import Plan, Trial, budget_of, config_of, steps_of
from cyclesh.judges import judge_config

PAGE = Path(__file__).with_suffix(".md")
MARKERS = "<!-- counts: made by `python -m docs.evidence` -->", "<!-- /counts -->"


def block() -> str:
    """What stands between the markers."""
    base = default.build(None, "joint")
    described, subjects = survey(base)
    plan, scale = make_plan(base, described, subjects), SCALES[base.preset]
    modality = plan.modalities[0]
    train, val, test = (subjects[modality, split] for split in ("train", "val", "test"))
    few = Arms(base, scale, described, subjects).count(modality, LIMITED)
    longer = max(scale.seg_epochs, scale.gan_epochs) * scale.epoch_steps
    (ours, *_) = (trial for trial in plan.trials.values() if trial.arm == "ours")
    arm = steps_of(config_of(plan, ours, Path(RUNS)))
    shift_mm = max(scale.shift_voxels) * max(base.data.spacing_mm)
    lines = [
        f"The phantom has {base.phantom.subjects} subjects a modality: {train} to train on, {val} "
        f"for validation, {test} for the test.",
        f"The hearts of the MR cohort are larger. {LIMITED:.0%} of the real subjects are {few}.",
        f"Figure 7 has {scale.extra} additional {modality.upper()} subjects.",
        f"An epoch is {scale.epoch_steps} steps in every trial.",
        f"There are {len(plan.trials)} trials:",
        "",
        markdown_table(
            ("trials", "updates", "while rates fall", "volumes S reads", "validations that choose"),
            spent(plan),
        ),
        "",
        "Volumes are counted for each modality.",
        "`cyclegan` and `scratch` have no parents: "
        f"{longer} of the longer-trained of `seg` and `gan`",
        f"and {arm} of an arm make their {longer + arm}.",
        "",
        markdown_table(("output", "seeds", "x"), shown(plan)),
        "",
        f"The displacement is {max(scale.shift_voxels)} voxels ({shift_mm:.0f} mm), measured every "
        f"{scale.measured_every} updates.",
    ]
    return "\n".join(lines)


def spent(plan: Plan) -> Iterator[tuple[str, ...]]:
    """A row for all arms that may spend the same."""
    groups: dict[tuple[str, ...], dict[str, None]] = {}
    for trial in sorted(plan.trials.values(), key=plan.level):
        groups.setdefault(budget_row(plan, trial), {})[f"`{trial.arm}`"] = None
    for row, arms in groups.items():
        yield ", ".join(arms), *row


def budget_row(plan: Plan, trial: Trial) -> tuple[str, ...]:
    config = config_of(plan, trial, Path(RUNS))
    budget, schedule = budget_of(config), config.schedule
    moves = {"S": budget.seg_updates, "G": budget.gen_updates}
    counts: dict[int, list[str]] = {}
    for name, count in moves.items():
        counts.setdefault(count, []).append(name)
    updates = ", ".join(f"{n} of {' and '.join(names)}" for n, names in counts.items() if n)
    falling = schedule.decay_epochs * schedule.epoch_steps
    every = judge_config(config) if trial.arm == "judge" else config
    own = schedule.constant_epochs + schedule.decay_epochs  # the best is of the method's own phase
    validations = -(-own // every.log.validate_epochs)
    return updates, str(falling), str(budget.volumes_read), f"{validations:.0f}"


def shown(plan: Plan) -> Iterator[tuple[str, ...]]:
    """A row an output: how many seeds, and its points along x in each modality."""
    for output, names in plan.needs.items():
        seeds = len({plan.trials[name].seed for name in names})
        xs: dict[str, set] = {}
        for cell in plan.cells:
            if cell.output == output and cell.x is not None:
                xs.setdefault(cell.modality, set()).add(cell.x)
        points = (f"{m.upper()} {', '.join(map(plain, sorted(own)))}" for m, own in xs.items())
        yield output, str(seeds), "; ".join(points)


if __name__ == "__main__":
    fill_block(PAGE, MARKERS, block())
