"""Tests of the pace of a cluster in the archive's own log of requests, with workers killed meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster_archive import archive_of, frames_of
from hephaestus_build.download.request_pace import RATE_WINDOW
from hephaestus_build.performance.dask_processes import PATIENCE, DaskProcesses
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.http_server import RequestLogEntry

PORTAL = "/LiCSAR"
#: Seconds that the archive waits before it sends anything of a response.
DELAY = 0.2


def most_at_once(log: list[RequestLogEntry]) -> int:
    """Return how many requests were under way at one time at most.

    Each was for :data:`DELAY` seconds and a little longer, which the server cannot tell: a client may begin
    its next request before the server knows that the response was sent.
    """
    changes = sorted([(entry.started, 1) for entry in log] + [(entry.started + DELAY, -1) for entry in log])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def most_in_a_window(log: list[RequestLogEntry]) -> int:
    """Return how many requests began in any ten seconds at most."""
    begun = sorted(entry.started for entry in log)
    return max(sum(first <= other <= first + RATE_WINDOW for other in begun) for first in begun)


def build_paced(
    folder: Path, workers: int, *, frames: int, rate: float, connections: int, kill_at: tuple[int, ...] = ()
) -> list[RequestLogEntry]:
    """Build frames of an archive that takes its time; return the log of its portal.

    At each number of requests in `kill_at` a worker is killed, and another one joins.
    """
    limits = {"HEPHAESTUS_REQUESTS_PER_SECOND": str(rate), "HEPHAESTUS_CONNECTIONS": str(connections)}
    with archive_of(frames) as server:
        environment = {**os.environ, **server.environment(), **limits}
        server.faults.add(PORTAL, faults.delay_response(DELAY))
        with DaskProcesses(folder / "cluster", environment) as cluster:
            started = [cluster.add_worker(wait=False) for _ in range(workers)]
            cluster.wait_for_workers(workers)
            names = [str(frame) for frame in frames_of(server)]
            with (folder / "command.log").open("wb") as log:
                command = subprocess.Popen(
                [sys.executable, "-m", "hephaestus_build", "build", *names, "--no-quicklook", "--cluster",
                 cluster.address, "--data-dir", str(folder / "data")],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
            left = list(kill_at)
            chance = random.Random(7)
            end = time.monotonic() + 3 * PATIENCE
            while command.poll() is None:
                assert time.monotonic() < end
                if left and sum(entry.path.startswith(PORTAL) for entry in list(server.log)) >= left[0]:
                    del left[0]
                    doomed = started.pop(chance.randrange(len(started)))
                    doomed.kill()
                    started.append(cluster.add_worker(wait=False))
                time.sleep(0.05)
            assert command.returncode == 0, (folder / "command.log").read_text()
            assert not left
        return [entry for entry in server.log if entry.path.startswith(PORTAL)]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_all_workers_together_keep_the_pace_while_one_is_killed(tmp_path, workers):
    log = build_paced(tmp_path, workers, frames=4, rate=6.0, connections=3, kill_at=(20,))
    assert most_at_once(log) <= 3
    assert most_in_a_window(log) <= 60
    assert len(log) > 40


@pytest.mark.slow
def test_twenty_workers_keep_the_pace_of_one_while_some_are_killed(tmp_path):
    log = build_paced(tmp_path, 20, frames=24, rate=6.0, connections=4, kill_at=(60, 100, 140, 180))
    assert most_at_once(log) <= 4
    assert most_in_a_window(log) <= 60
