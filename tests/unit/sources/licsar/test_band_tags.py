"""Tests of band tags of rasters: applied and noted, or refused with the tag's name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from hephaestus_build.core.grid import Grid
from hephaestus_build.sources.licsar.band_tags import BandTags
from hephaestus_build.sources.licsar.geokeys import read_geokeys, read_geotransform
from hephaestus_build.sources.licsar.geotiff import CorruptRaster, read_coherence, read_height, read_phase
from hephaestus_build.sources.licsar.tiff_directory import (
    TiffTag,
    read_band_layout,
    read_tiff_directories,
    rebuild_minimal_tiff,
)
from licsar_files import GRID, coherence, phase, write_tif


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return tmp_path / "raster.tif"


def tagged(path: Path, values: np.ndarray, **tags: Any) -> Path:
    """Write `values` and set attributes of the dataset (scales, offsets, units) or its mask."""
    mask = tags.pop("mask", None)
    options = tags.pop("options", {})
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_tif(path, values, **options)
        with rasterio.open(path, "r+") as dataset:
            for name, value in tags.items():
                setattr(dataset, name, (value,))
            if mask is not None:
                dataset.write_mask(mask)
    return path


def heights(dtype: str = "int16") -> np.ndarray:
    """Return heights from 1 to 300."""
    return np.random.default_rng(1).integers(1, 301, GRID.shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_heights_are_scaled_and_offset_as_their_tags_say(tif, dtype):
    raster = read_height(tagged(tif, heights(dtype), scales=10.0, offsets=-5.0, units="metre"))
    np.testing.assert_array_equal(raster.values, heights().astype("f4") * 10 - 5)
    assert "values were scaled by 10 and offset by -5, as the tags say" in raster.notes


def test_phase_is_scaled_but_never_offset(tif):
    cycles = (phase() / (2 * np.pi)).astype("f4")
    raster = read_phase(tagged(tif, cycles, scales=2 * np.pi))
    np.testing.assert_allclose(raster.values, phase(), atol=1e-6)
    np.testing.assert_array_equal(raster.values == 0, phase() == 0)
    assert raster.notes
    with pytest.raises(CorruptRaster, match=r"add 0\.5 to values where 0 means no data"):
        read_phase(tagged(tif, cycles, scales=2.0, offsets=0.5))
    with pytest.raises(CorruptRaster, match="the meaning of byte 0 is ambiguous"):
        read_phase(tagged(tif, coherence(), scales=0.02))


def test_scaled_coherence_is_a_fraction(tif):
    percent = np.minimum(coherence(), 100)
    raster = read_coherence(tagged(tif, percent, scales=0.01))
    np.testing.assert_array_equal(raster.values, np.rint(percent * np.float32(2.55)))
    assert len(raster.notes) == 2
    same = read_coherence(tagged(tif, coherence(), scales=1 / 255))
    np.testing.assert_array_equal(same.values, coherence())
    with pytest.raises(CorruptRaster, match="not coherence"):
        read_coherence(tagged(tif, coherence(), scales=0.1))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_makes_no_sense_is_refused(tif, scale):
    with pytest.raises(CorruptRaster, match="which is invalid"):
        read_height(tagged(tif, heights(), scales=scale))


@pytest.mark.parametrize(
    ("read", "values", "unit"),
    [(read_height, heights(), "ft"), (read_phase, phase(), "degrees"), (read_coherence, coherence(), "%")],
)
def test_another_unit_is_refused_by_name(tif, read, values, unit):
    with pytest.raises(CorruptRaster, match=f"values are in '{unit}'"):
        read(tagged(tif, values, units=unit))


@pytest.mark.parametrize(("read", "unit"), [(read_phase, "rad"), (read_phase, "Radians")])
def test_the_right_unit_changes_nothing(tif, read, unit):
    raster = read(tagged(tif, phase(), units=unit))
    assert raster.values.tobytes() == phase().tobytes()
    assert raster.notes == ()


def test_the_no_data_value_is_no_data(tif):
    values = phase()
    values[5, :7] = -9999
    raster = read_phase(write_tif(tif, values, nodata=-9999))
    assert not raster.values[5, :7].any()
    assert raster.notes == ("7 pixels of the raster's no-data value -9999 set to no data",)
    stored = coherence()
    stored[5, :7] = 255
    raster = read_coherence(write_tif(tif, stored, nodata=255))
    np.testing.assert_array_equal(raster.values, np.where(stored == 255, 0, stored))
    assert raster.notes == ("7 pixels of the raster's no-data value 255 set to no data",)
    ground = heights()
    ground[5, 0] = 777
    raster = read_height(write_tif(tif, ground, nodata=777))
    assert np.isnan(raster.values[5, 0])
    assert np.count_nonzero(np.isnan(raster.values)) == 1


@pytest.mark.parametrize("nodata", [0, float("nan"), -9999, 9999, -3.4e38])
def test_a_no_data_value_that_is_nowhere_changes_nothing(tif, nodata):
    raster = read_phase(write_tif(tif, phase(), nodata=nodata))
    assert raster.values.tobytes() == phase().tobytes()
    assert raster.notes == ()


@given(st.floats(), st.sampled_from(["u1", "i2", "i4", "f4", "f8"]))
def test_any_no_data_value_can_be_compared_with_any_type(nodata, dtype):
    values = np.array([[0, 1, 100]], dtype)
    hidden = BandTags(nodata=nodata).nodata_mask(values)
    if hidden is not None:
        assert abs(values[hidden] - nodata).max() < 1e-5
    assert (hidden is not None) >= (nodata in (0, 1, 100))


@pytest.mark.parametrize(
    ("read", "values", "nothing"),
    [(read_phase, phase(), 0), (read_coherence, coherence(), 0), (read_height, heights("float32"), np.nan)],
)
def test_an_internal_mask_hides(tif, read, values, nothing):
    mask = np.full(GRID.shape, 255, np.uint8)
    mask[:20] = 0
    raster = read(tagged(tif, values, mask=mask))
    np.testing.assert_array_equal(raster.values[:20], np.full_like(raster.values[:20], nothing))
    np.testing.assert_array_equal(raster.values[20:], values[20:])
    assert f"{20 * GRID.width} pixels hidden by the raster's mask set to no data" in raster.notes


def test_overviews_are_left_out(tif):
    write_tif(tif, phase())
    with rasterio.open(tif, "r+") as dataset:
        dataset.build_overviews([2, 4])
    assert read_phase(tif).values.tobytes() == phase().tobytes()


def beyond(read: Any) -> tuple[np.ndarray, float, float]:
    """Return good values of a product, and its limits."""
    if read is read_phase:
        return phase(), -float(np.float32(np.pi)), float(np.float32(np.pi))
    return (coherence() / np.float32(255)).astype("f4"), 0.0, 1.0


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (read_phase, 3.1416),
        (read_phase, -3.1416),
        (read_phase, 3.142),
        (read_coherence, 1.0000001),
        (read_coherence, -1e-7),
    ],
)
def test_what_rounding_put_beyond_the_limits_is_clipped_and_noted(tif, read, value):
    values, low, high = beyond(read)
    clean = read(write_tif(tif, values))
    values[40, 40] = value
    raster = read(write_tif(tif, values))
    expected = clean.values.copy()
    limit = np.clip(np.float32(value), low, high)
    expected[40, 40] = limit if read is read_phase else np.rint(limit * 255)
    np.testing.assert_array_equal(raster.values, expected)
    assert any("1 pixel clipped to" in note and f"{np.float32(value):.9g}" in note for note in raster.notes)


@pytest.mark.parametrize(
    ("read", "value"),
    [(read_phase, 3.15), (read_phase, -3.2), (read_coherence, 1.01), (read_coherence, -0.1)],
)
def test_larger_excursions_are_refused_with_their_numbers(tif, read, value):
    values = beyond(read)[0]
    values[40, 40] = value
    with pytest.raises(CorruptRaster, match=f"{value:g}.* not "):
        read(write_tif(tif, values))


def test_pi_as_a_float_is_no_excursion(tif):
    values = phase()
    values[40, :2] = np.float32(np.pi), -np.float32(np.pi)
    raster = read_phase(write_tif(tif, values))
    assert raster.values.tobytes() == values.tobytes()
    assert raster.notes == ()


def test_the_least_coherence_is_no_hole(tif):
    stored = np.full(GRID.shape, 0.5, np.float32)
    stored[0, :4] = 0, 1e-6, 1 / 511, np.nan
    raster = read_coherence(write_tif(tif, stored))
    assert raster.values[0, :5].tolist() == [0, 1, 1, 0, 128]
    assert "1 pixel without a finite value set to no data" in raster.notes


def changed(path: Path, tag: int, kind: int, count: int, value: int) -> Path:
    """Set one tag of a classic little-endian TIFF, or put it in the place of RowsPerStrip's neighbour."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    number = struct.unpack_from("<H", data, start)[0]
    entries = {
        struct.unpack_from("<H", data, start + 2 + 12 * index)[0]: bytes(data[start + 2 + 12 * index :][:12])
        for index in range(number)
    }
    entries[tag] = struct.pack("<HHII", tag, kind, count, value)
    end = len(data) + len(data) % 2
    table = b"".join(entry for _, entry in sorted(entries.items()))
    data = data.ljust(end, b"\0") + struct.pack("<H", len(entries)) + table + bytes(4)
    struct.pack_into("<I", data, 4, end)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        (TiffTag.PHOTOMETRIC, 0, "inverted grey"),
        (TiffTag.PHOTOMETRIC, 3, "table of colours"),
        (TiffTag.ORIENTATION, 4, "ORIENTATION is 4"),
        (TiffTag.FILL_ORDER, 2, "FILL_ORDER is 2"),
        (TiffTag.EXTRA_SAMPLES, 2, "alpha"),
        (TiffTag.COMPRESSION, 7, "codec is JPEG"),
        (TiffTag.COMPRESSION, 34887, "codec is LERC"),
        (TiffTag.COMPRESSION, 50002, "codec is JPEG XL"),
        (TiffTag.COMPRESSION, 999, "codec is 999"),
        (TiffTag.PREDICTOR, 7, "predictor 7"),
        (TiffTag.SUBFILE, 1, "overview"),
        (TiffTag.SUBFILE, 4, "mask"),
        (TiffTag.SAMPLES, 4, "4 bands"),
        (TiffTag.WIDTH, 0, "it is empty"),
        (TiffTag.STRIP_ROWS, 0, "no rows"),
        (TiffTag.STRIP_ROWS, 7, "does not have 7 values"),
    ],
)
def test_what_no_raster_of_licsar_has_is_refused_by_name(tif, tag, value, reason):
    with pytest.raises(CorruptRaster, match=reason):
        read_phase(changed(write_tif(tif, phase()), tag, 3, 1, value))


