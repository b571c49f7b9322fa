"""Tests of the documented exit codes: 0 done, 1 failed, 2 wrong usage, 3 published with products missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import ALL, FRAME, copied, frame_store_of, reached, settings_for
from checkout import ROOT
from hephaestus_build.cli.console import worst_exit_code
from hephaestus_build.pipeline.build import build
from hephaestus_build.simulation.server import faults

UNKNOWN = "199A_00001_000001"
DEM = r"\.geo\.hgt\.tif$"


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    """Data folder with a cube without the DEM, which the archive does not have."""
    folder = tmp_path_factory.mktemp("built") / "data"
    with reached(archive):
        archive.faults.add(DEM, faults.error_status(404))
        assert build(ALL, settings_for(folder)).exit_code == 3
    return folder


@pytest.fixture
def data(upstream, built, tmp_path, monkeypatch) -> Path:
    folder = copied(built, tmp_path / "data")
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(folder))
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    return folder


@pytest.fixture
def hephaestus(data, hephaestus):
    """Run a command on the data of this file."""
    return hephaestus


def last_run(data: Path) -> dict:
    return json.loads((data / "simulated" / "runs.jsonl").read_text().splitlines()[-1])


@given(st.lists(st.sampled_from([0, 1, 2, 3])))
def test_the_worst_of_several_counts(codes):
    found = worst_exit_code(codes)
    if 1 in codes or (2 in codes and set(codes) != {2}):
        assert found == 1
    else:
        assert found == max(codes, default=0)


@pytest.mark.parametrize(
    "command", [("build", "--no-quicklook"), ("watch", "--once"), ("watch", "--rounds", "1")]
)
def test_what_is_owed_is_3_and_what_failed_is_1(archive, data, hephaestus, command):
    name, *options = command
    archive.faults.add(DEM, faults.error_status(503))
    code, _, err = hephaestus(name, FRAME.id, *options)
    assert code == 3
    assert name == "watch" or f"{FRAME}: owed: {FRAME}.geo.hgt.tif of dem/dem (unreachable" in err
    assert last_run(data)["exit_code"] == last_run(data)["result"]["exit_code"] == 3
    assert hephaestus(name, FRAME.id, UNKNOWN, *options)[0] == 1
    assert hephaestus(name, UNKNOWN, *options)[0] == 1
    assert last_run(data)["exit_code"] == 1
    archive.reset()
    assert hephaestus(name, FRAME.id, *options)[0] == 0
    assert last_run(data)["exit_code"] == 0


def test_once_and_rounds_are_one_too_many(hephaestus):
    code, _, err = hephaestus("watch", FRAME.id, "--once", "--rounds", "2")
    assert code == 2
    assert "--once or --rounds" in err


def test_status_and_verify_report_what_is_owed_without_failing(archive, data, hephaestus):
    archive.faults.add(DEM, faults.error_status(404))
    code, _, err = hephaestus("status")
    assert code == 0
    assert "owed:" in err
    assert hephaestus("verify")[0] == 0
    assert hephaestus("verify", "--upstream")[0] == 0
    # a failed build is a failure, even if a cube is published
    archive.faults.add("/interferograms/", faults.error_status(503))
    assert hephaestus("build", FRAME.id, "--no-quicklook")[0] == 1
    code, _, err = hephaestus("status")
    assert code == 1
    assert f"{FRAME}: its last build failed: the LiCSAR archive gives no listing" in err
    assert f"then run `hephaestus build {FRAME}` again" in err
    code, out, _ = hephaestus("status", "--json")
    assert code == 1
    assert json.loads(out)["frames"][0]["generation"] == 1
    assert json.loads(out)["frames"][0]["last_error"]
    # so is an archive that does not answer
    assert hephaestus("verify", "--upstream")[0] == 1


def test_a_repair_that_cannot_get_something_back_is_3(archive, data, hephaestus):
    store = frame_store_of(settings_for(data)).published_generation().store
    shard = sorted((store / "insar_difference").glob("c.*"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    archive.faults.add(r"\.geo\.diff_pha\.tif$", faults.error_status(503))
    shutil.rmtree(data / "simulated" / "cache")
    code, _, err = hephaestus("repair", FRAME.id)
    assert code == 3
    assert "pair/2019" in err
    code, _, _ = hephaestus("repair", FRAME.id, UNKNOWN)
    assert code == 1
    archive.reset()
    assert hephaestus("build", FRAME.id, "--no-quicklook")[0] == 0


@pytest.mark.parametrize("key", [FRAME.id, "*"])
def test_an_accepted_absence_is_no_news_until_it_is_there(archive, data, hephaestus, monkeypatch, key):
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", json.dumps({key: ["dem"]}))
    archive.faults.add(DEM, faults.error_status(404))
    archive.clear_log()
    code, out, err = hephaestus("build", FRAME.id, "--no-quicklook")
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("hephaestus:")] == []
    assert "accepted as absent" in out
    assert any(entry.path.endswith(".geo.hgt.tif") for entry in archive.log)  # it is still requested
    run = last_run(data)
    assert run["exit_code"] == 0
    assert (run["result"]["owed"], run["result"]["accepted_products"]) == ([], 1)
    assert [item["unit"] for item in run["result"]["accepted"]] == ["dem/dem"]

    (run,) = json.loads(hephaestus("build", FRAME.id, "--no-quicklook", "--json")[1])["frames"]
    result = run["result"]
    (row,) = json.loads(hephaestus("status", "--json")[1])["frames"]
    (watched,) = map(json.loads, hephaestus("watch", "--once", "--json")[1].splitlines())
    for report in (result, row, watched["result"]):
        assert report["owed"] == []
        assert [(item["product"], item["outcome"]) for item in report["accepted"]] == [
            (f"{FRAME}.geo.hgt.tif", "absent")
        ]
    code, out, err = hephaestus("status")
    assert (code, "owed" in err) == (0, False)
    assert f"accepted as absent: 1 of {FRAME}" in out
    code, out, err = hephaestus("watch", "--once")
    assert (code, "owed:" in err) == (0, False)
    assert "1 accepted as absent" in out
    assert json.loads(hephaestus("inspect", FRAME.id, "--json")[1])["owed"] == []

    archive.faults.clear()
    (run,) = json.loads(hephaestus("build", FRAME.id, "--no-quicklook", "--json")[1])["frames"]
    result = run["result"]
    assert (result["accepted"], result["generation"]) == ([], 2)


def test_what_is_not_named_or_not_absent_stays_owed(archive, data, hephaestus, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", json.dumps({FRAME.id: ["coherence"], UNKNOWN: ["dem"]}))
    archive.faults.add(DEM, faults.error_status(404))
    assert hephaestus("build", FRAME.id, "--no-quicklook")[0] == 3
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", json.dumps({FRAME.id: ["dem"]}))
    for fault in (faults.error_status(503), faults.error_status(403), faults.serve_html()):
        archive.faults.clear()
        archive.faults.add(DEM, fault)
        code, _, err = hephaestus("build", FRAME.id, "--no-quicklook")
        assert code == 3
        assert "owed:" in err


def test_a_wrong_name_in_the_settings_is_wrong_usage(hephaestus, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", json.dumps({FRAME.id: ["demm"]}))
    code, _, err = hephaestus("status")
    assert code == 2
    assert "did you mean dem?" in err


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Folder with the Makefile, and a command that prints its arguments and exits as told."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = tmp_path / ".venv" / "bin" / "hephaestus"
    command.parent.mkdir(parents=True)
    command.write_text(
        "#!/bin/sh\n"
        'echo "$@"\n'
        'echo "hephaestus: owed: the DEM" >&2\n'
        'trap "echo terminated >&2; exit 143" TERM\n'
        'i=0; while [ $i -lt "${TENTHS:-0}" ]; do sleep 0.1; i=$((i+1)); done\n'
        'exit "${CODE:-0}"\n'
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    for name in (".ready", ".ready-baselines"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


def outside_make() -> dict[str, str]:
    """Return the environment without the variables that `make test` passes to a nested make."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", ["cubes", "benchmark"])
@pytest.mark.parametrize(("code", "made"), [(0, 0), (1, 2), (2, 2), (3, 0), (130, 2), (143, 2)])
def test_make_takes_what_is_owed_for_done(checkout, target, code, made):
    done = subprocess.run(
        ["make", target],
        cwd=checkout,
        env=outside_make() | {"CODE": str(code)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == made
    assert "hephaestus: owed: the DEM" in done.stderr
    assert done.stdout.split()[0] == {"cubes": "build", "benchmark": "benchmark"}[target]
    assert (f"Error {code}" in done.stderr) is bool(made)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_hands_sigterm_on_and_waits(checkout):
    with subprocess.Popen(
        ["make", "cubes"],
        cwd=checkout,
        env=outside_make() | {"TENTHS": "600"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("build")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "terminated" in err
