"""Grids of voxels and the way between them. Pure functions over numpy arrays.

Arrays are (z, y, x). A grid's affine is NIfTI's: it maps voxel indices (x, y, z, 1) to millimetres
in RAS+ (x grows towards the patient's right, y to the front, z to the head); a voxel's index is its
centre. The networks' grids are aligned with these axes, so axis 0 of an array runs to the head,
axis 1 to the front and axis 2 from the patient's left to the right, whatever the scan's own
orientation. `resample_*` go between any two grids, hence both ways: into the networks' grid and
back to exactly the scan's own.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

# A Gaussian whose full width at half maximum is 1 has this standard deviation.
FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
REACH = 4.0  # standard deviations at which the kernel is cut off


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a (z, y, x) array lie."""

    shape: tuple[int, int, int]  # voxels, (z, y, x)
    affine: np.ndarray  # (4, 4) float64: voxel indices (x, y, z, 1) -> RAS+ mm

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along the array's (z, y, x)."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    def block(self, start: tuple[int, ...], shape: tuple[int, ...]) -> "Grid":
        """The grid of `array[start:start + shape]`; a start may be negative (an enlarged grid)."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.asarray(start[::-1], float)
        return Grid(tuple(int(n) for n in shape), affine)

    def world_mm(self, index: np.ndarray) -> np.ndarray:
        """(n, 3) indices in (z, y, x) order -> (n, 3) RAS+ millimetres in (x, y, z) order."""
        return np.asarray(index, float)[:, ::-1] @ self.affine[:3, :3].T + self.affine[:3, 3]

    def index(self, world_mm: np.ndarray) -> np.ndarray:
        """Inverse of `world_mm`: fractional (z, y, x) indices."""
        inverse = np.linalg.inv(self.affine)
        return (np.asarray(world_mm, float) @ inverse[:3, :3].T + inverse[:3, 3])[:, ::-1]

    def corners_mm(self) -> np.ndarray:
        """(8, 3) RAS+ positions of the outer corners of the block of voxels (not of centres)."""
        bounds = [(-0.5, n - 0.5) for n in self.shape]
        return self.world_mm(np.stack(np.meshgrid(*bounds), axis=-1).reshape(8, 3))


def crop_grid(centre_mm: np.ndarray, spacing_mm: tuple[float, ...], shape: tuple[int, ...]) -> Grid:
    """The networks' grid: aligned with the RAS+ axes, its block of voxels centred on `centre_mm`.

    centre_mm is a RAS+ position (x, y, z); spacing_mm and shape are (z, y, x).
    """
    scale = np.asarray(spacing_mm[::-1], float)
    affine = np.diag([*scale, 1.0])
    affine[:3, 3] = np.asarray(centre_mm, float) - scale * (np.asarray(shape[::-1]) - 1) / 2
    return Grid(tuple(shape), affine)


def covering_grid(source: Grid, spacing_mm: tuple[float, ...]) -> Grid:
    """The smallest grid in the networks' axes at `spacing_mm` that covers all of `source`."""
    corners = source.corners_mm()
    low, high = corners.min(axis=0), corners.max(axis=0)
    # A thousandth of a voxel of slack: rounding must not add a whole layer.
    voxels = np.ceil((high - low)[::-1] / np.asarray(spacing_mm) - 1e-3).astype(int)
    return crop_grid((low + high) / 2, spacing_mm, tuple(np.maximum(voxels, 1).tolist()))


