"""Which code a number is of."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from cyclesh import __version__


def git_revision() -> str:
    """The commit of the checkout that the package runs from; empty where there is none.

    "-dirty" follows where files of the commit were changed: then it is not what has run. A package
    that is installed within another project's checkout is not of that project's commit.
    """
    checkout = Path(__file__).resolve().parents[1]
    try:
        if Path(_git(checkout, "rev-parse", "--show-toplevel")).resolve() != checkout:
            return ""
        return _git(checkout, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def versions() -> dict[str, str]:
    """Of everything that may change a number."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")
    return {
        "cyclesh": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }
