"""One thing to learn from or to be scored on, and the draw that names it. Pure: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.tiling import Tile


@dataclass(frozen=True)
class DatasetItem:
    """A sample or a series, and which part of the frame is looked at.

    Attributes
    ----------
    members : tuple of Sample
        One interferogram, or the three of a series: of one frame and one primary date.
    positive : bool
        Whether any member shows deformation, anywhere in the frame.
    tile : Tile or None
        The window; None where it is drawn anew from the draw's seed each time it is read (training).
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
    """What samplers yield and data sets take.

    All that is random about a sample follows from its draw, so that any number of workers, and a run that
    goes on where it was stopped, see the same samples.
    """

    item: int
    seed: int
