"""Figure 3: `gan` with the generator that the paper criticises (residual blocks, transposed
convolutions)."""

from configs import default


def get_config(argument: str | None = None):
    """``argument``: see `configs.default`."""
    return default.build(argument, "cyclegan")
