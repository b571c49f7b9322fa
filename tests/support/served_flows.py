"""`make serve` as a process of its own, with a Prefect home of its own, for tests that stop and kill it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from checkout import ROOT

#: Seconds; on a machine with other work everything takes many times as long.
_PATIENCE = 300.0


def wait_for(condition: Callable[[], Any], what: object, seconds: float = _PATIENCE) -> Any:
    """Return the first true value of a condition, or fail after some seconds, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.3)
    return value


def _take_interrupts() -> None:
    """Take Ctrl-C, also where the tests were started in the background of a script, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class ServedFlows:
    """One `make serve` after the other, on one port and with one home.

    Parameters
    ----------
    home : pathlib.Path
        Prefect's home, where the output of the processes goes too.
    environment : mapping
        Further variables.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = home
        self.url = f"http://127.0.0.1:{self.port}/api"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "HEPHAESTUS_"))
        }
        self.environment = {
            **inherited,
            **environment,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_UI_ENABLED": "false",
        }
        self.output = home / "serve.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it serves the flows."""
        home = self.home
        home.mkdir(exist_ok=True)
        with self.output.open("wb") as output:
            self.process = started = subprocess.Popen(
                [sys.executable, "-m", "hephaestus_flows.serve", "--at-once", "4"],
                cwd=ROOT, env=self.environment, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=_take_interrupts,
            )  # fmt: skip
        wait_for(lambda: "in another terminal" in self.said() or started.poll() is not None, self.said)
        assert started.poll() is None, self.said()

    def run_again(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run another one, which is expected to end by itself."""
        return self._run([sys.executable, "-m", "hephaestus_flows.serve"], environment)

    def said(self) -> str:
        """Return its output."""
        return self.output.read_text(errors="replace")

    def processes(self) -> list[int]:
        """Return the processes with this home: itself, the server and runs."""
        mark = f"PREFECT_HOME={self.home}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue  # ended, or another user's
        return found

    def stop(self, number: signal.Signals) -> None:
        """Send it a signal, as a person or a service manager does, and wait until it has ended."""
        process = self.process
        assert process is not None
        process.send_signal(number)
        wait_for(lambda: process.poll() is not None, self.said, 90)

    def cut_power(self) -> None:
        """Kill all of its processes at once."""
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(60)
        wait_for(lambda: not self.processes(), "processes that cannot be killed", 60)

    def prefect(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the stock command `prefect` in the checkout."""
        return self._run([Path(sys.executable).with_name("prefect"), *words], environment)

    def _run(
        self, command: list[str | Path], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env={**self.environment, **environment}, capture_output=True, text=True,
            check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def settings(self) -> Any:
        """Return a context in which Prefect's clients of this process ask its server."""
        return temporary_settings({PREFECT_HOME: self.home, PREFECT_API_URL: self.url})

    def run(self, **parameters: Any) -> Any:
        """Create a run of build-frame and return its id."""
        with self.settings(), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("build-frame/build-frame")
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def state(self, run: Any) -> Any:
        """Return the state of a run."""
        with self.settings(), get_client(sync_client=True) as client:
            return client.read_flow_run(run).state

    def slots(self, tag: str) -> int:
        """Return how many slots of a limit are taken."""
        with self.settings(), get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name(f"tag:{tag}").active_slots
