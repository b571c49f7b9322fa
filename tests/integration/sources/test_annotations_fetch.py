"""Tests of downloading annotations over HTTP, and of finding the downloaded ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation_files import good_file, tar_of
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer
from hephaestus_build.sources.annotations import archive as module
from hephaestus_build.sources.annotations.archive import fetch_annotations, find_annotations

ETNA = Frame("124D_05291_081406")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tar_of(tmp_path / "served.tar.gz", {"1.json": good_file(1)})


@pytest.fixture
def server(archive: Path) -> Iterator[LoopbackServer]:
    def app(request: HttpRequest) -> HttpResponse | None:
        if request.path == "/annotations.tar.gz":
            return HttpResponse(body=archive)
        if request.path == "/page":
            return HttpResponse(body=b"<html>moved</html>", headers={"Content-Type": "text/html"})
        return None

    with LoopbackServer([app]) as server:
        yield server


def settings_at(tmp_path: Path, **fields: object) -> Settings:
    return Settings(data_dir=tmp_path / "data", retries=0, timeout=5, **fields)  # type: ignore[arg-type]


def test_the_published_archive_comes_to_where_it_is_found(
    tmp_path: Path, archive: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "PUBLISHED_SHA256", digest)
    monkeypatch.setattr(
        module, "PUBLISHED_URLS", (f"{server.base_url}/gone", f"{server.base_url}/annotations.tar.gz")
    )
    settings = settings_at(tmp_path)
    assert len(find_annotations(settings)) == 0
    path = fetch_annotations(settings)
    assert path == tmp_path / "data" / "annotations.tar.gz"
    assert path.read_bytes() == archive.read_bytes()
    assert len(find_annotations(settings).for_frame(ETNA)) == 1


def test_another_archive_at_the_published_address_is_refused(
    tmp_path: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PUBLISHED_URLS", (f"{server.base_url}/annotations.tar.gz",))
    with pytest.raises(HephaestusError, match=r"SHA-256 is .* expected 55c80a96"):
        fetch_annotations(settings_at(tmp_path))
    assert not (tmp_path / "data" / "annotations.tar.gz").exists()


def test_annotations_at_an_address_are_fetched_when_needed_and_never_pass_for_the_published_ones(
    tmp_path: Path, server: LoopbackServer
) -> None:
    settings = settings_at(tmp_path, annotations=f"{server.base_url}/annotations.tar.gz")
    assert len(find_annotations(settings, ETNA).for_frame(ETNA)) == 1
    asked = len(server.log)
    assert len(find_annotations(settings, ETNA).for_frame(ETNA)) == 1
    assert len(server.log) == asked
    assert len(find_annotations(settings_at(tmp_path))) == 0


@pytest.mark.parametrize(("path", "reason"), [("/page", "corrupt"), ("/gone", "absent")])
def test_what_cannot_be_fetched_is_one_line(
    tmp_path: Path, server: LoopbackServer, path: str, reason: str
) -> None:
    with pytest.raises(HephaestusError, match=reason) as caught:
        fetch_annotations(settings_at(tmp_path), url=server.base_url + path)
    assert "\n" not in str(caught.value)
    assert "; asked http://127.0.0.1" in str(caught.value)
    assert "HEPHAESTUS_ANNOTATIONS" in str(caught.value)


def test_a_named_archive_that_is_not_there_is_an_error_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(HephaestusError, match="nowhere"):
        find_annotations(settings_at(tmp_path, annotations=str(tmp_path / "nowhere.tar.gz")))


def test_a_changed_file_is_read_again(tmp_path: Path, archive: Path) -> None:
    settings = settings_at(tmp_path, annotations=str(archive))
    assert len(find_annotations(settings)) == 1
    tar_of(archive, {"1.json": good_file(1), "2.json": good_file(2)})
    assert len(find_annotations(settings)) == 2


def test_nobody_asks_the_world_for_an_archive_on_this_machine(tmp_path: Path) -> None:
    settings = settings_at(tmp_path, licsar_url="http://127.0.0.1:1/LiCSAR_products/")
    assert len(find_annotations(settings, ETNA, needed=True)) == 0
