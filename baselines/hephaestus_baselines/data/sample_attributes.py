"""What the masks of stored interferograms say: words to group scores by, and events. No torch.

The cubes alone are read, so that this works wherever there is a cube; with the annotations at hand
:mod:`hephaestus_build.dataset.deformation_events` finds the same chains from the exact outlines.
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

#: Frame id and pair name: what one sample is called.
SampleKey = tuple[str, str]
_WHOLE_REGION = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class SampleAttributes:
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
class DeformationBox:
    """Where one patch of deformation lies: west, south, east and north edges in degrees, and its pixels."""

    edges: tuple[float, float, float, float]
    pixels: int


def read_sample_attributes(cube: WindowReader, sample: Sample) -> SampleAttributes:
    """Return the attributes of a sample that `cube` holds."""
    primary, secondary = sample.pair.dates
    return SampleAttributes(
        sample.region,
        _read_flag_meanings(cube, "activity_type_mask", sample) if sample.positive else (),
        _read_flag_meanings(cube, "intensity_level_mask", sample) if sample.positive else (),
        (secondary - primary).days,
    )


def find_deformation_boxes(cube: WindowReader, sample: Sample) -> list[DeformationBox]:
    """Return the boxes around the patches of deformation of a sample.

    In a frame whose previews' geometry is uncertain, all of the region is one place, as in
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
        if found is not None  # of a label that is not there
    ]


def read_union_mask(cube: WindowReader, samples: Iterable[Sample]) -> npt.NDArray[np.uint8]:
    """Return where any of `samples` of one frame shows deformation: uint8, the frame's shape."""
    mask = np.zeros(cube.shape, np.uint8)
    for sample in samples:
        for row, column, values in cube.iter_tiles("deformation_mask", sample.pair):
            part = mask[row : row + values.shape[0], column : column + values.shape[1]]
            np.maximum(part, values, out=part)
    return mask


def assign_events(boxes: Mapping[Sample, list[DeformationBox]]) -> dict[SampleKey, str]:
    """Return the event that each sample belongs to: that of its largest box.

    Boxes of a region belong to one event when they overlap and the time spans of their interferograms have
    a day in common; so do all that are linked by such steps. An event is called after its region and first
    day, with a number among those of that day.
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
    codes = {int(code) for *_, values in cube.iter_tiles(variable, sample.pair) for code in np.unique(values)}
    return tuple(sorted(meanings[code] for code in codes - {0}))
