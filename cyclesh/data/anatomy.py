"""The phantom's anatomy: a heart of five labelled regions in a thorax, drawn at random.

Everything is millimetres in RAS+ world axes (x right, y anterior, z superior) about the middle of
the heart. The heart is built in its own frame: u from the left ventricle towards the right one,
v towards the outflow tracts, w from the apex to the base; w = 0 is the valve plane. The reference
lengths are those of an adult heart; nothing here is measured on a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cyclesh.data.shapes import Cut, Ellipsoid, Layer, Shape, Tube, Union, rotation_matrix
from cyclesh.data.thorax import draw_thorax, thorax_layers
from cyclesh.data.variation import Waves, vary

Array = np.ndarray

# Label values of MM-WHS by tissue. The papillary muscles count as cavity, as its readers draw it.
LABELS = {
    "LV": 500,
    "papillary": 500,
    "RV": 600,
    "LA": 420,
    "RA": 550,
    "Myo": 205,
    "ascending aorta": 820,
    "pulmonary artery": 850,
}

STRUCTURES = ("LV", "RV", "LA", "RA", "Myo")
# The five regions stay within this box (x, y, z), and with the warp within 160 x 160 x 128 mm.
LARGEST_MM = np.array([155.0, 155.0, 124.0])

# The heart's frame in a reference subject: columns u, v, w. The apex (-w) points to the left, to
# the front and downwards; the right ventricle (+u) lies to the right and in front.
_W = np.array([0.62, -0.62, 0.48]) / np.linalg.norm([0.62, -0.62, 0.48])
_U = np.array([0.70, 0.66, -0.05]) - _W * (np.array([0.70, 0.66, -0.05]) @ _W)
_U /= np.linalg.norm(_U)
HEART_AXES = np.stack([_U, np.cross(_W, _U), _W], axis=1)
# The middle of the five regions in that frame; it becomes the origin of the world.
HEART_MIDDLE_MM = np.array([13.0, 0.0, -17.0])


@dataclass(frozen=True)
class Subject:
    """One subject's anatomy: coats in painting order, and the warp that no ellipsoid has."""

    layers: tuple[Layer, ...]
    warp: Waves


@dataclass(frozen=True)
class Heart:
    """The numbers that a heart is made from (lengths relative to the reference)."""

    size: float  # the whole heart
    phase: float  # 0 end-diastole .. 1 end-systole
    wall_mm: float  # thickness of the left ventricular wall, before `size`
    rotation: Array  # 3x3, pose of the heart about its middle
    shift_mm: Array  # the heart against the thorax, x, y, z
    chambers: dict[str, Array]  # per chamber, factors of its three semi-axes
    septum_mm: Array  # shift of the outer against the inner wall: uneven thickness
    epicardial_mm: float  # fat on the heart


def draw_heart(rng: np.random.Generator, side: float) -> Heart:
    """Draw a heart. `side`: -1/2 one cohort, +1/2 the other, 0 no difference.

    The cohorts differ by 24 % in heart size, and in phase, wall and pose, as real ones do: only
    then does a discriminator reward a generator for moving the anatomy.
    """
    size = np.exp(vary(rng, -0.13 + 0.215 * side, 0.06))
    phase = float(np.clip(vary(rng, 0.35 + 0.3 * side, 0.15), 0, 1))
    angles = vary(rng, np.array([10.0, -8.0, 12.0]) * side, np.array([13.0, 13.0, 15.0]))
    chambers = {
        name: np.exp(vary(rng, 0.0, 0.07) + vary(rng, np.zeros(3), np.full(3, 0.045)))
        for name in ("LV", "RV", "LA", "RA")
    }
    return Heart(
        size=float(size),
        phase=phase,
        wall_mm=float(vary(rng, 9.0, 1.0) * (1 + 0.45 * phase)),
        rotation=rotation_matrix(np.deg2rad(angles)),
        shift_mm=vary(rng, np.array([4.0, 0.0, -6.0]) * side, np.array([8.0, 6.0, 8.0])),
        chambers=chambers,
        septum_mm=vary(rng, np.zeros(3), np.array([1.0, 1.0, 0.5])),
        epicardial_mm=float(rng.uniform(3, 8)),
    )


