"""The Markdown pages of a plan's outputs: scores, differences, and where they come from."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cyclesh.evidence.records import FINISHED, RUNS
from cyclesh.evidence.tables import (
    beside,
    finished,
    generator_rows,
    is_done,
    is_uneven,
    pairs_of_judges,
    ratio_rows,
    reference_rows,
    shared_seeds,
    translation_rows,
)
from cyclesh.evidence.trials import S_SCORE, Comparison, Plan, budget_of, config_of

COMMAND = "command.txt"  # what was typed, for the pages' foot
TITLES = {
    "table1": "Table 1: S-score of the generators without and with shape consistency",
    "table2": "Table 2: Dice with few real volumes",
    "figure3": "Figure 3: CycleGAN's generator and ours, S-score",
    "figure6": "Figure 6: segmentations of the baseline and of ours",
    "figure7": "Figure 7: Dice over the amount of real and of synthetic data",
    "figure8": "Figure 8: real against synthetic data",
    "displacement": "Displacement of the anatomy (section 3.2)",
    "scratch": "From scratch against pre-trained (section 4.2)",
    "flood": "Much synthetic and very little real data (section 5.4)",
}
# What a reader must know to read the table.
NOTES = {
    "table1": "Both go on from the same pre-trained generators for equally many updates, `no_sc` "
    "with gamma 0. Scored at the checkpoint that is best on validation: by S-score for `no_sc`, by "
    "Dice for `sc`; if that favours one of them, it is `no_sc`. `sc_gamma1`, where it stands, is "
    "`sc` with the paper's gamma throughout.",
    "table2": "All go on from the same segmentor, pre-trained on the few real volumes of the "
    "modality; the other modality keeps all of its volumes. The generators of `ada` had their "
    "parent's updates alone, those of `ours` go on from there.",
    "figure3": "`cyclegan` has CycleGAN's generator (residual blocks, transposed convolutions) and "
    "no fewer generator updates than ours, its pre-training included. `no_sc` is our generator "
    "with gamma 0, from Table 1: `no_sc - cyclegan` is what the architecture and the rates make, "
    "`ours - no_sc` what shape consistency does. Cases stand at a quarter and three quarters of "
    "CycleGAN's S-scores, first seed.",
    "figure6": "Table 2's first seed; cases stand at a quarter and three quarters of the "
    "baseline's Dice.",
    "figure7": "x up to 1: the share of the modality's real training subjects that exist, all "
    "volumes of the other modality being translated. x from 2: how many source volumes are "
    "translated, all real ones existing; 0 is the baseline. x caps either modality: where it is "
    "less than the modality's own volumes, fewer of its reconstructions are read too. The parents' "
    "generators learned from all training volumes of both modalities, whatever x, so a small x "
    "says how many volumes S reads, not how many the generators know; where the data name `extra` "
    "subjects themselves, the parents know these, too. Bars are one standard deviation over seeds; "
    "differences are paired and stand below, those from the baseline at x from 2 being from x = 0.",
    "figure8": "x: what is added to the few real subjects of the parent (those of Table 2), as a "
    "share of the training subjects: the nominal one, before it is rounded to a number of "
    "subjects, where Figure 7's is the true one. `real`: real subjects, of as many as the modality "
    "has, as far as there are. `ada`, `ours`: synthetic volumes, of as many as the other modality "
    "has, and reconstructions of the few real ones; the parents' generators learned from all "
    "volumes of the other modality, whatever x. Bars are one standard deviation over seeds; "
    "differences are paired and stand below, those from `baseline` being from x = 0, where nothing "
    "is added.",
    "displacement": "The generators start as the pre-trained ones composed with a circular shift "
    "and its inverse (x is updates since). `structures`: centres of the judge's structures on "
    "synthetic test volumes against the labels; `judge`: the same on the true volumes of the same "
    "subjects, the error of the measurement; `phase`: phase correlation with those true volumes. "
    "Millimetres along the shift, positive the way it went. Bars are one standard deviation over "
    "seeds; with each, both methods start from the same generators.",
    "scratch": "`scratch` trains all networks together from the start, for as many updates as the "
    "longer-trained of the parents of `ours` and `ours` itself take together. So its segmentors "
    "have no fewer updates than those of `ours` with their parents, and its checkpoint is chosen "
    "from more validations; both favour it.",
    "flood": "On Table 2's few real volumes. `_flooded`: real volumes weigh 0.05 in the "
    "segmentors' loss instead of what they weigh in Table 2, synthetic and reconstructed ones "
    "0.475 each. `ours_flooded - ada_flooded` holds what `ours` and `ada` "
    "differ by anyway; the difference of differences does not.",
}
IN_S_SCORES = ("table1", "figure3")  # whose rows are S-scores, all of them
REFERRED_TO = (
    "Floors and ceiling are Dice of the same judges without any generator: on the inputs (test "
    "volumes of the other modality), as they are and with the histogram of this one; and on true "
    "volumes of this modality, of the same subjects, where there are any. Where an S-score is not "
    "above the floors, translating has not helped the judges. The ceiling is no limit: synthetic "
    "volumes may be easier to segment than true ones (smooth, with little noise), and their "
    "S-scores lie above it. Then the similarity to the true volumes tells more (Table 1)."
)
SIMILARITY_DIGITS = {"mae": 3, "psnr_db": 2, "ssim": 3}
ALIKE = (
    "MAE, PSNR dB, SSIM against the true volumes; intensities in [-1, 1]. The volumes are those of "
    "the S-scores, beside the true ones of the same subjects; no judge has a say. A lower MAE and "
    "a higher PSNR and SSIM are closer."
)
GENERATORS = (
    "S-scores of the generators whose volumes the segmentors read, for synthetic volumes of the "
    "modality with few real ones. Those of `ada` are its parent's, frozen; those of `ours` are of "
    "the checkpoint that is scored."
)


def page(
    plan: Plan,
    output: str,
    workdir: Path,
    rows: list[dict],
    compared: list[tuple],
    found: Mapping,
    pictured: bool,
    lost: Sequence[str] = (),
) -> str:
    """The Markdown of an output: scores, differences, and where they come from.

    lost: names of the trials without whose networks there are no pictures.
    """
    incomplete = missing_seeds(plan, output, found)
    blocks = [f"# {TITLES[output]}", *([incomplete] if incomplete else []), NOTES[output]]
    if pictured:
        blocks.append(f"![{TITLES[output]}]({output}.png)")
    if lost:
        blocks.append(
            "No pictures: they are made with networks, and those of "
            f"{', '.join(f'`{name}`' for name in lost)} are not in this folder's `{RUNS}/`."
        )
    if output == "table2":
        blocks.append(f"**{answer(plan, compared, found)}**")
    if output in ("figure8", "flood"):
        blocks.append(few_real(plan, output, found))
    if output == "displacement":
        blocks += [displacement_table(plan, rows)] if rows else []
    elif output in IN_S_SCORES:
        blocks += s_score_table(plan, output, rows, found)
        blocks += translation_table(plan, output, found) if output == "table1" else []
    elif rows:
        blocks.append(score_table(plan, rows))
        measured = {cell.measure for cell in plan.cells if cell.output == output}
        blocks += judges_note(plan, output, found) if S_SCORE in measured else []
    if compared:
        blocks.append(difference_table(compared, found))
    if output == "figure8":
        blocks.append(ratio_table(ratio_rows(plan, found)))
    if output == "table2":
        rows = generator_rows(plan, output, found)
        blocks += [GENERATORS, *s_score_table(plan, output, rows, found), budget_table(plan)]
    blocks.append(provenance(plan, output, workdir, found))
    return "\n\n".join(blocks) + "\n"


def missing_seeds(plan: Plan, output: str, found: Mapping) -> str:
    """How many seeds each method has, where any lacks some; else nothing.

    A seed counts once all trials of the method that the output shows have finished.
    """
    seeds: dict[str, dict[int, bool]] = {}
    for points in beside(plan, output).values():
        for (method, _), names in points.items():
            own = seeds.setdefault(method, {})
            for name in names:
                seed = plan.trials[name].seed
                own[seed] = own.get(seed, True) and is_done(found.get(name))
    if all(all(own.values()) for own in seeds.values()):
        return ""
    counts = ", ".join(f"`{method}` {sum(own.values())}" for method, own in seeds.items())
    planned = max(map(len, seeds.values()))
    if planned == 1:  # pictures
        return "**Not all of its trials have finished.**"
    return (
        f"**Not all of the plan's {planned} seeds are in.** So far, complete: {counts}. Means "
        "of a table or a plot are over the seeds that all of them share; the last column says how "
        "many."
    )


def score_table(plan: Plan, rows: list[dict]) -> str:
    """One line a method, modality and x; means over seeds, +- their standard deviation."""
    groups: dict[tuple, dict] = {}
    for row in rows:
        key = (row["modality"], row["x"], row["method"])
        groups.setdefault(key, {})[row["structure"]] = row
    with_x = any(row["x"] is not None for row in rows)
    header = ["modality", *(["x"] if with_x else []), "method", "mean", *plan.structures, "seeds"]
    lines = []
    for (modality, x, method), cells in groups.items():
        mean = cells["mean"]
        sd = "" if mean["sd"] is None else f" +- {mean['sd']:.3f}"
        lines.append(
            [
                modality,
                *([plain(x)] if with_x else []),
                method,
                f"{number(mean['mean'])}{sd}",
                *(number(cells[s]["mean"]) for s in plan.structures),
                plain(mean["n"]),
            ]
        )
    return markdown_table(header, lines)


def s_score_table(plan: Plan, output: str, rows: list[dict], found: Mapping) -> list[str]:
    """S-scores, below them what they are read against, and what that is."""
    references = reference_rows(plan, output, found)
    blocks = [score_table(plan, rows + references), *([REFERRED_TO] if references else [])]
    return blocks + judges_note(plan, output, found)


def judges_note(plan: Plan, output: str, found: Mapping) -> list[str]:
    """Whose S-scores are of which judges, where they are not all of one pair."""
    pairs = pairs_of_judges(plan, output, found)
    if len(pairs) < 2:
        return []
    scored = (
        f"judges {number}: {', '.join(f'`{name}`' for name in names)}"
        for number, names in enumerate(pairs.values(), 1)
    )
    return [
        f"**These S-scores are of {len(pairs)} pairs of judges** ({'; '.join(scored)}), which do "
        "not measure alike. Differences of S-scores leave out seeds in which they are mixed; means "
        "do not."
    ]


def translation_table(plan: Plan, output: str, found: Mapping) -> list[str]:
    """MAE, PSNR and SSIM, and what they are of; nothing where there are no true volumes."""
    groups: dict[tuple, dict] = {}
    for row in translation_rows(plan, output, found):
        groups.setdefault((row["modality"], row["method"]), {})[row["measure"]] = row
    if not groups:
        return []

    def entry(row: dict | None, digits: int) -> str:
        sd = "" if row is None or row["sd"] is None else f" +- {row['sd']:.{digits}f}"
        return "-" if row is None else f"{row['mean']:.{digits}f}{sd}"

    lines = [
        [
            *key,
            *(entry(own.get(name), digits) for name, digits in SIMILARITY_DIGITS.items()),
            plain(max(row["n"] for row in own.values())),
        ]
        for key, own in groups.items()
    ]
    header = ["modality", "method", "MAE", "PSNR dB", "SSIM", "seeds"]
    return [markdown_table(header, lines), ALIKE]


def displacement_table(plan: Plan, rows: list[dict]) -> str:
    """One line a modality, method and measure: millimetres at the first and the last update."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["modality"], row["method"], row["structure"]), []).append(row)
    lines = [
        [
            *key,
            number(own[0]["mean"]),
            number(own[-1]["mean"]),
            plain(own[-1]["x"]),
            str(own[-1]["n"]),
        ]
        for key, own in groups.items()
    ]
    header = ["modality", "method", "measured by", "first, mm", "last, mm", "updates", "seeds"]
    return markdown_table(header, lines)


