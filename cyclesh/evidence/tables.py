"""From the records of trials to the rows of tables: scores, paired differences, ratios. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from cyclesh.evidence.records import FINISHED
from cyclesh.evidence.trials import DICE, MEASURED, S_SCORE, Cell, Comparison, Plan
from cyclesh.scoring.similarity import Similarity
from cyclesh.scoring.statistics import Difference, mean_and_sd, paired_difference

COLUMNS = ("method", "modality", "structure", "x", "mean", "sd", "n")
DIFFERENCE_COLUMNS = (
    *("comparison", "modality", "measure", "x", "mean", "low", "high"),
    *("seeds", "subjects", "primary"),
)
# What S-scores are read against: its name, and where a record's judge block has its mean and
# structures.
REFERENCES = {
    "floor: inputs untranslated": ("untranslated", ""),
    "floor: inputs histogram-matched": ("histogram_matched", ""),
    "ceiling: true volumes": ("ceiling", "ceiling_by_structure"),
}
JUDGED_ALIKE = 1e-3  # of a Dice: one pair of judges, whatever devices round
APART = ("sc_gamma1",)  # methods that take no seeds from those beside them: secondary, run last
TRANSLATION_COLUMNS = ("method", "modality", "measure", "mean", "sd", "n")
RATIO_COLUMNS = ("x", "ours_minus_ada", "real_minus_ada", "ratio", "denominator_not_above_zero")


def is_done(record: Mapping | None) -> bool:
    """Whether there is a record, with a result."""
    return record is not None and record["status"] == FINISHED


def finished(cell: Cell, found: Mapping[str, dict]) -> list[dict]:
    """The records of a cell's trials that have a result."""
    return [found[name] for name in cell.trials if is_done(found.get(name))]


Points = Mapping[tuple[str, float | None], tuple[str, ...]]  # {(method, x): its trials}


def panel_of(cell: Cell) -> tuple[str, bool]:
    """What tells a table or a plot from others of its output: its cells are read together.

    In Figure 7, shares of the real data (x up to 1) are a plot of their own.
    """
    return cell.modality, cell.output == "figure7" and 0 < cell.x <= 1


def beside(plan: Plan, output: str) -> dict[tuple, Points]:
    """What an output shows beside each other, by the panel: a table's rows, a plot's points.

    Where it has no cells, all of its trials by their arms.
    """
    found: dict[tuple, dict] = {}
    for cell in (cell for cell in plan.cells if cell.output == output):
        found.setdefault(panel_of(cell), {})[cell.method, cell.x] = cell.trials
    if found:
        return found
    arms: dict[tuple, tuple[str, ...]] = {}
    for name in plan.needs[output]:
        arm = plan.trials[name].arm, None
        arms[arm] = (*arms.get(arm, ()), name)
    return {("", False): arms}


def shared_seeds(
    plan: Plan, points: Points, found: Mapping[str, dict]
) -> dict[tuple[str, float | None], set[int]]:
    """The seeds that each of these means is over: those that all of them have finished.

    So no mean is above another for its seeds. One without any result does not count.
    """
    seeds = {
        point: {plan.trials[name].seed for name in names if is_done(found.get(name))}
        for point, names in points.items()
    }
    common = [own for (method, _), own in seeds.items() if own and method not in APART]
    return {point: own.intersection(*common) for point, own in seeds.items()}


def shared(plan: Plan, cell: Cell, found: Mapping[str, dict]) -> list[dict]:
    """As `finished`, of the seeds alone that all beside it have, too."""
    points = beside(plan, cell.output)[panel_of(cell)]
    seeds = shared_seeds(plan, points, found)[cell.method, cell.x]
    return [record for record in finished(cell, found) if record["seed"] in seeds]


def score(cell: Cell, record: Mapping, structure: str) -> float | None:
    """What the cell measures, of one trial: a mean over test cases, then (mean) structures."""
    block = record["test"][cell.modality] if cell.measure == DICE else record["s_score"]
    block = (block and block["dice"]) if cell.measure == DICE else block[cell.modality]
    return block[structure] if block else None


def table_rows(plan: Plan, output: str, found: Mapping[str, dict]) -> list[dict]:
    """The rows of an output's CSV: mean and sd over shared seeds. None is dropped, even if empty.

    Where an output has several measures, the method's name says which.
    """
    rows = displacement_rows(plan, found) if output == "displacement" else []
    cells = [cell for cell in plan.cells if cell.output == output]
    mixed = len({cell.measure for cell in cells}) > 1
    for cell in cells:
        method = f"{cell.method} ({cell.measure.replace('_', '-')})" if mixed else cell.method
        rows += [{**row, "method": method} for row in cell_rows(plan, cell, found)]
    return rows


