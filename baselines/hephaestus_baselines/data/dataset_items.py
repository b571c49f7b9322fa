"""Data set items (a sample or a series, with its window) and the draws that select them. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hephaestus_build.core.frames import Pair
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.tiling import Tile

#: Row, column and size of a window.
WindowKey = tuple[int, int, int]
#: A window with fewer deforming pixels, or a smaller share of an interferogram's, shows a sliver of it.
SLIVER_PIXELS, SLIVER_SHARE = 100, 0.1


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
    pixels : int
        Deforming pixels of a member in the window, those of the member that has most; 0 without a window.
    sliver : bool
        Whether the window has so little of the deformation that it is neither with nor without:
        less than :data:`SLIVER_PIXELS` pixels, or less than :data:`SLIVER_SHARE` of all of its pixels.
    """

    members: tuple[Sample, ...]
    positive: bool
    tile: Tile | None = None
    pixels: int = 0
    sliver: bool = False

    @property
    def frame(self) -> str:
        """Id of the members' frame."""
        return self.members[0].frame.id

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the members' pairs."""
        return tuple(sample.pair.name for sample in self.members)


@dataclass(frozen=True)
class KnownInterferogram:
    """What an expert saw in one interferogram of any part.

    Attributes
    ----------
    frame : str
    pair : Pair
    in_train : bool
        Whether it belongs to the training part.
    positive : bool
        Whether it shows deformation.
    windows : frozenset of tuple of int
        Row, column and size of the windows in which it does.
    """

    frame: str
    pair: Pair
    in_train: bool
    positive: bool
    windows: frozenset[WindowKey] = frozenset()

    def shows(self, window: WindowKey | None) -> bool:
        """Whether it shows deformation in a window, or anywhere if there is none."""
        return self.positive if window is None else window in self.windows


class SampleDraw(NamedTuple):
    """The index that samplers yield and data sets take.

    All randomness of a sample follows from its draw, so that samples do not depend on the number of workers
    or on whether the run was interrupted and resumed. If `like` is a position of another item, the window is
    the one that this item has with the same seed.
    """

    item: int
    seed: int
    like: int = -1


def count_draws(positives: int, items: int, *, balance: bool) -> int:
    """Return the number of draws of an epoch: twice the positives if they are balanced, or all items.

    Parameters
    ----------
    positives, items : int
        Number of training items that show deformation, and of all.
    balance : bool
        Whether as many negatives as positives are drawn, repeatedly if they are fewer.
    """
    return 2 * positives if balance and 0 < positives < items else items
