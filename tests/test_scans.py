"""Reading scans of every format, refusing what is none, writing NIfTI."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from infer_files import DIRECTIONS, affine_of, anatomy, intensities, write_scan
from scan_formats import itk_image, patch_header, write_itk, write_series, write_slice

from cyclesh.data import scans
from cyclesh.data.geometry import Grid
from cyclesh.data.nifti import nifti_bytes, publish
from cyclesh.errors import UserError

SHAPE = (12, 10, 14)
SPACING = (1.5, 2.0, 2.5)


def voxels(affine: np.ndarray, shape=SHAPE) -> np.ndarray:
    return intensities(anatomy(affine, shape), "ct").round().astype(np.int16)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("form", ["nii.gz", "nii", "mha", "mhd", "nrrd", "nhdr", "series"])
def test_every_format_gives_the_same_volume_in_the_same_place(tmp_path, form, direction):
    affine = affine_of(direction, SPACING, SHAPE, middle_mm=(30, -20, 900))
    values, path = voxels(affine), tmp_path / f"scan.{form}"
    if form == "series":
        write_series(path, values, affine)
    elif form.startswith("nii"):
        nib.save(nib.Nifti1Image(values, affine), path)
    else:
        write_itk(path, values, affine)
    scan, header = scans.read_scan(path)
    np.testing.assert_array_equal(scan.values, values.T)
    np.testing.assert_allclose(scan.grid.affine, affine, atol=1e-5)
    assert (header is not None) == form.startswith("nii")
    assert scans.name_of(path) == ("scan.series" if form == "series" else "scan")


@pytest.mark.parametrize("form", ["nii", "mha", "mhd", "nrrd", "nhdr"])
def test_the_hash_is_of_the_voxels_too(tmp_path, form):
    affine = affine_of("LPS", SPACING, SHAPE)
    values = voxels(affine)
    other = values.copy()
    other[3, 4, 5] += 1
    written = {"a": values, "b": values, "c": other}
    for folder, array in written.items():
        write_itk(tmp_path / folder / f"scan.{form}", array, affine)
    first, again, changed = (
        scans.read_scan(tmp_path / folder / f"scan.{form}")[0].sha256 for folder in written
    )
    assert first == again != changed and len(first) == len(changed) == 64


def test_a_series_is_rescaled_and_its_slices_are_put_in_order(tmp_path):
    affine = affine_of("LPS", SPACING, SHAPE)
    even = voxels(affine) // 2 * 2
    series = write_series(tmp_path / "s", even, affine, slope=2, intercept=-1024)
    stored = (even + 1024) // 2  # what the writer puts into the slices
    content = (series / "000.dcm").read_bytes()
    assert stored[..., 0].T.tobytes() in content and even[..., 0].T.tobytes() not in content
    np.testing.assert_array_equal(scans.read_scan(series)[0].values, even.T)


def test_every_slice_has_a_slope_of_its_own(tmp_path):
    """Of the first it is a whole number, as some scanners write them; of the others it is not."""
    affine = affine_of("LPS", SPACING, SHAPE)
    values = voxels(affine) // 2 * 2
    series = write_series(tmp_path / "s", values, affine, slope=2, intercept=-1024)
    stored, wanted = (values.T + 1024) // 2, []
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    for number, name in enumerate(names):
        slope = "3 " if number == 0 else f"{0.5 + number / 100:.2f}"
        set_slope(Path(name), slope)
        wanted.append(stored[number] * float(slope) - 1024)
    np.testing.assert_allclose(scans.read_scan(series)[0].values, wanted, atol=1e-3)


def set_slope(path: Path, text: str) -> None:
    """Writes the text of (0028,1053) into a slice that the library wrote with implicit types."""
    tag = bytes((0x28, 0, 0x53, 0x10))
    before, after = path.read_bytes().split(tag)
    length = int.from_bytes(after[:4], "little")
    field = tag + len(text).to_bytes(4, "little") + text.encode()
    path.write_bytes(before + field + after[4 + length :])


def test_the_slices_of_a_tilted_gantry_stay_where_they_are(tmp_path):
    affine = affine_of("LPS", SPACING, SHAPE)
    series = write_series(tmp_path / "s", voxels(affine), affine)
    for number, name in enumerate(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))):
        part = sitk.ReadImage(name)
        x, y, z = part.GetOrigin()
        part.SetMetaData("0020|0032", f"{x}\\{y + 0.5 * number}\\{z}")
        write_slice(Path(name), part)
    scan, _ = scans.read_scan(series)
    # Half a millimetre to the back (+y of LPS, -y of RAS) a slice.
    np.testing.assert_allclose(scan.grid.affine[:3, 2], [0, -0.5, 2.5], atol=1e-6)
    np.testing.assert_allclose(scan.grid.affine[:3, 3], affine[:3, 3], atol=1e-5)


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    affine = affine_of("LPS", SPACING, SHAPE)
    return write_series(tmp_path_factory.mktemp("dicom") / "good", voxels(affine), affine)


def without_a_slice(folder: Path) -> None:
    (folder / "007.dcm").unlink()


def with_a_damaged_slice(folder: Path) -> None:
    (folder / "000.dcm").write_bytes(b"no slice" * 100)


def with_a_cut_slice(folder: Path) -> None:
    (folder / "003.dcm").write_bytes((folder / "003.dcm").read_bytes()[:500])


def with_another_series(folder: Path) -> None:
    affine = affine_of("LPS", SPACING, SHAPE)
    for path in write_series(folder / "b", voxels(affine), affine, uid="1.2.3").iterdir():
        path.rename(folder / f"b{path.name}")
    (folder / "b").rmdir()


def with_a_slice_of_another_size(folder: Path) -> None:
    affine = affine_of("LPS", SPACING, SHAPE)
    small = write_series(folder / "b", voxels(affine)[:8, :8], affine)
    shutil.move(small / "003.dcm", folder / "003.dcm")
    shutil.rmtree(small)


def with_a_malformed_position(folder: Path) -> None:
    path = folder / "004.dcm"
    content = path.read_bytes()
    position = sitk.ReadImage(str(path)).GetMetaData("0020|0032").encode()
    assert content.count(position) == 1
    path.write_bytes(content.replace(position, b"nowhere".ljust(len(position))))


def replace_tag(path: Path, tag: str, new: bytes) -> None:
    """Puts another text of the same length where a slice has its tag's."""
    old = sitk.ReadImage(str(path)).GetMetaData(tag).encode()
    content = path.read_bytes()
    assert content.count(old) == 1 and len(new) <= len(old)
    path.write_bytes(content.replace(old, new.ljust(len(old))))


def with_a_slice_that_is_turned(folder: Path) -> None:
    replace_tag(folder / "004.dcm", "0020|0037", b"1\\0\\0\\0\\0\\1")


def with_a_slice_of_other_pixels(folder: Path) -> None:
    replace_tag(folder / "004.dcm", "0028|0030", b"2\\2")


def without_pixel_spacing(folder: Path) -> None:
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.count(b"\x28\x00\x30\x00") == 1
        path.write_bytes(content.replace(b"\x28\x00\x30\x00", b"\x28\x00\x31\x00"))


def with_dark_large_values(folder: Path) -> None:
    replace_tag(folder / "004.dcm", "0028|0004", b"MONOCHROME1")


def all_damaged(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"\0" * 200)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_a_slice, "not evenly spaced"),
        (with_a_damaged_slice, "000.dcm: cannot be read"),
        (with_a_cut_slice, "003.dcm: cannot be read"),
        (with_another_series, "2 DICOM series"),
        (
            with_a_malformed_position,
            "004.dcm: its position .0020,0032. is not 3 numbers",
        ),
        (with_a_slice_that_is_turned, "004.dcm: has another orientation than"),
        (with_a_slice_of_other_pixels, "004.dcm: has another pixel spacing than"),
        (without_pixel_spacing, "dcm: a DICOM slice without pixel spacing .0028,0030."),
        (with_dark_large_values, "004.dcm: is stored inverted .MONOCHROME1."),
        (with_a_slice_of_another_size, "cannot be read"),
        (all_damaged, "no readable DICOM slice"),
    ],
)
def test_a_faulty_series_is_refused(tmp_path, series, damage, said, capfd):
    folder = Path(shutil.copytree(series, tmp_path / "series"))
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        scans.read_scan(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_one_dicom_file_is_no_scan(tmp_path, series):
    with pytest.raises(UserError, match="003.dcm: is one DICOM slice; for a series name its fold"):
        scans.read_scan(series / "003.dcm")
    (tmp_path / "alone").mkdir()
    shutil.copy(series / "003.dcm", tmp_path / "alone")
    with pytest.raises(UserError, match="003.dcm: is one DICOM slice; its folder holds no other"):
        scans.read_scan(tmp_path / "alone")
    frames = tmp_path / "frames.dcm"
    sitk.WriteImage(itk_image(np.ones(SHAPE, np.uint8), np.eye(4)), str(frames))
    with pytest.raises(UserError, match="frames.dcm: is a multi-frame DICOM"):
        scans.read_scan(frames)


def test_scans_beside_the_slices_of_a_series_are_named(tmp_path, series):
    folder = Path(shutil.copytree(series, tmp_path / "series"))
    write_scan(folder / "ct_9.nii.gz", "ct")
    (folder / "notes.txt").write_text("short")
    assert scans.is_series(folder) and scans.beside_series(folder) == ["ct_9.nii.gz"]


def test_other_files_beside_the_slices_do_no_harm(tmp_path, series):
    folder = Path(shutil.copytree(series, tmp_path / "series"))
    (folder / "._000.dcm").write_bytes(b"of another system")
    (folder / "notes.txt").write_text("short")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 50)
    assert scans.read_scan(folder)[0].grid.shape == SHAPE[::-1]


