"""JavaScript readers: zarrita under Node, and a page in a browser that draws an interferogram."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reader_availability import find_program, require_downloads
from stored_arrays import digest

HERE = Path(__file__).parent
ZARRITA = "zarrita@0.7.5"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with zarrita and what it needs, from the npm registry."""
    require_downloads()
    npm = find_program("npm")
    folder = tmp_path_factory.mktemp("npm")
    command = [
        npm,
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
        ZARRITA,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return folder / "node_modules"


def test_zarrita_reads_every_array(cube, node_modules):
    """Texts included: zarrita knows Zarr's strings."""
    script = node_modules.parent / "read_arrays.mjs"  # Node looks for packages beside the script
    script.write_bytes((HERE / script.name).read_bytes())
    command = [find_program("node", "nodejs"), script, cube.store, *(array.path for array in cube.arrays)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == cube.digests(cube.arrays)


class PageHandler(SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what the page sends."""

    def __init__(self, *args: Any, sent: queue.Queue[tuple[str, bytes]], **options: Any) -> None:
        self.sent = sent
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.sent.put((self.path, content))

    def log_message(self, *args: Any) -> None:
        """Log nothing: a chunk that is not there is a pair without data."""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, queue.Queue[tuple[str, bytes]]]]:
    """Serve a folder on loopback; yield its address and what pages send back."""
    sent: queue.Queue[tuple[str, bytes]] = queue.Queue()
    handler = partial(PageHandler, directory=folder, sent=sent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened_in_a_browser(address: str, profile: Path) -> Iterator[None]:
    """Open a page in headless Chromium, which can reach nothing but loopback."""
    command = [
        find_program("chromium", "chromium-browser", "google-chrome"),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--proxy-server=direct://", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
        f"--user-data-dir={profile}",
        address,
    ]
    with (profile.parent / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(browser.pid, signal.SIGKILL)  # with the processes of its tabs
            browser.wait()


def expected_picture(phase: np.ndarray) -> np.ndarray:
    """Return the pixels that the page draws of a phase, shape (height, width, 4)."""
    turn = (phase.astype("f8") + np.pi) / (2 * np.pi) * 6
    hues = np.stack([abs(turn - 3) - 1, 2 - abs(turn - 2), 2 - abs(turn - 4)], -1)
    picture = np.full((*phase.shape, 4), 255, "u1")
    picture[..., :3] = np.where(phase[..., None] == 0, 255, np.floor(255 * hues.clip(0, 1)))
    return picture


@pytest.mark.parametrize("stored", [True, False], ids=["a pair", "no pair"])
def test_a_page_draws_a_pair(stored, cube, node_modules, tmp_path):
    primary, secondary = cube.slot(stored=stored)
    site = tmp_path / "site"
    site.mkdir()
    for name, target in {"cube.zarr": cube.store, "node_modules": node_modules}.items():
        (site / name).symlink_to(target)
    for file in (HERE / "page").iterdir():
        (site / file.name).write_bytes(file.read_bytes())
    with served(site) as (address, sent):
        with opened_in_a_browser(
            f"{address}/index.html?primary={primary}&secondary={secondary}", tmp_path / "profile"
        ):
            path, content = sent.get(timeout=120)
    assert path == "/drawn", content.decode()
    expected = expected_picture(cube.values["insar_difference"][primary, secondary])
    drawn = np.frombuffer(content, "u1").reshape(expected.shape)
    Image.fromarray(drawn).save(tmp_path / "drawn.png")  # kept if the test fails
    assert digest(drawn) == digest(expected)
    # a picture, not a blank canvas; and where no pair is, none
    assert len(np.unique(drawn.reshape(-1, 4), axis=0)) > 50 if stored else (drawn == 255).all()
