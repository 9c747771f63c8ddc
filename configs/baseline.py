"""Baseline (R) of Table 2: the segmentors alone, on real volumes; on all of them, the S-score's
judge."""

from configs import default


def get_config(argument: str | None = None):
    """``argument``: see `configs.default`."""
    return default.build(argument, "baseline")
