"""Tests of maps of whole frames: complete coverage, seamless blending, and metadata of the files."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import ContourSet
from matplotlib.text import Text

import toy_cube
from hephaestus_baselines.evaluation.result_schema import Threshold
from hephaestus_baselines.mapping.map_store import (
    PROBABILITY_STEP,
    PROBABILITY_VARIABLE,
    MapStore,
    ProbabilityMap,
    draw_map_figure,
    write_map_figure,
    write_map_geotiff,
)
from hephaestus_baselines.mapping.predict_frame import (
    PairFilter,
    TileMosaic,
    WrittenMap,
    hash_images,
    make_overlapping_tiles,
    select_map_pairs,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import Generation
from json_page import differences
from toy_benchmark import toy_cubes

FRAME = Frame(toy_cube.FRAME)
shapes = st.tuples(st.integers(1, 200), st.integers(1, 200))
sizes = st.sampled_from([16, 32, 64])


@given(shape=shapes, size=sizes)
def test_every_pixel_has_one_core_and_lies_in_a_tile(shape, size):
    counted = np.zeros(shape, int)
    for tile in make_overlapping_tiles(shape, size):
        top, bottom, left, right = tile.core
        counted[top:bottom, left:right] += 1
        assert tile.row <= top < bottom <= tile.row + size
        assert tile.column <= left < right <= tile.column + size
    assert (counted == 1).all()


@given(shape=shapes, size=sizes)
def test_neighbours_share_at_least_the_overlap(shape, size):
    rows = sorted({tile.row for tile in make_overlapping_tiles(shape, size, 0.25)})
    assert all(after - before <= size - size // 4 for before, after in pairwise(rows))


@given(shape=shapes, size=sizes, seed=st.integers(0, 99))
def test_tiles_of_one_truth_blend_to_that_truth(shape, size, seed):
    truth = np.random.default_rng(seed).random(shape, "f4")
    mosaic = TileMosaic(shape, size)
    for tile in make_overlapping_tiles(shape, size):
        mosaic.blend_tile(tile, tile.read(truth, fill=9))  # pixels beyond the frame must have no effect
    np.testing.assert_allclose(mosaic.to_array(), truth, rtol=1e-5)


def test_between_two_tiles_the_map_goes_from_one_to_the_other_without_a_step():
    mosaic = TileMosaic((64, 112), 64)
    for tile, value in zip(make_overlapping_tiles((64, 112), 64), (0.0, 1.0), strict=True):
        mosaic.blend_tile(tile, np.full((64, 64), value, "f4"))
    row = mosaic.to_array()[32]
    assert (row[:48] == 0).all()
    assert (row[64:] == 1).all()
    assert 0 < np.diff(row).max() < 0.1


def test_where_no_tile_was_there_is_nothing():
    mosaic = TileMosaic((40, 100), 32)
    first = make_overlapping_tiles((40, 100), 32)[0]
    mosaic.fill_core(first, 0.5)
    assert np.isnan(mosaic.to_array()[-1, -1])
    assert mosaic.to_array()[0, 0] == 0.5


@pytest.fixture(scope="module")
def cubes(tmp_path_factory) -> Path:
    return toy_cubes(tmp_path_factory.mktemp("cubes"))


@pytest.fixture
def cube(cubes):
    with open_pinned_cube(cubes / f"{FRAME}.zarr", chunks=None) as dataset:
        yield dataset


def test_pairs_are_chosen_by_name_by_day_and_by_series(cube):
    everything = select_map_pairs(cube, FRAME, PairFilter(), 1)
    assert len(everything) == 18
    assert select_map_pairs(cube, FRAME, PairFilter((everything[3][0],)), 1) == [everything[3]]
    late = select_map_pairs(cube, FRAME, PairFilter(since=date(2020, 2, 1)), 1)
    assert late == everything[-6:]
    series = select_map_pairs(cube, FRAME, PairFilter(), 3)
    assert len(series) == 9
    assert all(len(group) == 3 and len({pair.primary for pair in group}) == 1 for group in series)
    answer = WrittenMap(FRAME, series[0]).to_json()
    assert answer["pair"] == answer["series"][-1] == series[0][-1].name
    assert differences("benchmark predict", {"maps": [{**answer, "highest": None}]}) == []


def test_a_pair_that_is_not_stored_and_a_day_after_all_are_said_in_one_line(cube):
    with pytest.raises(UsageError, match="no interferogram of 20100101_20100113 is stored"):
        select_map_pairs(cube, FRAME, PairFilter((Pair.parse("20100101_20100113"),)), 1)
    with pytest.raises(UsageError, match="begins on 2030-01-01 or later; the last one begins on 2020-02-25"):
        select_map_pairs(cube, FRAME, PairFilter(since=date(2030, 1, 1)), 1)


def test_images_have_a_number_by_their_content_not_by_the_generation(cubes, tmp_path):
    units = Generation.from_path(cubes / f"{FRAME}.zarr").read_inventory().granules
    further = toy_cubes(tmp_path, until=4)
    grown = Generation.from_path(further / f"{FRAME}.zarr").read_inventory().granules
    pairs = [Pair.parse(key[5:]) for key in units if key.startswith("pair/") and units[key].is_complete]
    numbers = {hash_images(units, (pair,)) for pair in pairs}
    assert len(numbers) == len(pairs)
    assert {hash_images(grown, (pair,)) for pair in pairs} == numbers
    assert max(numbers) < 2**63  # they are stored as int64


def made(cube: xr.Dataset, name: str, value: float, images: int = 1) -> ProbabilityMap:
    probability = np.full((cube.sizes["latitude"], cube.sizes["longitude"]), value, "f4")
    probability[0, 0] = np.nan
    return ProbabilityMap((Pair.parse(name),), probability, images, 3)


def test_maps_join_a_group_that_plain_xarray_opens_on_the_cubes_grid(cube, tmp_path):
    path = tmp_path / f"{FRAME}.zarr"
    store = MapStore(path, cube, 1, {"checkpoint": "abc", "simulated": True})
    for name, value in (("20200201_20200213", 0.25), ("20190106_20190118", 0.5)):
        store.write_map(made(cube, name, value))
    with xr.open_zarr(path) as there:
        assert there.attrs["simulated"] is True
        assert there.attrs["checkpoint"] == "abc"
        assert there[PROBABILITY_VARIABLE].dtype == "float32"
        assert there[PROBABILITY_VARIABLE][:, 5, 5].values.tolist() == [0.25, 0.5]
        assert np.isnan(there[PROBABILITY_VARIABLE][:, 0, 0]).all()
        assert str(there.primary_date.values[1])[:10] == "2019-01-06"
        assert str(there.secondary_date.values[0, 0])[:10] == "2020-02-13"
        assert there.cube_generation.values.tolist() == [3, 3]
        xr.testing.assert_equal(there.latitude.reset_coords(drop=True), cube.latitude.reset_coords(drop=True))
        assert read_cube_grid(there) == read_cube_grid(cube)


def test_a_map_of_the_same_pair_takes_the_place_of_the_earlier(cube, tmp_path):
    path = tmp_path / f"{FRAME}.zarr"
    MapStore(path, cube, 1, {"checkpoint": "abc"}).write_map(made(cube, "20200201_20200213", 0.25))
    store = MapStore(path, cube, 1, {"checkpoint": "abc"})
    pair = (Pair.parse("20200201_20200213"),)
    assert store.has_map(pair, 1)
    assert not store.has_map(pair, 2)
    store.write_map(made(cube, "20200201_20200213", 0.75, images=2))
    assert store.has_map(pair, 2)
    with xr.open_zarr(path) as there:
        assert there[PROBABILITY_VARIABLE][:, 5, 5].values.tolist() == [0.75]


def test_maps_of_another_model_or_grid_are_not_mixed(cube, tmp_path):
    path = tmp_path / f"{FRAME}.zarr"
    MapStore(path, cube, 1, {"checkpoint": "abc"}).write_map(made(cube, "20200201_20200213", 0.25))
    with pytest.raises(UsageError, match=r"holds maps of another checkpoint; move .* away"):
        MapStore(path, cube, 1, {"checkpoint": "other"})
    with pytest.raises(UsageError, match="a grid other than the cube"):
        MapStore(path, cube.isel(latitude=slice(1, None)), 1, {"checkpoint": "abc"})


def test_a_geotiff_lies_where_the_cube_does_and_says_what_it_is(cube, tmp_path):
    values = np.random.default_rng(0).random((70, 80), "f4")
    one = ProbabilityMap((Pair.parse("20200201_20200213"),), values, 1, 3)
    path = tmp_path / "map.tif"
    write_map_geotiff(path, one, read_cube_grid(cube), {"CHECKPOINT": "abc", "SIMULATED": "True"})
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_epsg() == 4326
        assert dataset.transform.almost_equals(read_cube_grid(cube).transform)
        assert np.abs(dataset.read(1) - values).max() <= PROBABILITY_STEP / 2
        assert np.isnan(dataset.nodata)
        tags = dataset.tags()
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert tags["CHECKPOINT"] == "abc"
    assert tags["SIMULATED"] == "True"
    assert tags["PAIRS"] == "20200201_20200213"


def test_a_picture_is_drawn_also_where_all_is_nan(cube, tmp_path):
    nothing = ProbabilityMap((Pair.parse("20200201_20200213"),), np.full((70, 80), np.nan, "f4"), 1, 3)
    write_map_figure(
        tmp_path / "map.png",
        nothing,
        np.zeros((70, 80), "f4"),
        toy_cube.grid(70, 80),
        "empty",
        threshold=None,
        simulated=True,
    )
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_has_degrees_a_scale_and_the_contour_of_the_threshold():
    on = toy_cube.grid(70, 80)
    probability = np.zeros(on.shape, "f4")
    probability[20:40, 30:50] = 0.8
    shown = ProbabilityMap((Pair.parse("20190101_20190113"),), probability, 1, 1)
    level = Threshold(value=0.5, unit="pixels", chosen_on="validation", model="m", split_sha256="0")

    def drawn(threshold):
        phase = np.ones(on.shape, "f4")
        figure = draw_map_figure(shown, phase, on, "map", threshold=threshold, simulated=False)
        FigureCanvasAgg(figure).draw()
        texts = [text.get_text() for text in figure.findobj(Text) if text.get_text()]
        return texts, [item for item in figure.axes[1].collections if isinstance(item, ContourSet)]

    texts, [line] = drawn(level)
    assert any(text.endswith("° E") for text in texts)
    assert any(text.endswith("° N") for text in texts)
    assert texts.count("2 km") == 2
    assert {"wrapped phase (rad)", "probability of deformation"} <= set(texts)
    assert "line: threshold 0.5, chosen on validation; 7.1% of the pixels with data are above it" in texts
    west, south, east, north = line.get_paths()[0].get_extents().extents
    assert (west, east) == pytest.approx((on.longitudes[29:31].mean(), on.longitudes[49:51].mean()), abs=5e-4)
    assert (north, south) == pytest.approx((on.latitudes[19:21].mean(), on.latitudes[39:41].mean()), abs=5e-4)
    texts, lines = drawn(level.model_copy(update={"value": 0.9}))
    assert lines == []
    assert any("nowhere reached, the highest probability is 0.8" in text for text in texts)
    texts, lines = drawn(None)
    assert any(text.startswith("no contour: the run's threshold is not known") for text in texts)
