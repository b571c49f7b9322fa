"""Tests that zarr and xarray open the simulated ARCO-ERA5 store as they open the real one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import requests
import xarray as xr

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area
from hephaestus_build.simulation.server.arco_app import ARCO_PREFIX, ArcoApp
from hephaestus_build.simulation.server.http_server import LoopbackServer

NOON = datetime(2019, 3, 1, 12)
INDEX = (NOON - datetime(1900, 1, 1)).days * 24 + 12


def fields(time: datetime, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Return smooth fields that differ at every point and hour, and agree at 350 and -10 degrees."""
    turn = np.radians(longitudes % 360)
    shape = np.sin(np.radians(latitudes))[:, None] + 0.1 * np.cos(turn + time.day + time.hour)
    levels = np.array([30.0, 95_000.0, 2.3e6]).reshape(3, 1, 1)
    return (levels * (1 + 0.05 * shape)).astype(np.float32)


def mirror(base: str, folder: Path, chunks: list[str]) -> Path:
    """Copy the store's metadata, coordinates and some chunks with plain requests."""
    page = requests.get(f"{base}{ARCO_PREFIX}/.zmetadata", timeout=10)
    metadata = page.json()["metadata"]
    names = {name.partition("/")[0] for name in metadata if "/" in name}
    assert names == {*ERA5_VARIABLE_NAMES, "time", "latitude", "longitude"}
    times = -(-metadata["time/.zarray"]["shape"][0] // metadata["time/.zarray"]["chunks"][0])
    keys = [".zmetadata", *metadata, *(f"time/{k}" for k in range(times)), "latitude/0", "longitude/0"]
    for key in [*keys, *chunks]:
        answer = requests.get(f"{base}{ARCO_PREFIX}/{key}", timeout=10)
        assert answer.status_code == 200, key
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(answer.content)
    return folder


def test_xarray_opens_it_like_the_real_store(tmp_path: Path) -> None:
    app = ArcoApp(fields, valid_stop=date(2019, 2, 28), valid_stop_era5t=date(2019, 3, 5))
    with LoopbackServer([app]) as server:
        store = mirror(server.base_url, tmp_path, [f"{name}/{INDEX}.0.0" for name in ERA5_VARIABLE_NAMES])
    dataset = xr.open_zarr(store, consolidated=True, chunks=None)
    assert dataset.sizes == {"time": 1_323_648, "latitude": 721, "longitude": 1440}
    assert dataset.latitude.values[[0, -1]].tolist() == [90, -90]
    assert dataset.longitude.values[[0, -1]].tolist() == [0, 359.75]
    assert dataset.attrs["valid_time_stop"] == "2019-02-28"
    assert dataset.attrs["valid_time_stop_era5t"] == "2019-03-05"
    assert dataset.attrs["simulated"] == "true"
    hour = dataset.sel(time=NOON, latitude=[45.0, 44.75], longitude=[359.75])
    truth = fields(NOON, np.array([45.0, 44.75]), np.array([-0.25]))
    for name, field in zip(ERA5_VARIABLE_NAMES, truth, strict=True):
        np.testing.assert_array_equal(hour[name].values, field)
        assert dataset[name].dtype == np.float32
    app_chunks = dataset[ERA5_VARIABLE_NAMES[0]].encoding["chunks"]
    assert app_chunks == (1, 721, 1440)


def test_the_store_says_where_it_has_values_and_how_recent_they_are() -> None:
    area = Era5Area(45.0, -6.0, 43.0, -3.0)
    with LoopbackServer([ArcoApp(fields, areas=(area,))]) as server:
        attributes = requests.get(f"{server.base_url}{ARCO_PREFIX}/.zattrs", timeout=10).json()
    assert attributes["simulated_areas"] == [[45.0, -6.0, 43.0, -3.0]]
    assert "elsewhere they are NaN" in attributes["comment"]
    today = datetime.now(UTC).date()
    assert date.fromisoformat(attributes["valid_time_stop_era5t"]) < today
    assert date.fromisoformat(attributes["valid_time_stop"]) < today - timedelta(days=60)
    with LoopbackServer([ArcoApp(fields)]) as server:
        attributes = requests.get(f"{server.base_url}{ARCO_PREFIX}/.zattrs", timeout=10).json()
    assert "simulated_areas" not in attributes


def test_an_hour_is_made_once_for_its_three_variables() -> None:
    app = ArcoApp(fields)
    with LoopbackServer([app]) as server:
        for name in ERA5_VARIABLE_NAMES * 2:
            assert requests.get(f"{server.base_url}{ARCO_PREFIX}/{name}/{INDEX}.0.0", timeout=10).ok
    assert app.globes_computed == 1


def test_areas_are_all_that_is_computed(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def watched(time: datetime, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        asked.append((latitudes.size, longitudes.size))
        return fields(time, latitudes, longitudes)

    area = Era5Area(1.0, -0.5, 0.0, 0.5)
    with LoopbackServer([ArcoApp(watched, areas=(area,))]) as server:
        store = mirror(server.base_url, tmp_path, [f"{ERA5_VARIABLE_NAMES[1]}/{INDEX}.0.0"])
    globe = xr.open_zarr(store, chunks=None)[ERA5_VARIABLE_NAMES[1]].sel(time=NOON)
    assert asked == [area.shape]
    assert int(np.isfinite(globe).sum()) == 5 * 5
    inside = globe.sel(latitude=area.latitudes, longitude=area.longitudes % 360)
    np.testing.assert_array_equal(inside, fields(NOON, area.latitudes, area.longitudes)[1])


@pytest.mark.parametrize(
    "key",
    [
        f"{ERA5_VARIABLE_NAMES[0]}/{INDEX + 24 * 40}.0.0",  # after the last valid day
        f"{ERA5_VARIABLE_NAMES[0]}/{INDEX}.0.1",
        f"{ERA5_VARIABLE_NAMES[0]}/x.0.0",
        f"{ERA5_VARIABLE_NAMES[2]}/{INDEX}.0.0",  # the variable that is missing
        "time/99",
        "sea_surface_temperature/.zarray",
    ],
)
def test_what_was_never_written_is_not_found(key: str) -> None:
    app = ArcoApp(
        fields, valid_stop_era5t=date(2019, 3, 5), missing_variables=frozenset({ERA5_VARIABLE_NAMES[2]})
    )
    with LoopbackServer([app]) as server:
        assert requests.get(f"{server.base_url}{ARCO_PREFIX}/{key}", timeout=10).status_code == 404
        metadata = requests.get(f"{server.base_url}{ARCO_PREFIX}/.zmetadata", timeout=10).json()["metadata"]
    assert f"{ERA5_VARIABLE_NAMES[2]}/.zarray" not in metadata
