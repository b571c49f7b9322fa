"""Fuzz tests of rasters and previews: read or refused, within limits of memory and time."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzzing import Reader, fuzz, mutations
from hephaestus_build.sources.licsar import geotiff
from hephaestus_build.sources.licsar.geotiff import CorruptRaster, read_phase
from hephaestus_build.sources.licsar.preview_file import read_preview
from hephaestus_build.sources.licsar.tiff_directory import (
    read_band_layout,
    read_tiff_directories,
    rebuild_minimal_tiff,
)
from licsar_files import coherence, phase, write_tif

# Largest number of bytes for reading one raster: the file, its pixels and a copy of both.
MEMORY = 1 << 30


@pytest.fixture
def samples(tmp_path: Path) -> list[bytes]:
    """Return GeoTIFFs in every supported layout."""
    made = []
    for number, options in enumerate(
        (
            {},
            {"compress": "lzw", "predictor": 2, "nodata": 0},
            {"compress": "none", "predictor": 1, "ENDIANNESS": "BIG"},
            {"compress": "zstd", "BIGTIFF": "YES"},
            {"compress": "packbits", "predictor": 1},
            {"tiled": True, "blockxsize": 16, "blockysize": 32},
        )
    ):
        path = write_tif(tmp_path / f"{number}.tif", phase(), **options)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
            dataset.update_tags(AREA_OR_POINT="Point", NOTE="a" * 40)
            dataset.scales, dataset.offsets, dataset.units = (0.5,), (0.0,), ("rad",)
            if number % 2:
                dataset.write_mask(np.full(phase().shape, 255, np.uint8))
                dataset.build_overviews([2])
        made.append(path.read_bytes())
    return made


@pytest.mark.parametrize("product", ["phase", "coherence", "height"])
def test_a_mutated_raster_is_read_or_refused(product, samples, tmp_path):
    if product == "coherence":
        samples = [write_tif(tmp_path / "c.tif", coherence(), predictor=2).read_bytes(), *samples]
    reader = Reader(
        f"hephaestus_build.sources.licsar.geotiff:read_{product}",
        errors=["hephaestus_build.sources.licsar.geotiff:CorruptRaster"],
        memory=MEMORY,
        seconds=60,
    )
    with reader:
        counts = fuzz(reader, samples, tmp_path, suffix=".tif", least=len(samples) * 5)
    assert counts["refused"]


def test_a_mutated_real_raster_is_read_or_refused(shared_data, tmp_path):
    folder = shared_data / "licsar" / "106A_09048_000909" / "interferograms" / "20240106_20240118"
    samples = [(folder / "20240106_20240118.geo.diff_pha.tif").read_bytes()]
    reader = Reader(
        "hephaestus_build.sources.licsar.geotiff:read_phase",
        errors=["hephaestus_build.sources.licsar.geotiff:CorruptRaster"],
        memory=MEMORY,
        seconds=60,
    )
    with reader:
        assert fuzz(reader, samples, tmp_path, suffix=".tif", least=5)


@settings(max_examples=150)
@given(st.data())
def test_directories_of_anything_are_read_or_refused(data):
    good = SMALL or SMALL.append(small()) or SMALL
    content = data.draw(
        st.one_of(mutations(good[0]), st.binary(max_size=200).map(lambda tail: b"II*\0" + tail))
    )
    try:
        for directory in read_tiff_directories(content):
            layout = read_band_layout(directory, ("float32", "uint8"))
            assert len(rebuild_minimal_tiff(directory, layout)) <= 2 * len(content) + 1000
    except ValueError:
        pass


SMALL: list[bytes] = []


def small() -> bytes:
    """Return a raster of few bytes, so that most mutations hit a tag."""
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=16, height=4, count=1, dtype="float32", crs="EPSG:4326",
            transform=rasterio.Affine(0.001, 0, 14, 0, -0.001, 40), compress="deflate",
        ) as dataset:  # fmt: skip
            dataset.write(np.ones((1, 4, 16), np.float32))
        return bytes(memory.read())


def bomb(folder: Path, codec: int, side: int) -> Path:
    """Write a float64 raster that decompresses to ones, as large as the limits allow."""
    strip = np.ones((64, side)).tobytes()
    packed = zlib.compress(strip, 9)
    count = side // 64
    end = 8 + count * len(packed)
    arrays = (8 + np.arange(count) * len(packed)).astype("<u4").tobytes()
    arrays += np.full(count, len(packed), "<u4").tobytes()
    doubles = struct.pack("<9d", 0.001, 0.001, 0, 0, 0, 0, 10, 40, 0)
    keys = struct.pack("<12H", 1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326)
    at = end + len(arrays)
    entries = [
        (256, 4, 1, side), (257, 4, 1, count * 64), (258, 3, 1, 64), (259, 3, 1, codec), (262, 3, 1, 1),
        (273, 4, count, end), (277, 3, 1, 1), (278, 4, 1, 64), (279, 4, count, end + 4 * count),
        (339, 3, 1, 3), (33550, 12, 3, at), (33922, 12, 6, at + 24), (34735, 3, 12, at + 72),
    ]  # fmt: skip
    path = folder / "bomb.tif"
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, at + 96)
        + packed * count
        + arrays
        + doubles
        + keys
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + bytes(4)
    )
    return path


def test_the_largest_raster_that_is_let_in_stays_within_its_memory(tmp_path):
    """The file has half a megabyte and decodes to 64 million doubles."""
    path = bomb(tmp_path, 8, 8192)
    assert path.stat().st_size < 1 << 20
    reader = Reader(
        "hephaestus_build.sources.licsar.geotiff:read_height", memory=int(1.3 * MEMORY), seconds=120
    )
    with reader:
        assert reader(path) == "read"
        assert "no LiCSAR frame" in reader(bomb(tmp_path, 8, 8256))


@pytest.mark.parametrize(("limit", "together"), [(0, False), (1 << 30, True)])
def test_only_rasters_that_are_large_are_unpacked_one_at_a_time(tmp_path, monkeypatch, limit, together):
    path = tmp_path / "small.tif"
    path.write_bytes(small())
    decode, both, met = geotiff._decode_pixels, threading.Barrier(2), []

    def wait_for_the_other(*band):
        with suppress(threading.BrokenBarrierError):
            met.append(both.wait(30 if together else 0.3))
        return decode(*band)

    monkeypatch.setattr(geotiff, "_decode_pixels", wait_for_the_other)
    monkeypatch.setattr(geotiff, "_LARGE_BYTES", limit)
    with ThreadPoolExecutor(2) as pool:
        assert [len(raster.values) for raster in pool.map(geotiff.read_height, [path] * 2)] == [4, 4]
    assert bool(met) is together


def png(width: int = 19, height: int = 14) -> bytes:
    stream = io.BytesIO()
    Image.new("P", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_a_mutated_preview_is_read_or_refused(tmp_path):
    with Reader(
        "hephaestus_build.sources.licsar.preview_file:read_preview", memory=64 << 20, seconds=20
    ) as reader:
        counts = fuzz(reader, [png(), png(552, 574)], tmp_path, suffix=".png", seconds=0.5)
    assert counts["read"]
    assert counts["refused"]


def test_a_preview_is_never_unpacked(tmp_path):
    """A picture of 400 million pixels, and one with gigabytes of text, need almost no time or memory."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    text = b"note\0\0" + zlib.compress(bytes(50_000_000), 9)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"zTXt", text) + chunk(b"IEND", b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(picture)
    with Reader(
        "hephaestus_build.sources.licsar.preview_file:read_preview", memory=32 << 20, seconds=20
    ) as reader:
        assert reader(path) == "read"
    assert (read_preview(path).width, read_preview(path).mode) == (20_000, "RGB")


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"\x88", "not a PNG"),
        (8, b"\x7f", "not a PNG"),
        (16, b"\x7f", "header is invalid"),
        (16, bytes(4), "header is invalid"),
        (24, b"\x07", "header is invalid"),
        (25, b"\x05", "header is invalid"),
        (19, b"\x14", "damaged"),
        (-8, b"IDAT", "cut"),
    ],
)
def test_a_damaged_preview_is_refused(tmp_path, at, value, reason):
    data = bytearray(png())
    data[at : (at + len(value)) or None] = value
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_preview(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0" + bytes(12), b"\x89PNG" + bytes(7)])
def test_next_to_nothing_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="not a PNG"):
        read_preview(tmp_path / "a")
    with pytest.raises(CorruptRaster, match=r"not a TIFF|cut"):
        read_phase(tmp_path / "a")
