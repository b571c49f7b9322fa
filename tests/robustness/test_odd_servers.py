"""Tests of whole builds from servers with odd answers: the cube is the same, and nothing is fetched twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from archives import ALL, FRAME, asked, objects, reached, settings_for
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.progress import NullListener
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.simulation.server.named_faults import NAMED_FAULTS, named_fault

#: Oddities of a server that change nothing.
HARMLESS = (
    "gzip", "deflate", "etags", "weak-etags", "no-head", "head-404", "head-length-0", "charset", "coding",
    "http10", "chunked", "whole-range", "no-date", "bad-date", "future-date", "bom", "crlf",
)  # fmt: skip
#: Oddities that a build names, and how.
NAMED = {
    "brotli": r"compressed \(br\)",
    "html": "not a directory listing",
    "empty": "not a directory listing",
    "busy": "503",
    "forbidden": "403",
    "gone": "404",
    "emptied-listing": "its listing is empty",
    "cut-listing": "not a directory listing",
    "landing-page": "redirected to|no such frame",
}


@pytest.fixture(scope="module")
def clean(archive, tmp_path_factory):
    """The objects of a cube from a server without faults."""
    with reached(archive):
        settings = settings_for(tmp_path_factory.mktemp("clean"))
        assert build(ALL, settings).exit_code == 0
        return objects(settings)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_oddity_changes_no_cube_and_nothing_is_fetched_again(
    archive, upstream, clean, tmp_path, name
):
    pattern, fault = named_fault(name)
    rule = archive.faults.add(pattern, fault)
    settings = settings_for(tmp_path)
    assert build(ALL, settings).exit_code == 0
    assert objects(settings) == clean
    assert check_upstream(FRAME, settings, NullListener()) == []
    archive.clear_log()
    assert build(ALL, settings).published is False
    assert asked(archive) == set()
    # a new cube from the cache: what is there is not transferred again
    shutil.rmtree(settings.cubes_dir)
    before = {path: path.stat().st_mtime_ns for path in settings.downloads_dir.rglob("*.tif")}
    assert build(ALL, settings).exit_code == 0
    assert objects(settings) == clean
    assert {path: path.stat().st_mtime_ns for path in settings.downloads_dir.rglob("*.tif")} == before
    assert rule.hits > 0


@pytest.mark.parametrize("name", NAMED)
def test_other_oddities_are_named_in_one_line(archive, upstream, tmp_path, name):
    archive.faults.add(*named_fault(name))
    (run,) = build_frames([ALL], settings_for(tmp_path, retries=0))
    assert run.exit_code == 1
    assert re.search(NAMED[name], run.error), run.error
    assert "\n" not in run.error


def test_every_named_fault_has_its_line_and_a_wrong_name_says_which_there_are():
    for name, item in NAMED_FAULTS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert item.description
        assert re.compile(item.pattern)
    with pytest.raises(UsageError, match="no such fault: gzpi; did you mean gzip"):
        named_fault("gzpi")
    with pytest.raises(UsageError, match="not a regular expression"):
        named_fault("gzip=[")
    assert named_fault("gzip=cc[.]tif$")[0] == "cc[.]tif$"


def test_a_served_archive_plays_faults(tmp_path: Path):
    words = ["archive", "serve", "--port", "0", "--size", "40x50", "--frame", FRAME.id, "--epochs", "3"]
    words += ["--fault", "head-404=/interferograms/$", "--fault", "gzip"]
    with (
        subprocess.Popen(
            [sys.executable, "-m", "hephaestus_build", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        ) as process,
        requests.Session() as session,
    ):
        try:
            url = process.stdout.readline().strip().partition("=")[2].strip("'")
            listing = f"{url}{FRAME.track}/{FRAME}/interferograms/"
            session.trust_env = False
            assert session.head(listing, timeout=10).status_code == 404
            metadata = f"{url}{FRAME.track}/{FRAME}/metadata/metadata.txt"
            with session.get(metadata, timeout=10, stream=True) as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                assert answer.raw.read(2) == b"\x1f\x8b"
        finally:
            process.terminate()
