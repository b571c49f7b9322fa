"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from checkout import ROOT

# a slow or busy machine is no fault of the code
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# the time for mutated files (fuzzing.py) is that for Hypothesis too: 100 examples in a run of every day
settings.register_profile(
    "longer",
    settings.get_profile("patient"),
    max_examples=1 + int(50 * float(os.environ.get("FUZZ_SECONDS", "2"))),
)
settings.load_profile("longer" if "FUZZ_SECONDS" in os.environ else "patient")

# pytest-xdist gives each core a process; more threads in each only wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

# cubes are thousands of small files, each brought to the disk before it counts: in memory where there is room
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real annotations and a real LiCSAR frame, beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data (the real annotations and a real LiCSAR frame), which is not here")
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the settings, keys and home folder of whoever runs the tests out of them."""
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
    """Mark each test with the kind of its folder, so that `-m unit` runs those of tests/unit."""
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in ("unit", "integration", "robustness"):
            item.add_marker(kind)
        if not HAS_TORCH and item.get_closest_marker("baselines"):
            item.add_marker(pytest.mark.skip(reason=NO_TORCH))
