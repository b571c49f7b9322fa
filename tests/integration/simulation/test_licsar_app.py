"""Tests of the simulated portal with an independent downloader."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import rasterio
import requests
from typer.testing import CliRunner

from hephaestus_build.cli.archive import app
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.settings import load_settings
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.server.embedded import serve_embedded_archive
from hephaestus_build.simulation.server.static_export import write_static_archive
from hephaestus_build.simulation.world.frame_catalog import ORDINARY_FRAME, STRIPMAP_FRAME
from hephaestus_build.simulation.world.world import World

FRAME, TRACK = STRIPMAP_FRAME, "203"
WANTED = ("geo.diff_pha.tif", "geo.cc.tif")


class Hrefs(HTMLParser):
    """All links of a page, as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]


def hrefs(page: str) -> list[str]:
    parser = Hrefs()
    parser.feed(page)
    return parser.found


class Downloader:
    """Independent downloader: lists names, compares sizes and dates by HEAD, follows links."""

    def __init__(self, root: str, folder: Path) -> None:
        self.home = f"{root}{TRACK}/{FRAME}"
        self.folder = folder
        self.session = requests.Session()
        self.fetched: list[str] = []
        self.missing: list[str] = []

    def names(self, kind: str, length: int) -> list[str]:
        answer = self.session.get(f"{self.home}/{kind}/")
        answer.raise_for_status()
        names = {href[:length] for href in hrefs(answer.text)}
        return sorted(name for name in names if re.fullmatch(r"\d{8}(_\d{8})?", name))

    def resolve(self, url: str) -> str | None:
        if self.session.head(url).status_code == 200:
            return url
        folder, _, name = url.rpartition("/")
        page = self.session.get(folder)
        if page.status_code != 200:
            return None
        return next((href for href in hrefs(page.text) if href.rpartition("/")[2] == name), None)

    def bring(self, url: str, target: Path) -> None:
        found = self.resolve(url)
        if found is None:
            self.missing.append(target.name)
            return
        head = self.session.head(found)
        size, written = int(head.headers["Content-Length"]), head.headers["Last-Modified"]
        stamp = target.with_suffix(".stamp")
        if target.exists() and target.stat().st_size == size and stamp.read_text() == written:
            return
        answer = self.session.get(found)
        answer.raise_for_status()
        assert len(answer.content) == size
        target.write_bytes(answer.content)
        stamp.write_text(written)
        self.fetched.append(target.name)

    def run(self, most: int) -> None:
        self.fetched, self.missing = [], []
        for name in ("metadata.txt", f"{FRAME}.geo.hgt.tif", "baselines"):
            self.bring(f"{self.home}/metadata/{name}", self.folder / name)
        for pair in self.names("interferograms", 17)[-most:]:
            for suffix in WANTED:
                name = f"{pair}.{suffix}"
                self.bring(f"{self.home}/interferograms/{pair}/{name}", self.folder / name)


@pytest.fixture(scope="module")
def world() -> World:
    return World(size=(60, 70))


@pytest.fixture(scope="module", params=["directories-table", "directories-pre", "links-table", "links-pre"])
def server(request: pytest.FixtureRequest, world: World) -> Iterator[ArchiveServer]:
    layout, listing = request.param.split("-")
    archive = SimulatedArchive(world, layout=layout, listing=listing)
    with ArchiveServer(archive) as running:
        yield running
    archive.close()


def test_a_plain_downloader_works_with_both_layouts(
    server: ArchiveServer, world: World, tmp_path: Path
) -> None:
    user = Downloader(server.licsar_url, tmp_path)
    assert user.names("interferograms", 17) == [pair.name for pair in world.pairs(FRAME)]
    assert user.names("epochs", 8) == [f"{day:%Y%m%d}" for day in world.scene(FRAME).epochs]
    user.run(most=5)
    assert len(user.fetched) == 2 + 5 * len(WANTED)
    assert user.missing == ["baselines"]  # this frame has none
    for pair in world.pairs(FRAME)[-5:]:
        with rasterio.open(tmp_path / f"{pair}.geo.diff_pha.tif") as raster:
            assert (raster.read(1) == world.phase(FRAME, pair)).all()
    user.run(most=5)
    assert user.fetched == []


