"""Tests of `plan --all`: what the cubes of many frames cost, without asking an archive."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import json_page
from archives import copied
from hephaestus_build.core.registry import published_frames
from hephaestus_build.simulation.server.archive_server import ArchiveServer

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("plan --all asks no archive")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def outlook(hephaestus: Command, *words: str) -> dict[str, Any]:
    code, out, err = hephaestus("plan", "--json", *words)
    assert code == 0, err
    answer = json.loads(out)
    assert not json_page.differences("plan", answer)
    assert answer["frames"] == []
    return answer["outlook"]


@pytest.mark.usefixtures("offline")
def test_the_published_data_set_is_planned_offline(hephaestus: Command, tmp_path: Path) -> None:
    data = ["--data-dir", str(tmp_path)]
    whole = outlook(hephaestus, "--all", *data)
    assert whole["wanted"] == sum(known.annotations for known in published_frames().values()) == 19919
    assert (whole["in_cube"], whole["listed_frames"], whole["to_fetch"]) == (0, 0, 19919)
    # docs/operating.md: 0.23 TB to download, 0.38 TB of cubes
    assert 0.22e12 < whole["download_bytes"] < 0.25e12
    assert 0.37e12 < whole["disk_bytes"] < 0.40e12
    assert whole["requests_per_second"] == 4
    assert 0.24 < whole["pace_seconds"] / whole["portal_requests"] < 0.26
    assert sum(item["download_bytes"] for item in whole["frames"]) == whole["download_bytes"]
    parts = [outlook(hephaestus, "--published", "--part", f"{number}/3", *data) for number in (1, 2, 3)]
    assert sum(part["download_bytes"] for part in parts) == whole["download_bytes"]
    code, out, err = hephaestus("plan", "--all", *data)
    assert code == 0
    assert "4 a second: 4 h 1" in out
    assert "\n38 frames: 38 new\n" in out
    assert ("the disk is too small" in err) == (whole["free_bytes"] < whole["disk_bytes"])


def test_kept_listings_and_cubes_count(
    hephaestus: Command, tmp_path: Path, upstream: ArchiveServer, whole_cube: Path
) -> None:
    data = [
        "--simulated",
        "--all",
        "--pairs",
        "all",
        "--data-dir",
        str(copied(whole_cube, tmp_path / "data")),
    ]
    frame = upstream.archive.world.frames[0]
    assert hephaestus("frames", "--update", *data[:1], *data[-2:])[0] == 0
    pairs = len(upstream.archive.pairs(frame))
    upstream.clear_log()
    known = outlook(hephaestus, *data)
    assert [item["frame"] for item in known["frames"]] == [frame]
    assert (known["wanted"], known["in_cube"], known["to_fetch"]) == (pairs, pairs, 0)
    assert known["listed_frames"] == 1
    assert "1 frame: 1 up to date\n" in hephaestus("plan", *data)[1]
    assert known["download_bytes"] == 0
    assert known["requests_per_second"] is None  # loopback
    first = min(pair.primary for pair in upstream.archive.pairs(frame))
    later = outlook(hephaestus, *data, "--since", f"{first.replace(day=first.day + 1):%Y-%m-%d}")
    assert 0 < later["wanted"] < pairs
    assert not upstream.log


@pytest.mark.usefixtures("offline")
def test_requests_to_the_cds_are_counted_by_frame_or_by_tile(
    hephaestus: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--published", "--data-dir", str(tmp_path)]
    assert outlook(hephaestus, *data)["era5"] is None  # ARCO: there is no key
    assert "ARCO-ERA5, whose globes all frames share" in hephaestus("plan", *data)[1]
    monkeypatch.setenv("CDSAPI_KEY", "a-key")
    own = outlook(hephaestus, *data)["era5"]
    monkeypatch.setenv("HEPHAESTUS_ERA5_AREA", "tile")
    shared = outlook(hephaestus, *data)["era5"]
    assert (own["area"], shared["area"]) == ("frame", "tile")
    dates = [known.annotations // 3 + 1 for known in published_frames().values()]
    assert own["requests"] == sum(min(86, count) for count in dates)  # of the months until November 2021
    assert 25 * 40 < shared["requests"] < own["requests"]
    assert shared["bytes"] > own["bytes"]
    said = hephaestus("plan", *data)[1]
    assert f"{shared['requests']} requests to the CDS" in " ".join(said.split())
    assert "tiles that frames share" in " ".join(said.split())


def test_annotated_pairs_that_the_archive_lacks_are_not_to_be_fetched(
    hephaestus: Command, tmp_path: Path, upstream: ArchiveServer, whole_cube: Path
) -> None:
    data = ["--simulated", "--all", "--data-dir", str(copied(whole_cube, tmp_path / "data"))]
    assert hephaestus("frames", "--update", *data[:1], *data[-2:])[0] == 0
    [item] = outlook(hephaestus, *data)["frames"]
    one = json.loads(hephaestus("plan", item["frame"], *data[:1], *data[-2:], "--json")[1])["frames"][0]
    assert (item["wanted"], item["in_cube"], item["to_fetch"]) == (one["wanted"], one["wanted"], 0)
    assert outlook(hephaestus, *data, "--limit", "3")["to_fetch"] == 0
