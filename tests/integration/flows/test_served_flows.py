"""Tests of `make serve` as a process: stopped, killed and started again, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import delay_response
from served_flows import ServedFlows, wait_for

pytestmark = [
    pytest.mark.flows,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

ORDINARY, OTHER = "198A_00210_131313", "201D_02400_131313"
#: Seconds: far more than a run takes, far less than the years of a leaked slot.
BOUND = 240


@pytest.fixture(scope="module")
def archive():
    with ArchiveServer(epochs=4, size=(80, 90), frames=[ORDINARY, OTHER]) as server:
        yield server


@pytest.fixture(scope="module")
def served(archive, tmp_path_factory):
    """`make serve` with the archive; all tests of this file share it, and some start it again."""
    folder = tmp_path_factory.mktemp("served")
    data = {"HEPHAESTUS_DATA_DIR": str(folder / "data"), "HEPHAESTUS_DATA_ROOTS": str(folder)}
    flows = ServedFlows(folder / "prefect", {**archive.environment(), **data, "HEPHAESTUS_TIMEOUT": "600"})
    flows.folder = folder
    flows.start()
    try:
        yield flows
        flows.stop(signal.SIGINT)
        wait_for(lambda: not flows.processes(), lambda: f"left behind: {flows.processes()}", 30)
    finally:
        flows.cut_power()


def test_the_documented_command_builds_with_a_proxy_that_does_not_answer(served):
    """The short form, watched to its end, in small letters; the archive is asked as settings say."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy")
    done = served.prefect(
        *("deployment", "run", "build-frame", "-p", f"frame={ORDINARY.lower()}", "-p", "limit=1", "--watch"),
        **dict.fromkeys(proxies, "http://127.0.0.1:9"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Completed" in done.stdout + done.stderr


def test_a_run_of_an_unknown_volcano_is_one_line_in_the_terminal_of_serve(served):
    before = len(served.said())
    run = served.run(frame="Etnaa")
    wait_for(lambda: served.state(run).is_final(), lambda: served.state(run), BOUND)
    assert served.state(run).is_failed()
    wait_for(lambda: "did you mean 'Etna'" in served.said()[before:], served.said, 60)
    time.sleep(2)  # a traceback would follow
    assert "Traceback" not in served.said()[before:]


def test_a_second_one_ends_with_one_line(served):
    second = served.run_again()
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 2
    assert second.stderr.splitlines()[-1].startswith("hephaestus: `make serve` is at work already")
    assert served.process.poll() is None


@pytest.mark.parametrize("ending", ["power cut", "SIGTERM"])
def test_runs_go_on_after_a_stop_that_held_every_slot(served, archive, ending):
    folder = served.folder / ending.replace(" ", "")
    archive.faults.add(r"/interferograms/?$", delay_response(600))
    try:
        held = [served.run(frame=frame, data_dir=str(folder)) for frame in (ORDINARY, OTHER)]
        wait_for(lambda: served.slots("licsar") == 2, "two runs that hold both slots")
        if ending == "SIGTERM":
            served.stop(signal.SIGTERM)
            left = served.processes()
            assert not left
        else:
            served.cut_power()
            leases = served.home / "concurrency_leases"
            leases.joinpath("expirations.json").write_text("{")  # half of it was written
            leases.joinpath("expirations.lock").write_text("1")  # of a process whose number another has now
    finally:
        archive.faults.clear()
    served.start()
    run = served.run(frame=ORDINARY, limit=1, data_dir=str(folder))
    wait_for(lambda: served.state(run).is_final(), lambda: served.state(run), BOUND)
    assert served.state(run).name == "Completed", served.state(run).message
    assert {served.state(earlier).name for earlier in held} <= {"Crashed", "Cancelled"}
    with served.settings(), get_client(sync_client=True) as client:
        assert not client.read_deployment_by_name("watch/watch").paused


def test_it_ends_with_one_line_when_its_server_is_killed(served):
    (server,) = [process for process in served.processes() if b"guarded_server" in command_line(process)]
    os.kill(server, signal.SIGKILL)
    assert wait_for(lambda: served.process.poll() is not None, served.said, 180)
    assert served.process.returncode == 1
    assert "has ended, see" in served.said().splitlines()[-1]
    assert not served.processes()
    served.start()


def command_line(process):
    return Path(f"/proc/{process}/cmdline").read_bytes()
