"""Shared pytest fixtures and Hypothesis profiles."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from checkout import ROOT

# no deadline and no check for slow examples: both fail on a slow or busy machine
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# FUZZ_SECONDS, the time budget for mutated files (fuzzing.py), sets the number of Hypothesis examples too
settings.register_profile(
    "longer",
    settings.get_profile("patient"),
    max_examples=1 + int(50 * float(os.environ.get("FUZZ_SECONDS", "2"))),
)
settings.load_profile("longer" if "FUZZ_SECONDS" in os.environ else "patient")

# pytest-xdist runs one process per core; more threads per process would only compete for the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a cube consists of thousands of small files, each written with fsync: use memory if there is enough of it
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real annotations and a real LiCSAR frame, next to the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data (real annotations and a LiCSAR frame), which does not exist")
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate tests from the settings and credentials of the user who runs them."""
    for name in list(os.environ):
        if name.startswith(("HEPHAESTUS_", "CDSAPI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "no-cdsapirc"))


HAS_TORCH = find_spec("torch") is not None
NO_TORCH = "needs the extra baselines, which is not installed: `make test` installs it"


class SkippedModule(pytest.Module):
    """A file of tests that cannot even be imported without torch."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(NO_TORCH, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip the tests in tests/integration/baselines where torch is not installed."""
    folder = ROOT / "tests" / "integration" / "baselines"
    if HAS_TORCH or not module_path.is_relative_to(folder):
        return None
    return SkippedModule.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its top folder, so that `-m unit` selects tests/unit."""
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in ("unit", "integration", "robustness"):
            item.add_marker(kind)
        if not HAS_TORCH and item.get_closest_marker("baselines"):
            item.add_marker(pytest.mark.skip(reason=NO_TORCH))
