"""The phantom's appearance: what CT and MR show of one anatomy.

CT is an angiogram in HU: the left heart full of contrast agent, the right heart less and unevenly.
MR is a balanced steady-state image in arbitrary units: fat and fluid brightest, then blood;
myocardium, liver and muscle alike; bone marrow between. No map of grey values turns one into the
other: fat lies below muscle in CT and above blood in MR, cortical bone the other way round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cyclesh.data.anatomy import LABELS, Subject
from cyclesh.data.variation import Waves, vary

Array = np.ndarray

# (mean, standard deviation between subjects) by tissue; blood is drawn apart, below.
CT_HU = {
    "air": (-1000.0, 0.0),
    "lung": (-830.0, 25.0),
    "fat": (-95.0, 8.0),
    "muscle": (55.0, 6.0),
    "wall": (95.0, 10.0),
    "Myo": (100.0, 12.0),
    "liver": (110.0, 15.0),
    "spleen": (130.0, 15.0),
    "cortex": (480.0, 70.0),
    "marrow": (210.0, 40.0),
    "disc": (85.0, 10.0),
    "fluid": (15.0, 5.0),
    "cord": (40.0, 5.0),
}
# In units of the mean signal of blood.
MR_SIGNAL = {
    "air": (0.01, 0.00),
    "lung": (0.06, 0.03),
    "fat": (1.30, 0.15),
    "muscle": (0.40, 0.06),
    "wall": (0.45, 0.06),
    "Myo": (0.45, 0.06),
    "liver": (0.42, 0.09),
    "spleen": (0.55, 0.09),
    "cortex": (0.06, 0.03),
    "marrow": (0.66, 0.12),
    "disc": (0.34, 0.09),
    "fluid": (1.40, 0.15),
    "cord": (0.62, 0.08),
}
LEFT_BLOOD = ("LV", "LA", "aorta", "ascending aorta", "pulmonary vein")
RIGHT_BLOOD = ("RV", "RA", "caval vein", "pulmonary artery", "lung vessel")
# Standard deviation of the slow unevenness inside a tissue, relative to its value.
CT_MIXING = {"RA": 0.12, "caval vein": 0.22, "RV": 0.05, "liver": 0.05, "lung": 0.02}
MR_MIXING = {
    **dict.fromkeys(("LV", "RV", "LA", "Myo", "liver"), 0.06),
    **dict.fromkeys(("RA", "aorta", "ascending aorta", "pulmonary artery"), 0.09),
    "caval vein": 0.15,
    "fat": 0.05,
}


@dataclass(frozen=True)
class Coat:
    """A layer on a grid: its tissue and how much of each voxel of `box` it covers, 0..1."""

    tissue: str
    box: tuple[slice, slice, slice]
    cover: Array


def rasterise(subject: Subject, points: Array, affine: Array, edge_mm: float) -> list[Coat]:
    """Sample a subject's layers at points (3, z, y, x) of the grid with that (x, y, z) affine.

    The cover falls from 1 to 0 over `edge_mm` across a surface: the partial volume of a voxel.
    Each layer is evaluated in its own box only.
    """
    warped = points + subject.warp(points)
    reach = subject.warp.largest() + edge_mm
    grow: dict[int, float] = {}
    for layer in subject.layers:
        grow[id(layer.shape)] = max(grow.get(id(layer.shape), 0.0), layer.grow_mm)
    sampled: dict[int, tuple[tuple[slice, slice, slice], Array]] = {}
    coats = []
    for layer in subject.layers:
        key = id(layer.shape)
        if key not in sampled:
            low, high = layer.shape.bounds_mm()
            margin = grow[key] + reach
            box = _box(low - margin, high + margin, affine, points.shape[1:])
            sampled[key] = (box, layer.shape.distance_mm(warped[:, *box]))
        box, distance = sampled[key]
        if distance.size:
            cover = np.clip((layer.grow_mm - distance) / np.float32(edge_mm) + 0.5, 0, 1)
            coats.append(Coat(layer.tissue, box, cover.astype(np.float32, copy=False)))
    return coats


def _box(
    low: Array, high: Array, affine: Array, shape: Sequence[int]
) -> tuple[slice, slice, slice]:
    """The voxels (z, y, x) of a grid that may lie between two world corners."""
    corners = np.array([[x, y, z, 1] for x in (low[0], high[0]) for y in (low[1], high[1])
                        for z in (low[2], high[2])])  # fmt: skip
    voxels = (np.linalg.inv(affine) @ corners.T)[2::-1]
    starts = np.clip(np.floor(voxels.min(axis=1)).astype(int), 0, shape)
    stops = np.clip(np.ceil(voxels.max(axis=1)).astype(int) + 1, starts, shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))


def label_map(coats: Sequence[Coat], shape: Sequence[int]) -> Array:
    """The label of the topmost layer that fills at least half of a voxel: int16 (z, y, x)."""
    labels = np.zeros(shape, np.int16)
    for coat in coats:
        labels[coat.box][coat.cover >= 0.5] = LABELS.get(coat.tissue, 0)
    return labels


def _paint(coats: Sequence[Coat], values: dict[str, float], mixing: dict[str, float],
           points: Array, rng: np.random.Generator) -> Array:  # fmt: skip
    fields = {
        tissue: Waves.draw(rng, wavelength_mm=(30, 90), sd=share, count=5)
        for tissue, share in mixing.items()
    }
    image = np.full(points.shape[1:], values["air"], np.float32)
    for coat in coats:
        value = np.float32(values[coat.tissue])
        if coat.tissue in fields:
            value = value * (1 + fields[coat.tissue](points[:, *coat.box])[0])
        inside = image[coat.box]
        inside += coat.cover * (value - inside)
    return image


def render_ct(
    coats: Sequence[Coat], points: Array, noise: float, rng: np.random.Generator
) -> Array:
    """CT in HU: float32 (z, y, x). `noise` multiplies the noise, 20 to 30 HU."""
    values = {tissue: float(vary(rng, *level)) for tissue, level in CT_HU.items()}
    # Scans are timed differently: the right heart is nearly as bright as the left, or washed out.
    left = rng.uniform(250, 470)
    right = rng.uniform(185, min(left - 30, 340))
    values |= {tissue: float(vary(rng, left, 10.0)) for tissue in LEFT_BLOOD}
    values |= {tissue: float(vary(rng, right, 12.0)) for tissue in RIGHT_BLOOD}
    values["papillary"] = values["Myo"]
    image = _paint(coats, values, CT_MIXING, points, rng)
    sd = noise * rng.uniform(20, 30)
    return np.clip(image + sd * _grain(image.shape, rng, 0.6), -1024, 3071)


def render_mr(
    coats: Sequence[Coat], points: Array, noise: float, rng: np.random.Generator
) -> Array:
    """MR in arbitrary units >= 0: float32 (z, y, x). `noise` multiplies 3.5 to 5.5 % of blood.

    Receiver gain (up to 3 times between subjects), a smooth coil sensitivity, Rician noise.
    """
    values = {tissue: float(vary(rng, *level)) for tissue, level in MR_SIGNAL.items()}
    values |= {tissue: float(vary(rng, 0.95, 0.09)) for tissue in LEFT_BLOOD}
    values |= {tissue: float(vary(rng, 0.95, 0.09)) for tissue in RIGHT_BLOOD}
    values["papillary"] = values["Myo"]
    image = _paint(coats, values, MR_MIXING, points, rng)
    bias = Waves.draw(rng, wavelength_mm=(250, 500), sd=0.25, count=4)(points)[0]
    image *= np.exp(bias)
    sd = noise * rng.uniform(0.035, 0.055)
    real = image + sd * _grain(image.shape, rng, 0.5)
    gain = 220.0 * np.exp(rng.uniform(0, np.log(3)))
    return gain * np.hypot(real, sd * _grain(image.shape, rng, 0.5))


def _grain(shape: Sequence[int], rng: np.random.Generator, blur: float) -> Array:
    """Gaussian noise of unit variance, blurred over `blur` voxels as reconstructions do."""
    white = rng.standard_normal(shape, np.float32)
    grain = ndimage.gaussian_filter(white, blur, truncate=3.0)
    return grain / grain.std()


RENDERERS = {"ct": render_ct, "mr": render_mr}
