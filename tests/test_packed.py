"""Packed voxels: damage is refused wherever it is, and what is not packed is let be."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from infer_files import affine_of
from scan_formats import itk_image, write_itk

from cyclesh.data import packed, scans
from cyclesh.errors import UserError

SHAPE = (20, 18, 16)
AFFINE = affine_of("LPS", (1.5, 2.0, 2.5), SHAPE)
NOISE = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
# A header's name, and the file that its voxels lie in.
FORMS = {"a.mha": "a.mha", "a.mhd": "a.zraw", "a.nrrd": "a.nrrd", "a.nhdr": "a.raw.gz"}


def write(folder: Path, name: str) -> Path:
    sitk.WriteImage(itk_image(NOISE, AFFINE), str(folder / name), useCompression=True)
    return folder / name


@pytest.mark.parametrize("name", FORMS)
def test_a_flipped_bit_or_a_lost_end_is_refused(tmp_path, name):
    path = write(tmp_path, name)
    voxels = tmp_path / FORMS[name]
    whole = voxels.read_bytes()
    np.testing.assert_array_equal(scans.read_scan(path)[0].values, NOISE.T)
    places = np.linspace(len(whole) // 4, len(whole) - 2, 6).astype(int)
    flipped = [whole[:k] + bytes([whole[k] ^ 0x10]) + whole[k + 1 :] for k in places]
    for content in [*flipped, *(whole[:-n] for n in (1, 5, 500))]:
        voxels.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be read: it is damaged"):
            scans.read_scan(path)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_not_packed_is_read(tmp_path, name):
    path = write_itk(tmp_path / name, NOISE, AFFINE)
    packed.require_whole(path)
    np.testing.assert_array_equal(scans.read_scan(path)[0].values, NOISE.T)


def test_headers_of_either_line_end_and_of_no_end(tmp_path):
    path, voxels = tmp_path / "a.nrrd", zlib.compress(b"voxels" * 99)
    for end in (b"\n", b"\r\n"):
        head = b"NRRD0004" + end + b"encoding: gzip" + end + end
        path.write_bytes(head + voxels)
        packed.require_whole(path)
        path.write_bytes(head + voxels[:-1])
        with pytest.raises(zlib.error):
            packed.require_whole(path)
    for content in (b"", b"NRRD0004\nencoding: gzip", b"CompressedData = True\n"):
        path.write_bytes(content)
        packed.require_whole(path)  # whoever reads it tells


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.mha", "ElementSpacing = 1 1 1\nCompressedData = True\nElementDataFile = {}\n"),
        ("a.nrrd", "NRRD0004\nspacings: 1 1 1\nencoding: gzip\ndata file: {}\n\n"),
    ],
)
def test_a_file_that_cannot_be_is_one_line(tmp_path, name, head):
    (tmp_path / name).write_text(head.format("x" * 5000))
    with pytest.raises(UserError, match=f"{name}: cannot be read") as caught:
        scans.read_scan(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_header_before_the_voxels_is_not_taken_for_damage(tmp_path):
    path = write(tmp_path, "a.mhd")
    (tmp_path / "a.zraw").write_bytes(b"0" * 16 + (tmp_path / "a.zraw").read_bytes())
    path.write_text("HeaderSize = 16\n" + path.read_text())
    packed.require_whole(path)
