"""The Colab notebook: small, without outputs, and it runs from its first cell to its last."""

import json
import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from configs import joint
from cyclesh import infer
from cyclesh.data import locate

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "launch" / "colab.ipynb"
KERNEL_STARTS_S, CELL_S = 60, 900


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_it_is_small_and_has_no_outputs():
    assert NOTEBOOK.stat().st_size < 20_000
    for cell in cells():
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert "widgets" not in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["metadata"]


def test_the_address_of_the_repository_is_one_variable():
    code = [source(cell) for cell in cells() if cell["cell_type"] == "code"]
    assert sum(text.count("https://") for text in code) == 1
    assert code[0].startswith('REPOSITORY = "https://')


def test_nothing_that_is_installed_is_upgraded():
    text = "\n".join(map(source, cells()))
    assert "--upgrade" not in text and "pip install -U" not in text and "kill" not in text


def executed(folder: Path, **parameters) -> list[dict]:
    """The notebook's cells after a run in a folder of its own, with other parameters."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (first,) = (
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    )
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell(lines))
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_S,
        startup_timeout=KERNEL_STARTS_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"JAX_PLATFORMS": "cpu"})
    return notebook.cells


def printed(cell: dict) -> str:
    return "".join(output.get("text", "") for output in cell["outputs"])


@pytest.mark.parametrize(("own", "subjects"), [("tiny", 10), ("", 48)])
def test_the_scan_is_of_the_runs_own_phantom(own, subjects, tmp_path, monkeypatch):
    """Another phantom in the cache, of more or fewer subjects, is not taken."""

    def write_phantom(spec, folder, *_):
        (folder / "mr_train").mkdir(parents=True, exist_ok=True)
        (folder / "mr_train" / f"mr_train_{spec.subjects_mr}_image.nii.gz").touch()

    given = []
    (tmp_path / "data.json").write_text('{"description": {"modalities": ["ct", "mr"]}}')
    monkeypatch.setenv("CYCLESH_CACHE", str(tmp_path))
    monkeypatch.setattr(locate, "write_phantom", write_phantom)
    monkeypatch.setattr(infer, "run", lambda workdir, task, scan, *_, **__: given.append(scan))
    for argument in ("tiny", ""):
        locate.phantom_folder(joint.get_config(argument))
    (cell,) = (text for text in map(source, cells()) if "infer.run(" in text)
    known = {"ARGUMENT": own, "MODALITY": "mr", "SCAN": "", "WORKDIR": tmp_path}
    show = {"joint": joint, "Path": Path, "display": print, "Image": lambda *_, **__: ""}
    exec(cell, known | show)
    assert {scan.name for scan in given} == {f"mr_train_{subjects}_image.nii.gz"}
    with pytest.raises(AssertionError, match="set SCAN"):
        exec(cell, known | show | {"ARGUMENT": f"data={tmp_path}"})


@pytest.mark.slow
def test_it_runs(tmp_path):
    """From a clone of this checkout, at the smallest size: the first steps of test_end_to_end's."""
    own = {"ARGUMENT": "tiny,epochs=5,steps=4", "MODALITY": "mr", "VIEWER": False}
    done = executed(tmp_path, REPOSITORY=str(ROOT), **own)
    text = "\n".join(printed(cell) for cell in done if cell["cell_type"] == "code")
    assert "missing: nothing" in text and "S-score" in text
    assert "Research only" in text  # the model card
    kinds = [
        kind for cell in done for out in cell.get("outputs", ()) for kind in out.get("data", ())
    ]
    assert kinds.count("image/png") >= 2  # the run's slices, and the scan's
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "as_ct.nii.gz", "as_ct.json", "as_ct.png", "labels.nii.gz",
    }  # fmt: skip
    assert (tmp_path / "model" / "weights.safetensors").exists()
