"""Tests that fast encoding (windows, rounding while interpolating) gives the same bytes as the plain way."""

import numpy as np
import pytest

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.pipeline.encoding import encode_atmosphere, encode_images, encode_masks
from hephaestus_build.processing.interpolation import interpolate_bilinear, quantize
from hephaestus_build.processing.mask_rasterization import AnnotationMasks

GRID = Grid(700, 1100, -24.8, 38.9, 0.001, 0.001)


def fields():
    rng = np.random.default_rng(3)
    area = era5_area_around(GRID)
    middle = np.array([15.0, 95_000.0, 2.4e6])[:, None, None]
    return (middle * rng.normal(1, 0.01, (3, *area.shape))).astype(np.float32), area


def test_atmosphere_is_rounded_to_the_step_of_the_schema():
    values, area = fields()
    objects = encode_atmosphere(values, area.latitudes, area.longitudes, GRID)
    for name, field in zip(ERA5_VARIABLE_NAMES, values, strict=True):
        variable = cube_schema().variables[f"primary_date_{name}"]
        image = interpolate_bilinear(
            field[None], area.latitudes, area.longitudes, GRID, steps=[variable.step]
        )[0]
        assert objects[name] == variable.make_encoder().encode(image)
        np.testing.assert_array_equal(image, quantize(image, variable.step))


@pytest.mark.parametrize(
    ("row", "column", "shape"),
    [(3, 5, (40, 30)), (500, 490, (40, 30)), (1000, 600, (100, 100)), (0, 0, GRID.shape), (0, 0, (0, 0))],
    ids=["one strip", "two strips", "the last corner", "all of it", "nothing"],
)
def test_masks_encoded_from_their_window_are_the_whole_masks(row, column, shape):
    rng = np.random.default_rng(7)
    parts = [rng.integers(0, 3, shape, dtype=np.uint8) for _ in range(3)]
    masks = AnnotationMasks(GRID.shape, row, column, *parts)
    assert encode_masks(masks) == encode_images(masks.to_full_grid())


def test_strip_with_one_pixel_is_stored_wherever_the_pixel_lies():
    for place in [(0, 0), (17, 401), (699, 699)]:
        plane = np.zeros((700, 700), np.uint8)
        plane[place] = 1
        strip = place[1] // 234
        assert list(encode_images({"deformation_mask": plane})) == [f"deformation_mask.{strip}"]
