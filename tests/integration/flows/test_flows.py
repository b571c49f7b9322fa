"""Tests of the Prefect flows with a real Prefect server on loopback and the simulated archive."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import date
from functools import partial
from pathlib import Path
from threading import Event
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import UUID

import pytest
import xarray as xr
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    LogFilter,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.sorting import LogSort
from prefect.events.worker import EventsWorker
from prefect.exceptions import ParameterTypeError, PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_UI_ENABLED,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Completed, Failed, Pending, Running

import hephaestus_flows.build_frame
from checkout import ROOT
from doc_pages import blocks
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.operations.jobs import read_job_file
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest as BuildRequest
from hephaestus_build.report.quicklook import Quicklook
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import error_status, replace_body
from hephaestus_flows.build_frame import (
    OWED_STATE,
    SKIPPED_STATE,
    STAGE_TASKS,
    build_frame,
    exit_code_for_state,
    plan_task,
    split_into_batches,
)
from hephaestus_flows.build_many import build_dataset, watch
from hephaestus_flows.concurrency_limits import (
    CONCURRENCY_LIMITS,
    create_missing_limits,
    renew_limits,
)
from hephaestus_flows.job_deployments import deploy_jobs
from hephaestus_flows.local_server import ensure_server
from hephaestus_flows.parameter_types import FRAME_NAME_PATTERN
from hephaestus_flows.prefect_plugin import expand_deployment_name
from hephaestus_flows.serve import close_served_runs, make_deployments
from hephaestus_flows.server_api import check_access, is_server_healthy
from served_flows import wait_for

# the first test here starts the server: half a minute, and more on a busy machine
pytestmark = [pytest.mark.flows, pytest.mark.timeout(900)]

ORDINARY = "198A_00210_131313"


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    """Prefect server as started by `make serve`, with a separate home; shared by all tests here."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    with temporary_settings({PREFECT_HOME: home, PREFECT_API_URL: url, PREFECT_SERVER_UI_ENABLED: False}):
        with ensure_server(url, home / "server.log") as server:
            assert server.wait()
            # before any run: Prefect's client remembers for a while that a tag has no limit
            create_missing_limits()
            yield url
            APILogWorker.drain_all()  # unsent records would be retried in vain for a minute at the end
            EventsWorker.drain_all()
    assert not is_server_healthy(url)


@pytest.fixture(scope="module")
def archive():
    with ArchiveServer(epochs=6, size=(80, 90)) as server:
        yield server


@pytest.fixture
def data(upstream, tmp_path, monkeypatch):
    """The folder of the data, with no patience for the archive."""
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    monkeypatch.setenv("HEPHAESTUS_DATA_ROOTS", str(tmp_path))
    for stage in (plan_task, *(task for task, _ in STAGE_TASKS.values())):
        monkeypatch.setattr(stage, "retry_delay_seconds", 0)
    return tmp_path / "data"


@pytest.fixture
def undrawn(monkeypatch):
    """Skip drawing, which takes longest and is the same in every run."""
    picture = Image.new("RGB", (8, 8))

    def save(cube, folder, *, keep):
        done = Quicklook(folder / "picture.png", cube.stem, Pair.parse("20190101_20190113"), 1, asked=False)
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(done.path)
        return done

    monkeypatch.setattr("hephaestus_build.report.quicklook.write_quicklook", save)


@pytest.fixture
def deployed(prefect):
    """The id of the deployment build-frame/build-frame."""
    return make_deployments()[0].apply()


