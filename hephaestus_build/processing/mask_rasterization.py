"""From the experts' polygons, drawn on previews, to masks on a frame's grid. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.sources.annotations.record import Annotation, polygon_area

Projection = Literal["linear", "mercator"]

_CODES = load_schema("annotation.json")["x-mask-codes"]
#: Codes of the masks, by the words of the annotations.
DEFORMATION_CODES: dict[str, int] = _CODES["deformation"]
ACTIVITY_CODES: dict[str, int] = _CODES["activity_type"]
INTENSITY_CODES: dict[str, int] = _CODES["intensity_level"]

#: LiCSAR draws its previews at 30 % of the raster; early ones of wide frames at a half or third of that.
PREVIEW_SCALE = 0.30
#: Later previews are no wider than this, so that their scale says nothing about what the experts saw.
CAPPED_WIDTH = 680
#: Simulated frames beyond this latitude have Mercator previews, as the real ones there do.
HIGH_LATITUDE = 60.0


class PreviewHeader(Protocol):
    """What a preview's header tells: columns, rows, and Pillow's name of its colour mode."""

    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def mode(self) -> str: ...  # noqa: D102


class UnusablePreviewError(ValueError):
    """A preview whose size or colours do not tell how the annotated one was drawn."""


@dataclass(frozen=True)
class PreviewGeometry:
    """How the pixels of the annotated preview lie on the frame.

    Attributes
    ----------
    width, height : int
        Columns and rows of the preview; both span the frame's full extent.
    projection : str
        ``linear``: rows are equal steps of latitude. ``mercator``: equal steps of Mercator's northing.
    evidence : str
        What this is known from, in words.
    """

    width: int
    height: int
    projection: Projection
    evidence: str

    def to_grid(self, polygon: np.ndarray, grid: Grid) -> np.ndarray:
        """Return preview pixels as pixel-edge coordinates of `grid`.

        Parameters
        ----------
        polygon : numpy.ndarray
            Shape (n, 2), x and y in preview pixels.
        grid : Grid
            The frame's grid.

        Returns
        -------
        numpy.ndarray
            Shape (n, 2), columns and rows; 0, 0 is the outer corner of the first pixel.
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
    """Return the geometry to assume for `frame` on `grid` where no preview tells.

    The published frames have theirs in the registry (Mercator for the two of Iceland, whose polygons
    show it); simulated frames above 60 degrees have Mercator previews; all others are linear.
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


def geometry_from_preview(grid: Grid, preview: PreviewHeader) -> PreviewGeometry:
    """Return the geometry that a preview's size and colour mode tell.

    Palette previews were drawn with Mercator rows at 30 %, true-colour ones with linear rows at 30 %
    (15 % from 4000 columns on, 10 % from 6000 on).

    Raises
    ------
    UnusablePreviewError
        If the preview was narrowed to 680 columns, or its size or mode fits neither convention.
    """
    mode, size = preview.mode, (preview.width, preview.height)
    projection: Projection
    if mode == "P":
        projection, scale = "mercator", PREVIEW_SCALE
    elif mode in ("RGBA", "RGB"):
        projection, scale = "linear", PREVIEW_SCALE / max(1, grid.width // 2000)
    else:
        raise UnusablePreviewError(f"its colour mode {mode} is of neither era")
    expected = (scale * grid.width, scale * grid.height)
    if preview.width == CAPPED_WIDTH and expected[0] > CAPPED_WIDTH + 2:
        raise UnusablePreviewError(f"it was narrowed to {CAPPED_WIDTH} columns, long after the annotations")
    if any(abs(got - want) > 2 for got, want in zip(size, expected, strict=True)):
        raise UnusablePreviewError(
            f"it has {size[0]} x {size[1]} pixels where {expected[0]:.0f} x {expected[1]:.0f} fit the grid"
        )
    evidence = f"a preview of {size[0]} x {size[1]} pixels, mode {mode}"
    return PreviewGeometry(preview.width, preview.height, projection, evidence)


def resolve_preview_geometry(
    frame: Frame, grid: Grid, preview: PreviewHeader | None = None
) -> PreviewGeometry:
    """Return the geometry that `preview` tells, or the default with the reason for it as evidence."""
    default = default_preview_geometry(frame, grid)
    if preview is None:
        return default
    try:
        return geometry_from_preview(grid, preview)
    except UnusablePreviewError as error:
        return replace(default, evidence=f"{default.evidence}; its preview is of no use: {error}")


@dataclass(frozen=True, eq=False)
class AnnotationMasks:
    """The three masks of one interferogram, as far as its polygons reach.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the whole grid.
    row, column : int
        Where the window begins.
    deformation, activity_type, intensity_level : numpy.ndarray
        uint8, shape of the window; all empty where there is no polygon on the grid.
    notes : tuple of str
        Polygons that lie beyond the grid, in words.
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

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the cube's name of each mask and its window."""
        yield "deformation_mask", self.deformation
        yield "activity_type_mask", self.activity_type
        yield "intensity_level_mask", self.intensity_level

    def to_full_grid(self) -> dict[str, np.ndarray]:
        """Return the masks on the whole grid by their names in the cube, uint8, shape `shape`."""
        return {name: self.paste(values, np.zeros(self.shape, np.uint8)) for name, values in self.items()}

    def paste(self, values: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Write the window `values` into `target`, shape (..., rows, columns), and return `target`."""
        target[(..., *self.window)] = values
        return target


def rasterize_annotation(annotation: Annotation, geometry: PreviewGeometry, grid: Grid) -> AnnotationMasks:
    """Draw the polygons of `annotation` on `grid`.

    A pixel belongs to a polygon when its centre lies inside (even-odd rule, any orientation). Where
    polygons overlap the smaller one lies on top in all three masks, so that a small pattern on a large
    one is not lost and the order in the file does not matter; of two of one size the later one does.
    Parts beyond the grid are cut off.
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
        kind = "earthquake" if activity == "Earthquake" else "volcanic"
        deformation[inside] = DEFORMATION_CODES[kind]
        activity_type[inside] = ACTIVITY_CODES.get(activity, ACTIVITY_CODES["Unidentified"])
        intensity_level[inside] = INTENSITY_CODES.get(level, INTENSITY_CODES["None"])
    return AnnotationMasks(grid.shape, row, column, deformation, activity_type, intensity_level, notes)


def _is_beyond(points: np.ndarray, limit: np.ndarray) -> bool:
    return bool((points.max(axis=0) <= 0).any() or (points.min(axis=0) >= limit).any())


def rasterize_polygon(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which pixel centres lie inside `polygon` by the even-odd rule.

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
    # every edge crosses the centre lines of the rows first .. last - 1
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
