"""Checks of the machine: processor cores, memory, open files and the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from hephaestus_build.core.machine.limits import IMAGE_BYTES, PROCESS_BYTES, MachineLimits
from hephaestus_build.doctor.check import Check, judge

#: Open files that a build with the most connections and workers needs.
LEAST_FILES = 256
#: No clock is right before the day on which this was written.
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
_CLOCK_WARNING, _CLOCK_FAILURE = timedelta(minutes=2), timedelta(hours=1)


def check_limits(limits: MachineLimits) -> Iterator[Check]:
    """Yield the checks of cores and memory.

    Parameters
    ----------
    limits : MachineLimits
        As :func:`~hephaestus_build.core.machine.limits.read_machine_limits` reads them.
    """
    quota = f", quota {limits.cpu_quota:g}" if limits.cpu_quota is not None else ""
    shown = f"{limits.usable_cores} of {limits.machine_cores} cores{quota}"
    slow = limits.cpu_quota is not None and limits.cpu_quota < 1
    yield judge(
        "cpu",
        f"less than a core may be used: {shown}" if slow else "",
        ok=f"{shown} may be used",
        next_step="give the container more processor time; builds are slow until then",
        verdict="warning",
    )
    memory = limits.usable_memory
    if memory is None:
        yield Check("memory", "ok", "neither the machine nor control groups state a limit")
        return
    least, wanted = PROCESS_BYTES + IMAGE_BYTES, PROCESS_BYTES + limits.usable_cores * IMAGE_BYTES
    detail = f"{memory / 1e9:.1f} GB may be used, for {limits.image_workers} interferograms at once"
    if memory >= wanted:
        yield Check("memory", "ok", detail)
        return
    yield Check(
        "memory",
        "failed" if memory < least else "warning",
        detail,
        f"give the container {wanted / 1e9:.1f} GB; set HEPHAESTUS_WORKERS to 1 meanwhile",
    )


def open_file_limit() -> int | None:
    """Return how many files this process may open; None if there is no limit."""
    try:
        import resource
    except ImportError:  # not available on Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def check_open_files(limit: int | None) -> Check:
    """Check that enough files may be open at once.

    Parameters
    ----------
    limit : int or None
        Number of files; None for no limit.
    """
    few = limit is not None and limit < LEAST_FILES
    return judge(
        "open_files",
        f"only {limit} files may be open at once" if few else "",
        ok="any number of files may be open" if limit is None else f"{limit} files may be open at once",
        next_step=f"`ulimit -n {4 * LEAST_FILES}` before the command",
    )


def check_clock(now: datetime, server_date: str | None = None) -> Check:
    """Check the clock, against the date that a server states if there is one.

    Parameters
    ----------
    now : datetime
        Time of this machine, UTC.
    server_date : str, optional
        Header ``Date`` of an answer that has just arrived.
    """
    step = "set the clock (timedatectl set-ntp true): ERA5's releases and the cache's ages are counted by it"
    if now < _EARLIEST:
        return Check(
            "clock", "failed", f"the clock says {now:%Y-%m-%d %H:%M} UTC, which is in the past", step
        )
    if server_date is None:
        return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC, not compared with a server's")
    try:
        there = parsedate_to_datetime(server_date)
        there = there if there.tzinfo is not None else there.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return Check("clock", "warning", "the portal states no date that can be read", "nothing")
    off = abs(now - there)
    detail = f"{off.total_seconds():.0f} s from the portal's"
    if off <= _CLOCK_WARNING:
        return Check("clock", "ok", detail)
    return Check("clock", "failed" if off > _CLOCK_FAILURE else "warning", detail, step)
