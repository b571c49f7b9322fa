"""bowser, a map in the browser for stacks of InSAR: what it makes of a cube, and of a series of it."""

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

import numpy as np
import pytest
import xarray as xr

from reader_availability import import_reader
from stored_arrays import digest

#: What it warns of is its own.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_bowser_wants_axes_named_x_and_y(cube):
    """The cube's are latitude and longitude, as CF names them; docs/readers.md has the line that works."""
    import_reader("rioxarray")  # as its server does
    state = import_reader("bowser.state")
    with pytest.raises(KeyError, match="'x'"):
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
    cube.series(latitude="y", longitude="x").to_zarr(tmp_path / "series.zarr", consolidated=False)
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


def test_bowser_shows_the_overviews(cube, tmp_path):
    """The group overview has axes x, y and pair: it needs no copy, but a name that ends with .zarr."""
    rasterio = import_reader("rasterio")
    overview = xr.open_zarr(cube.link, group="overview", mask_and_scale=False, chunks=None)
    stored = xr.open_zarr(cube.link, group="pairs", chunks=None).stored.values
    pair = int(np.flatnonzero(stored)[-1])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    (tmp_path / "overview.zarr").symlink_to(cube.link / "overview")
    with bowser_serves(tmp_path / "overview.zarr") as address:
        with opener.open(f"{address}/variables", timeout=60) as answer:
            shape = json.load(answer)["variables"]["coherence"]["shape"]
        # what its map shows; its GeoTIFF export takes no bytes with a scale
        query = f"variable=coherence&time_idx={pair}&rescale=0,1"
        with opener.open(f"{address}/md/preview.png?{query}", timeout=60) as answer:
            content = answer.read()
    assert tuple(shape) == overview.coherence.shape
    with rasterio.MemoryFile(content) as file, file.open() as picture:
        shades, visible = picture.read(1), picture.read(2) > 0
    expected = overview.coherence.values[pair]
    np.testing.assert_array_equal(visible, expected > 0)
    np.testing.assert_allclose(shades[visible].astype(int), expected[visible], atol=1)
