"""Translation and segmentation of scans from disk: the right thing in the right place and units."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import nibabel as nib
import numpy as np
import pytest
from infer_files import (
    CENTRE_MM,
    affine_of,
    anatomy,
    intensities,
    write_scan,
    write_workdir,
)
from scan_files import BALLS
from tiny_runs import random_tree

from cyclesh import infer, outputs, region
from cyclesh.data.geometry import Grid, crop_grid
from cyclesh.data.nifti import Scan, read_image
from cyclesh.data.scans import read_scan
from cyclesh.data.store import restore
from cyclesh.deployed import load
from cyclesh.errors import UserError
from cyclesh.outputs import Task
from cyclesh.scoring.dice import dice


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Loaded once, so that its programs are compiled once."""
    return load(write_workdir(tmp_path_factory.mktemp("runs") / "joint"))


@pytest.fixture(autouse=True)
def loaded(model, monkeypatch):
    def fake_load(_, which, pass_voxels):
        return replace(model, pass_voxels=pass_voxels) if pass_voxels else model

    monkeypatch.setattr(infer, "load", fake_load)
    monkeypatch.setattr(infer, "use_compilation_cache", lambda _: None)


def run(task: Task, scan: Path, **options) -> tuple[nib.Nifti1Image, np.ndarray, dict]:
    """The result beside the scan: image, voxels (x, y, z), sidecar."""
    target = scan.parent / "result.nii.gz"
    infer.run("joint", task, scan, target, quiet=True, overwrite=True, **options)
    image = nib.load(target)
    return image, np.asarray(image.dataobj), json.loads((scan.parent / "result.json").read_text())


def mask_beside(scan: Path) -> np.ndarray:
    return np.asarray(nib.load(scan.parent / "result_mask.nii.gz").dataobj).astype(bool)


def truth(image: nib.Nifti1Image) -> np.ndarray:
    return anatomy(image.affine, image.shape)


def values_of(classes: np.ndarray) -> np.ndarray:
    return np.array([0, 3, 7])[classes]


GRIDS = [
    ("RAS", (2, 2, 2), (24, 22, 26)),
    ("LPS", (2, 2, 2), (24, 22, 26)),
    ("PIR", (2, 2, 2), (26, 24, 22)),
    ("oblique", (1.7, 2, 2.2), (28, 26, 25)),
    ("LPS", (1, 1, 4), (48, 44, 13)),
    ("RAS", (0.9, 0.9, 0.9), (60, 58, 86)),  # larger than the crop, and 86 as in the paper
]


@pytest.mark.parametrize(("direction", "spacing", "shape"), GRIDS)
def test_labels_lie_on_their_structures_whatever_the_grid(tmp_path, direction, spacing, shape):
    scan = write_scan(tmp_path / "scan.nii.gz", "ct", direction, spacing, shape)
    image, labels, about = run(Task(modality="ct"), scan)
    assert image.shape == shape
    np.testing.assert_array_equal(image.affine, nib.load(scan).affine)
    assert set(np.unique(labels)) == {0, 3, 7}  # the source's values, nothing between
    scores = dice(np.searchsorted([0, 3, 7], labels), truth(image), 3)
    assert (scores > 0.85).all()
    np.testing.assert_allclose(about["center_mm"], CENTRE_MM, atol=1.0)
    assert about["centered_on"] == "structures"
    voxel_ml = np.prod(spacing) / 1000
    assert about["volume_ml"]["core"] == pytest.approx((labels == 7).sum() * voxel_ml, abs=1e-3)


@pytest.mark.parametrize("direction", ["RAS", "PIR"])
def test_a_translation_moves_with_the_scan(tmp_path, direction):
    """The same voxels stored along other axes give the same translation in the world."""
    shape = np.array((24, 22, 26))
    axes = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(direction)
    )
    scan = nib.load(write_scan(tmp_path / "a" / "scan.nii.gz", shape_xyz=shape))
    (tmp_path / "b").mkdir()
    nib.save(scan.as_reoriented(axes), tmp_path / "b" / "scan.nii.gz")
    first, values, about = run(Task(to="mr"), tmp_path / "a" / "scan.nii.gz")
    second, _, _ = run(Task(to="mr"), tmp_path / "b" / "scan.nii.gz")
    back = second.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(direction), nib.orientations.axcodes2ornt("LPS")
        )
    )
    np.testing.assert_allclose(back.affine, first.affine, atol=1e-4)
    low, high = about["window_of_result"]
    np.testing.assert_allclose(np.asarray(back.dataobj), values, atol=1e-3 * (high - low))


