"""Tests of sites of frames that were built: what is written when, and what is left alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import jsonschema
import pytest

from archives import FRAME, copied, settings_for
from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.registry import load_schema
from hephaestus_build.operations.status import FrameStatus
from hephaestus_build.pages.site import site_frames
from hephaestus_build.pages.site import write_site as writing
from hephaestus_build.pages.site.site_folder import JOURNAL
from hephaestus_build.pages.site.write_site import WrittenSite, write_site
from hephaestus_build.pipeline.missing_products import MissingProduct

PAGE = f"frames/{FRAME}.html"
Writer = Callable[..., WrittenSite]


@pytest.fixture
def data(whole_cube: Path, tmp_path: Path) -> Path:
    return copied(whole_cube, tmp_path / "data")


@pytest.fixture
def write(data: Path, tmp_path: Path) -> Writer:
    def run(*frames: str, **options) -> WrittenSite:
        chosen = [Frame(name) for name in frames] or [FRAME]
        return write_site(chosen, settings_for(data), tmp_path / "site", newest=3, **options)

    return run


def files_of(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_site_has_its_pages_and_the_second_run_makes_none_again(write, tmp_path):
    done = write()
    assert done.made == (FRAME.id,)
    before = files_of(done.folder)
    assert {PAGE, "index.html", "status.json", "atom.xml"} <= before.keys()
    assert sum(name.startswith("pictures/") for name in before) == 3
    assert sum(name.startswith("volcanoes/") for name in before) == done.volcanoes > 0
    status = json.loads((done.folder / "status.json").read_text())
    jsonschema.validate(status, load_schema("site_status.json"))
    assert status["simulated"] is True
    again = write()
    after = files_of(done.folder)
    assert (again.made, again.removed, again.failed) == ((), 0, {})
    assert {name for name in before if before[name] != after[name]} <= {"index.html", "status.json", JOURNAL}


def test_every_page_is_marked_as_simulated(write):
    folder = write().folder
    for path in folder.rglob("*.html"):
        assert ">SIMULATED</span>" in path.read_text(encoding="utf-8"), path
        assert "(SIMULATED)" in path.read_text(encoding="utf-8").split("</title>")[0], path
    assert "SIMULATED" in (folder / "atom.xml").read_text()


def test_all_links_of_a_site_lead_somewhere(write):
    folder = write().folder
    pages = list(folder.rglob("*.html"))
    links = 0
    for page in pages:
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            if not link.startswith(("data:", "#")):
                assert (page.parent / link.partition("#")[0]).is_file(), (page, link)
                links += 1
    assert links > 15


def test_a_page_is_made_again_where_it_is_missing_or_the_program_is_another(write, tmp_path, monkeypatch):
    write()
    (tmp_path / "site" / PAGE).unlink()
    assert write().made == (FRAME.id,)
    monkeypatch.setattr(site_frames, "__version__", "another")
    assert write().made == (FRAME.id,)


def test_a_page_follows_what_its_frame_has_and_owes_and_no_times_of_looks():
    status = FrameStatus("124D_05291_081406", generation=3, pairs=10)
    key = site_frames.key_of_page(status, 60, 0)
    owed = (MissingProduct("pair/20200101_20200113", "x.tif", Outcome.UNREACHABLE, "HTTP 503", ""),)
    for changed in (
        replace(status, generation=4),
        replace(status, owed=owed),
        replace(status, gone=("20200101_20200113",)),
        replace(status, newest_listed=date(2026, 1, 1)),
    ):
        assert site_frames.key_of_page(changed, 60, 0) != key
    assert site_frames.key_of_page(status, 61, 0) != key
    assert site_frames.key_of_page(status, 60, 1) != key
    looked = replace(
        status, last_look=datetime(2026, 1, 1, tzinfo=UTC), last_run="2026", latency_days=4, bytes=7
    )
    assert site_frames.key_of_page(looked, 60, 0) == key


def test_files_of_others_are_neither_replaced_nor_removed(write, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("mine")
    with pytest.raises(UsageError, match="not written by"):
        write()
    assert (site / "index.html").read_text() == "mine"
    (site / "index.html").unlink()
    (site / "frames").mkdir()
    (site / "frames" / "mine.html").write_text("mine")
    (site / PAGE).write_text("mine")
    done = write()
    assert "move it away" in done.failed[FRAME.id]
    assert (site / PAGE).read_text() == "mine"
    (site / PAGE).unlink()
    assert not write().failed
    (site / "CNAME").write_text("mine")
    page = (site / PAGE).read_text(encoding="utf-8")
    (site / PAGE).write_text(page + "<!-- a note of mine -->", encoding="utf-8")
    assert "move it away" in write().failed[FRAME.id]  # though nothing of the frame has changed
    gone = write("201D_02400_131313")
    assert gone.foreign == (PAGE,)
    assert (site / PAGE).read_text(encoding="utf-8").endswith("mine -->")
    assert (site / "CNAME").is_file()
    assert (site / "frames" / "mine.html").is_file()


def test_the_pages_of_a_frame_that_is_gone_are_removed(write, tmp_path):
    write()
    done = write("201D_02400_131313")
    assert not (tmp_path / "site" / PAGE).exists()
    assert not list((tmp_path / "site" / "pictures").glob(f"{FRAME}*"))
    assert done.removed > 3
    index = (tmp_path / "site" / "index.html").read_text()
    assert "not built" in index
    assert FRAME.id not in index


def test_a_damaged_record_is_named_and_its_page_of_before_stays(write, data, tmp_path):
    write()
    store = (settings_for(data).cubes_dir / f"{FRAME}.zarr").resolve()
    for place in (store, store.parent):
        (place / "provenance.json").unlink()  # other generations may hold the same file
        (place / "provenance.json").write_bytes(b"damaged")
    done = write()
    assert FRAME.id in done.failed
    assert (tmp_path / "site" / PAGE).is_file()
    [known] = json.loads((tmp_path / "site" / "status.json").read_text())["frames"]
    assert (known["page"], known["generation"]) == (PAGE, None)
    assert known["problem"]


def test_a_run_that_is_stopped_is_continued(write, tmp_path, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(writing, "render_index_page", stop)
        with pytest.raises(Stopped):
            write()
    with (tmp_path / "site" / JOURNAL).open("a") as journal:
        journal.write('{"file": "frames/')  # a line that was cut
    site = tmp_path / "site"
    left = [site / f"frames/.{FRAME}.html.0123456789ab", site / ".index.html.0123456789ab"]
    others = [site / f"cubes/.{FRAME}.html.0123456789ab", site / ".notes.0123456789ab"]
    (site / "cubes").mkdir()
    for path in (*left, *others):
        path.write_text("unfinished")
    assert (tmp_path / "site" / PAGE).is_file()
    done = write()
    assert (done.made, done.failed) == ((), {})
    assert [path.exists() for path in (*left, *others)] == [False, False, True, True]
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_journal_from_elsewhere_removes_nothing_outside(write, tmp_path):
    write()
    precious = tmp_path / "precious.html"
    precious.write_text("mine")
    line = {"file": "../precious.html", "hash": hash_bytes(b"mine")}
    with (tmp_path / "site" / JOURNAL).open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    write()
    assert precious.read_text() == "mine"


def test_a_site_is_never_written_among_cubes_and_may_stand_above_them(hephaestus, data, monkeypatch):
    monkeypatch.chdir(data.parent)  # paths are relative there
    home = f"{data.name}/simulated"
    words = ("site", "--simulated", "--data-dir", data.name, "--out")
    code, _, problem = hephaestus(*words, f"{home}/cubes")
    assert code == 2
    assert "among the published ones" in problem
    assert not (data / "simulated/cubes/index.html").exists()
    assert hephaestus(*words, home)[0] == 0
    assert (data / "simulated/index.html").is_file()


def test_a_link_in_the_folder_is_not_written_through(write, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "frames").symlink_to(elsewhere)
    assert FRAME.id in write().failed
    assert not list(elsewhere.iterdir())


def test_what_stands_beside_is_linked_and_the_benchmark_is_a_page(write, tmp_path):
    with pytest.raises(HephaestusError, match=r"cannot be read \(No such file or directory\)"):
        write(benchmark=tmp_path / "missing")
    assert not (tmp_path / "site").exists()  # said before any page is made
    (tmp_path / "site" / "catalog").mkdir(parents=True)
    (tmp_path / "site" / "catalog" / "README.md").write_text("card")
    (tmp_path / "leaderboard.csv").write_text("model,mean\nresnet18,0.5\n")
    folder = write(benchmark=tmp_path).folder
    index = (folder / "index.html").read_text()
    assert 'href="catalog/README.md"' in index
    assert not (folder / "data-card.html").exists()  # it has no YAML in front, so it is none
    assert 'href="benchmark.html"' in index
    assert "resnet18" in (folder / "benchmark.html").read_text()
    (folder / "catalog" / "README.md").write_text("---\npretty_name: all\n---\n\n# The pairs\n\ncard\n")
    write()
    assert not (folder / "benchmark.html").exists()
    assert 'href="data-card.html"' in (folder / "index.html").read_text()
    assert "<p>card</p>" in (folder / "data-card.html").read_text()
    (folder / "catalog" / "README.md").unlink()
    write()
    assert not (folder / "data-card.html").exists()


def test_a_site_is_of_real_or_of_simulated_cubes(write, data, tmp_path):
    write()
    journal = tmp_path / "site" / JOURNAL
    head, *lines = journal.read_text().splitlines()
    journal.write_text("\n".join([head.replace('"simulated":true', '"simulated":false'), *lines]) + "\n")
    with pytest.raises(UsageError, match="real"):
        write()


def test_the_command_says_what_it_did(hephaestus, data, tmp_path):
    code, said, _ = hephaestus(
        "site", "--out", str(tmp_path / "site"), "--data-dir", str(data), "--base-url", "https://a.example/b"
    )
    assert code == 0
    assert "(simulated)" in said
    assert "https://a.example/b/frames/" in (tmp_path / "site" / "atom.xml").read_text()
    shutil.rmtree(data / "simulated" / "cubes")
    code, _, problem = hephaestus("site", "--out", str(tmp_path / "site"), "--data-dir", str(data))
    assert code == 1
    assert "hephaestus build" in problem
    assert (tmp_path / "site" / PAGE).is_file()
