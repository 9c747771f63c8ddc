"""The phantom's anatomy: a heart of five labelled regions in a thorax, drawn at random.

Everything is millimetres in RAS+ world axes (x right, y anterior, z superior) about the middle of
the heart. The heart is built in its own frame: u from the left ventricle towards the right one,
v towards the outflow tracts, w from the apex to the base; w = 0 is the valve plane. The reference
lengths are those of an adult heart; nothing here is measured on a patient.
"""

from dataclasses import dataclass

import numpy as np

from cyclesh.data.shapes import Cut, Ellipsoid, Shape, Shell, Slices, Tube, Union, Waves

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

# The heart's frame in a reference subject: columns u, v, w. The apex (-w) points to the left, to
# the front and downwards; the right ventricle (+u) lies to the right and in front.
_W = np.array([0.62, -0.62, 0.48]) / np.linalg.norm([0.62, -0.62, 0.48])
_U = np.array([0.70, 0.66, -0.05]) - _W * (np.array([0.70, 0.66, -0.05]) @ _W)
_U /= np.linalg.norm(_U)
HEART_AXES = np.stack([_U, np.cross(_W, _U), _W], axis=1)
# The middle of the five regions in that frame; it becomes the origin of the world.
HEART_MIDDLE_MM = np.array([13.0, 0.0, -17.0])


@dataclass(frozen=True)
class Layer:
    """One coat of the painter: a tissue fills a shape, grown outwards by `grow_mm`."""

    tissue: str
    shape: Shape
    grow_mm: float = 0.0


@dataclass(frozen=True)
class Subject:
    """One subject's anatomy: coats in painting order, and the warp that no ellipsoid has."""

    layers: tuple[Layer, ...]
    warp: Waves
    build: "Build"


@dataclass(frozen=True)
class Build:
    """The numbers that a subject's anatomy is made from (lengths relative to the reference)."""

    size: float  # the whole heart
    thorax: float  # the thorax, apart from the heart
    phase: float  # 0 end-diastole .. 1 end-systole
    wall_mm: float  # thickness of the left ventricular wall, before `size`
    rotation: Array  # 3x3, pose of the heart about its middle
    shift_mm: Array  # the heart against the thorax, x, y, z
    chambers: dict[str, Array]  # per chamber, factors of its three semi-axes
    septum_mm: Array  # shift of the outer against the inner wall: uneven thickness
    breath_mm: float  # height of the diaphragm
    fat_mm: float  # subcutaneous fat
    epicardial_mm: float  # fat on the heart


def draw_build(rng: np.random.Generator, side: float) -> Build:
    """Draw a subject's build. `side`: -1/2 one cohort, +1/2 the other, 0 no difference.

    The cohorts differ by 24 % in heart size, and in phase, wall and pose, as real ones do: only
    then does a discriminator reward a generator for moving the anatomy.
    """
    size = np.exp(vary(rng, -0.12 + 0.215 * side, 0.05))
    phase = float(np.clip(vary(rng, 0.35 + 0.3 * side, 0.15), 0, 1))
    angles = vary(rng, np.array([10.0, -8.0, 12.0]) * side, np.array([8.0, 8.0, 9.0]))
    chambers = {
        name: np.exp(vary(rng, 0.0, 0.07) + vary(rng, np.zeros(3), np.full(3, 0.05)))
        for name in ("LV", "RV", "LA", "RA")
    }
    return Build(
        size=float(size),
        thorax=float(np.exp(vary(rng, 0.5 * np.log(size), 0.05))),
        phase=phase,
        wall_mm=float(vary(rng, 8.5, 1.0) * (1 + 0.45 * phase)),
        rotation=rotation_matrix(np.deg2rad(angles)),
        shift_mm=vary(rng, np.array([4.0, 0.0, -6.0]) * side, np.array([5.0, 3.0, 5.0])),
        chambers=chambers,
        septum_mm=vary(rng, np.zeros(3), np.array([1.0, 1.0, 0.5])),
        breath_mm=float(vary(rng, 0.0, 7.0)),
        fat_mm=float(rng.uniform(8, 24)),
        epicardial_mm=float(rng.uniform(3, 8)),
    )


def draw_subject(rng: np.random.Generator, side: float) -> Subject:
    """Draw a subject of the cohort on that `side` (see draw_build)."""
    build = draw_build(rng, side)
    thorax = _thorax(build, rng)
    outside, chambers = _heart(build)
    warp = Waves.draw(rng, wavelength_mm=(55, 140), sd=2.2, channels=3)
    return Subject((*thorax, *outside, *chambers), warp, build)


def vary(rng: np.random.Generator, mean: Array | float, sd: Array | float) -> Array:
    """A normal variate cut at two standard deviations: variety without monsters."""
    return mean + sd * np.clip(rng.standard_normal(np.shape(sd)), -2, 2)


def rotation_matrix(angles_rad: Array) -> Array:
    """Rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@dataclass(frozen=True)
class _Frame:
    """The heart's frame in the world: places and axes of one subject's heart."""

    build: Build

    @property
    def axes(self) -> Array:
        return self.build.rotation @ HEART_AXES

    def place(self, *uvw_mm: float) -> Array:
        inside = (np.array(uvw_mm) - HEART_MIDDLE_MM) * self.build.size
        return self.axes @ inside + self.build.shift_mm

    def ellipsoid(self, centre: tuple[float, float, float], semi: Array) -> Ellipsoid:
        return Ellipsoid(self.place(*centre), np.asarray(semi) * self.build.size, self.axes)

    def tube(self, path_mm: list[Array], radii: list[float]) -> Tube:
        return Tube(np.array(path_mm), np.array(radii) * self.build.size)

    def basal(self, shape: Shape, w_mm: float) -> Cut:
        """The part of a shape on the atrial side of the plane w = w_mm."""
        return Cut(shape, self.place(0, 0, w_mm), self.axes[:, 2])

    def apical(self, shape: Shape, w_mm: float) -> Cut:
        return Cut(shape, self.place(0, 0, w_mm), -self.axes[:, 2])


def _heart(build: Build) -> tuple[list[Layer], list[Layer]]:
    """The heart's coats: fat, thin walls and vessels first, the labelled regions over them."""
    frame, phase, factors = _Frame(build), build.phase, build.chambers
    cavity = np.array([25.0, 25.0, 53.0]) * [1 - 0.24 * phase, 1 - 0.24 * phase, 1 - 0.12 * phase]
    cavity = cavity * factors["LV"]
    apex = (0, 0, 22 - cavity[2])  # the valve plane stays, the apex moves
    lv = frame.apical(frame.ellipsoid(apex, cavity), 0)
    outer = frame.ellipsoid(tuple(np.array(apex) + build.septum_mm), cavity + build.wall_mm)
    myo = frame.apical(outer, 1)
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
    ra = frame.basal(frame.ellipsoid((41, -6, 0.85 * ra_semi[2]), ra_semi), 1)
    vessels = _great_vessels(frame, valve)
    wall = 2.2 * build.size
    outside = [Layer("fat", shape, build.epicardial_mm) for shape in (rv, ra, la)]
    outside += [Layer("fat", myo, 0.3 * build.epicardial_mm)]  # little on the free wall
    outside += [Layer("wall", shape, wall) for shape in (rv, ra, la)]
    outside += vessels
    chambers = [Layer("RV", rv), Layer("RA", ra), Layer("LA", la)]
    chambers += [
        *_aorta_and_trunk(frame, valve),
        Layer("Myo", myo),
        Layer("LV", lv),
        *_papillary(frame, cavity, apex),
    ]
    return outside, chambers


def _papillary(frame: _Frame, cavity: Array, apex: tuple[float, float, float]) -> list[Layer]:
    """Two muscles that stand on the wall and end half-way to the mitral valve."""
    layers = []
    for angle in (2.2, 4.3):
        u, v = 0.62 * cavity[0] * np.cos(angle), 0.62 * cavity[1] * np.sin(angle)
        foot = frame.place(u, v, apex[2] - 0.55 * cavity[2])
        head = frame.place(0.8 * u, 0.8 * v, apex[2] + 0.05 * cavity[2])
        layers.append(Layer("papillary", frame.tube([foot, head], [4.5, 3.0])))
    return layers


def _aorta_and_trunk(frame: _Frame, valve: Array) -> list[Layer]:
    """The roots of the great arteries: blood as bright as a chamber's, yet no structure."""
    up = frame.build.size * frame.build.rotation
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


def _great_vessels(frame: _Frame, valve: Array) -> list[Layer]:
    """Veins that end in the atria."""
    up = frame.build.size * frame.build.rotation
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


def _thorax(build: Build, rng: np.random.Generator) -> list[Layer]:
    """Everything around the heart, from the skin inwards."""
    return [
        *_body_wall(build),
        *_lungs(build, rng),
        *_abdomen(build),
        *_mediastinum(build),
        *_spine(build, rng),
    ]


_MIDLINE_MM = 20.0  # the heart's middle lies to the left of the body's


def _upright(centre: list[float], semi: list[float], scale: float) -> Ellipsoid:
    return Ellipsoid(np.array(centre) * scale, np.array(semi) * scale, np.eye(3))


def _body_wall(build: Build) -> list[Layer]:
    scale = build.thorax
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


def _lungs(build: Build, rng: np.random.Generator) -> list[Layer]:
    scale, layers, vessels = build.thorax, [], []
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


def _abdomen(build: Build) -> list[Layer]:
    """The diaphragm's domes; the liver fills the right one and reaches under the heart."""
    scale, height = build.thorax, build.breath_mm
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


def _mediastinum(build: Build) -> list[Layer]:
    scale = build.thorax
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


def _spine(build: Build, rng: np.random.Generator) -> list[Layer]:
    """Vertebral bodies and discs, the canal in its arch, the spinous processes, the back."""
    scale, x, y = build.thorax, _MIDLINE_MM, -88.0
    period, start = 25.0 * scale, float(rng.uniform(0, 25))
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
