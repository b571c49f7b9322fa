"""From cubes on disk to items: split, statistics, events and attributes, pinned to one generation each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from baselines.items import Item
from hephaestus_build.progress import Listener
from hephaestus_build.splits import Part, Split
from hephaestus_build.statistics import Statistics
from hephaestus_build.tiles import TILE_SIZE, Mode

Training = Literal["random", "label-centred"]
#: Frame id and pair name: what one sample is called.
Key = tuple[str, str]


@dataclass(frozen=True)
class Attributes:
    """What scores are grouped by, of one sample.

    Attributes
    ----------
    region : str
    activities, intensities : tuple of str
        Words of the cube's masks, sorted; empty where there is no deformation.
    days : int
        From primary to secondary.
    """

    region: str
    activities: tuple[str, ...] = ()
    intensities: tuple[str, ...] = ()
    days: int = 0


@dataclass(frozen=True)
class Prepared:
    """All that a run needs to know of its data.

    Attributes
    ----------
    split : Split
        Of the samples in the cubes here.
    stores : mapping of frame id to pathlib.Path
        Each cube's generation: builds that go on meanwhile change nothing.
    generations : mapping of frame id to str
        What to write into results: the generation's number and the hash of its manifest.
    statistics : Statistics
        Of the training part.
    items : mapping of part to tuple of Item
        Validation and test in tiles; training in tiles only where they are centred on the label.
    simulated : bool
        Whether any of it is.
    events : mapping of (frame id, pair name) to str
        The event that each positive sample belongs to.
    attributes : mapping of (frame id, pair name) to Attributes
        Of every sample in a part.
    """

    split: Split
    stores: Mapping[str, Path]
    generations: Mapping[str, str]
    statistics: Statistics
    items: Mapping[Part, tuple[Item, ...]]
    simulated: bool
    events: Mapping[Key, str] = field(default_factory=dict)
    attributes: Mapping[Key, Attributes] = field(default_factory=dict)


def prepare(
    cubes: Path,
    *,
    split: str = "strict-temporal",
    series: bool = False,
    size: int = TILE_SIZE,
    training: Training = "random",
    tiling: Mode = "grid",
    limit: int | None = None,
    results: Path | None = None,
    threads: int = 2,
    listener: Listener | None = None,
) -> Prepared:
    """Pin the cubes in a folder and make items of what they hold.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of published cubes.
    split : str
        Name of a split rule.
    series : bool
        Items of three interferograms instead of one.
    size : int
        Rows and columns of the windows.
    training : str
        ``random``: each draw places its window anew (see :mod:`baselines.data`); ``label-centred``: once,
        as the published benchmark does.
    tiling : str
        Windows of validation and test, as :mod:`hephaestus_build.tiles` names them.
    limit : int, optional
        At most so many samples or series a part, spread evenly over it.
    results : pathlib.Path, optional
        Folder where the statistics are kept (``statistics/<split>.json``); nowhere unless given.
    threads : int
        Products worked on at once.
    listener : Listener, optional
        Told how far it is.

    Raises
    ------
    HephaestusError
        If there is no cube, or a part is empty.
    UsageError
        If the split or the tiling is not known.
    """
    raise NotImplementedError
