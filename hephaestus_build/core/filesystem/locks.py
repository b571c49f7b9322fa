"""Locks between processes, which the operating system releases when a process ends, however it ends.

Where the file system has no locks (NFS without its lock daemon, some FUSE and network mounts), processes of
one machine exclude each other through the name of a socket, of which the kernel gives each to one process at
a time. Processes of other machines do not see that name, which a warning says; nor do they see the locks of
some network mounts, on which locking works.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hephaestus_build.core.atomic_io import hash_bytes, make_folder
from hephaestus_build.core.filesystem.manners import describe_errno, probe_filesystem
from hephaestus_build.core.filesystem.mounts import find_local_locks
from hephaestus_build.core.plain_files import check_no_links, open_plain_file

try:
    import fcntl
except ImportError:  # not available on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_PAUSE = 0.2  # seconds between two attempts to get a lock
_warned: set[str] = set()  # what this process has warned about


@contextmanager
def try_lock_file(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a file during the block unless another process has locked it; yield whether it is locked.

    The operating system releases the lock when the process ends, however it ends.

    Parameters
    ----------
    path : pathlib.Path
        The file; it and its folder are created if necessary.
    wait : bool
        Whether to wait for another process.

    Raises
    ------
    OSError
        If the file cannot be made, or a link or device is at its path.
    """
    make_folder(path.parent)
    check_no_links(path.parent, path.name)
    if reason := _find_lock_error(path):
        if reason not in _warned:
            _warned.add(reason)
            log.warning(
                "%s: files cannot be locked there (%s); processes on this machine still exclude each other, "
                "those on others do not: use one machine at a time",
                path.parent,
                reason,
            )
        with _hold_name(path, wait=wait) as locked:
            yield locked
        return
    if (kept := find_local_locks(path.parent)) and kept not in _warned:
        _warned.add(kept)
        log.warning(
            "%s: other machines do not see the locks of files there (%s): build a frame on one machine "
            "at a time",
            path.parent,
            kept,
        )
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _find_lock_error(path: Path) -> str:
    """Return why a file cannot be locked, on a file system without locks; empty if it can, or is locked."""
    if fcntl is None:
        return ""
    with open_plain_file(path.parent, path.name, os.O_RDWR | os.O_CREAT) as (descriptor, _):
        try:
            # another process that tries at this moment takes the file for locked, as it is about to be
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        except OSError as error:
            if error.errno == errno.EACCES:  # of some servers: another client has locked it
                return probe_filesystem(path.parent).lock_error
            return describe_errno(error)
    return ""


@contextmanager
def _hold_name(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the name of a socket that stands for a file, as :func:`try_lock_file` does."""
    name = b"\0hephaestus-build/" + hash_bytes(os.fsencode(path.resolve())).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        while True:
            try:
                holder.bind(name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if not wait:
                    yield False
                    return
                time.sleep(_PAUSE)
            else:
                break
        yield True
