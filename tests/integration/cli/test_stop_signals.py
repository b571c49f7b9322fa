"""Tests of Ctrl-C and SIGTERM: one line, exit code 130 or 143, soon, and no lock or process left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from archives import ALL, FRAME, asked, settings_for
from hephaestus_build.core.stop_signals import StopSignalHandler
from hephaestus_build.pipeline.build import build
from hephaestus_build.simulation.server import faults
from toy_benchmark import tiny_preset, toy_cubes

SAID = {
    signal.SIGINT: "hephaestus: stopped; the same command goes on from here",
    signal.SIGTERM: "hephaestus: stopped by SIGTERM; the same command goes on from here",
}
COMMAND = [sys.executable, "-m", "hephaestus_build"]
#: Additional seconds allowed on a busy machine.
BUSY = 60.0


#: Lines that tell how far a slow machine is, and the summaries of `watch`.
PROGRESS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ |round \d+: |watch: ")


class Started:
    """A process to be stopped, and its outcome."""

    def __init__(self, command: list[str], **options: object) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # background jobs of a shell, and their children, ignore SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,  # type: ignore[call-overload]
        )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def send(self, *numbers: int, to: int | None = None) -> tuple[int, list[str], float]:
        """Send signals; return the exit code, the lines on standard error and the seconds that it took."""
        clock = time.monotonic()
        for number in numbers:
            os.kill(to or self.process.pid, number)
            time.sleep(0.2 if len(numbers) > 1 else 0)
        try:
            _, err = self.process.communicate(timeout=240)
        finally:
            self.process.kill()
        lines = [line for line in err.splitlines() if not PROGRESS.match(line)]
        return self.process.returncode, lines, time.monotonic() - clock


def python(work: str, grace: float = 300.0) -> Started:
    """Start a process that does `work`, and wait until it has started."""
    script = f"""