def test_a_tag_of_a_strange_type_is_refused(tif):
    with pytest.raises(CorruptRaster, match="PREDICTOR is not an integer"):
        read_phase(changed(write_tif(tif, phase()), TiffTag.PREDICTOR, 8, 1, 3))
    with pytest.raises(CorruptRaster, match="PREDICTOR has 1000000 values"):
        read_phase(changed(write_tif(tif, phase()), TiffTag.PREDICTOR, 3, 1_000_000, 8))


def test_a_second_image_is_refused(tif):
    write_tif(tif, phase())
    data = bytearray(tif.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    number = struct.unpack_from("<H", data, start)[0]
    copy = data[start : start + 2 + 12 * number] + bytes(4)
    data += bytes(len(data) % 2)
    struct.pack_into("<I", data, start + 2 + 12 * number, len(data))
    tif.write_bytes(data + copy)
    with pytest.raises(CorruptRaster, match="2 images"):
        read_phase(tif)
    struct.pack_into("<I", data, start + 2 + 12 * number, start)
    tif.write_bytes(data)
    with pytest.raises(CorruptRaster, match="does not end"):
        read_phase(tif)


def test_a_document_of_definitions_is_refused(tif):
    """Eight lines of XML can expand to gigabytes."""
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 9}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">{entities}]><x>&i;</x>'.encode() + b"\0"
    write_tif(tif, phase())
    at = tif.stat().st_size
    with tif.open("ab") as stream:
        stream.write(bomb)
    with pytest.raises(CorruptRaster, match="definitions"):
        read_phase(changed(tif, TiffTag.GDAL_METADATA, 2, len(bomb), at))


