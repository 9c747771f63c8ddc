"""Random variates and fields of the phantom."""

import numpy as np
import pytest

from cyclesh.data.variation import Waves, vary


def test_variates_have_no_outliers():
    draws = vary(np.random.default_rng(0), np.full(5000, 3.0), np.full(5000, 0.5))
    assert draws.min() >= 2.0 and draws.max() <= 4.0
    assert draws.mean() == pytest.approx(3.0, abs=0.03)


def test_a_field_has_the_deviation_asked_for_and_is_smooth():
    line = np.zeros((3, 4001), np.float32)
    line[0] = np.linspace(0, 40000, 4001)  # far longer than the waves, a point every 10 mm
    deviations, steps = [], []
    for seed in range(20):
        waves = Waves.draw(np.random.default_rng(seed), wavelength_mm=(60, 120), sd=2.0)
        field = waves(line)[0]
        deviations.append(field.std())
        steps.append(np.abs(np.diff(field)).max())
        assert np.abs(field).max() <= waves.largest() + 1e-3
    assert np.mean(deviations) == pytest.approx(2.0, rel=0.1)
    # No wave is steeper than 2 pi / 60 mm.
    assert max(steps) < 2.0 * 4 * 10 * 2 * np.pi / 60


def test_a_field_does_not_depend_on_the_grid_that_samples_it():
    waves = Waves.draw(np.random.default_rng(1), wavelength_mm=(60, 120), sd=1.0, channels=3)
    points = np.random.default_rng(2).uniform(-100, 100, (3, 4, 5, 6)).astype(np.float32)
    some = waves(points[:, 1:3, :, ::2])
    np.testing.assert_array_equal(waves(points)[:, 1:3, :, ::2], some)
