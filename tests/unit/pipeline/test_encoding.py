"""Tests that fast encoding (bands, windows, fused packing) gives the same bytes as the plain way."""

import numpy as np
import pytest

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.codecs.shard_encoder import encode_shard
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.pipeline.encoding import encode_atmosphere, encode_images, encode_masks
from hephaestus_build.processing.interpolation import interpolate_bilinear
from hephaestus_build.processing.mask_rasterization import AnnotationMasks

GRID = Grid(700, 1100, -24.8, 38.9, 0.001, 0.001)


def fields():
    rng = np.random.default_rng(3)
    area = era5_area_around(GRID)
    middle = np.array([15.0, 95_000.0, 2.4e6])[:, None, None]
    return (middle * rng.normal(1, 0.01, (3, *area.shape))).astype(np.float32), area


def test_an_epoch_encoded_in_bands_is_the_whole_image_rounded_to_the_schema_s_step():
    values, area = fields()
    objects = encode_atmosphere(values, area.latitudes, area.longitudes, GRID)
    for name, field in zip(ERA5_VARIABLE_NAMES, values, strict=True):
        variable = cube_schema().variables[f"primary_date_{name}"]
        image = interpolate_bilinear(
            field[None], area.latitudes, area.longitudes, GRID, steps=[variable.step]
        )[0]
        inner = cube_schema().inner_chunk
        whole = encode_shard(image, inner=inner, encoder=variable.make_encoder(), fill=np.nan)
        assert objects[name] == whole


@pytest.mark.parametrize("name", ERA5_VARIABLE_NAMES)
def test_packing_makes_what_the_filters_in_the_metadata_make(name):
    encoder = cube_schema().variables[f"primary_date_{name}"].make_encoder()
    rng = np.random.default_rng(5)
    chunk = (rng.normal(1, 0.2, (64, 64)) * 4e4 * encoder.step).astype(np.float32)
    plain = chunk
    for codec in encoder.filters:
        plain = codec.encode(plain)
    np.testing.assert_array_equal(encoder._packed(chunk), plain)


@pytest.mark.parametrize(
    ("row", "column", "shape"),
    [(3, 5, (40, 30)), (500, 490, (40, 30)), (1000, 600, (100, 100)), (0, 0, GRID.shape), (0, 0, (0, 0))],
    ids=["one tile", "four tiles", "the last corner", "all of it", "nothing"],
)
def test_masks_encoded_from_their_window_are_the_whole_masks(row, column, shape):
    rng = np.random.default_rng(7)
    parts = [rng.integers(0, 3, shape, dtype=np.uint8) for _ in range(3)]
    masks = AnnotationMasks(GRID.shape, row, column, *parts)
    assert encode_masks(masks) == encode_images(masks.to_full_grid())


def test_a_tile_with_one_pixel_is_stored_wherever_the_pixel_lies():
    for place in [(0, 0), (17, 401), (699, 699)]:
        plane = np.zeros((700, 700), np.uint8)
        plane[place] = 1
        assert "deformation_mask" in encode_images({"deformation_mask": plane})
