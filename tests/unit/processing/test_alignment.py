"""Tests of aligning rasters to the reference grid: no averaging, and every change is recorded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hephaestus_build.core.grid import Grid
from hephaestus_build.processing.alignment import align_to_grid

STEP = 0.001


def grid(
    width: int, height: int, west: float = -92.4255, north: float = 0.4871667, step: float = STEP
) -> Grid:
    return Grid(width, height, west, north, step, step)


def phase(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return distinct values everywhere, so that a wrong pixel is detected."""
    values = np.linspace(-np.pi, np.pi, shape[0] * shape[1], dtype=np.float32)
    return np.random.default_rng(seed).permutation(values).reshape(shape)


sizes = st.integers(3, 24)
shifts = st.integers(-6, 6)


def test_the_same_grid_returns_the_same_array():
    values = phase((7, 9))
    result, how = align_to_grid(values, grid(9, 7), grid(9, 7, west=-92.4255 + 1e-9))
    assert result is values
    assert (how.kind, how.column_offset, how.row_offset, how.note) == ("identical", 0, 0, "")


@examples(deadline=None)
@given(width=sizes, height=sizes, columns=shifts, rows=shifts)
def test_whole_pixels_move_exactly_and_come_back(width, height, columns, rows):
    source = grid(width, height)
    target = grid(width + 3, height + 2, source.west + columns * STEP, source.north - rows * STEP)
    values = phase(source.shape)
    expected = np.zeros(target.shape, np.float32)
    for row in range(target.height):
        for column in range(target.width):
            if 0 <= row + rows < height and 0 <= column + columns < width:
                expected[row, column] = values[row + rows, column + columns]
    if not expected.any():
        with pytest.raises(ValueError, match="do not overlap"):
            align_to_grid(values, source, target)
        return
    result, how = align_to_grid(values, source, target)
    np.testing.assert_array_equal(result, expected)
    assert how.kind in ("cropped", "shifted")
    assert (how.column_offset, how.row_offset) == (columns, rows)
    back, _ = align_to_grid(result, target, source)
    kept = np.zeros(source.shape, bool)
    kept[max(0, rows) : rows + target.height, max(0, columns) : columns + target.width] = True
    np.testing.assert_array_equal(back, np.where(kept, values, 0))


@examples(deadline=None)
@given(
    width=sizes,
    height=sizes,
    columns=st.floats(-4, 4),
    rows=st.floats(-4, 4),
    ratio=st.floats(0.3, 3),
    wanted=st.tuples(sizes, sizes),
)
def test_each_pixel_takes_the_nearest_and_nothing_is_averaged(width, height, columns, rows, ratio, wanted):
    source = grid(width, height)
    target = grid(*wanted, source.west + columns * STEP, source.north - rows * STEP, STEP * ratio)
    values = phase(source.shape)
    try:
        result, how = align_to_grid(values, source, target)
    except ValueError:
        return
    assert result.shape == target.shape
    assert result.dtype == values.dtype
    assert set(result.ravel()) <= {*values.ravel(), np.float32(0)}
    if how.kind == "identical":
        return
    # brute force: the source pixel whose centre is nearest, within the slack of whole-pixel moves
    for row, latitude in enumerate(target.latitudes):
        for column, longitude in enumerate(target.longitudes):
            far_x = np.abs(source.longitudes - longitude) / STEP
            far_y = np.abs(source.latitudes - latitude) / STEP
            if min(far_x.min(), far_y.min()) < 0.48 and max(far_x.min(), far_y.min()) < 0.48:
                assert result[row, column] == values[far_y.argmin(), far_x.argmin()]
            elif max(far_x.min(), far_y.min()) > 0.52:
                assert result[row, column] == 0


def test_half_a_pixel_moves_every_pixel_the_same_way():
    source = grid(900, 50)
    values = phase(source.shape)
    result, how = align_to_grid(
        values, source, grid(899, 49, source.west + STEP / 2, source.north - STEP / 2)
    )
    assert how.kind == "resampled"
    assert (how.column_offset, how.row_offset) == pytest.approx((0.5, 0.5))
    np.testing.assert_array_equal(result, values[1:, 1:])


def test_a_crop_and_a_shift_say_so():
    source = grid(10, 10)
    _, crop = align_to_grid(phase(source.shape), source, grid(8, 8, source.west + STEP, source.north - STEP))
    assert crop.kind == "cropped"
    _, shift = align_to_grid(phase(source.shape), source, grid(10, 10, source.west + 2 * STEP, source.north))
    assert shift.kind == "shifted"
    assert "20.00% of the frame filled with no data" in shift.note


def test_heights_are_filled_with_nan_and_bytes_stay_bytes():
    source = grid(4, 4)
    target = grid(6, 4, source.west - STEP)
    heights, _ = align_to_grid(phase(source.shape), source, target, fill=np.nan)
    assert np.isnan(heights[:, [0, 5]]).all()
    assert not np.isnan(heights[:, 1:5]).any()
    coherence, _ = align_to_grid(np.full((4, 4), 200, np.uint8), source, target)
    assert coherence.dtype == np.uint8
    assert coherence[0].tolist() == [0, 200, 200, 200, 200, 0]


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        align_to_grid(np.zeros((3, 3), np.float32), grid(4, 4), grid(4, 4))
