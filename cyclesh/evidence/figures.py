"""The paper's figures from what a plan's trials left: curves from rows, pictures from networks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cyclesh import evaluate
from cyclesh.data.locate import open_store
from cyclesh.data.store import Volume
from cyclesh.domains import DOMAINS, other
from cyclesh.evaluate import Model
from cyclesh.evidence.pages import provenance
from cyclesh.evidence.records import FINISHED, RUNS, has_lost_networks
from cyclesh.evidence.trials import DICE, S_SCORE, Plan
from cyclesh.run import Run, build_run, load_params
from cyclesh.scoring.plots import Line, Panel, Tile, curves_figure, tiles_figure
from cyclesh.scoring.slices import PLANES, centre_of_structures, cut, pixel_mm
from cyclesh.scoring.style import save_figure
from cyclesh.workdir import read_config

METHODS = ("baseline", "ada", "ours", "real")  # in the order of their colours
NAMES = {
    "baseline": "Baseline (R)",
    "ada": "ADA (R+S)",
    "ours": "Ours (R+S)",
    "real": "Baseline (R+R)",
    "no_sc": "gamma 0",
    "sc": "shape consistency",
}
CASES = 2  # shown of each direction or modality


def draw(plan: Plan, output: str, workdir: Path, rows: list[dict], found: Mapping) -> list[Path]:
    """The figure of an output as .png and .svg; none where it has none, or no trial a result.

    Where it comes from is in the files' metadata, since they are passed on without their page.
    """
    drawers = {
        "figure7": figure7,
        "figure8": figure8,
        "displacement": displacement,
        "figure3": figure3,
        "figure6": figure6,
    }
    done = all(found.get(name, {}).get("status") == FINISHED for name in _pictured(plan, output))
    if output not in drawers or not done:
        return []
    figure = drawers[output](plan, workdir, rows, found)
    if figure is None:
        return []
    save_figure(figure, Path(workdir) / output, provenance(plan, output, workdir, found))
    return pictures(output, workdir)


def pictures(output: str, workdir: Path) -> list[Path]:
    """Where the figure of an output is, if it has one."""
    return [Path(workdir) / f"{output}.{kind}" for kind in ("png", "svg")]


def without_networks(plan: Plan, output: str, workdir: Path) -> list[str]:
    """Of the trials that an output pictures: those whose records are here, but not their networks.

    Records may come from elsewhere, and folders be deleted once scored.
    """
    names = _pictured(plan, output)
    return [name for name in names if has_lost_networks(workdir, plan.trials[name])]


def _pictured(plan: Plan, output: str) -> list[str]:
    """Trials without which there is no picture: those of the first seed."""
    if output not in ("figure3", "figure6"):
        return []
    return [name for name in plan.needs[output] if plan.trials[name].seed == plan.base.seed]


# ------------------------------------------------------------------------------------------ curves


def _line(rows: list[dict], label: str, colour: int, style: int = 0) -> Line:
    rows = sorted((row for row in rows if row["mean"] is not None), key=lambda row: row["x"])
    return Line(label, *([row[key] for row in rows] for key in ("x", "mean", "sd")), colour, style)


def _lines(rows: list[dict]) -> list[Line]:
    lines = [
        _line([row for row in rows if row["method"] == method], NAMES[method], colour)
        for colour, method in enumerate(METHODS)
    ]
    return [line for line in lines if line.x]


def _means(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["structure"] == "mean" and row["mean"] is not None]


def figure7(plan: Plan, workdir: Path, rows: list[dict], found: Mapping):
    """Dice over the share of real data, each modality; over synthetic volumes where there are."""
    panels, means = [], _means(rows)
    for modality in plan.modalities:
        own = [r for r in means if r["modality"] == modality and 0 < r["x"] <= 1]
        title = f"{modality.upper()}, few real volumes"
        panels.append(Panel(title, "share of the real training data", "test Dice", _lines(own)))
    many = [r for r in means if r["x"] > 1]
    if many:
        modality = many[0]["modality"]
        levels = [("nothing translated", r["mean"]) for r in means if r["x"] == 0]
        title = f"{modality.upper()}, all real volumes"
        panels.append(Panel(title, "source volumes translated", "test Dice", _lines(many), levels))
    return _curves(plan, panels)


def figure8(plan: Plan, workdir: Path, rows: list[dict], found: Mapping):
    """Dice over how much was added to few real volumes: real or synthetic."""
    means = _means(rows)
    levels = [("nothing added", r["mean"]) for r in means if r["x"] == 0]
    lines = _lines([r for r in means if r["x"] > 0])
    title, x_label = plan.modalities[1].upper(), "added, as a share of the training volumes"
    return _curves(plan, [Panel(title, x_label, "test Dice", lines, levels)])


def displacement(plan: Plan, workdir: Path, rows: list[dict], found: Mapping):
    """Millimetres along the shift over the updates, each modality of synthetic volumes."""
    panels = []
    for modality in plan.modalities:
        own = [r for r in rows if r["modality"] == modality and r["mean"] is not None]
        lines = [
            _line(
                [r for r in own if (r["method"], r["structure"]) == (arm, measure)],
                f"{NAMES[arm]}, {label}",
                colour,
                style,
            )
            for colour, arm in enumerate(("no_sc", "sc"))
            for style, (measure, label) in enumerate(
                (("structures", "judge's structures"), ("phase", "phase correlation"))
            )
        ]
        floor = [r["mean"] for r in own if r["structure"] == "judge"]
        levels = [("judge on true volumes", floor[0])] if floor else []
        lines = [line for line in lines if line.x]
        title = f"synthetic {modality.upper()}"
        y_label = "displacement along the shift, mm"
        panels.append(Panel(title, "generator updates", y_label, lines, levels))
    return _curves(plan, panels)


def _curves(plan: Plan, panels: list[Panel]):
    """The panels as a figure; None where there is nothing to draw in any."""
    drawn = any(panel.lines or panel.levels for panel in panels)
    return curves_figure(panels, _note(plan)) if drawn else None


def _note(plan: Plan) -> str:
    return plan.base.data.attribution


# ---------------------------------------------------------------------------------------- pictures


def trained(workdir: Path, name: str) -> tuple[Run, Model]:
    """A trial's networks at its best checkpoint."""
    folder = Path(workdir) / RUNS / name
    config = read_config(folder)
    run = build_run(config, folder, open_store(config, progress=False))
    params = load_params(run, "best")
    return run, Model(evaluate.make_forward(run.nets), params.gen, params.seg, None)