def difference_table(compared: list[tuple], found: Mapping[str, dict]) -> str:
    """Differences with their intervals, the primary ones in bold."""
    lines = []
    for comparison, value in compared:
        bold = "**" if comparison.primary else ""
        lines.append(
            [
                f"{bold}{comparison.name}{bold}",
                comparison.better.modality,
                comparison.better.measure.replace("_", "-"),
                plain(comparison.better.x),
                f"{bold}{number(value.mean, sign=True)}{bold}",
                interval(value),
                f"{_of_plan(comparison, value.seeds)}, {value.subjects}",
            ]
        )
    header = ["difference", "modality", "of", "x", "mean", "95 % interval", "seeds, subjects"]
    note = (
        "Paired by seed and test subject; the interval is Student's over seeds and over subjects, "
        "both together. Bold: primary comparisons, named in the plan."
    )
    cells = [cell for comparison, _ in compared for cell in (comparison.better, comparison.worse)]
    if any(is_uneven(cell, found) for cell in cells):
        note += (
            " Each subject counts alike, by the mean over its volumes and the structures that they "
            "have. Where these differ between subjects, a difference is not that of the means "
            "above, which are over volumes, then over structures."
        )
    return f"{markdown_table(header, lines)}\n\n{note}"


def ratio_table(rows: list[dict]) -> str:
    """(Ours - ADA) / (R+R - ADA), marked where the denominator may not be above zero."""
    lines = [
        [
            plain(row["x"]),
            number(row["ours_minus_ada"], sign=True),
            number(row["real_minus_ada"], sign=True),
            number(row["ratio"]) + (" (*)" if row["denominator_not_above_zero"] else ""),
        ]
        for row in rows
    ]
    note = (
        "(*) the interval of the denominator is not wholly above zero (or there is none): it is "
        "not shown that real volumes are ahead of ADA, and the ratio means nothing. Both "
        "differences are over the seeds that all three methods have."
    )
    return f"{markdown_table(['x', 'ours - ada', 'real - ada', 'ratio'], lines)}\n\n{note}"


