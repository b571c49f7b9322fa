"""Tests of rasterizing polygons, drawn on previews, on a frame's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize as gdal_rasterize

from annotation_files import annotation
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import load_schema
from hephaestus_build.processing.mask_rasterization import (
    ACTIVITY_CODES,
    DEFORMATION_CODES,
    INTENSITY_CODES,
    PreviewGeometry,
    UnusablePreviewError,
    default_preview_geometry,
    geometry_from_preview,
    rasterize_annotation,
    rasterize_polygon,
    resolve_preview_geometry,
)
from hephaestus_build.sources.annotations.record import ACTIVITIES, INTENSITIES

ETNA = Frame("124D_05291_081406")
GRID = Grid(width=1000, height=800, west=14.0, north=38.0, dx=0.001, dy=0.001)
ICELAND = Grid(width=4400, height=2000, west=-24.0, north=65.15, dx=0.001, dy=0.001)
LINEAR = PreviewGeometry(300, 240, "linear", "test")


@dataclass(frozen=True)
class Preview:
    width: int
    height: int
    mode: str


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def positive(*polygons: np.ndarray, activity: tuple[str, ...] = (), level: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    return annotation(
        label=("Deformation",),
        phase="Unrest",
        polygons=polygons,
        activity_type=activity or ("Mogi",) * len(polygons),
        intensity_level=level or ("Low",) * len(polygons),
    )


def test_the_codes_are_those_of_the_cube() -> None:
    assert [ACTIVITY_CODES[word] for word in ACTIVITIES] == [1, 2, 3, 4, 5, 6]
    assert [INTENSITY_CODES[word] for word in INTENSITIES] == [1, 2, 3, 4]
    assert DEFORMATION_CODES == {"none": 0, "volcanic": 1, "earthquake": 2}
    cube = {item["name"]: item["attributes"] for item in load_schema("cube.json")["variables"]}
    for name, codes in (
        ("deformation_mask", DEFORMATION_CODES),
        ("activity_type_mask", ACTIVITY_CODES),
        ("intensity_level_mask", INTENSITY_CODES),
    ):
        words = {word.replace(" ", "_"): code for word, code in codes.items()}
        assert dict(zip(cube[name]["flag_meanings"].split(), cube[name]["flag_values"], strict=True)) == words


def test_a_box_lands_where_it_was_drawn() -> None:
    masks = rasterize_annotation(
        positive(box(30, 60, 90, 120), activity=("Sill",), level=("High",)), LINEAR, GRID
    )
    assert masks.window == (slice(200, 400), slice(100, 300))
    full = masks.to_full_grid()
    for name, code in (("deformation_mask", 1), ("activity_type_mask", 3), ("intensity_level_mask", 3)):
        assert full[name].shape == GRID.shape
        assert full[name].dtype == np.uint8
        assert np.array_equal(np.argwhere(full[name])[[0, -1]], [(200, 100), (399, 299)])
        assert set(np.unique(full[name])) == {0, code}
    assert masks.notes == ()


def test_an_earthquake_has_codes_of_its_own() -> None:
    masks = rasterize_annotation(
        positive(box(1, 1, 9, 9), activity=("Earthquake",), level=("None",)), LINEAR, GRID
    )
    assert [int(values.max()) for _, values in masks.items()] == [2, 5, 4]


def test_no_polygon_costs_nothing() -> None:
    masks = rasterize_annotation(annotation(), LINEAR, GRID)
    assert masks.is_empty
    assert masks.deformation.size == 0
    assert not masks.to_full_grid()["deformation_mask"].any()


@pytest.mark.parametrize("swap", [False, True])
def test_the_smaller_polygon_lies_on_top_in_any_order(swap: bool) -> None:
    shapes = [(box(10, 10, 60, 60), "Sill", "Low"), (box(20, 20, 30, 30), "Dyke", "High")]
    shapes = shapes[::-1] if swap else shapes
    polygons, activity, level = zip(*shapes, strict=True)
    full = rasterize_annotation(
        positive(*polygons, activity=activity, level=level), LINEAR, GRID
    ).to_full_grid()
    values = [[int(full[name][row, row]) for name in full] for row in (50, 80)]
    assert values == [[1, 3, 1], [1, 2, 3]]


def test_polygons_beyond_the_frame_are_cut_and_said() -> None:
    masks = rasterize_annotation(
        positive(box(-50, 100, 30, 130), box(290, 230, 400, 400), box(400, 0, 500, 9)), LINEAR, GRID
    )
    full = masks.to_full_grid()["deformation_mask"]
    assert full[350, 0] == full[350, 99] == full[799, 999] == 1
    assert int(full.sum()) == 100 * 100 + round((1000 - 290 / 0.3) - 0.5) * round((800 - 230 / 0.3) - 0.5)
    assert masks.notes == (
        "polygon 0 lies partly beyond the grid",
        "polygon 1 lies partly beyond the grid",
        "polygon 2 lies wholly beyond the grid",
    )


def test_mercator_rows_follow_latitude() -> None:
    geometry = PreviewGeometry(1320, 600, "mercator", "test")
    # from the definition: the row whose northing divides the extent in half
    south, north = ICELAND.bounds[1], ICELAND.bounds[3]
    northing = [np.arctanh(np.sin(np.radians(latitude))) for latitude in (south, north)]
    middle = np.degrees(np.arcsin(np.tanh(sum(northing) / 2)))
    expected = (north - middle) / ICELAND.dy
    [(column, row)] = geometry.to_grid(np.array([(660.0, 300.0)]), ICELAND)
    assert column == pytest.approx(2200)
    assert row == pytest.approx(expected)
    assert 1000 - row == pytest.approx(18, abs=1)  # a linear reading would lie 18 rows too far south
    ends = geometry.to_grid(np.array([(0.0, 0.0), (1320.0, 600.0)]), ICELAND)
    np.testing.assert_allclose(ends, [(0, 0), (4400, 2000)], atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "preview", "projection"),
    [
        (GRID, Preview(300, 240, "P"), "mercator"),
        (GRID, Preview(300, 240, "RGBA"), "linear"),
        (GRID, Preview(301, 239, "RGB"), "linear"),
        (ICELAND, Preview(660, 300, "RGBA"), "linear"),  # 15 % from 4000 columns on
        (ICELAND, Preview(1320, 600, "P"), "mercator"),
        (Grid(1840, 1913, -92.4255, 0.4871667, 0.001, 0.001), Preview(552, 574, "P"), "mercator"),
    ],
)
def test_a_preview_tells_its_era(grid: Grid, preview: Preview, projection: str) -> None:
    geometry = geometry_from_preview(grid, preview)
    assert geometry.projection == projection
    assert (geometry.width, geometry.height) == (preview.width, preview.height)
    assert f"{preview.width} x {preview.height}" in geometry.evidence


@pytest.mark.parametrize(
    ("grid", "preview", "reason"),
    [
        (ICELAND, Preview(680, 309, "P"), "narrowed to 680"),
        (GRID, Preview(300, 240, "L"), "mode L"),
        (GRID, Preview(600, 480, "P"), "would|fit"),
        (ICELAND, Preview(1320, 600, "RGBA"), "fit"),
    ],
)
def test_a_preview_that_tells_nothing_is_refused_and_the_default_says_so(
    grid: Grid, preview: Preview, reason: str
) -> None:
    with pytest.raises(UnusablePreviewError, match=reason):
        geometry_from_preview(grid, preview)
    geometry = resolve_preview_geometry(ETNA, grid, preview)
    assert geometry.projection == "linear"
    assert "not usable" in geometry.evidence


@pytest.mark.parametrize(
    ("frame", "grid", "projection"),
    [
        ("124D_05291_081406", GRID, "linear"),
        ("155D_02579_100800", ICELAND, "mercator"),
        ("201D_02400_131313", ICELAND, "mercator"),
        ("198A_00210_131313", GRID, "linear"),
        ("001D_02400_131313", ICELAND, "linear"),
    ],
)
def test_the_default_is_linear_save_where_it_is_known_better(frame: str, grid: Grid, projection: str) -> None:
    geometry = default_preview_geometry(Frame(frame), grid)
    assert geometry.projection == projection
    assert (geometry.width, geometry.height) == (round(0.3 * grid.width), round(0.3 * grid.height))


def test_the_stripmap_frames_say_that_they_are_uncertain() -> None:
    assert "uncertain" in default_preview_geometry(Frame("144A_SM_REUN_S6"), GRID).evidence


@given(arrays(float, st.tuples(st.integers(3, 9), st.just(2)), elements=st.integers(-80, 480)))
def test_any_polygon_is_filled_as_gdal_fills_it(corners: np.ndarray) -> None:
    # moved so that no edge runs through a pixel's centre, where programs differ
    polygon = corners / 8 + np.sqrt([2, 3]) / 100
    shape = {"type": "Polygon", "coordinates": [[*polygon.tolist(), polygon[0].tolist()]]}
    theirs = gdal_rasterize([shape], out_shape=(50, 40), transform=Affine(1, 0, 0, 0, 1 + 1e-12, 0))
    np.testing.assert_array_equal(rasterize_polygon(polygon, (50, 40)), theirs.astype(bool))