def artifact(state, kind):
    """The artifact of a kind that a run has left."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(
            key=ArtifactFilterKey(any_=[f"{kind}-198a-00210-131313"]),
            flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]),
        )
        (found,) = client.read_artifacts(artifact_filter=wanted)
    return found


def hold_slots(tag, count):
    """Take slots as tasks of a server did that has ended since: without a lease."""
    with get_client(sync_client=True) as client:
        held = GlobalConcurrencyLimitUpdate(active_slots=count)
        client.update_global_concurrency_limit(f"tag:{tag}", held)


def log_lines():
    """Return the newest lines of the logs of runs, which Prefect sends every few seconds."""
    with get_client(sync_client=True) as client:
        return [line.message for line in client.read_logs(LogFilter(), sort=LogSort.TIMESTAMP_DESC)]


def task_runs(state):
    of_run = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return client.read_task_runs(task_run_filter=of_run)


def test_the_flow_builds_the_cube_that_the_command_line_builds(prefect, archive, data, tmp_path):
    state = build_frame(ORDINARY, data_dir=data, return_state=True)
    assert (state.type, state.name) == ("COMPLETED", "Completed"), state.message
    plain = build(BuildRequest(Frame(ORDINARY)), load_settings(data_dir=tmp_path / "plain"))
    assert state.result()["pairs"] == plain.pairs >= 5
    with (
        open_pinned_cube(data / "simulated" / "cubes" / f"{ORDINARY}.zarr") as ours,
        open_pinned_cube(plain.path) as theirs,
    ):
        xr.testing.assert_identical(ours, theirs)

    run = read_last_runs(data / "simulated")[ORDINARY]
    assert (run["exit_code"], run["result"]["pairs"]) == (0, plain.pairs)

    table = artifact(state, "cube")
    assert f'"in the cube": {plain.pairs}' in table.data
    assert "simulated" in table.description
    assert artifact(state, "picture").data.startswith("data:image/webp;base64,")
    assert list((data / "simulated" / "quicklooks").glob(f"{ORDINARY}_*.png"))


def test_what_was_unreachable_is_tried_again_and_what_stays_away_is_owed(prefect, archive, data, undrawn):
    pair = archive.archive.pairs(ORDINARY)[1]
    archive.faults.add(r"/interferograms/?$", error_status(503), times=1)
    archive.faults.add(r"\.geo\.hgt\.tif$", error_status(503), times=1)
    archive.faults.add(rf"{pair}\.geo\.cc\.tif$", error_status(404))
    state = build_frame(ORDINARY, limit=3, data_dir=data, return_state=True)
    assert (state.type, state.name) == ("COMPLETED", OWED_STATE)
    assert f"owed: 1 product, such as {pair}.geo.cc.tif (absent:" in state.message
    assert f"{pair}.geo.cc.tif: absent" in artifact(state, "cube").description
    tries = {run.name.split("-")[0]: run.run_count for run in task_runs(state)}
    assert tries["plan"] == tries["DEM"] == 2
    assert tries["interferograms 1 of 1"] == 1  # what is absent is not asked for again


def test_an_accepted_absence_leaves_a_run_completed(prefect, archive, data, undrawn, monkeypatch):
    archive.faults.add(r"\.geo\.hgt\.tif$", error_status(404))
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", '{"*": ["dem"]}')
    state = build_frame(ORDINARY, limit=1, data_dir=data, return_state=True)
    assert (state.type, state.name) == ("COMPLETED", "Completed")
    assert ([item["unit"] for item in state.result()["accepted"]], state.result()["owed"]) == (
        ["dem/dem"],
        [],
    )
    table = artifact(state, "cube")
    assert "accepted as absent: 1" in table.description
    (row,) = (row for row in json.loads(table.data) if row[""] == "DEM")
    assert (row["absent"], row["accepted"], row["owed"]) == (1, 1, 0)
    state = build_dataset(frames=[ORDINARY], limit=1, data_dir=data, return_state=True)
    assert state.name == "Completed"
    assert "1 whole, 0 owe, 0 failed" in state.message


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (Completed(), 0),
        (Completed(name=OWED_STATE), 3),
        (Completed(name=SKIPPED_STATE), 0),
        (Failed(message="x", data=HephaestusError("x")), 1),
        (Failed(message="x", data=UsageError("x")), 2),
        (Failed(message="x"), 1),
    ],
)
def test_without_a_server_a_run_ends_with_the_code_of_the_command(state, code):
    assert exit_code_for_state(state) == code


def test_a_run_after_a_killed_one_goes_on_from_what_is_finished(prefect, archive, data, undrawn, monkeypatch):
    def killed(job):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(hephaestus_flows.build_frame, "publish", killed)
        assert build_frame(ORDINARY, limit=3, data_dir=data, return_state=True).is_failed()
    assert not (data / "simulated" / "cubes" / f"{ORDINARY}.zarr").exists()
    archive.clear_log()
    state = build_frame(ORDINARY, limit=3, data_dir=data, return_state=True)
    assert state.name == "Completed"
    assert state.result()["pairs"] == 3
    assert not [entry.path for entry in archive.log if entry.path.endswith((".tif", ".nc"))]


def asked(url, data=None, **headers):
    """Status, allowed origin and answer of a request that a browser might send."""
    body = None if data is None else json.dumps(data).encode()
    request = Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        answer = urlopen(request, timeout=60)
    except HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers["Access-Control-Allow-Origin"], answer.read()


def test_pages_of_other_sites_can_start_nothing(prefect, deployed, tmp_path):
    start = f"{prefect}/deployments/{deployed}/create_flow_run"
    run = {"parameters": {"frame": ORDINARY, "data_dir": str(tmp_path)}, "state": {"type": "SCHEDULED"}}
    token = f"{prefect}/csrf-token?client=page"
    for headers in ({"Origin": "http://page.example"}, {"Origin": "null"}, {"Host": "page.example"}):
        assert asked(start, run, **headers)[:2] == (403, None)
        assert asked(token, **headers)[:2] == (403, None)
    assert asked(start, run)[0] == 403  # no token: a form of any page could send this
    own = prefect.removesuffix("/api")
    assert asked(token, Origin=own)[:2] == (200, own)
    assert check_access(prefect) is None


def test_a_folder_elsewhere_is_refused_when_the_run_is_created(prefect, monkeypatch, tmp_path):
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    first, *_, last = make_deployments()
    wrong = {"data_dir": str(tmp_path)}, {"data_dir": f"{tmp_path}/data/../x"}
    wrong_grids = *wrong, {"preset": "/etc/x.yaml"}, {"preset": "../x"}, {"cubes": "/"}, {"results": "/tmp"}
    with get_client(sync_client=True) as client:
        for deployment, choices in ((first.apply(), wrong), (last.apply(), wrong_grids)):
            for chosen in choices:
                frame = {"frame": ORDINARY} if choices is wrong else {}
                with pytest.raises(PrefectHTTPStatusError, match="does not match"):
                    client.create_flow_run_from_deployment(deployment, parameters={**frame, **chosen})


def test_a_folder_elsewhere_is_refused_when_the_run_begins(prefect, data, tmp_path, monkeypatch):
    monkeypatch.delenv("HEPHAESTUS_DATA_ROOTS")
    state = build_frame(ORDINARY, data_dir=data, return_state=True)
    assert state.is_failed()
    assert state.message.startswith(f"data_dir {data} is neither in")
    assert "\n" not in state.message
    assert not data.exists()


def test_what_the_server_keeps_is_private(prefect):
    home = Path(get_current_settings().home)
    for path in (home / "server.log", home / "prefect.db"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_build_that_cannot_be_fails_with_one_line_that_says_why(prefect, data):
    state = build_frame("199A_00001_000001", data_dir=data, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("199A_00001_000001: ")
    assert "\n" not in state.message
    run = read_last_runs(data / "simulated")["199A_00001_000001"]
    assert (run["exit_code"], run["error"]) == (1, state.message)
    with pytest.raises(HephaestusError, match="199A_00001_000001"):
        state.result()


def test_a_wrong_parameter_is_refused_when_the_run_is_created(deployed):
    wrong = {"does not match": {"frame": "124D-04854-171313"}, "limit": {"frame": ORDINARY, "limit": 0}}
    with get_client(sync_client=True) as client:
        for why, parameters in wrong.items():
            with pytest.raises(PrefectHTTPStatusError) as refused:
                client.create_flow_run_from_deployment(deployed, parameters=parameters)
            assert why in refused.value.response.text
        good = client.create_flow_run_from_deployment(deployed, parameters={"frame": ORDINARY, "limit": 2})
        client.delete_flow_run(good.id)


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        (ORDINARY, True),
        (ORDINARY.lower(), True),
        (f" {ORDINARY} ", True),
        ("144a_sm_reun_s6", True),
        ("124D_04854", False),
        ("124X_04854_171313", False),
        ("124D-04854-171313", False),
        ("١٢٤D_04854_171313", False),
        ("", False),
        ("etna", True),
        ("Mauna Loa", True),
        ("./Etna", False),
    ],
)
def test_a_frame_that_the_builder_takes_is_taken_when_a_run_is_created(text, is_taken):
    assert bool(re.search(FRAME_NAME_PATTERN, text)) is is_taken
    if is_taken:
        assert build_frame.validate_parameters({"frame": text})["frame"] == text
        assert isinstance(frame_named(text), Frame)


@pytest.mark.parametrize("day", ["20190604", 20190604, "2019-06-04", date(2019, 6, 4)])
def test_days_are_taken_as_on_the_command_line(day):
    given = {"since": day, "until": day}
    for taken in (
        build_frame.validate_parameters({"frame": ORDINARY, **given}),
        build_dataset.validate_parameters(given),
        watch.validate_parameters({"since": day}),
    ):
        assert taken["since"] == taken.get("until", date(2019, 6, 4)) == date(2019, 6, 4)
    with pytest.raises(ParameterTypeError, match="since"):
        build_frame.validate_parameters({"frame": ORDINARY, "since": "20191304"})


def test_small_letters_blanks_and_days_reach_the_server_and_the_run(deployed, data, undrawn):
    parameters = {"frame": f" {ORDINARY.lower()} ", "since": 20100101, "until": "20400101", "limit": 1}
    with get_client(sync_client=True) as client:
        good = client.create_flow_run_from_deployment(deployed, parameters=parameters)
        client.delete_flow_run(good.id)
    state = build_frame(**parameters, data_dir=data, return_state=True)
    assert state.name == "Completed", state.message
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(state.state_details.flow_run_id).name == ORDINARY
    many = build_dataset([ORDINARY.lower(), ORDINARY], limit=1, data_dir=data, return_state=True)
    assert many.message.startswith("1 frame: 1 whole")
    assert watch([ORDINARY.lower()], pairs="annotated", data_dir=data, return_state=True).is_completed()


def test_a_dataset_is_built_on_a_cluster_as_without_one(prefect, data, tmp_path, caplog):
    state = build_dataset([ORDINARY], limit=1, data_dir=data, cluster="local:1", return_state=True)
    assert state.message == "1 frame: 1 whole, 0 owe, 0 failed"
    assert "can build, 1 frame at once" in caplog.text
    again = build_dataset([ORDINARY], limit=1, data_dir=data, return_state=True)
    assert again.message == state.message
    runs = [json.loads(line) for line in (data / "simulated/runs.jsonl").read_text().splitlines()]
    assert [run["result"]["published"] for run in runs] == [True, False]


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ("tcp://127.0.0.1:1", "is not in the setting clusters; add it to HEPHAESTUS_CLUSTERS"),
        ("local:999", "a flow starts at most 32 workers"),
        ("file:///etc", "is no cluster"),
    ],
)
def test_a_flow_speaks_with_no_other_cluster(prefect, data, cluster, said):
    state = build_dataset([ORDINARY], limit=1, data_dir=data, cluster=cluster, return_state=True)
    assert state.is_failed()
    assert said in state.message


def test_a_volcano_of_no_single_frame_fails_with_the_candidates(prefect, data):
    for text, said in {"Colima": "names 2 frames", "Enta": "did you mean 'Etna'"}.items():
        state = build_frame(text, data_dir=data, return_state=True)
        assert state.is_failed()
        assert said in state.message


class HeldListing:
    """The next listing of an archive, which is held back until it is released, or this block ends."""

    def __init__(self, archive):
        self.asked, self.released = Event(), Event()
        archive.faults.add(r"/interferograms/?$", replace_body(self._hold), times=1)

    def _hold(self, body):
        self.asked.set()
        self.released.wait(600)
        return body

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.released.set()


@pytest.fixture
def listing(archive, data, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_TIMEOUT", "600")
    return HeldListing(archive)


def in_background(pool, *parameters, **options):
    """Run build_frame in another thread, which has the settings of this one."""
    return pool.submit(copy_context().run, partial(build_frame, *parameters, **options, return_state=True))


def test_of_runs_of_one_frame_at_once_one_builds_and_the_others_are_skipped(prefect, listing, data, undrawn):
    with ThreadPoolExecutor(21) as pool, listing:
        first = in_background(pool, ORDINARY, limit=1, data_dir=data)
        assert listing.asked.wait(300)
        others = [in_background(pool, ORDINARY, data_dir=data) for _ in range(20)]
        states = [other.result() for other in others]
    assert {(state.type, state.name) for state in states} == {("COMPLETED", SKIPPED_STATE)}
    assert all(f"another build is running (process {os.getpid()} on" in state.message for state in states)
    assert first.result().name == "Completed"


def test_a_run_is_skipped_where_a_command_builds_and_no_failure_is_recorded(prefect, listing, data, undrawn):
    command = [Path(sys.executable).with_name("hephaestus"), "build", ORDINARY, "--limit", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--no-quicklook", "--data-dir", data], **quiet) as other, listing:
        assert listing.asked.wait(300)
        state = build_frame(ORDINARY, data_dir=data, return_state=True)
        assert (state.type, state.name) == ("COMPLETED", SKIPPED_STATE)
        assert f"process {other.pid} on" in state.message
        for many in (build_dataset, watch):
            state = many([ORDINARY], data_dir=data, return_state=True)
            assert (state.type, state.name) == ("COMPLETED", SKIPPED_STATE)
            assert "1 skipped, where another build is at work" in state.message
        assert not (data / "simulated" / "runs.jsonl").exists()
        with ThreadPoolExecutor(1) as pool, listing:
            waiting = in_background(pool, ORDINARY, limit=1, data_dir=data, wait=True)
            said = f"waiting: {ORDINARY}: another build is running"
            wait_for(lambda: any(line.startswith(said) for line in log_lines()), "a line")
        assert other.wait() == 0
    assert waiting.result().name == "Completed"
    runs = (data / "simulated" / "runs.jsonl").read_text().splitlines()
    assert len(runs) == 2  # of the command and of the flow that waited for it
    assert not any('"error"' in run for run in runs)


def test_a_limit_of_none_at_all_fails_with_one_line(prefect, data):
    """Before the tests that renew limits: Prefect's client remembers for a while that it has seen none."""
    with get_client(sync_client=True) as client:
        create_missing_limits()
        limit = client.read_global_concurrency_limit_by_name("tag:licsar").limit
        client.create_concurrency_limit("licsar", 0)
        try:
            state = build_frame(ORDINARY, limit=1, data_dir=data, return_state=True)
        finally:
            client.create_concurrency_limit("licsar", limit)
    assert state.is_failed()
    assert state.message.startswith("no task may begin")
    assert "`prefect concurrency-limit create licsar 2`" in state.message
    assert "\n" not in state.message


