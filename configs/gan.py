"""Pre-training of the generators, and "G w/o SC" of Table 1: cycle consistency alone (gamma 0)."""

from configs import default


def get_config(argument: str | None = None):
    """``argument``: see `configs.default`."""
    return default.build(argument, "gan")
