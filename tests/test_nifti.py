"""Reading NIfTI; writing is tested with the other formats' scans."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from scan_files import LPS, balls, save

from cyclesh.data.nifti import (
    file_sha256,
    read_header,
    read_image,
    read_labels,
    stated_spacing_mm,
)
from cyclesh.errors import UserError

VOXEL = np.ones((2, 3, 4), np.int16)


def test_arrays_are_zyx_and_the_affine_is_niftis(tmp_path):
    xyz = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = save(tmp_path / "a.nii.gz", xyz, LPS)
    scan = read_image(path)
    assert scan.values.shape == (4, 3, 2) and scan.values.dtype == np.float32
    assert scan.values[3, 1, 0] == xyz[0, 1, 3]
    np.testing.assert_array_equal(scan.grid.affine, LPS)
    assert (scan.dtype, scan.sha256) == ("int16", file_sha256(path))


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(np.full((3, 3, 3), 10, np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1000)
    image.to_filename(tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii")
    expected = raw.dataobj.slope * raw.dataobj.get_unscaled()[0, 0, 0] + raw.dataobj.inter
    assert (read_image(tmp_path / "a.nii").values == expected).all()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_spacing_is_told_as_it_is_stated(tmp_path, kind, order, pack):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    content = kind(VOXEL, np.diag([-2, 3, 4, 1]), header).to_bytes()
    (tmp_path / "a").write_bytes(pack(content))
    assert stated_spacing_mm(tmp_path / "a") == (4, 3, 2)
    header = kind.header_class(content[: header.template_dtype.itemsize])
    header["pixdim"][2] = 0
    (tmp_path / "a").write_bytes(pack(header.binaryblock + content[len(header.binaryblock) :]))
    assert stated_spacing_mm(tmp_path / "a") == (4, 0, 2)
    assert read_image(tmp_path / "a").grid.spacing_mm == (4, 3, 2)  # the affine has it still


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_types_of_voxels(tmp_path, dtype):
    path = save(tmp_path / "a.nii.gz", balls().astype(dtype))
    assert set(np.unique(read_labels(path).values)) == {0, 3, 7}
    assert read_labels(path).values.dtype == np.int32
    assert read_image(path).values.max() == 7


def test_nifti2_and_a_trailing_axis_of_one(tmp_path):
    image = nib.Nifti2Image(np.ones((2, 3, 4, 1), np.float32), np.eye(4))
    image.to_filename(tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz").values.shape == (4, 3, 2)


def test_damaged_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", noise)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 0xFF  # in gzip's checksum: the voxels are all there
    plain = gzip.decompress(whole)
    inside = plain[:108] + b"\0\0\0\0" + plain[112:]  # vox_offset 0: the header as voxels
    damaged = [
        inside,
        whole[:-40],
        bytes(flipped),
        plain[:-40],
        b"",
        b"PK\x03\x04 not an image" * 40,
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match="a.nii.gz: cannot be read") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="absent.nii: cannot be read"):
        read_labels(tmp_path / "absent.nii")


def test_a_gz_name_without_compression_is_read(tmp_path):
    save(tmp_path / "a.nii", VOXEL)
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz").values.shape == (4, 3, 2)
    assert read_header(tmp_path / "a.nii.gz").header["dim"][0] == 3


def test_what_is_no_single_volume(tmp_path):
    save(tmp_path / "a.nii", np.zeros((2, 2, 2, 3), np.float32))
    with pytest.raises(UserError, match="one 3D volume, not 2x2x2x3"):
        read_image(tmp_path / "a.nii")
    save(tmp_path / "b.nii", np.zeros((2, 2, 2), np.complex64))
    with pytest.raises(UserError, match="complex64"):
        read_image(tmp_path / "b.nii")
    save(tmp_path / "c.nii", np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(UserError, match="whole numbers"):
        read_labels(tmp_path / "c.nii")
