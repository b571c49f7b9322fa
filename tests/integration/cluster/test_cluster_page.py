"""Tests of docs/clusters.md: what it says to type is typed here, with one machine in place of several."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from archives import objects
from checkout import ROOT
from cluster_archive import archive_of, frames_of
from doc_pages import blocks
from hephaestus_build.core.settings import load_settings
from hephaestus_build.simulation.server.archive_server import ArchiveServer

PAGE = "docs/clusters.md"
#: Programs that reach other machines, and what stands for them: the rest of the line, on this one.
ELSEWHERE = {
    "ssh": 'shift; exec "$@"',
    "srun": 'exec "$@"',
    "hostname": "echo 127.0.0.1",
}


@pytest.fixture(scope="module")
def served() -> Iterator[ArchiveServer]:
    with archive_of(2) as server:
        yield server


@pytest.fixture
def environment(served: ArchiveServer, tmp_path: Path) -> dict[str, str]:
    """Variables of a user whose other machines are this one."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, what in ELSEWHERE.items():
        (programs / name).write_text(f"#!/bin/sh\n{what}\n")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **os.environ,
        **served.environment(),
        "PATH": path,
        "USER": "somebody",
        "SLURM_JOB_ID": "7",
        "HEPHAESTUS_DATA_DIR": str(tmp_path / "data"),
        "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "[]",
        "DASK_TEMPORARY_DIRECTORY": str(tmp_path / "scratch"),
    }


def section(title: str, language: str) -> str:
    """Return the blocks of one language in a section of the page."""
    lines = (ROOT / PAGE).read_text(encoding="utf-8").splitlines()
    first = lines.index(f"## {title}")
    last = next((at for at in range(first + 1, len(lines)) if lines[at].startswith("## ")), len(lines))
    return "".join(
        block.code for block in blocks(PAGE) if block.language == language and first < block.line <= last
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def here(code: str, served: ArchiveServer, tmp_path: Path) -> str:
    """Return lines of the page for this machine: its address, a free port, the frames of the archive."""
    port = str(free_port())
    frames = " ".join(map(str, frames_of(served)))
    for shown, meant in (
        ("10.0.0.7:8786", f"127.0.0.1:{port}"),
        ("--host 10.0.0.7 --port 8786", f"--host 127.0.0.1 --port {port}"),
        ("port=$((10000 + SLURM_JOB_ID % 50000))", f"port={port}"),
        ("/scratch/$USER/hephaestus", str(tmp_path / "data")),
        ("/tmp/$USER", str(tmp_path / "scratch")),
        ("build --all", f"build {frames}"),
        ("--no-dashboard", "--no-dashboard --dashboard-address 127.0.0.1:0"),
    ):
        code = code.replace(shown, meant)
    return code


def run_script(code: str, environment: dict[str, str], folder: Path) -> tuple[int, str]:
    """Run lines as a script of bash; end what they leave in the background, as the end of a job does."""
    log = folder / "script.log"
    with log.open("wb") as written:
        script = subprocess.Popen(
            ["bash", "-c", code], stdin=subprocess.DEVNULL, stdout=written, stderr=written,
            env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            code_of_script = script.wait(400)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
    return code_of_script, log.read_text(errors="replace")


def require_built(served: ArchiveServer, tmp_path: Path, said: str) -> None:
    settings = load_settings(data_dir=tmp_path / "data").for_simulated()
    for frame in frames_of(served):
        assert objects(settings, frame), said
    assert "2 frames: 2 built, 0 failed" in said


def test_the_page_of_a_laptop(served, environment, tmp_path):
    code = here(section("A laptop, or one large machine", "sh"), served, tmp_path)
    assert "--cluster local:4" in code
    ended, said = run_script(code.replace("local:4", "local:2"), environment, tmp_path)
    assert ended == 0, said
    require_built(served, tmp_path, said)


def test_the_page_of_machines_with_ssh(served, environment, tmp_path):
    code = here(section("Machines with ssh", "sh"), served, tmp_path)
    assert code.count("ssh ") == 1
    ended, said = run_script(f"set -m\n{code}", environment, tmp_path)
    require_built(served, tmp_path, said)
    assert ended == 0, said


def test_the_page_of_slurm(served, environment, tmp_path):
    code = here(section("Slurm", "bash"), served, tmp_path)
    assert "#SBATCH --ntasks=20" in code
    ended, said = run_script(code, environment, tmp_path)
    assert ended == 0, said
    require_built(served, tmp_path, said)


def containers_of(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the containers of deployments and jobs, by their names."""
    pods = [item["spec"]["template"]["spec"] for item in documents if "template" in item["spec"]]
    return {one["name"]: one for pod in pods for one in pod["containers"]}


def test_the_page_of_kubernetes(served, environment, tmp_path):
    """The containers' commands run, as Kubernetes would start them, where the service's name is loopback."""
    documents = list(yaml.safe_load_all(section("Kubernetes", "yaml")))
    containers = containers_of(documents)
    service = next(item for item in documents if item["kind"] == "Service")
    labels = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in documents
        if item["kind"] == "Deployment"
    }
    assert service["spec"]["selector"] == labels[service["metadata"]["name"]]
    claims = {
        item["metadata"]["name"]: item["spec"]["template"]["spec"].get("volumes")
        for item in documents
        if "template" in item["spec"]
    }
    assert claims["dask-worker"] == claims["hephaestus-build"]  # one data folder
    assert containers["worker"]["volumeMounts"] == containers["build"]["volumeMounts"]
    port = service["spec"]["ports"][0]["port"]
    lines = [
        f"{shlex.join(containers['scheduler']['command'])} --host 127.0.0.1 &",
        f"{shlex.join(containers['worker']['command'])} &",
        shlex.join(["hephaestus", *containers["build"]["args"]]),
    ]
    entrypoint = re.search(r'^ENTRYPOINT \["(\w+)"\]', (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert entrypoint is not None
    assert entrypoint[1] == "hephaestus"
    code = here("\n".join(lines), served, tmp_path)
    own = str(free_port())
    code = code.replace(f"dask-scheduler:{port}", f"127.0.0.1:{own}").replace(
        f"--port {port}", f"--port {own}"
    )
    ended, said = run_script(code, environment, tmp_path)
    assert ended == 0, said
    require_built(served, tmp_path, said)
