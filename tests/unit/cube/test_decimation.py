"""Tests of decimated images and their grids."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.codecs.image_encoder import strip_count, strip_width
from hephaestus_build.cube.decimation import Decimation

SIZES = st.integers(1, 60)


@given(SIZES, SIZES, st.integers(2, 64), st.integers(1, 4), st.data())
def test_an_image_of_strips_is_decimated_like_a_whole_one(height, width, factor, strips, data):
    image = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    columns, decimation = strip_width(width, strips), Decimation(factor)
    stored = data.draw(st.sets(st.integers(0, strip_count(width, strips) - 1)))
    parts = []
    for strip in range(strip_count(width, strips)):
        padded = np.full((height, columns), -1, np.int32)
        here = image[:, strip * columns : (strip + 1) * columns]
        padded[:, : here.shape[1]] = here
        if strip in stored:
            parts.append((strip * columns, padded))
        else:
            here[...] = 0
    top, left = decimation.first(height), decimation.first(width)
    taken = decimation.assemble(parts, image.shape, np.int32)
    np.testing.assert_array_equal(taken, image[top::factor, left::factor])
    assert taken.shape == decimation.shape(image.shape)


@given(SIZES, SIZES, st.integers(2, 64))
def test_the_grid_has_the_centres_of_the_pixels_taken(height, width, factor):
    grid = Grid(width, height, 10.0, 20.0, 0.001, 0.002)
    decimation = Decimation(factor)
    small = decimation.grid(grid)
    top, left = decimation.first(height), decimation.first(width)
    np.testing.assert_allclose(small.latitudes, grid.latitudes[top::factor], rtol=0, atol=1e-11)
    np.testing.assert_allclose(small.longitudes, grid.longitudes[left::factor], rtol=0, atol=1e-11)
