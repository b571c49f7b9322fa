"""Tests of readers that opened a cube by name and are overtaken by publications."""

import threading
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toy_cube
from cube_editions import ATTRIBUTES, GRID, check_phases, check_whole, completed, expected_phase, made
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.schema_conformance import check_schema

#: Pairs between dates 12 days apart; a number stands for a date.
DAYS = tuple(f"{date(2019, 1, 1) + timedelta(12 * n):%Y%m%d}" for n in range(9))


def name_of(first: int, second: int) -> str:
    return f"{DAYS[first]}_{DAYS[second]}"


@pytest.fixture
def frame_store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "cubes", Frame(toy_cube.FRAME))


def publish(frame_store: FrameStore, names: Iterable[str], *, listed: Iterable[str] = ()) -> dict[str, int]:
    """Publish a cube of the given pairs, each with an annotation, as the next generation."""
    editions = completed({f"{kind}/{name}": 1 for name in names for kind in ("pair", "mask")})
    granules = {key: frame_store.staging.add(*made(key, edition)) for key, edition in editions.items()}
    pairs, previous = [Pair.parse(name) for name in listed], frame_store.published_generation()
    if previous is None:
        contents = CubeInventory.new(GRID, granules, ATTRIBUTES, pairs)
    else:
        known = previous.read_inventory()
        contents = known.succeed(GRID, granules, ATTRIBUTES, pairs, frame_store.history())
    with frame_store.new_generation() as store:
        write_cube_store(store, contents, frame_store.staging.chunk_paths)
    frame_store.staging.discard()
    return editions


def open_by_name(frame_store: FrameStore, how: str) -> xr.Dataset:
    return xr.open_zarr(frame_store.published_link, chunks={} if how == "dask" else None)


def read_by_label(cube: xr.Dataset, name: str) -> dict[str, np.ndarray]:
    """Return what a cube says of a pair: its phase, mask, table and atmosphere."""
    pair = Pair.parse(name)
    primary, secondary = map(np.datetime64, pair.dates)
    at = cube.sel(primary_date=primary, secondary_date=secondary)
    return {
        variable: at[variable].values
        for variable in (
            "insar_difference",
            "deformation_mask",
            "valid_date_pair",
            "caption",
            "primary_date_surface_pressure",
            "secondary_date_surface_pressure",
        )
    }


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def check_overtaken(cube: xr.Dataset, before: dict[str, dict[str, np.ndarray]], *, must_read: bool) -> None:
    """Check that a reader gets the right values of each pair, or an error."""
    for name, expected in before.items():
        for variable, right in expected.items():
            try:
                found = read_by_label(cube, name)[variable]
            except (RuntimeError, ValueError):  # what zarr raises for an object that it cannot decode
                assert not must_read
            else:
                assert same(found, right), (name, variable)


