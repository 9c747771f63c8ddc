"""The paper's method: generators, discriminators and segmentors together (section 3.6)."""

from configs import default


def get_config(argument: str | None = None):
    """``argument``: see `configs.default`."""
    return default.build(argument, "joint")