@pytest.mark.parametrize("grid", ["input", "network"])
def test_a_translation_is_in_the_units_of_its_modality(tmp_path, grid):
    scan = write_scan(tmp_path / "scan.nii.gz", "mr")
    _, values, about = run(Task(to="ct", grid=grid), scan)
    assert about["modality"] == "mr" and about["window_of_result"] == [-500, 500]
    assert values.dtype == np.float32
    computed = mask_beside(scan)
    assert (values[~computed] == -500).all() and about["fill"] == -500
    assert values.min() >= -500 and values.max() <= 500 and np.ptp(values[computed]) > 100
    scan = write_scan(tmp_path / "scan.nii.gz", "ct")
    _, values, about = run(Task(to="mr", grid=grid), scan)
    assert about["window_of_result"] == [20, 330]  # the training volumes' median
    assert values.min() >= 20 and values.max() <= 330


def test_the_networks_grid_is_aligned_with_the_body(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", direction="oblique")
    image, _, about = run(Task(to="mr", grid="network"), scan)
    assert image.shape == BALLS.shape[::-1] == tuple(about["shape"][::-1])
    np.testing.assert_allclose(image.affine[:3, :3], np.diag([2, 2, 2]), atol=1e-6)
    middle = image.affine[:3, :3] @ ((np.array(image.shape) - 1) / 2) + image.affine[:3, 3]
    np.testing.assert_allclose(middle, about["center_mm"], atol=1e-3)


def test_the_mask_is_the_crop(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", spacing_xyz=(1, 1, 1), shape_xyz=(50, 48, 52))
    image, labels, about = run(Task(modality="ct"), scan)
    index = np.indices(image.shape).reshape(3, -1)
    world = (image.affine[:3, :3] @ index).T + image.affine[:3, 3]
    half_mm = np.array(BALLS.shape[::-1]) * 2 / 2
    within = (np.abs(world - about["center_mm"]) <= half_mm + 1e-3).all(1).reshape(image.shape)
    np.testing.assert_array_equal(mask_beside(scan), within)
    assert not labels[~within].any()


def test_the_whole_scan_agrees_with_the_crop_and_has_no_mask(tmp_path):
    scan = write_scan(tmp_path / "a" / "scan.nii.gz", shape_xyz=(40, 36, 44))
    _, cropped, _ = run(Task(modality="ct"), scan)
    computed = mask_beside(scan)
    whole_scan = write_scan(tmp_path / "b" / "scan.nii.gz", shape_xyz=(40, 36, 44))
    image, whole, about = run(Task(modality="ct", extent="whole"), whole_scan)
    assert not (whole_scan.parent / "result_mask.nii.gz").exists()
    # The two grids lie up to half a voxel apart, so surfaces may differ by one.
    assert (cropped == whole)[computed].mean() > 0.97
    assert (dice(np.searchsorted([0, 3, 7], whole), truth(image), 3) > 0.9).all()
    assert min(n * 2 >= m * 2 for n, m in zip(about["shape"][::-1], image.shape, strict=True))


def test_a_scan_in_tiles_has_the_labels_of_one_pass(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", shape_xyz=(24, 22, 80))
    task = Task(modality="ct", extent="whole", probabilities=True)
    _, once, about = run(task, scan)
    first = np.asarray(nib.load(tmp_path / "result_probabilities.nii.gz").dataobj)
    _, tiled, about_tiled = run(task, scan, pass_voxels=25_000)
    second = np.asarray(nib.load(tmp_path / "result_probabilities.nii.gz").dataobj)
    assert about["in_one_pass"] and not about_tiled["in_one_pass"]
    np.testing.assert_array_equal(once, tiled)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_whole_translation_in_tiles_comes_near_to_one_pass(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", shape_xyz=(24, 22, 60))
    _, once, about = run(Task(to="mr", extent="whole"), scan)
    _, tiled, _ = run(Task(to="mr", extent="whole"), scan, pass_voxels=20_000)
    assert not np.array_equal(once, tiled)
    assert np.corrcoef(once.ravel(), tiled.ravel())[0, 1] > 0.8
    assert tiled.shape == once.shape and np.isfinite(tiled).all()


def test_the_seam_of_a_translation_in_tiles_is_told(tmp_path, monkeypatch, model):
    scan = write_scan(tmp_path / "scan.nii.gz", shape_xyz=(24, 22, 60))
    task = Task(to="mr", extent="whole")
    _, once, about = run(task, scan)
    assert about["in_one_pass"] and about["seam"] is None
    _, tiled, about = run(task, scan, pass_voxels=20_000)
    seam, whole = about["seam"], np.abs(once - tiled)
    assert not about["in_one_pass"] and np.prod(seam["shape"]) <= 20_000
    # A sample of it: of the same size as the difference from one pass over everything.
    assert whole.mean() / 3 < seam["mean"] < whole.mean() * 3
    assert seam["mean"] < seam["p99"] < 310  # the window's width
    # A generator that treats every voxel alike has no seams.
    monkeypatch.setattr(type(model), "_one_pass", lambda *_: lambda volume: volume / 2)
    monkeypatch.setattr(type(model), "has", lambda self, player: player == "gen")
    _, _, about = run(replace(task, centre_mm=tuple(CENTRE_MM)), scan, pass_voxels=20_000)
    assert about["seam"] == {"mean": 0, "p99": 0, "shape": seam["shape"]}


def test_smaller_passes_are_advised_where_there_are_any(model):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    model = replace(model, pass_voxels=10**9)
    vars(model)["_compiled"] = {"gen": full, "seg": full}
    small, long = np.zeros(BALLS.shape, np.float32), np.zeros((8, 8, 400), np.float32)
    for compute in (model.translate, model.segment):
        with pytest.raises(UserError, match="of 8x8x400 voxels; give --pass_voxels=12800 or less"):
            compute("mr", long)
        with pytest.raises(UserError, match="12x14x16 voxels; there is no smaller one: free mem"):
            compute("mr", small)


def test_what_lies_beyond_the_scan_neither_agrees_nor_shows(tmp_path, monkeypatch, model):
    """The networks' grid is larger than the scan; what they imagine there is nobody's business."""
    scan = write_scan(tmp_path / "scan.nii.gz")
    whole = Task(to="mr", extent="whole")
    monkeypatch.setattr(type(model), "translate", lambda self, to, volume: volume)
    shown = []
    monkeypatch.setattr(
        outputs, "overlay_png", lambda views, *rest: shown.append((views, rest[-1])) or b"png"
    )

    def segment(self, modality, volume):
        found = np.zeros((*volume.shape, 3), np.float32)
        found[..., 0], found[6:9, 6:9, 6:9, 1] = 0.5, 1
        found[:2, :, :, 2 if modality == "mr" else 1] = 1  # below the scan
        return found

    monkeypatch.setattr(type(model), "segment", segment)
    _, _, about = run(replace(whole, overlay=True, centre_mm=tuple(CENTRE_MM)), scan)
    assert about["agreement"]["share"] == 1.0
    (views, centre) = shown[0]
    assert all((view.classes > 0).sum() == 27 for view in views)
    assert (views[1].image[:2] == -1).all()
    grid = region.whole_grid(read_image(scan).grid, (2, 2, 2))
    assert np.abs(grid.world_mm(np.array([centre]))[0] - CENTRE_MM).max() <= 1.0


def test_probabilities_add_up_and_decide_the_labels(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", direction="oblique")
    image, labels, _ = run(Task(modality="ct", probabilities=True), scan)
    written = nib.load(tmp_path / "result_probabilities.nii.gz")
    probabilities = np.asarray(written.dataobj)
    assert probabilities.shape == (*image.shape, 3)
    np.testing.assert_array_equal(written.affine, image.affine)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(labels, values_of(probabilities.argmax(-1)))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_voxel_types_make_no_difference(tmp_path, dtype):
    scan = write_scan(tmp_path / "scan.nii.gz", dtype=dtype)
    image, labels, _ = run(Task(modality="ct"), scan)
    assert labels.dtype == np.uint8
    assert (dice(np.searchsorted([0, 3, 7], labels), truth(image), 3) > 0.9).all()


def test_negative_mr_values_are_fine(tmp_path):
    path = write_scan(tmp_path / "scan.nii.gz", "mr")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata() - 500, image.affine), path)
    _, _, about = run(Task(modality="mr"), path)
    low, high = about["window"]
    assert -500 < low < high < -150


def test_an_mr_window_is_measured_within_the_crop(tmp_path):
    """As in training: what shines elsewhere in the scan does not darken the structures."""
    path = write_scan(tmp_path / "scan.nii.gz", "mr", shape_xyz=(24, 22, 60))
    image = nib.load(path)
    values = image.get_fdata()
    values[..., :6] = 5000  # 50 mm below the ball
    nib.save(nib.Nifti1Image(values, image.affine), path)
    centre = tuple(CENTRE_MM)
    for extent in ("crop", "whole"):
        _, _, about = run(Task(to="ct", extent=extent, centre_mm=centre), path)
        assert about["window"][1] < 400 and about["centered_on"] == "center"


def test_the_users_centre_is_obeyed(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", shape_xyz=(40, 40, 40))
    _, _, about = run(Task(modality="ct", centre_mm=(-5.0, 7.5, -3.25)), scan)
    assert about["center_mm"] == [-5.0, 7.5, -3.25]
    with pytest.raises(UserError, match=r"scan.nii.gz: --center=500,0,0 lies outside .*x -40..40"):
        run(Task(modality="ct", centre_mm=(500.0, 0, 0)), scan)


def test_where_nothing_is_found_the_crop_is_about_the_middle(tmp_path, capsys):
    affine = affine_of("LPS", (2, 2, 2), (20, 20, 20), middle_mm=(10, 20, 30))
    air = intensities(np.zeros((20, 20, 20), np.uint8), "ct")
    nib.save(nib.Nifti1Image(air.astype(np.float32), affine), tmp_path / "scan.nii.gz")
    _, labels, about = run(Task(modality="ct"), tmp_path / "scan.nii.gz")
    assert about["centered_on"] == "volume" and not labels.any()
    np.testing.assert_allclose(about["center_mm"], (10, 20, 30), atol=1e-2)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and "scan.nii.gz: found no structure" in warning


def test_bringing_a_volume_to_the_networks_and_back_keeps_it(tmp_path, monkeypatch, model):
    """A generator that changes nothing: what remains is interpolation, there and back."""
    monkeypatch.setattr(type(model), "translate", lambda self, to, volume: volume)
    model = replace(model, windows={"ct": (-500, 500), "mr": (-500, 500)})
    monkeypatch.setattr(infer, "load", lambda *_: model)
    shape = (40, 40, 40)
    affine = affine_of("oblique", (1.1, 1.2, 1.3), shape)
    index = np.indices(shape).reshape(3, -1)
    x, y, z = affine[:3, :3] @ index + affine[:3, 3:]
    smooth = 200 * np.sin(x / 9) * np.cos(y / 11) + 150 * np.sin(z / 10)
    smooth = smooth.reshape(shape).astype(np.float32)
    nib.save(nib.Nifti1Image(smooth, affine), tmp_path / "scan.nii.gz")
    scan = tmp_path / "scan.nii.gz"
    _, values, _ = run(Task(to="mr", centre_mm=(0.0, 0, 0)), scan)
    computed = mask_beside(scan)
    assert np.abs(values - smooth)[computed].max() < 25
    assert np.abs(values - smooth)[computed].mean() < 5


# ------------------------------------------------------------------------- finding structures


def ball_at(shape, centre, radius) -> np.ndarray:
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    cz, cy, cx = centre
    return (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def test_the_centre_is_that_of_the_bounding_box_of_the_largest_pieces():
    grid = crop_grid(np.zeros(3), (2, 2, 2), (40, 40, 40))
    classes = np.zeros(grid.shape, np.uint8)
    classes[10:14, 20:26, 8:12] = 1
    classes[12:18, 20:22, 10:20] = 2
    classes[30:33, 5:8, 35:38] = 1  # a smaller piece of 1, far away
    centre = region.structures_centre_mm(classes, grid, (20, 20, 20))
    box = np.array([(10 + 17) / 2, (20 + 25) / 2, (8 + 19) / 2])  # z, y, x
    np.testing.assert_allclose(centre, grid.world_mm(box[None])[0])


def test_a_structure_imagined_far_away_does_not_move_the_crop():
    grid = crop_grid(np.zeros(3), (1, 1, 1), (100, 30, 30))
    classes = np.zeros(grid.shape, np.uint8)
    classes[ball_at(grid.shape, (20, 15, 15), 5)] = 1
    classes[ball_at(grid.shape, (20, 15, 15), 2)] = 2
    classes[ball_at(grid.shape, (85, 15, 15), 6)] = 3
    centre = region.structures_centre_mm(classes, grid, (16, 16, 16))
    np.testing.assert_allclose(centre, grid.world_mm(np.array([[20.0, 15, 15]]))[0])


class Imagining:
    """Segments a scan of grey values 0, 1 and 2 as they are, and 3 and 4 as 1 and 2, too.

    But for crops about the real structures, the only ones that it learned from.
    """

    description = SimpleNamespace(
        window=lambda modality: ("fixed", 0, 4), spacing_mm=(1, 1, 1), shape=(24, 24, 24), classes=3
    )

    def has(self, player: str) -> bool:
        return player == "seg"

    def segment(self, modality: str, image: np.ndarray) -> np.ndarray:
        grey = np.rint(2 * (image + 1)).astype(int)
        real = (grey == 1) | (grey == 2)
        middle = np.argwhere(real).mean(axis=0) if real.any() else -1000
        learned = np.abs(middle - np.array(image.shape) / 2).max() < 4
        return np.eye(3)[np.where(grey > 2, 0 if learned else grey - 2, grey)]


def test_a_second_anatomy_imagined_near_the_first_does_not_pull_the_crop_between_them(tmp_path):
    grey = np.zeros((32, 40, 40), np.float32)
    for value, z, half in ((1, 6, 4), (2, 10, 4), (3, 20, 4), (4, 24, 6)):
        grey[z : z + 4, 20 - half : 20 + half, 20 - half : 20 + half] = value
    scan = Scan(grey, Grid(grey.shape, np.eye(4)), "float32", "")
    told = []
    centre, how = region._find_centre(Imagining(), scan, tmp_path, "ct", told.append)
    assert how == "structures" and told == []
    np.testing.assert_allclose(centre, (19.5, 19.5, 9.5), atol=0.1)  # x, y, z


def test_wholeness_by_hand():
    classes = np.zeros((9, 8, 8), np.uint8)
    classes[:4], classes[5:] = 1, 2
    assert region.wholeness(classes, 3) == 1 and region.wholeness(classes, 5) == 0.5
    classes[1] = 0  # parts the first structure into one slice and two
    assert region.wholeness(classes, 3) == pytest.approx((2 / 3 + 1) / 2)


def test_specks_are_no_structure():
    grid = crop_grid(np.zeros(3), (1, 1, 1), (20, 20, 20))
    classes = np.zeros(grid.shape, np.uint8)
    classes[3, 3, 3:10] = 1
    assert region.structures_centre_mm(classes, grid, (8, 8, 8)) is None
    classes[3, 3, 3:11] = 1
    assert region.structures_centre_mm(classes, grid, (8, 8, 8)) is not None


def test_whole_grids_cover_the_scan_and_take_few_sizes():
    sizes = set()
    for n in range(60, 100):
        affine = affine_of("oblique", (1, 1.2, 0.8), (n, n, n), middle_mm=(5, 6, 7))
        source = Grid((n, n, n), affine)
        whole = region.whole_grid(source, (2, 2, 2))
        index = whole.index(source.corners_mm())
        assert index.min() >= -0.5 - 1e-6
        assert (index.max(axis=0) <= np.array(whole.shape) - 0.5 + 1e-6).all()
        np.testing.assert_allclose(whole.corners_mm().mean(0), (5, 6, 7), atol=1.01)
        sizes |= set(whole.shape)
    assert len(sizes) <= 6 and all(size % 8 == 0 for size in sizes)


# ------------------------------------------------------------------------------------ figures


def test_agreement_by_hand():
    before = np.array([1, 1, 2, 0, 0, 2]).reshape(1, 1, 6)
    after = np.array([1, 2, 2, 0, 1, 0]).reshape(1, 1, 6)
    found = outputs.agreement_of(before, after, ("a", "b", "c"))
    # Five voxels hold a structure in either; the first and the third are alike in both.
    assert found["share"] == pytest.approx(2 / 5)
    assert found["dice"] == pytest.approx({"a": 2 / 4, "b": 2 / 4, "c": None})
    assert outputs.agreement_of(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), ("a",)) is None


def test_the_sidecar_tells_of_a_drifted_anatomy(tmp_path, monkeypatch, model):
    scan = write_scan(tmp_path / "scan.nii.gz")
    monkeypatch.setattr(type(model), "translate", lambda self, to, volume: volume)
    _, _, faithful = run(Task(to="mr"), scan)
    monkeypatch.setattr(
        type(model), "translate", lambda self, to, volume: np.roll(volume, 3, axis=1)
    )
    _, _, drifted = run(Task(to="mr"), scan)
    assert faithful["agreement"]["share"] == 1.0
    assert drifted["agreement"]["share"] < 0.6
    assert drifted["model"]["checkpoint"] == 7


def test_label_values_take_the_smallest_type():
    classes = np.array([0, 1, 2], np.uint8)
    for values, kind in (((3, 7), np.uint8), ((500, 205), np.int16), ((60000, 1), np.uint16)):
        found = outputs.label_values(classes, tuple(zip("ab", values, strict=True)))
        assert found.dtype == kind and found.tolist() == [0, *values]


def test_a_result_is_the_same_bytes_again(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz")
    files = []
    for _ in range(2):
        run(Task(to="mr", overlay=True), scan)
        files.append({p.name: p.read_bytes() for p in tmp_path.glob("result*")})
    assert files[0] == files[1] and len(files[0]) == 4


def test_the_window_of_the_scan_restores_it(tmp_path, model):
    """The region's intensities are the scan's, scaled by its window."""
    path = write_scan(tmp_path / "scan.nii.gz", "mr")
    scan, _ = read_scan(path)
    seen = region.look(
        model, scan, path, "mr", extent="crop", centre_mm=tuple(CENTRE_MM), warn=print
    )
    z, y, x = (n // 2 for n in BALLS.shape)  # within the core
    value = restore(seen.image, seen.window)[z, y, x]
    assert value == pytest.approx(150, abs=15)
    assert read_image(path).values.min() <= seen.window[0]


@pytest.mark.parametrize(("modality", "domain"), [("ct", "A"), ("mr", "B")])
def test_each_modality_has_networks_of_its_own(model, modality, domain):
    own = replace(model, read_tree=lambda player, shapes: random_tree(shapes, 2))
    volume = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8)).astype(np.float32)

    def put_out(player: str) -> np.ndarray:
        tree = {"params": own.trees(player)[domain]}
        return np.asarray(getattr(own._nets, player).apply(tree, volume[None, ..., None]))[0]

    fake, logits = put_out("gen"), put_out("seg")
    np.testing.assert_allclose(own.translate(modality, volume), fake[..., 0], atol=1e-5)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(own.segment(modality, volume), shares, atol=1e-5)
