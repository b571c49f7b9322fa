"""Rasterization of the experts' polygons, which were drawn on previews, to masks on a frame's grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.sources.annotations.record import Annotation, polygon_area
from hephaestus_build.sources.interferograms import PreviewSize

#: Beginning of the evidence of a geometry that a preview of the pair itself tells.
PREVIEW_SEEN = "a preview of"
Projection = Literal["linear", "mercator"]

_CODES = load_schema("annotation.json")["x-mask-codes"]
#: Mask codes of the words in annotations.
DEFORMATION_CODES: dict[str, int] = _CODES["deformation"]
ACTIVITY_CODES: dict[str, int] = _CODES["activity_type"]
INTENSITY_CODES: dict[str, int] = _CODES["intensity_level"]

#: Scale of LiCSAR's previews relative to the raster; early ones of wide frames have a half or third of it.
PREVIEW_SCALE = 0.30
#: Width limit of previews drawn after the annotations; their scale differs from what the experts saw.
CAPPED_WIDTH = 680
#: Latitude above which simulated frames have Mercator previews, as the real ones there do.
HIGH_LATITUDE = 60.0


class UnusablePreviewError(ValueError):
    """The preview's size or colour mode does not determine the geometry of the annotated preview."""


@dataclass(frozen=True)
class PreviewGeometry:
    """Relation between the pixels of the annotated preview and the frame's grid.

    Attributes
    ----------
    width, height : int
        Columns and rows of the preview, which covers the whole frame.
    projection : str
        ``linear``: rows are equal steps of latitude. ``mercator``: equal steps of Mercator northing.
    evidence : str
        Where the geometry is known from, for the provenance.
    """

    width: int
    height: int
    projection: Projection
    evidence: str

    def to_grid(self, polygon: npt.NDArray[Any], grid: Grid) -> npt.NDArray[Any]:
        """Convert preview pixels to pixel-edge coordinates of `grid`.

        Columns scale linearly. With ``linear`` so do rows; with ``mercator`` the row is first converted to
        latitude by the inverse Mercator projection, ``2 atan(exp(y)) - pi/2``.

        Parameters
        ----------
        polygon : numpy.ndarray
            Shape (n, 2), x and y in preview pixels.
        grid : Grid
            The frame's grid.

        Returns
        -------
        numpy.ndarray
            Shape (n, 2), columns and rows; (0, 0) is the outer corner of the first pixel.
        """
        columns = polygon[:, 0] * (grid.width / self.width)
        share = polygon[:, 1] / self.height
        if self.projection == "linear":
            return np.column_stack([columns, share * grid.height])
        _, south, _, north = grid.bounds
        top, bottom = _mercator_northing(north), _mercator_northing(south)
        latitude = np.degrees(2 * np.arctan(np.exp(top - share * (top - bottom))) - np.pi / 2)
        return np.column_stack([columns, (north - latitude) / grid.dy])


def _mercator_northing(latitude: float) -> float:
    return float(np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2)))


def default_preview_geometry(frame: Frame, grid: Grid) -> PreviewGeometry:
    """Return the geometry to assume for `frame` without a usable preview.

    Published frames have theirs in the registry (Mercator for the two frames of Iceland, as their polygons
    show). Simulated frames above 60 degrees are Mercator. All others are linear.
    """
    published = published_frames().get(frame.id)
    if published:
        projection = published.preview
        evidence = f"the registry's convention for {frame}"
        if published.uncertain_geometry:
            evidence += f"; uncertain: {published.uncertain_geometry}"
    else:
        centre = grid.north - grid.height * grid.dy / 2
        projection = "mercator" if frame.is_simulated and abs(centre) > HIGH_LATITUDE else "linear"
        evidence = "the default for simulated frames" if frame.is_simulated else "the default"
    return PreviewGeometry(
        round(PREVIEW_SCALE * grid.width),
        round(PREVIEW_SCALE * grid.height),
        "mercator" if projection == "mercator" else "linear",
        evidence,
    )


