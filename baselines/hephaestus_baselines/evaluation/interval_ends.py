"""Ends of bootstrap intervals: quantiles of the resamples, further out the fewer clusters there are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

#: One cluster that outweighs all others leaves nothing to estimate a deviation from; all resamples are used.
_LEAST_EFFECTIVE = 1.1


def effective_number(sizes: npt.NDArray[np.float64]) -> float:
    """Return the effective number of clusters of the given sizes, (sum n)^2 / sum n^2; 0 without any.

    Examples
    --------
    Five events of one interferogram each count as five, one of 96 and four of one as little more than one.

    >>> effective_number(np.ones(5)), round(effective_number(np.array([96.0, 1, 1, 1, 1])), 2)
    (5.0, 1.08)
    """
    squares = float((sizes**2).sum())
    return float(sizes.sum()) ** 2 / squares if squares else 0.0


def interval_tails(level: float, sizes: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the quantiles of resamples at which an interval ends.

    The middle `level` of the resamples of few clusters is too narrow: their deviation is smaller than that of
    samples of the population, and not known exactly. The quantiles therefore lie as far out as the factor
    sqrt(n / (n - 1)) and Student's t reach ("expanded percentile interval", Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789), with n the effective number of clusters.

    Parameters
    ----------
    level : float
        Share of such intervals that hold the truth.
    sizes : numpy.ndarray
        How much each cluster weighs in the score, shape (C,).

    Returns
    -------
    low, high : float
        Between 0 and 1; further out than (1 - level) / 2 and (1 + level) / 2.

    Examples
    --------
    Seven clusters of one size:

    >>> low, high = interval_tails(0.95, np.ones(7))
    >>> round(low, 4), round(high, 4)
    (0.0041, 0.9959)
    """
    number = max(effective_number(sizes), _LEAST_EFFECTIVE)
    reach = math.sqrt(number / (number - 1)) * float(stdtrit(number - 1, (1 + level) / 2))
    tail = float(ndtr(-reach))
    return tail, 1 - tail


def interval_ends(drawn: npt.NDArray[np.float64], tails: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of an interval, NaN where no resample has a score.

    Parameters
    ----------
    drawn : numpy.ndarray
        Score of each resample, NaN where it is undefined, shape (resamples,).
    tails : tuple of float
        Of :func:`interval_tails`.
    """
    defined = drawn[~np.isnan(drawn)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.quantile(defined, tails).tolist()
    return low, high
