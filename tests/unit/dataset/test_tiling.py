"""Tests of tiling: which part of a frame is used, and whether the label selected it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.bounds import Bounds
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.volcanoes import load_simulated_volcanoes, volcanoes_inside, volcanoes_named
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.tiling import (
    TILING_MODES,
    Tile,
    choose_tiles,
    tile_around_label,
    tile_around_volcanoes,
    tile_on_grid,
    tile_whole_frame,
)
from hephaestus_build.simulation.world.benchmark_frames import benchmark_frame_specs
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS

SAMPLE = Sample(Frame("124D_05291_081406"), Pair.parse("20180101_20180113"), True)
#: A small frame with Etna in it.
ETNA = Grid(60, 60, 14.97, 37.78, 0.001, 0.001)
shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
sizes = st.integers(1, 40)


@given(shapes, sizes)
def test_the_cores_of_a_whole_frame_count_every_pixel_once(shape: tuple[int, int], size: int) -> None:
    tiling = tile_whole_frame(shape, size)
    seen = np.zeros(shape, int)
    for tile in tiling.tiles:
        top, bottom, left, right = tile.core
        seen[top:bottom, left:right] += 1
        assert tile.row <= top < bottom <= tile.row + size
        assert tile.column <= left < right <= tile.column + size
        assert 0 <= tile.row <= max(0, shape[0] - size)
        assert 0 <= tile.column <= max(0, shape[1] - size)
    assert (seen == 1).all()
    assert len(tiling.tiles) == -(-shape[0] // size) * -(-shape[1] // size)


@given(shapes, sizes)
def test_what_is_read_in_tiles_is_written_back_as_it_was(shape: tuple[int, int], size: int) -> None:
    values = np.arange(2 * shape[0] * shape[1]).reshape(2, *shape)
    target = np.full_like(values, -1)
    for tile in tile_whole_frame(shape, size).tiles:
        part = tile.read(values, fill=-7)
        assert part.shape == (2, size, size)
        tile.write(part, target)
    np.testing.assert_array_equal(target, values)


@given(shapes, sizes, st.integers(1, 4))
def test_a_grid_never_overlaps_and_keeps_inside(shape: tuple[int, int], size: int, count: int) -> None:
    tiling = tile_on_grid(shape, size, count)
    seen = np.zeros(shape, int)
    for tile in tiling.tiles:
        seen[tile.row : tile.row + size, tile.column : tile.column + size] += 1
        if size <= min(shape):
            assert tile.row + size <= shape[0]
            assert tile.column + size <= shape[1]
    assert seen.max() == 1
    assert 1 <= len(tiling.tiles) <= count * count


def test_a_real_frame_needs_36_tiles_and_its_grid_has_nine() -> None:
    assert len(tile_whole_frame((2778, 2668)).tiles) == 36
    assert len(tile_on_grid((2778, 2668)).tiles) == 9


def label_tile(mask: np.ndarray, size: int, seed: int = 0) -> Tile:
    tiling = tile_around_label(mask, SAMPLE, size, seed)
    assert tile_around_label(mask, SAMPLE, size, seed) == tiling
    [tile] = tiling.tiles
    assert 0 <= tile.row <= max(0, mask.shape[0] - size)
    assert 0 <= tile.column <= max(0, mask.shape[1] - size)
    return tile


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 10), st.integers(1, 10), st.integers(0, 5))
def test_the_legacy_crop_lies_a_quarter_tile_around_the_middle_of_the_label(
    row: int, column: int, height: int, width: int, seed: int
) -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[row : row + height, column : column + width] = 1
    tile = label_tile(mask, 16, seed)
    for start, first, last in (
        (tile.row, row, min(row + height, 60) - 1),
        (tile.column, column, min(column + width, 60) - 1),
    ):
        published = (first + last) // 2 - 8
        assert min(max(published - 4, 0), 44) <= start <= min(max(published + 4, 0), 44)
    assert tile.read(mask).any()


def test_offsets_of_the_legacy_crop_are_uniform_and_may_cut_the_label_off() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[90:109, 80:119] = 1  # its middle is at (99, 99)
    tiles = [label_tile(mask, 32, seed) for seed in range(400)]
    for starts in ([tile.row for tile in tiles], [tile.column for tile in tiles]):
        assert {start - (99 - 16) for start in starts} == set(range(-8, 9))
        assert np.std(starts) == pytest.approx(np.std(np.arange(-8, 9)), rel=0.1)
    shares = [tile.read(mask).sum() / mask.sum() for tile in tiles]
    assert min(shares) < 0.7
    quiet = [label_tile(np.zeros((60, 61), np.uint8), 16, seed) for seed in range(200)]
    assert {tile.row - 21 for tile in quiet} == {tile.column - 22 for tile in quiet} == set(range(-4, 5))


@given(st.integers(0, 20), st.integers(1, 16))
def test_the_legacy_crop_has_deformation_where_its_middle_has_none(seed: int, size: int) -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[3, 5] = mask[58, 50] = 1
    assert label_tile(mask, size, seed).read(mask).any()


def test_each_choice_says_whether_it_looked_at_the_label() -> None:
    mask = np.ones((60, 60), np.uint8)
    looked = {mode: choose_tiles(mode, SAMPLE, ETNA, 16, mask=mask).uses_label for mode in TILING_MODES}
    assert looked == {"whole-frame": False, "volcano-centred": False, "grid": False, "label-centred": True}


@given(st.sampled_from(["whole-frame", "volcano-centred", "grid"]))
def test_the_label_moves_no_tile_of_a_label_free_mode(mode: str) -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[50:, 50:] = 1
    assert choose_tiles(mode, SAMPLE, ETNA, 16, mask=mask) == choose_tiles(mode, SAMPLE, ETNA, 16)


def test_an_unknown_mode_or_a_crop_without_its_label_is_refused() -> None:
    with pytest.raises(UsageError, match="whole-frame"):
        choose_tiles("centre", SAMPLE, ETNA)
    with pytest.raises(UsageError, match="depend on the label"):
        choose_tiles("label-centred", SAMPLE, ETNA)


def test_each_volcano_of_a_frame_has_a_window_around_it() -> None:
    grid = Grid(1000, 1200, 14.5, 38.5, 0.001, 0.001)
    tiling = tile_around_volcanoes(SAMPLE.frame, grid, 256)
    [etna] = volcanoes_named("Etna")
    assert etna.latitude is not None
    assert etna.longitude is not None
    row, column = (grid.north - etna.latitude) / grid.dy, (etna.longitude - grid.west) / grid.dx
    assert any(abs(t.row + 128 - row) <= 1 and abs(t.column + 128 - column) <= 1 for t in tiling.tiles)
    assert len(tiling.tiles) == len(volcanoes_inside(Bounds(*grid.bounds)))
    assert not tiling.uses_label


@given(st.integers(1, 40), st.integers(-20, 60), st.integers(-20, 60))
def test_windows_around_volcanoes_stay_inside_and_count_each_pixel_once(
    size: int, north: int, west: int
) -> None:
    # the volcano lies in the frame, at its edge or beyond it
    grid = Grid(60, 50, ETNA.west - west * 0.001, ETNA.north + north * 0.001, 0.001, 0.001)
    if not volcanoes_inside(Bounds(*grid.bounds)):
        with pytest.raises(HephaestusError, match="no volcano of the catalogue"):
            tile_around_volcanoes(SAMPLE.frame, grid, size)
        return
    tiles = tile_around_volcanoes(SAMPLE.frame, grid, size).tiles
    seen = np.zeros(grid.shape, int)
    for tile in tiles:
        assert 0 <= tile.row <= max(0, grid.height - size)
        assert 0 <= tile.column <= max(0, grid.width - size)
        rows, columns = np.nonzero(tile.inside)
        np.add.at(seen, (rows + tile.row, columns + tile.column), 1)
    assert seen.max() == 1


def test_pixels_of_overlapping_windows_count_in_the_first() -> None:
    frame, grid = Frame("081A_09372_130900"), Grid(900, 900, 175.3, -38.9, 0.001, 0.001)
    tiles = tile_around_volcanoes(frame, grid, 256).tiles
    assert any(tile.taken for tile in tiles)
    seen = np.zeros(grid.shape, int)
    union = np.zeros(grid.shape, bool)
    for tile in tiles:
        rows, columns = np.nonzero(tile.inside)
        np.add.at(seen, (rows + tile.row, columns + tile.column), 1)
        top, bottom, left, right = tile.core
        union[top:bottom, left:right] = True
    np.testing.assert_array_equal(seen, union)


def test_simulated_frames_have_the_volcanoes_of_their_terrain() -> None:
    terrain = {
        (round(volcano.latitude, 3), round(volcano.longitude, 3))
        for spec in (*FRAME_SPECS, *benchmark_frame_specs())
        for volcano in spec.terrain.volcanoes
    }
    assert {(one.latitude, one.longitude) for one in load_simulated_volcanoes()} == terrain
    assert all(one.name.startswith("SIMULATED") for one in load_simulated_volcanoes())