@pytest.fixture
def one_slot(prefect, monkeypatch):
    """A limit of one task at once, for which a run waits without patience."""
    for patience in ("_NOTICE_AFTER", "_NOTICE_EVERY"):
        monkeypatch.setattr(f"hephaestus_flows.concurrency_limits.{patience}", 0.5)
    create_missing_limits()
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("tag:licsar").limit
        client.create_concurrency_limit("licsar", 1)
        yield
        client.create_concurrency_limit("licsar", limit)


def test_a_run_that_waits_for_a_slot_says_who_holds_it(one_slot, listing, data, undrawn):
    with ThreadPoolExecutor(2) as pool, listing:
        first = in_background(pool, ORDINARY, limit=1, data_dir=data)
        assert listing.asked.wait(300)
        second = in_background(pool, "203A_SM_SIMU_S3", limit=1, data_dir=data)
        taken = f"waiting: 1 of 1 slots of the limit licsar are taken ({ORDINARY}: plan"
        (said, *_) = wait_for(lambda: [line for line in log_lines() if line.startswith(taken)], log_lines)
    assert [each.result().name for each in (first, second)] == ["Completed", "Completed"]
    assert "`prefect concurrency-limit create licsar 2` allows one more" in said


def test_a_run_that_waits_for_a_slot_that_no_task_holds_says_how_to_free_it(one_slot, data, undrawn):
    hold_slots("licsar", 1)
    leaked = "by none since a server was stopped"
    with ThreadPoolExecutor(1) as pool:
        waiting = in_background(pool, ORDINARY, limit=1, data_dir=data)
        try:
            (said, *_) = wait_for(lambda: [line for line in log_lines() if leaked in line], log_lines)
        finally:
            renew_limits()
    assert waiting.result().name == "Completed"
    assert "`prefect concurrency-limit delete licsar` and `prefect concurrency-limit create licsar 1`" in said


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("deployment run build-frame -p frame=x", "deployment run build-frame/build-frame -p frame=x"),
        ("deployment run -p a=b --watch watch", "deployment run -p a=b --watch watch/watch"),
        ("--no-prompt deployments run build-frame", "--no-prompt deployments run build-frame/build-frame"),
        ("deployment run build-frame/nightly", None),
        ("deployment run --tag build-frame --id 1", None),
        ("deployment inspect build-frame", None),
        ("flow-run ls", None),
    ],
)  # fmt: skip
def test_a_bare_deployment_name_is_written_in_full(words, meant):
    assert expand_deployment_name(["prefect", *words.split()]) == ["prefect", *(meant or words).split()]


