"""Shared pytest fixtures and Hypothesis profiles."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from checkout import ROOT, entries_of

if TYPE_CHECKING:
    from hephaestus_build.simulation.server.archive_server import ArchiveServer
    from hephaestus_build.sources.annotations.archive import Annotations

# a slow or busy machine is no fault of the code
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# FUZZ_SECONDS, the time budget for mutated files (fuzzing.py), sets the number of Hypothesis examples too
settings.register_profile(
    "longer",
    settings.get_profile("patient"),
    max_examples=1 + int(50 * float(os.environ.get("FUZZ_SECONDS", "2"))),
)
settings.load_profile("longer" if "FUZZ_SECONDS" in os.environ else "patient")

#: What the extra `baselines` installs, and why a test that needs it is skipped.
EXTRA_BASELINES = {
    "torch",
    "timm",
    "segmentation_models_pytorch",
    "lightning",
    "huggingface_hub",
    "safetensors",
}
HAS_TORCH = find_spec("torch") is not None
WITHOUT_TORCH = "needs the extra `baselines` (torch), which is not installed"

# pytest-xdist gives each core a process; more threads in each only wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a cube consists of thousands of small files, each written with fsync: use memory if there is enough of it
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


#: What stood in the checkout before the tests.
_BEFORE = pytest.StashKey[set[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note what stands in the root of the checkout; among processes of pytest-xdist, the first does."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_BEFORE] = entries_of()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where tests have left something in the root of the checkout, which is where they are started."""
    left = entries_of() - session.config.stash.get(_BEFORE, entries_of())
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        names = ", ".join(sorted(left))
        session.config.get_terminal_writer().line(f"\nleft in the checkout by a test: {names}", red=True)


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of garbage collection, which would look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes: of ``-n auto`` three for two usable cores, of ``-n logical`` one each.

    The whole suite waits part of its time, for servers, for other processes and for deadlines to pass; unit
    tests do not. Each process imports all test files, which takes some twenty seconds of a core, and needs up
    to 1.5 GB, so that a machine with little memory gets fewer.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted = cores if config.option.numprocesses == "logical" else cores + (cores + 1) // 2
    return max(1, min(wanted, memory // (1536 << 20)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real annotations and a real LiCSAR frame, next to the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data (real annotations and a LiCSAR frame), which does not exist")
    return folder


@pytest.fixture(scope="session")
def published(shared_data: Path) -> Annotations:
    """The 19,919 published annotations; read once for all tests of a process."""
    from hephaestus_build.sources.annotations.archive import load_annotations

    return load_annotations(shared_data / "annotations.tar.gz")


@pytest.fixture(scope="session")
def archive() -> Iterator[ArchiveServer]:
    """One small archive for all tests of a process; `upstream` brings it back to its first state."""
    from archives import small_archive

    with small_archive() as server:
        yield server


@pytest.fixture
def upstream(archive: ArchiveServer) -> Iterator[ArchiveServer]:
    """The archive in its first state, named by the settings of this test."""
    from archives import reached

    with reached(archive):
        yield archive


@pytest.fixture(scope="session")
def whole_cube(archive: ArchiveServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a whole cube of the archive's frame: to be copied, never to be changed."""
    from archives import ALL, reached, settings_for
    from hephaestus_build.pipeline.build import build

    folder = tmp_path_factory.mktemp("whole") / "data"
    with reached(archive):
        assert build(ALL, settings_for(folder)).exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate tests from the settings and credentials of the user who runs them."""
    for name in list(os.environ):
        if name.startswith(("HEPHAESTUS_", "CDSAPI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "no-cdsapirc"))


@pytest.fixture
def hephaestus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command as the console script does; return exit code, output and errors."""
    from hephaestus_build.cli import run_console_script

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hephaestus", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_console_script()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    return call


class FileOfTests(pytest.Module):
    """A file of tests; where torch is not installed, one that imports it is skipped, and says so."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Return the tests of the file."""
        try:
            return super().collect()
        except self.CollectError as error:
            missing = getattr(error.__cause__, "name", None) or ""
            if HAS_TORCH or missing.partition(".")[0] not in EXTRA_BASELINES:
                raise
        pytest.skip(WITHOUT_TORCH)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Let every file of tests be one that may need torch."""
    return FileOfTests.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the kind of its folder, so that `-m unit` runs those of tests/unit.

    Where torch is not installed, tests that are marked with it are skipped.
    """
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in ("unit", "integration", "robustness"):
            item.add_marker(kind)
        if not HAS_TORCH and item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason=WITHOUT_TORCH))