def save(path: Path, values: np.ndarray, affine=None) -> Path:
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)
    return path


NOISE = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)


def holed(value: float) -> np.ndarray:
    return np.where(NOISE > 2.5, np.float32(value), NOISE)


@pytest.mark.parametrize(
    ("values", "affine", "said"),
    [
        (holed(np.nan), None, "NaN"),
        (holed(np.inf), None, "infinite"),
        (np.zeros((12, 12, 12), np.int16), None, "every voxel is 0"),
        (NOISE[..., 0], None, "3D"),
        (np.stack([NOISE, NOISE], -1), None, "3D"),
        (NOISE[:7], None, "12x12x7 voxels"),
        (NOISE, np.diag([0.01, 2, 2, 1.0]), "not plausible"),
        (NOISE, np.diag([40.0, 2, 2, 1]), "not plausible"),
        (np.zeros((12, 12, 12), [("R", "u1"), ("G", "u1"), ("B", "u1")]), None, "scalars"),
        (NOISE.astype(np.complex64), None, "scalars"),
    ],
)
def test_what_no_network_can_work_on_is_refused(tmp_path, values, affine, said):
    path = save(tmp_path / "scan.nii.gz", values, affine)
    with pytest.raises(UserError, match=said) as caught:
        scans.read_scan(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_singular_affine_is_refused(tmp_path, capfd):
    path = patch_header(save(tmp_path / "scan.nii", NOISE), srow_x=(0, 0, 0, 0))
    with pytest.raises(UserError, match="singular"):
        scans.read_scan(path)
    assert capfd.readouterr() == ("", "")


def test_vectors_and_planes_of_other_formats_are_refused(tmp_path):
    colour = sitk.GetImageFromArray(np.zeros((9, 9, 9, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(NOISE[0]), str(tmp_path / "flat.nrrd"))
    for name, said in (("colour.mha", "3 numbers"), ("flat.nrrd", "3D")):
        with pytest.raises(UserError, match=said):
            scans.read_scan(tmp_path / name)


def test_a_trailing_axis_of_one_is_fine(tmp_path):
    path = save(tmp_path / "scan.nii.gz", NOISE[..., None])
    assert scans.read_scan(path)[0].values.shape == (12, 12, 12)
    joined = sitk.JoinSeries(itk_image(NOISE, np.eye(4)))
    sitk.WriteImage(joined, str(tmp_path / "scan.nrrd"))
    assert scans.read_scan(tmp_path / "scan.nrrd")[0].values.shape == (12, 12, 12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_voxel_types_slope_and_intercept(tmp_path, dtype):
    values = np.arange(10**3).reshape(10, 10, 10).astype(dtype)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.5, -7)
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(raw_bytes(image, values))
    np.testing.assert_allclose(scans.read_scan(path)[0].values.T, values * 0.5 - 7, rtol=1e-6)


def raw_bytes(image: nib.Nifti1Image, values: np.ndarray) -> bytes:
    """The file with the header's slope and the voxels as they are, which nibabel would rescale."""
    header = image.header.copy()
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 0.5, -7
    return header.binaryblock + b"\0" * 4 + values.tobytes(order="F")


def test_folders_list_scans_of_all_kinds_and_leave_the_rest(tmp_path, series):
    shutil.copytree(series, tmp_path / "patient")
    for name in ("b.NII.GZ", "a.mha", "c_label.nii", "notes.txt", ".hidden.nii"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub").mkdir()
    used, others = scans.find_scans(tmp_path, lambda name, _: not name.endswith("_label"))
    assert [path.name for path in used] == ["a.mha", "b.NII.GZ", "patient"]
    assert [path.name for path in others] == ["c_label.nii"]
    assert [scans.name_of(path) for path in used] == ["a", "b", "patient"]


def test_two_scans_of_one_name_are_refused(tmp_path):
    for name in ("a.mha", "a.nrrd"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="a.nrrd: would be written under the name of a.mha"):
        scans.find_scans(tmp_path, lambda *_: True)


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "a_label.nii").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no scan \(1 left out"):
        scans.find_scans(tmp_path, lambda *_: False)


FIXED, PERCENTILE = ("fixed", -500.0, 500.0), ("percentile", 0.5, 99.5)


def test_a_scan_that_may_be_another_modality_or_mirrored_is_doubted(tmp_path):
    scan, _ = scans.read_scan(write_scan(tmp_path / "ct.nii.gz", "ct"))
    assert scans.doubts(scan, "ct", FIXED) == []
    mr, _ = scans.read_scan(write_scan(tmp_path / "mr.nii.gz", "mr"))
    assert scans.doubts(mr, "mr", PERCENTILE) == []
    (doubt,) = scans.doubts(mr, "ct", FIXED)
    assert "no value below 0" in doubt and "is it ct?" in doubt
    air = np.where(scan.values < 0, np.float32(-1000), scan.values)
    (doubt,) = scans.doubts(replace(scan, values=air), "mr", PERCENTILE)
    assert "is it mr?" in doubt


def test_what_a_nifti_header_contradicts_itself_in_is_told_or_refused(tmp_path):
    affine = affine_of("LPS", SPACING, SHAPE)
    path = tmp_path / "scan.nii"

    def patched(**fields) -> Path:
        image = nib.Nifti1Image(voxels(affine), affine)
        image.set_qform(affine, 1)
        nib.save(image, path)
        return patch_header(path, **fields)

    for fields, said in (
        ({"sform_code": 0, "qform_code": 0}, "which side is left"),
        ({"pixdim": (-1, 1.5, 2, 5, 0, 0, 0, 0)}, "pixdim says"),
        ({"quatern_b": 0, "quatern_c": 0, "quatern_d": 0}, "qform and sform"),
    ):
        scan, _ = scans.read_scan(patched(**fields))
        assert said in " ".join(scans.doubts(scan, "ct", FIXED)), fields
    with pytest.raises(UserError, match="scan.nii: gives its spacing in meters"):
        scans.read_scan(patched(xyzt_units=1))


@pytest.mark.parametrize(
    ("name", "fields", "without", "said"),
    [
        ("a.mha", ("DimSize = 12 10 14", "ElementSpacing = 1 2 3"), "TransformMatrix", "left"),
        (
            "a.mha",
            ("DimSize = 12 10 14", "TransformMatrix = 1 0 0 0 1 0 0 0 1"),
            "spacing",
            "large",
        ),
        ("a.nrrd", ("spacings: 1 2 3",), "space", "left"),
        ("a.nrrd", ("space dimension: 3", "space directions: (1,0,0) (0,1,0) (0,0,1)"), "", "left"),
        ("a.nrrd", ("space dimension: 3",), "spacings", "large"),
        (
            "a.nrrd",
            ("space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (nan,0,1)"),
            "",
            "large",
        ),
    ],
)
def test_headers_that_leave_the_place_open_are_doubted_and_without_spacing_refused(
    tmp_path, name, fields, without, said
):
    raw = voxels(affine_of("LPS", SPACING, SHAPE)).T.tobytes()
    if name.endswith("mha"):
        head = ("ObjectType = Image", "NDims = 3", "BinaryData = True", *fields)
        head += ("ElementType = MET_SHORT", "ElementDataFile = LOCAL")
        text = "\n".join(head) + "\n"
    else:
        head = ("NRRD0004", "type: short", "dimension: 3", "sizes: 12 10 14", *fields)
        text = "\n".join((*head, "encoding: raw", "endian: little")) + "\n\n"
    (tmp_path / name).write_bytes(text.encode() + raw)
    if said == "large":
        with pytest.raises(UserError, match=f"{name}: its header does not say how large voxels"):
            scans.read_scan(tmp_path / name)
        return
    scan, _ = scans.read_scan(tmp_path / name)
    assert any("which side is left" in doubt for doubt in scans.doubts(scan, "ct", FIXED))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (3, 0)])  # of sform and qform
def test_a_written_nifti_lies_exactly_where_its_scan_does(tmp_path, direction, codes):
    affine = affine_of(direction, SPACING, SHAPE)
    image = nib.Nifti1Image(voxels(affine), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    image.header["cal_max"] = 99
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of the scan"))
    nib.save(image, tmp_path / "scan.nii")
    scan, header = scans.read_scan(tmp_path / "scan.nii")
    values = np.resize(NOISE, scan.grid.shape)
    (tmp_path / "result.nii.gz").write_bytes(nifti_bytes(values, scan.grid, header))
    result, scanned = nib.load(tmp_path / "result.nii.gz"), nib.load(tmp_path / "scan.nii")
    np.testing.assert_array_equal(result.affine, scanned.affine)
    np.testing.assert_array_equal(np.asarray(result.dataobj), values.T)
    for form in ("get_sform", "get_qform"):
        (matrix, code), (wanted, wanted_code) = (
            getattr(i, form)(coded=True) for i in (result, scanned)
        )
        assert code == wanted_code
        np.testing.assert_array_equal(matrix, wanted)
    assert result.header["cal_max"] == 0 and not result.header.extensions


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
def test_a_written_nifti_says_nothing_else_of_its_scan(tmp_path, kind, order):
    """Scanners write patients' names into the texts."""
    header, path = kind.header_class(endianness=order), tmp_path / "scan.nii"
    for field in {"db_name", "aux_file", "descrip", "intent_name"} & set(header.keys()):
        header[field] = "Doe^Jane"
    numbers = ("toffset", "slice_start", "slice_end", "slice_code", "slice_duration", "dim_info")
    for field in numbers:
        header[field] = 3
    image = kind(voxels(affine_of("PIR", SPACING, SHAPE)), affine_of("PIR", SPACING, SHAPE), header)
    nib.save(image, path)
    assert b"Doe^Jane" in path.read_bytes()
    scan, header = scans.read_scan(path)
    (tmp_path / "result.nii.gz").write_bytes(nifti_bytes(scan.values, scan.grid, header))
    result = nib.load(tmp_path / "result.nii.gz")
    assert isinstance(result, kind) and result.header.endianness == order
    np.testing.assert_array_equal(result.affine, nib.load(path).affine)
    assert b"Doe" not in result.header.binaryblock and result.header["descrip"] == b"cyclesh"
    assert [result.header[field] for field in numbers] == [0] * len(numbers)


def test_channels_come_last_in_the_file(tmp_path):
    grid = Grid((3, 4, 5), np.diag([2.0, 2, 2, 1]))
    values = np.random.default_rng(0).uniform(size=(2, 3, 4, 5)).astype(np.float32)
    (tmp_path / "p.nii.gz").write_bytes(nifti_bytes(values, grid, None))
    written = np.asarray(nib.load(tmp_path / "p.nii.gz").dataobj)
    assert written.shape == (5, 4, 3, 2)
    np.testing.assert_array_equal(written[1, 2, 0], values[:, 0, 2, 1])


def test_files_are_published_all_or_none(tmp_path):
    (tmp_path / "taken").mkdir()
    files = {tmp_path / "new" / "a": b"a", tmp_path / "taken" / "b" / "c": b"c"}
    publish(files)
    assert {path.read_bytes() for path in files} == {b"a", b"c"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        publish({tmp_path / "new" / "d": b"d", tmp_path / "file" / "e": b"e"})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_a_scan_keeps_its_name_whatever_its_case(tmp_path):
    path = write_scan(tmp_path / "Case.1.nii.gz")
    assert scans.name_of(path) == "Case.1"
    shutil.move(path, tmp_path / "Case.1.NII.GZ")
    assert scans.read_scan(tmp_path / "Case.1.NII.GZ")[0].grid.shape == (26, 22, 24)


def test_a_folder_is_not_published_over_and_long_names_are(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(UserError, match="b: cannot be written .Is a directory"):
        publish({tmp_path / "a": b"a", tmp_path / "b": b"b"})
    assert (tmp_path / "a").read_bytes() == b"mine"
    long = {tmp_path / ("n" * 244 + end): end.encode() for end in (".json", ".nii.gz")}
    publish(long)
    assert all(path.read_bytes() == content for path, content in long.items())
    with pytest.raises(UserError, match="File name too long"):
        publish({tmp_path / ("n" * 256): b""})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a",
        "b",
        *sorted(p.name for p in long),
    ]


@pytest.mark.parametrize("form", ["mha", "nrrd", "series"])
def test_a_name_that_is_not_utf_8_is_refused_where_itk_would_end_the_process(tmp_path, form):
    path = tmp_path / f"M\udcfcller.{form}"
    if form == "series":
        path.mkdir()
        (path / "1.dcm").write_bytes(b"")
    else:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="its name is not UTF-8; rename it"):
        scans.read_scan(path)
