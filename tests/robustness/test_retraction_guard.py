"""Tests of listings that are emptied, replaced or cut: no cube shrinks, and the command says what it saw."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from archives import ALL, FRAME, asked, copied, frame_store_of, objects, rasters, reached, settings_for
from hephaestus_build.cli import app
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import NullListener
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.upstream_changes import check_upstream, read_upstream_state
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.faults import Fault
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse

OTHER = "199D_02214_131313"
LISTING = rf"/{FRAME}/interferograms/$"
_ROWS = re.compile(rb"(?:<tr>|<a )[^\n]*\d{8}_\d{8}[^\n]*\n")


def edited(change: Callable[[bytes], bytes]) -> Fault:
    """Return a fault that changes the listing's page."""
    return faults.replace_body(change)


def drop_rows(page: bytes, kept: int = 0) -> bytes:
    """Return a listing with only its first `kept` pairs."""
    rows = _ROWS.findall(page)
    for row in rows[kept:]:
        page = page.replace(row, b"")
    assert len(_ROWS.findall(page)) == min(kept, len(rows))
    return page


def elsewhere(request: HttpRequest) -> HttpResponse | None:
    """Serve a landing page, and the listing of another frame with pairs of the same dates."""
    if request.path == "/landing":
        return HttpResponse(200, b"<html><body><a href='/'>Home</a> Welcome</body></html>")
    if request.path.endswith(f"/{OTHER}/interferograms/"):
        rows = b"".join(b'<a href="2019060%d_2019061%d/">x</a>\n' % (day, day) for day in range(1, 9))
        return HttpResponse(200, b"<html>" + rows + b"</html>")
    return None


@dataclass(frozen=True)
class Way:
    """A way in which a listing loses its pairs, and what a build says about it."""

    fault: Fault
    words: str


