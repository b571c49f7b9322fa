"""Data set items (a sample or a series, with its window) and the draws that select them. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.tiling import Tile


@dataclass(frozen=True)
class DatasetItem:
    """A sample or a series of samples, and its window of the frame.

    Attributes
    ----------
    members : tuple of Sample
        One interferogram, or the three of a series, which share frame and primary date.
    positive : bool
        Whether any member shows deformation anywhere in the frame.
    tile : Tile or None
        The window; None in training, where each draw's seed selects another window.
    """

    members: tuple[Sample, ...]
    positive: bool
    tile: Tile | None = None

    @property
    def frame(self) -> str:
        """Id of the members' frame."""
        return self.members[0].frame.id

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the members' pairs."""
        return tuple(sample.pair.name for sample in self.members)


class SampleDraw(NamedTuple):
    """The index that samplers yield and data sets take.

    All randomness of a sample follows from its draw, so that samples do not depend on the number of workers
    or on whether the run was interrupted and resumed.
    """

    item: int
    seed: int
