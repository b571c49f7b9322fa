"""Coverage: how much of the annotated deformation lies in the windows of a tiling.

A model is scored on windows. What lies in no window is never looked at, whatever the model, so coverage
limits every recall. It is known before anything is trained: outlines, grids and windows determine it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.registry import published_frames
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.deformation_events import DeformationEvent, implied_grid
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import PARTS, Split, SplitPart
from hephaestus_build.dataset.tiling import TILE_SIZE, Tile, TilingMode, choose_tiles
from hephaestus_build.processing.mask_rasterization import (
    DEFORMATION_CODES,
    default_preview_geometry,
    rasterize_annotation,
)
from hephaestus_build.sources.annotations.record import Annotation

#: Code of volcanic deformation in ``deformation_mask``; the other one is that of earthquakes.
VOLCANIC = DEFORMATION_CODES["volcanic"]
#: Fraction of the positives of validation and of test below which no table is made unless it is asked for.
SUFFICIENT_COVERAGE = 0.9


class VisibleDeformation(NamedTuple):
    """Deforming pixels of one interferogram.

    Attributes
    ----------
    pixels : int
        Number in the frame.
    inside : int
        Number in the cores of the windows together.
    """

    pixels: int
    inside: int

    @property
    def touched(self) -> bool:
        """Whether any deforming pixel lies in a window."""
        return self.inside > 0

    @property
    def seen(self) -> bool:
        """Whether at least half of the deforming pixels lie in the windows."""
        return self.inside > 0 and 2 * self.inside >= self.pixels


def count_visible(
    deforming: npt.NDArray[np.bool], tiles: Iterable[Tile], *, row: int = 0, column: int = 0
) -> VisibleDeformation:
    """Count the deforming pixels of an interferogram, and those in the cores of `tiles`, each once.

    Parameters
    ----------
    deforming : numpy.ndarray
        bool, shape (rows, columns): the frame, or a part of it that has all of the deformation.
    tiles : iterable of Tile
        Windows of the frame.
    row, column : int
        Position of the part in the frame.
    """
    inside = np.zeros_like(deforming)
    for tile in tiles:
        top, bottom, left, right = tile.core
        inside[max(top - row, 0) : max(bottom - row, 0), max(left - column, 0) : max(right - column, 0)] = (
            True
        )
    return VisibleDeformation(int(np.count_nonzero(deforming)), int(np.count_nonzero(deforming & inside)))


@dataclass
class CoverageCounts:
    """Coverage of the positives of a part, or of those in one region or frame.

    Attributes
    ----------
    positives : int
        Interferograms with deformation.
    seen : int
        Those with at least half of their deforming pixels in the windows.
    touched : int
        Those with any deforming pixel in the windows.
    pixels, pixels_inside : int
        Deforming pixels, and those in the windows.
    uncertain, uncertain_seen : int
        Positives whose outlines are uncertain, because their frame's preview geometry is, and those seen.
    unknown : int
        Positives of frames whose grid is unknown. They are in no other count.
    events, events_seen : set of str
        Events that the positives show, and those shown by one that is seen.
    """

    positives: int = 0
    seen: int = 0
    touched: int = 0
    pixels: int = 0
    pixels_inside: int = 0
    uncertain: int = 0
    uncertain_seen: int = 0
    unknown: int = 0
    events: set[str] = field(default_factory=set)
    events_seen: set[str] = field(default_factory=set)

    @property
    def share_seen(self) -> float:
        """Fraction of the positives that are seen; NaN if there are none."""
        return self.seen / self.positives if self.positives else math.nan

    def add(self, visible: VisibleDeformation | None, *, uncertain: bool, events: Iterable[str]) -> None:
        """Count one interferogram; `visible` is None if the grid of its frame is unknown."""
        if visible is None:
            self.unknown += 1
            return
        self.positives += 1
        self.seen += visible.seen
        self.touched += visible.touched
        self.pixels += visible.pixels
        self.pixels_inside += visible.inside
        self.uncertain += uncertain
        self.uncertain_seen += uncertain and visible.seen
        self.events.update(events)
        if visible.seen:
            self.events_seen.update(events)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values; ``pixels_seen`` is a fraction, null without pixels."""
        return {
            "positives": self.positives,
            "seen": self.seen,
            "touched": self.touched,
            "pixels": self.pixels,
            "pixels_seen": round(self.pixels_inside / self.pixels, 6) if self.pixels else None,
            "uncertain": self.uncertain,
            "uncertain_seen": self.uncertain_seen,
            "unknown": self.unknown,
            "events": len(self.events),
            "events_seen": len(self.events_seen),
        }


@dataclass(frozen=True)
class PartCoverage:
    """Coverage of one part of a split: in all, by region and by frame."""

    total: CoverageCounts
    regions: Mapping[str, CoverageCounts]
    frames: Mapping[str, CoverageCounts]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            **self.total.to_json(),
            "regions": {name: counts.to_json() for name, counts in self.regions.items()},
            "frames": {name: counts.to_json() for name, counts in self.frames.items()},
        }


@dataclass(frozen=True)
class Coverage:
    """Coverage of a split by a tiling.

    Attributes
    ----------
    split : Split
        The split.
    tiling : str
        Mode of the tiling.
    size : int
        Rows and columns of a window.
    parts : mapping of part to PartCoverage
        Coverage of each part.
    """

    split: Split
    tiling: TilingMode
    size: int
    parts: Mapping[SplitPart, PartCoverage]

    def to_json(self) -> dict[str, Any]:
        """Return the coverage as JSON values."""
        return {
            "split": self.split.name,
            "version": self.split.version,
            "sha256": self.split.sha256,
            "simulated": self.split.is_simulated,
            "tiling": self.tiling,
            "window": self.size,
            "parts": {part: coverage.to_json() for part, coverage in self.parts.items()},
        }


