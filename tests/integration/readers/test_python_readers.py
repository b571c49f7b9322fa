"""Every reader in Python opens every numeric array of a cube, with the same values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from reader_availability import import_reader, require_python
from stored_arrays import StoredArray, digest

Values = Iterator[tuple[str, Any]]


def read_by_xarray(store: Path, arrays: list[StoredArray]) -> Values:
    for group in sorted({array.group for array in arrays}):
        with xr.open_zarr(store, group=group or None, chunks=None, decode_cf=False) as opened:
            for array in arrays:
                if array.group == group:
                    yield array.path, opened[array.name].values


def read_by_tensorstore(store: Path, arrays: list[StoredArray]) -> Values:
    tensorstore = import_reader("tensorstore")
    for array in arrays:
        place = {"driver": "file", "path": f"{store}/{array.path}/"}
        yield array.path, tensorstore.open({"driver": "zarr3", "kvstore": place}).result().read().result()


def read_by_zarrs(store: Path, arrays: list[StoredArray], *, strict: bool = True) -> Values:
    """Read by zarrs; if it is not strict, it leaves what it cannot read to zarr-python."""
    import_reader("zarrs")
    with zarr.config.set(
        {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": strict}
    ):
        group = zarr.open_group(store, mode="r")
        for array in arrays:
            yield array.path, group[array.path][...]


def read_by_gdal(store: Path, arrays: list[StoredArray]) -> Values:
    """Read by GDAL, whose rasters have two dimensions: others are bands, or one row."""
    for array in arrays:
        with open_by_gdal(store, array.path) as raster:
            yield array.path, raster.read().reshape(array.shape)


def open_by_gdal(store: Path, path: str) -> Any:
    require_python(3, 12)
    rasterio = import_reader("rasterio")
    return rasterio.open(f'ZARR:"{store}":/{path}')


READERS: dict[str, Callable[[Path, list[StoredArray]], Values]] = {
    "xarray": read_by_xarray,
    "tensorstore": read_by_tensorstore,
    "zarrs": read_by_zarrs,
    "gdal": read_by_gdal,
}
#: Its coordinates have no georeference, which rasterio says.
NOT_GEOREFERENCED = "ignore:Dataset has no geotransform"


@pytest.mark.filterwarnings(NOT_GEOREFERENCED)
@pytest.mark.parametrize("reader", READERS)
def test_every_numeric_array_is_read(reader, cube):
    # rasters of GDAL have a row at least; `spatial_ref` is a scalar that carries attributes, which it follows
    wanted = [array for array in cube.numeric if array.shape or reader != "gdal"]
    found = {path: digest(values) for path, values in READERS[reader](cube.link, wanted)}
    assert found == cube.digests(wanted)
    assert len(found) >= 30


def test_xarray_reads_every_text(cube):
    found = {path: digest(values) for path, values in read_by_xarray(cube.link, cube.texts)}
    assert found == cube.digests(cube.texts)


def test_zarrs_leaves_texts_to_zarr_python(cube):
    found = {path: digest(values) for path, values in read_by_zarrs(cube.link, cube.texts, strict=False)}
    assert found == cube.digests(cube.texts)


@pytest.mark.parametrize("reader", ["tensorstore", "gdal"])
def test_readers_without_strings_refuse_them(reader, cube):
    for array in cube.texts:
        with pytest.raises(Exception, match="string"):
            dict(READERS[reader](cube.link, [array]))


def test_texts_also_stand_as_bytes(cube):
    """One row of UTF-8 a pair or date, padded with zeros: such an array is numeric for every reader."""
    for text in cube.texts:
        forms = [item for item in cube.numeric if item.name == text.name and item.data_type == "uint8"]
        assert forms, text.path
        for form in forms:
            rows = cube.values[form.path].reshape(-1, form.shape[-1])
            assert {row.tobytes().rstrip(b"\0").decode() for row in rows} - {""} == {
                str(value) for value in cube.values[text.path].ravel()
            } - {""}


def edges(cube, array: StoredArray) -> tuple[float, float, float, float]:
    """Return west, south, east, north of an array from the pixel centres on its axes."""
    y, x = (cube.values[f"{array.group}/{name}".lstrip("/")] for name in array.dims[-2:])
    dx, dy = (x[-1] - x[0]) / (len(x) - 1) / 2, (y[-1] - y[0]) / (len(y) - 1) / 2
    return x[0] - dx, y[-1] + dy, x[-1] + dx, y[0] - dy


def test_rioxarray_finds_every_raster_on_the_earth(cube):
    import_reader("rioxarray")
    rasters = [array for array in cube.arrays if array.is_raster]
    assert len(rasters) >= 10
    for array in rasters:
        with xr.open_zarr(cube.link, group=array.group or None, chunks=None) as opened:
            raster = opened[array.name]
            assert raster.rio.crs.to_epsg() == 4326, array.path
            west, south, east, north = raster.rio.bounds()
            assert (west, south, east, north) == pytest.approx(edges(cube, array), abs=1e-9), array.path
            image = raster[(0,) * (raster.ndim - 2)]
            left = image.rio.clip_box(west, south, (west + east) / 2, north)
            assert digest(left.values) == digest(image.values[:, : left.shape[1]])
            assert left.shape[0] == image.shape[0] > 0 < left.shape[1] < image.shape[1]


@pytest.mark.filterwarnings(NOT_GEOREFERENCED)
def test_gdal_reads_the_right_window_of_every_raster(cube):
    require_python(3, 12)
    windows = import_reader("rasterio.windows")
    for array in [array for array in cube.arrays if array.is_raster]:
        with open_by_gdal(cube.link, array.path) as raster:
            assert raster.crs.to_epsg() == 4326, array.path
            west, south, east, north = edges(cube, array)
            assert tuple(raster.bounds) == pytest.approx((west, south, east, north), abs=1e-9), array.path
            middle = windows.from_bounds(
                *(west + (east - west) / 4, south, east, north - (north - south) / 4),
                transform=raster.transform,
            ).round()
            found = raster.read(window=middle).reshape(*array.shape[:-2], middle.height, middle.width)
        rows, columns = middle.toslices()
        assert digest(found) == digest(cube.values[array.path][..., rows, columns]), array.path


def test_gdal_reads_one_pair_by_its_positions(cube):
    """The address that QGIS takes too: positions on the date axes behind the name."""
    for stored in (True, False):
        primary, secondary = cube.slot(stored=stored)
        with open_by_gdal(cube.link, f"insar_difference:{primary}:{secondary}") as raster:
            found = raster.read()
        assert len(found) == 1
        assert digest(found[0]) == digest(cube.values["insar_difference"][primary, secondary])
        assert np.any(found) == stored