def test_the_stock_command_takes_the_bare_name_and_finds_the_server(prefect, deployed):
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment["PREFECT_SERVER_API_PORT"] = str(urlsplit(prefect).port)
    environment["PREFECT_HOME"] = str(get_current_settings().home)
    command = [Path(sys.executable).with_name("prefect"), "deployment", "run", "build-frame"]
    answer = subprocess.run(
        [*command, "-p", "frame=1nonsense"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "'1nonsense' does not match" in answer.stdout + answer.stderr


def test_a_data_folder_that_vanishes_fails_a_run_with_one_line(prefect, archive, data, undrawn):
    def vanish(body):
        shutil.rmtree(data, ignore_errors=True)
        data.parent.joinpath("data").write_text("")  # so that it stays away
        return body

    archive.faults.add(r"diff_pha", replace_body(vanish), times=1)
    state = build_frame(ORDINARY, limit=1, data_dir=data, return_state=True)
    assert state.is_failed()
    assert "\n" not in state.message
    assert str(data) in state.message
    for state in (
        build_frame(ORDINARY, limit=1, data_dir=data, return_state=True),
        build_dataset([ORDINARY], limit=1, data_dir=data, return_state=True),
        watch([ORDINARY], data_dir=data, return_state=True),
    ):
        assert state.is_failed()
        assert "\n" not in state.message
        assert str(data) in state.message
    data.unlink()
    state = watch(data_dir=data, return_state=True)
    assert (state.type, state.name) == ("COMPLETED", SKIPPED_STATE)
    assert f"there is no folder {data}; is its disk mounted?" in state.message


def test_every_deployment_of_prefect_yaml_is_a_flow_of_its_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    written = yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]
    assert {item["name"] for item in written} == {item.name for item in make_deployments()}
    for item in written:
        assert load_flow_from_entrypoint(item["entrypoint"]).name == item["name"]


def test_limits_that_a_person_has_set_stay(prefect):
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("licsar", CONCURRENCY_LIMITS["licsar"] + 5)
        create_missing_limits()
        limits = {
            tag: client.read_concurrency_limit_by_tag(tag).concurrency_limit for tag in CONCURRENCY_LIMITS
        }
    assert limits == {**CONCURRENCY_LIMITS, "licsar": CONCURRENCY_LIMITS["licsar"] + 5}


def test_renewed_limits_are_as_they_were_with_all_slots_free(prefect):
    create_missing_limits()
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("cds", 7)
        before = client.read_global_concurrency_limit_by_name("tag:cds")
        hold_slots("cds", 7)
        assert client.read_global_concurrency_limit_by_name("tag:cds").active_slots == 7
        renew_limits()
        after = client.read_global_concurrency_limit_by_name("tag:cds")
        assert (after.limit, after.active, after.slot_decay_per_second, after.active_slots) == (7, True, 0, 0)
        assert after.id != before.id
        client.create_concurrency_limit("cds", CONCURRENCY_LIMITS["cds"])


def test_leases_of_slots_are_kept_on_disk(prefect):
    create_missing_limits()
    with get_client(sync_client=True) as client:
        lease = client.increment_concurrency_slots_with_lease(
            names=["tag:cds"], slots=1, mode="concurrency", lease_duration=60
        ).json()["lease_id"]
        home = Path(get_current_settings().home)
        assert (home / "concurrency_leases" / f"{lease}.json").stat().st_mode & 0o077 == 0
        client.release_concurrency_slots_with_lease(lease_id=UUID(lease))


def test_served_runs_that_never_ended_are_marked_and_others_are_left(prefect, deployed):
    with get_client(sync_client=True) as client:
        served, begun, scheduled = (
            client.create_flow_run_from_deployment(deployed, parameters={"frame": ORDINARY}) for _ in range(3)
        )
        manual = client.create_flow_run(build_frame, parameters={"frame": ORDINARY})
        for run in (served, manual):
            client.set_flow_run_state(run.id, Running(), force=True)
        client.set_flow_run_state(begun.id, Pending(), force=True)
        close_served_runs(0)
        assert client.read_flow_run(served.id).state.name == "Crashed"
        assert client.read_flow_run(begun.id).state.name == "Crashed"
        assert client.read_flow_run(scheduled.id).state.type == "SCHEDULED"
        assert client.read_flow_run(manual.id).state.name == "Running"
        client.delete_flow_run(manual.id)


@given(count=st.integers(0, 3000), most=st.integers(1, 40), least=st.integers(1, 20))
def test_batches_hold_everything_in_order_and_are_few(count, most, least):
    made = split_into_batches(range(count), most, least)
    assert [item for batch in made for item in batch] == list(range(count))
    assert len(made) <= most
    assert not made or min(map(len, made)) >= min(least, count)
    assert not made or max(map(len, made)) - min(map(len, made)) <= 1


def test_one_frame_that_fails_never_stops_the_others(prefect, data):
    frames = ["199A_00001_000001", ORDINARY, "203A_SM_SIMU_S3"]
    state = build_dataset(frames=frames, limit=1, data_dir=data, return_state=True)
    assert state.is_failed()
    assert "2 whole, 0 owe, 1 failed" in state.message
    assert "199A_00001_000001" in state.message
    for name in frames[1:]:
        assert (
            open_pinned_cube(data / "simulated" / "cubes" / f"{name}.zarr").valid_date_pair.values.sum() == 1
        )
    assert len((data / "simulated" / "runs.jsonl").read_text().splitlines()) == 3


def test_watch_writes_its_metrics(prefect, archive, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_METRICS_FILE", str(tmp_path / "hephaestus.prom"))
    assert watch(frames=[ORDINARY], pairs="annotated", data_dir=data, return_state=True).is_completed()
    written = (tmp_path / "hephaestus.prom").read_text().splitlines()
    assert "hephaestus_last_round_good 1" in written
    cube = open_pinned_cube(data / "simulated" / "cubes" / f"{ORDINARY}.zarr")
    pairs = int(cube.valid_date_pair.values.sum())
    assert f'hephaestus_pairs{{frame="{ORDINARY}",simulated="true"}} {pairs}' in written


def test_frames_apart_are_runs_of_their_own_the_heaviest_first(prefect, data, deployed):
    frames = [ORDINARY, "124D_04854_171313"]
    state = build_dataset(frames=frames, limit=2, era5="arco", data_dir=data, apart=True, return_state=True)
    assert (state.name, state.message) == ("Completed", "2 runs of build-frame created, heaviest first")
    with get_client(sync_client=True) as client:
        of_deployment = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployed]))
        made = [
            run
            for run in client.read_flow_runs(flow_run_filter=of_deployment)
            if run.parameters.get("limit") == 2
        ]
        for run in made:
            client.delete_flow_run(run.id)
    assert sorted(run.parameters["frame"] for run in made) == sorted(frames)
    assert {run.parameters["data_dir"] for run in made} == {str(data)}
    assert all(run.state.is_scheduled() for run in made)
    assert not data.exists()