def test_blocks_that_are_not_stored_are_no_data_and_no_height(tif):
    values = phase()
    values[:] = 0
    values[32:48, 16:32] = 1.5
    sparse = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True}
    raster = read_phase(write_tif(tif, values, **sparse))
    assert raster.values.tobytes() == values.tobytes()
    assert raster.notes == ("11 of 12 blocks are not stored: no data there",)
    with pytest.raises(CorruptRaster, match="11 of its 12 blocks are not stored"):
        read_height(write_tif(tif, values, **sparse))


def bomb(path: Path, width: int, height: int, dtype: str, rows: int) -> Path:
    """Write a raster of zeros of which every strip takes next to nothing."""
    strip = zlib.compress(bytes(width * rows * np.dtype(dtype).itemsize), 1)
    count = -(-height // rows)
    kind = {"f": 3, "i": 2, "u": 1}[np.dtype(dtype).kind]
    strips = 8 + np.arange(count) * len(strip)
    end = 8 + count * len(strip)
    arrays = strips.astype("<u4").tobytes() + np.full(count, len(strip), "<u4").tobytes()
    bits = np.dtype(dtype).itemsize * 8
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, count, end), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, count, end + 4 * count),
        (339, 3, 1, kind),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, end + 8 * count)
        + strip * count
        + arrays
        + struct.pack("<H", len(entries))
        + table
        + bytes(4)
    )
    return path


