"""Tests of the limits of processor time and memory, from the texts of control groups."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from checkout import PACKAGES
from hephaestus_build.core.machine import limits
from hephaestus_build.core.machine.limits import (
    LIBRARY_THREADS,
    MachineLimits,
    bound_library_threads,
    find_cgroup_folders,
    parse_cfs_quota,
    parse_cpu_max,
    parse_memory_limit,
    read_machine_limits,
)
from hephaestus_build.core.settings import load_settings

UNIFIED_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
LEGACY_MOUNTS = (
    "31 24 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "32 24 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "33 24 0:29 / /proc rw - proc proc rw\n"
)
GIB = 1 << 30


@pytest.fixture(autouse=True)
def machine_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: set(range(64)))


def machine(root: Path, files: dict[str, str]) -> MachineLimits:
    """Write files of the kernel below a folder, and read the limits from there."""
    for name, text in ({"proc/meminfo": "MemTotal: 268435456 kB\nMemFree: 1 kB\n"} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_machine_limits(root)


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert machine(tmp_path, {}) == MachineLimits(64, 64, None, 256 * GIB, None)
    assert machine(tmp_path, {}).usable_cores == 64
    assert machine(tmp_path, {}).usable_memory == 256 * GIB


def test_a_machine_that_tells_nothing_has_no_limits(tmp_path: Path) -> None:
    assert read_machine_limits(tmp_path / "none") == MachineLimits(64, 64, None, None, None)


def test_a_container_with_its_own_namespace_of_version_2(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": UNIFIED_MOUNT,
            "sys/fs/cgroup/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory.high": "max\n",
        },
    )
    assert (found.cpu_quota, found.usable_cores) == (2.0, 2)
    assert (found.memory_limit, found.usable_memory) == (2 * GIB, 2 * GIB)


def test_the_smallest_limit_of_nested_groups_counts(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/job/step\n",
            "proc/self/mountinfo": UNIFIED_MOUNT,
            "sys/fs/cgroup/system.slice/cpu.max": "800000 100000",
            "sys/fs/cgroup/system.slice/job/cpu.max": "150000 100000",
            "sys/fs/cgroup/system.slice/job/step/cpu.max": "max 100000",
            "sys/fs/cgroup/system.slice/memory.max": str(3 * GIB),
            "sys/fs/cgroup/system.slice/job/step/memory.high": str(GIB),
            "sys/fs/cgroup/system.slice/job/step/memory.max": str(4 * GIB),
            "sys/fs/cgroup/other/cpu.max": "1 100000",
        },
    )
    assert (found.cpu_quota, found.usable_cores, found.memory_limit) == (1.5, 2, GIB)


def test_docker_with_version_1(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/system.slice\n",
            "proc/self/mountinfo": LEGACY_MOUNTS,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(512 << 20),
        },
    )
    assert (found.cpu_quota, found.usable_cores, found.memory_limit) == (0.5, 1, 512 << 20)


def test_a_limit_above_the_memory_of_the_machine_is_none(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n",
            "proc/self/mountinfo": LEGACY_MOUNTS,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert found.memory_limit is None
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(512 * GIB))
    assert read_machine_limits(tmp_path).memory_limit is None


def test_a_quota_above_the_allowed_cores_does_not_add_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: {3, 5})
    files = {
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": UNIFIED_MOUNT,
        "sys/fs/cgroup/cpu.max": "1600000 100000",
    }
    assert machine(tmp_path, files).usable_cores == 2


def test_a_group_outside_of_what_is_mounted_is_that_of_the_mount() -> None:
    assert find_cgroup_folders("0::/../../other", UNIFIED_MOUNT) == {"": ["/sys/fs/cgroup"]}
    assert find_cgroup_folders("4:cpu:/elsewhere", LEGACY_MOUNTS) == {"cpu": ["/sys/fs/cgroup/cpu,cpuacct"]}


def test_names_with_spaces_and_colons_are_read() -> None:
    mounts = r"30 24 0:26 / /my\040groups rw - cgroup2 none rw"
    assert find_cgroup_folders("0::/a:b c", mounts) == {"": ["/my groups/a:b c", "/my groups"]}


@pytest.mark.parametrize("text", ["", "\0", ":::", "0::", "4:cpu", "0::up", "\x85" * 9, "a b - cgroup2"])
def test_texts_that_no_kernel_writes_are_no_limit(text: str, tmp_path: Path) -> None:
    assert find_cgroup_folders(text, UNIFIED_MOUNT) == {}
    assert find_cgroup_folders("0::/", text) == {}
    assert parse_cpu_max(text) is None
    assert parse_memory_limit(text) is None


@pytest.mark.parametrize("quota", ["0", "-1", "max", "1e3", "1" * 40, "١"])
def test_quotas_without_a_meaning_are_none(quota: str) -> None:
    assert parse_cfs_quota(quota, "100000") is None
    assert parse_cfs_quota("100000", quota) is None
    assert parse_memory_limit(quota) is None


@pytest.mark.parametrize(
    ("cores", "memory", "workers"),
    [(64, 256 * GIB, 64), (64, GIB, 5), (2, GIB, 2), (64, 100 << 20, 1), (0, GIB, 1), (8, None, 8)],
)
def test_a_worker_for_each_core_as_far_as_the_memory_goes(
    cores: int, memory: int | None, workers: int
) -> None:
    assert MachineLimits(64, cores, None, memory, None).image_workers == workers
    assert MachineLimits(64, cores, None, 256 * GIB, memory).image_workers == (workers if memory else cores)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_pool_of_threads_is_given_its_size(package: Path) -> None:
    """The default is that of the machine, five times what a container may have."""
    found = {
        f"{path.name}:{call.lineno}"
        for path in package.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("ThreadPoolExecutor", "ProcessPoolExecutor")
        and not call.args
        and "max_workers" not in {word.arg for word in call.keywords}
    }
    assert found == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_cores_are_counted_in_one_place(package: Path) -> None:
    found = {
        path.name
        for path in package.rglob("*.py")
        for name in ("cpu_count", "sched_getaffinity", "process_cpu_count", "SC_PHYS_PAGES")
        if name in path.read_text(encoding="utf-8")
    }
    assert found <= {"limits.py"}


def test_libraries_are_bound_by_the_quota_where_the_environment_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "read_machine_limits", lambda: MachineLimits(64, 64, 1.5, None, None))
    for name in LIBRARY_THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    bound_library_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["ZARR_THREADING__MAX_WORKERS"] == os.environ["OPENBLAS_NUM_THREADS"] == "2"


def test_a_build_has_as_many_workers_as_its_container_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hephaestus_build.core.settings.read_machine_limits", lambda: MachineLimits(64, 64, 2, 256 * GIB, GIB)
    )
    assert load_settings().worker_count == 2
    assert load_settings(workers=9).worker_count == 9
