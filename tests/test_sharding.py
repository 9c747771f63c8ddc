"""Several devices give the numbers of one, and no volume is gathered on the way."""

import math
import re
import shutil
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from processes import Group, virtual_devices
from tiny_runs import CLASSES, QUICKLY, SHAPE, build, quick_jit, random_volumes, tiny_config
from tiny_store import EACH_STEP, run_words
from workdirs import require_same_but_for_rounding

from cyclesh import halo, home_devices, ops, state
from cyclesh.domains import DOMAINS
from cyclesh.errors import UserError
from cyclesh.runtime import sharding
from cyclesh.runtime.logs import METRICS, read_rows
from cyclesh.state import Players
from cyclesh.step import make_step, make_weights
from cyclesh.workdir import CHECKPOINTS

BATCH = 2


def compute(data: int, depth: int, homes: int = 1) -> ConfigDict:
    return ConfigDict(
        {
            "data_devices": data,
            "home_devices": homes,
            "depth_devices": depth,
            "save_memory": False,
        }
    )


@pytest.fixture(scope="module")
def mesh():
    """Two devices that share the depth."""
    return sharding.make_mesh(compute(1, 2), 1, 8)


# ---------------------------------------------------------------------------- the operations


OPERATIONS = {
    "stride 1": lambda f, x, k, low: f.conv3d((x, x + 1), k, stride=1, lowering=low),
    "stride 2": lambda f, x, k, low: f.conv3d((x, x * x), k, stride=2, lowering=low),
    "1x1x1": lambda f, x, k, low: f.conv3d((x, x), k[1:2, 1:2, 1:2], stride=1, lowering=low),
    "upsampling": lambda f, x, k, low: f.upsample_conv3d(x, k[:, :, :, :2], lowering=low),
}


class Halo:
    """`halo` with its mesh put in, called as `ops` is."""

    def __init__(self, mesh):
        self.conv3d = partial(halo.conv3d, mesh=mesh)
        self.upsample_conv3d = partial(halo.upsample_conv3d, mesh=mesh)


@pytest.mark.parametrize("depth", [8, 7, 6])  # even slabs, uneven ones, slabs of odd size
@pytest.mark.parametrize("lowering", ["native", "folded"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_slabs_give_what_whole_volumes_give(mesh, name, lowering, depth):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, depth, 6, 5, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4, 3)).astype(np.float32)

    def gradients(operations):
        def loss(x, kernel):
            y = OPERATIONS[name](operations, x, kernel, lowering)
            return (y * jax.numpy.cos(jax.numpy.arange(y.size)).reshape(y.shape)).sum(), y

        return quick_jit(jax.value_and_grad(loss, (0, 1), has_aux=True))

    (_, expected), expected_grads = gradients(ops)(x, kernel)
    (_, found), found_grads = gradients(Halo(mesh))(x, kernel)
    assert found.shape == expected.shape
    for a, b in zip((found, *found_grads), (expected, *expected_grads), strict=True):
        assert np.linalg.norm(a - b) <= 2e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("depth", [8, 6])