WAYS = {
    "an empty page": Way(faults.empty_body(), "not a directory listing"),
    "only the parent folder": Way(edited(drop_rows), "lacks 7 of 7"),
    "one pair of seven": Way(edited(lambda page: drop_rows(page, 1)), "lacks 6 of 7"),
    "an error page": Way(faults.serve_html(), "not a directory listing"),
    "an error page with a link home": Way(
        faults.replace_body(b"<html><body><a href='/'>Home</a> Database error</body></html>"),
        "not a directory listing",
    ),
    "JSON": Way(faults.replace_body(b"[]"), "not a directory listing"),
    "404": Way(faults.error_status(404), "404"),
    "403": Way(faults.error_status(403), "403"),
    "503": Way(faults.error_status(503), "503"),
    "cut in the middle": Way(faults.truncate_body(0.5), "not a directory listing"),
    "cut on the way": Way(faults.cut_connection(400), "cut"),
    "a redirect to a landing page": Way(faults.redirect_to("/landing"), "redirected to"),
    "a redirect to the portal's first page": Way(
        faults.redirect_to("/LiCSAR_products/"), r"redirected to \S+/LiCSAR_products/"
    ),
    "a redirect to another frame": Way(
        faults.redirect_to(f"/LiCSAR_products/199/{OTHER}/interferograms/"), "redirected to"
    ),
    "the listing of another frame": Way(
        edited(lambda page: page.replace(FRAME.id.encode(), OTHER.encode())),
        f"listing of {OTHER}",
    ),
    "compressed with an unknown method": Way(faults.compress_body("br"), "compressed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def owing(archive, tmp_path_factory):
    """A data folder with a cube of six complete pairs and one whose coherence is owed, and that pair."""
    folder = tmp_path_factory.mktemp("owing")
    with reached(archive):
        pair = archive.archive.world.pairs(FRAME)[3]
        archive.faults.add(rf"{pair}\.geo\.cc\.tif", faults.error_status(503))
        result = build(ALL, settings_for(folder))
        assert (result.exit_code, result.pairs) == (3, 6)
    return folder, pair


@pytest.fixture
def settings(upstream, archive, owing, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "apps", [elsewhere, *archive.apps])
    return settings_for(copied(owing[0], tmp_path / "data"))


def state(settings) -> tuple[object, ...]:
    """Return what must not change: the generation, its objects, its pairs, and the files in the cache."""
    store = frame_store_of(settings)
    inventory = store.published_generation().read_inventory()
    cache = sorted(str(path) for path in settings.downloads_dir.rglob("*.tif"))
    return store.published_link.resolve(), objects(settings), sorted(inventory.granules), cache


@pytest.mark.parametrize("name", WAYS)
def test_a_listing_that_is_emptied_shrinks_no_cube_and_is_said(archive, settings, owing, name):
    way, before = WAYS[name], state(settings)
    # what was owed stays owed: the products of the pair are not there either
    archive.faults.add(rf"/{owing[1]}/", faults.error_status(404))
    rule = archive.faults.add(LISTING, way.fault)
    (run,) = build_frames([ALL], settings)
    assert rule.hits > 0
    assert run.exit_code == 1
    assert run.error.startswith(f"{FRAME}: ")
    assert "\n" not in run.error
    assert re.search(way.words, run.error), run.error
    assert state(settings) == before
    status = read_frame_status(settings, FRAME)
    assert (status.pairs, status.last_error) == (6, run.error)
    assert [item.unit for item in status.owed] == [f"pair/{owing[1]}"]
    archive.reset()
    archive.clear_log()
    (run,) = build_frames([ALL], settings)  # only what was owed is fetched when the listing is back
    assert (run.exit_code, run.error, run.result.pairs) == (0, "", 7)
    assert asked(archive) <= rasters(owing[1])
    assert read_frame_status(settings, FRAME).last_error == ""


@pytest.mark.parametrize("name", ["only the parent folder", "cut in the middle", "404"])
def test_the_commands_say_what_they_saw(archive, settings, name, monkeypatch):
    before = state(settings)
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(settings.data_dir.parent))
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    archive.faults.add(LISTING, WAYS[name].fault)
    archive.faults.add(r"\.geo\.cc\.tif", faults.error_status(503))
    runner = CliRunner()
    for command in (["build", FRAME.id, "--pairs", "all"], ["watch", FRAME.id, "--once", "--pairs", "all"]):
        shown = runner.invoke(app, command)
        assert shown.exit_code == 1, shown.output
        assert re.search(WAYS[name].words, " ".join(shown.output.split()))
    shown = runner.invoke(app, ["build", FRAME.id, "--pairs", "all", "--json"])
    assert shown.exit_code == 1
    assert state(settings) == before


def test_a_pair_that_is_withdrawn_alone_is_no_retraction(archive, settings, owing):
    archive.archive.withdraw(FRAME, archive.archive.pairs(FRAME)[0])
    archive.archive.withdraw(FRAME, owing[1])
    (run,) = build_frames([ALL], settings)
    assert (run.exit_code, run.error) == (0, "")
    assert (len(run.result.gone), run.result.pairs, run.result.retraction) == (1, 6, "")


def test_a_new_frame_whose_listing_is_empty_says_so(archive, settings):
    fresh = settings.model_copy(update={"data_dir": settings.data_dir.parent / "fresh"})
    archive.faults.add(LISTING, WAYS["only the parent folder"].fault)
    with pytest.raises(HephaestusError, match="its listing is empty"):
        build(ALL, fresh)


@pytest.mark.parametrize("name", ["only the parent folder", "404", "the listing of another frame"])
def test_repair_beside_an_emptied_listing_mends_or_says_and_takes_nothing_out(archive, settings, owing, name):
    store = frame_store_of(settings).published_generation().store
    path = min(store.glob("insar_difference/c.0.*"))
    content = bytearray(path.read_bytes())
    path.unlink()
    path.write_bytes(bytes(content[:-1]) + bytes([content[-1] ^ 1]))
    before = frame_store_of(settings).published_generation().read_inventory().granules.keys()
    archive.faults.add(LISTING, WAYS[name].fault)
    with suppress(HephaestusError):  # one line, without a listing
        assert repair(FRAME, settings).lost == ()
    after = frame_store_of(settings).published_generation().read_inventory().granules.keys()
    assert after == before
    archive.reset()
    repair(FRAME, settings)
    assert build(ALL, settings).pairs == 7


OUTAGES = {
    "404": faults.error_status(404),
    "a page with 200": faults.serve_html(),
    "an empty page": faults.empty_body(),
    "503": faults.error_status(503),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_a_check_during_an_outage_has_nothing_downloaded_again(archive, settings, owing, name):
    build(ALL, settings)
    before = state(settings)
    archive.faults.add(r"^/LiCSAR", OUTAGES[name])
    changes = check_upstream(FRAME, settings, NullListener())
    assert len(changes) == 15
    if name != "404":
        assert all(not change.certain for change in changes), changes[0]
        assert read_upstream_state(frame_store_of(settings)).changed == {}
    archive.reset()
    archive.clear_log()
    result = build(ALL, settings)
    assert (result.exit_code, result.pairs, result.gone) == (0, 7, ())
    assert {entry.status for entry in archive.log if entry.path.endswith(".tif")} <= {304}
    assert state(settings)[1:] == before[1:]
    assert check_upstream(FRAME, settings, NullListener()) == []
    assert read_upstream_state(frame_store_of(settings)).changed == {}


def test_the_log_and_json_of_a_run_have_the_retraction(archive, settings):
    archive.faults.add(LISTING, WAYS["only the parent folder"].fault)
    assert [run.exit_code for run in build_frames([ALL], settings)] == [1]
    logged = json.loads((settings.data_dir / "runs.jsonl").read_text().splitlines()[-1])
    assert logged["exit_code"] == 1
    assert "lacks 7 of 7" in logged["error"]
    assert len(logged["result"]["gone"]) == 6