def test_replaced_files_differ_in_date_and_are_fetched_again(
    server: ArchiveServer, world: World, tmp_path: Path
) -> None:
    user = Downloader(server.licsar_url, tmp_path)
    user.run(most=2)
    pair = world.pairs(FRAME)[-1]
    revision = server.archive.reprocess(FRAME, pair)
    user.run(most=2)
    assert user.fetched == [f"{pair}.{suffix}" for suffix in WANTED]
    with rasterio.open(tmp_path / user.fetched[0]) as raster:
        assert (raster.read(1) == world.phase(FRAME, pair, revision)).all()


def test_pairs_arrive_go_and_come_back(server: ArchiveServer, world: World, tmp_path: Path) -> None:
    user = Downloader(server.licsar_url, tmp_path)
    every = user.names("interferograms", 17)
    server.archive.publish_until("20191231")
    some = user.names("interferograms", 17)
    assert some == [name for name in every if name[9:] <= "20191231"]
    assert max(user.names("epochs", 8)) <= "20191231"
    server.archive.withdraw(FRAME, some[0])
    assert user.names("interferograms", 17) == some[1:]
    assert user.resolve(f"{user.home}/interferograms/{some[0]}/{some[0]}.geo.cc.tif") is None
    server.archive.restore(FRAME, some[0])
    server.archive.publish_until(None)
    assert user.names("interferograms", 17) == every


