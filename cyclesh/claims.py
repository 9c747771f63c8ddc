"""Whose a workdir is: what a run may go on in, what it records there, and that it trains alone.

A workdir holds config.json (every field), data.json (what it was trained on), metrics.jsonl,
TensorBoard events, checkpoints/, and once scored results.json, cases.csv, report.html, figures/.
train.lock is held by the process that trains there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.cache import held
from cyclesh.domains import DOMAINS
from cyclesh.errors import UserError
from cyclesh.files import write_json
from cyclesh.parents import images_behind, volumes_of
from cyclesh.run import Run
from cyclesh.workdir import CONFIG, DATA, read_config, read_json

# Fields that a run may be continued with another value of.
FREE_FIELDS = (
    "steps",
    "data.path",
    "data.processes",
    "data.attribution",
    "log.report_cases",
    "log.keep_every_steps",
    "compute.data_devices",
    "compute.home_devices",
    "compute.depth_devices",
    "compute.save_memory",
    "optim.skip_nonfinite",
)


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Make the workdir this run's, and this process the only one that trains there."""
    check_data(run)  # before a folder is made; `claim` asks again: this may wait for another run
    make_workdir(run.workdir)
    busy = (
        f"{run.workdir}: another process trains here; wait for its end, or give another --workdir"
    )
    with held(run.workdir / "train", busy):
        claim(run)
        yield


def claim(run: Run) -> None:
    """Make the workdir this run's, unless it is another's or began on other data.

    Raises UserError where it is; then nothing is written.
    """
    check_workdir(run.config, run.workdir)
    check_data(run)
    claim_workdir(run.config, run.workdir)
    record_data(run)


def check_workdir(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where the workdir belongs to a run of another config."""
    if not (workdir / CONFIG).exists():
        return
    found = settings.flat(settings.to_json(read_config(workdir)))
    differing = [
        field
        for field, value in settings.flat(settings.to_json(config)).items()
        if field not in FREE_FIELDS
        and found.get(field) != value
        and not (field.startswith("init.") and _moved_along(found.get(field), value, workdir))
    ]
    if differing:
        raise UserError(
            f"{workdir}: was made with another {', '.join(differing[:3])}; "
            "give another --workdir, or that config"
        )


def _moved_along(parent_then: str, parent_now: str, workdir: Path) -> bool:
    """Whether a run's parent lies beside it and has its old name: their folder was moved."""
    now = Path(parent_now)
    beside = parent_now and now.absolute().parent == workdir.absolute().parent
    return bool(beside and parent_then) and Path(parent_then).name == now.name


def claim_workdir(config: ConfigDict, workdir: Path) -> None:
    """Make the workdir and its config.json."""
    make_workdir(workdir)
    with _writable(workdir):
        write_json(workdir / CONFIG, settings.to_json(config))


def make_workdir(workdir: Path) -> None:
    """The folder alone. Raises UserError where it cannot be made."""
    with _writable(workdir):
        workdir.mkdir(parents=True, exist_ok=True)


@contextmanager
def _writable(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot be written ({error.strerror}); give another --workdir"
        ) from None


def check_data(run: Run) -> None:
    """Raises UserError where the run began on other data than its store holds."""
    path = run.workdir / DATA
    if path.exists() and read_json(path).get("sha256") != run.store.sha256:
        raise UserError(
            f"{run.workdir}: began on other data than {run.store.root} now holds; "
            "give another --workdir, or those data"
        )


def record_data(run: Run) -> None:
    """data.json: what the run is trained on; a store that changed under the run is refused.

    Its `images` are, by the files' hashes, all that its networks learn from: what those that `init`
    names have learned from is among it.
    """
    store, subset = run.store, run.loader.subset
    check_data(run)
    begun = (run.workdir / DATA).exists()  # then it has kept what is behind it
    behind = [run.workdir] if begun else [parent for parent in run.config.init.values() if parent]
    before = [images_behind(Path(folder), store) for folder in behind]

    def ids(volumes: dict) -> dict[str, list[str]]:
        return {run.modality(domain): [v.id for v in volumes[domain]] for domain in DOMAINS}

    write_json(
        run.workdir / DATA,
        {
            "description": store.description.to_json(),
            "windows": {m: list(store.window(m)) for m in store.description.modalities},
            "sha256": store.sha256,
            "split_sha256": store.split_sha256,
            "generation": run.generation,
            "real": ids(subset.real),
            "source": ids(subset.source),
            "images": {
                **{image: name for images in before for image, name in images.items()},
                **{v.source.sha256_image: v.id for v in volumes_of(subset)},
            },
        },
    )