def budget_table(plan: Plan) -> str:
    """What each arm of Table 2 may spend after its parents; they are equal in what counts."""
    lines = []
    for cell in (cell for cell in plan.cells if cell.output == "table2"):
        budget = budget_of(config_of(plan, plan.trials[cell.trials[0]], Path(RUNS)))
        counts = (budget.seg_updates, budget.volumes_read, budget.gen_updates)
        lines.append([cell.modality, cell.method, *map(str, counts)])
    header = ["modality", "method", "updates of S", "volumes S read", "updates of G"]
    note = "After the shared pre-training; volumes are counted for each modality."
    return f"{markdown_table(header, lines)}\n\n{note}"


def answer(plan: Plan, compared: list[tuple], found: Mapping) -> str:
    """Does synthetic data help my segmentor, and by how much? One sentence."""
    parts, asked = [], [pair for pair in compared if pair[0].name == "ours - baseline"]
    for comparison, value in asked:
        modality = comparison.better.modality
        done = finished(comparison.better, found)
        if not done or value.mean != value.mean:
            parts.append(f"for {modality.upper()} there is no result")
            continue
        verdict = {1: "yes", 0: "not shown", -1: "no, it harms"}[value.sign]
        parts.append(
            f"{verdict} for {modality.upper()} with {_counts(done, modality)} real training "
            f"volumes ({value.mean:+.3f} Dice, 95 % interval {interval(value)})"
        )
    text, question = "; ".join(parts), f"{_so_far(asked)}does synthetic data help the segmentor?"
    return (
        f"{_capital(question)} {_capital(text)}, where it trains with the generators (`ours`), "
        "against equally long training on real volumes alone."
    )


