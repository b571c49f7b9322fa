"""Attributes of samples (for grouping scores) and deformation events, read from the cubes' masks. No torch.

Only the cubes are read, not the annotations. Where annotations are available,
:mod:`hephaestus_build.dataset.deformation_events` finds the same events from the exact outlines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.dataset.deformation_events import label_chains
from hephaestus_build.dataset.samples import Sample

#: Frame id and pair name of a sample.
SampleKey = tuple[str, str]
_WHOLE_REGION = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class SampleAttributes:
    """Attributes of one sample, by which scores are grouped.

    Attributes
    ----------
    region : str
        The volcanoes that the frame covers.
    activities, intensities : tuple of str
        Class names in the cube's masks, sorted; empty if there is no deformation.
    days : int
        Days from primary to secondary.
    """

    region: str
    activities: tuple[str, ...] = ()
    intensities: tuple[str, ...] = ()
    days: int = 0


@dataclass(frozen=True)
class DeformationBox:
    """Bounding box of one patch of deformation in degrees, and its number of pixels."""

    edges: tuple[float, float, float, float]
    pixels: int


def read_sample_attributes(cube: WindowReader, sample: Sample) -> SampleAttributes:
    """Return the attributes of a sample in `cube`."""
    primary, secondary = sample.pair.dates
    return SampleAttributes(
        sample.region,
        _read_flag_meanings(cube, "activity_type_mask", sample) if sample.positive else (),
        _read_flag_meanings(cube, "intensity_level_mask", sample) if sample.positive else (),
        (secondary - primary).days,
    )


def find_deformation_boxes(cube: WindowReader, sample: Sample) -> list[DeformationBox]:
    """Return the boxes around the patches of deformation of a sample.

    In a frame whose preview geometry is uncertain, all boxes cover the whole region, as in
    :mod:`hephaestus_build.dataset.deformation_events`.
    """
    mask = read_union_mask(cube, [sample])
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return []
    if cube.attributes.get("uncertain_geometry"):
        return [DeformationBox(_WHOLE_REGION, int(np.count_nonzero(mask)))]
    top, left = int(rows[0]), int(columns[0])
    patches, _ = ndimage.label(mask[top : rows[-1] + 1, left : columns[-1] + 1], np.ones((3, 3)))
    return [
        DeformationBox(
            _box_edges(cube.grid, top, left, found), int(np.count_nonzero(patches[found] == number))
        )
        for number, found in enumerate(ndimage.find_objects(patches), start=1)
        if found is not None  # labels without pixels give None
    ]


def read_union_mask(cube: WindowReader, samples: Iterable[Sample]) -> npt.NDArray[np.uint8]:
    """Return the union of the deformation masks of `samples` of one frame: uint8, in the frame's shape."""
    mask = np.zeros(cube.shape, np.uint8)
    for sample in samples:
        for column, values in cube.iter_strips("deformation_mask", sample.pair):
            part = mask[:, column : column + values.shape[1]]
            np.maximum(part, values, out=part)
    return mask


def assign_events(boxes: Mapping[Sample, list[DeformationBox]]) -> dict[SampleKey, str]:
    """Return the event that each sample belongs to, which is the event of its largest box.

    Two boxes of a region are linked if they overlap and the time spans of their interferograms share a day;
    an event is a connected group of boxes. It is named ``<region>-<first day>-<n>``, where n counts the
    events that begin on that day.
    """
    regions: dict[str, list[tuple[Sample, DeformationBox]]] = defaultdict(list)
    for sample, found in sorted(boxes.items()):
        regions[sample.region] += [(sample, box) for box in found]
    names: dict[SampleKey, tuple[int, str]] = {}
    for region, members in regions.items():
        for name, sample, box in _label_boxes(region, members):
            key = sample.frame.id, sample.pair.name
            if key not in names or box.pixels > names[key][0]:
                names[key] = box.pixels, name
    return {key: name for key, (_, name) in names.items()}


def _label_boxes(
    region: str, members: list[tuple[Sample, DeformationBox]]
) -> Iterator[tuple[str, Sample, DeformationBox]]:
    labels = label_chains(
        [shapely.box(*box.edges) for _, box in members],
        [(sample.pair.primary, sample.pair.secondary) for sample, _ in members],
    )
    starts: dict[int, date] = {}
    for label, (sample, _) in zip(labels, members, strict=True):
        starts[label] = min(starts.get(label, date.max), sample.pair.primary)
    same_day: dict[date, list[int]] = defaultdict(list)
    for label in dict.fromkeys(labels):
        same_day[starts[label]].append(label)
    for label, (sample, box) in zip(labels, members, strict=True):
        start = starts[label]
        yield f"{region}-{start:%Y%m%d}-{same_day[start].index(label) + 1}", sample, box


def _box_edges(
    grid: Grid, top: int, left: int, found: tuple[slice, ...]
) -> tuple[float, float, float, float]:
    rows, columns = found
    return (
        grid.west + (left + columns.start) * grid.dx,
        grid.north - (top + rows.stop) * grid.dy,
        grid.west + (left + columns.stop) * grid.dx,
        grid.north - (top + rows.start) * grid.dy,
    )


def _read_flag_meanings(cube: WindowReader, variable: str, sample: Sample) -> tuple[str, ...]:
    known = cube_schema().variables[variable].attributes
    meanings = dict(zip(known["flag_values"], known["flag_meanings"].split(), strict=True))
    codes = {int(code) for _, values in cube.iter_strips(variable, sample.pair) for code in np.unique(values)}
    return tuple(sorted(meanings[code] for code in codes - {0}))
