"""Tests of the simulated product files: LiCSAR's formats, the simulated mark, and irregularities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.frame_catalog import (
    CROP_PIXELS,
    FAULTY_ODDITIES,
    HIGH_LATITUDE_FRAME,
    ODDITIES,
    ORDINARY_FRAME,
    SHIFT_PIXELS,
    STRIPMAP_FRAME,
)
from hephaestus_build.simulation.world.frame_files import FrameFiles
from hephaestus_build.simulation.world.world import World
from small_world import small_world

PREDICTOR, STRIP_ROWS, COMPRESSION = 317, 278, 259


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


@pytest.fixture(scope="module")
def files(world: World) -> FrameFiles:
    return world.frame_files(ORDINARY_FRAME)


def _facts(path: Path) -> tuple[dict[int, Any], dict[str, Any], dict[str, str], np.ndarray]:
    """The TIFF's own tags (as a reader other than GDAL sees them), GDAL's profile and tags, and the band."""
    with Image.open(path) as picture:
        tags = dict(picture.tag_v2)  # type: ignore[attr-defined]
    with rasterio.open(path) as raster:
        return tags, dict(raster.profile), raster.tags(), raster.read(1)


def _written(files: FrameFiles, pair: Pair, folder: Path) -> Path:
    files.write_pair(pair, folder)
    return folder


def test_a_pair_has_the_real_files_and_their_layout(world: World, files: FrameFiles, tmp_path: Path) -> None:
    pair = files.scene.pairs[-1]
    _written(files, pair, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{pair}.geo.{suffix}" for suffix in ("diff_pha.tif", "cc.tif", "unw.tif", "diff.png", "cc.png")
    }
    tags, profile, named, values = _facts(tmp_path / f"{pair}.geo.diff_pha.tif")
    assert (tags[PREDICTOR], tags[STRIP_ROWS], tags[COMPRESSION]) == (3, 1, 8)
    assert (profile["dtype"], profile["nodata"], profile["tiled"]) == ("float32", None, False)
    assert profile["crs"].to_epsg() == 4326
    assert named["AREA_OR_POINT"] == "Area"
    assert named["HEPHAESTUS_SIMULATED"] == "true"
    assert np.array_equal(values, world.phase(ORDINARY_FRAME, pair))
    assert Grid.from_transform(profile["transform"], values.shape).same_as(files.scene.grid, 1e-6)
    with (tmp_path / f"{pair}.geo.diff_pha.tif").open("rb") as stream:
        assert stream.read(4) == b"II*\0"
    tags, profile, named, values = _facts(tmp_path / f"{pair}.geo.cc.tif")
    assert (tags[PREDICTOR], tags[COMPRESSION], profile["dtype"], profile["nodata"]) == (2, 8, "uint8", None)
    assert np.array_equal(values, world.coherence(ORDINARY_FRAME, pair))
    assert values.max() <= 248


def test_the_same_product_is_the_same_bytes(files: FrameFiles, tmp_path: Path) -> None:
    pair = files.scene.pairs[0]
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    _written(files, pair, folders[0])
    _written(World().frame_files(ORDINARY_FRAME), pair, folders[1])
    for path in folders[0].iterdir():
        other = folders[1] / path.name
        assert path.read_bytes() == other.read_bytes()
        assert path.stat().st_mtime == other.stat().st_mtime


def test_older_rasters_are_points_with_nodata_at_the_same_place(files: FrameFiles, tmp_path: Path) -> None:
    pair = files.scene.pairs[0]
    _written(files, pair, tmp_path)
    tags, profile, named, _ = _facts(tmp_path / f"{pair}.geo.diff_pha.tif")
    assert named["AREA_OR_POINT"] == "Point"
    assert profile["nodata"] == 0
    assert profile["transform"].almost_equals(files.scene.grid.transform, 1e-12)
    tie = tags[33922]  # a reader that ignores PixelIsPoint is off by half a pixel here
    assert tie[3] == pytest.approx(files.scene.grid.west + 0.0005)
    assert tie[4] == pytest.approx(files.scene.grid.north - 0.0005)


def test_metadata_is_whole_and_varies(world: World, files: FrameFiles, tmp_path: Path) -> None:
    files.write_metadata(tmp_path)
    _, profile, named, values = _facts(tmp_path / f"{ORDINARY_FRAME}.geo.hgt.tif")
    assert (profile["dtype"], profile["nodata"], named["AREA_OR_POINT"]) == ("float32", 0, "Point")
    assert np.array_equal(values, world.height(ORDINARY_FRAME))
    sight = np.stack([_facts(tmp_path / f"{ORDINARY_FRAME}.geo.{axis}.tif")[3] for axis in "ENU"])
    length = np.linalg.norm(sight, axis=0)
    assert set(np.round(length[length > 0], 5)) == {1.0}
    _, profile, _, land = _facts(tmp_path / f"{ORDINARY_FRAME}.geo.landmask.tif")
    assert profile["tiled"]
    assert np.array_equal(np.isnan(land), world.height(ORDINARY_FRAME) == 0)
    fields = dict(line.split("=") for line in (tmp_path / "metadata.txt").read_text().splitlines())
    assert fields["center_time"] == "18:41:07.318204"
    assert fields["simulated"] == "true"
    assert fields["master"] == f"{files.scene.epochs[0]:%Y%m%d}"
    *lines, mark = (tmp_path / "baselines").read_text().splitlines()
    assert mark == "# simulated"
    rows = [line.split() for line in lines]
    assert [row[1] for row in rows] == [f"{day:%Y%m%d}" for day in files.scene.epochs]
    assert rows[0][2:] == ["0.0000", "0"]
    corners = np.loadtxt(tmp_path / f"{ORDINARY_FRAME}-poly.txt")
    west, south, east, north = files.scene.grid.bounds
    assert ((corners > (west, south)) & (corners < (east, north))).all()

    texts = {}
    for name in (HIGH_LATITUDE_FRAME, STRIPMAP_FRAME):
        (tmp_path / name).mkdir()
        other = world.frame_files(name)
        other.write_metadata(tmp_path / name, ["metadata.txt"])
        texts[name] = (tmp_path / name / "metadata.txt").read_text()
    assert "center_time=23:42:11.250000\n" in texts[HIGH_LATITUDE_FRAME]
    assert "center_time=14:52:23\n" in texts[STRIPMAP_FRAME]
    assert "heading" not in texts[STRIPMAP_FRAME]
    assert "baselines" not in world.frame_files(STRIPMAP_FRAME).metadata_files()


def test_previews_of_both_eras(world: World, tmp_path: Path) -> None:
    kinds = {}
    for name in world.frames:
        files = world.frame_files(name)
        for pair in (files.scene.pairs[0], files.scene.pairs[-1]):
            files.write_pair(pair, tmp_path, names=[f"{pair}.geo.diff.png"])
            with Image.open(tmp_path / f"{pair}.geo.diff.png") as picture:
                grid = files.scene.grid
                assert picture.size == (round(0.3 * grid.width), round(0.3 * grid.height))
                assert picture.info["HEPHAESTUS_SIMULATED"] == "true"
                kinds[name, pair == files.scene.pairs[0]] = picture.mode
                alpha = np.asarray(picture.convert("RGBA"))[..., 3]
                shown = (alpha > 0).mean()
                assert shown == pytest.approx(files.scene.valid_mask.mean(), abs=0.02)
    assert kinds == {
        (ORDINARY_FRAME, True): "RGBA", (ORDINARY_FRAME, False): "RGBA",
        (HIGH_LATITUDE_FRAME, True): "P", (HIGH_LATITUDE_FRAME, False): "P",
        (STRIPMAP_FRAME, True): "RGBA", (STRIPMAP_FRAME, False): "P",
    }  # fmt: skip


def test_a_mercator_preview_shows_a_row_where_the_projection_puts_it(world: World, tmp_path: Path) -> None:
    files = world.frame_files(HIGH_LATITUDE_FRAME)
    pair, grid = files.scene.pairs[0], files.scene.grid
    files.write_pair(pair, tmp_path, names=[f"{pair}.geo.diff.png"])
    with Image.open(tmp_path / f"{pair}.geo.diff.png") as picture:
        shown = np.asarray(picture) > 0
    # in the middle third of columns the swath begins at one row of the grid: 1 + 3/3 hundredths down
    column = grid.width // 2
    first, last = np.flatnonzero(files.scene.valid_mask[:, column])[[0, -1]]
    northing = np.log(np.tan(np.pi / 4 + np.radians([grid.north, grid.bounds[1]]) / 2))
    seen = np.flatnonzero(shown[:, int(column * 0.3)])[[0, -1]]
    for row, preview_row in zip((first, last + 1), (seen[0], seen[1] + 1), strict=True):
        latitude = grid.north - row * grid.dy
        down = northing[0] - np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
        expected = down / (northing[0] - northing[1]) * shown.shape[0]
        assert preview_row == pytest.approx(expected, abs=1.0)


def test_epochs_have_a_brightness(files: FrameFiles, tmp_path: Path) -> None:
    day = files.scene.epochs[0]
    files.write_epoch(day, tmp_path)
    _, profile, named, values = _facts(tmp_path / f"{day:%Y%m%d}.geo.mli.tif")
    assert (profile["dtype"], profile["nodata"], named["AREA_OR_POINT"]) == ("float32", 0, "Point")
    assert np.array_equal(values > 0, files.scene.valid_mask)


def test_odd_pairs_are_odd_in_their_way_alone(world: World, files: FrameFiles, tmp_path: Path) -> None:
    odd = {name: files.pair_with_oddity(name) for name in ("cropped", "shifted", "no-preview", "unannotated")}
    assert len(set(odd.values())) == 4
    assert None not in odd.values()
    grid = files.scene.grid

    cropped = odd["cropped"]
    assert cropped is not None
    _written(files, cropped, tmp_path)
    _, profile, _, values = _facts(tmp_path / f"{cropped}.geo.cc.tif")
    west, east, north, south = CROP_PIXELS
    whole = world.coherence(ORDINARY_FRAME, cropped)
    assert np.array_equal(values, whole[north:-south, west:-east])
    assert profile["transform"].c == pytest.approx(grid.west + west * grid.dx)
    assert profile["transform"].f == pytest.approx(grid.north - north * grid.dy)

    shifted = odd["shifted"]
    assert shifted is not None
    _written(files, shifted, tmp_path)
    _, profile, _, values = _facts(tmp_path / f"{shifted}.geo.diff_pha.tif")
    assert np.array_equal(values, world.phase(ORDINARY_FRAME, shifted))
    assert profile["transform"].c == pytest.approx(grid.west + SHIFT_PIXELS[0] * grid.dx, abs=1e-9)

    assert odd["no-preview"] is not None
    assert not any("diff.png" in name for name in files.pair_files(odd["no-preview"]))
    annotated = {
        Pair.parse(f"{entry['primary_date']}_{entry['secondary_date']}")
        for entry in world.annotations(ORDINARY_FRAME)
    }
    listed = set(world.pairs(ORDINARY_FRAME))
    assert listed - annotated == {odd["unannotated"]}
    assert annotated - listed == {files.pair_with_oddity("unlisted")}


def test_without_oddities_every_pair_is_alike() -> None:
    files = World(oddities=[], frames=[ORDINARY_FRAME]).frame_files(ORDINARY_FRAME)
    assert not any(files.pair_with_oddity(name) for name in ODDITIES)
    assert {len(files.pair_files(pair)) for pair in files.scene.pairs} == {5}


def test_faulty_files_on_request(tmp_path: Path) -> None:
    asked = set(FAULTY_ODDITIES) - {"no-dem"}
    files = World(oddities=asked, frames=[ORDINARY_FRAME]).frame_files(ORDINARY_FRAME)
    files.write_metadata(tmp_path)
    assert (tmp_path / f"{ORDINARY_FRAME}.geo.hgt.tif").stat().st_size == 0
    pairs = {name: files.pair_with_oddity(name) for name in ("empty-phase", "blank-phase", "other-crs")}
    for pair in pairs.values():
        assert pair is not None
        _written(files, pair, tmp_path)
    assert (tmp_path / f"{pairs['empty-phase']}.geo.diff_pha.tif").stat().st_size == 0
    assert not _facts(tmp_path / f"{pairs['blank-phase']}.geo.diff_pha.tif")[3].any()
    assert _facts(tmp_path / f"{pairs['other-crs']}.geo.cc.tif")[1]["crs"].to_epsg() == 32626
    nothing = files.pair_with_oddity("no-files")
    assert nothing is not None
    assert files.pair_files(nothing) == ()
    no_dem = World(oddities=["no-dem"]).frame_files(ORDINARY_FRAME)
    assert not any("hgt" in name for name in no_dem.metadata_files())
    assert any(
        "hgt" in name for name in World(oddities=["no-dem"]).frame_files(STRIPMAP_FRAME).metadata_files()
    )


def test_the_delays_of_an_epoch_are_those_of_its_weather(files: FrameFiles, tmp_path: Path) -> None:
    scene, day = files.scene, files.scene.epochs[1]
    files.write_epoch(day, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(files.epoch_files(day))
    _, profile, named, gacos = _facts(tmp_path / f"{day:%Y%m%d}.sltd.geo.tif")
    assert np.isnan(profile["nodata"])
    assert named["AREA_OR_POINT"] == "Point"
    assert (np.isnan(gacos) == ~scene.valid_mask).all()
    slant = gacos * 0.0554658 / (4 * np.pi)
    assert 1.5 < np.nanmin(slant) < np.nanmax(slant) < 4.5
    # a slant delay at higher ground is smaller
    up = (slant * scene.line_of_sight[2])[scene.valid_mask]
    assert np.corrcoef(up, scene.height[scene.valid_mask])[0, 1] < -0.9
    icams = _facts(tmp_path / f"{day:%Y%m%d}.icams.sltd.geo.tif")[3]
    assert 0 < np.nanmax(np.abs(icams - gacos)) < 40
    only = tmp_path / "only"
    only.mkdir()
    files.write_epoch(day, only, [f"{day:%Y%m%d}.sltd.geo.tif"])
    assert [path.name for path in only.iterdir()] == [f"{day:%Y%m%d}.sltd.geo.tif"]
