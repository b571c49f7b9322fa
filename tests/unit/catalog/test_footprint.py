"""Tests of footprints, also across 180 degrees of longitude."""

from __future__ import annotations

import pytest

from hephaestus_build.catalog.footprint import bounding_box, footprint_of
from hephaestus_build.core.grid import Grid


@pytest.mark.parametrize("west", [-178.5, 181.5])
def test_a_footprint_has_its_longitudes_in_the_first_turn(west: float) -> None:
    grid = Grid(1000, 500, west, 10.0, 0.001, 0.001)
    assert bounding_box(grid) == (-178.5, 9.5, -177.5, 10.0)
    assert footprint_of(grid).bounds == bounding_box(grid)


@pytest.mark.parametrize("west", [179.5, -180.5])
def test_a_footprint_across_180_degrees_is_cut_there(west: float) -> None:
    grid = Grid(1000, 500, west, 10.0, 0.001, 0.001)
    assert bounding_box(grid) == (179.5, 9.5, -179.5, 10.0)
    parts = footprint_of(grid)
    assert parts.geom_type == "MultiPolygon"
    assert parts.area == pytest.approx(0.5)
    assert parts.bounds == (-180, 9.5, 180, 10.0)
    assert not parts.contains(footprint_of(Grid(10, 10, 0.0, 9.9, 0.001, 0.001)))


def test_an_outline_runs_against_the_clock_as_geojson_asks() -> None:
    assert footprint_of(Grid(10, 10, 0.0, 1.0, 0.1, 0.1)).exterior.is_ccw
