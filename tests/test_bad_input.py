"""Damaged files and wrong commands: exit status 2, one clear line, nothing written."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from command_line import call, require_one_clear_line, spawn
from infer_files import affine_of, anatomy, intensities, write_scan, write_workdir
from scan_files import write_raw
from scan_formats import patch_header, write_itk, write_series

SHAPE = (14, 13, 12)
AFFINE = affine_of("LPS", (2, 2, 2), SHAPE)
VOXELS = intensities(anatomy(AFFINE, SHAPE), "ct").round().astype(np.int16)
NOISE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


# ------------------------------------------------------------------------------ damaged files

FILES: dict[str, Callable[[Path], object]] = {}


def damaged(name: str):
    """Registers a maker of one faulty file (or folder) of that name."""

    def register(make):
        FILES[name] = make
        return make

    return register


def content(name: str, data: bytes) -> None:
    damaged(name)(lambda path: path.write_bytes(data))


def nifti(values=VOXELS, affine=AFFINE, kind=nib.Nifti1Image) -> bytes:
    return kind(values, affine).to_bytes()


def patched(name: str, **fields) -> None:
    """A NIfTI with fields of its header as no library writes them."""

    def make(path: Path) -> None:
        path.write_bytes(nifti())
        patch_header(path, **fields)

    damaged(name)(make)


def voxels(name: str, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    damaged(name)(lambda path: nib.save(nib.Nifti1Image(values, affine), path))


def holed(value: float) -> np.ndarray:
    return np.where(NOISE > 2.5, np.float32(value), NOISE)


GOOD, RANDOM = nifti(), np.random.default_rng(1).bytes(4000)
PACKED = gzip.compress(GOOD)
for end in ("nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr", "dcm"):
    content(f"empty.{end}", b"")
    content(f"random.{end}", RANDOM)
content("page.nii.gz", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
content("short.nii", GOOD[:100])
content("header.nii", GOOD[:348])
content("cut.nii", GOOD[:-700])
content("cut.nii.gz", PACKED[: len(PACKED) // 2])
content("cut_by_a_byte.nii.gz", PACKED[:-1])
content("flipped.nii.gz", PACKED[:900] + bytes([PACKED[900] ^ 0xFF]) + PACKED[901:])
content("checksum.nii.gz", PACKED[:-8] + b"\0" * 4 + PACKED[-4:])
content("packed_nothing.nii.gz", gzip.compress(b""))
content("packed_noise.nii.gz", gzip.compress(RANDOM))
content("photo.nii.gz", b"\x89PNG\r\n\x1a\n" + RANDOM)
content("cut2.nii", nifti(kind=nib.Nifti2Image)[:-700])
content("unknown.npz", RANDOM)
content("unknown.txt", b"a scan\n")
content("no_ending", GOOD)
patched("magic.nii", magic=b"abc")
patched("no_axes.nii", dim=(0, 14, 13, 12, 1, 1, 1, 1))
patched("nine_axes.nii", dim=(9, 14, 13, 12, 1, 1, 1, 1))
patched("negative_axis.nii", dim=(3, 14, -13, 12, 1, 1, 1, 1))
patched("huge.nii", dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))
patched("type.nii", datatype=77)
patched("no_type.nii", datatype=0)
patched("offset.nii", vox_offset=1e6)
patched("offset_nan.nii", vox_offset=np.nan)
patched("slope_huge.nii", scl_slope=1e38)
patched("affine_nan.nii", srow_x=(np.nan, 0, 0, 0))
patched("affine_zero.nii", srow_z=(0, 0, 0, 0))
patched("spacing_zero.nii", sform_code=0, qform_code=0, pixdim=(1, 0, 2, 2, 0, 0, 0, 0))
patched("spacing_nan.nii", sform_code=0, qform_code=0, pixdim=(1, np.nan, 2, 2, 0, 0, 0, 0))
patched("qform_nan.nii", sform_code=0, qform_code=1, quatern_b=np.nan)
patched("qform_long.nii", sform_code=0, qform_code=1, quatern_b=5.0)
voxels("nan.nii.gz", holed(np.nan))
voxels("inf.nii.gz", holed(np.inf))
voxels("minus_inf.nii.gz", holed(-np.inf))
voxels("all_nan.nii.gz", np.full(SHAPE, np.nan, np.float32))
voxels("constant.nii.gz", np.full(SHAPE, 7, np.int16))
voxels("plane.nii.gz", VOXELS[..., 0])
voxels("line.nii.gz", VOXELS[0, 0])
voxels("film.nii.gz", np.stack([VOXELS, VOXELS], axis=-1))
voxels("vectors.nii.gz", np.zeros((*SHAPE, 1, 3), np.float32))
voxels("thin.nii.gz", VOXELS[:, :, :7])
voxels("complex.nii.gz", NOISE.astype(np.complex64))
voxels("colour.nii.gz", np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))
voxels("microscope.nii.gz", VOXELS, np.diag([0.001, 0.001, 0.001, 1]))
voxels("metres.nii.gz", VOXELS, np.diag([900.0, 900, 900, 1]))


@damaged("cut.mha")
def cut_mha(path: Path) -> None:
    write_itk(path, VOXELS, AFFINE)
    path.write_bytes(path.read_bytes()[:-700])


@damaged("cut.nrrd")
def cut_nrrd(path: Path) -> None:
    write_itk(path, VOXELS, AFFINE)
    path.write_bytes(path.read_bytes()[:-700])


@damaged("without_data.mhd")
def mhd_without_data(path: Path) -> None:
    write_itk(path, VOXELS, AFFINE)
    path.with_suffix(".raw").unlink()


@damaged("without_data.nhdr")
def nhdr_without_data(path: Path) -> None:
    write_itk(path, VOXELS, AFFINE)
    path.with_suffix(".raw").unlink()


@damaged("plane.nrrd")
def plane_nrrd(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS[0]), str(path))


@damaged("colour.mha")
def colour_mha(path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((9, 9, 9, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(path))


@damaged("film.nrrd")
def film_nrrd(path: Path) -> None:
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(VOXELS)] * 2), str(path))


@damaged("nan.mha")
def nan_mha(path: Path) -> None:
    write_itk(path, holed(np.nan), AFFINE)


@damaged("constant.nrrd")
def constant_nrrd(path: Path) -> None:
    write_itk(path, np.zeros(SHAPE, np.int16), AFFINE)


@damaged("gap")
def series_with_a_gap(path: Path) -> None:
    write_series(path, VOXELS, AFFINE)
    (path / "003.dcm").unlink()


@damaged("two_series")
def two_series(path: Path) -> None:
    write_series(path, VOXELS, AFFINE)
    for other in write_series(path / "b", VOXELS, AFFINE, uid="1.2.3").iterdir():
        other.rename(path / f"b{other.name}")
    (path / "b").rmdir()


@damaged("cut_slice")
def series_with_a_cut_slice(path: Path) -> None:
    write_series(path, VOXELS, AFFINE)
    (path / "003.dcm").write_bytes((path / "003.dcm").read_bytes()[:600])


@damaged("few_slices")
def series_of_few_slices(path: Path) -> None:
    write_series(path, VOXELS[..., :3], AFFINE)


@damaged("empty_folder")
def empty_folder(path: Path) -> None:
    path.mkdir()


@damaged("folder_of_text")
def folder_of_text(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no scan")


@damaged("same_names")
def folder_of_namesakes(path: Path) -> None:
    write_scan(path / "a.nii")
    write_scan(path / "a.nii.gz")


@damaged("broken_link.nii.gz")
def broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone.nii.gz")


@damaged("missing.nii.gz")
def missing(path: Path) -> None:
    pass


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return write_workdir(tmp_path_factory.mktemp("runs") / "joint")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_scan_is_refused(workdir, tmp_path, capfd, name):
    path, out = tmp_path / name, tmp_path / "out"
    FILES[name](path)
    mode = ("--mode=translate", "--to=mr") if len(name) % 2 else ("--mode=segment", "--modality=ct")
    target = out if path.is_dir() and path.suffix == "" and "folder" in name else out / "r.nii.gz"
    if name == "same_names":
        target = out
    before = sorted(tmp_path.rglob("*"))
    done = call(
        capfd, *mode, f"--workdir={workdir}", f"--input={path}", f"--output={target}"
    )  # fmt: skip
    require_one_clear_line(done, name)
    assert not done.out and sorted(tmp_path.rglob("*")) == before


def test_all_of_them_at_once_do_not_stop_a_good_one(workdir, tmp_path, capfd):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    bad = [name for name in FILES if "." in name and name.endswith((".gz", ".mha", ".nrrd"))]
    for name in bad:
        FILES[name](folder / f"{bad.index(name):02}_{name}")
    made = {path.name for path in folder.iterdir()}
    write_scan(folder / "good.nii.gz")
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={folder}",
        f"--output={out}", "--quiet",
    )  # fmt: skip
    assert done.status == 2 and "Traceback" not in done.err
    lines = done.err.splitlines()
    assert len(lines) == len(made) >= 25
    assert all(any(name in line for line in lines) for name in made)
    assert f"1 done, {len(made)} failed" in done.out
    assert {p.name for p in out.iterdir()} == {"good.nii.gz", "good.json", "good_mask.nii.gz"}


# ----------------------------------------------------------------------------- wrong commands

# WORK, SCAN, OUT, FOLDER, TEXT stand for a workdir, a sound scan, a result to be, a folder of
# scans and a text file.
SEGMENT = "--mode=segment --workdir=WORK --input=SCAN --output=OUT --modality=ct"
TRANSLATE = "--mode=translate --workdir=WORK --input=SCAN --output=OUT --to=mr"
CONFIG = "--config=configs/joint.py"
COMMANDS = {
    "no mode of that name": ("--mode=fly", "--mode=fly"),
    "no flag of that name": (f"{SEGMENT} --colour=red", "colour"),
    "a word too many": (f"{SEGMENT} scan.nii.gz", "scan.nii.gz"),
    "no config": ("--mode=train", "--config"),
    "a config that does not exist": ("--config=configs/nothing.py", "configs/nothing.py"),
    "such a config as a word of its own": ("--config configs/nothing.py", "configs/nothing.py"),
    "a preset that does not exist": (f"{CONFIG}:nothing", "nothing"),
    "a key that does not exist": (f"{CONFIG}:colour=red", "colour"),
    "a key without value": (f"{CONFIG}:tiny,seed=", "seed"),
    "a key twice": (f"{CONFIG}:seed=1,seed=2", "seed"),
    "a key with a wrong value": (f"{CONFIG}:filters=many", "filters=many"),
    "a shape with two sides": (f"{CONFIG}:shape=32x40", "shape=32x40"),
    "a spacing of nothing": (f"{CONFIG}:spacing=0", "spacing=0"),
    "one real subject": (f"{CONFIG}:real_ct=1", "real_ct=1"),
    "a field that does not exist": (f"{CONFIG} --config.model.colour=1", "--config.model.colour:"),
    "a field of no section": (f"{CONFIG} --config.paint.colour 1", "--config.paint.colour: "),
    "a field within a number": (f"{CONFIG} --config.model.filters.all=1", "model.filters.all"),
    "a field with a wrong value": (f"{CONFIG} --config.model.filters=many", "filters"),
    "data that do not exist": (f"{CONFIG}:tiny,data=/no/such/data --workdir=NEW", "/no/such/data"),
    "data without scans": (f"{CONFIG}:tiny,data=EMPTY --workdir=NEW", "EMPTY"),
    "a workdir of another config": (f"{CONFIG}:tiny,seed=9 --workdir=WORK", "WORK"),
    "evaluate without workdir": ("--mode=evaluate", "--workdir"),
    "evaluate what is no workdir": ("--mode=evaluate --workdir=EMPTY", "EMPTY"),
    "evaluate on no split": ("--mode=evaluate --workdir=WORK --split=all", "--split=all"),
    "verify nothing": ("--mode=verify", "--input"),
    "verify what does not exist": ("--mode=verify --input=/no/such/folder", "/no/such/folder"),
    "verify into a scan": ("--mode=verify --input=FOLDER --output=SCAN", "name a .json"),
    "verify into the description": (
        "--mode=verify --input=FOLDER --output=FOLDER/dataset.json", "describes data",
    ),
    "a name that no disc takes": (
        f"{SEGMENT.replace('OUT', 'n' * 300 + '.nii.gz')}", "File name too long",
    ),
    "verify an empty folder": ("--mode=verify --input=EMPTY", "EMPTY"),
    "prepare without config": ("--mode=prepare --input=FOLDER --output=NEW", "--config"),
    "prepare without input": (f"--mode=prepare {CONFIG} --output=NEW", "--input"),
    "prepare without output": (f"--mode=prepare {CONFIG} --input=FOLDER", "--output"),
    "prepare what does not exist": (f"--mode=prepare {CONFIG} --input=/no --output=NEW", "/no"),
    "a share of too many": (
        f"--mode=prepare {CONFIG} --input=FOLDER --output=NEW --shard=3/2", "--shard=3/2",
    ),
    "a fold below none": (
        f"--mode=prepare {CONFIG} --input=FOLDER --output=NEW --fold=-1", "--fold=-1",
    ),
    "no workdir": (SEGMENT.replace("--workdir=WORK", ""), "--workdir"),
    "a workdir that does not exist": (SEGMENT.replace("WORK", "/no/run"), "/no/run"),
    "a folder that is no workdir": (SEGMENT.replace("WORK", "EMPTY"), "EMPTY"),
    "a file for a workdir": (SEGMENT.replace("WORK", "TEXT"), "TEXT"),
    "no input": (SEGMENT.replace("--input=SCAN", ""), "--input"),
    "no output": (SEGMENT.replace("--output=OUT", ""), "--output"),
    "an input that does not exist": (SEGMENT.replace("SCAN", "/no/scan.nii"), "/no/scan.nii"),
    "an output that is no NIfTI": (SEGMENT.replace("OUT", "NEW/labels.nrrd"), ".nii.gz"),
    "a folder for one result": (SEGMENT.replace("OUT", "EMPTY.nii.gz"), "is a folder"),
    "the input for output": (SEGMENT.replace("OUT", "SCAN"), "is the input"),
    "the input folder for output": (
        SEGMENT.replace("SCAN", "FOLDER").replace("OUT", "FOLDER"), "is the input",
    ),
    "a file for a folder of results": (
        SEGMENT.replace("SCAN", "FOLDER").replace("OUT", "TEXT"), "is a file",
    ),
    "an output below a file": (SEGMENT.replace("OUT", "TEXT/r.nii.gz"), "TEXT"),
    "no modality": (SEGMENT.replace("--modality=ct", ""), "--modality"),
    "a modality that is not known": (SEGMENT.replace("=ct", "=pet"), "--modality=pet"),
    "to in a segmentation": (f"{SEGMENT} --to=mr", "--to=mr"),
    "no modality to become": (TRANSLATE.replace("--to=mr", ""), "--to"),
    "a modality to become that is not known": (TRANSLATE.replace("=mr", "=pet"), "--to=pet"),
    "a translation to the same": (f"{TRANSLATE} --modality=mr", "--modality=mr"),
    "probabilities of a translation": (f"{TRANSLATE} --probabilities", "--probabilities"),
    "a grid that is not known": (f"{TRANSLATE} --grid=mine", "--grid=mine"),
    "an extent that is not known": (f"{TRANSLATE} --extent=half", "--extent=half"),
    "a centre of words": (f"{TRANSLATE} --center=a,b,c", "--center=a,b,c"),
    "a centre of two": (f"{TRANSLATE} --center=1,2", "--center=1,2"),
    "a centre of NaN": (f"{TRANSLATE} --center=1,2,nan", "--center=1,2,nan"),
    "a centre elsewhere": (f"{TRANSLATE} --center=1,2,9000", "--center=1,2,9000"),
    "a checkpoint that does not exist": (f"{TRANSLATE} --checkpoint=3", "--checkpoint=3"),
    "a checkpoint of a word": (f"{TRANSLATE} --checkpoint=good", "--checkpoint=good"),
    "passes of less than nothing": (f"{TRANSLATE} --pass_voxels=-1", "pass_voxels"),
    "half precision of a segmentation": (f"{SEGMENT} --half", "--half"),
    "segmentation by several processes": (f"{SEGMENT} --processes=2", "--mode=train"),
    "a dry run of what has none": (f"{SEGMENT} --dry_run", "--dry_run: goes with --mode=train"),
    "a share of what is not shared": (f"{SEGMENT} --shard=1/2", "--shard=1/2: goes with"),
    "a grid of what has none": (f"{CONFIG}:tiny --workdir=NEW --grid=network", "--grid=network"),
    "training on an input": (f"{CONFIG}:tiny --workdir=NEW --input=FOLDER", "data=FOLDER"),
    "training into an output": (f"{CONFIG}:tiny --workdir=NEW --output=OUT", "--output=OUT: goes"),
    "scores of an input": ("--mode=evaluate --workdir=WORK --input=FOLDER", "--input=FOLDER: goes"),
    "a report into an output": ("--mode=report --workdir=WORK --output=OUT", "--output=OUT: goes"),
    "an export of an input": (
        "--mode=export --workdir=WORK --input=SCAN --output=NEW", "--input=SCAN: goes",
    ),
    "the paper from an input": (
        f"--mode=reproduce {CONFIG}:tiny --workdir=NEW --input=FOLDER", "--input=FOLDER: goes",
    ),
    "copies of what jobs have yet to make": (
        f"--mode=reproduce {CONFIG}:tiny --workdir=NEW --launch=slurm --output=NEW",
        "--launch=here",
    ),
    "a benchmark of a workdir": (
        f"--mode=bench {CONFIG}:tiny --workdir=WORK", "--workdir=WORK: goes with --mode=train",
    ),
    "a benchmark of an input": (f"--mode=bench {CONFIG}:tiny --input=SCAN", "--input=SCAN: goes"),
    "a forecast into an output": (
        f"--mode=bench {CONFIG}:tiny --dry_run --output=OUT", "--output=OUT: goes",
    ),
    "verify a workdir": (
        "--mode=verify --workdir=WORK --input=FOLDER", "--workdir=WORK: goes with --mode=train",
    ),
    "prepare a workdir": (
        f"--mode=prepare {CONFIG} --workdir=WORK --input=FOLDER --output=NEW", "--workdir=WORK",
    ),
    "passes of half a voxel": (f"{TRANSLATE} --pass_voxels=0.5", "pass_voxels"),
    "a rate below nothing": (f"{CONFIG}:tiny --workdir=NEW --config.optim.gen.rate=-1", "gen.rate"),
    "the paper at such a rate": (
        f"--mode=reproduce {CONFIG}:tiny --workdir=NEW --config.optim.gen.rate=-1", "gen.rate",
    ),
    "a plan at such a rate": (
        f"--mode=reproduce --dry_run {CONFIG}:tiny --config.optim.gen.rate=-1", "gen.rate",
    ),
    "a benchmark of no lowering": (
        f"--mode=bench {CONFIG}:tiny --config.compute.lowering=quick", "compute.lowering",
    ),
    "a forecast of no precision": (
        f"--mode=bench --dry_run {CONFIG}:tiny --config.compute.dtype=float99", "compute.dtype",
    ),
    "preparing for half a batch": (
        f"--mode=prepare {CONFIG}:tiny --input=FOLDER --output=NEW --config.batch=0", "batch",
    ),
    "a start from what is no run": (
        f"{CONFIG}:tiny --quiet --workdir=NEW --config.init.seg=EMPTY", "has no checkpoints",
    ),
    "a start from networks that a run has not": (
        f"{CONFIG}:tiny --quiet --workdir=NEW --config.init.disc=WORK", "has no disc networks",
    ),
    "segmentors that begin as their judges": (
        f"{CONFIG}:tiny,seed=1000 --workdir=NEW", "the judges have it",
    ),
    "another preset's name": (
        f"--dry_run {CONFIG}:tiny --config.preset=mmwhs", "give --config=configs/NAME.py:mmwhs",
    ),
    "another method's name": (
        f"--dry_run {CONFIG}:tiny --config.method=ada", "give --config=configs/ada.py",
    ),
    "a start from other networks": (
        f"{CONFIG}:tiny,filters=3 --quiet --workdir=NEW --config.init.seg=WORK", "other seg networ",
    ),
    "a forecast of such a start": (
        f"{CONFIG}:tiny --dry_run --workdir=NEW --config.init.seg=EMPTY", "has no checkpoints",
    ),
    "a dry run of one trial": (
        "--mode=reproduce --workdir=WORK --trial=judge --dry_run", "--dry_run: does not go with",
    ),
    "jobs for one trial": (
        "--mode=reproduce --workdir=WORK --trial=judge --launch=slurm", "--launch=slurm: does not",
    ),
}  # fmt: skip


@pytest.fixture
def places(workdir, tmp_path) -> dict[str, Path]:
    for name in ("empty", "empty.nii.gz"):
        (tmp_path / name).mkdir()
    (tmp_path / "text").write_text("a text\n")
    return {
        "WORK": workdir,
        "SCAN": write_scan(tmp_path / "scan.nii.gz"),
        "OUT": tmp_path / "out" / "r.nii.gz",
        "FOLDER": write_scan(tmp_path / "scans" / "a.nii.gz").parent,
        "EMPTY": tmp_path / "empty",
        "TEXT": tmp_path / "text",
        "NEW": tmp_path / "new",
    }


def filled(text: str, places: dict[str, Path]) -> str:
    for name, path in places.items():
        text = text.replace(name, str(path))
    return text


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_wrong_command_is_refused(places, tmp_path, capfd, mistake):
    command, said = (filled(text, places) for text in COMMANDS[mistake])
    before = sorted(tmp_path.rglob("*"))
    done = call(capfd, *command.split())
    require_one_clear_line(done, said)
    assert not done.out
    assert sorted(tmp_path.rglob("*")) == before


def test_faults_that_cannot_be_written_are_shown(tmp_path, capfd):
    raw, text = write_raw(tmp_path / "raw"), tmp_path / "text"
    text.write_text("a text\n")
    (raw / "ct_train" / "ct_train_1_label.nii.gz").unlink()
    command = ("--mode=verify", f"--input={raw}", "--quiet")
    done = call(capfd, *command, f"--output={text / 'faults.json'}")
    require_one_clear_line(done, f"{text / 'faults.json'}: cannot be written")
    assert "has no label file" in done.out and text.read_text() == "a text\n"
    done = call(capfd, *command, f"--output={tmp_path / 'new' / 'faults.json'}")
    faults = json.loads((tmp_path / "new" / "faults.json").read_text())
    assert done.status == 2 and not done.err and not faults["ok"]


def truncated_json(workdir: Path) -> None:
    path = workdir / "config.json"
    path.write_text(path.read_text()[:50])


def foreign_json(workdir: Path) -> None:
    (workdir / "config.json").write_text('{"model": {}}')


def no_data(workdir: Path) -> None:
    (workdir / "data.json").unlink()


def foreign_data(workdir: Path) -> None:
    (workdir / "data.json").write_text('{"windows": 3}')


def no_checkpoints(workdir: Path) -> None:
    shutil.rmtree(workdir / "checkpoints")


def an_empty_checkpoint(workdir: Path) -> None:
    for path in sorted((workdir / "checkpoints" / "7" / "seg").rglob("*"), reverse=True):
        if path.is_file():
            os.truncate(path, 0)


def a_larger_network(workdir: Path) -> None:
    path = workdir / "config.json"
    path.write_text(path.read_text().replace('"filters": 2', '"filters": 3'))


BROKEN = (
    truncated_json,
    foreign_json,
    no_data,
    foreign_data,
    no_checkpoints,
    an_empty_checkpoint,
    a_larger_network,
)


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_damaged_workdir_is_refused(workdir, places, tmp_path, capfd, damage):
    places["WORK"] = Path(shutil.copytree(workdir, tmp_path / "run"))
    damage(places["WORK"])
    done = call(capfd, *filled(SEGMENT, places).split())
    require_one_clear_line(done, str(places["WORK"]))
    assert not done.out and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cut.mha", "checksum.nii.gz", "spacing_nan.nii"])
def test_a_damaged_scan_as_a_process_of_its_own(workdir, tmp_path, name):
    """Libraries print past Python's stderr, and warnings come once a process."""
    FILES[name](tmp_path / name)
    done = spawn(
        "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={tmp_path / name}",
        f"--output={tmp_path / 'out.nii.gz'}",
    )  # fmt: skip
    require_one_clear_line(done, name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_workdir_that_does_not_fit_as_a_process_of_its_own(workdir, places, tmp_path):
    """The checkpoint library fails in threads of its own, which must not print either."""
    places["WORK"] = Path(shutil.copytree(workdir, tmp_path / "run"))
    a_larger_network(places["WORK"])
    require_one_clear_line(spawn(*filled(SEGMENT, places).split()), "other seg networks")


def test_the_corpus_is_large_enough():
    assert len(FILES) + len(COMMANDS) + len(BROKEN) >= 100
