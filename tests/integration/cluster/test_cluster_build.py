"""Tests of builds on a Dask cluster of separate processes, with one data folder and a scratch folder each."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from archives import objects
from cluster_archive import archive_of, frames_of
from hephaestus_build.cluster import connection
from hephaestus_build.cluster.cluster_build import build_on_cluster
from hephaestus_build.core import extras
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.storage.generations import LOCK_HOLDER_FILE, FrameStore
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.performance.dask_processes import PATIENCE, DaskProcesses
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.archive_server import ArchiveServer

RASTER = r"\.tif$"


@pytest.fixture(scope="module")
def served() -> Iterator[ArchiveServer]:
    with archive_of(4) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(served: ArchiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("HEPHAESTUS_", "CDSAPI_")):
                patch.delenv(name)
        with DaskProcesses(tmp_path_factory.mktemp("cluster"), served.environment()) as started:
            started.add_worker(wait=False)
            started.add_worker()
            yield started


@pytest.fixture(scope="module")
def plain(served: ArchiveServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list]]:
    """The objects of the same cubes, built without a cluster."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in served.environment().items():
            patch.setenv(name, value)
        settings = load_settings(data_dir=folder).for_simulated()
        requests = [BuildRequest(frame) for frame in frames_of(served)]
        assert [run.exit_code for run in build_frames(requests, settings)] == [0, 0, 0, 0]
    return {str(frame): objects(settings, frame) for frame in frames_of(served)}


