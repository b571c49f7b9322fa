"""Tests of a work pool with two workers: one is killed, and runs are late after an outage."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Scheduled

from checkout import ROOT
from hephaestus_build.core.frames import Frame
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import replace_body
from served_flows import ServedFlows, wait_for

pytestmark = [
    pytest.mark.flows,
    pytest.mark.slow,  # minutes: a run is given up after it was silent for a while
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

ORDINARY, OTHER, THIRD = "198A_00210_131313", "201D_02400_131313", "203A_SM_SIMU_S3"
BOUND = 400


@pytest.fixture(scope="module")
def archive():
    with ArchiveServer(epochs=5, size=(80, 90)) as server:
        yield server


class Worker(ServedFlows):
    """A worker of the pool, as on a machine of its own: with its own Prefect home."""

    def __init__(self, home, environment, url):
        super().__init__(home, environment)
        self.url = url
        self.environment |= {
            "PREFECT_API_URL": url,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        }

    def start(self):
        self.home.mkdir(exist_ok=True)
        command = [Path(sys.executable).with_name("prefect"), "worker", "start"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--pool", "hephaestus", "--name", self.home.name, "--limit", "2"],
                cwd=ROOT, env=self.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: "started!" in self.said(), self.said)


@pytest.fixture(scope="module")
def pool(archive, tmp_path_factory):
    """A server with the pool, the deployments and the automation; workers are started by the tests."""
    folder = tmp_path_factory.mktemp("pool")
    environment = {**archive.environment(), "HEPHAESTUS_DATA_DIR": str(folder / "data")}
    environment |= {"HEPHAESTUS_TIMEOUT": "600", "HEPHAESTUS_ERA5": "arco"}
    server = ServedFlows(folder / "server", environment)
    server.home.mkdir()
    with (folder / "server.txt").open("wb") as output:
        server.process = subprocess.Popen(
            [Path(sys.executable).with_name("prefect"), "server", "start", "--port", str(server.port)],
            cwd=ROOT, env=server.environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    workers = [Worker(folder / name, environment, server.url) for name in ("first", "second")]
    wait_for(lambda: server.prefect("work-pool", "ls").returncode == 0, (folder / "server.txt").read_text)
    try:
        for words in (
            ("work-pool", "create", "hephaestus", "--type", "process"),
            ("--no-prompt", "deploy", "--all"),
        ):
            done = server.prefect(*words)
            assert done.returncode == 0, done.stdout + done.stderr
        with server.settings(), get_client(sync_client=True) as client:
            rules = yaml.safe_load((ROOT / "prefect-automations.yaml").read_text())["automations"]
            # as in the file, but for the patience: a report every 30 s here
            (rule,) = [AutomationCore.model_validate(item) for item in rules]
            rule.trigger.within = timedelta(seconds=75)
            client._client.post("/automations/", json=rule.model_dump(mode="json")).raise_for_status()
        yield server, workers, folder
    finally:
        for part in (*workers, server):
            if part.process is not None:
                part.cut_power()


def rasters(archive):
    """How often each raster was sent."""
    paths = (
        entry.path for entry in archive.log if entry.status == 200 and entry.path.endswith((".tif", ".png"))
    )
    return Counter(path.rpartition("/")[2] for path in paths)


def states(server, runs):
    with server.settings(), get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(runs))))
    return [run.state for run in found]


def test_a_run_whose_worker_is_gone_goes_on_at_another_one(pool, archive):
    server, workers, folder = pool
    archive.clear_log()
    pair = archive.archive.pairs(ORDINARY)[-1]
    held, released = Event(), Event()

    def hold(body):
        held.set()
        released.wait(900)
        return body

    archive.faults.add(rf"{pair}\.geo\.cc\.tif$", replace_body(hold), times=1)
    workers[0].start()
    run = server.run(frame=ORDINARY, pairs="all")
    wait_for(held.is_set, workers[0].said, BOUND)
    others = len(archive.archive.pairs(ORDINARY)) - 1
    wait_for(lambda: sum(name.endswith(".geo.cc.tif") for name in rasters(archive)) >= others, archive.log)
    workers[0].cut_power()
    released.set()
    sent = set(rasters(archive))
    archive.clear_log()
    workers[1].start()
    wait_for(lambda: server.state(run).is_final(), lambda: f"{server.state(run)} {workers[1].said()}", BOUND)
    assert server.state(run).name == "Completed", server.state(run).message
    with server.settings(), get_client(sync_client=True) as client:
        assert client.read_flow_run(run).run_count == 2
        names = [state.name for state in client.read_flow_run_states(run)]
    assert "AwaitingRetry" in names
    again = set(rasters(archive)) & sent
    assert not {name for name in again if name.endswith((".diff_pha.tif", ".cc.tif"))} - {
        f"{pair}.geo.diff_pha.tif"
    }
    store = FrameStore(folder / "data" / "simulated" / "cubes", Frame(ORDINARY))
    assert store.published_generation().number == 1


def test_twenty_late_runs_of_a_frame_do_the_work_once(pool, archive):
    server, workers, folder = pool
    for worker in workers:
        if worker.process is not None:
            worker.cut_power()
    archive.clear_log()
    night = datetime.now(UTC) - timedelta(hours=10)
    with server.settings(), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("build-frame/build-frame").id
        runs = [
            client.create_flow_run_from_deployment(
                deployment,
                parameters={"frame": OTHER},
                state=Scheduled(scheduled_time=night + number * timedelta(minutes=30)),
            ).id
            for number in range(20)
        ]
    wait_for(lambda: {state.name for state in states(server, runs)} == {"Late"}, "runs that are late", 120)
    for worker in workers:
        worker.start()
    wait_for(
        lambda: all(state.is_final() for state in states(server, runs)),
        lambda: Counter(state.name for state in states(server, runs)),
        900,
    )
    ended = Counter(state.name for state in states(server, runs))
    assert set(ended) <= {"Completed", "Skipped"}, ended
    assert max(rasters(archive).values()) == 1
    store = FrameStore(folder / "data" / "simulated" / "cubes", Frame(OTHER))
    assert store.generation_numbers() == [1]
