"""Tests of faulty rasters: each is wrong in exactly one way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.io import MemoryFile

from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.server import raster_faults
from hephaestus_build.simulation.world.geotiff_writer import write_raster

GRID = Grid(30, 20, -24.4796256, 37.9001667, 0.001, 0.001)
VALUES = np.random.default_rng(0).uniform(-3, 3, GRID.shape).astype(np.float32)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("good") / "good.tif"
    write_raster(path, VALUES, GRID)
    return path.read_bytes()


def _read(content: bytes) -> tuple[np.ndarray, Grid, dict[str, str]]:
    with MemoryFile(content) as memory, memory.open() as raster:
        grid = Grid.from_transform(raster.transform, raster.shape)
        return raster.read(1), grid, raster.tags() | {"crs": raster.crs.to_string()}


@pytest.mark.parametrize("offset", [0.5, 2.0])
def test_shifted(good: bytes, offset: float) -> None:
    values, grid, tags = _read(raster_faults.shift_raster(offset, -offset)(good))
    assert np.array_equal(values, VALUES)
    assert grid.west == pytest.approx(GRID.west + offset * 0.001)
    assert grid.north == pytest.approx(GRID.north + offset * 0.001)
    assert tags["HEPHAESTUS_SIMULATED"] == "true"


def test_cropped_lies_where_it_lay(good: bytes) -> None:
    values, grid, _ = _read(raster_faults.crop_raster(1, 2, 3, 4)(good))
    assert np.array_equal(values, VALUES[3:-4, 1:-2])
    assert grid.longitudes == pytest.approx(GRID.longitudes[1:-2])
    assert grid.latitudes == pytest.approx(GRID.latitudes[3:-4])


def test_other_pixels_numbers_and_places(good: bytes) -> None:
    values, grid, _ = _read(raster_faults.coarsen_raster(2)(good))
    assert np.array_equal(values, VALUES[::2, ::2])
    assert grid.dx == pytest.approx(0.002)
    assert not _read(raster_faults.blank_raster()(good))[0].any()
    assert np.isnan(_read(raster_faults.fill_raster(np.nan)(good))[0]).all()
    assert _read(raster_faults.cast_raster("float64")(good))[0].dtype == np.float64
    assert _read(raster_faults.claim_crs()(good))[2]["crs"] == "EPSG:32626"


def test_an_absurd_raster_is_small_and_claims_much() -> None:
    content = raster_faults.oversized_raster()
    assert len(content) < 100_000
    with MemoryFile(content) as memory, memory.open() as raster:
        assert raster.shape == (200_000, 200_000)
        assert raster.crs.to_epsg() == 4326