ORDERS = {
    "later dates": [[(2, 3)], [(2, 3), (3, 4)], [(2, 3), (3, 4), (3, 5), (4, 5)]],
    "earlier dates": [[(6, 7)], [(5, 6), (6, 7)], [(4, 6), (5, 6), (6, 7)]],
    "dates in between": [[(0, 8)], [(0, 4), (0, 8)], [(0, 2), (0, 4), (0, 8)]],
    "any number": [[(5, 8), *((n, 8) for n in range(first, 5))] for first in range(5, -1, -1)],
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_reader_that_is_overtaken_gets_right_values_or_an_error(frame_store, order):
    readers: list[tuple[xr.Dataset, dict]] = []
    for number, pairs in enumerate(ORDERS[order]):
        names = [name_of(*pair) for pair in pairs]
        editions = publish(frame_store, names)
        if number == 0:
            stays = names
        fresh = open_by_name(frame_store, "dask")
        np.testing.assert_array_equal(
            read_by_label(fresh, names[-1])["insar_difference"], expected_phase(f"pair/{names[-1]}", 1)
        )
        values = {name: read_by_label(fresh, name) for name in stays}
        readers += [(open_by_name(frame_store, how), values) for how in ("dask", "numpy")]
    check_whole(frame_store.published_link, editions)
    assert verify_generation(frame_store.published_generation()) == []
    stays_valid = range(len(readers)) if order == "later dates" else range(len(readers) - 2, len(readers))
    for number, (cube, before) in enumerate(readers):
        check_overtaken(cube, before, must_read=number in stays_valid)
    # old readers may outlive the generation that they opened
    with frame_store.lock():
        frame_store.remove_old(keep=1, older_than=timedelta(0))
    for number, (cube, before) in enumerate(readers):
        check_overtaken(cube, before, must_read=number in stays_valid)


def test_all_dates_are_sorted_where_the_archive_lists_them_first(frame_store):
    publish(frame_store, [name_of(2, 3)], listed=[name_of(0, 5)])
    cube = open_by_name(frame_store, "dask")
    publish(frame_store, [name_of(0, 5), name_of(2, 3)], listed=[name_of(0, 5), name_of(5, 6)])
    assert (np.diff(open_by_name(frame_store, "dask").epoch.values.astype("i8")) > 0).all()
    # a pair that was listed is read by a reader that was there before it
    read = read_by_label(cube, name_of(0, 5))["insar_difference"]
    np.testing.assert_array_equal(read, expected_phase(f"pair/{name_of(0, 5)}", 1))


@pytest.mark.parametrize("times", [1, 5])
def test_a_pair_that_is_dropped_is_an_error_and_never_no_data(frame_store, times):
    every = [name_of(2, 3), *(name_of(3, 4 + number) for number in range(times))]
    publish(frame_store, every)
    cube = open_by_name(frame_store, "dask")
    for number in range(times, 0, -1):
        editions = publish(frame_store, every[:number])
        check_phases(frame_store.published_link, editions)
        assert check_schema(frame_store.published_link) == []
        with pytest.raises((RuntimeError, ValueError)):
            read_by_label(cube, every[number])
    pair = Pair.parse(name_of(3, 4))
    dates = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
    assert not open_by_name(frame_store, "dask").valid_date_pair.sel(dates)
    # who pins the generation is told that there is no data
    pinned = open_pinned_cube(frame_store.published_link, chunks=None)
    assert not pinned.insar_difference.sel(dates).values.any()


def test_retired_keys_are_checked_and_repaired_like_others(frame_store):
    publish(frame_store, [name_of(2, 3)])
    publish(frame_store, [name_of(1, 2), name_of(2, 3)])
    current = frame_store.published_generation()
    (retired, *_) = current.read_inventory().keys.retired_keys
    (current.store / retired).unlink()
    assert [(damage.path, damage.what) for damage in verify_generation(current)] == [(retired, "missing")]


def test_the_keys_of_a_generation_whose_record_is_lost_are_not_used_again(frame_store):
    publish(frame_store, [name_of(6, 7)])
    lost = frame_store.published_generation()
    publish(frame_store, [name_of(5, 6), name_of(6, 7)])
    assert frame_store.history().key_spaces() == {(0, 0), (1, 1)}
    for folder in lost.record_folders:
        (folder / "provenance.json").write_bytes(b"x")
    assert frame_store.history().key_spaces() == {(0, 0), (1, 1), (2, 2)}


def test_opening_never_mixes_two_generations(frame_store):
    """Readers open by name, in a loop, while dates are appended and inserted."""
    names = [name_of(7, 8)]
    publish(frame_store, names)
    mixed: list[str] = []
    opened = 0
    done = threading.Event()

    def read() -> None:
        nonlocal opened
        while not done.is_set():
            try:
                cube = xr.open_zarr(frame_store.published_link, chunks=None)
                dates, flags = cube.epoch.values, cube.valid_date_pair.values
            except (RuntimeError, ValueError, OSError, KeyError):
                continue
            opened += 1
            if len(np.unique(dates)) != len(dates) or flags.shape != (len(dates), len(dates)):
                mixed.append(str(dates))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for first in range(6, -1, -1):
            names.append(name_of(first, 8))
            publish(frame_store, names)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert opened
    assert mixed == []


def test_a_cube_without_a_history_has_no_retired_keys(frame_store):
    publish(frame_store, [name_of(1, 2)])
    publish(frame_store, [name_of(1, 2), name_of(2, 3)])
    current = frame_store.published_generation()
    assert isinstance(current, Generation)
    assert current.read_inventory().keys.retired_keys == ()