def geometry_from_preview(grid: Grid, preview: PreviewSize) -> PreviewGeometry:
    """Return the geometry that follows from a preview's size and colour mode.

    LiCSAR drew palette previews with Mercator rows at 30 % of the raster, and true-colour previews with
    linear rows at 30 % (15 % from 4000 columns on, 10 % from 6000 on).

    Raises
    ------
    UnusablePreviewError
        If the preview is limited to 680 columns, or its size or mode matches neither convention.
    """
    mode, size = preview.mode, (preview.width, preview.height)
    projection: Projection
    if mode == "P":
        projection, scale = "mercator", PREVIEW_SCALE
    elif mode in ("RGBA", "RGB"):
        projection, scale = "linear", PREVIEW_SCALE / max(1, grid.width // 2000)
    else:
        raise UnusablePreviewError(f"its colour mode {mode} matches neither convention")
    expected = (scale * grid.width, scale * grid.height)
    if preview.width == CAPPED_WIDTH and expected[0] > CAPPED_WIDTH + 2:
        raise UnusablePreviewError(f"it was narrowed to {CAPPED_WIDTH} columns, long after the annotations")
    if any(abs(got - want) > 2 for got, want in zip(size, expected, strict=True)):
        raise UnusablePreviewError(
            f"it has {size[0]} x {size[1]} pixels where {expected[0]:.0f} x {expected[1]:.0f} fit the grid"
        )
    evidence = f"{PREVIEW_SEEN} {size[0]} x {size[1]} pixels, mode {mode}"
    return PreviewGeometry(preview.width, preview.height, projection, evidence)


def resolve_preview_geometry(frame: Frame, grid: Grid, preview: PreviewSize | None = None) -> PreviewGeometry:
    """Return the geometry of the annotated preview.

    Parameters
    ----------
    frame : Frame
        The frame.
    grid : Grid
        The frame's grid.
    preview : PreviewSize, optional
        Size and colour mode of the present preview.

    Returns
    -------
    PreviewGeometry
        From `preview` if it is usable, else the default of `frame`, with the reason in its evidence.
    """
    default = default_preview_geometry(frame, grid)
    if preview is None:
        return default
    try:
        return geometry_from_preview(grid, preview)
    except UnusablePreviewError as error:
        return replace(default, evidence=f"{default.evidence}; its preview is not usable: {error}")


@dataclass(frozen=True, eq=False)
class AnnotationMasks:
    """The three masks of one interferogram, in the window that its polygons cover.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the whole grid.
    row, column : int
        First row and column of the window.
    deformation, activity_type, intensity_level : numpy.ndarray
        uint8 codes, shape of the window; empty if no polygon is on the grid.
    notes : tuple of str
        Notes on polygons that extend beyond the grid.
    """

    shape: tuple[int, int]
    row: int
    column: int
    deformation: np.ndarray
    activity_type: np.ndarray
    intensity_level: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is marked."""
        return not self.deformation.any()

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the grid that the arrays cover."""
        rows, columns = self.deformation.shape
        return slice(self.row, self.row + rows), slice(self.column, self.column + columns)

    def items(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield name (as in the cube) and window of each mask."""
        yield "deformation_mask", self.deformation
        yield "activity_type_mask", self.activity_type
        yield "intensity_level_mask", self.intensity_level

    def to_full_grid(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return the masks on the whole grid by their names in the cube: uint8, shape `shape`."""
        return {name: self.paste(values, np.zeros(self.shape, np.uint8)) for name, values in self.items()}

    def paste(self, values: npt.NDArray[Any], target: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Write the window `values` into `target`, shape (..., rows, columns), and return `target`."""
        target[(..., *self.window)] = values
        return target


def rasterize_annotation(annotation: Annotation, geometry: PreviewGeometry, grid: Grid) -> AnnotationMasks:
    """Rasterize the polygons of `annotation` to masks on `grid`.

    A pixel belongs to a polygon if its centre is inside (even-odd rule, any orientation). Where polygons
    overlap, the smaller one is on top in all three masks, so that a small pattern on a large one is not lost
    and the order in the file does not matter; of two with equal area the later one is on top. Parts beyond
    the grid are cut off.

    Parameters
    ----------
    annotation : Annotation
        Annotation with polygons in preview pixels.
    geometry : PreviewGeometry
        Geometry of the annotated preview.
    grid : Grid
        Grid of the masks.

    Returns
    -------
    AnnotationMasks
        Deformation, activity type and intensity level.
    """
    shapes = [
        (geometry.to_grid(polygon, grid), activity, level)
        for polygon, activity, level in annotation.labeled_polygons
    ]
    limit = np.array([grid.width, grid.height], float)
    notes = tuple(
        f"polygon {index} lies {'wholly' if _is_beyond(points, limit) else 'partly'} beyond the grid"
        for index, (points, _, _) in enumerate(shapes)
        if (points < 0).any() or (points > limit).any()
    )
    shapes = [shape for shape in shapes if not _is_beyond(shape[0], limit)]
    if not shapes:
        none = np.zeros((0, 0), np.uint8)
        return AnnotationMasks(grid.shape, 0, 0, none, none, none, notes)
    corners = np.clip(np.concatenate([points for points, _, _ in shapes]), 0, limit)
    column, row = (int(value) for value in np.floor(corners.min(axis=0)))
    right, bottom = (int(value) for value in np.ceil(corners.max(axis=0)))
    deformation = np.zeros((bottom - row, right - column), np.uint8)
    activity_type, intensity_level = np.zeros_like(deformation), np.zeros_like(deformation)
    for points, activity, level in sorted(shapes, key=lambda shape: -polygon_area(shape[0])):
        inside = rasterize_polygon(points - (column, row), deformation.shape)
        codes = _codes_of_words(activity, level)
        deformation[inside], activity_type[inside], intensity_level[inside] = codes
    return AnnotationMasks(grid.shape, row, column, deformation, activity_type, intensity_level, notes)


def expected_codes(annotation: Annotation) -> tuple[set[int], set[int], set[int]]:
    """Return the codes that may occur in the masks of an annotation: deformation, activity and intensity."""
    codes = [_codes_of_words(activity, level) for _, activity, level in annotation.labeled_polygons]
    return {code[0] for code in codes}, {code[1] for code in codes}, {code[2] for code in codes}


def _codes_of_words(activity: str, level: str) -> tuple[int, int, int]:
    kind = "earthquake" if activity == "Earthquake" else "volcanic"
    return (
        DEFORMATION_CODES[kind],
        ACTIVITY_CODES.get(activity, ACTIVITY_CODES["Unidentified"]),
        INTENSITY_CODES.get(level, INTENSITY_CODES["None"]),
    )


def _is_beyond(points: np.ndarray, limit: np.ndarray) -> bool:
    return bool((points.max(axis=0) <= 0).any() or (points.min(axis=0) >= limit).any())


def rasterize_polygon(polygon: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.bool]:
    """Return which pixel centres are inside `polygon` by the even-odd rule.

    1. Find the rows whose centre line each edge crosses.
    2. Compute the column of each crossing, and count crossings per row and column.
    3. A pixel is inside if the number of crossings to its left is odd.

    For example, a square with corners (1, 0) and (3, 1) has two crossings in row 0, at columns 1 and 3. The
    number of crossings to the left of pixels 0 to 3 is 0, 1, 1, 2, so pixels 1 and 2 are inside.

    Parameters
    ----------
    polygon : numpy.ndarray
        Shape (n, 2), columns and rows in pixel-edge coordinates, closed or not.
    shape : tuple of int
        Rows and columns of the result.

    Returns
    -------
    numpy.ndarray
        bool, shape `shape`.
    """
    height, width = shape
    x, y = polygon[:, 0], polygon[:, 1]
    dx, dy = np.roll(x, -1) - x, np.roll(y, -1) - y
    # an edge crosses the centre lines of rows first .. last - 1
    first = np.clip(np.ceil(np.minimum(y, y + dy) - 0.5), 0, height).astype(np.intp)
    last = np.clip(np.ceil(np.maximum(y, y + dy) - 0.5), 0, height).astype(np.intp)
    count = last - first
    edge = np.repeat(np.arange(len(x)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    crossing = x[edge] + (row + 0.5 - y[edge]) * dx[edge] / dy[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)
    # a pixel is inside after an odd number of crossings to its left
    crossings = np.zeros((height, width + 1), np.int32)
    np.add.at(crossings, (row, column), 1)
    return (np.cumsum(crossings, axis=1)[:, :width] & 1).astype(bool)
