"""Checkpoints with orbax: the newest, the best by validation, and every N steps on request.

A checkpoint is a folder named by its step that holds trees of arrays by name (one for each kind of
network, one for what only training needs) and `meta`. The data order and all randomness are
functions of (seed, step), so nothing else is stored.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cyclesh.errors import UserError, disk_trouble, first_line
from cyclesh.runtime.distributed import from_first

META = "meta"
SCORE = "validation"
JSON_FILES = ("metrics/metrics", f"{META}/metadata")  # of a checkpoint, as orbax names them
DAMAGED = "damaged-"  # before the name of a checkpoint that was set aside: not orbax's any more


class Checkpoints:
    """The checkpoints of one workdir. Close it (or leave its `with`) to finish pending writes."""

    def __init__(self, folder: Path, keep_every_steps: int = 0, read_only: bool = False):
        """A reader is read_only: a writer clears away unfinished saves, which may be another's.

        Raises: UserError for damage that a reader may not set aside, or that spares none.
        """
        keep = [
            policies.LatestN(2),  # the newest, and the one to fall back to should it be damaged
            policies.BestN(
                get_metric_fn=lambda metrics: metrics[SCORE],
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        if keep_every_steps:
            keep.append(policies.EveryNSteps(keep_every_steps))
        self.folder = Path(folder).absolute()
        if read_only:
            if not self.folder.is_dir():  # orbax would make it
                raise UserError(f"{self.folder.parent}: has no checkpoints; train there first")
            _refuse_damaged(self.folder)
        else:
            from_first(partial(_tidy, self.folder))
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(keep),
                best_fn=lambda metrics: metrics[SCORE],
                best_mode="max",
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        # An error under way is the one to tell; a save that failed would be told again here.
        with suppress(Exception) if kind else self._writing():
            self._manager.close()

    def steps(self) -> list[int]:
        """Finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def scores(self) -> dict[int, float]:
        """Validation score of each checkpoint that has one."""
        found = {}
        for step in self.steps():
            metrics = self._manager.metrics(step)
            if metrics and SCORE in metrics:
                found[step] = metrics[SCORE]
        return found

    def best_step(self) -> int | None:
        """The step of the highest validation score (the later of equals); None without any."""
        scores = self.scores()
        return max(scores, key=lambda step: (scores[step], step)) if scores else None

    def resolve(self, which: str) -> int:
        """The step that "best", "last" or a number stands for. Raises UserError where none is."""
        steps = self.steps()
        if not steps:
            raise UserError(f"{self.folder}: no checkpoint; train first")
        if which == "last":
            return steps[-1]
        if which == "best":
            best = self.best_step()
            return steps[-1] if best is None else best
        if which.isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(
            f"--checkpoint={which}: {self.folder} holds best, last and {', '.join(map(str, steps))}"
        )

    def save(self, step: int, trees: dict, meta: dict, score: float | None) -> None:
        """Start writing a checkpoint; a non-finite score counts as none."""
        scored = score is not None and math.isfinite(score)
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(**items, **{META: ocp.args.JsonSave(meta)}),
                metrics={SCORE: float(score)} if scored else None,
                force=True,
            )

    def wait(self) -> None:
        """Until everything that was saved is on disk. Raises UserError where that has no room."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A disk that takes no more is the user's to mend; saves fail in the one that follows."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = disk_trouble(error)
            if reason is None:
                raise
            raise UserError(
                f"{self.folder}: a checkpoint cannot be written ({reason}); mend that, and the "
                "same command goes on from the last one"
            ) from None

    def holds(self, step: int, name: str, template) -> bool:
        """Whether a tree was saved with the shapes of ``template``.

        Ask before restoring: what does not fit fails in orbax's threads, noisily.
        """
        stored = ocp.StandardCheckpointHandler().metadata(self.folder / str(step) / name).tree
        return _shapes(stored) == _shapes(template)

    def restore(self, step: int, **templates) -> dict:
        """Items of one checkpoint, each like its template tree (arrays or ShapeDtypeStructs)."""
        args = {
            name: ocp.args.StandardRestore(jax.tree.map(_abstract, template))
            for name, template in templates.items()
        }
        return dict(self._manager.restore(step, args=ocp.args.Composite(**args)).items())

    def meta(self, step: int) -> dict:
        """What was saved beside the trees."""
        args = ocp.args.Composite(**{META: ocp.args.JsonRestore()})
        return dict(self._manager.restore(step, args=args)[META])

    def restore_newest(self, **templates) -> tuple[int, dict] | None:
        """(step, items) of the newest checkpoint that can be read; None where none was ever saved.

        Damaged ones are set aside, loudly, for the one before. Raises: UserError where none can be
        read (then nothing is changed), or where the newest has other trees than the templates.
        """
        unread = {}
        for step in reversed(self.steps()):
            try:
                other = [
                    name for name, tree in templates.items() if not self.holds(step, name, tree)
                ]
                items = {} if other else self.restore(step, **templates)
                self.meta(step)
            except Exception as error:  # orbax raises whatever its file formats raise
                unread[step] = first_line(error)
                continue
            if other:
                raise UserError(
                    f"{self.folder / str(step)}: holds other {', '.join(other)} than the config "
                    "says; give another --workdir, or the version that it was trained with"
                )
            self._set_aside(unread)
            return step, items
        if unread:
            raise _none_left(self.folder, unread)
        return None

    def _set_aside(self, unread: dict[int, str]) -> None:
        if unread:
            from_first(partial(_rename, self.folder, unread))
            self._manager.reload()


def _tidy(folder: Path) -> None:
    """Clear unfinished saves, and set aside what orbax's manager cannot even be made with."""
    _clear_unfinished(folder)
    broken = _broken(folder)
    if broken and broken.keys() == set(saved_steps(folder)):
        raise _none_left(folder, broken)
    _rename(folder, broken)


