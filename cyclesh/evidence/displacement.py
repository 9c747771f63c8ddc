"""The ambiguity of cycle consistency (section 3.2), provoked and measured.

If G_A and G_B are cycle-consistent, so are G'_B = T G_B and G'_A = G_A T^-1 for any invertible T:
here a shift of a few voxels, circular so that it has an exact inverse. Generators are composed with
it and trained on; how far the synthetic anatomy lies from the truth is measured as they train.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cyclesh import evaluate, judges, loop
from cyclesh.cache import cache_folder
from cyclesh.claims import check_workdir, claim
from cyclesh.data.locate import open_store
from cyclesh.data.store import Volume
from cyclesh.domains import DOMAINS, other
from cyclesh.evaluate import Model
from cyclesh.evidence.trials import MEASURED
from cyclesh.parents import load_init, load_tree
from cyclesh.results import score
from cyclesh.run import (
    Run,
    as_trees,
    build_run,
)
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.devices import set_up_training
from cyclesh.scoring.shift import phase_shift_mm, structures_shift_mm
from cyclesh.state import Players
from cyclesh.workdir import CHECKPOINTS

Shift = tuple[int, int, int]
# The direction of the shift in the synthetic volumes of each domain: T in B, its inverse in A.
DIRECTIONS = {"A": -1, "B": 1}


class Shifted(nn.Module):
    """A generator between two circular shifts of whole voxels: roll(G(roll(x, before)), after).

    The shifts are part of each domain's parameters, get no gradient, and so never change.
    """

    generator: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        before, after = (
            jax.lax.stop_gradient(self.param(name, nn.initializers.zeros, (3,)))
            for name in ("before", "after")
        )
        return _roll(self.generator(_roll(x, before)), after)


def _roll(x: jax.Array, voxels: jax.Array) -> jax.Array:
    return jnp.roll(x, jnp.round(voxels).astype(jnp.int32), axis=(1, 2, 3))


def composed(trees: dict, shift: Shift) -> dict:
    """{"A": tree of G_A T^-1, "B": tree of T G_B} of the trees of G_A and G_B."""
    still, moved = jnp.zeros(3), jnp.asarray(shift, jnp.float32)
    return {
        "A": {"generator": trees["A"], "before": -moved, "after": still},
        "B": {"generator": trees["B"], "before": still, "after": moved},
    }


def train_displaced(
    config: ConfigDict, workdir: Path, shift: Shift, quiet: bool = False
) -> tuple[dict, list[dict]]:
    """Train from `init`'s generators composed with the shift; resumes as `train.train` does.

    Returns: the content of results.json, and the rows of `measure_all`.
    """
    begin = time.time()
    set_up_training(cache_folder("compiled"))
    check_workdir(config, workdir)
    store = open_store(config, progress=not quiet)
    plain = build_run(config, workdir, store)

    def make_nets(mesh: Mesh | None) -> Players:
        nets = plain.make_nets(mesh)
        return nets._replace(gen=Shifted(nets.gen))

    run = replace(plain, make_nets=make_nets)
    claim(run)
    judge = judges.get_judges(config, store, quiet)
    save_start(plain, run, shift)
    loop.fit(run, lambda: judge, quiet)
    rows = list(measure_all(run, judge, shift))
    return score(run, judge, "test", "best", wall_s=time.time() - begin), rows


def save_start(plain: Run, run: Run, shift: Shift) -> None:
    """Checkpoint 0: fresh but for `init`'s networks, the generators composed with the shift."""
    with Checkpoints(run.workdir / CHECKPOINTS, run.config.log.keep_every_steps) as checkpoints:
        if checkpoints.steps():
            return
        fresh = jax.jit(run.new_state)(jax.random.key(run.config.seed))
        taken = load_init(run.config, plain.state_shapes.params)
        taken["gen"] = composed(taken["gen"], shift)
        start = fresh._replace(params=fresh.params._replace(**taken))
        checkpoints.save(0, as_trees(start), {"step": 0, "store": run.store.sha256}, None)
        checkpoints.wait()


def measure_all(run: Run, judge: dict, shift: Shift) -> Iterator[dict]:
    """`measure` at the start, every `log.keep_every_steps` updates, and at the end.

    Others are kept as the best or since the training was stopped there: of one seed, not of all.
    """
    forward = evaluate.make_forward(run.nets)
    shapes = run.state_shapes.params.gen
    with Checkpoints(run.workdir / CHECKPOINTS, read_only=True) as checkpoints:
        kept = checkpoints.steps()
    for step in filter(partial(is_measured, run), kept):
        gen = load_tree(run.workdir, str(step), "gen", shapes)
        for row in measure(run, Model(forward, gen, None, judge), shift):
            yield {"step": step, **row}


def is_measured(run: Run, step: int) -> bool:
    """Whether every seed has a checkpoint there."""
    return step % run.config.log.keep_every_steps == 0 or step == run.total_steps


def measure(run: Run, model: Model, shift: Shift) -> Iterator[dict]:
    """How far the anatomy of synthetic test volumes lies from the truth, along the shift.

    One row a modality of the synthetic volumes, means over test subjects in mm; positive the way
    that the generators were shifted. "structures": centres of the judge's structures against those
    of the label. "judge": the same on the true volumes of the same subjects, the measurement's own
    error. "phase": phase correlation with those true volumes. The last two are None without a
    paired truth.
    """
    for domain in DOMAINS:
        source = other(domain)
        volumes = run.store.select(run.modality(source), "test")
        seen = [_shifts_of(run, model, domain, volume) for volume in volumes]
        along = np.asarray(shift) * run.store.description.spacing_mm
        along = along / np.linalg.norm(along) * DIRECTIONS[domain]
        yield {
            "modality": run.modality(domain),
            **{name: _mean([shifts.get(name) for shifts in seen], along) for name in MEASURED},
            "subjects": len(seen),
        }


def _shifts_of(run: Run, model: Model, domain: str, volume: Volume) -> dict[str, np.ndarray]:
    store = run.store
    classes, spacing_mm = store.description.classes, store.description.spacing_mm
    fake = model.translate(domain, store.image(volume))
    judged = model.segment(model.judge[domain], fake)
    shifts = {"structures": structures_shift_mm(judged, store.label(volume), classes, spacing_mm)}
    truth = store.truth_of(volume)
    if truth is not None:
        true_image = store.image(truth)
        judged = model.segment(model.judge[domain], true_image)
        own = structures_shift_mm(judged, store.label(truth), classes, spacing_mm)
        shifts |= {"judge": own, "phase": phase_shift_mm(fake, true_image, spacing_mm)}
    return shifts


def _mean(shifts: list[np.ndarray | None], along: np.ndarray) -> float | None:
    """Mean component along a unit vector, of those that are finite."""
    values = [float(shift @ along) for shift in shifts if shift is not None]
    values = [value for value in values if np.isfinite(value)]
    return float(np.mean(values)) if values else None
