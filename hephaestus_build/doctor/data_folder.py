"""Checks of the data folder: what its file system can do, free space, and who writes to it now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hephaestus_build.core.filesystem.manners import FilesystemManners
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import list_names, read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.storage.frame_folder import GENERATIONS
from hephaestus_build.cube.storage.generations import LOCK_FILE, LOCK_HOLDER_FILE
from hephaestus_build.doctor.check import Check, judge

#: Bytes without which no frame can be built, and below which a frame of a hundred pairs may not fit.
LEAST_BYTES, FEW_BYTES = 1 << 30, 20 << 30
_OTHER_FOLDER = "set HEPHAESTUS_DATA_DIR to a folder on another file system"


def check_manners(manners: FilesystemManners) -> Iterator[Check]:
    """Yield the checks of what the file system of the data folder can do.

    Parameters
    ----------
    manners : FilesystemManners
        As :func:`~hephaestus_build.core.filesystem.manners.probe_filesystem` found it.
    """
    folder = manners.folder
    yield judge(
        "data_folder",
        f"nothing can be written to {folder} ({manners.write_error})" if manners.write_error else "",
        ok=f"{folder} can be written",
        next_step="make it writable, or set HEPHAESTUS_DATA_DIR to another folder",
    )
    if manners.free_bytes is not None:
        yield check_free_space(manners.free_bytes)
    if manners.write_error:
        return
    yield judge(
        "renames",
        f"folders cannot be renamed or files not replaced ({manners.rename_error})"
        if manners.rename_error
        else "",
        ok="folders are renamed and files replaced at once",
        next_step=_OTHER_FOLDER,
    )
    yield judge(
        "disk",
        f"what is written cannot be brought to the disk ({manners.disk_error})" if manners.disk_error else "",
        ok="what is written is flushed to the disk",
        next_step=f"check the disk and its connection, or {_OTHER_FOLDER}",
    )
    lacking = (
        ("symbolic_links", manners.symlink_error, "cubes are published as links"),
        ("hard_links", manners.hard_link_error, "generations share unchanged files"),
        ("locks", manners.lock_error or manners.local_locks, "builds on several machines exclude each other"),
        ("folder_sync", manners.folder_sync_error, "publications survive a power cut"),
    )
    said = iter(manners.describe_lacks())
    for name, error, ok in lacking:
        fault = next(said) if error else ""
        yield judge(name, fault, ok=ok, next_step=f"nothing, or {_OTHER_FOLDER}", verdict="warning")
    yield judge(
        "letter_case",
        ""
        if manners.is_case_sensitive is not False
        else "names that differ only in letter case are the same",
        ok="names that differ in letter case are different",
        next_step="do not name files of your own like a cube in other letters",
        verdict="warning",
    )


def check_free_space(free_bytes: int) -> Check:
    """Check that there is space for a frame.

    Parameters
    ----------
    free_bytes : int
        Space that this user may still write, bytes.
    """
    detail = f"{free_bytes / 1e9:.1f} GB are free"
    if free_bytes >= FEW_BYTES:
        return Check("free_space", "ok", detail)
    return Check(
        "free_space",
        "failed" if free_bytes < LEAST_BYTES else "warning",
        detail,
        "free some space (`hephaestus gc`, or delete the cache); `hephaestus plan FRAME` says what it needs",
    )


def check_writers(cubes: Path) -> Check:
    """Check who writes to the folder of cubes now, from the notes beside the locks.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of the cubes; need not exist.
    """
    at_work: list[str] = []
    left: list[str] = []
    folder = cubes / GENERATIONS
    names: list[str] = []
    with suppress(OSError):
        names = sorted(list_names(folder)) if folder.is_dir() else []
    for name in names:
        try:
            value = parse_json(read_plain_file(folder / name, LOCK_HOLDER_FILE, 1 << 16))
            who = sanitize_text(
                f"{name}: process {value['pid']} on {value['host']} since {value['since']}", 200
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        (at_work if _is_locked(folder / name / LOCK_FILE) else left).append(who)
    if left:
        what = f"processes that ended without a word have left notes: {'; '.join(left)}"
        return Check(
            "writers",
            "warning",
            what,
            "run the same command for the frame again: it goes on where it stopped",
        )
    return Check("writers", "ok", f"at work: {'; '.join(at_work)}" if at_work else "nobody else writes here")


def _is_locked(path: Path) -> bool:
    """Return whether another process holds a lock; tried without keeping others from it."""
    try:
        import fcntl
    except ImportError:  # not available on Windows: what the note says is taken as true
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here
        return True
    finally:
        os.close(descriptor)
    return False
