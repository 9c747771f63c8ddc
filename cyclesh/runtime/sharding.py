"""Where a run's arrays live when it has several devices.

A mesh of (data, home, depth): the volumes of a batch are spread over the first axis, what is done
with those of one domain and of the other over the second (`homes`), the depth of each volume over
the third, and every device holds all parameters. The step is the program of one device: losses are
means over the global batch, and XLA adds the sums over devices.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cyclesh.errors import UserError
from cyclesh.halo import DATA, DEPTH, HOME, SLABS
from cyclesh.runtime.devices import cores_are_devices, jit_step
from cyclesh.runtime.pool import Pool


def make_mesh(compute, batch: int, depth: int) -> Mesh | None:
    """The mesh of the config's section `compute`; None where one device does it all.

    Args:
      batch: volumes of each domain a step.
      depth: slices of a training volume.
    Raises: UserError where there are fewer devices than asked for, or they cannot share evenly.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    layout = _layout(compute, batch, devices)
    _require_even_shares(layout, compute, batch, depth, devices)
    size = layout.rows * layout.each
    if size == 1:
        return None
    grid = np.array(devices[:size]).reshape(layout)
    return Mesh(grid, (DATA, HOME, DEPTH), axis_types=(AxisType.Auto,) * 3)


class Layout(NamedTuple):
    """How many devices share a batch, the domains' volumes, and the depth of a volume."""

    rows: int
    homes: int
    slabs: int

    @property
    def each(self) -> int:
        """Devices of a row."""
        return self.homes * self.slabs


