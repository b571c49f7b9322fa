"""Tests that downloaders of the field find what they read, in both layouts: LiCSBAS's first step.

Its source is not here; the order of requests, the names and what it reads of each answer are imitated.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import numpy as np
import pytest
import rasterio
import requests
from rasterio.io import MemoryFile

from archives import FRAME, small_archive
from hephaestus_build.simulation.server.archive_server import ArchiveServer

HREF = re.compile(r"""<a\s+href=['"]([^'"]+)['"]""", re.IGNORECASE)


@pytest.fixture(scope="module")
def server() -> Iterator[ArchiveServer]:
    with small_archive() as server:
        yield server


@pytest.fixture(params=["directories", "links"])
def portal(server: ArchiveServer, request: pytest.FixtureRequest) -> str:
    server.reset()
    server.archive.layout = request.param
    return f"{server.licsar_url}{FRAME.track}/{FRAME}"


def get(url: str) -> requests.Response:
    answer = requests.get(url, timeout=30)
    answer.raise_for_status()
    return answer


def find_file(url: str) -> str:
    """Return where a file is: at its address, or where the page in place of its folder links to."""
    if requests.head(url, timeout=30, allow_redirects=True).ok:
        return url
    folder, _, name = url.rpartition("/")
    (found,) = [href for href in HREF.findall(get(folder).text) if href.rpartition("/")[2] == name]
    return found


def fetch(url: str) -> bytes:
    """Return the file at an address, of the length and with the date that HEAD says."""
    head = requests.head(url, timeout=30, allow_redirects=True)
    assert parsedate_to_datetime(head.headers["Last-Modified"]).year >= 2014
    content = get(url).content
    assert len(content) == int(head.headers["Content-Length"])
    return content


def names_in(listing: str, form: str) -> list[str]:
    """Return the folders or pages of a listing whose names have a form, in order."""
    names = (href.rstrip("/").rpartition("/")[2] for href in HREF.findall(listing))
    return [name for name in names if re.fullmatch(form, name)]


def test_the_first_step_of_licsbas_finds_what_it_reads(portal: str, server: ArchiveServer) -> None:
    # the frame's own files
    shapes = set()
    for name in ("E", "N", "U", "hgt"):
        with MemoryFile(fetch(find_file(f"{portal}/metadata/{FRAME}.geo.{name}.tif"))) as file:
            with file.open() as raster:
                shapes.add(raster.shape)
    assert len(shapes) == 1
    metadata = dict(
        line.split("=", 1) for line in fetch(f"{portal}/metadata/metadata.txt").decode().splitlines()
    )
    assert re.fullmatch(r"\d{1,2}:\d\d:\d\d(\.\d+)?", metadata["center_time"])
    assert {"master", "heading"} <= metadata.keys()
    baselines = np.loadtxt(io.BytesIO(fetch(f"{portal}/metadata/baselines")))
    assert baselines.shape[1] == 4
    # one amplitude image, of any epoch that has it
    epochs = names_in(get(f"{portal}/epochs/").text, r"\d{8}")
    assert {f"{day:.0f}" for day in baselines[:, 1]} == set(epochs)
    assert fetch(find_file(f"{portal}/epochs/{epochs[0]}/{epochs[0]}.geo.mli.tif"))
    # unwrapped phase and coherence of each pair within the dates
    pairs = names_in(get(f"{portal}/interferograms/").text, r"\d{8}_\d{8}")
    assert pairs == [pair.name for pair in server.archive.pairs(FRAME)]
    for pair in pairs[:3]:
        for kind, dtype in (("unw", "float32"), ("cc", "uint8")):
            with MemoryFile(
                fetch(find_file(f"{portal}/interferograms/{pair}/{pair}.geo.{kind}.tif"))
            ) as file:
                with file.open() as raster:
                    assert raster.dtypes == (dtype,)
                    assert raster.crs == rasterio.crs.CRS.from_epsg(4326)


def test_a_track_lists_its_frames_and_a_frame_its_folders(portal: str, server: ArchiveServer) -> None:
    track, frame = portal.rsplit("/", 1)
    assert FRAME.id in names_in(get(f"{track}/").text, r"\d{3}[AD]_\d{5}_\d{6}")
    assert str(FRAME.track) in names_in(get(server.licsar_url).text, r"\d{1,3}")
    assert names_in(get(f"{portal}/").text, r"[a-z]+") == ["epochs", "interferograms", "metadata"]
    assert get(f"{portal}/interferograms").url == f"{portal}/interferograms/"  # as Apache redirects
    assert frame == FRAME.id