def _refuse_damaged(folder: Path) -> None:
    for step, reason in _broken(folder).items():
        raise UserError(
            f"{folder / str(step)}: a damaged checkpoint ({reason}); the command that trained it "
            "sets it aside and goes on from the one before"
        )


def _none_left(folder: Path, reasons: dict[int, str]) -> UserError:
    """To start over would be to lose the run by a fault that may be mended."""
    newest = max(reasons)
    return UserError(
        f"{folder}: none of the checkpoints can be read ({newest}: {reasons[newest]}); put back a "
        "copy, or delete the folder to train from the start"
    )


def _rename(folder: Path, reasons: dict[int, str]) -> None:
    """Set checkpoints aside, by step, under a name that nothing reads."""
    for step, reason in reasons.items():
        aside, copies = folder / f"{DAMAGED}{step}", 1
        while aside.exists():
            copies += 1
            aside = folder / f"{DAMAGED}{step}-{copies}"
        (folder / str(step)).rename(aside)
        print(
            f"cyclesh: checkpoint {folder / str(step)} cannot be read ({reason}); kept as "
            f"{aside.name}; falling back to the one before",
            file=sys.stderr,
        )


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, by name alone; none where there is no folder."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())


def _broken(folder: Path) -> dict[int, str]:
    """Of the checkpoints whose small JSON files are no JSON: what is wrong."""
    found = {}
    for step in saved_steps(folder):
        for name in JSON_FILES:
            try:
                json.loads((folder / str(step) / name).read_bytes())
            except FileNotFoundError:  # without a score, or removed meanwhile
                continue
            except ValueError as error:
                found[step] = f"{name}: {first_line(error)}"
    return found


def _clear_unfinished(folder: Path) -> None:
    """Remove what an interrupted save left: its folder has another name until it is whole.

    Not by orbax, whose removal gives up on files that appear under it: a save that failed in this
    process, for want of room say, may still have threads that write.
    """
    give_up = time.monotonic() + 10
    while left := list(folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*")):
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        if time.monotonic() > give_up:
            raise UserError(f"{left[0]}: an unfinished checkpoint that cannot be removed; do so")
        time.sleep(0.05)


def _shapes(tree) -> dict[tuple[str, ...], tuple[int, ...]]:
    """By path, for orbax tells of named tuples as dicts and of empty ones as None."""
    flat = ocp.tree.to_flat_dict(tree)
    return {path: tuple(leaf.shape) for path, leaf in flat.items() if leaf is not None}


def _abstract(leaf):
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