@pytest.mark.parametrize(
    ("width", "height", "dtype", "rows"),
    [(20_000, 10_000, "float64", 100), (15_000, 15_000, "int16", 500), (19_999, 3_500, "float32", 3_500)],
)
def test_a_small_file_with_a_giant_inside_is_refused_by_its_header(tif, width, height, dtype, rows):
    with pytest.raises(CorruptRaster, match=r"no LiCSAR frame is that large|too many for"):
        read_height(bomb(tif, width, height, dtype, rows))


def test_strips_that_share_their_bytes_are_refused(tif):
    """Each strip would be read to the end of the file, which takes hours even for a small file."""
    write_tif(tif, phase(), compress="none", predictor=1)
    data = bytearray(tif.read_bytes())
    directory = read_tiff_directories(bytes(data))[0]
    kind, count, at = directory.entries[TiffTag.STRIP_COUNTS]
    width = {3: 2, 4: 4}[kind]
    data[at : at + width * count] = (len(data) // 2).to_bytes(width, "little") * count
    offsets = directory.entries[TiffTag.STRIP_OFFSETS][2]
    data[offsets : offsets + 4 * count] = (8).to_bytes(4, "little") * count
    tif.write_bytes(data)
    with pytest.raises(CorruptRaster, match="overlap"):
        read_phase(tif)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compress": "none", "predictor": 1},
        {"compress": "lzw", "predictor": 2, "ENDIANNESS": "BIG"},
        {"compress": "zstd", "predictor": 3},
        {"compress": "packbits", "predictor": 1},
        {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
        {"tiled": True, "blockxsize": 32, "blockysize": 16, "BIGTIFF": "YES"},
    ],
    ids=str,
)
def test_a_bare_file_has_the_pixels_and_nothing_else(tif, options):
    write_tif(tif, phase(), nodata=1, **options)
    directory = read_tiff_directories(tif.read_bytes())[0]
    made = rebuild_minimal_tiff(directory, read_band_layout(directory, ("float32",)))
    with MemoryFile(made) as memory, memory.open() as dataset:
        assert dataset.read(1).tobytes() == phase().tobytes()
        assert (dataset.crs, dataset.nodata) == (None, None)
    assert TiffTag.GDAL_NODATA not in read_tiff_directories(made)[0].entries


@pytest.mark.parametrize("point", ["Area", "Point"])
@pytest.mark.parametrize(
    "transform",
    [
        GRID.transform,
        Affine(0.000277778, 0, 55.123456789, 0, -0.000277778, -21.0987654321),
        Affine(0.001, 0, 14, 0, 0.001, 40),
        Affine(0.001, 0.0001, 14, 0.0002, -0.001, 40),
    ],
    ids=["licsar", "stripmap", "south-up", "rotated"],
)
def test_the_transform_is_exactly_what_gdal_finds(tif, point, transform):
    write_tif(tif, phase(), transform=transform)
    with rasterio.open(tif, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT=point)
    directory = read_tiff_directories(tif.read_bytes())[0]
    with rasterio.open(tif) as dataset:
        assert read_geotransform(directory, read_geokeys(directory)) == dataset.transform


ESRI = (
    'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,298.257223563]],'
    'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]]'
)


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84", ESRI, "+proj=longlat +datum=WGS84"])
def test_wgs_84_is_known_however_it_is_spelt(tif, crs):
    assert read_phase(write_tif(tif, phase(), crs=crs)).grid.same_as(GRID, 1e-6)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:4258",  # ETRS89
        "EPSG:4269",  # NAD83
        "EPSG:4230",  # ED50
        "EPSG:4807",  # NTF (Paris)
        "EPSG:3857",
        "+proj=longlat +ellps=clrk66",
        "+proj=longlat +datum=WGS84 +pm=paris",
        "+proj=longlat +ellps=WGS84 +towgs84=100,0,0",
    ],
)
def test_another_coordinate_system_is_refused(tif, crs):
    with pytest.raises(CorruptRaster, match="EPSG:4326"):
        read_phase(write_tif(tif, phase(), crs=crs))


def test_heights_above_another_surface_in_feet_are_refused(tif):
    write_tif(tif, heights("float32"), crs="EPSG:4326+5773")
    assert read_height(tif).values.max() == 300
    with pytest.raises(CorruptRaster, match="EPSG:8228"):
        read_height(write_tif(tif, heights("float32"), crs="EPSG:4326+8228"))


def test_a_large_frame_is_read(tif):
    """The raster has as many columns as the largest frame of the archive."""
    grid = Grid(7_000, 40, 10, 40, 0.001, 0.001)
    values = phase(grid)
    assert read_phase(write_tif(tif, values, grid)).values.tobytes() == values.tobytes()