def test_slabs_are_pooled_as_whole_volumes_are(mesh, depth):
    x = np.random.default_rng(1).normal(size=(2, depth, 4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(quick_jit(partial(halo.max_pool, mesh=mesh))(x), ops.max_pool(x))


# ------------------------------------------------------------------------------ the whole step


def take_step(lowering: str, data: int, depth: int, homes: int = 1, method: str = "joint", **optim):
    """The state after one step, its metrics, and the compiled program's text."""
    config = tiny_config(method)
    config.batch, config.loss.pool_size, config.compute.lowering = BATCH, 2 * BATCH, lowering
    config.optim.update(optim)
    tiny = build(config)
    mesh = sharding.make_mesh(compute(data, depth, homes), BATCH, SHAPE[0])
    nets = state.make_networks(config, CLASSES, mesh if depth > 1 else None)
    phase, weights = state.make_phases(config)[-1], make_weights(config)
    step = make_step(nets, tiny.optimisers, phase, weights, 0, homes=home_devices.homes_of(mesh))
    batch = {"real": random_volumes(1, BATCH), "source": random_volumes(2, BATCH)}
    if mesh is None:
        return *quick_jit(step)(tiny.state, batch), ""
    begun = home_devices.working_state(
        jax.device_put(tiny.state, sharding.state_shardings(tiny.state, mesh)), mesh
    )
    where = home_devices.working_shardings(begun, mesh)
    step = home_devices.over_homes(step, mesh)
    jitted = sharding.jit_spread(step, mesh, where, save_memory=False)
    batch = sharding.spread(batch, mesh) | {"seed": sharding.copied(0, mesh)}
    program = jitted.lower(begun, batch).compile(compiler_options=QUICKLY)
    text = program.as_text()
    after, metrics = program(begun, batch)
    return home_devices.kept_state(after, mesh), metrics, text


def require_alike(found: tuple, alone: tuple, what: object) -> None:
    """The same metrics, gradients and fakes but for rounding."""
    (after, metrics, _), (expected, numbers, _) = found, alone
    assert metrics.keys() == numbers.keys()
    for name, value in numbers.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=f"{name} {what}")
    for name in Players._fields:
        if getattr(expected.opt, name) is not None:
            error = np.linalg.norm(gradient(after, name) - gradient(expected, name))
            assert error <= 1e-5 * np.linalg.norm(gradient(expected, name)), (name, what)
    for d in expected.pools:  # the fakes that they took
        np.testing.assert_allclose(
            after.pools[d].volumes, np.asarray(expected.pools[d].volumes), atol=1e-4
        )
        assert after.pools[d].count == expected.pools[d].count


def largest_gathered(program: str) -> int:
    """Elements of the largest array that a program gathers from, or shuffles between, devices.

    The means of slices are not counted, one number a slice and channel.
    """
    sizes = [0]
    for line in program.splitlines():
        made = re.search(r"= (.*?) (?:all-gather|all-to-all)(?:-start)?\(", line)
        for shape in re.findall(r"\w+\[([\d,]+)\]", made[1] if made else ""):
            sides = [int(side) for side in shape.split(",")]
            if len(sides) != 5 or sides[2:4] != [1, 1]:
                sizes.append(math.prod(sides))
    return max(sizes)


def gradient(after, name: str) -> np.ndarray:
    """Adam's first moment after one step from zero: a multiple of the gradient."""
    leaves = jax.tree.leaves(optax.tree.get(getattr(after.opt, name), "mu"))
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in leaves])


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["native", "folded"])
def test_devices_together_give_the_numbers_of_one(lowering):
    alone = take_step(lowering, 1, 1)
    # Whole runs, below, take native steps on (1, 2).
    for data, depth in ((2, 1), *(((1, 2),) if lowering == "folded" else ()), (2, 2)):
        found = take_step(lowering, data, depth)
        require_alike(found, alone, (data, depth))
        assert largest_gathered(found[2]) < math.prod(SHAPE) / 8
        for d in DOMAINS:
            volumes = found[0].pools[d].volumes
            assert volumes.sharding.shard_shape(volumes.shape) == (
                BATCH // data, 2, SHAPE[0] // depth, *SHAPE[1:], 1,
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "optim"),
    # Clipped, as the norm is of both homes; the metrics have the norms of gradients before that.
    [("joint", {"clip_norm": 0.1}), ("ada", {}), ("baseline", {})],
    ids=["clipped", "ada", "baseline"],
)
def test_homes_on_devices_of_their_own_give_the_numbers_of_one(method, optim):
    alone = take_step("folded", 1, 1, method=method, **optim)
    for data in (1, 2):
        found = take_step("folded", data, 1, homes=2, method=method, **optim)
        require_alike(found, alone, data)
        assert largest_gathered(found[2]) == 0


@pytest.mark.parametrize("depth", [8, 7])
def test_slabs_are_normalised_to_the_last_bit(mesh, depth):
    """A ReLU follows: what rounding takes across its kink would change whole gradients."""
    x = np.random.default_rng(2).normal(3, 2, (2, depth, 6, 5, 4)).astype(np.float32)
    alone = quick_jit(partial(ops.instance_norm, epsilon=1e-5))(x)
    together = quick_jit(partial(halo.instance_norm, epsilon=1e-5, mesh=mesh))(x)
    np.testing.assert_array_equal(together, alone)


def test_gathering_is_noticed(mesh):
    x = np.zeros((1, 8, 8, 8, 1), np.float32)
    gather = jax.jit(
        lambda x: x + 1, in_shardings=sharding.slabs(mesh), out_shardings=sharding.everywhere(mesh)
    )
    assert largest_gathered(gather.lower(x).compile().as_text()) == 512


# ------------------------------------------------------------------------------- who gets what


@pytest.mark.parametrize(
    ("data", "depth", "batch", "shape"),
    [(0, 1, 4, (4, 1)), (0, 1, 6, (3, 1)), (0, 2, 4, (2, 2)), (1, 2, 4, (1, 2)), (2, 1, 4, (2, 1))],
)
def test_devices_are_shared_out(data, depth, batch, shape):
    rows, slabs = shape
    assert sharding.make_mesh(compute(data, depth), batch, 8).devices.shape == (rows, 1, slabs)


