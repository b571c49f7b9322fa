"""Comparison of one interferogram of two cubes: its images, masks, flags and texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.comparison.grid_difference import Crop
from hephaestus_build.comparison.image_difference import (
    ImageDifference,
    MaskDifference,
    compare_coherence,
    compare_masks,
    compare_phase,
    image_json,
)
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.readable_cube import ReadableCube
from hephaestus_build.cube.schema import MASK_VARIABLES


@dataclass(frozen=True)
class PairComparison:
    """How a pair that both cubes hold differs.

    Attributes
    ----------
    pair : Pair
        The dates.
    phase, coherence : ImageDifference or None
        None where a cube lacks the variable or the grids have no pixels in common.
    masks : dict of str to MaskDifference
        By variable.
    tables : dict of str to tuple
        Flags and texts that differ: the values in the two cubes.
    """

    pair: Pair
    phase: ImageDifference | None
    coherence: ImageDifference | None
    masks: dict[str, MaskDifference] = field(default_factory=dict)
    tables: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        images = (self.phase, self.coherence, *self.masks.values())
        return not self.tables and all(image is not None and image.is_equal for image in images)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "pair": self.pair.name,
            "equal": self.is_equal,
            "phase": image_json(self.phase),
            "coherence": image_json(self.coherence),
            "masks": {
                name: {
                    **asdict(mask),
                    "equal": mask.is_equal,
                    "equal_pixels": mask.equal,
                    "overlap": mask.overlap,
                }
                for name, mask in self.masks.items()
            },
            "annotations": {name: list(values) for name, values in self.tables.items()},
        }


def compare_pair(
    first: ReadableCube,
    second: ReadableCube,
    crops: tuple[Crop, Crop] | None,
    tables: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    pair: Pair,
) -> PairComparison:
    """Compare a pair that both cubes hold; `tables` are the flags and texts of the two."""

    def images(name: str, compare: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Any]) -> Any:
        if crops is None or name not in first or name not in second:
            return None
        return compare(first.pair_image(name, pair)[crops[0]], second.pair_image(name, pair)[crops[1]])

    masks = {name: mask for name in MASK_VARIABLES if (mask := images(name, compare_masks)) is not None}
    differing = {}
    for name, (mine, theirs) in tables.items():
        values = tuple(
            plain_value(table[cube.pairs[pair]]) for cube, table in ((first, mine), (second, theirs))
        )
        if values[0] != values[1]:
            differing[name] = values
    return PairComparison(
        pair,
        images("insar_difference", compare_phase),
        images("insar_coherence", compare_coherence),
        masks,
        differing,
    )


def plain_value(value: Any) -> Any:
    """Return a value of a table as a JSON value; numbers of another type that are equal compare as equal."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    item = value.item() if isinstance(value, np.generic) else value
    if isinstance(item, float):
        return None if np.isnan(item) else round(item, 6)
    return item if isinstance(item, bool | int | str) else str(item)
