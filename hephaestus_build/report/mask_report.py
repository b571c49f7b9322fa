"""Report on the rasterization of the experts' polygons: change of area, overlaps and preview projection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import published_frames
from hephaestus_build.dataset.deformation_events import implied_grid
from hephaestus_build.processing.mask_rasterization import (
    PreviewGeometry,
    default_preview_geometry,
    rasterize_annotation,
)
from hephaestus_build.sources.annotations.record import Annotation, polygon_area


@dataclass(frozen=True)
class PolygonMaskReport:
    """Report on one polygon.

    Attributes
    ----------
    unique_id, index : int
        Id of the annotation, and position of the polygon in it.
    activity : str
        Activity type.
    area : float
        Area of the polygon in grid pixels.
    pixels : int
        Number of pixels of its mask within the grid, regardless of other polygons.
    hidden : int
        Number of its pixels that smaller polygons of the same annotation cover.
    rows_moved : float
        Shift of the polygon in rows, positive southwards, if a preview with Mercator rows were read as one
        with linear rows. In the opposite case the sign is reversed.
    beyond : bool
        Whether it extends beyond the grid.
    """

    unique_id: int
    index: int
    activity: str
    area: float
    pixels: int
    hidden: int
    rows_moved: float
    beyond: bool


@dataclass(frozen=True)
class FrameMaskReport:
    """Report on all polygons of one frame.

    Attributes
    ----------
    frame : str
        Frame id.
    shape : tuple of int
        Rows and columns of the grid.
    pixel_m : tuple of float
        East-west and north-south size of a pixel on the ground, in metres.
    grid_from : str
        Source of the grid.
    projection, evidence : str
        Projection of the previews, and the evidence for it.
    uncertain : str
        Why the geometry is uncertain; empty if it is not.
    polygons : tuple of PolygonMaskReport
        Reports on the polygons, by pair.
    """

    frame: str
    shape: tuple[int, int]
    pixel_m: tuple[float, float]
    grid_from: str
    projection: str
    evidence: str
    uncertain: str
    polygons: tuple[PolygonMaskReport, ...]

    def summarize(self) -> dict[str, Any]:
        """Return summary statistics of the frame as JSON values."""
        polygons = self.polygons
        errors = [abs(item.pixels / item.area - 1) for item in polygons if item.area and not item.beyond]
        moved = np.array([item.rows_moved for item in polygons])
        area = sum(item.area for item in polygons)
        return {
            **{key: value for key, value in asdict(self).items() if key != "polygons"},
            "polygons": len(polygons),
            "area_km2": round(area * self.pixel_m[0] * self.pixel_m[1] / 1e6, 1),
            "area_kept": round(sum(item.pixels for item in polygons) / area, 5) if area else None,
            "worst_error": round(max(errors), 4) if errors else None,
            "hidden_pixels": sum(item.hidden for item in polygons),
            "beyond_grid": sum(item.beyond for item in polygons),
            "rows_moved_mean": round(float(moved.mean()), 1) + 0.0 if len(moved) else None,
            "rows_moved_most": round(float(moved[np.abs(moved).argmax()]), 1) + 0.0 if len(moved) else None,
        }


def report_masks(
    annotations: Iterable[Annotation], grid_of: Callable[[Frame], tuple[Grid, str] | None]
) -> list[FrameMaskReport]:
    """Rasterize every polygon on its frame's grid, and return a report for each frame.

    Parameters
    ----------
    annotations : iterable of Annotation
        Annotations of any frames, in any order.
    grid_of : callable
        Returns the grid of a frame and its source, or None if it is not known. Frames without a grid are
        reported without polygons.

    Returns
    -------
    list of FrameMaskReport
        Reports sorted by frame; frames without polygons are left out.
    """
    frames: dict[Frame, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        if annotation.polygons:
            frames[annotation.frame].append(annotation)
    findings = []
    for frame, items in sorted(frames.items()):
        known = published_frames().get(frame.id)
        uncertain = (known.uncertain_geometry or "") if known else ""
        if (found := grid_of(frame)) is None:
            findings.append(FrameMaskReport(frame.id, (0, 0), (0.0, 0.0), "unknown", "", "", "no grid", ()))
            continue
        grid, grid_from = found
        geometry = default_preview_geometry(frame, grid)
        polygons = [
            finding
            for item in sorted(items, key=lambda item: item.pair)
            for finding in _polygons(item, geometry, grid)
        ]
        east, north = grid.pixel_size_m()
        findings.append(
            FrameMaskReport(
                frame.id, grid.shape, (round(east, 2), round(north, 2)), grid_from, geometry.projection,
                geometry.evidence, uncertain, tuple(polygons),
            )
        )  # fmt: skip
    return findings


def grid_from_registry(frame: Frame) -> tuple[Grid, str] | None:
    """Return the grid of a published frame that is inferred from its annotations, and its source."""
    grid = implied_grid(frame)
    return (grid, f"implied by {published_frames()[frame.id].implied_from}") if grid else None


def projection_row_shift(polygon: np.ndarray, geometry: PreviewGeometry, grid: Grid) -> float:
    """Return the shift of a polygon in rows, positive southwards, if Mercator rows are read as linear.

    Parameters
    ----------
    polygon : numpy.ndarray
        Vertices in pixels of the preview, shape (n, 2).
    geometry : PreviewGeometry
        Geometry of the preview; its projection is ignored.
    grid : Grid
        Grid of the frame.
    """
    middles = [
        replace(geometry, projection=projection).to_grid(polygon, grid)[:, 1].mean()
        for projection in ("linear", "mercator")
    ]
    return float(middles[0] - middles[1])


def _polygons(annotation: Annotation, geometry: PreviewGeometry, grid: Grid) -> Iterable[PolygonMaskReport]:
    whole = rasterize_annotation(annotation, geometry, grid)
    inside: list[np.ndarray] = []
    areas: list[float] = []
    regions = list(annotation.labeled_polygons)
    notes: list[bool] = []
    for polygon, activity, level in regions:
        one = replace(annotation, polygons=(polygon,), activity_type=(activity,), intensity_level=(level,))
        mask = rasterize_annotation(one, geometry, grid)
        canvas = np.zeros(whole.deformation.shape, bool)
        top, left = mask.row - whole.row, mask.column - whole.column
        rows, columns = mask.deformation.shape
        if mask.deformation.size:
            canvas[top : top + rows, left : left + columns] = mask.deformation > 0
        inside.append(canvas)
        areas.append(polygon_area(geometry.to_grid(polygon, grid)))
        notes.append(bool(mask.notes))
    for index, (polygon, activity, _) in enumerate(regions):
        # smaller polygons are drawn over larger ones, and of equal ones the later over the earlier
        above = [
            inside[other] for other in range(len(regions)) if (areas[other], -other) < (areas[index], -index)
        ]
        hidden = np.count_nonzero(inside[index] & np.logical_or.reduce(above)) if above else 0
        yield PolygonMaskReport(
            annotation.unique_id,
            index,
            activity,
            round(areas[index], 2),
            int(np.count_nonzero(inside[index])),
            int(hidden),
            round(projection_row_shift(polygon, geometry, grid), 2),
            notes[index],
        )