def test_listings_have_rows_dates_and_the_usual_furniture(server: ArchiveServer, world: World) -> None:
    page = requests.get(f"{server.licsar_url}{TRACK}/{FRAME}/interferograms/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "Parent Directory" in page.text
    assert "?C=M;O=A" in page.text
    pair = world.pairs(FRAME)[0]
    slash = "/" if server.archive.layout == "directories" else ""
    row = next(line for line in page.text.splitlines() if f'href="{pair}{slash}"' in line)
    written = world.frame_files(FRAME).modified_time(pair.secondary)
    assert f"{written:%Y-%m-%d %H:%M}" in row


def test_folders_want_a_slash_and_files_do_not(server: ArchiveServer, world: World) -> None:
    home = f"{server.licsar_url}{TRACK}/{FRAME}"
    moved = requests.get(f"{home}/interferograms", allow_redirects=False)
    assert (moved.status_code, moved.headers["Location"]) == (301, f"{home}/interferograms/")
    assert requests.get(f"{home}/metadata/metadata.txt").text.startswith("master=")
    assert requests.get(f"{home}/metadata/metadata.txt/").status_code == 404
    pair = world.pairs(FRAME)[0]
    for nothing in (
        "interferograms/20010101_20010113",
        "epochs/19990101",
        "other",
        f"interferograms/{pair}/x.tif",
    ):
        assert requests.get(f"{home}/{nothing}").status_code == 404
    for bad in ("199/nothing/", f"{TRACK}/{ORDINARY_FRAME}/interferograms/", "../annotations", "%2e%2e/x"):
        assert requests.get(f"{server.licsar_url}{bad}").status_code == 404


def test_frames_are_found_from_the_top(server: ArchiveServer) -> None:
    assert {"198/", "201/", "203/"} <= set(hrefs(requests.get(server.licsar_url).text))
    assert f"{FRAME}/" in hrefs(requests.get(f"{server.licsar_url}{TRACK}/").text)


def test_link_files_look_as_they_do_since_2025(world: World) -> None:
    with ArchiveServer(SimulatedArchive(world, layout="links")) as server:
        pair = world.pairs(FRAME)[0]
        page = requests.get(f"{server.licsar_url}{TRACK}/{FRAME}/interferograms/{pair}")
        assert page.headers["Content-Type"] == "text/plain"
        assert parsedate_to_datetime(page.headers["Last-Modified"]).date() > pair.secondary
        lines = page.text.splitlines()
        assert all(re.fullmatch(r"<a href='[^']+/([^'/]+)'>\1</a><br />", line) for line in lines)
        kinds = [line.rpartition("</a>")[0].rpartition(".")[2] for line in lines]
        assert kinds == sorted(kinds)  # pictures, then rasters
        by_kind = {href.rpartition(".")[2]: href for href in hrefs(page.text)}
        assert f"/LiCSAR_products.public/{TRACK}/{FRAME}/interferograms/{pair}/" in by_kind["png"]
        assert f"/neodc/comet/data/licsar_products/{TRACK}/{FRAME}/{pair}/" in by_kind["tif"]
        assert by_kind["png"].split("/")[2] != by_kind["tif"].split("/")[2]  # another host
        newest = requests.get(f"{server.licsar_url}{TRACK}/{FRAME}/interferograms/{world.pairs(FRAME)[-1]}")
        assert all("LiCSAR_products.public" in href for href in hrefs(newest.text))

        before = by_kind["tif"]
        assert requests.get(before).status_code == 200
        server.archive.move_storage()
        assert requests.get(before).status_code == 404
        after = requests.get(page.url).text
        assert all(requests.get(href).status_code == 200 for href in hrefs(after))
        server.archive.close()


def test_hostile_links_can_be_put_into_a_listing(world: World) -> None:
    archive = SimulatedArchive(world)
    archive.extra_links[FRAME] = [
        "../../../etc/",
        "http://elsewhere.invalid/20190307_20190319/",
        "20190307_2019",
    ]
    with ArchiveServer(archive) as server:
        found = hrefs(requests.get(f"{server.licsar_url}{TRACK}/{FRAME}/interferograms/").text)
        assert set(archive.extra_links[FRAME]) <= set(found)
        other = hrefs(requests.get(f"{server.licsar_url}198/{ORDINARY_FRAME}/interferograms/").text)
        assert not set(archive.extra_links[FRAME]) & set(other)
    archive.close()


def test_products_can_be_faulty(world: World, tmp_path: Path) -> None:
    pair = world.pairs(FRAME)[0]
    with ArchiveServer(world=world) as server:
        url = f"{server.licsar_url}{TRACK}/{FRAME}/interferograms/{pair}/{pair}.geo.cc.tif"
        true = requests.get(url).content
        server.faults.add(r"\.cc\.tif$", faults.truncate_body(0.6), times=1)
        (tmp_path / "cut.tif").write_bytes(requests.get(url).content)
        with rasterio.open(tmp_path / "cut.tif") as raster, pytest.raises(rasterio.errors.RasterioIOError):
            raster.read(1)  # it opens and cannot be read
        server.faults.add(r"\.cc\.tif$", faults.serve_html(), times=1)
        assert requests.get(url).text.startswith("<!DOCTYPE html>")
        assert requests.get(url).content == true
        assert [entry.status for entry in server.log] == [200] * 4


def test_what_was_made_is_kept_and_nothing_half_made(world: World, tmp_path: Path) -> None:
    pair = world.pairs(FRAME)[0]
    archive = SimulatedArchive(world, cache=tmp_path)
    made = archive.product_path(FRAME, "interferograms", pair.name, f"{pair}.geo.cc.tif")
    assert made is not None
    before = made.stat().st_ino
    archive.close()
    again = SimulatedArchive(world, cache=tmp_path).product_path(
        FRAME, "interferograms", pair.name, made.name
    )
    assert again is not None
    assert again.stat().st_ino == before
    assert not list(tmp_path.rglob(".draft-*"))
    own = SimulatedArchive(world)
    assert own.product_path(FRAME, "interferograms", pair.name, made.name) is not None
    own.close()
    assert not own.folder.exists()


def test_many_at_once_get_the_same(world: World) -> None:
    pair = world.pairs(FRAME)[3]
    with ArchiveServer(world=world) as server:
        url = f"{server.licsar_url}{TRACK}/{FRAME}/interferograms/{pair}/{pair}.geo.diff_pha.tif"
        bodies: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: bodies.append(requests.get(url).content)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(bodies) == 8
    assert len(set(bodies)) == 1


def test_all_archives_hang_under_one_address(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    with serve_embedded_archive(load_settings(), world=world) as served:
        settings = served.for_simulated()
        assert settings.embedded_archive is not None
        assert settings.embedded_archive.frames == world.frames
        assert served.licsar_url == load_settings().licsar_url  # for real frames
        assert requests.get(settings.licsar_url).status_code == 200
        assert settings.annotations is not None
        assert requests.get(settings.annotations).content[:2] == b"\x1f\x8b"
        assert requests.get(f"{settings.arco_url}/.zmetadata").json()["zarr_consolidated_format"] == 1
        inside = settings.licsar_url
    assert load_settings().licsar_url != inside
    with pytest.raises(requests.ConnectionError):
        requests.get(inside)


def test_a_proxy_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    with serve_embedded_archive(load_settings(), world=world) as served:
        assert requests.get(served.for_simulated().licsar_url).status_code == 200
    assert os.environ["no_proxy"] == "example.org"


# as plain files


@contextmanager
def static(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}"
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize("layout", ["directories", "links"])
def test_the_tree_can_be_served_by_any_static_server(layout: str, tmp_path: Path) -> None:
    world = World(size=(40, 50), epochs=4, frames=[FRAME])
    archive = SimulatedArchive(world, layout=layout)  # type: ignore[arg-type]
    (tmp_path / "tree").mkdir()
    (tmp_path / "user").mkdir()
    with static(tmp_path / "tree") as base:
        write_static_archive(archive, tmp_path / "tree", base=base)
        user = Downloader(f"{base}/LiCSAR_products/", tmp_path / "user")
        user.run(most=99)
        assert len(user.fetched) == 2 + len(WANTED) * len(world.pairs(FRAME))
        pair = world.pairs(FRAME)[0]
        with rasterio.open(tmp_path / "user" / f"{pair}.geo.diff_pha.tif") as raster:
            assert (raster.read(1) == world.phase(FRAME, pair)).all()
        assert requests.get(f"{base}/annotations.tar.gz").content == archive.annotations()
    archive.close()


# the command


def test_the_command_lists_and_writes(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["list", "--json"])
    assert listed.exit_code == 0, listed.output
    frames = json.loads(listed.stdout)["frames"]
    assert [frame["frame"] for frame in frames] == list(World().frames)
    assert all(frame["simulated"] for frame in frames)
    assert ORDINARY_FRAME in CliRunner().invoke(app, ["list"]).output
    arguments = ["write", str(tmp_path), "--frame", FRAME, "--size", "40x50", "--epochs", "3"]
    written = CliRunner().invoke(app, arguments)
    assert written.exit_code == 0, written.output
    assert (tmp_path / "LiCSAR_products" / TRACK / FRAME / "metadata" / "metadata.txt").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--size", "vast"],
        ["list", "--frame", "124D_04854_171313"],
        ["serve", "--layout", "spiral"],
        ["write", "{folder}", "--oddity", "gremlin"],
        ["write", "{folder}/file/below", "--frame", FRAME, "--size", "40x50", "--epochs", "2"],
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, [part.format(folder=tmp_path) for part in arguments])
    assert isinstance(result.exception, HephaestusError)
    assert "\n" not in str(result.exception)


def test_a_port_in_use_is_said(world: World) -> None:
    with ArchiveServer(world=world) as server:
        result = CliRunner().invoke(app, ["serve", "--port", str(server.port), "--size", "40x50"])
    assert isinstance(result.exception, HephaestusError)
    assert "--port" in str(result.exception)


def test_the_command_serves_until_it_is_ended() -> None:
    code = "from hephaestus_build.cli.archive import app; app()"
    arguments = ["serve", "--port", "0", "--size", "40x50", "--frame", FRAME]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = dict(
            line.removeprefix("export ").rstrip().split("=", 1)
            for line in (process.stdout.readline() for _ in range(5))
        )
        assert set(lines) >= {"HEPHAESTUS_LICSAR_URL", "CDSAPI_URL", "CDSAPI_KEY", "HEPHAESTUS_ARCO_URL"}
        page = requests.get(f"{lines['HEPHAESTUS_LICSAR_URL']}{TRACK}/{FRAME}/metadata/metadata.txt")
        assert "simulated=true" in page.text
        process.terminate()
        assert process.wait(timeout=200) == 0


def test_pairs_parse_where_names_are_given(world: World) -> None:
    pair = world.pairs(FRAME)[0]
    archive = SimulatedArchive(world)
    assert archive.reprocess(FRAME, pair.name) == archive.revision(FRAME, Pair.parse(pair.name)) == 1
    archive.close()