@pytest.mark.parametrize(("data", "depth", "batch"), [(0, 1, 1), (1, 1, 4), (0, 1, 7)])
def test_one_device_needs_no_mesh(data, depth, batch):
    assert sharding.make_mesh(compute(data, depth), batch, 8) is None


@pytest.mark.parametrize(
    ("data", "depth", "batch", "slices", "said"),
    [
        (9, 1, 9, 8, "data_devices is 9; there are 4 cpu devices; ask for fewer"),
        (3, 2, 3, 8, "data_devices is 3; there are 4 cpu devices for 2 a volume; ask for fewer"),
        (0, 5, 1, 10, "depth_devices is 5; there are 4 cpu devices; ask for fewer"),
        (0, 3, 1, 8, "depth_devices is 3; 8 slices do not divide"),
        (2, 1, 3, 8, "batch is 3; 2 devices cannot share it; use a multiple of 2"),
    ],
)
def test_what_devices_cannot_share_is_refused(data, depth, batch, slices, said):
    with pytest.raises(UserError, match=re.escape(said)):
        sharding.make_mesh(compute(data, depth), batch, slices)


def devices_of(platform: str, count: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(process_index=0, id=i, platform=platform) for i in range(count)]


def test_homes_share_devices_that_would_do_nothing_else(monkeypatch):
    def homes(compute: ConfigDict, batch: int, devices: list) -> int:
        return sharding._layout(compute, batch, devices).homes

    few = ((1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1))
    for batch, count, expected in (*few, (6, 4, 2), (12, 8, 2), (6, 3, 1)):
        found = homes(compute(0, 1, homes=0), batch, devices_of("gpu", count))
        assert found == expected, (batch, count)
    cpus = devices_of("cpu", 2)
    assert homes(compute(0, 1, homes=0), 1, cpus) == 1  # whoever made two knows what for
    monkeypatch.setattr(sharding, "cores_are_devices", lambda: True)
    assert homes(compute(0, 1, homes=0), 1, cpus) == 2
    assert homes(compute(0, 1, homes=1), 1, cpus) == 1
    assert homes(compute(0, 2, homes=0), 1, cpus) == 1
    assert homes(compute(2, 1, homes=0), 2, cpus) == 1  # the batch has them
    assert homes(compute(0, 1, homes=0), 2, cpus) == 2
    saving = compute(0, 1, homes=0)
    saving.save_memory = True
    assert homes(saving, 1, cpus) == 1


def test_homes_need_two_devices(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: devices_of("cpu", 1))
    with pytest.raises(UserError, match="home_devices is 2; there is 1 cpu device; use 1, or 0"):
        sharding.make_mesh(compute(0, 1, homes=2), 1, 8)


