"""Programs on top of a reader: the published loader's pattern, torchgeo, bowser; and the lines of docs/readers.md."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from hephaestus_build.core.frames import Pair
from reader_availability import import_reader
from stored_arrays import digest

#: What these programs warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_published_reading_pattern_reads_a_series(cube, monkeypatch):
    """As Hephaestus Minicubes are read in training: whole frames of a series by date labels, stacked and cropped."""
    loader = import_reader("hephaestus_baselines.performance.loader_benchmark")
    monkeypatch.setattr(loader, "WINDOW_SIZE", 64)
    primary, secondary = cube.slot(stored=True)
    steps = slice(secondary, secondary + loader.STEPS_PER_SERIES)  # pairs without data among them
    with xr.open_zarr(cube.link) as opened:
        days = {
            name: opened[name].values.astype("M8[D]").astype(object) for name in opened.dims if "date" in name
        }
    pairs = [Pair(days["primary_date"][primary], day) for day in days["secondary_date"][steps]]
    item = SimpleNamespace(members=[SimpleNamespace(pair=pair) for pair in pairs])
    dataset = loader.PublishedDataset(cube.link, [item], (64, 64), bare=False)
    images, masks = (tensor.numpy() for tensor in dataset[0])
    expected = []
    for name in loader.LOADER_CHANNELS:
        values = cube.values[name]
        if values.ndim == 4:
            values = values[primary, steps]
        elif values.ndim == 3:
            values = values[primary] if name.startswith("primary") else values[steps]
        expected.append(np.broadcast_to(values[..., :64, :64], (len(pairs), 64, 64)))
    assert digest(images) == digest(np.stack(expected, 1).reshape(-1, 64, 64).astype("f4"))
    mask = cube.values["deformation_mask"][primary, steps, :64, :64]
    assert digest(masks) == digest(np.where(mask == 2, 1, mask).astype("i8"))


def make_series(cube, **names: str) -> xr.Dataset:
    """Return the phase of one primary date with the axis of time that these programs ask for."""
    opened = xr.open_zarr(cube.link)
    series = opened[["insar_difference"]].isel(primary_date=cube.slot(stored=True)[0], drop=True)
    return series.rename(secondary_date="time", **names).drop_attrs(deep=False).drop_encoding()


def test_torchgeo_does_not_find_a_zarr_store(cube):
    """XarrayDataset looks for files and passes over what is no file; docs/readers.md has the line that works."""
    datasets = import_reader("torchgeo.datasets")
    with pytest.raises(datasets.DatasetNotFoundError):
        datasets.XarrayDataset(cube.link, data_vars=["insar_difference"])


def test_torchgeo_reads_a_series_as_netcdf(cube, tmp_path):
    datasets = import_reader("torchgeo.datasets")
    make_series(cube).to_netcdf(tmp_path / "series.nc")
    dataset = datasets.XarrayDataset(tmp_path / "series.nc", data_vars=["insar_difference"])
    found = dataset[dataset.bounds]["image"].numpy()
    assert digest(found[0]) == digest(cube.values["insar_difference"][cube.slot(stored=True)[0]])
    assert dataset.crs.to_epsg() == 4326


def test_bowser_wants_axes_named_x_and_y(cube):
    """The cube's are latitude and longitude, as CF names them; docs/readers.md has the line that works."""
    import_reader("rioxarray")  # as its server does
    state = import_reader("bowser.state")
    with pytest.raises(AttributeError, match="'x'"):
        state.BowserState.load_zarr(str(cube.link))


@contextmanager
def bowser_serves(stack: Path) -> Iterator[str]:
    """Run ``bowser run`` on a store; yield its address."""
    import_reader("bowser.cli")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("bowser")
    command = [program, "run", "--stack-file", stack, "--port", str(port)]
    log = stack.parent / "bowser.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, cwd=stack.parent
        )
        try:
            deadline = time.monotonic() + 300
            while server.poll() is None and time.monotonic() < deadline:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            else:
                pytest.fail(log.read_text())
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_bowser_shows_a_series(cube, tmp_path):
    rasterio = import_reader("rasterio")
    make_series(cube, latitude="y", longitude="x").to_zarr(tmp_path / "series.zarr", consolidated=False)
    primary, secondary = cube.slot(stored=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with bowser_serves(tmp_path / "series.zarr") as address:
        with opener.open(f"{address}/variables", timeout=60) as answer:
            shape = json.load(answer)["variables"]["insar_difference"]["shape"]
        query = f"variable=insar_difference&time_idx={secondary}"
        with opener.open(f"{address}/export/geotiff?{query}", timeout=60) as answer:
            content = answer.read()
    assert tuple(shape) == cube.values["insar_difference"].shape[1:]
    with rasterio.MemoryFile(content) as file, file.open() as raster:
        assert digest(raster.read(1)) == digest(cube.values["insar_difference"][primary, secondary])