def mask_box_mm(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box of the true voxels' centres along the RAS+ axes: (low, high), each (x, y, z).

    A linear function over a set is extreme at the ends of its lines, so the first and the last
    true voxel of each line suffice, oblique grids included. `mask` needs at least one true voxel.
    """
    y, x = np.nonzero(mask.any(axis=0))
    lines = mask[:, y, x]
    first = lines.argmax(axis=0)
    last = mask.shape[0] - 1 - lines[::-1].argmax(axis=0)
    ends = np.concatenate([np.stack([z, y, x], axis=1) for z in (first, last)])
    points = grid.world_mm(ends)
    return points.min(axis=0), points.max(axis=0)


def extended(grid: Grid, low_mm: np.ndarray, high_mm: np.ndarray) -> tuple[Grid, tuple[slice, ...]]:
    """`grid` (in the networks' axes) grown by whole voxels to hold a box; its place in there."""
    low, high = grid.index(np.stack([low_mm, high_mm]))
    before = np.maximum(np.ceil(-low - 0.5), 0).astype(int)
    after = np.maximum(np.ceil(high + 0.5 - np.asarray(grid.shape)), 0).astype(int)
    whole = grid.block(tuple(-before), tuple(before + grid.shape + after))
    inner = tuple(slice(b, b + n) for b, n in zip(before.tolist(), grid.shape, strict=True))
    return whole, inner


def misalignment_voxels(a: Grid, b: Grid) -> float:
    """How far apart two grids put the same corner, in voxels of `a`; inf when the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    apart = np.linalg.norm(a.corners_mm() - b.corners_mm(), axis=1).max()
    return float(apart / min(a.spacing_mm))


def inside(source: Grid, target: Grid) -> np.ndarray:
    """Which voxels of `target` have their centre within the block of voxels of `source`: bool."""
    matrix, offset = _index_map(target, source)
    steps = np.ogrid[tuple(slice(n) for n in target.shape)]
    result = np.ones(target.shape, bool)
    for row, shift, size in zip(matrix, offset, source.shape, strict=True):
        # Aligned grids have one term here, which keeps this a line instead of a volume.
        terms = [k * step for k, step in zip(row, steps, strict=True) if abs(k) > 1e-9]
        position = sum(terms, start=shift)
        result &= (position >= -0.5 - 1e-6) & (position <= size - 0.5 + 1e-6)
    return result


def resample_image(image: np.ndarray, source: Grid, target: Grid, fill: float) -> np.ndarray:
    """Linear interpolation of (z, y, x) intensities on another grid; float32 of target.shape.

    Where the target is coarser, a Gaussian first brings the voxel's width from the source's to the
    target's (Cardoso et al., Scale factor point spread function matching, MICCAI 2015), so that
    nothing aliases. Within half a voxel of the scan's border its outermost value holds; beyond the
    scan it is `fill`.
    """
    result = np.full(target.shape, fill, np.float32)
    region = _overlap(target, source)
    if region is not None:
        part = _block_of(target, region)
        result[region] = np.where(
            inside(source, part), _sample(image, source, part), result[region]
        )
    return result


def resample_labels(labels: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Class indices on another grid: the class with the largest interpolated share; uint8.

    Unlike the nearest voxel it keeps surfaces smooth both ways, and volumes when coarsening.
    Ties go to the lower class; beyond the scan it is background.
    """
    winner = np.zeros(target.shape, np.uint8)
    best, total = np.zeros(target.shape, np.float32), np.zeros(target.shape, np.float32)
    margin = _reach(source, target)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        box = _grown(box, margin, source.shape)
        block = _block_of(source, box)
        region = _overlap(target, block)
        if region is None:
            continue
        share = resample_image(labels[box] == index, block, _block_of(target, region), fill=0.0)
        total[region] += share
        better = share > best[region]
        winner[region][better] = index
        best[region][better] = share[better]
    winner[best <= 1 - total] = 0  # what the structures leave is the background's share
    return winner


def _sample(image: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """`image` at the voxels of `target`, smoothed when coarser; the border's value outside."""
    needed = _overlap(source, target, _reach(source, target))
    if needed is None:  # two oblique blocks may miss each other though their boxes meet
        return np.zeros(target.shape, np.float32)
    values = np.asarray(image[needed], np.float32)
    sigma = _smoothing(source, target)
    matrix, offset = _index_map(target, _block_of(source, needed))
    axes = np.abs(matrix).argmax(axis=0)  # the source's axis along each of the target's
    aligned = np.zeros((3, 3), bool)
    aligned[axes, range(3)] = True
    if (np.abs(np.where(aligned, 0, matrix)) * target.shape).max() > 1e-3:
        if sigma.any():
            values = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=REACH)
        return ndimage.affine_transform(
            values, matrix, offset, output_shape=target.shape, order=1, mode="nearest"
        )
    weights = [
        _axis_weights(matrix[a, j] * np.arange(target.shape[j]) + offset[a], sigma[a], n)
        for j, (a, n) in enumerate(zip(axes, np.take(values.shape, axes), strict=True))
    ]
    return _along_axes(weights, values.transpose(axes))


def _axis_weights(positions: np.ndarray, sigma: float, size: int) -> sparse.csr_array:
    """(len(positions), size): what linear interpolation after the Gaussian takes from each voxel.

    Between grids with parallel axes the interpolation factorises, which is several times faster.
    """
    positions = np.clip(positions, 0, size - 1)
    low = np.minimum(positions.astype(int), max(size - 2, 0))
    rows = np.arange(len(positions))
    taps = np.concatenate([1 - (positions - low), positions - low])
    columns = np.concatenate([low, np.minimum(low + 1, size - 1)])
    linear = sparse.csr_array((taps, (np.tile(rows, 2), columns)), (len(rows), size))
    if not sigma:
        return linear.astype(np.float32)
    steps = np.arange(-int(REACH * sigma + 0.5), int(REACH * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    rows, columns = np.broadcast_arrays(np.arange(size)[:, None], np.arange(size)[:, None] + steps)
    taps = np.broadcast_to(kernel / kernel.sum(), rows.shape)
    columns = np.clip(columns, 0, size - 1)
    smooth = sparse.csr_array((taps.ravel(), (rows.ravel(), columns.ravel())), (size, size))
    return (linear @ smooth).astype(np.float32)


def _along_axes(weights: list[sparse.csr_array], values: np.ndarray) -> np.ndarray:
    """Applies one matrix along each axis, those that shrink the array most first."""
    for axis in sorted(range(3), key=lambda a: weights[a].shape[0] / weights[a].shape[1]):
        front = np.moveaxis(values, axis, 0)
        flat = weights[axis] @ front.reshape(front.shape[0], -1)
        values = np.moveaxis(flat.reshape(-1, *front.shape[1:]), 0, axis)
    return values


def _smoothing(source: Grid, target: Grid) -> np.ndarray:
    """Standard deviation, in voxels of `source`, of the Gaussian before coarsening; 0 for none."""
    matrix, _ = _index_map(target, source)
    ratio = np.sqrt((matrix**2).sum(axis=1))  # the target voxel's width along the source's axes
    sigma = FWHM_TO_SIGMA * np.sqrt(np.maximum(ratio**2 - 1, 0))
    return np.where(sigma > 0.05, sigma, 0)  # below, the kernel is a single tap


def _reach(source: Grid, target: Grid) -> np.ndarray:
    """Voxels of `source` around a point that bear on its value."""
    return np.ceil(REACH * _smoothing(source, target)).astype(int) + 2


def _index_map(target: Grid, source: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(matrix, offset) with source_index = matrix @ target_index + offset, all in (z, y, x)."""
    together = np.linalg.inv(source.affine) @ target.affine
    return together[2::-1, 2::-1], together[2::-1, 3]


def _overlap(grid: Grid, other: Grid, margin=(0, 0, 0)) -> tuple[slice, ...] | None:
    """The slices of `grid` that hold all of it that lies in `other`, grown by `margin` voxels."""
    index = grid.index(other.corners_mm())
    low = np.floor(index.min(axis=0)).astype(int)
    high = np.ceil(index.max(axis=0)).astype(int) + 1
    box = _grown(tuple(map(slice, low.tolist(), high.tolist())), margin, grid.shape)
    return box if all(s.start < s.stop for s in box) else None


def _grown(box: tuple[slice, ...], margin, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """`box` with `margin` voxels more on each side, within an array of `shape`."""
    return tuple(
        slice(max(int(s.start - m), 0), min(int(s.stop + m), n))
        for s, m, n in zip(box, margin, shape, strict=True)
    )


def _block_of(grid: Grid, slices: tuple[slice, ...]) -> Grid:
    return grid.block(tuple(s.start for s in slices), tuple(s.stop - s.start for s in slices))
