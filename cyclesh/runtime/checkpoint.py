"""Checkpoints with orbax: the newest, the best by validation, and every N steps on request.

A checkpoint is a folder named by its step that holds trees of arrays by name (one for each kind of
network, one for what only training needs) and `meta`. The data order and all randomness are
functions of (seed, step), so nothing else is stored.
"""

import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cyclesh.errors import UserError, disk_trouble

META = "meta"
SCORE = "validation"


class Checkpoints:
    """The checkpoints of one workdir. Close it (or leave its `with`) to finish pending writes."""

    def __init__(self, folder: Path, keep_every_steps: int = 0, read_only: bool = False):
        """A reader is read_only: a writer clears away unfinished saves, which may be another's."""
        keep = [
            policies.LatestN(2),  # the newest, and the one to fall back to should it be damaged
            policies.BestN(get_metric_fn=lambda metrics: metrics[SCORE], n=1),
        ]
        if keep_every_steps:
            keep.append(policies.EveryNSteps(keep_every_steps))
        self.folder = Path(folder).absolute()
        if not read_only and jax.process_index() == 0:
            _clear_unfinished(self.folder)
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
        if which.isdigit() and int(which) in steps:
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
        """(step, items) of the newest checkpoint that can be read; None without any.

        A damaged one is passed over, loudly, for the one before.
        """
        for step in reversed(self.steps()):
            try:
                return step, self.restore(step, **templates)
            except Exception as error:  # orbax raises whatever its file formats raise
                logging.error(
                    "checkpoint %s/%d cannot be read (%s); falling back to the one before",
                    self.folder,
                    step,
                    str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
                )
                damaged = self.folder / f"{step}"
                self._manager.delete(step)
                logging.error("checkpoint %s removed", damaged)
        return None


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


def _shapes(tree) -> dict:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _abstract(leaf):
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
