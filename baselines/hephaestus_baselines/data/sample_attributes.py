"""Attributes of samples (for grouping scores) and deformation events, read from the cubes' masks. No torch.

Only the cubes are read, not the annotations. Where annotations are available,
:mod:`hephaestus_build.dataset.deformation_events` finds the same events from the exact outlines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from hephaestus_build.core.gdal import isolated_gdal_env
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.dataset.coverage import VOLCANIC
from hephaestus_build.dataset.deformation_events import label_chains
from hephaestus_build.dataset.samples import Sample

#: Frame id and pair name of a sample.
InterferogramKey = tuple[str, str]
#: Outline of all deformation of a frame with uncertain geometry, so that only time decides.
_WHOLE_REGION = shapely.box(0, 0, 1, 1)


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

    def names_in(self, variable: str) -> tuple[str, ...]:
        """Return the class names in one of the cube's masks."""
        return {"activity_type_mask": self.activities, "intensity_level_mask": self.intensities}[variable]


def read_sample_attributes(
    cube: WindowReader, sample: Sample, *, volcanic_only: bool = False
) -> SampleAttributes:
    """Return the attributes of a sample in `cube`; with `volcanic_only` not those of earthquakes."""
    primary, secondary = sample.pair.dates
    return SampleAttributes(
        sample.region,
        _read_flag_meanings(cube, "activity_type_mask", sample, volcanic_only) if sample.positive else (),
        _read_flag_meanings(cube, "intensity_level_mask", sample, volcanic_only) if sample.positive else (),
        (secondary - primary).days,
    )


def trace_outlines(cube: WindowReader, mask: npt.NDArray[np.uint8]) -> list[shapely.Geometry]:
    """Return the outlines of the patches of deformation in a mask of a cube's frame, degrees.

    In a frame whose preview geometry is uncertain, the outline covers the whole region, as in
    :mod:`hephaestus_build.dataset.deformation_events`.

    Parameters
    ----------
    cube : WindowReader
        The cube.
    mask : numpy.ndarray
        Its ``deformation_mask`` of one interferogram, shape (rows, columns).
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return []
    if cube.attributes.get("uncertain_geometry"):
        return [_WHOLE_REGION]
    from rasterio.features import shapes  # takes a tenth of a second to load

    top, left = int(rows[0]), int(columns[0])
    deforming = (mask[top : rows[-1] + 1, left : columns[-1] + 1] > 0).astype(np.uint8)
    grid = cube.grid
    corner = Affine(grid.dx, 0, grid.west + left * grid.dx, 0, -grid.dy, grid.north - top * grid.dy)
    with isolated_gdal_env():
        found = shapes(deforming, mask=deforming > 0, connectivity=8, transform=corner)
        return [shapely.make_valid(shapely.geometry.shape(outline)) for outline, _ in found]


def assign_events(
    outlines: Mapping[Sample, Sequence[shapely.Geometry]],
) -> dict[InterferogramKey, tuple[str, ...]]:
    """Return the events that each sample shows, sorted.

    The definition is that of :mod:`hephaestus_build.dataset.deformation_events`. An event is named
    ``<region>-<first day>-<n>``, where n counts the events that begin on that day.

    Parameters
    ----------
    outlines : mapping of Sample to sequence of shapely.Geometry
        Outlines of the deformation that each sample shows.
    """
    regions: dict[str, list[tuple[Sample, shapely.Geometry]]] = defaultdict(list)
    for sample, found in sorted(outlines.items()):
        regions[sample.region] += [(sample, outline) for outline in found]
    names: dict[InterferogramKey, set[str]] = defaultdict(set)
    for region, members in regions.items():
        for name, sample in _name_events(region, members):
            names[sample.frame.id, sample.pair.name].add(name)
    return {key: tuple(sorted(found)) for key, found in names.items()}


def _name_events(
    region: str, members: Sequence[tuple[Sample, shapely.Geometry]]
) -> Iterator[tuple[str, Sample]]:
    labels = label_chains(
        [outline for _, outline in members],
        [(sample.pair.primary, sample.pair.secondary) for sample, _ in members],
    )
    starts: dict[int, date] = {}
    for label, (sample, _) in zip(labels, members, strict=True):
        starts[label] = min(starts.get(label, date.max), sample.pair.primary)
    same_day: dict[date, list[int]] = defaultdict(list)
    for label in dict.fromkeys(labels):
        same_day[starts[label]].append(label)
    for label, (sample, _) in zip(labels, members, strict=True):
        start = starts[label]
        yield f"{region}-{start:%Y%m%d}-{same_day[start].index(label) + 1}", sample


def _read_flag_meanings(
    cube: WindowReader, variable: str, sample: Sample, volcanic_only: bool
) -> tuple[str, ...]:
    known = cube_schema().variables[variable].attributes
    meanings = dict(zip(known["flag_values"], known["flag_meanings"].split(), strict=True))
    if volcanic_only:
        volcanic = cube.read_union("deformation_mask", [sample.pair]) == VOLCANIC
        codes = set(np.unique(cube.read_union(variable, [sample.pair])[volcanic]).tolist())
    else:
        strips = cube.iter_strips(variable, sample.pair)
        codes = {int(code) for _, values in strips for code in np.unique(values)}
    return tuple(sorted(meanings[code] for code in codes - {0}))