def cell_rows(plan: Plan, cell: Cell, found: Mapping[str, dict]) -> list[dict]:
    """A cell's rows: of the mean over structures, then of each structure."""
    rows = []
    for structure in ("mean", *plan.structures):
        values = [score(cell, record, structure) for record in shared(plan, cell, found)]
        values = [value for value in values if value is not None]
        mean, sd = mean_and_sd(values)
        rows.append(
            {
                "method": cell.method,
                "modality": cell.modality,
                "structure": structure,
                "x": cell.x,
                "mean": mean,
                "sd": sd,
                "n": len(values),
            }
        )
    return rows


def generator_rows(plan: Plan, output: str, found: Mapping[str, dict]) -> list[dict]:
    """As `table_rows`, of an output in Dice: S-scores of the generators that S read from."""
    rows = []
    for cell in (cell for cell in plan.cells if cell.output == output):
        if "gen" in plan.trials[cell.trials[0]].init:
            rows += cell_rows(plan, replace(cell, measure=S_SCORE), found)
    return rows


def judges_dice(record: Mapping) -> np.ndarray:
    """What tells a record's judges from others: their Dice on all that they saw of the test."""
    keys = [key for key, _ in REFERENCES.values()]
    blocks = [record["judge"][modality] for modality in sorted(record["judge"])]
    own = [(block.get("dice") or {}).get("mean") for block in blocks]
    values = [*own, *(block.get(key) for block in blocks for key in keys)]
    return np.array([np.nan if value is None else value for value in values])


def judged_alike(records: Iterable[Mapping]) -> bool:
    """Whether one pair of judges gave the S-scores of these records."""
    first, *others = [judges_dice(record) for record in records]
    return all(np.allclose(first, o, rtol=0, atol=JUDGED_ALIKE, equal_nan=True) for o in others)


def pairs_of_judges(
    plan: Plan, output: str, found: Mapping[str, dict]
) -> dict[str, dict[str, dict]]:
    """{a pair's first trial: {trial: its record}} of those of an output that judges have scored.

    More than one where judges were lost and made again between trials.
    """
    pairs: dict[str, dict[str, dict]] = {}
    for name in plan.needs[output]:
        record = found.get(name)
        if not is_done(record) or np.isnan(judges_dice(record)).all():
            continue
        alike = (first for first in pairs if judged_alike([found[first], record]))
        pairs.setdefault(next(alike, name), {})[name] = record
    return pairs


def reference_rows(plan: Plan, output: str, found: Mapping[str, dict]) -> list[dict]:
    """What S-scores are read against: rows of the judges' own Dice, where records hold it.

    It is of the test volumes and the judges alone, so any trial's is all trials' of these judges.
    """
    rows, pairs = [], pairs_of_judges(plan, output, found)
    for (method, (key, by_structure)), (number, done) in product(
        REFERENCES.items(), enumerate(pairs.values(), 1)
    ):
        method = f"{method}, judges {number}" if len(pairs) > 1 else method
        for modality in plan.modalities:
            judged = (record["judge"].get(modality, {}) for record in done.values())
            block = next((block for block in judged if block.get(key) is not None), None)
            if block is None:
                continue
            means = {"mean": block[key], **(block.get(by_structure) or {})}
            rows += [
                {**dict.fromkeys(COLUMNS), "method": method, "modality": modality}
                | {"structure": structure, "mean": means.get(structure)}
                for structure in ("mean", *plan.structures)
            ]
    return rows


def translation_rows(plan: Plan, output: str, found: Mapping[str, dict]) -> list[dict]:
    """How close synthetic volumes come to the true ones; no row where there are no true ones."""
    rows = []
    for cell in (cell for cell in plan.cells if cell.output == output):
        blocks = [record["translation"].get(cell.modality) for record in shared(plan, cell, found)]
        for measure in Similarity._fields:
            values = [block[measure] for block in blocks if block and block[measure] is not None]
            row = (cell.method, cell.modality, measure, *mean_and_sd(values), len(values))
            rows += [dict(zip(TRANSLATION_COLUMNS, row, strict=True))] if values else []
    return rows