def chosen_cases(record: Mapping, measure: str, modality: str) -> list[str]:
    """Cases at a quarter and three quarters of the ranking by a record's mean Dice: no choice."""
    table: dict[str, list[float]] = {}
    for cases in record["cases"][measure][modality].values():
        for case, value in cases.items():
            table.setdefault(case, []).append(0.0 if value is None else value)
    ranked = sorted(table, key=lambda case: (np.mean(table[case]), case))
    places = [round((i + 0.5) / CASES * (len(ranked) - 1)) for i in range(CASES)]
    return [ranked[place] for place in dict.fromkeys(places)]


def mean_dice(record: Mapping, measure: str, modality: str, case: str) -> float:
    """Of one case, over its structures."""
    values = [cases.get(case) for cases in record["cases"][measure][modality].values()]
    return float(np.mean([value for value in values if value is not None] or [0.0]))


def figure3(plan: Plan, workdir: Path, rows: list[dict], found: Mapping):
    """Inputs, translations of them by CycleGAN, by ours with gamma 0, by ours: axial cuts.

    Cases are chosen by CycleGAN's S-score.
    """
    labels = {"cyclegan": "CycleGAN", "no_sc": f"ours, {NAMES['no_sc']}", "ours": "ours"}
    names = {label: f"all-{arm}-s{plan.base.seed}" for arm, label in labels.items()}
    models = {label: trained(workdir, name) for label, name in names.items()}
    store = models["ours"][0].store
    spacing_mm = store.description.spacing_mm
    lines: dict[str, list[Tile]] = {"input": [], **{label: [] for label in names}}
    for domain in reversed(DOMAINS):  # MR to CT first, as in the paper
        modality = plan.modalities[DOMAINS.index(other(domain))]
        for case in chosen_cases(found[names["CycleGAN"]], S_SCORE, modality):
            volume = _volume(store, case)
            image, centre = store.image(volume), _centre(store, volume)

            def tile(voxels: np.ndarray, title: str, centre=centre) -> Tile:
                size_mm = pixel_mm(PLANES[0], spacing_mm)
                return Tile(cut(voxels, PLANES[0], centre), None, size_mm, title)

            lines["input"].append(tile(image, f"{volume.modality.upper()} {case}"))
            for label, (_, model) in models.items():
                value = mean_dice(found[names[label]], S_SCORE, modality, case)
                fake = model.translate(other(domain), image)
                lines[label].append(tile(fake, f"synthetic {modality.upper()}, S {value:.2f}"))
    return tiles_figure(list(lines.values()), list(lines), plan.structures, _note(plan))


def figure6(plan: Plan, workdir: Path, rows: list[dict], found: Mapping):
    """Labels, the baseline's segmentation, ours; axial and sagittal, cases by the baseline's."""
    lines, titles = [], []
    for domain, modality in zip(DOMAINS, plan.modalities, strict=True):
        trials = [c for c in plan.cells if (c.output, c.modality) == ("table2", modality)]
        names = {c.method: c.trials[0] for c in trials if c.method in ("baseline", "ours")}
        models = {method: trained(workdir, name) for method, name in names.items()}
        store = models["ours"][0].store
        for case in chosen_cases(found[names["baseline"]], DICE, modality):
            volume = _volume(store, case)
            image, centre = store.image(volume), _centre(store, volume)
            views = [("label", store.label(volume), "label")]
            for method, (_, model) in models.items():
                dice = mean_dice(found[names[method]], DICE, modality, case)
                classes = model.segment(model.seg[domain], image)
                views.append((method, classes, f"{NAMES[method]} {dice:.2f}"))
            titles.append(f"{modality.upper()} {case}")
            lines.append(
                [
                    Tile(
                        cut(image, plane, centre),
                        cut(classes, plane, centre),
                        pixel_mm(plane, store.description.spacing_mm),
                        title,
                    )
                    for plane in (PLANES[0], PLANES[2])
                    for _, classes, title in views
                ]
            )
    return tiles_figure(lines, titles, plan.structures, _note(plan))


def _volume(store, case: str) -> Volume:
    return next(volume for volume in store.volumes if volume.id == case)


def _centre(store, volume: Volume) -> tuple[int, ...]:
    return centre_of_structures(store.label(volume), store.description.shape)
