"""How far a volume lies from where it should, in mm: by its structures, or by its intensities."""

import numpy as np
from scipy import ndimage

ROUNDS = 3
FEWEST_VOXELS = 8  # of a structure whose centre is worth taking
SMOOTHING_VOXELS = 1.0  # before phases are compared: noise has phases, too


def structures_shift_mm(
    found: np.ndarray, truth: np.ndarray, classes: int, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Mean over structures of (centre of ``found`` - centre of ``truth``), (z, y, x) in mm.

    Args:
      found, truth: class indices, shape (z, y, x), background 0.
      classes: the background included.

    Returns: float64 (3,); NaN where no structure is large enough in both.
    """
    shifts = [
        ndimage.center_of_mass(found == index) - np.array(ndimage.center_of_mass(truth == index))
        for index in range(1, classes)
        if min((found == index).sum(), (truth == index).sum()) >= FEWEST_VOXELS
    ]
    if not shifts:
        return np.full(3, np.nan)
    return np.mean(shifts, axis=0) * spacing_mm


def phase_shift_mm(
    moved: np.ndarray, fixed: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """The circular shift by which ``moved`` resembles ``fixed`` best, (z, y, x) in mm.

    Phase correlation: the cross-power spectrum, whitened, peaks where the volumes agree; a parabola
    through the peak and its neighbours gives fractions of a voxel.
    """
    whole = np.zeros(3)
    for _ in range(ROUNDS):  # the window draws every estimate towards zero: start again from there
        back = np.roll(moved, tuple(-whole.astype(int)), axis=(0, 1, 2))
        rest = _peak_voxels(back, fixed)
        found = whole + rest
        whole = np.rint(found)
    return found * spacing_mm


def _peak_voxels(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Where the phase correlation peaks, (3,) in voxels, each within half a side of zero."""
    spectra = [np.fft.fftn(_windowed(volume)) for volume in (moved, fixed)]
    cross = spectra[0] * np.conj(spectra[1])
    whitened = cross / np.maximum(np.abs(cross), 1e-12 * np.abs(cross).max())
    correlation = np.fft.ifftn(whitened * _low_pass(moved.shape)).real
    peak = np.unravel_index(np.argmax(correlation), correlation.shape)
    shift = [
        _centred(place + _vertex(_along(correlation, peak, axis)), length)
        for axis, (place, length) in enumerate(zip(peak, correlation.shape, strict=True))
    ]
    return np.array(shift)


def _windowed(volume: np.ndarray) -> np.ndarray:
    """Without mean and fading out at the rim, where a Fourier transform sees an edge."""
    centred = volume.astype(np.float64) - volume.mean()
    for axis, length in enumerate(volume.shape):
        shape = [-1 if i == axis else 1 for i in range(volume.ndim)]
        centred = centred * np.hanning(length + 2)[1:-1].reshape(shape)
    return centred


def _low_pass(shape: tuple[int, ...]) -> np.ndarray:
    """The spectrum of a Gaussian."""
    squared = sum(
        np.fft.fftfreq(n).reshape([-1 if i == axis else 1 for i in range(len(shape))]) ** 2
        for axis, n in enumerate(shape)
    )
    return np.exp(-2 * (np.pi * SMOOTHING_VOXELS) ** 2 * squared)


def _along(values: np.ndarray, peak: tuple[int, ...], axis: int) -> tuple[float, float, float]:
    """The value before the peak along an axis, the peak's, and the one after, wrapping around."""
    line = np.moveaxis(values, axis, 0)[(slice(None), *np.delete(peak, axis))]
    return tuple(float(line[(peak[axis] + step) % len(line)]) for step in (-1, 0, 1))


def _vertex(heights: tuple[float, float, float]) -> float:
    """Where a parabola through heights at -1, 0 and 1 has its maximum."""
    before, top, after = heights
    bend = before - 2 * top + after
    return 0.0 if bend == 0 else 0.5 * (before - after) / bend


def _centred(place: float, length: int) -> float:
    """A circular shift of ``place`` as the shortest one of either sign."""
    return (place + length / 2) % length - length / 2