def summarize_coverage(
    split: Split,
    tiling: TilingMode,
    size: int,
    visible: Mapping[Sample, VisibleDeformation],
    *,
    events: Iterable[DeformationEvent] = (),
    leave_out: Collection[Sample] = (),
) -> Coverage:
    """Return the coverage of a split, from the visible deformation of its positives.

    Parameters
    ----------
    split : Split
        The split.
    tiling : str
        Mode of the tiling.
    size : int
        Rows and columns of a window.
    visible : mapping of Sample to VisibleDeformation
        What the windows show of each positive; positives that are missing are counted as unknown.
    events : iterable of DeformationEvent
        The events, if they are known.
    leave_out : collection of Sample
        Positives that do not count, such as earthquakes alone where only volcanic deformation does.
    """
    shown: dict[tuple[str, str], list[str]] = {}
    for event in events:
        for frame, pair in event.members:
            shown.setdefault((frame.id, pair.name), []).append(event.id)
    known = published_frames()
    parts: dict[SplitPart, PartCoverage] = {}
    for part in PARTS:
        found = PartCoverage(CoverageCounts(), {}, {})
        regions: dict[str, CoverageCounts] = {}
        frames: dict[str, CoverageCounts] = {}
        for sample in split.parts[part]:
            if not sample.positive or sample in leave_out:
                continue
            name = sample.frame.id
            groups = (
                found.total,
                regions.setdefault(sample.region, CoverageCounts()),
                frames.setdefault(name, CoverageCounts()),
            )
            for counts in groups:
                counts.add(
                    visible.get(sample),
                    uncertain=name in known and known[name].uncertain_geometry is not None,
                    events=shown.get((name, sample.pair.name), ()),
                )
        parts[part] = PartCoverage(found.total, dict(sorted(regions.items())), dict(sorted(frames.items())))
    return Coverage(split, tiling, size, parts)


def keep_deformation(mask: npt.NDArray[np.uint8], *, volcanic_only: bool) -> npt.NDArray[np.uint8]:
    """Return a ``deformation_mask`` without earthquakes, or as it is if they count."""
    return np.where(mask == VOLCANIC, mask, 0) if volcanic_only else mask


def find_earthquakes_alone(visible: Mapping[Sample, VisibleDeformation]) -> frozenset[Sample]:
    """Return the positives that show an earthquake and no other deformation.

    Parameters
    ----------
    visible : mapping of Sample to VisibleDeformation
        Volcanic deformation of positives.
    """
    return frozenset(sample for sample, found in visible.items() if not found.pixels)


def visible_from_annotations(
    samples: Iterable[Sample],
    annotations: Iterable[Annotation],
    tiling: TilingMode,
    size: int = TILE_SIZE,
    *,
    volcanic_only: bool = False,
) -> dict[Sample, VisibleDeformation]:
    """Return what the windows of a tiling show of positive samples, from the annotations alone.

    The outlines are rasterized on each published frame's implied grid
    (:func:`hephaestus_build.dataset.deformation_events.implied_grid`), which is good to about 60 pixels.

    Parameters
    ----------
    samples : iterable of Sample
        Samples; those without deformation, and of frames without an implied grid, are left out.
    annotations : iterable of Annotation
        The annotations of the samples.
    tiling : str
        Mode of the tiling.
    size : int
        Rows and columns of a window.
    volcanic_only : bool
        Whether pixels of earthquakes are no deformation.

    Notes
    -----
    Some implied grids were placed by the coordinates of their volcanoes. Windows around volcanoes therefore
    fit the outlines there a little better than on the true grid.
    """
    known = {(item.frame, item.pair): item for item in annotations}
    found = {}
    for sample in samples:
        grid = implied_grid(sample.frame) if sample.positive else None
        annotation = known.get((sample.frame, sample.pair))
        if grid is None or annotation is None:
            continue
        masks = rasterize_annotation(annotation, default_preview_geometry(sample.frame, grid), grid)
        shown = keep_deformation(masks.deformation, volcanic_only=volcanic_only)
        whole = None
        if tiling == "label-centred":
            whole = masks.paste(shown, np.zeros(grid.shape, np.uint8))
        tiles = choose_tiles(tiling, sample, grid, size, mask=whole).tiles
        found[sample] = count_visible(shown > 0, tiles, row=masks.row, column=masks.column)
    return found


def visible_in_cubes(
    samples: Iterable[Sample],
    stores: Mapping[str, Path],
    tiling: TilingMode,
    size: int = TILE_SIZE,
    *,
    volcanic_only: bool = False,
) -> dict[Sample, VisibleDeformation]:
    """Return what the windows of a tiling show of positive samples, from the masks of cubes.

    Parameters
    ----------
    samples : iterable of Sample
        Samples; those without deformation, and of frames without a cube, are left out.
    stores : mapping of frame id to pathlib.Path
        The store of each frame's cube.
    tiling : str
        Mode of the tiling.
    size : int
        Rows and columns of a window.
    volcanic_only : bool
        Whether pixels of earthquakes are no deformation.

    Raises
    ------
    HephaestusError
        If stored data is damaged.
    """
    cubes = {frame: WindowReader(store) for frame, store in stores.items()}
    found = {}
    for sample in samples:
        if not sample.positive or (cube := cubes.get(sample.frame.id)) is None:
            continue
        mask = cube.read_union("deformation_mask", [sample.pair])
        mask = keep_deformation(mask, volcanic_only=volcanic_only)
        found[sample] = count_visible(
            mask > 0, choose_tiles(tiling, sample, cube.grid, size, mask=mask).tiles
        )
    return found
