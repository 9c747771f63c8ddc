"""Volumetric overlap: the Dice score that the paper reports (section 5.3, its reference [7])."""

import numpy as np


def dice(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Dice score of every class but the background: 2 |P and T| / (|P| + |T|), in voxels.

    Args:
        predicted, truth: integer class indices of one shape (any rank), each in [0, classes).
        classes: number of classes, the background (0) included.

    Returns:
        float64, shape (classes - 1,). NaN where a class is in neither volume: there is nothing to
        agree on, and a 1 would flatter the mean. 0 where it is in only one of them.

    Raises:
        ValueError: the shapes differ, or a class index lies outside [0, classes).
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction has shape {predicted.shape}, truth has {truth.shape}")
    agreed = truth[predicted == truth]
    # Three counts in place of the classes x classes table: its off-diagonal is never read.
    overlap, size_predicted, size_truth = (
        _voxels_per_class(labels, classes) for labels in (agreed, predicted, truth)
    )
    size = size_predicted + size_truth
    return np.where(size > 0, 2.0 * overlap / np.maximum(size, 1), np.nan)[1:]


def _voxels_per_class(labels: np.ndarray, classes: int) -> np.ndarray:
    counts = np.bincount(labels.ravel(), minlength=classes)
    if len(counts) > classes:
        raise ValueError(f"class index {len(counts) - 1} in a volume of {classes} classes")
    return counts
