"""The phantom's thorax: everything around the heart, from the skin inwards.

Millimetres in RAS+ world axes about the middle of the heart (see anatomy).
"""

from dataclasses import dataclass

import numpy as np

from cyclesh.data.shapes import Ellipsoid, Layer, Shell, Slices, Tube
from cyclesh.data.variation import vary

Array = np.ndarray

_MIDLINE_MM = 20.0  # the heart's middle lies to the left of the body's


@dataclass(frozen=True)
class Thorax:
    """The numbers that a thorax is made from."""

    scale: float  # of all lengths, relative to the reference
    breath_mm: float  # height of the diaphragm
    fat_mm: float  # under the skin
    disc_mm: float  # height of one of the discs


def draw_thorax(rng: np.random.Generator, heart_size: float) -> Thorax:
    """A thorax that tends to be large where the heart is."""
    return Thorax(
        scale=float(np.exp(vary(rng, 0.5 * np.log(heart_size), 0.05))),
        breath_mm=float(vary(rng, 0.0, 7.0)),
        fat_mm=float(rng.uniform(8, 24)),
        disc_mm=float(rng.uniform(0, 25)),
    )


def thorax_layers(build: Thorax, rng: np.random.Generator) -> list[Layer]:
    """The thorax in painting order. `rng` grows the vessels of the lungs."""
    return [
        *_body_wall(build),
        *_lungs(build, rng),
        *_abdomen(build),
        *_mediastinum(build),
        *_spine(build),
    ]


def _upright(centre: list[float], semi: list[float], scale: float) -> Ellipsoid:
    return Ellipsoid(np.array(centre) * scale, np.array(semi) * scale, np.eye(3))


def _body_wall(build: Thorax) -> list[Layer]:
    scale = build.scale
    inner = _upright([_MIDLINE_MM, -12, 0], [122, 84, 420], scale)
    ribs = Slices(Shell(inner, 9.0), 8.0, 27.0 * scale, 11.0, slope=-0.35)
    sternum = _upright([_MIDLINE_MM, 80, 10], [17, 6, 90], scale)
    return [
        Layer("fat", inner, 17.0 + build.fat_mm),
        Layer("muscle", inner, 17.0),
        Layer("cortex", ribs, 1.0),
        Layer("marrow", ribs, -1.5),
        Layer("fat", inner, -1.0),
        Layer("cortex", sternum, 1.0),
        Layer("marrow", sternum, -1.5),
    ]


def _lungs(build: Thorax, rng: np.random.Generator) -> list[Layer]:
    scale, layers, vessels = build.scale, [], []
    for side in (-1.0, 1.0):
        centre = [_MIDLINE_MM + side * 60, -14, 0]
        layers.append(Layer("lung", _upright(centre, [57, 78, 260], scale)))
        hilum = np.array([_MIDLINE_MM + side * 26, -30, 22]) * scale
        for _ in range(14):
            direction = rng.standard_normal(3) + [1.2 * side, 0, 0]
            direction /= np.linalg.norm(direction)
            bend = hilum + direction * rng.uniform(22, 40)
            stop = bend + (direction + rng.standard_normal(3) * 0.4) * rng.uniform(22, 45)
            path = np.array([hilum + direction * 6, bend, stop])
            vessels.append(Layer("lung vessel", Tube(path, np.array([4.0, 2.8, 1.2]))))
    return layers + vessels


def _abdomen(build: Thorax) -> list[Layer]:
    """The diaphragm's domes; the liver fills the right one and reaches under the heart."""
    scale, height = build.scale, build.breath_mm
    right = _upright([_MIDLINE_MM + 52, -6, -128 + height], [78, 80, 90], scale)
    left = _upright([_MIDLINE_MM - 62, -10, -140 + height], [62, 74, 88], scale)
    lobe = _upright([_MIDLINE_MM - 14, 26, -112 + height], [66, 40, 52], scale)
    spleen = _upright([_MIDLINE_MM - 82, -46, -112 + height], [30, 26, 40], scale)
    gas = _upright([_MIDLINE_MM - 62, 24, -100 + height], [28, 26, 26], scale)
    return [
        Layer("muscle", left, 2.0),
        Layer("fat", left, -1.0),
        Layer("spleen", spleen),
        Layer("muscle", gas, 3.0),
        Layer("air", gas),
        Layer("muscle", right, 2.0),
        Layer("liver", right),
        Layer("liver", lobe),
    ]


def _mediastinum(build: Thorax) -> list[Layer]:
    scale = build.scale
    middle = [_MIDLINE_MM - 2, -42]
    column = Tube(np.array([[*middle, -90.0], [*middle, 110.0]]) * scale, np.full(2, 30.0 * scale))
    front = _upright([_MIDLINE_MM, 40, 40], [14, 44, 90], scale)
    gullet = np.array([[14.0, -46, -120], [16, -50, 0], [20, -56, 120]]) * scale
    carina = np.array([_MIDLINE_MM, -42, 62]) * scale
    airway = [
        Tube(np.array([carina, carina + [0, 4, 70]]), np.array([8.0, 8.5])),
        Tube(np.array([carina, carina + [28, -6, -22]]), np.array([7.0, 5.0])),
        Tube(np.array([carina, carina + [-34, -8, -22]]), np.array([6.5, 5.0])),
    ]
    descending = np.array([[-4.0, -66, -120], [-6, -66, 0], [-8, -62, 70]]) * scale
    arch = np.array([[-8.0, -62, 70], [0, -40, 98], [16, -12, 92]]) * scale
    layers = [
        Layer("fat", column),
        Layer("fat", front),
        Layer("muscle", Tube(gullet, np.full(3, 7.0))),
    ]
    for path in (descending, arch):
        layers.append(Layer("wall", Tube(path, np.full(3, 13.0))))
        layers.append(Layer("aorta", Tube(path, np.full(3, 11.5))))
    return layers + [Layer(t, tube, g) for tube in airway for t, g in (("wall", 1.5), ("air", 0.0))]


def _spine(build: Thorax) -> list[Layer]:
    """Vertebral bodies and discs, the canal in its arch, the spinous processes, the back."""
    scale, x, y = build.scale, _MIDLINE_MM, -88.0
    period, start = 25.0 * scale, build.disc_mm
    body = _upright([x, y, 0], [19, 16, 1000], scale)
    arch = _upright([x, y - 24, 0], [19, 13, 1000], scale)
    canal = _upright([x, y - 23, 0], [9, 7, 1000], scale)
    process = Slices(_upright([x, y - 42, 0], [4, 20, 1000], scale), start, period, 14.0, slope=0.5)
    wings = Slices(_upright([x, y - 24, 0], [36, 6, 1000], scale), start, period, 10.0)
    muscles = [_upright([x + s * 26, y - 34, 0], [25, 20, 1000], scale) for s in (-1, 1)]
    return [
        *(Layer("muscle", muscle) for muscle in muscles),
        Layer("cortex", wings),
        Layer("cortex", process, 1.0),
        Layer("marrow", process, -1.0),
        Layer("cortex", arch),
        Layer("cortex", body),
        Layer("marrow", body, -2.0),
        Layer("disc", Slices(body, start, period, 5.5)),
        Layer("fluid", canal),
        Layer("cord", canal, -3.5),
    ]
