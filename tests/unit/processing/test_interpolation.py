"""Tests of interpolating ERA5 fields to a frame's grid: exact, the same in all windows, rounded as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from hephaestus_build.core.grid import Grid
from hephaestus_build.processing.interpolation import interpolate_bilinear, quantize

#: Packing of water vapour, pressure and temperature in the cube.
STEPS = (2.0**-10, 2.0**-1, 2.0**4)
LEVELS = np.array([22.5, 93_000.0, 2.4e6]).reshape(3, 1, 1)


def source(seed: int, north: float, west: float, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return three fields as rough as ERA5 over mountains, on a 0.25 degree grid."""
    noise = np.random.default_rng(seed).uniform(-1, 1, (3, *shape))
    latitude = north - 0.25 * np.arange(shape[0])
    longitude = west + 0.25 * np.arange(shape[1])
    return (LEVELS * (1 + 0.2 * noise)).astype(np.float32), latitude, longitude


@st.composite
def frames(draw: st.DrawFn) -> tuple[tuple[np.ndarray, ...], Grid]:
    """A small frame of any pixel size and position, and fields that cover it."""
    grid = Grid(
        draw(st.integers(1, 60)),
        draw(st.integers(1, 60)),
        draw(st.floats(-179, 170)),
        draw(st.floats(-70, 80)),
        draw(st.sampled_from([0.001, 0.0005, 0.0002777, 0.03])),
        draw(st.sampled_from([0.001, 0.0005, 0.03])),
    )
    west, south, east, north = grid.bounds
    assume(east < 180)
    top, left = np.ceil(north * 4) / 4, np.floor(west * 4) / 4
    shape = (int((top - south) * 4) + 2, int((east - left) * 4) + 2)
    return source(draw(st.integers(0, 99)), top, left, shape), grid


def exact(fields: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, grid: Grid) -> np.ndarray:
    rows, columns = np.meshgrid(grid.latitudes, grid.longitudes, indexing="ij")
    return np.stack(
        [
            RegularGridInterpolator((latitude[::-1], longitude), field[::-1].astype(np.float64))(
                (rows, columns)
            )
            for field in fields
        ]
    )


@given(frames())
def test_it_agrees_with_scipy_to_a_few_ulp(case: tuple[tuple[np.ndarray, ...], Grid]) -> None:
    (fields, latitude, longitude), grid = case
    ours = interpolate_bilinear(fields, latitude, longitude, grid)
    truth = exact(fields, latitude, longitude, grid)
    assert ours.dtype == np.float32
    assert ours.shape == (3, *grid.shape)
    assert np.all(np.abs(ours - truth) <= 2.5 * np.spacing(truth.astype(np.float32)))


@given(frames(), st.data())
def test_a_window_holds_what_the_frame_holds_there(
    case: tuple[tuple[np.ndarray, ...], Grid], data: st.DataObject
) -> None:
    (fields, latitude, longitude), grid = case
    rows = slice(*sorted(data.draw(st.tuples(*[st.integers(0, grid.height)] * 2))))
    columns = slice(*sorted(data.draw(st.tuples(*[st.integers(0, grid.width)] * 2))))
    whole = interpolate_bilinear(fields, latitude, longitude, grid)
    window = interpolate_bilinear(fields, latitude, longitude, grid, rows, columns)
    np.testing.assert_array_equal(window, whole[:, rows, columns])


@given(frames())
def test_rounding_in_passing_equals_rounding_afterwards(
    case: tuple[tuple[np.ndarray, ...], Grid],
) -> None:
    (fields, latitude, longitude), grid = case
    rounded = interpolate_bilinear(fields, latitude, longitude, grid, steps=STEPS)
    smooth = interpolate_bilinear(fields, latitude, longitude, grid)
    for got, before, step in zip(rounded, smooth, STEPS, strict=True):
        np.testing.assert_array_equal(got, quantize(before, step))