def few_real(plan: Plan, output: str, found: Mapping) -> str:
    """How many real volumes the baseline of an output has, from which others differ."""
    base = [c for c in plan.cells if (c.output, c.method) == (output, "baseline")]
    done = {cell.modality: finished(cell, found) for cell in base}
    counts = (f"{_counts(own, m)} of {m.upper()}" for m, own in done.items() if own)
    return f"Few real volumes: {' and '.join(counts) or 'no result yet'}."


def _counts(done: Iterable[Mapping], modality: str) -> str:
    """How many real volumes the seeds trained on: as subjects have several, they may differ."""
    return _range(record["real"][modality] for record in done)


def _so_far(compared: list[tuple]) -> str:
    """What a sentence on these differences begins with where seeds are missing."""
    planned = len(compared[0][0].better.trials)
    counts = sorted(value.seeds for _, value in compared)
    if counts[0] == planned:
        return ""
    return f"so far, with {_range(counts)} of {planned} seeds: "


def _range(counts: Iterable[int]) -> str:
    """As in 3, or 3 to 5."""
    counts = sorted(counts)
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _of_plan(comparison: Comparison, seeds: int) -> str:
    """How many seeds a difference has, beside the plan's number where they are fewer."""
    planned = len(comparison.better.trials)
    return str(seeds) if seeds == planned else f"{seeds} of {planned}"


def provenance(plan: Plan, output: str, workdir: Path, found: Mapping) -> str:
    """Command, commit, seeds of what is shown, data; and the trials without result, by name."""
    own = [found[t.name] for t in plan.wanted([output]) if t.name in found]
    done = [row for row in own if row["status"] == FINISHED]
    shown = (shared_seeds(plan, points, found) for points in beside(plan, output).values())
    seeds = sorted({seed for points in shown for own in points.values() for seed in own})
    command = Path(workdir) / COMMAND
    typed = command.read_text(encoding="utf-8").strip() if command.exists() else "reproduce():"
    lines = [
        f"- command: `{typed} --only={output}`",
        f"- commit: {_listed(commit for row in done for commit in commits_of(row))}",
        f"- seeds: {_listed(map(str, seeds))}; judges: {plan.base.judge.seed}",
        f"- data (sha256 of the store): {_listed(row['data'] for row in done)}",
        f"- {len(done)} of {len(plan.wanted([output]))} trials finished",
    ]
    lines += [
        f"- without result: {row['name']} ({row['status']}: {row['message']})"
        for row in own
        if row["status"] != FINISHED
    ]
    if plan.base.data.attribution:
        lines.append(f"- {plan.base.data.attribution}")
    return "\n".join(lines)


def commits_of(record: Mapping) -> list[str]:
    """Those that have trained it, where they were kept, and the one that has scored it."""
    trained_by = (record["checkpoint"] or {}).get("commits", [])
    return list(dict.fromkeys([*trained_by, record["git"]]))


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, sign: bool = False) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(value) -> str:
    """Both ends of a difference's interval, or why there is none."""
    if value.low != value.low:
        return "-" if value.mean != value.mean else "unknown: it takes two seeds and two subjects"
    return f"{number(value.low, sign=True)} to {number(value.high, sign=True)}"


def plain(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or "-"
