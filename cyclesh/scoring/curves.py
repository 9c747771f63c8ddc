"""Training curves from metrics.jsonl, and the spread of Dice over the test cases."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation

from cyclesh.scoring.cases import CaseScore
from cyclesh.scoring.report_data import Event
from cyclesh.scoring.style import BLACK, GREEN, MUTED, RULE, line_colour, plot_style

NETWORKS = (("gen", "Generators"), ("disc", "Discriminators"), ("seg", "Segmentors"))
PANEL_INCHES = (4.6, 3.1)
TITLE_PAD = 18  # points: room for the best checkpoint's star and the names of the phases
Metrics = Sequence[Mapping[str, Any]]
Draw = Callable[[Axes], None]


class Curve(NamedTuple):
    steps: np.ndarray
    values: np.ndarray  # NaN where the curve pauses


def panels(
    metrics: Metrics, events: Sequence[Event], best_step: int | None, modalities: Sequence[str]
) -> dict[str, tuple[str, Draw]]:
    """What can be drawn of a run: name -> title and a function that draws on axes.

    A modality has the colour of its place among ``modalities``, as everywhere in a report.

    Networks that a run did not train, and validation that it did not do, have no panel.
    """
    found: dict[str, tuple[str, Draw]] = {}

    def add(name: str, title: str, draw: Callable[[Axes], None]) -> None:
        def whole(axis: Axes) -> None:
            _draw_events(axis, metrics, events)
            draw(axis)
            _draw_best(axis, best_step)
            axis.set_title(title, pad=TITLE_PAD)
            _scale_steps(axis, metrics)

        found[name] = (title, whole)

    for prefix, title in NETWORKS:
        if curves := _curves(metrics, f"{prefix}/", pauses=True):
            add(prefix, title, partial(_draw_losses, curves=curves))
    if scores := _curves(metrics, "val/dice_") | _curves(metrics, "val/s_score_"):
        add(
            "validation",
            "Validation",
            partial(_draw_validation, curves=scores, modalities=modalities),
        )
    return found


def panel_figure(draw: Draw) -> Figure:
    """One panel alone: the page lays panels out itself, one below the other on a phone."""
    return curves_figure([draw])


def curves_figure(draws: Sequence[Draw]) -> Figure:
    """All panels in one figure, two in a row."""
    columns = min(2, len(draws))
    rows = -(-len(draws) // columns)
    width, height = PANEL_INCHES
    with plot_style():
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, draw in zip(axes, draws, strict=False):
            draw(axis)
        for axis in axes[len(draws) :]:
            axis.set_visible(False)
    return figure


def draw_boxes(
    axis: Axes,
    title: str,
    scores: Sequence[CaseScore],
    structures: Sequence[str],
    modalities: Sequence[str],
) -> None:
    """Dice over the cases: a box for each structure and modality, and every case as a dot.

    A box holds the middle half of the cases, its line is the median; whiskers reach the farthest
    case within 1.5 times the box's height.
    """
    offsets = np.linspace(-0.2, 0.2, len(modalities)) if len(modalities) > 1 else [0.0]
    for number, (modality, offset) in enumerate(zip(modalities, offsets, strict=True)):
        colour, marker = line_colour(number), "os"[number % 2]
        for position, structure in enumerate(structures):
            values = np.array(
                [s.dice for s in scores if (s.modality, s.structure) == (modality, structure)]
            )
            values = values[np.isfinite(values)]
            if values.size:
                _draw_box(axis, values, position + offset, colour, marker)
        axis.plot([], [], marker, ms=4, color=colour, label=modality.upper())
    axis.set_title(title)
    axis.set(xticks=range(len(structures)), xticklabels=structures, ylim=(-0.02, 1.02))
    axis.set_xlim(-0.5, len(structures) - 0.5)
    axis.grid(False, axis="x")
    _legend_below(axis, columns=len(modalities), points=24)


def _draw_box(axis: Axes, values: np.ndarray, place: float, colour: str, marker: str) -> None:
    # Even spacing by rank keeps equal scores apart, the same way every time.
    spread = np.linspace(-0.1, 0.1, values.size) if values.size > 1 else np.zeros(1)
    axis.plot(place + spread, np.sort(values), marker, ms=2.6, mew=0, alpha=0.5, color=colour)
    axis.boxplot(
        values, positions=[place], widths=0.3, showfliers=False, manage_ticks=False,
        boxprops={"color": colour}, whiskerprops={"color": colour}, capprops={"color": colour},
        medianprops={"color": colour, "linewidth": 2.2},
    )  # fmt: skip


def _curves(metrics: Metrics, prefix: str, pauses: bool = False) -> dict[str, Curve]:
    """Every key with the prefix -> its finite values; in the order of their first row.

    Gradient norms are left out: they are no losses, and of another scale. Where a network rests,
    all of its keys are missing from the rows: with `pauses`, curves are then not drawn across.
    """
    keys = dict.fromkeys(key for row in metrics for key in row if key.startswith(prefix))
    rows = [row for row in metrics if pauses or not keys.keys().isdisjoint(row)]
    curves = {}
    for key in keys:
        if key.endswith("/grad"):
            continue
        points = [
            (row["step"], row.get(key, np.nan))
            for row in rows
            if _is_finite(row.get(key)) or keys.keys().isdisjoint(row)
        ]
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        seen = np.flatnonzero(np.isfinite(values))
        if seen.size:
            first, last = seen[0], seen[-1] + 1
            curves[key] = Curve(steps[first:last], values[first:last])
    return curves


def _is_finite(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _draw_losses(axis: Axes, curves: dict[str, Curve]) -> None:
    parts = [key for key in curves if not key.endswith("/total")]
    for key, curve in curves.items():
        colour = line_colour(parts.index(key)) if key in parts else BLACK
        axis.plot(*curve, color=colour, alpha=0.22, lw=0.8)
        name = key.split("/", 1)[1]
        axis.plot(curve.steps, _rolling_median(curve.values), color=colour, lw=1.6, label=name)
    if all(np.nanmin(curve.values) > 0 for curve in curves.values()):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("loss")
    _legend_below(axis, columns=4, points=36)


def _draw_validation(axis: Axes, curves: dict[str, Curve], modalities: Sequence[str]) -> None:
    for key, curve in sorted(curves.items()):  # alike whichever came first
        score, domain = _score_name(key)
        style = "-o" if score == "Dice" else "--s"
        label = f"{score}, {'synthetic ' if score != 'Dice' else ''}{domain.upper()}"
        colour = line_colour(modalities.index(domain))
        axis.plot(*curve, style, color=colour, lw=1.4, ms=2.8, label=label)
    axis.set(ylabel="score", ylim=(0, 1))
    _legend_below(axis, columns=2, points=36)


def _score_name(key: str) -> tuple[str, str]:
    """ "val/dice_ct" -> ("Dice", "ct")."""
    for prefix, score in (("val/dice_", "Dice"), ("val/s_score_", "S-score")):
        if key.startswith(prefix):
            return score, key.removeprefix(prefix)
    raise ValueError(f"{key} is no validation score")


def _draw_events(axis: Axes, metrics: Metrics, events: Sequence[Event]) -> None:
    """Bands of alternating shade, each with the name of what begins there."""
    last = metrics[-1]["step"]
    begun = [event for event in events if event.step < last]
    for number, (event, following) in enumerate(pairwise([*begun, Event(last, "")])):
        if number % 2:
            axis.axvspan(event.step, following.step, color=RULE, alpha=0.45, lw=0)
        axis.annotate(
            event.name, (event.step, 1), (3, 6), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=7, color=MUTED,
        )  # fmt: skip


def _draw_best(axis: Axes, best_step: int | None) -> None:
    """A line at the checkpoint that was scored, with a star on top."""
    if best_step is None:
        return
    axis.axvline(best_step, color=GREEN, lw=1.3, ls=(0, (4, 2)))
    axis.plot(
        [best_step], [1.0], "*", color=GREEN, ms=9, clip_on=False,
        transform=axis.get_xaxis_transform(), label="_best checkpoint",
    )  # fmt: skip


def _scale_steps(axis: Axes, metrics: Metrics) -> None:
    """The whole run, so that the panels can be compared."""
    axis.set(xlabel="step", xlim=(0, max(metrics[-1]["step"], 1)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _legend_below(axis: Axes, columns: int, points: float) -> None:
    """A legend at a distance below the axes that does not depend on their height."""
    below = ScaledTranslation(0, -points / 72, axis.figure.dpi_scale_trans)
    axis.legend(
        loc="upper left", bbox_to_anchor=(-0.02, 0), bbox_transform=axis.transAxes + below,
        ncols=columns, borderpad=0, borderaxespad=0,
    )  # fmt: skip


def _rolling_median(values: np.ndarray) -> np.ndarray:
    """Median over a twenty-fifth of the curve around each point: GAN losses are mostly noise.

    Of each piece between pauses by itself.
    """
    half = len(values) // 50
    smooth = np.full_like(values, np.nan)
    for piece in np.ma.clump_unmasked(np.ma.masked_invalid(values)):
        padded = np.pad(values[piece], half, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
        smooth[piece] = np.median(windows, axis=-1)
    return smooth
