"""Deformation events: annotated areas that overlap in place and time, across interferograms and frames."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import published_frames
from hephaestus_build.dataset.samples import region_of
from hephaestus_build.processing.mask_rasterization import default_preview_geometry
from hephaestus_build.sources.annotations.record import Annotation

#: Days without an interferogram that shows an area, after which deformation of the same area is another
#: event. A day that no pair happens to span ends no inflation: intrusions pause for weeks, and radar misses
#: winters.
REARMING_DAYS = 90
#: Shape used for every area of a frame with uncertain geometry, so that only time decides.
_UNKNOWN_AREA = shapely.box(0, 0, 1, 1)


@dataclass(frozen=True)
class DeformationEvent:
    """A chain of annotated areas that overlap in place and time.

    Attributes
    ----------
    id : str
        ``<region>-<first day>-<number>``, numbered from 1 among the events of that region and day.
    region : str
        Name of the region.
    start, end : datetime.date
        First primary and last secondary date.
    members : tuple of (Frame, Pair)
        Interferograms that show the event, sorted.
    activities : mapping of str to int
        Number of polygons of each activity type.
    location : tuple of float or None
        Longitude and latitude of the centroid in degrees; None if a frame's geometry is uncertain or unknown.
    """

    id: str
    region: str
    start: date
    end: date
    members: tuple[tuple[Frame, Pair], ...]
    activities: Mapping[str, int]
    location: tuple[float, float] | None

    @property
    def is_earthquake(self) -> bool:
        """Whether all of its areas are of earthquakes."""
        return set(self.activities) == {"Earthquake"}


def implied_grid(frame: Frame) -> Grid | None:
    """Return the grid of a published frame that is inferred from its annotations; None for other frames.

    It is used where no raster of the frame, and therefore no exact grid, is available.
    """
    known = published_frames().get(frame.id)
    if known is None or known.implied_shape is None:
        return None
    (rows, columns), size = known.implied_shape, known.implied_pixel
    return Grid(
        columns, rows, known.longitude - columns * size / 2, known.latitude + rows * size / 2, size, size
    )


@dataclass(frozen=True)
class _Area:
    annotation: Annotation
    activity: str
    shape: shapely.Geometry
    has_location: bool


def find_events(annotations: Iterable[Annotation]) -> list[DeformationEvent]:
    """Return the deformation events in `annotations`, ordered by region and first day.

    1. The polygons of each region are projected to longitude and latitude, so that different frames can be
       compared. Areas of frames with uncertain geometry are all taken to overlap.
    2. Two areas are linked if they overlap, and at most :data:`REARMING_DAYS` days lie between the time spans
       of their interferograms.
    3. Each connected component of linked areas is one event.

    For example, if area A overlaps B in January, and B overlaps C in February, then A, B and C are one event,
    even if A and C do not overlap. If an area that was last seen on 11 September is seen again in pairs that
    begin on 12 September, the event goes on.
    """
    areas: dict[str, list[_Area]] = defaultdict(list)
    for annotation in sorted(annotations, key=lambda item: (item.frame, item.pair)):
        if found := _annotated_areas(annotation):
            areas[region_of(annotation.frame)] += found
    events = []
    for region, members in sorted(areas.items()):
        together: dict[int, list[_Area]] = defaultdict(list)
        spans = [area.annotation.pair.dates for area in members]
        for label, area in zip(label_chains([area.shape for area in members], spans), members, strict=True):
            together[label].append(area)
        numbers: Counter[date] = Counter()
        events += [_event(region, chain, numbers) for chain in sorted(together.values(), key=_order)]
    return events


def label_chains(shapes: Sequence[shapely.Geometry], spans: Sequence[tuple[date, date]]) -> list[int]:
    """Return the connected component of each area, where areas that overlap in place and time are linked.

    Between two that are linked lie at most :data:`REARMING_DAYS` days.

    Parameters
    ----------
    shapes : sequence of shapely.Geometry
        Shape of each area.
    spans : sequence of (datetime.date, datetime.date)
        First and last day of each area.

    Returns
    -------
    list of int
        Number of the component of each area.
    """
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    start, end = (np.array([span[i].toordinal() for span in spans], dtype=int) for i in (0, 1))
    linked = (start[one] - end[other] <= REARMING_DAYS) & (start[other] - end[one] <= REARMING_DAYS)
    graph = coo_array((np.ones(linked.sum()), (one[linked], other[linked])), shape=(len(shapes), len(shapes)))
    return connected_components(graph, directed=False)[1].tolist()


def find_same_places(
    annotations: Iterable[Annotation], seen: Iterable[Annotation]
) -> set[tuple[Frame, Pair]]:
    """Return which interferograms show deformation that overlaps an annotated area of others on the ground.

    Parameters
    ----------
    annotations : iterable of Annotation
        Annotations of the interferograms.
    seen : iterable of Annotation
        Annotations of the others, at any time and in any frame.
    """
    areas: dict[str, list[shapely.Geometry]] = defaultdict(list)
    for annotation in seen:
        areas[region_of(annotation.frame)] += [area.shape for area in _annotated_areas(annotation)]
    trees = {region: shapely.STRtree(shapes) for region, shapes in areas.items() if shapes}
    return {
        (annotation.frame, annotation.pair)
        for annotation in annotations
        if (tree := trees.get(region_of(annotation.frame))) is not None
        and any(len(tree.query(area.shape, predicate="intersects")) for area in _annotated_areas(annotation))
    }


def _annotated_areas(annotation: Annotation) -> list[_Area]:
    grid = implied_grid(annotation.frame)
    uncertain = (known := published_frames().get(annotation.frame.id)) and known.uncertain_geometry
    areas = []
    for polygon, activity, _ in annotation.labeled_polygons:
        if uncertain:
            areas.append(_Area(annotation, activity, _UNKNOWN_AREA, False))
        elif grid is None:  # the only frame of its region: areas are compared in preview pixels
            areas.append(_Area(annotation, activity, shapely.make_valid(shapely.Polygon(polygon)), False))
        else:
            points = default_preview_geometry(annotation.frame, grid).to_grid(polygon, grid)
            ground = points * (grid.dx, -grid.dy) + (grid.west, grid.north)
            areas.append(_Area(annotation, activity, shapely.make_valid(shapely.Polygon(ground)), True))
    return areas


def _order(chain: list[_Area]) -> tuple[date, tuple[Frame, Pair], float]:
    first = min(chain, key=lambda area: (area.annotation.pair, area.annotation.frame))
    west = min(float(shapely.bounds(area.shape)[0]) for area in chain)
    return first.annotation.pair.primary, (first.annotation.frame, first.annotation.pair), west


def _event(region: str, chain: list[_Area], numbers: Counter[date]) -> DeformationEvent:
    start = min(area.annotation.pair.primary for area in chain)
    numbers[start] += 1
    middle = shapely.unary_union([area.shape for area in chain]).centroid
    return DeformationEvent(
        f"{region}-{start:%Y%m%d}-{numbers[start]}",
        region,
        start,
        max(area.annotation.pair.secondary for area in chain),
        tuple(sorted({(area.annotation.frame, area.annotation.pair) for area in chain})),
        dict(sorted(Counter(area.activity for area in chain).items())),
        (round(middle.x, 4), round(middle.y, 4)) if all(area.has_location for area in chain) else None,
    )
