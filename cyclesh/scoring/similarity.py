"""How close a translated volume comes to a true one, voxel by voxel.

Only a paired truth makes these meaningful: real cohorts have none, the phantom's hold-out has.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Wang et al. 2004; radius = int(3.5 sigma + 0.5) is what scikit-image makes of sigma 1.5.
SSIM_SIGMA_VOXELS = 1.5
SSIM_RADIUS_VOXELS = 5
SSIM_K1, SSIM_K2 = 0.01, 0.03


class Similarity(NamedTuple):
    """MAE in the units of the volumes, PSNR in decibels, SSIM at most 1."""

    mae: float
    psnr_db: float
    ssim: float


def similarity(image: np.ndarray, reference: np.ndarray, data_range: float) -> Similarity:
    """All three measures of one volume; `data_range` is 2 for intensities in [-1, 1]."""
    return Similarity(
        mae(image, reference),
        psnr_db(image, reference, data_range),
        ssim(image, reference, data_range),
    )


def mae(image: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute error over all voxels, in the units of the volumes."""
    return float(np.mean(np.abs(_difference(image, reference))))


def psnr_db(image: np.ndarray, reference: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio, 10 log10(data_range^2 / MSE); infinite for equal volumes."""
    mse = float(np.mean(_difference(image, reference) ** 2))
    return float("inf") if mse == 0 else float(10 * np.log10(data_range**2 / mse))


def ssim(image: np.ndarray, reference: np.ndarray, data_range: float) -> float:
    """Structural similarity with a 3D gaussian window (sigma 1.5 voxels, 11 voxels wide).

    The definition of Wang et al. (2004) and the numbers of scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)`: population
    covariances, the mean over the voxels whose whole window lies inside the volume.

    Returns:
        The mean SSIM; NaN if a side is shorter than the window, which then fits nowhere.
    """
    _require_one_shape(image, reference)
    if min(image.shape) < 2 * SSIM_RADIUS_VOXELS + 1:
        return float("nan")
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def _require_one_shape(image: np.ndarray, reference: np.ndarray) -> None:
    if image.shape != reference.shape:
        raise ValueError(f"image has shape {image.shape}, reference has {reference.shape}")


def _difference(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    _require_one_shape(image, reference)
    return image.astype(np.float64) - reference.astype(np.float64)


def _window_mean(volume: np.ndarray) -> np.ndarray:
    filtered = ndimage.gaussian_filter(volume, SSIM_SIGMA_VOXELS, radius=SSIM_RADIUS_VOXELS)
    inside = slice(SSIM_RADIUS_VOXELS, -SSIM_RADIUS_VOXELS)
    return filtered[(inside,) * volume.ndim]