def test_watch_builds_what_arrived_since_its_last_look(prefect, archive, data):
    pairs = archive.archive.pairs(ORDINARY)
    archive.archive.publish_until(pairs[1].secondary)
    try:
        watch(frames=[ORDINARY], pairs="all", data_dir=data)
        before = open_pinned_cube(
            data / "simulated" / "cubes" / f"{ORDINARY}.zarr"
        ).valid_date_pair.values.sum()
    finally:
        archive.archive.publish_until(None)
    state = watch(frames=[ORDINARY], pairs="all", data_dir=data, return_state=True)
    assert state.is_completed(), state.message
    assert (
        open_pinned_cube(data / "simulated" / "cubes" / f"{ORDINARY}.zarr").valid_date_pair.values.sum()
        == len(pairs)
        > before
    )
    assert "nothing to watch" in watch(data_dir=data, return_state=True).message


def page_commands():
    """The words of every `prefect` command that docs/prefect.md shows."""
    shown = [block.code for block in blocks("docs/prefect.md") if block.language == "sh"]
    lines = [shlex.split(line, comments=True) for code in shown for line in code.splitlines()]
    return [words for words in lines if words[:1] == ["prefect"]]


def test_the_commands_of_the_page_work_in_their_order(prefect, deployed, tmp_path):
    """Nobody serves the flows here, so that runs are created alone; test_served_flows.py watches one.

    It is the last test here, since it deploys to a work pool.
    """
    for deployment in make_deployments():
        deployment.apply()
    create_missing_limits()
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {
        "PREFECT_SERVER_API_PORT": str(urlsplit(prefect).port),
        "PREFECT_HOME": str(get_current_settings().home),
    }
    seen = []
    for words in page_commands():
        command = [
            Path(sys.executable).with_name("prefect"),
            *(word for word in words[1:] if word != "--watch"),
        ]
        if words[1:3] == ["worker", "start"]:
            command.append("--run-once")
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        seen.append(" ".join(words[1:3]))
    assert len(seen) >= 12
    assert {"deployment run", "concurrency-limit create", "work-pool create", "worker start"} <= set(seen)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
        assert {run.parameters.get("frame") for run in runs} >= {"124D_04854_171313", ORDINARY}
        for run in runs:
            client.delete_flow_run(run.id)