@pytest.fixture(autouse=True)
def environment(served: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    served.reset()
    for name, value in served.environment().items():
        monkeypatch.setenv(name, value)


def names_of(served: ArchiveServer) -> list[str]:
    return sorted(map(str, frames_of(served)))


def built(data: Path, served: ArchiveServer) -> dict[str, dict[str, list]]:
    settings = load_settings(data_dir=data).for_simulated()
    return {str(frame): objects(settings, frame) for frame in frames_of(served)}


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "hephaestus_build", "build", "--no-quicklook", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job, which may run the tests, ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return its exit code, output and errors."""
    said, errors = command.communicate(timeout=PATIENCE)
    return command.returncode, said, errors


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for_rasters(served: ArchiveServer, count: int) -> None:
    wait_until(lambda: sum(entry.path.endswith(".tif") for entry in list(served.log)) >= count)


def pids_at_work(data: Path) -> set[int]:
    """Return the processes that hold or held the lock of a frame."""
    pids = set()
    for path in data.glob(f"simulated/cubes/.generations/*/{LOCK_HOLDER_FILE}"):
        with suppress(ValueError):  # it is just being written
            pids.add(json.loads(path.read_text())["pid"])
    return pids


def test_frames_are_built_by_the_workers_as_without_them(served, cluster, plain, tmp_path):
    data = tmp_path / "data"
    names = names_of(served)
    code, said, errors = ended(
        start("-v", *names, "--data-dir", str(data), "--cluster", cluster.address, "--json")
    )
    assert code == 0, errors
    assert sorted(run["frame"] for run in json.loads(said)["frames"]) == names
    assert built(data, served) == plain
    lines = [json.loads(line) for line in (data / "simulated/runs.jsonl").read_text().splitlines()]
    assert sorted(line["frame"] for line in lines) == names
    assert "2 workers of the cluster" in errors
    assert "4 frames: 4 built, 0 failed" in errors
    assert "MB fetched" in errors or "kB fetched" in errors  # by the workers
    for name in names:
        assert re.search(rf"{name}: the archive lists .*\(worker tcp://127\.0\.0\.1:", errors)  # of the log
        assert f"{name}: ERA5 from the Climate Data Store" in errors  # a note
    assert not list((data / "simulated").glob(".cluster-*"))


def test_frames_of_one_tile_on_different_workers_share_their_requests_to_the_cds(
    served, cluster, plain, tmp_path, monkeypatch
):
    monkeypatch.setenv("HEPHAESTUS_ERA5_AREA", "tile")
    names = names_of(served)[::3]  # at one place
    served.cds.jobs.clear()
    served.cds.queue_polls = 2
    code, _, errors = ended(start(*names, "--data-dir", str(tmp_path), "--cluster", cluster.address))
    assert code == 0, errors
    asked = [(*job.inputs["area"], job.inputs["month"][0]) for job in served.cds.jobs.values()]
    assert len(asked) == len(set(asked)) > 1
    assert len({tuple(area) for *area, _ in asked}) == 1
    settings = load_settings(data_dir=tmp_path).for_simulated()
    assert {name: objects(settings, Frame(name)) for name in names} == {name: plain[name] for name in names}


class Recorder:
    """A listener that counts steps."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.steps: Counter[str] = Counter()

    def stage(self, name: str, total: int) -> None:
        self.totals[name] = self.totals.get(name, 0) + total

    def advance(self, name: str, steps: int = 1) -> None:
        self.steps[name] += steps

    def note(self, text: str) -> None:
        pass


def test_every_step_of_a_frame_reaches_the_caller(served, cluster, tmp_path):
    frame = frames_of(served)[0]
    seen = Recorder()
    settings = load_settings(data_dir=tmp_path).for_simulated()
    (run,) = build_on_cluster([BuildRequest(frame)], settings, cluster.address, listener=seen)
    assert run.exit_code == 0
    assert {f"{frame}: {name}" for name in ("DEM", "interferograms", "atmosphere", "overviews")} <= set(
        seen.totals
    )
    assert seen.totals == seen.steps


def test_the_frame_of_a_killed_worker_goes_on_elsewhere(served, cluster, plain, tmp_path):
    data = tmp_path / "data"
    served.faults.add(RASTER, faults.delay_response(0.3))
    doomed = cluster.add_worker()
    command = start(*names_of(served), "--data-dir", str(data), "--cluster", cluster.address)
    wait_until(lambda: doomed.pid in pids_at_work(data))
    wait_for_rasters(served, 8)
    doomed.kill()
    code, _, errors = ended(command)
    assert code == 0, errors
    assert "goes on on another worker" in errors
    assert built(data, served) == plain
    rasters = [entry.path for entry in served.log if entry.path.endswith(".tif")]
    assert len(rasters) <= len(set(rasters)) + 4  # asked again: no more than were being sent


def test_ctrl_c_stops_the_frames_and_leaves_the_cluster(served, cluster, plain, tmp_path):
    options = (*names_of(served), "--data-dir", str(tmp_path / "data"), "--cluster", cluster.address)
    # long enough for the signal to come before the end on a busy machine
    served.faults.add(RASTER, faults.delay_response(1.0))
    command = start(*options)
    wait_for_rasters(served, 8)
    command.send_signal(signal.SIGINT)
    code, _, errors = ended(command)
    assert code == 130
    assert errors.splitlines()[-1] == "hephaestus: stopped; the same command goes on from here"
    asked = len(served.log)
    time.sleep(1.5)
    assert len(served.log) == asked
    served.faults.clear()
    code, _, errors = ended(start(*options))
    assert code == 0, errors
    assert "worker" in errors.splitlines()[0]
    assert built(tmp_path / "data", served) == plain


def test_a_frame_that_another_build_works_on_is_skipped_as_without_a_cluster(served, cluster, tmp_path):
    first, *_ = names_of(served)
    settings = load_settings(data_dir=tmp_path).for_simulated()
    with FrameStore(settings.cubes_dir, Frame(first)).lock():
        code, said, _ = ended(
            start(first, "--data-dir", str(tmp_path), "--cluster", cluster.address, "--json")
        )
    assert code == 1
    assert "another build is running" in json.loads(said)["frames"][0]["error"]
    assert not (tmp_path / "simulated/runs.jsonl").exists()


@pytest.fixture
def other_version(tmp_path: Path) -> dict[str, str]:
    """Variables of an environment with another version of this package."""
    about = tmp_path / "other/hephaestus_build-9.9.dist-info/METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: hephaestus-build\nVersion: 9.9\n")
    return {"PYTHONPATH": str(about.parents[1])}


