"""Processor cores and memory that this process may use, within the limits of its control groups (cgroups).

A container, a Slurm step or a systemd unit may use less than the machine has. Which cores a process may run
on is known to Python; the quota of processor time and the limit of memory are read from the files of Linux's
control groups, versions 1 and 2. A limit holds for a group and everything nested in it, so that the smallest
on the way from the process's own group to the root counts.

:func:`read_machine_limits` reads the files; the functions that parse them take texts.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Name of the one hierarchy of version 2, which holds all controllers, among the hierarchies of version 1.
UNIFIED = ""
#: Memory that a thread takes with the images of one interferogram of 2500 x 3000 pixels, bytes.
IMAGE_BYTES = 128 << 20
#: Memory that a process takes besides: libraries, tables, the DEM, the atmosphere of a date, bytes.
PROCESS_BYTES = 384 << 20
#: Variables that set the number of threads of libraries: OpenMP and OpenBLAS, Zarr.
LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ZARR_THREADING__MAX_WORKERS")
_FILE_BYTES = 1 << 20
# larger limits mean none: version 1 writes the largest multiple of a page below 2**63
_NO_LIMIT = 1 << 60
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class MachineLimits:
    """What a process may use of its machine.

    Attributes
    ----------
    machine_cores : int
        Cores that the machine shows.
    allowed_cores : int
        Cores that the process may run on (``taskset``, ``cpuset``).
    cpu_quota : float or None
        Processor time that its control groups allow, in cores; None if they set none.
    machine_memory : int or None
        Memory of the machine, bytes; None if it is unknown.
    memory_limit : int or None
        Memory that its control groups allow, bytes; None if they set none below that of the machine.
    """

    machine_cores: int
    allowed_cores: int
    cpu_quota: float | None
    machine_memory: int | None
    memory_limit: int | None

    @property
    def usable_cores(self) -> int:
        """Number of threads that can compute at once: allowed cores, or the quota rounded up if less."""
        if self.cpu_quota is None:
            return max(1, self.allowed_cores)
        return max(1, min(self.allowed_cores, math.ceil(self.cpu_quota)))

    @property
    def usable_memory(self) -> int | None:
        """Memory that may be used, bytes; None if neither machine nor control groups tell."""
        return self.memory_limit if self.memory_limit is not None else self.machine_memory

    @property
    def image_workers(self) -> int:
        """Number of threads that process an interferogram each: one a core, as far as the memory goes."""
        if self.usable_memory is None:
            return self.usable_cores
        return max(1, min(self.usable_cores, (self.usable_memory - PROCESS_BYTES) // IMAGE_BYTES))


def read_machine_limits(root: Path = Path("/")) -> MachineLimits:
    """Return what this process may use; a file that is missing or unreadable counts as no limit.

    Parameters
    ----------
    root : pathlib.Path
        Folder that ``proc`` and the mounted control groups are read from, ``/`` but in tests.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = os.cpu_count() or 1
    memory = parse_memory_total(_read(root / "proc/meminfo"))
    folders = find_cgroup_folders(_read(root / "proc/self/cgroup"), _read(root / "proc/self/mountinfo"))
    quotas = list(_cpu_quotas(root, folders))
    limits = [limit for limit in _memory_limits(root, folders) if memory is None or limit < memory]
    return MachineLimits(
        machine_cores=cores,
        allowed_cores=len(affinity(0)) if affinity else cores,
        cpu_quota=min(quotas, default=None),
        machine_memory=memory,
        memory_limit=min(limits, default=None),
    )


def identify_shared_cores() -> str:
    """Return a text that is the same for all processes that share the cores of this machine."""
    cores = getattr(os, "sched_getaffinity", lambda _: ())(0)
    with suppress(OSError):
        groups = Path("/proc/self/cgroup").read_bytes()[: 1 << 16]
        return hashlib.sha256(repr((socket.gethostname(), sorted(cores), groups)).encode()).hexdigest()
    return socket.gethostname()


def count_usable_cores() -> int:
    """Return the number of threads of this process that can compute at once."""
    return read_machine_limits().usable_cores


def bound_library_threads() -> None:
    """Let libraries start no more threads than the quota of processor time allows.

    NumPy's and PyTorch's libraries and Zarr count the cores that they see. They read the environment when
    they are imported, and so do child processes; variables that are set already stay as they are.
    """
    limits = read_machine_limits()
    if limits.usable_cores < limits.machine_cores:
        for name in LIBRARY_THREADS:
            os.environ.setdefault(name, str(limits.usable_cores))