def draw_subject(rng: np.random.Generator, side: float) -> Subject:
    """Draw a subject of the cohort on that `side` (see draw_heart)."""
    heart = _shrunk_to_fit(draw_heart(rng, side))
    thorax = draw_thorax(rng, heart.size)
    warp = Waves.draw(rng, wavelength_mm=(55, 140), sd=2.2, channels=3)
    return Subject((*thorax_layers(thorax, rng), *heart_layers(heart)), warp)


def _shrunk_to_fit(heart: Heart) -> Heart:
    """The heart, made smaller if it outgrows the training crop: one in twenty does."""
    boxes = [layer.shape.bounds_mm() for layer in heart_layers(heart) if layer.tissue in STRUCTURES]
    lows, highs = zip(*boxes, strict=True)
    room = LARGEST_MM / (np.max(highs, axis=0) - np.min(lows, axis=0))
    return replace(heart, size=heart.size * min(1.0, float(room.min())))


@dataclass(frozen=True)
class _Frame:
    """The heart's frame in the world: places and axes of one subject's heart."""

    heart: Heart

    @property
    def axes(self) -> Array:
        return self.heart.rotation @ HEART_AXES

    def place(self, *uvw_mm: float) -> Array:
        inside = (np.array(uvw_mm) - HEART_MIDDLE_MM) * self.heart.size
        return self.axes @ inside + self.heart.shift_mm

    def ellipsoid(self, centre: Sequence[float], semi: Array) -> Ellipsoid:
        return Ellipsoid(self.place(*centre), np.asarray(semi) * self.heart.size, self.axes)

    def tube(self, path_mm: list[Array], radii: list[float]) -> Tube:
        return Tube(np.array(path_mm), np.array(radii) * self.heart.size)

    def basal(self, shape: Shape, w_mm: float) -> Cut:
        """The part of a shape on the atrial side of the plane w = w_mm."""
        return Cut(shape, self.place(0, 0, w_mm), self.axes[:, 2])

    def apical(self, shape: Shape, w_mm: float) -> Cut:
        return Cut(shape, self.place(0, 0, w_mm), -self.axes[:, 2])


def heart_layers(heart: Heart) -> list[Layer]:
    """The heart's coats: fat, thin walls and vessels first, the labelled regions over them."""
    frame, phase, factors = _Frame(heart), heart.phase, heart.chambers
    cavity = np.array([25.0, 25.0, 53.0]) * [1 - 0.24 * phase, 1 - 0.24 * phase, 1 - 0.12 * phase]
    cavity = cavity * factors["LV"]
    middle = np.array([0.0, 0.0, 22.0 - cavity[2]])  # the valve plane stays, the apex moves
    lv = frame.apical(frame.ellipsoid(middle, cavity), 0)
    outer = frame.ellipsoid(middle + heart.septum_mm, cavity + heart.wall_mm)
    myo = frame.apical(outer, 0)
    rv_semi = np.array([30.0, 36.0, 50.0]) * (1 - 0.10 * phase) * factors["RV"]
    rv_body = frame.apical(frame.ellipsoid((25, 2, 14 - rv_semi[2]), rv_semi), -3)
    valve = frame.place(4, 47, -2)  # of the pulmonary artery
    outflow = frame.tube([frame.place(32, 16, -22), frame.place(20, 40, -12), valve], [15, 13, 11])
    rv = Union((rv_body, outflow), blend_mm=8.0)
    la_semi = np.array([30.0, 24.0, 22.0]) * (1 + 0.12 * phase) * factors["LA"]
    la_body = frame.basal(frame.ellipsoid((-1, 0, 3 + 0.85 * la_semi[2]), la_semi), 3)
    appendage = frame.tube([frame.place(-14, 10, 18), frame.place(-27, 30, 10)], [9, 6])
    la = Union((la_body, appendage), blend_mm=6.0)
    ra_semi = np.array([25.0, 30.0, 27.0]) * (1 + 0.10 * phase) * factors["RA"]
    ra = frame.basal(frame.ellipsoid((41, -6, 0.85 * ra_semi[2]), ra_semi), 3)
    wall = 2.2 * heart.size
    outside = [Layer("fat", shape, heart.epicardial_mm) for shape in (rv, ra, la)]
    outside += [Layer("fat", myo, 0.3 * heart.epicardial_mm)]  # little on the free wall
    outside += [Layer("wall", shape, wall) for shape in (rv, ra, la)]
    outside += _veins(frame)
    chambers = [Layer("RV", rv), Layer("RA", ra), Layer("LA", la)]
    chambers += [
        *_aorta_and_trunk(frame, valve),
        Layer("Myo", myo),
        Layer("LV", lv),
        *_papillary(frame, cavity, middle),
    ]
    return outside + chambers