import hashlib, threading, time
from hephaestus_build.core import stop_signals as stopping
stopping.GRACE_SECONDS = {grace}
def work():
    print("begun", flush=True)
{work}
stopping.run_interruptible(work)
"""
    started = Started([sys.executable, "-c", script])
    assert started.process.stdout is not None
    assert started.process.stdout.readline() == "begun\n"
    time.sleep(0.2)
    return started


@pytest.mark.parametrize("number", SAID)
def test_a_signal_is_one_line_and_runs_what_tidies_up(number, tmp_path):
    left = tmp_path / "left"
    left.touch()
    started = python(f"    try: time.sleep(600)\n    finally: __import__('os').remove({str(left)!r})")
    code, err, seconds = started.send(number)
    assert (code, err) == (128 + number, [SAID[number]])
    assert seconds < BUSY
    assert not left.exists()


def test_a_signal_that_python_drops_in_a_callback_tidies_up_too(tmp_path):
    left = tmp_path / "left"
    left.touch()
    started = python(
        "    import gc, os\n"
        "    gc.callbacks.append(lambda *_: (gc.callbacks.clear(), time.sleep(600)))\n"
        "    try:\n        gc.collect()\n        time.sleep(600)\n"
        f"    finally: os.remove({str(left)!r})"
    )
    code, err, seconds = started.send(signal.SIGINT)
    assert (code, err) == (130, [SAID[signal.SIGINT]])
    assert seconds < BUSY
    assert not left.exists()


@pytest.mark.parametrize(
    "work",
    {
        "in a library": "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)",
        "swallowed": "    try: time.sleep(600)\n    except BaseException: pass\n    time.sleep(600)",
        "tidies for ever": "    try: time.sleep(600)\n    finally: time.sleep(600)",
        "joins a thread": "    thread = threading.Thread(target=time.sleep, args=(600,)); thread.start()\n"
        "    try: time.sleep(600)\n    finally: thread.join()",
    }.values(),
)
@pytest.mark.parametrize("number", SAID)
def test_what_does_not_return_is_ended_in_bounded_time(number, work):
    code, err, seconds = python(work, grace=0.5).send(number)
    assert (code, err) == (128 + number, [SAID[number]])
    assert 0.5 <= seconds < BUSY


@pytest.mark.parametrize("second", SAID)
def test_a_second_signal_ends_at_once(second):
    work = "    try: time.sleep(600)\n    finally: hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)"
    code, err, seconds = python(work).send(signal.SIGTERM, second)
    assert (code, err) == (143, [SAID[signal.SIGTERM]])
    assert seconds < BUSY


def test_a_library_that_makes_another_end_of_it_changes_nothing():
    work = "    try: time.sleep(600)\n    except KeyboardInterrupt: raise SystemExit(1)"
    assert python(work).send(signal.SIGTERM)[:2] == (143, [SAID[signal.SIGTERM]])


def test_threads_are_not_waited_for():
    work = "    threading.Thread(target=time.sleep, args=(600,)).start()\n    time.sleep(600)"
    code, err, seconds = python(work).send(signal.SIGTERM)
    assert (code, err) == (143, [SAID[signal.SIGTERM]])
    assert seconds < BUSY


def test_an_ignored_signal_stays_ignored_and_handlers_are_given_back():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignalHandler() as stopping:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGINT)
        assert stopping.caught_signal is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1
    deadline = time.monotonic() + BUSY
    while any(thread.name == "signals" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_other_signals_stop_nothing():
    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with StopSignalHandler() as stopping:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)
        assert stopping.caught_signal is None
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_in_another_thread_no_handler_is_touched():
    def work() -> None:
        with StopSignalHandler():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.fixture
def data(upstream, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEPHAESTUS_TIMEOUT", "600")
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    return tmp_path / "data"


@pytest.mark.parametrize("frames", [[FRAME.id], [FRAME.id, "199A_00001_000001"]])
def test_a_build_whose_threads_wait_for_an_archive_goes_on_after_sigterm(archive, data, frames):
    archive.faults.add(r"\.geo\.cc\.tif$", faults.stall_body())
    started = Started([*COMMAND, "build", *frames, "--no-quicklook"])
    started.wait_until(lambda: any(name.endswith(".geo.cc.tif") for name in asked(archive)))
    code, err, seconds = started.send(signal.SIGTERM)
    assert (code, err[-1]) == (143, SAID[signal.SIGTERM])
    assert not any("Traceback" in line for line in err)
    assert seconds < BUSY
    assert not (data / "simulated" / "cubes" / f"{FRAME}.zarr").exists()
    before = asked(archive)
    archive.reset()
    assert build(ALL, settings_for(data)).exit_code == 0
    # the phase of a pair is complete before its coherence is requested
    whole = {name.replace(".cc.", ".diff_pha.") for name in before if name.endswith(".cc.tif")}
    assert whole  # complete, so not downloaded again
    assert not whole & {entry.path.rsplit("/", 1)[1] for entry in archive.log if entry.status == 200}


def test_a_watch_in_its_pause_and_as_the_first_process_of_a_container(archive, data):
    runs = data / "simulated" / "runs.jsonl"
    words = ["watch", FRAME.id]
    namespace = ["unshare", "--pid", "--fork"]
    if shutil.which("unshare") and not subprocess.run([*namespace, "true"], capture_output=True).returncode:
        started = Started([*namespace, *COMMAND, *words])
        started.wait_until(runs.exists)
        inner = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children").read_text()
        assert started.send(signal.SIGTERM, to=int(inner))[:2] == (143, [SAID[signal.SIGTERM]])
        runs.unlink()
    log = data.parent / "watch.log"
    started = Started([*COMMAND, *words, "--log-file", str(log)])
    started.wait_until(lambda: runs.exists() and "the next begins in" in log.read_text())
    assert started.send(signal.SIGTERM)[:2] == (143, [SAID[signal.SIGTERM]])
    *_, summary, stopped = log.read_text().splitlines()
    assert re.search(r" hephaestus: watch: 1 round, 1 build: 0 built, 1 unchanged, 0 failed", summary)
    assert stopped.endswith(SAID[signal.SIGTERM])


@pytest.mark.parametrize("number", SAID)
def test_the_message_of_a_signal_is_in_the_log_file_and_waits_for_nobody(number, tmp_path):
    log, ready = tmp_path / "run.log", tmp_path / "ready"
    for held in ("pass", "threading.Thread(target=hold).start()"):
        started = python(f"""    from pathlib import Path
    from hephaestus_build.core.terminal import SPOKEN, log_to_file
    log_to_file(Path({str(log)!r}))
    def hold():
        SPOKEN.handlers[-1].acquire()
        time.sleep(600)
    {held}
    Path({str(ready)!r}).touch()
    time.sleep(600)""")
        started.wait_until(ready.exists)
        code, err, seconds = started.send(number)
        assert (code, err) == (128 + number, [SAID[number]])
        assert seconds < BUSY
        ready.unlink()
    (line,) = log.read_text().splitlines()  # of the first
    assert line.endswith(SAID[number])


@pytest.mark.parametrize("number", SAID)
def test_a_served_archive_leaves_no_file(number, tmp_path):
    started = Started(
        [*COMMAND, "archive", "serve", "--port", "0", "--size", "40x50", "--frame", FRAME.id],
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert started.process.stdout is not None
    assert started.process.stdout.readline().startswith("export ")
    code, err, _ = started.send(number)
    assert (code, err[-1]) == (128 + number, SAID[number])
    assert not list(tmp_path.iterdir())


def children(pid: int) -> set[int]:
    """Return the processes that a process started, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child, *children(child)}
    return found


@pytest.mark.torch
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    "options",
    [
        ["--at-a-time", "2", "--set", "workers=1"],
        pytest.param(["--set", "workers=2"], marks=pytest.mark.slow),
    ],
)
def test_the_processes_of_a_benchmark_end_with_it(tmp_path, options):
    toy_cubes(tmp_path / "cubes")
    one = {"classification": {"models": {"resnet-tiny": {}}}}
    preset = tiny_preset(tmp_path / "tiny.yaml", tasks=one)
    places = ["--cubes", str(tmp_path / "cubes"), "--results", str(tmp_path / "results")]
    log = tmp_path / "run.log"
    words = ["benchmark", "run", str(preset), *places, "--log-file", str(log), "--set", "epochs=5000"]
    started = Started([*COMMAND, *words, *options])
    started.wait_until(lambda: any((tmp_path / "results").rglob("last.ckpt")))
    started.wait_until(lambda: len(children(started.process.pid)) > 2)
    known = children(started.process.pid)
    code, err, _ = started.send(signal.SIGTERM)
    assert (code, err[-1]) == (143, SAID[signal.SIGTERM])
    assert not any("Traceback" in line for line in err)
    # what the runs say, in their own processes too, is in the log file, and so is the end
    lines = log.read_text().splitlines()
    assert any(re.search(r" hephaestus_baselines\.\S+: \S*resnet-tiny\S*: begins$", line) for line in lines)
    assert lines[-1].endswith(SAID[signal.SIGTERM])
    deadline = time.monotonic() + BUSY
    while any(Path(f"/proc/{pid}").exists() for pid in known):
        assert time.monotonic() < deadline
        time.sleep(0.05)