def test_homes_and_rows_share_devices_and_processes_load_whole_rows(monkeypatch):
    devices = [SimpleNamespace(process_index=i // 2, id=i, platform="cpu") for i in range(4)]
    monkeypatch.setattr(sharding, "Mesh", lambda grid, names, **_: SimpleNamespace(
        devices=grid, shape=dict(zip(names, grid.shape, strict=True))))  # fmt: skip
    monkeypatch.setattr(jax, "devices", lambda: devices)
    mesh = sharding.make_mesh(compute(0, 1, homes=2), 2, 8)
    assert mesh.devices.shape == (2, 2, 1)
    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert sharding.data_share(mesh) == (process, 2)
    devices[:] = devices[::2]  # one a process, which are a home each
    assert sharding.data_share(sharding.make_mesh(compute(0, 1, homes=2), 1, 8)) == (0, 1)


def test_volumes_lie_in_one_process_or_in_whole_ones(monkeypatch):
    devices = [SimpleNamespace(process_index=i // 4, id=i, platform="cpu") for i in range(12)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(UserError, match="depth_devices is 6; with 4 devices a process"):
        sharding.make_mesh(compute(0, 6), 2, 12)


@pytest.mark.parametrize(
    ("processes", "each", "batch", "homes", "shape"),
    [
        (4, 3, 12, 0, (12, 1, 1)), (4, 3, 6, 0, "batch is 6; 12 devices of 4 processes must all"),
        (4, 3, 6, 2, "home_devices is 2; with 3 devices a process"),
        (3, 1, 1, 0, "use a multiple of 3"), (3, 1, 3, 0, (3, 1, 1)), (4, 1, 2, 0, (2, 2, 1)),
        (5, 1, 5, 2, "home_devices is 2; 5 devices of 5 processes do not divide by it; use 1"),
        (2, 4, 4, 0, (4, 2, 1)), (8, 1, 12, 0, (4, 2, 1)), (4, 1, 6, 0, (2, 2, 1)),
        (8, 1, 6, 0, "batch is 6; 8 devices of 8 processes must all share it; use a multiple of 4"),
    ],
)  # fmt: skip
def test_homes_lie_in_one_process_or_in_whole_ones(
    monkeypatch, processes, each, batch, homes, shape
):
    devices = [
        SimpleNamespace(process_index=i // each, id=i, platform="gpu")
        for i in range(processes * each)
    ]
    monkeypatch.setattr(sharding, "Mesh", lambda grid, names, **_: grid)
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    if isinstance(shape, tuple):
        assert sharding.make_mesh(compute(0, 1, homes=homes), batch, 8).shape == shape
    else:
        with pytest.raises(UserError, match=re.escape(shape)):
            sharding.make_mesh(compute(0, 1, homes=homes), batch, 8)


def test_a_batch_is_spread_as_it_is():
    mesh = sharding.make_mesh(compute(2, 2), BATCH, SHAPE[0])
    batch = random_volumes(3, BATCH)
    placed = sharding.spread(batch, mesh)
    for (image, label), (whole_image, whole_label) in zip(
        placed.values(), batch.values(), strict=True
    ):
        np.testing.assert_array_equal(image, whole_image)
        np.testing.assert_array_equal(label, whole_label)
        assert image.addressable_shards[3].data.shape == (1, SHAPE[0] // 2, *SHAPE[1:], 1)
    assert sharding.data_share(mesh) == (0, 1) == sharding.data_share(None)
    assert sharding.spread(batch, None) is batch


# ---------------------------------------------------------------------------------- whole runs

DEPTH = "--config.compute.depth_devices=2"
HOMES = "--config.compute.home_devices=2"


def on_two_devices(run: Path, *words: str) -> Group:
    return Group(run, 1, *words, env=[virtual_devices(2)])


def require_end(life: Group, status: int, devices: int) -> None:
    (found, _, err), *_ = life.wait()
    assert found == status, err
    assert ("2 of 2 devices in use" in err) == (devices == 2)


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory) -> tuple[list[str], Path]:
    """Words of a joint run of four steps, and its workdir once one device has made them."""
    words = [*run_words(store, "joint", "batch=2"), *EACH_STEP]
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    require_end(Group(workdir, 1, *words, env=[virtual_devices(1)]), 0, devices=1)
    return words, workdir


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), (DEPTH,), (HOMES,)], ids=["batch", "depth", "homes"])
def test_a_stopped_run_goes_on_with_other_devices_and_ends_as_on_one(tmp_path, straight, more):
    """Through the real loop: trained, validated, saved, stopped by a signal, restored, scored."""
    words, expected = straight
    run = tmp_path / "run"
    life = on_two_devices(run, *words, *more)
    life.signal_after(1, 0, signal.SIGTERM)
    require_end(life, 75, devices=2)
    kept = read_rows(run)
    assert len(kept) < 4
    require_end(Group(run, 1, *words, env=[virtual_devices(1)]), 0, devices=1)
    assert read_rows(run)[: len(kept)] == kept
    require_same_but_for_rounding(run, expected, 4)


@pytest.mark.slow
@pytest.mark.parametrize("more", [DEPTH, HOMES], ids=["depth", "homes"])
def test_a_run_that_began_on_one_device_goes_on_with_two_and_ends_as_on_one(
    tmp_path, straight, more
):
    words, expected = straight
    run = shutil.copytree(expected, tmp_path / "run")
    for step in range(2, 5):  # as if it was stopped after its first
        shutil.rmtree(run / CHECKPOINTS / str(step))
    for left in ("results.json", "cases.csv", "report.html"):
        (run / left).unlink()
    kept, *_ = (run / METRICS).read_text().splitlines(keepends=True)
    (run / METRICS).write_text(kept)
    require_end(on_two_devices(run, *words, more), 0, devices=2)
    assert (run / METRICS).read_text().startswith(kept)
    require_same_but_for_rounding(run, expected, 4)


@pytest.mark.slow
def test_two_processes_take_the_joint_steps_of_one(tmp_path, straight):
    """All six networks and the pools, each process's share of which goes on after a stop."""
    words, expected = straight
    run = tmp_path / "run"
    group = Group(run, 2, *words)
    group.signal_after(1, 0, signal.SIGTERM)
    ends = group.wait()
    assert [status for status, *_ in ends] == [75, 75], ends
    kept = read_rows(run)
    assert len(kept) < 4
    ends = Group(run, 2, *words).wait()
    assert [status for status, *_ in ends] == [0, 0], ends
    assert read_rows(run)[: len(kept)] == kept
    require_same_but_for_rounding(run, expected, 4)