def find_cgroup_folders(membership: str, mounts: str) -> dict[str, list[str]]:
    """Return the folders of the control groups that hold a process, from the inmost outwards.

    Parameters
    ----------
    membership : str
        Text of ``/proc/self/cgroup``.
    mounts : str
        Text of ``/proc/self/mountinfo``.

    Returns
    -------
    dict of str to list of str
        Absolute paths by controller of version 1 (``cpu``, ``memory``), and by :data:`UNIFIED` of version 2.
        A hierarchy that is not mounted is left out.

    Examples
    --------
    >>> find_cgroup_folders("0::/job/step", "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 none rw")
    {'': ['/sys/fs/cgroup/job/step', '/sys/fs/cgroup/job', '/sys/fs/cgroup']}
    """
    groups: dict[str, str] = {}
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and path.startswith("/"):
            groups |= dict.fromkeys(controllers.split(","), path)
    found: dict[str, list[str]] = {}
    for line in mounts.splitlines():
        fields, _, kind = (part.split() for part in line.partition(" - "))
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        top, place = (PurePosixPath(_OCTAL.sub(lambda m: chr(int(m[1], 8)), text)) for text in fields[3:5])
        for controller in [UNIFIED] if kind[0] == "cgroup2" else kind[2].split(","):
            if controller in groups and place.is_absolute():
                found.setdefault(controller, _folders_between(top, place, PurePosixPath(groups[controller])))
    return found


def _folders_between(shown: PurePosixPath, place: PurePosixPath, group: PurePosixPath) -> list[str]:
    """Return the folders from a group up to where a mount at `place` shows the group `shown`.

    In a container the group may lie outside of what is mounted; then the mount itself is the container's.
    """
    inside = group.relative_to(shown).parts if group.is_relative_to(shown) else ()
    if ".." in inside:
        inside = ()
    return [str(place.joinpath(*inside[:depth])) for depth in range(len(inside), -1, -1)]


def parse_cpu_max(text: str) -> float | None:
    """Return the quota of version 2's ``cpu.max`` in cores, or None for none.

    Examples
    --------
    >>> parse_cpu_max("150000 100000"), parse_cpu_max("max 100000")
    (1.5, None)
    """
    quota, _, period = text.strip().partition(" ")
    return parse_cfs_quota(quota, period)


def parse_cfs_quota(quota: str, period: str) -> float | None:
    """Return the quota of version 1's ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` in cores.

    Examples
    --------
    >>> parse_cfs_quota("50000", "100000"), parse_cfs_quota("-1", "100000")
    (0.5, None)
    """
    granted, each = _parse_count(quota), _parse_count(period)
    return granted / each if granted and each else None


def parse_memory_limit(text: str) -> int | None:
    """Return the limit of ``memory.max``, ``memory.high`` or ``memory.limit_in_bytes``, or None for none.

    Examples
    --------
    >>> parse_memory_limit("2147483648"), parse_memory_limit("max"), parse_memory_limit("9223372036854771712")
    (2147483648, None, None)
    """
    limit = _parse_count(text)
    return limit if limit is not None and 0 < limit < _NO_LIMIT else None


def parse_memory_total(text: str) -> int | None:
    """Return the machine's memory of ``/proc/meminfo``, bytes.

    Examples
    --------
    >>> parse_memory_total("MemTotal:       2048 kB")
    2097152
    """
    match = re.search(r"^MemTotal:\s*([0-9]{1,18}) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _cpu_quotas(root: Path, folders: dict[str, list[str]]) -> Iterator[float]:
    for folder in folders.get(UNIFIED, []):
        if quota := parse_cpu_max(_read(_below(root, folder) / "cpu.max")):
            yield quota
    for folder in folders.get("cpu", []):
        texts = (_read(_below(root, folder) / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota := parse_cfs_quota(*texts):
            yield quota


def _memory_limits(root: Path, folders: dict[str, list[str]]) -> Iterator[int]:
    files = {UNIFIED: ("memory.max", "memory.high"), "memory": ("memory.limit_in_bytes",)}
    for controller, names in files.items():
        for folder in folders.get(controller, []):
            for name in names:
                if limit := parse_memory_limit(_read(_below(root, folder) / name)):
                    yield limit


def _below(root: Path, folder: str) -> Path:
    return root / folder.lstrip("/")


def _parse_count(text: str) -> int | None:
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 20 else None


def _read(path: Path) -> str:
    """Return the text of a file of the kernel; none if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_FILE_BYTES)
    except (OSError, ValueError):
        return ""
