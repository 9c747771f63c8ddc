"""From a run and its scores to report.html: what the report shows, and of which cases."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cyclesh import evaluate
from cyclesh.errors import UserError
from cyclesh.evaluate import Model, VolumeScores
from cyclesh.run import Run
from cyclesh.runtime.logs import read_rows
from cyclesh.scoring.report_data import Event, ReportData

REPORT = "report.html"
# Share of a structure's voxels that the crop cuts off: of what a score will notice (verify tells of
# less).
CUT_WORTH_TELLING = 0.05
PHASE_NAMES = {"pretrain_seg": "pre-training S", "pretrain_gan": "pre-training G, D"}


@dataclass(frozen=True)
class Scored:
    """A run, a model of it, what that reached on a split, and what results.json says."""

    run: Run
    model: Model
    entries: Sequence[VolumeScores]
    results: Mapping

    def report_data(self, title: str, cases: Sequence[str] | None = None) -> ReportData:
        """What the report shows; `cases` names the volumes to draw, else the run chooses."""
        run, store = self.run, self.run.store
        chosen = (
            evaluate.choose_cases(self.entries, run.config.log.report_cases)
            if cases is None
            else [entry for entry in self.entries if entry.volume.id in cases]
        )
        return ReportData(
            title=title,
            modalities=store.description.modalities,
            structures=store.description.names,
            spacing_mm=store.description.spacing_mm,
            results=self.results,
            metrics=read_rows(run.workdir),
            events=events(run),
            case_scores=[row for entry in self.entries for row in entry.rows],
            s_scores=evaluate.s_score_rows(self.entries, store),
            cases=[evaluate.case_images(self.model, store, entry) for entry in chosen],
            warnings=tuple(warnings(run, self.model)),
            attribution=run.config.data.attribution,
        )


def write(
    scored: Scored, compared: Scored | None = None, judges_differ: Sequence[str] = ()
) -> Path:
    """The workdir's report.html and figures/, beside another run's where one is given.

    judges_differ: in which fields the two runs' judges do (`judges.differing_judges`).
    Raises UserError where the two have not the same modalities and structures.
    """
    path = scored.run.workdir / REPORT
    if compared is None:
        _write([scored.report_data(scored.run.workdir.name)], path)
        return path
    one, two = scored.run.workdir, compared.run.workdir
    kinds = [s.run.store.description for s in (scored, compared)]
    if len({(kind.modalities, kind.names) for kind in kinds}) > 1:
        raise UserError(
            f"--compare={two}: has other modalities or structures than {one}; "
            "compare runs on data of one kind"
        )
    titles = (one.name, two.name) if one.name != two.name else (str(one), str(two))
    first = scored.report_data(titles[0])
    same_data = scored.run.store.sha256 == compared.run.store.sha256
    second = compared.report_data(titles[1], [c.case for c in first.cases] if same_data else [])
    warned = (*uncomparable(same_data, judges_differ), *second.warnings)
    _write([first, replace(second, warnings=warned)], path)
    return path


def uncomparable(same_data: bool, judges_differ: Sequence[str]) -> Iterator[str]:
    """Which scores of two runs do not compare, and why."""
    if not same_data:
        yield "trained and scored on other data than the other run: their scores do not compare"
    elif judges_differ:
        fields = ", ".join(judges_differ)
        yield f"other judges than the other run's ({fields} differ): S-scores do not compare"


def events(run: Run) -> list[Event]:
    """Where the phases of a run begin, and where its rates begin to decay."""
    step = 0
    found = []
    for phase in run.phases:
        found.append(Event(step, PHASE_NAMES.get(phase.name, phase.name)))
        step += phase.epochs * run.epoch_steps
    decay = run.config.schedule.decay_epochs
    if decay:
        found.append(Event(step - decay * run.epoch_steps, f"{run.phases[-1].name}, decay"))
    return found


def warnings(run: Run, model: Model) -> Iterator[str]:
    """What gives reason to look: networks that have not learned, unused labels, cut structures."""
    store, description = run.store, run.store.description
    if model.gen is None and "gen" in run.config.moves:
        yield "the generators: not trained yet at this checkpoint, so nothing is translated"
    if model.seg is None and "seg" in run.config.moves:
        yield "the segmentors: not trained yet at this checkpoint, so nothing is segmented"
    if run.config.data.path and description.dropped:  # the phantom has none of them
        values = ", ".join(map(str, description.dropped))
        yield f"unused labels: values {values} count as background"
    for domain, modality in description.by_domain.items():
        there, used = store.select(modality, "train"), run.loader.subset.real[domain]
        if len(used) < len(there):
            yield (
                f"unused labels: {len(there) - len(used)} of {len(there)} {modality.upper()} "
                "training volumes do not exist for this run"
            )
        seen = np.bincount(
            np.concatenate([np.unique(store.label(volume)) for volume in used]),
            minlength=description.classes,
        )
        for name, count in zip(description.names, seen[1:], strict=True):
            if not count:
                yield f"{name}: in no {modality.upper()} training label"
    for volume in store.volumes:
        cut = {name: share for name, share in volume.cut.items() if share >= CUT_WORTH_TELLING}
        if cut and volume.split == "test":
            listed = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in cut.items())
            yield f"{volume.id}: the crop cuts off {listed}"


def _write(runs: Sequence[ReportData], path: Path) -> None:
    # Imported here: it draws, and a run's first step need not wait until matplotlib is there.
    from cyclesh.scoring.report import write_report

    write_report(runs, path)
