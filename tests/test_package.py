"""What an installed package brings along."""

import re
import runpy
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
FOR_TESTS = {"pytest", "pytest-xdist", "ruff", "nbformat", "nbclient", "ipykernel"}


def names(lines: list[str]) -> set[str]:
    """The distributions that requirements name, each in one spelling."""
    return {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in lines}


@pytest.fixture
def declared(monkeypatch) -> list[str]:
    """The dependencies that setup.py gives to setuptools."""
    given = {}
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=given.update))
    runpy.run_path(str(ROOT / "setup.py"))
    return given["install_requires"]


def test_an_installation_takes_all_of_the_list_but_what_tests_need(declared):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert names(declared) == names(listed) - FOR_TESTS and names(listed) >= FOR_TESTS
    assert set(declared) < set(listed)  # with their versions
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "dependencies" in project["project"]["dynamic"]
    assert "dependencies" not in project["tool"]["setuptools"]["dynamic"]


def test_what_the_package_imports_is_declared(declared):
    files = [*ROOT.glob("cyclesh/**/*.py"), *ROOT.glob("configs/*.py")]
    found = re.compile(r"^\s*(?:import|from) (\w+)", re.MULTILINE)
    roots = {root for file in files for root in found.findall(file.read_text(encoding="utf-8"))}
    providers = metadata.packages_distributions()
    needed = names([providers[root][0] for root in roots & set(providers)])
    # contourpy comes with matplotlib.
    assert "jax" in needed and needed - {"cyclesh", "contourpy"} <= names(declared)


def test_the_command_is_the_module_run_as_a_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, function = project["project"]["scripts"]["cyclesh"].split(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert source.endswith(f'if __name__ == "__main__":\n    {function}()\n')