def test_a_scheduler_of_another_version_is_named(served, other_version, tmp_path):
    with DaskProcesses(tmp_path / "cluster", scheduler_environment=other_version) as cluster:
        cluster.add_worker()
        code, _, errors = ended(
            start(*names_of(served), "--data-dir", str(tmp_path), "--cluster", cluster.address)
        )
    (line,) = errors.splitlines()
    assert code == 1
    assert line.startswith(
        f"hephaestus: the scheduler at {cluster.address} has hephaestus-build 9.9, this command"
    )


def test_workers_that_cannot_build_are_named_before_the_first_frame(served, cluster, other_version, tmp_path):
    unfit = [
        cluster.add_worker(environment={"HEPHAESTUS_RETRIES": "7"}, wait=False),
        cluster.add_worker(environment=other_version),
    ]
    try:
        code, _, errors = ended(
            start(*names_of(served), "--data-dir", str(tmp_path / "data"), "--cluster", cluster.address)
        )
    finally:
        for worker in unfit:
            worker.kill()
            worker.wait()
    (line,) = errors.splitlines()
    assert code == 1
    assert line.startswith("hephaestus: the worker tcp://127.0.0.1:")
    assert "cannot build: it has hephaestus-build 9.9, this command is of " in line
    assert line.endswith("(1 other worker cannot either)")
    assert [entry for entry in served.log if "/LiCSAR" in entry.path] == []


def test_a_worker_that_joins_later_and_cannot_build_gets_no_frame(served, cluster, plain, tmp_path):
    served.faults.add(RASTER, faults.delay_response(0.3))
    data = tmp_path / "data"
    command = start(*names_of(served), "--data-dir", str(data), "--cluster", cluster.address)
    wait_for_rasters(served, 2)
    worker = cluster.add_worker(environment={"HEPHAESTUS_RETRIES": "7"})
    try:
        code, _, errors = ended(command)
    finally:
        worker.kill()
        worker.wait()
    assert code == 0, errors
    assert built(data, served) == plain


def test_a_scheduler_that_ends_is_one_line_and_the_build_goes_on_with_another(served, plain, tmp_path):
    served.faults.add(RASTER, faults.delay_response(0.3))
    options = (*names_of(served), "--data-dir", str(tmp_path / "data"), "--cluster")
    with DaskProcesses(tmp_path / "first") as cluster:
        cluster.add_worker()
        command = start(*options, cluster.address)
        wait_for_rasters(served, 3)
        cluster.scheduler.kill()
        code, _, errors = ended(command)
        assert code == 1
        assert errors.splitlines()[-1].startswith(
            "hephaestus: the connection to the scheduler at tcp://127.0.0.1"
        )
        assert "Traceback" not in errors
    served.faults.clear()
    code, _, errors = ended(start(*options, "local:2"))
    assert code == 0, errors
    assert built(tmp_path / "data", served) == plain


def test_no_scheduler_is_one_line(served, tmp_path, hephaestus, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
    code, _, errors = hephaestus(
        "build", *names_of(served), "--data-dir", str(tmp_path), "--cluster", "tcp://127.0.0.1:1"
    )
    (line,) = errors.splitlines()
    assert code == 1
    assert line.startswith("hephaestus: no Dask scheduler answers at tcp://127.0.0.1:1 (")


def test_what_is_no_cluster_and_a_missing_extra_are_one_line(served, tmp_path, hephaestus, monkeypatch):
    options = ("build", *names_of(served), "--data-dir", str(tmp_path), "--cluster")
    code, _, errors = hephaestus(*options, "four")
    assert code == 2
    assert errors.startswith("hephaestus: --cluster 'four' is no cluster")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    code, _, errors = hephaestus(*options, "local:2")
    (line,) = errors.splitlines()
    assert code == 1
    assert line.startswith("hephaestus: --cluster needs distributed, which is not installed; `pip install ")
