"""Matching grey values without moving anything: what a translation must do better than."""

import numpy as np


def match_histogram(image: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """The monotone map of an image's values that gives it the distribution of a reference.

    Values that many voxels share, as clipped air does, go where the last of these voxels would.

    Args:
      image: any shape.
      quantiles: of the reference, in equal steps from its least to its largest value.
    Returns: float32, the image's shape.
    """
    own = np.quantile(image, np.linspace(0, 1, len(quantiles)))
    return np.interp(image, own, quantiles).astype(np.float32)
