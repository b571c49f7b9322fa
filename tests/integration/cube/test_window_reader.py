"""Tests that windows read directly from shards equal those read by xarray, and that damage is reported."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toy_cube
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.key_spaces import KEY_SPACES
from hephaestus_build.cube.reading import verified_objects as checked_module
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader

VARIABLES = ("insar_difference", "insar_coherence", "deformation_mask", "activity_type_mask", "dem")
STORED = Pair.parse(toy_cube.PAIRS[1])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of 2 x 3 tiles, the last ones cut by the frame's edge."""
    return toy_cube.toy_cube(tmp_path_factory.mktemp("cubes"), toy_cube.grid(700, 1100)).resolve()


@pytest.fixture(scope="module")
def plain(store: Path) -> xr.Dataset:
    return open_pinned_cube(store, chunks=None)


def expected(image: np.ndarray, row: int, column: int, shape: tuple[int, int], fill: float) -> np.ndarray:
    """Return the window of an image by fancy indexing, `fill` beyond its edges."""
    rows, columns = np.arange(row, row + shape[0]), np.arange(column, column + shape[1])
    inside = ((rows >= 0) & (rows < image.shape[0]))[:, None] & (columns >= 0) & (columns < image.shape[1])
    values = image[rows.clip(0, image.shape[0] - 1)[:, None], columns.clip(0, image.shape[1] - 1)]
    return np.where(inside, values, np.asarray(fill, image.dtype))


def image_of(plain: xr.Dataset, variable: str, pair: Pair) -> np.ndarray:
    if variable == "dem":
        return plain[variable].to_numpy()
    days = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
    return plain[variable].sel(days).to_numpy()


@pytest.mark.parametrize("variable", VARIABLES)
def test_any_window_is_bit_for_bit_what_xarray_reads(store: Path, plain: xr.Dataset, variable: str) -> None:
    cube = WindowReader(store)
    chance = np.random.default_rng(7)
    for name in (toy_cube.PAIRS[1], toy_cube.PAIRS[3]):
        image = image_of(plain, variable, Pair.parse(name))
        for _ in range(25):
            shape = tuple(int(extent) for extent in chance.integers(1, 560, 2))
            row, column = int(chance.integers(-200, 690)), int(chance.integers(-200, 1090))
            out = np.full(shape, 77, image.dtype)
            pair = None if variable == "dem" else Pair.parse(name)
            fill = np.nan if variable == "dem" else 0
            for keep in (False, True, True):  # decoded, decoded and kept, kept
                out[...] = 77
                cube.read(variable, pair, row, column, out, keep=keep)
                np.testing.assert_array_equal(out, expected(image, row, column, shape, fill))  # type: ignore[arg-type]


def test_stored_strips_together_are_the_image(store: Path, plain: xr.Dataset) -> None:
    whole = np.zeros((700, 1100), np.uint8)
    for column, values in WindowReader(store).iter_strips("deformation_mask", STORED):
        whole[:, column : column + values.shape[1]] = values
    np.testing.assert_array_equal(whole, image_of(plain, "deformation_mask", STORED))
    assert whole.any()


@pytest.mark.parametrize(
    "name", [toy_cube.PAIRS[0], toy_cube.ABSENT, "19990101_19990113"], ids=["no mask", "absent", "unknown"]
)
def test_what_is_not_stored_is_fill(store: Path, name: str) -> None:
    cube, pair = WindowReader(store), Pair.parse(name)
    variable = "deformation_mask" if name == toy_cube.PAIRS[0] else "insar_difference"
    out = np.full((20, 30), 9, cube.image_storage(variable).dtype)
    assert not cube.read(variable, pair, 5, 6, out).any()
    assert list(cube.iter_strips(variable, pair)) == []


