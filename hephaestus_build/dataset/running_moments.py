"""Moments that add up: means and deviations of channels, product by product. Pure: no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

MaskingConvention = Literal["valid", "published"]
MASKING_CONVENTIONS: tuple[MaskingConvention, ...] = ("valid", "published")
PAIR_CHANNELS = ("insar_difference", "insar_coherence")
DATE_CHANNELS = ("total_column_water_vapour", "surface_pressure", "vertical_integral_of_temperature")
CHANNELS = (*PAIR_CHANNELS, "dem", *DATE_CHANNELS)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of some values; these add up without the values.

    Attributes
    ----------
    count : int
        How many values.
    mean : float
        Their mean, 0 of none.
    m2 : float
        Sum of the squared deviations from the mean.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def from_values(cls, values: np.ndarray) -> RunningMoments:
        """Return the moments of all `values`, summed in blocks with double precision."""
        flat = values.reshape(-1)
        total = cls()
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            mean = float(block.mean())
            total += cls(block.size, mean, float(np.square(block - mean).sum()))
        return total

    @property
    def std(self) -> float:
        """Standard deviation of the values themselves (divided by their count); NaN of none."""
        return math.sqrt(self.m2 / self.count) if self.count else math.nan

    def __add__(self, other: RunningMoments) -> RunningMoments:
        """Return the moments of both sets of values together."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        step = other.mean - self.mean
        return RunningMoments(
            count,
            self.mean + step * other.count / count,
            self.m2 + other.m2 + step * step * self.count * other.count / count,
        )

    def repeated(self, number: int) -> RunningMoments:
        """Return the moments of the same values repeated `number` times."""
        return (
            RunningMoments(self.count * number, self.mean, self.m2 * number) if number else RunningMoments()
        )


@dataclass(frozen=True)
class ProductMoments:
    """One product: the moments of its valid values, and how many pixels it has.

    Attributes
    ----------
    fingerprint : str
        Hash of the stored content; empty where it is not known, which is measured again every time.
    valid : RunningMoments
        Of the pixels that hold data.
    zero_count : int
        Pixels without data that hold 0, which the published convention counts as values.
    """

    fingerprint: str
    valid: RunningMoments
    zero_count: int = 0

    def for_convention(self, convention: MaskingConvention) -> RunningMoments:
        """Return the moments by the named convention."""
        return self.valid if convention == "valid" else self.valid + RunningMoments(self.zero_count)


def compute_product_moments(channel: str, values: np.ndarray, fingerprint: str = "") -> ProductMoments:
    """Measure one product of `channel`.

    Phase and coherence hold 0 where there is no data; the DEM and the atmosphere hold NaN.
    """
    if channel == "insar_coherence" and values.dtype == np.uint8:
        counts = np.bincount(values.reshape(-1), minlength=256)
        levels = np.arange(256.0)
        valid = int(counts[1:].sum())
        mean = float(counts @ levels) / valid if valid else 0.0
        squares = float(counts[1:] @ np.square(levels[1:] - mean))
        return ProductMoments(fingerprint, RunningMoments(valid, mean, squares), int(counts[0]))
    zeros = 0
    data = np.isfinite(values)
    if channel in PAIR_CHANNELS:
        zeros = int(np.count_nonzero(values == 0))
        data &= values != 0
    return ProductMoments(fingerprint, RunningMoments.from_values(values[data]), zeros)