def _papillary(frame: _Frame, cavity: Array, middle: Array) -> list[Layer]:
    """Two muscles that stand on the wall and end half-way to the mitral valve."""
    layers = []
    for angle in (2.2, 4.3):
        u, v = 0.62 * cavity[0] * np.cos(angle), 0.62 * cavity[1] * np.sin(angle)
        foot = frame.place(u, v, middle[2] - 0.55 * cavity[2])
        head = frame.place(0.8 * u, 0.8 * v, middle[2] + 0.05 * cavity[2])
        layers.append(Layer("papillary", frame.tube([foot, head], [4.5, 3.0])))
    return layers


def _aorta_and_trunk(frame: _Frame, valve: Array) -> list[Layer]:
    """The roots of the great arteries: blood as bright as a chamber's, yet no structure."""
    up = frame.heart.size * frame.heart.rotation
    root = frame.place(9, 14, -2)
    ascending = frame.tube([root, root + up @ [8, 5, 24], root + up @ [13, 7, 60]], [13, 14, 13])
    fork = valve + up @ [-4, -26, 30]
    trunk = frame.tube(
        [valve, valve + up @ [-6, -8, 16], fork, fork + up @ [48, -6, 0]], [12, 13, 11, 8]
    )
    left = frame.tube([fork, fork + up @ [-32, -14, 2]], [10, 7])
    return [
        Layer("wall", trunk, 1.5),
        Layer("pulmonary artery", trunk),
        Layer("pulmonary artery", left),
        Layer("wall", ascending, 1.5),
        Layer("ascending aorta", ascending),
    ]


def _veins(frame: _Frame) -> list[Layer]:
    """The veins that end in the atria: blood without a label."""
    up = frame.heart.size * frame.heart.rotation
    left, right = frame.place(-16, -4, 28), frame.place(16, 0, 38)
    atrium = frame.place(42, 0, 30)
    paths = [
        ("pulmonary vein", [left, left + up @ [-26, -10, 14], left + up @ [-55, -8, 30]], 7),
        ("pulmonary vein", [left, left + up @ [-24, -16, -6], left + up @ [-52, -26, -16]], 7),
        ("pulmonary vein", [right, right + up @ [26, -8, 10], right + up @ [52, -4, 26]], 7),
        ("pulmonary vein", [right, right + up @ [26, -14, -8], right + up @ [50, -24, -20]], 7),
        ("caval vein", [atrium, atrium + up @ [-4, -6, 30], atrium + up @ [-6, -4, 100]], 10),
        ("caval vein", [atrium, atrium + up @ [0, -12, -28], atrium + up @ [0, -16, -90]], 12),
    ]
    return [Layer(tissue, frame.tube(path, [r, r, r])) for tissue, path, r in paths]
