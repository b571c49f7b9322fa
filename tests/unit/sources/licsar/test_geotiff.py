"""Tests of reading LiCSAR rasters: bit for bit if valid, else with one clear reason."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from hephaestus_build.sources.licsar.geotiff import (
    CorruptRaster,
    read_coherence,
    read_delay,
    read_height,
    read_look_component,
    read_phase,
    read_unwrapped,
)
from licsar_files import GRID, coherence, phase, write_tif


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return tmp_path / "20240106_20240118.geo.diff_pha.tif"


def test_phase_is_read_bit_for_bit(tif):
    values = phase()
    raster = read_phase(write_tif(tif, values))
    assert raster.values.tobytes() == values.tobytes()
    assert raster.grid.same_as(GRID, 1e-6)
    assert raster.notes == ()


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "none", "predictor": 1},
        {"compress": "lzw", "predictor": 1},
        {"nodata": 0},
        {"nodata": -9999},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
    ],
    ids=str,
)
def test_neither_tags_nor_layout_change_the_values(tif, options):
    values = phase()
    assert read_phase(write_tif(tif, values, **options)).values.tobytes() == values.tobytes()


def test_a_point_raster_lies_where_the_area_raster_does(tif):
    write_tif(tif, phase())
    with rasterio.open(tif, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    assert read_phase(tif).grid.same_as(GRID, 1e-6)


def test_a_south_up_raster_is_turned(tif):
    values = phase()
    south_up = Affine(GRID.dx, 0, GRID.west, 0, GRID.dy, GRID.bounds[1])
    raster = read_phase(write_tif(tif, values[::-1], transform=south_up))
    np.testing.assert_array_equal(raster.values, values)
    assert raster.grid.same_as(GRID, 1e-6)
    assert raster.notes == ("the raster was south-up and was flipped",)


def test_nan_becomes_no_data_and_is_said(tif):
    values = phase()
    values[-1, :3] = np.nan, np.inf, -np.inf
    raster = read_phase(write_tif(tif, values))
    assert raster.values[-1, :3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(raster.values[:-1], values[:-1])
    assert raster.notes == ("3 pixels without a finite value set to no data",)


def test_phase_in_bytes_is_rescaled_and_said(tif):
    stored = np.arange(GRID.height * GRID.width, dtype=np.uint64).astype(np.uint8).reshape(GRID.shape)
    raster = read_phase(write_tif(tif, stored))
    assert raster.values.dtype == np.float32
    assert (raster.values[stored == 0] == 0).all()
    assert raster.values[stored == 1][0] == np.float32(-np.pi)
    assert raster.values[stored == 255][0] == np.float32(np.pi)
    assert abs(raster.values[stored == 128][0]) < 1e-6
    assert raster.notes


def test_coherence_is_read_as_bytes(tif):
    values = coherence()
    raster = read_coherence(write_tif(tif, values))
    assert raster.values.dtype == np.uint8
    np.testing.assert_array_equal(raster.values, values)


def test_coherence_of_the_old_kind_becomes_bytes(tif):
    stored = np.linspace(0, 1, GRID.width * GRID.height, dtype=np.float32).reshape(GRID.shape)
    raster = read_coherence(write_tif(tif, stored))
    assert (raster.values[0, 0], raster.values[-1, -1]) == (0, 255)
    rounded = np.maximum(np.rint(stored * 255), stored > 0)  # 0 is no data: nothing above it becomes 0
    np.testing.assert_array_equal(raster.values, rounded)
    assert raster.notes


def test_heights_keep_the_sea_and_lose_the_holes(tif):
    values = np.linspace(-5, 1700, GRID.width * GRID.height, dtype=np.float32).reshape(GRID.shape)
    values[0, :4] = 0, -32768, -9999, np.nan
    raster = read_height(write_tif(tif, values, nodata=0))
    assert raster.notes[0] == "1 pixel of 0 kept as heights, although the raster's no-data value is 0"
    assert raster.values[0, 0] == 0
    assert np.isnan(raster.values[0, 1:4]).all()
    np.testing.assert_array_equal(raster.values[1:], values[1:])
    assert read_height(write_tif(tif, np.nan_to_num(values).astype(np.int16))).values.dtype == np.float32


def shorten(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def overwrite_tag(path: Path, wanted: int, kind: int, count: int, value: int | None = None) -> None:
    """Change type, count and value of one tag of a little-endian TIFF."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    for index in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * index
        tag, *_, before = struct.unpack_from("<HHII", data, at)
        if tag == wanted:
            struct.pack_into("<HII", data, at + 2, kind, count, before if value is None else value)
    path.write_bytes(data)