def displacement_rows(plan: Plan, found: Mapping[str, dict]) -> list[dict]:
    """Millimetres over the updates (x); ``structure`` says how they were measured."""
    groups: dict[tuple, list[float]] = {}
    (arms,) = beside(plan, "displacement").values()
    seeds = shared_seeds(plan, arms, found)
    for point, name in ((point, name) for point, names in arms.items() for name in names):
        arm, shown = point[0], plan.trials[name].seed in seeds[point]
        for row in found[name]["displacement"] if shown else ():
            for measure in MEASURED:
                key = (arm, row["modality"], measure, float(row["step"]))
                groups.setdefault(key, []).extend([] if row[measure] is None else [row[measure]])
    return [
        dict(zip(COLUMNS, (*key, *mean_and_sd(values), len(values)), strict=True))
        for key, values in sorted(groups.items())
    ]


def difference(comparison: Comparison, found: Mapping[str, dict]) -> Difference:
    """better - worse over the seeds that all its cells have finished and the test subjects.

    S-scores of a seed count where all are of one pair of judges.
    """
    beyond = comparison.beyond
    plus = (comparison.better, beyond.worse) if beyond else (comparison.better,)
    minus = (comparison.worse, beyond.better) if beyond else (comparison.worse,)
    cells = (*plus, *minus)
    seeds = [
        [found[name] for name in names]
        for names in zip(*(cell.trials for cell in cells), strict=False)
        if all(is_done(found.get(name)) for name in names)
    ]
    if comparison.better.measure == S_SCORE:
        seeds = [own for own in seeds if judged_alike(own)]
    if not seeds:
        return Difference(*[float("nan")] * 3, 0, 0)
    subjects = sorted({s for own in seeds for record in own for s in record["subjects"].values()})
    scores = np.array(  # seeds, cells, subjects
        [[by_subject(*pair, subjects) for pair in zip(cells, own, strict=True)] for own in seeds]
    )
    better, worse = scores[:, : len(plus)], scores[:, len(plus) :]
    return paired_difference(better.sum(axis=1), worse.sum(axis=1))


def by_subject(cell: Cell, record: Mapping, subjects: Iterable[str]) -> list[float]:
    """Mean over structures and volumes of each test subject; NaN where it has no value."""
    table = scores_of(cell, record)
    return [float(np.mean(table[s])) if table.get(s) else float("nan") for s in subjects]


def scores_of(cell: Cell, record: Mapping) -> dict[str, list[float]]:
    """Each test subject's scores, of all its volumes and the structures that they have."""
    table: dict[str, list[float]] = {}
    for cases in record["cases"][cell.measure].get(cell.modality, {}).values():
        for case, value in cases.items():
            own = table.setdefault(record["subjects"][case], [])
            own += [] if value is None else [value]
    return table


def is_uneven(cell: Cell, found: Mapping[str, dict]) -> bool:
    """Whether test subjects differ in how many scores they have: volumes, or structures."""
    tables = (scores_of(cell, record) for record in finished(cell, found))
    return any(len(set(map(len, table.values()))) > 1 for table in tables)


def differences(plan: Plan, output: str, found: Mapping[str, dict]) -> list[tuple]:
    """(comparison, Difference) of an output."""
    own = [c for c in plan.comparisons if c.better.output == output]
    return [(comparison, difference(comparison, found)) for comparison in own]


def difference_row(comparison: Comparison, value: Difference) -> dict:
    cell = comparison.better
    return {
        "comparison": comparison.name,
        "modality": cell.modality,
        "measure": cell.measure,
        "x": cell.x,
        "primary": int(comparison.primary),
        **{name: None if number != number else number for name, number in value._asdict().items()},
    }


def ratio_rows(plan: Plan, found: Mapping[str, dict]) -> list[dict]:
    """`gap_ratios` of Figure 8, both differences over the seeds that all three methods share."""
    paired = {}
    for points in beside(plan, "figure8").values():
        seeds = shared_seeds(plan, points, found)
        for point, names in points.items():
            paired |= {n: found[n] for n in names if plan.trials[n].seed in seeds[point]}
    return gap_ratios(differences(plan, "figure8", paired))


def gap_ratios(compared: list[tuple]) -> list[dict]:
    """Which part of the gap between ADA and real data ours closes, at each x."""
    by_name = {(comparison.name, comparison.better.x): value for comparison, value in compared}
    rows = []
    for (name, x), gap in by_name.items():
        gain = by_name.get(("ours - ada", x))
        if name != "real - ada" or gain is None or gap.mean != gap.mean or gain.mean != gain.mean:
            continue
        rows.append(
            {
                "x": x,
                "ours_minus_ada": gain.mean,
                "real_minus_ada": gap.mean,
                "ratio": gain.mean / gap.mean if gap.mean else None,
                "denominator_not_above_zero": int(not gap.low > 0),  # nor where it is NaN
            }
        )
    return rows
