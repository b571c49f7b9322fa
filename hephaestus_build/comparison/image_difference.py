"""How two images of one thing differ. Pure functions on arrays of one shape."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Share of the pixels with data in both that must agree for a rule such as a swapped sign to be named.
_NEARLY_ALL = 0.99
#: Largest value of a coherence that is not stored as bytes.
_COHERENCE_SCALES = (1, 100)
#: Rounding of float32 phases up to pi, rad.
_PHASE_ROUNDING = 1e-5


@dataclass(frozen=True)
class ImageDifference:
    """Difference of two images.

    Attributes
    ----------
    pixels : int
        Pixels that both have.
    equal : int
        Pixels that are equal, those without data in both among them.
    only_first, only_second : int
        Pixels that have data in one image alone.
    largest, median : float
        Absolute difference where both have data and they are not equal; of phase in rad, wrapped. 0 if all
        are equal.
    rule : str
        What one image is of the other, if nearly all pixels follow a simple rule: ``sign swapped``, or a
        coherence ``0 to 1``; else empty.
    """

    pixels: int
    equal: int
    only_first: int = 0
    only_second: int = 0
    largest: float = 0.0
    median: float = 0.0
    rule: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether all pixels are equal."""
        return self.equal == self.pixels

    @property
    def words(self) -> str:
        """The difference in a few words, without a unit."""
        if self.is_equal:
            return "equal"
        if self.rule:
            return self.rule
        lacking = self.only_first + self.only_second
        parts = [f"{self.pixels - self.equal} of {self.pixels} pixels"]
        if self.largest:
            parts.append(f"up to {self.largest:.3g}")
        if lacking:
            parts.append(f"{lacking} with data in one alone")
        return ", ".join(parts)


@dataclass(frozen=True)
class MaskDifference:
    """Difference of two masks.

    Attributes
    ----------
    pixels, equal : int
        Pixels that both have, and those with the same code.
    common, either : int
        Pixels that are not 0 in both, and in at least one.
    codes : tuple of tuple of int
        Pairs of different codes that stand at one pixel, the most frequent first, at most five.
    """

    pixels: int
    equal: int
    common: int
    either: int
    codes: tuple[tuple[int, int], ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether all pixels have the same code."""
        return self.equal == self.pixels

    @property
    def overlap(self) -> float:
        """Intersection over union of what is not 0; 1 if neither has any."""
        return self.common / self.either if self.either else 1.0

    @property
    def words(self) -> str:
        """The difference in a few words."""
        if self.is_equal:
            return "equal"
        codes = ", ".join(f"{one} for {other}" for one, other in self.codes)
        return f"overlap {self.overlap:.3f} (codes {codes})"


def compare_phase(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> ImageDifference:
    """Return the wrapped difference of two wrapped phases.

    Parameters
    ----------
    first, second : numpy.ndarray
        Phase, rad; 0 or NaN where there is no data.

    Examples
    --------
    >>> round(compare_phase(np.array([3.0, 0.0]), np.array([-3.0, 0.0])).largest, 4)  # 2 pi - 6
    0.2832
    """
    one, other = (np.nan_to_num(values.astype("f8", copy=False)) for values in (first, second))
    filled = (one != 0) & (other != 0)
    gap = np.abs(wrap(one - other))
    rule = ""
    if filled.any() and np.mean(gap[filled] <= _PHASE_ROUNDING) < _NEARLY_ALL:
        swapped = np.abs(wrap(one[filled] + other[filled])) <= _PHASE_ROUNDING
        rule = "sign swapped" if swapped.mean() >= _NEARLY_ALL else ""
    return _describe(one, other, filled, gap, rule)


def compare_coherence(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> ImageDifference:
    """Return the difference of two coherences in units of 1/255; 0 or NaN where there is no data.

    One that goes from 0 to 1 or from 0 to 100 is named by its scale if nearly all values are the same on it.

    Examples
    --------
    >>> compare_coherence(np.array([255, 51], "u1"), np.array([1.0, 0.2])).rule
    'second is 0 to 1 in place of 0 to 255'
    """
    one, other = (np.nan_to_num(values.astype("f8", copy=False)) for values in (first, second))
    filled = (one != 0) & (other != 0)
    gap = np.abs(one - other)
    if filled.any() and np.mean(one[filled] == other[filled]) < _NEARLY_ALL:
        for top in _COHERENCE_SCALES:
            for where, small, large in (("second", other, one), ("first", one, other)):
                step = 255 / top if np.array_equal(small, np.round(small)) and top > 1 else 1.0
                nearly = np.abs(small * (255 / top) - large) <= max(1.0, step / 2 + 1e-6)
                if small.max(initial=0) <= top and nearly.mean() >= _NEARLY_ALL:
                    rule = f"{where} is 0 to {top} in place of 0 to 255"
                    return ImageDifference(one.size, int((first == second).sum()), rule=rule)
    return _describe(one, other, filled, gap, "")


def compare_heights(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> ImageDifference:
    """Return the difference of two images of floats; NaN where there is no data."""
    one, other = (values.astype("f8", copy=False) for values in (first, second))
    filled = np.isfinite(one) & np.isfinite(other)
    with np.errstate(invalid="ignore"):
        gap = np.abs(one - other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    lacking = np.isfinite(one), np.isfinite(other)
    return _count(same, filled, gap, lacking, "")


def compare_masks(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> MaskDifference:
    """Return the overlap of two masks of codes, and which codes stand for others."""
    differing = first != second
    both = np.stack([first[differing], second[differing]], axis=-1).astype("i8")
    found, counts = np.unique(both, axis=0, return_counts=True) if both.size else (both, np.zeros(0, int))
    order = np.argsort(-counts, kind="stable")[:5]
    return MaskDifference(
        first.size,
        int(first.size - differing.sum()),
        int(((first != 0) & (second != 0)).sum()),
        int(((first != 0) | (second != 0)).sum()),
        tuple((int(found[index][0]), int(found[index][1])) for index in order),
    )


def wrap(angle: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return angles as ones from -pi to pi."""
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))


def _describe(
    one: npt.NDArray[Any], other: npt.NDArray[Any], filled: npt.NDArray[Any], gap: npt.NDArray[Any], rule: str
) -> ImageDifference:
    return _count(one == other, filled, gap, (one != 0, other != 0), rule)


def _count(
    same: npt.NDArray[Any],
    filled: npt.NDArray[Any],
    gap: npt.NDArray[Any],
    lacking: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    rule: str,
) -> ImageDifference:
    differing = gap[filled & ~same]
    return ImageDifference(
        same.size,
        int(same.sum()),
        int((lacking[0] & ~lacking[1]).sum()),
        int((lacking[1] & ~lacking[0]).sum()),
        float(differing.max(initial=0.0)),
        float(np.median(differing)) if differing.size else 0.0,
        rule,
    )


def image_json(image: ImageDifference | None) -> dict[str, Any] | None:
    """Return the difference of two images as JSON values; None where they were not compared."""
    if image is None:
        return None
    return {**asdict(image), "equal": image.is_equal, "equal_pixels": image.equal}