def test_jobs_with_a_schedule_are_deployments_that_are_updated_and_run(prefect, data, tmp_path, monkeypatch):
    job = {
        "frames": [ORDINARY],
        "since": "2019-01-01",
        "pairs": "all",
        "simulated": True,
        "data_dir": str(data),
    }
    file = tmp_path / "jobs.yaml"
    jobs = {"hourly": {**job, "schedule": "7 */12 * * *", "timezone": "Europe/Rome"}}

    def apply() -> dict[str, str]:
        file.write_text(yaml.safe_dump({"jobs": jobs, "work_pool": "jobs"}))
        known = read_job_file(file)
        return deploy_jobs(known.jobs, known.work_pool)

    with get_client(sync_client=True) as client:
        with pytest.raises(HephaestusError, match=r"no work pool jobs: `prefect work-pool create"):
            apply()
        client.create_work_pool(WorkPoolCreate(name="jobs", type="process"))
        assert apply() == {"hourly": "watch/hourly"}
        made = client.read_deployment_by_name("watch/hourly")
        jobs["hourly"]["schedule"] = "5 3 * * mon"
        del jobs["hourly"]["pairs"]
        apply()
        updated = client.read_deployment_by_name("watch/hourly")
    assert updated.id == made.id
    assert [(item.schedule.cron, item.schedule.timezone) for item in updated.schedules] == [
        ("5 3 * * mon", "Europe/Rome")
    ]
    assert (made.parameters["pairs"], "pairs" in updated.parameters) == ("all", False)
    assert updated.work_pool_name == "jobs"
    # as a worker does it: the flow by its module, with the deployment's parameters
    flow = load_flow_from_entrypoint(updated.entrypoint)
    state = flow(**{**updated.parameters, "since": date(2019, 1, 1)}, return_state=True)
    assert state.is_completed(), state.message
    assert read_last_runs(data / "simulated")[ORDINARY]["exit_code"] in (0, 3)
