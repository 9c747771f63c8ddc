"""How subjects differ: variates without outliers, and smooth random fields."""

from dataclasses import dataclass

import numpy as np

from cyclesh.data.shapes import along

Array = np.ndarray


def vary(rng: np.random.Generator, mean: Array | float, sd: Array | float) -> Array:
    """A normal variate cut at two standard deviations: variety without monsters."""
    return mean + sd * np.clip(rng.standard_normal(np.shape(sd)), -2, 2)


@dataclass(frozen=True, eq=False)
class Waves:
    """A smooth random vector field: a sum of plane waves, so any grid may sample it.

    vectors_per_mm (n, 3) are wave vectors in radians/mm, phases (n,), amplitudes (n, channels).
    """

    vectors_per_mm: Array
    phases: Array
    amplitudes: Array

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        wavelength_mm: tuple[float, float],
        sd: float,
        channels: int = 1,
        count: int = 8,
    ) -> "Waves":
        """Random directions, phases and wavelengths; `sd` is the field's standard deviation."""
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = rng.uniform(*wavelength_mm, size=(count, 1))
        amplitudes = rng.standard_normal((count, channels))
        # The variance of a wave is half its squared amplitude.
        amplitudes *= sd * np.sqrt(2.0 / (amplitudes**2).sum(axis=0))
        phases = rng.uniform(0, 2 * np.pi, size=count)
        return cls(2 * np.pi * directions / lengths, phases, amplitudes)

    def __call__(self, points: Array) -> Array:
        """The field at points (3, ...): float32 (channels, ...)."""
        field = np.zeros((self.amplitudes.shape[1], *points.shape[1:]), np.float32)
        for vector, phase, amplitude in zip(
            self.vectors_per_mm, self.phases, self.amplitudes, strict=True
        ):
            wave = np.sin(along(points, vector) + np.float32(phase))
            for channel, factor in enumerate(amplitude):
                field[channel] += np.float32(factor) * wave
        return field

    def largest(self) -> float:
        """A bound of the field's absolute value."""
        return float(np.abs(self.amplitudes).sum(axis=0).max())
