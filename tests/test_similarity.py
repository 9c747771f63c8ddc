"""MAE, PSNR and SSIM against numbers by hand; histogram matching by its properties."""

import numpy as np
import pytest

from cyclesh.scoring.similarity import mae, psnr_db, similarity, ssim


def _smooth_pair(shape):
    """Two different volumes without randomness, so that their scores can be written down."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    reference = np.sin(0.5 * z) * np.cos(0.3 * y + 0.2 * x)
    return (0.8 * reference + 0.1 * np.sin(1.7 * x)).astype(np.float32), reference


def test_mae_and_psnr_by_hand():
    reference = np.zeros((2, 2, 2), np.float32)
    image = reference.copy()
    image[0, 0, :] = 0.5, -0.25
    assert mae(image, reference) == 0.75 / 8
    mse = (0.25 + 0.0625) / 8
    assert psnr_db(image, reference, 2.0) == pytest.approx(10 * np.log10(4 / mse))
    assert psnr_db(image, image, 2.0) == np.inf


def test_ssim_of_equal_volumes_is_one():
    volume = np.random.default_rng(0).standard_normal((12, 13, 14))
    assert ssim(volume, volume, 2.0) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_constant_volumes_is_the_luminance_term():
    a, b, c1 = 0.5, 0.2, (0.01 * 2) ** 2
    images = (np.full((12, 12, 12), value) for value in (a, b))
    assert ssim(*images, 2.0) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-9)


def test_ssim_of_a_single_window_is_the_formula():
    """An 11x11x11 volume holds one whole window: weights and moments can be written out."""
    image, reference = _smooth_pair((11, 11, 11))
    offsets = np.arange(-5, 6)
    gauss = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.einsum("i,j,k->ijk", gauss, gauss, gauss)
    weights /= weights.sum()
    mean_x, mean_y = (weights * image).sum(), (weights * reference).sum()
    variance_x = (weights * (image - mean_x) ** 2).sum()
    variance_y = (weights * (reference - mean_y) ** 2).sum()
    covariance = (weights * (image - mean_x) * (reference - mean_y)).sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    expected = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    expected *= (2 * covariance + c2) / (variance_x + variance_y + c2)
    assert ssim(image, reference, 2.0) == pytest.approx(expected, rel=1e-9)


def test_ssim_is_scikit_images():
    """scikit-image 0.26: structural_similarity(image, reference, data_range=2,
    gaussian_weights=True, use_sample_covariance=False) on this pair, in float64."""
    image, reference = _smooth_pair((16, 20, 18))
    assert ssim(image, reference, 2.0) == pytest.approx(0.9309028368144348, abs=1e-9)


def test_ssim_has_no_value_where_no_window_fits():
    assert np.isnan(ssim(np.zeros((10, 20, 20)), np.zeros((10, 20, 20)), 2.0))


def test_ssim_scales_with_the_data_range():
    image, reference = _smooth_pair((12, 14, 13))
    assert ssim(500 * image, 500 * reference, 1000.0) == pytest.approx(
        ssim(image, reference, 2.0), rel=1e-6
    )


def test_similarity_puts_the_three_together():
    image, reference = _smooth_pair((12, 12, 12))
    assert similarity(image, reference, 2.0) == (
        mae(image, reference),
        psnr_db(image, reference, 2.0),
        ssim(image, reference, 2.0),
    )


def test_shapes_must_agree():
    for measure in (mae, lambda a, b: psnr_db(a, b, 2.0), lambda a, b: ssim(a, b, 2.0)):
        with pytest.raises(ValueError, match="shape"):
            measure(np.zeros((12, 12, 1)), np.zeros((12, 12, 12)))