def overwrite_dimensions(path: Path, width: int, height: int) -> None:
    """Make the header state another size."""
    overwrite_tag(path, 256, 4, 1, width)
    overwrite_tag(path, 257, 4, 1, height)


def bad_files(path: Path) -> dict[str, str]:
    """Write every kind of bad file next to `path`; return the expected reasons."""
    values, folder = phase(), path.parent
    reasons = {
        "zero.tif": "not a TIFF",
        "page.tif": "not a TIFF",
        "noise.tif": "not a TIFF",
        "header.tif": "not a TIFF|cut",
        "cut.tif": "cannot be read whole|cut",
        "plain_cut.tif": "cannot be read whole|cut",
        "bits.tif": "cannot be read whole",
        "zeros.tif": "holds no data",
        "utm.tif": "EPSG:32615",
        "no_crs.tif": "missing|EPSG",
        "nowhere.tif": "no georeference",
        "far.tif": "not on Earth",
        "rotated.tif": "rotated",
        "int.tif": "type int32",
        "complex.tif": "type complex64",
        "bands.tif": "2 bands",
        "unwrapped.tif": "not wrapped phase",
        "wide.tif": "no LiCSAR frame",
        "tall.tif": "no LiCSAR frame",
        "hollow.tif": "too many for",
        "points.tif": "no georeference",
        "scale.tif": "no georeference",
    }
    (folder / "zero.tif").write_bytes(b"")
    (folder / "page.tif").write_bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>")
    (folder / "noise.tif").write_bytes(bytes(range(256)) * 20)
    for name in ("header.tif", "cut.tif", "wide.tif", "tall.tif", "hollow.tif", "bits.tif"):
        write_tif(folder / name, values)
    (folder / "header.tif").write_bytes((folder / "header.tif").read_bytes()[:10])
    shorten(folder / "cut.tif", 0.6)
    overwrite_dimensions(folder / "wide.tif", 2_000_000_000, 48)
    overwrite_dimensions(folder / "tall.tif", 64, 2_000_000_000)
    overwrite_dimensions(folder / "hollow.tif", 19_000, 10_000)
    overwrite_tag(write_tif(folder / "points.tif", values), 33922, 12, 60_000)
    overwrite_tag(write_tif(folder / "scale.tif", values), 33550, 4, 3)
    data = bytearray((folder / "bits.tif").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (folder / "bits.tif").write_bytes(data)
    write_tif(folder / "plain_cut.tif", values, compress="none", predictor=1)
    shorten(folder / "plain_cut.tif", 0.6)
    write_tif(folder / "zeros.tif", np.zeros_like(values))
    write_tif(folder / "utm.tif", values, crs="EPSG:32615", transform=Affine(100, 0, 5e5, 0, -100, 5e4))
    write_tif(folder / "no_crs.tif", values, crs=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write_tif(folder / "nowhere.tif", values, transform=None)
    write_tif(folder / "far.tif", values, transform=Affine(1, 0, 5e5, 0, -1, 5e4))
    write_tif(
        folder / "rotated.tif", values, transform=Affine(GRID.dx, 1e-4, GRID.west, 1e-4, -GRID.dy, GRID.north)
    )
    write_tif(folder / "int.tif", values.astype(np.int32))
    write_tif(folder / "complex.tif", values.astype(np.complex64), predictor=1)
    write_tif(folder / "bands.tif", np.stack((values, values)))
    write_tif(folder / "unwrapped.tif", values * 3)
    return reasons


def test_each_bad_file_is_refused_with_its_reason(tif, caplog, capfd):
    reasons = bad_files(tif)
    caplog.set_level(logging.WARNING)
    for name, reason in reasons.items():
        with pytest.raises(CorruptRaster, match=reason):
            read_phase(tif.parent / name)
    assert capfd.readouterr().err == ""


def test_a_missing_file_and_wrong_coherence_are_refused(tif):
    with pytest.raises(CorruptRaster, match="cannot be read"):
        read_phase(tif)
    with pytest.raises(CorruptRaster, match="not coherence"):
        read_coherence(write_tif(tif, phase()))
    with pytest.raises(CorruptRaster, match="no data"):
        read_coherence(write_tif(tif, np.zeros(GRID.shape, np.uint8)))
    with pytest.raises(CorruptRaster, match="no data"):
        read_height(write_tif(tif, np.zeros(GRID.shape, np.float32)))


def test_reading_bad_files_prints_nothing(tif):
    """No warning or log line reaches a plain program's standard error."""
    names = list(bad_files(tif))
    program = (
        "import sys, pathlib\n"
        "from hephaestus_build.sources.licsar.geotiff import CorruptRaster, read_phase\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_phase(pathlib.Path(name))\n"
        "    except CorruptRaster as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=tif.parent, capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == len(names)


def test_the_real_frame_is_read_bit_for_bit(shared_data):
    folder = shared_data / "licsar" / "106A_09048_000909" / "interferograms" / "20240106_20240118"
    for name, read in (("diff_pha", read_phase), ("cc", read_coherence)):
        path = folder / f"20240106_20240118.geo.{name}.tif"
        with rasterio.open(path) as dataset:
            expected = dataset.read(1)
        raster = read(path)
        assert raster.values.tobytes() == expected.tobytes()
        assert raster.grid.shape == (1913, 1840)
        assert (raster.grid.west, raster.grid.north) == pytest.approx((-92.4255, 0.4871667))
        assert raster.notes == ()


def test_unwrapped_phase_is_read_bit_for_bit_beyond_pi(tif):
    values = phase() * 20
    raster = read_unwrapped(write_tif(tif, values))
    assert raster.values.tobytes() == values.tobytes()
    for wrong, why in ((np.zeros_like(values), "holds no data"), (values * 1e5, "not unwrapped phase")):
        with pytest.raises(CorruptRaster, match=why):
            read_unwrapped(write_tif(tif, wrong))


def test_no_data_of_look_vectors_and_delays_becomes_nan(tif):
    values = np.full(GRID.shape, 0.6, np.float32)
    values[0, :2] = 0, np.nan
    for read, factor in ((read_look_component, 1), (read_delay, 1000)):
        for options in ({}, {"nodata": float("nan")}, {"nodata": 0}):
            raster = read(write_tif(tif, values * np.float32(factor), **options))
            assert np.isnan(raster.values).sum() == 2
            np.testing.assert_array_equal(raster.values[1:], values[1:] * np.float32(factor))


def test_what_is_no_look_vector_and_no_delay_is_corrupt(tif):
    values = np.full(GRID.shape, 1.2, np.float32)
    with pytest.raises(CorruptRaster, match="not components of a unit vector"):
        read_look_component(write_tif(tif, values))
    with pytest.raises(CorruptRaster, match="not delays"):
        read_delay(write_tif(tif, values * 1e6))
    with pytest.raises(CorruptRaster, match="0 or NaN"):
        read_delay(write_tif(tif, np.full(GRID.shape, np.nan, np.float32)))
