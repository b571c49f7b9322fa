"""Full resolution in a site: what is fetched, checked, kept and left out; with a registry made here."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from archives import FRAME, copied, settings_for
from hephaestus_build.core.errors import UsageError
from hephaestus_build.pages.site import full_resolution
from hephaestus_build.pages.site.full_resolution import parse_cubes_url
from hephaestus_build.pages.site.write_site import WrittenSite, write_site
from npm_archives import pack, pinned

NAMES = {"zarrita": "9.9.9", "@zarrita/storage": "1.2.3", "fzstd": "4.5.6"}
SCRIPT = b"export const nothing = 0;\n"
VENDORED = {
    f"vendor/{folder}/{name}"
    for folder in ("zarrita-9.9.9", "zarrita-storage-1.2.3", "fzstd-4.5.6")
    for name in ("LICENSE", "dist/src/index.js")
}
Writer = Callable[..., WrittenSite]


class Registry:
    """Archives in a folder, by the paths that a registry has, and what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / pinned(content, name, NAMES[name]).archive
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    made = Registry(tmp_path / "registry")
    packages = []
    for name, version in NAMES.items():
        content = pack({"package/LICENSE": f"MIT, {name}".encode(), "package/dist/src/index.js": SCRIPT})
        made.put(name, content)
        packages.append(pinned(content, name, version))
    monkeypatch.setattr(full_resolution, "PACKAGES", tuple(packages))

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=made.folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}")
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def write(whole_cube: Path, tmp_path: Path) -> Writer:
    data = copied(whole_cube, tmp_path / "data")

    def run(*, full_resolution: bool = True, **options: Any) -> WrittenSite:
        settings = settings_for(data, retries=0)
        return write_site(
            [FRAME], settings, tmp_path / "site", newest=3, full_resolution=full_resolution, **options
        )

    return run


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def links_of(folder: Path) -> list[str]:
    page = (folder / f"frames/{FRAME}.html").read_text(encoding="utf-8")
    return re.findall(r'<a href="(\.\./full\.html[^"]*)"', page)


def test_scripts_stand_in_the_site_with_their_licences_and_the_pages_lead_to_it(registry, write):
    done = write()
    assert done.full_resolution
    assert not done.left_out
    assert files_of(done.folder) >= {"full.html", *VENDORED}
    assert (done.folder / "vendor/zarrita-storage-1.2.3/LICENSE").read_text() == "MIT, @zarrita/storage"
    layers = [link.rpartition("=")[2] for link in links_of(done.folder)]
    assert layers == ["phase", "coherence"]
    page = (done.folder / "full.html").read_text(encoding="utf-8")
    assert ">SIMULATED</span>" in page
    assert "http" not in page.partition("<footer>")[2].partition("<script")[0]


def test_a_second_site_asks_nobody_and_writes_nothing_again(registry, write):
    before = write()
    assert sorted(registry.asked) == [
        "/@zarrita/storage/-/storage-1.2.3.tgz",
        "/fzstd/-/fzstd-4.5.6.tgz",
        "/zarrita/-/zarrita-9.9.9.tgz",
    ]
    times = {name: (before.folder / name).stat().st_mtime_ns for name in files_of(before.folder)}
    registry.asked.clear()
    again = write()
    assert (again.made, again.removed, registry.asked) == ((), 0, [])
    changed = {name for name, time in times.items() if (again.folder / name).stat().st_mtime_ns != time}
    assert changed <= {"index.html", "status.json", ".hephaestus-site.jsonl"}


def test_a_package_that_was_tampered_with_is_refused_and_all_else_is_written(registry, write):
    registry.put("fzstd", pack({"package/LICENSE": b"MIT", "package/dist/src/index.js": b"evil()"}))
    done = write()
    assert "fzstd 4.5.6" in done.left_out
    assert "not the pinned archive" in done.left_out
    assert not done.full_resolution
    assert not any(name.startswith(("vendor", "full")) for name in files_of(done.folder))
    assert not links_of(done.folder)
    assert done.made == (FRAME.id,)


def test_without_a_registry_the_command_says_why_in_one_line_and_writes_the_rest(
    hephaestus, whole_cube, tmp_path, registry, monkeypatch
):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/npm/")
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    data = copied(whole_cube, tmp_path / "data")
    words = ("site", "--out", str(tmp_path / "site"), "--data-dir", str(data), "--full-resolution")
    code, said, problem = hephaestus(*words, "--json")
    assert code == 1
    assert json.loads(said)["full_resolution"] is False
    [line] = [line for line in problem.splitlines() if "full resolution" in line]
    assert "http://127.0.0.1:9/npm/" in line
    assert "npm_config_registry" in line
    assert (tmp_path / "site" / f"frames/{FRAME}.html").is_file()


def test_what_was_asked_for_before_is_removed_when_it_is_no_longer(registry, write):
    write()
    done = write(full_resolution=False)
    assert done.made == (FRAME.id,)
    assert not links_of(done.folder)
    assert not any(name.startswith(("vendor", "full")) for name in files_of(done.folder))


def test_unfinished_scripts_of_a_killed_run_are_removed(registry, write):
    folder = write().folder
    left = folder / "vendor/zarrita-9.9.9/dist/src/.index.js.0123456789ab"
    left.write_text("unfinished")
    write()
    assert not left.exists()


def test_the_command_says_where_the_cubes_belong(hephaestus, whole_cube, tmp_path, registry):
    data = copied(whole_cube, tmp_path / "data")
    words = ("site", "--out", str(tmp_path / "site"), "--data-dir", str(data), "--full-resolution")
    code, _, problem = hephaestus(*words)
    assert code == 0
    assert "rsync" in problem
    (tmp_path / "site" / "cubes").symlink_to(data / "simulated" / "cubes")
    assert "rsync" not in hephaestus(*words)[2]
    code, _, problem = hephaestus(*words, "--cubes-url", "https://cubes.example:8443/all")
    assert (code, "rsync" in problem) == (0, False)
    page = (tmp_path / "site" / "full.html").read_text(encoding="utf-8")
    assert "connect-src &#x27;self&#x27; https://cubes.example:8443;" in page
    assert '"cubes":"https://cubes.example:8443/all/"' in page
    assert hephaestus(*words[:-1], "--cubes-url", "https://cubes.example")[0] == 2


@pytest.mark.parametrize(
    "text", ["https://me:word@a.example/", "https://a.example/?sig=1", "ftp://a.example", "https://a;b/"]
)
def test_an_address_that_no_page_may_hold_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_cubes_url(text)
    assert "word" not in str(caught.value)
