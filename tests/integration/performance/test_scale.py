"""Tests of the measurement of many frames: the whole of it with five frames, and its arithmetic."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from hephaestus_build.performance.part_workers import PartWorkers
from hephaestus_build.performance.scale_report import (
    evaluate_scale_targets,
    full_scale_days,
    render_scale_report,
)
from hephaestus_build.performance.scale_suite import ScaleBenchmark, count_requests
from task_runner import run_here


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        suite = ScaleBenchmark(
            folder,
            5,
            epochs=4,
            active=0.4,
            rate=20,
            kill_every=None,
            frames_per_part=3,
            workers=2,
            run_task=run_here,
        )
        found = suite.run()
    assert not list(folder.iterdir())
    return found


def test_every_cube_is_the_same_whoever_built_it(result):
    assert result["built_pairs"] == 60
    assert result["equal_frames"] == result["equal_frames_on_cluster"] == 5
    assert result["objects"] > 60
    assert result["by_parts"]["parts"] == 2
    assert 0 < result["on_cluster"]["scheduler_cpu"] < result["on_cluster"]["seconds"]
    assert [number for number, _ in result["one_worker"]["memory"]] == [1, 2, 3, 4, 5]


def test_a_round_asks_each_frame_once_for_its_listing_and_nothing_else(result):
    every = result["round"]
    assert (every["listings"], every["requests"], every["asked_again"]) == (5, 5, 0)
    assert every["seconds"] > 4 / 20


def test_a_usual_round_leaves_quiet_frames_out(result):
    usual = result["usual_round"]
    assert usual["listings"] == usual["requests"] < 5


def test_status_and_plan_count_the_pairs_of_all_frames(result):
    assert result["pairs_per_frame"] == 6
    for command in ("status", "plan"):
        assert (result[command]["frames"], result[command]["pairs"]) == (5, 30)


def test_the_page_says_that_the_data_is_simulated_and_what_was_reached(result):
    assert result["simulated"]
    page = render_scale_report(result)
    assert "**Simulated data.** 5 frames" in page
    assert "5 and 5 of 5 cubes are equal" in page
    assert "| the scheduler of a cluster, leases of requests included | 0." in page
    for item in evaluate_scale_targets(result):
        assert f"| {item['what']} | {item['target']:g} | {item['reached']:.3g} |" in page
    json.dumps(result)


def test_a_cube_that_differs_misses_its_target(result):
    worse = {**result, "equal_frames": 4, "equal_frames_on_cluster": 3}
    found = [item for item in evaluate_scale_targets(worse) if "differs" in item["what"]]
    assert [(item["reached"], item["met"]) for item in found] == [(1, False), (2, False)]


# killed the first time of each part, since it waits; then it does its part
SCRIPT = """
import sys, time
from pathlib import Path
folder, (_, part) = Path(sys.argv[1]), sys.argv[2:]
begun = folder / f"begun-{part.replace('/', '-')}"
if not begun.exists():
    begun.touch()
    time.sleep(600)
with (folder / "done").open("a") as done:
    done.write(part + "\\n")
"""


def test_a_part_whose_worker_is_killed_is_begun_again(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    workers = PartWorkers(command, 3, 2, {}, tmp_path / "log", kill_every=0.5)
    assert workers.run() > 1
    assert set((tmp_path / "done").read_text().split()) == {"1/3", "2/3", "3/3"}
    assert workers.kills >= 3


def test_a_part_that_fails_is_said(tmp_path):
    workers = PartWorkers([sys.executable, "-c", "raise SystemExit(1)"], 1, 2, {}, tmp_path / "log")
    with pytest.raises(RuntimeError, match="part 1 of 1 ended with 1; see "):
        workers.run()


def asked(path, started):
    return SimpleNamespace(path=path, started=started)


def test_requests_are_counted_by_frame_and_by_window():
    log = [
        asked("/a/interferograms/", 0.0),
        asked("/b/interferograms/", 9.9),
        asked("/a/interferograms/", 10.1),
    ]
    log.append(asked("/a/metadata/metadata.txt", 30.0))
    counted = count_requests(log)
    assert counted == {"requests": 4, "listings": 2, "asked_again": 1, "requests_in_window": 2}


def test_a_million_pairs_take_days_at_the_pace_whatever_the_number_of_machines():
    days = full_scale_days(4.0)
    assert days["requests"] == 3_008_000
    assert days["days_of_requests"] == pytest.approx(8.9, abs=0.1)
    assert days["days_of_transfer"] == pytest.approx(days["days_of_transfer_in_all"] / 20)