def test_a_source_node_keeps_its_value() -> None:
    fields, latitude, longitude = source(3, 45.0, 10.0, (5, 6))
    grid = Grid(4, 3, 10.125, 44.875, 0.25, 0.25)  # pixel centres on nodes
    np.testing.assert_array_equal(
        interpolate_bilinear(fields, latitude, longitude, grid), fields[:, 1:4, 1:5]
    )


def test_it_writes_to_memory_that_is_there() -> None:
    fields, latitude, longitude = source(3, 45.0, 10.0, (5, 6))
    grid = Grid(40, 30, 10.3, 44.8, 0.01, 0.01)
    out = np.full((3, 30, 40), np.nan, np.float32)
    assert interpolate_bilinear(fields, latitude, longitude, grid, out=out) is out
    np.testing.assert_array_equal(out, interpolate_bilinear(fields, latitude, longitude, grid))
    with pytest.raises(ValueError, match="out is float64"):
        interpolate_bilinear(fields, latitude, longitude, grid, out=out.astype(np.float64))


def test_missing_values_stay_missing_and_reach_no_further_than_their_cells() -> None:
    fields, latitude, longitude = source(4, 45.0, 10.0, (4, 4))
    fields[:, 1, 1] = np.nan
    grid = Grid(75, 75, 10.0, 45.0, 0.01, 0.01)
    holes = np.isnan(interpolate_bilinear(fields, latitude, longitude, grid, steps=STEPS))
    inside = (grid.latitudes[:, None] > 44.5) & (grid.longitudes[None, :] < 10.5)
    np.testing.assert_array_equal(holes, np.broadcast_to(inside, holes.shape))


@pytest.mark.parametrize(
    ("grid", "axis"),
    [
        (Grid(10, 10, 9.9985, 44.9, 0.001, 0.001), "longitude"),
        (Grid(10, 10, 11.245, 44.9, 0.001, 0.001), "longitude"),
        (Grid(10, 10, 10.5, 45.0011, 0.001, 0.001), "latitude"),
        (Grid(10, 10, 10.5, 44.002, 0.001, 0.001), "latitude"),
    ],
)
def test_a_grid_beyond_the_source_is_refused(grid: Grid, axis: str) -> None:
    fields, latitude, longitude = source(0, 45.0, 10.0, (5, 6))
    with pytest.raises(ValueError, match=f"the source covers {axis}"):
        interpolate_bilinear(fields, latitude, longitude, grid)


def test_axes_in_the_wrong_order_are_refused() -> None:
    fields, latitude, longitude = source(0, 45.0, 10.0, (5, 6))
    grid = Grid(10, 10, 10.5, 44.5, 0.001, 0.001)
    with pytest.raises(ValueError, match="latitude must be descending"):
        interpolate_bilinear(fields, latitude[::-1], longitude, grid)
    with pytest.raises(ValueError, match="longitude must be ascending"):
        interpolate_bilinear(fields, latitude, longitude[::-1], grid)
    with pytest.raises(ValueError, match="do not match"):
        interpolate_bilinear(fields, latitude[1:], longitude, grid)
    with pytest.raises(ValueError, match="2 steps do not fit"):
        interpolate_bilinear(fields, latitude, longitude, grid, steps=STEPS[:2])


@given(
    st.lists(st.floats(-4e6, 4e6, width=32), min_size=1, max_size=20),
    st.sampled_from(STEPS),
)
def test_rounding_is_to_the_nearest_multiple_and_lasts(numbers: list[float], step: float) -> None:
    values = np.array(numbers, np.float32)
    rounded = quantize(values, step)
    assert rounded.dtype == np.float32
    assert np.all(np.abs(rounded.astype(np.float64) - values) <= step / 2)
    np.testing.assert_array_equal(np.fmod(rounded.astype(np.float64), step), 0)
    np.testing.assert_array_equal(quantize(rounded, step), rounded)


@pytest.mark.parametrize("step", [0.0, -0.5, 0.3, 1000.0, float("inf"), float("nan")])
def test_a_step_that_float32_cannot_keep_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="power of two"):
        quantize(np.zeros(2, np.float32), step)
