"""Tests of the values of overviews: phase as bytes, and the difference of water vapour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.processing.interpolation import interpolate_bilinear
from hephaestus_build.processing.overview_images import phase_to_bytes, water_vapour_difference

PHASE = cube_schema().groups["overview"].variables["overview/wrapped_phase"].attributes


@given(st.floats(-float(np.float32(np.pi)), float(np.float32(np.pi)), width=32))
def test_a_phase_is_within_half_a_step_and_only_zero_is_no_data(phase):
    byte = int(phase_to_bytes(np.array([phase], np.float32))[0])
    if phase == 0:
        assert byte == PHASE["_FillValue"] == 0
    else:
        assert 1 <= byte <= 255
        assert abs(byte * PHASE["scale_factor"] + PHASE["add_offset"] - phase) <= np.pi / 254 + 1e-5


def test_the_ends_of_the_phase_are_the_ends_of_the_bytes():
    ends = np.array([-np.pi, np.pi], np.float32)
    assert phase_to_bytes(ends).tolist() == [1, 255]
    decoded = np.array([1, 255]) * PHASE["scale_factor"] + PHASE["add_offset"]
    assert decoded == pytest.approx([-np.pi, np.pi])


def test_the_difference_is_secondary_minus_primary():
    grid = Grid(9, 7, 10.0, 20.0, 0.01, 0.01)
    area = era5_area_around(grid)
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 50, (2, *area.shape)).astype(np.float32)
    images = interpolate_bilinear(np.stack([first, second]), area.latitudes, area.longitudes, grid)
    found = water_vapour_difference(first, second, area.latitudes, area.longitudes, grid, 2**-6)
    np.testing.assert_allclose(found, images[1] - images[0], rtol=0, atol=2**-7 + 1e-4)
    assert not np.mod(found, 2**-6).any()