def test_tables_axes_and_fields_are_what_xarray_reads(store: Path, plain: xr.Dataset) -> None:
    cube = WindowReader(store)
    np.testing.assert_array_equal(cube.read_table("confidence"), plain["confidence"].to_numpy())
    for name in ("latitude", "longitude", "era5_latitude"):
        np.testing.assert_array_equal(cube.read_coordinate(name), plain[name].to_numpy())
    np.testing.assert_allclose(cube.grid.latitudes, plain["latitude"].to_numpy(), rtol=0, atol=1e-9)
    names = ["era5_surface_pressure", "era5_total_column_water_vapour"]
    fields = cube.read_epoch(names, date(2019, 1, 13))
    for values, name in zip(fields, names, strict=True):
        np.testing.assert_array_equal(values, plain[name].sel(epoch="2019-01-13").to_numpy())
    assert np.isnan(cube.read_epoch(names, date(1999, 1, 1))).all()


def damaged(store: Path, folder: Path, name: str, change: str) -> WindowReader:
    """Copy a cube and damage one of its files."""
    copy = folder / store.name
    shutil.copytree(store, copy)
    path = copy / name
    content = bytearray(path.read_bytes())
    if change == "cut short":
        content = content[: len(content) // 2]
    elif change == "emptied":
        content = bytearray()
    else:
        content[{"decoded size": 5, "encoded size": 13}[change]] ^= 0x41
    path.write_bytes(content)
    return WindowReader(copy)


@pytest.mark.parametrize("change", ["cut short", "emptied", "decoded size", "encoded size"])
def test_damage_is_named_with_the_command_that_mends_it(store: Path, tmp_path: Path, change: str) -> None:
    clean = WindowReader(store)
    place = clean.pair_position(STORED)
    assert place
    cube = damaged(store, tmp_path, f"insar_difference/c.{place[0]}.{place[1]}.0.0", change)
    with pytest.raises(HephaestusError) as caught:
        cube.read("insar_difference", STORED, 0, 0, np.empty((300, 300), np.float32))
    message = str(caught.value)
    for word in (toy_cube.FRAME, STORED.name, "insar_difference", f"`hephaestus repair {toy_cube.FRAME}`"):
        assert word in message
    assert "\n" not in message


def test_a_cube_stored_in_another_way_is_refused(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / store.name
    shutil.copytree(store, copy)
    content = json.loads((copy / "zarr.json").read_text())
    arrays = content["consolidated_metadata"]["metadata"]
    arrays["insar_coherence"]["codecs"] = arrays["insar_coherence"]["codecs"][:1]
    (copy / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(
        HephaestusError, match=r"insar_coherence is stored in a layout that this version does not"
    ):
        WindowReader(copy).read("insar_coherence", STORED, 0, 0, np.empty((9, 9), np.uint8))


def test_no_cube_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(HephaestusError, match="hephaestus build"):
        WindowReader(tmp_path / "199A_00210_131313.zarr")


def test_kept_strip_is_not_read_again(store: Path, plain: xr.Dataset, tmp_path: Path) -> None:
    copy = tmp_path / store.name
    shutil.copytree(store, copy)
    cube, out = WindowReader(copy), np.empty((64, 64), np.float32)
    image = image_of(plain, "insar_difference", STORED)
    cube.read("insar_difference", STORED, 30, 40, out, keep=True)
    shutil.rmtree(copy / "insar_difference")
    cube.read("insar_difference", STORED, 130, 240, out, keep=True)  # of the same strip
    np.testing.assert_array_equal(out, image[130:194, 240:304])
    cube.read("insar_difference", STORED, 30, 640, out, keep=True)  # of another one
    assert not out.any()


# --- objects that are checked when they are first read


@pytest.fixture
def flipped(store, tmp_path) -> Path:
    """A cube whose phase of STORED has one flipped bit in the middle of its data."""
    copy = shutil.copytree(store, tmp_path / store.name)
    strip = copy / KEY_SPACES[0].chunk_key("insar_difference", WindowReader(store).pair_position(STORED), 2)
    content = bytearray(strip.read_bytes())
    content[len(content) // 3] ^= 1
    strip.write_bytes(content)
    return copy


def test_a_flipped_bit_is_found_before_any_of_it_is_read(flipped):
    out = np.empty((9, 9), np.float32)
    cube = WindowReader(flipped, verify="first")
    said = rf"^{cube.frame}: insar_difference of pair/{STORED}: insar_difference/c\S+ is damaged.*repair"
    for _ in range(2):
        with pytest.raises(HephaestusError, match=said):
            cube.read("insar_difference", STORED, 0, 0, out)
    np.testing.assert_array_equal(
        cube.read("insar_coherence", STORED, 0, 0, np.empty((9, 9), np.uint8)),
        WindowReader(flipped).read("insar_coherence", STORED, 0, 0, np.empty((9, 9), np.uint8)),
    )


@pytest.mark.parametrize("chunks", [None, {}])
def test_open_cube_finds_a_flipped_bit_when_it_is_first_read(flipped, chunks):
    cube = open_pinned_cube(flipped, verify="first", chunks=chunks)
    here = {"primary_date": np.datetime64(STORED.primary), "secondary_date": np.datetime64(STORED.secondary)}
    assert cube.insar_coherence.sel(here).values.any()
    for wanted in (
        cube.insar_difference.sel(here),
        pickle.loads(pickle.dumps(cube)).insar_difference.sel(here),
    ):
        with pytest.raises(HephaestusError, match=rf"insar_difference of pair/{STORED}: .*repair"):
            _ = wanted.values


def test_a_missing_image_is_no_image_without_data(flipped):
    shard = next((flipped / "insar_coherence").glob("c.*"))
    shard.unlink()
    cube = open_pinned_cube(flipped, verify="first", chunks=None)
    with pytest.raises(HephaestusError, match=r"is missing"):
        _ = cube.insar_coherence.values
    windows = WindowReader(flipped, verify="first")
    place = tuple(int(part) for part in shard.name.split(".")[1:3])
    pair = next(pair for pair in map(Pair.parse, toy_cube.PAIRS) if windows.pair_position(pair) == place)
    with pytest.raises(HephaestusError, match=r"is missing"):
        windows.read("insar_coherence", pair, 0, 0, np.empty((9, 9), np.uint8))


def test_each_object_is_hashed_once(store, monkeypatch):
    hashed: list[int] = []
    real = checked_module.hash_descriptor

    def hash_opened(descriptor: int, size: int) -> str:
        hashed.append(size)
        return real(descriptor, size)

    monkeypatch.setattr(checked_module, "hash_descriptor", hash_opened)
    cube, out = WindowReader(store, verify="first"), np.empty((9, 9), np.float32)
    for row in range(0, 40, 9):
        cube.read("insar_difference", STORED, row, 0, out)
    assert len(hashed) == 5  # zarr.json, the three date axes, the phase
    with pytest.raises(UsageError, match="verify"):
        WindowReader(store, verify="always")  # type: ignore[arg-type]


def test_pipes_and_links_in_a_store_are_not_read(store, tmp_path):
    copy = shutil.copytree(store, tmp_path / store.name)
    phase, coherence = (next((copy / name).glob("c.*")) for name in ("insar_difference", "insar_coherence"))
    phase.unlink()
    os.mkfifo(phase)
    coherence.rename(tmp_path / "elsewhere")
    coherence.symlink_to(tmp_path / "elsewhere")
    place = tuple(int(part) for part in phase.name.split(".")[1:3])
    windows, cube = WindowReader(copy), open_pinned_cube(copy, chunks=None)
    pair = next(pair for pair in map(Pair.parse, toy_cube.PAIRS) if windows.pair_position(pair) == place)
    for name in ("insar_difference", "insar_coherence"):
        with pytest.raises(HephaestusError, match="repair"):
            windows.read(name, pair, 0, 0, np.empty((9, 9), cube[name].dtype))
        with pytest.raises(HephaestusError, match="repair"):
            _ = cube[name].values


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("phase", "phase is no image on the frame's grid: phase of the activity; near it: insar_difference"),
        ("wrapped_phase", "wrapped_phase is no variable of a cube; near it: insar_difference"),
        ("unwrapped_phase", "the cube has no unwrapped_phase; `hephaestus build .* --variables unwrapped_"),
    ],
)
def test_a_name_that_is_no_image_leads_to_the_one_that_is_meant(tmp_path, name, said):
    reader = WindowReader(toy_cube.toy_cube(tmp_path))
    with pytest.raises(UsageError, match=said):
        reader.read(name, Pair.parse(toy_cube.PAIRS[0]), 0, 0, np.empty((8, 8), "f4"))
    with pytest.raises(UsageError, match="near it: phase"):
        reader.read_table("phases")
