"""Mergeable moments (count, mean, sum of squared deviations) of channels and products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

MaskingConvention = Literal["valid", "published"]
MASKING_CONVENTIONS: tuple[MaskingConvention, ...] = ("valid", "published")
PAIR_CHANNELS = ("insar_difference", "insar_coherence")
DATE_CHANNELS = ("total_column_water_vapour", "surface_pressure", "vertical_integral_of_temperature")
MEASURED_CHANNELS = (*PAIR_CHANNELS, "dem", *DATE_CHANNELS)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of a set of values.

    The moments of two sets are merged by ``+`` with the pairwise update of Chan et al. (1979). For example,
    the moments of the values (1, 3) are (2, 2, 2) and those of (5,) are (1, 5, 0). Their sum is (3, 3, 8),
    the moments of (1, 3, 5).

    Attributes
    ----------
    count : int
        Number of values.
    mean : float
        Mean of the values; 0 if there are none.
    m2 : float
        Sum of the squared deviations from the mean.

    References
    ----------
    T. F. Chan, G. H. Golub and R. J. LeVeque (1979): Updating formulae and a pairwise algorithm for computing
    sample variances. Technical report STAN-CS-79-773, Stanford University.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def from_values(cls, values: npt.NDArray[Any]) -> RunningMoments:
        """Return the moments of `values`, computed in blocks with double precision."""
        flat = values.reshape(-1)
        total = cls()
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            mean = float(block.mean())
            total += cls(block.size, mean, float(np.square(block - mean).sum()))
        return total

    @property
    def std(self) -> float:
        """Population standard deviation (divided by the count); NaN if there are no values."""
        return math.sqrt(self.m2 / self.count) if self.count else math.nan

    def __add__(self, other: RunningMoments) -> RunningMoments:
        """Return the moments of the union of both sets."""
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
        """Return the moments of the values repeated `number` times."""
        return (
            RunningMoments(self.count * number, self.mean, self.m2 * number) if number else RunningMoments()
        )


@dataclass(frozen=True)
class ProductMoments:
    """Moments of one product.

    Attributes
    ----------
    fingerprint : str
        Hash of the stored content; empty if unknown, in which case the moments are never reused.
    valid : RunningMoments
        Moments of the pixels with data.
    zero_count : int
        Number of no-data pixels stored as 0, which the published convention counts as values.
    """

    fingerprint: str
    valid: RunningMoments
    zero_count: int = 0

    def for_convention(self, convention: MaskingConvention) -> RunningMoments:
        """Return the moments under the given masking convention."""
        return self.valid if convention == "valid" else self.valid + RunningMoments(self.zero_count)


def compute_product_moments(channel: str, values: npt.NDArray[Any], fingerprint: str = "") -> ProductMoments:
    """Return the moments of one product.

    Parameters
    ----------
    channel : str
        Name of the channel, one of ``MEASURED_CHANNELS``. No data is 0 in phase and coherence, and NaN in
        the DEM and the atmosphere.
    values : numpy.ndarray
        Values of the product, of any shape.
    fingerprint : str
        Hash of the stored content, if known.
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