def _layout(compute, batch: int, devices: Sequence) -> Layout:
    """What the config says and, of what it leaves open, whatever uses most devices."""

    def with_homes(homes: int) -> Layout:
        slabs = compute.depth_devices
        available = max(1, len(devices) // (homes * slabs))
        return Layout(compute.data_devices or _most_rows(batch, available), homes, slabs)

    layouts = [with_homes(homes) for homes in _possible_homes(compute, devices)]
    return max(layouts, key=lambda layout: layout.rows * layout.homes)  # the first of equals


def _possible_homes(compute, devices: Sequence) -> tuple[int, ...]:
    """How many devices may share the domains' volumes."""
    if compute.home_devices or compute.depth_devices > 1:
        return (compute.home_devices or 1,)
    if devices[0].platform == "cpu":  # two devices hold twice the activations at once
        free = compute.data_devices < 2  # else the batch has them
        return (2,) if free and cores_are_devices() and not compute.save_memory else (1,)
    mine = len(devices) // jax.process_count()
    if jax.process_count() > 1 and mine % 2 and (mine > 1 or len(devices) % 2):
        return (1,)  # pairs would lie across processes, or one device be left over
    return (1, 2) if len(devices) >= 2 * max(1, compute.data_devices) else (1,)


def _require_even_shares(
    layout: Layout, compute, batch: int, depth: int, devices: Sequence
) -> None:
    """Raises UserError for a layout that there are not the devices for, or that is uneven."""
    rows, homes, depth_devices = layout
    count, processes = len(devices), jax.process_count()
    if depth_devices > count:
        raise UserError(
            f"--config: compute.depth_devices is {depth_devices}; {_there_are(devices)}; "
            "ask for fewer"
        )
    if depth % depth_devices:
        raise UserError(
            f"--config: compute.depth_devices is {depth_devices}; {depth} slices do not divide by "
            "it; use a divisor, or another shape"
        )
    if homes > count:
        raise UserError(
            f"--config: compute.home_devices is {homes}; {_there_are(devices)}; use 1, or 0"
        )
    if processes > 1 and homes > 1 and count % layout.each:
        raise UserError(
            f"--config: compute.home_devices is {homes}; {count} devices of {processes} processes "
            "do not divide by it; use 1, or 0"
        )
    if rows * layout.each > count:
        raise UserError(
            f"--config: compute.data_devices is {compute.data_devices}; {_there_are(devices)}"
            f"{f' for {layout.each} a volume' if layout.each > 1 else ''}; ask for fewer"
        )
    if batch % rows:
        raise UserError(
            f"--config: batch is {batch}; {rows} devices cannot share it; use a multiple of {rows}"
        )
    if processes > 1 and rows * layout.each != count:
        most = max(_possible_homes(compute, devices)) * depth_devices
        raise UserError(
            f"--config: batch is {batch}; {count} devices of {processes} processes must all share "
            f"it; use a multiple of {count // most}"
        )
    mine = count // processes
    if processes > 1 and mine % layout.each and layout.each % mine:
        name, value, hint = (
            ("depth_devices", depth_devices, "a divisor or a multiple")
            if depth_devices > 1
            else ("home_devices", homes, "1, or 0")
        )
        raise UserError(
            f"--config: compute.{name} is {value}; with {mine} devices a process volumes would "
            f"lie across parts of several; use {hint}"
        )


def _most_rows(batch: int, available: int) -> int:
    return max(n for n in range(1, available + 1) if batch % n == 0)


def _there_are(devices: Sequence) -> str:
    several = "s" if len(devices) > 1 else ""
    return (
        f"there {'are' if several else 'is'} {len(devices)} {devices[0].platform} device{several}"
    )


def depth_mesh(mesh: Mesh | None) -> Mesh | None:
    """The mesh if networks must know of it: where no device holds a volume whole."""
    return mesh if mesh is not None and mesh.shape[DEPTH] > 1 else None


def data_share(mesh: Mesh | None) -> tuple[int, int]:
    """(i, n): this process loads the i-th of n equal shares of every batch."""
    if mesh is None:
        return 0, 1
    me = jax.process_index()
    rows = [
        i
        for i, row in enumerate(mesh.devices)
        if any(device.process_index == me for device in row.flat)
    ]
    return rows[0] // len(rows), mesh.shape[DATA] // len(rows)


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def slabs(mesh: Mesh) -> NamedSharding:
    """Of (batch, z, ...): volumes over one axis of the mesh, their depth over the other."""
    return NamedSharding(mesh, SLABS)


def state_shardings(state, mesh: Mesh, by_home: bool = False):
    """Of each leaf of a training state: history pools as the batch they came from, else copies.

    by_home: of a state that is spread by home (`homes`): each home's part on its devices.
    """
    lead = (HOME,) if by_home else ()

    def of(leaf):
        if isinstance(leaf, Pool):
            volumes = P(*lead, DATA, None, DEPTH)
            return Pool(NamedSharding(mesh, volumes), NamedSharding(mesh, P(*lead)))
        return NamedSharding(mesh, P(*lead))

    placed = jax.tree.map(of, state, is_leaf=lambda leaf: isinstance(leaf, Pool))
    return placed._replace(step=everywhere(mesh))


def spread(batch, mesh: Mesh | None):
    """A tree of arrays (share of the batch, z, ...), this process's share, as global arrays."""
    if mesh is None:
        return batch
    share, shares = data_share(mesh)

    def place(array: np.ndarray):
        first, shape = share * len(array), (shares * len(array), *array.shape[1:])

        def part(index: tuple[slice, ...]) -> np.ndarray:
            rows = range(shape[0])[index[0]]
            return array[(slice(rows.start - first, rows.stop - first), *index[1:])]

        return jax.make_array_from_callback(shape, slabs(mesh), part)

    return jax.tree.map(place, batch)


def copied(number: int, mesh: Mesh | None):
    """An int32 that every device has."""
    if mesh is None:
        return np.int32(number)
    return jax.make_array_from_callback((), everywhere(mesh), lambda _: np.int32(number))


def spread_batch(batch: dict, mesh: Mesh | None) -> dict:
    """`spread` of a loader's batch; volumes that are both real and source are moved once."""
    real = spread(batch["real"], mesh)
    shared = batch["source"] is batch["real"]
    return {"real": real, "source": real if shared else spread(batch["source"], mesh)}


def jit_spread(step: Callable, mesh: Mesh | None, state, save_memory: bool) -> Callable:
    """`jit_step` of a step on a mesh, whose state lives as ``state`` says (`state_shardings`)."""
    if mesh is None:
        return jit_step(step, save_memory)
    return jit_step(
        step,
        save_memory,
        in_shardings=(
            state,
            {"real": slabs(mesh), "source": slabs(mesh), "seed": everywhere(mesh)},
        ),
        out_shardings=(state, everywhere(mesh)),
    )


def on_one_device(tree):
    """Copies that every device holds, as arrays of this process's first device alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
