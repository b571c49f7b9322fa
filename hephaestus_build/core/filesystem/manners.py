"""What the file system of a folder can do: links, locks, flushing, renames, letter case and free space.

exFAT has no links, SMB and drvfs may refuse them, NFS without its lock daemon has no locks, and folders of
object stores cannot be renamed. What a file system lacks is found by trying it, since neither its name nor
its mount options tell; only whether other machines see a lock cannot be tried.

``build`` and ``plan`` call :func:`probe_filesystem` before anything is downloaded::

    manners = probe_filesystem(settings.cubes_dir)
    manners.require_usable("124D_04854_171313")    # raises HephaestusError if no cube can be written there
    manners.describe_lacks()                        # lines on what is done in another way, and what it costs

A report on a machine reads the attributes instead: each ``*_error`` is empty if the operation works, and
otherwise the reason, such as ``EPERM, Operation not permitted``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hephaestus_build.core.atomic_io import NO_FLUSH, sync_files, sync_folder
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.mounts import find_local_locks
from hephaestus_build.core.plain_files import remove_folder

try:
    import fcntl
except ImportError:  # not available on Windows
    fcntl = None  # type: ignore[assignment]

_PROBE = ".hephaestus-probe-"
_LEFT_PROBE = re.compile(re.escape(_PROBE) + "[0-9a-f]{12}")
_FULL = ("ENOSPC", "EDQUOT")
_LEFT_AFTER = 3600.0  # seconds after which the folder of a killed probe is removed


@dataclass(frozen=True)
class FilesystemManners:
    """What the file system of one folder can do.

    Each error is empty if the operation works; otherwise it is the name of the error and its description,
    such as ``EPERM, Operation not permitted``. If the folder cannot be written, nothing else was tried.

    Attributes
    ----------
    folder : pathlib.Path
        The folder that was tried: the given one, or its nearest parent that exists.
    write_error : str
        Of creating a folder and a file.
    rename_error : str
        Of renaming a folder, replacing a file and appending to one.
    symlink_error, hard_link_error : str
        Of creating symbolic links and replacing one by another, and of creating hard links.
    lock_error : str
        Of locking a file with ``flock``.
    local_locks : str
        Why locks work, but other machines do not see them; not an error, but a type of file system.
    folder_sync_error : str
        Of flushing a folder's entries to the disk, where the file system has no such operation.
    disk_error : str
        Of flushing a file or folder to the disk, for another reason: what is written may be lost.
    is_case_sensitive : bool or None
        Whether names that differ only in letter case are different; None if not tried.
    free_bytes : int or None
        Space that this user may still write, bytes; None if the file system does not say.
    """

    folder: Path
    write_error: str = ""
    rename_error: str = ""
    symlink_error: str = ""
    hard_link_error: str = ""
    lock_error: str = ""
    local_locks: str = ""
    folder_sync_error: str = ""
    disk_error: str = ""
    is_case_sensitive: bool | None = None
    free_bytes: int | None = None

    @property
    def copies_per_generation(self) -> int:
        """How often the objects of a cube are stored when it is published once more: 0 with hard links."""
        if not self.hard_link_error:
            return 0
        return 2 if self.symlink_error else 1

    def require_usable(self, what: object) -> None:
        """Check that cubes can be written to the folder, if in other ways than usual.

        Parameters
        ----------
        what : object
            The frame; the message begins with it.

        Raises
        ------
        HephaestusError
            If the folder cannot be written, or files and folders in it cannot be renamed.
        """
        errors = (self.write_error, self.rename_error, self.disk_error)
        if full := next((error for error in errors if error.startswith(_FULL)), ""):
            raise HephaestusError(
                f"{what}: {self.folder}: the disk is full or its quota used up ({full}): free "
                f"some space (`hephaestus plan` says how much is needed) or set HEPHAESTUS_DATA_DIR to "
                f"another folder"
            )
        if self.write_error:
            raise HephaestusError(
                f"{what}: nothing can be written to {self.folder} ({self.write_error}); make it writable or "
                f"set HEPHAESTUS_DATA_DIR to another folder"
            )
        if self.rename_error:
            raise HephaestusError(
                f"{what}: the file system of {self.folder} cannot rename folders, replace files and append "
                f"to them ({self.rename_error}), so no cube can be published there; set HEPHAESTUS_DATA_DIR "
                f"to a folder on another file system"
            )
        if self.disk_error:
            raise HephaestusError(
                f"{what}: what is written to {self.folder} cannot be brought to the disk "
                f"({self.disk_error}), so no cube can be published there; check the disk and its connection, "
                f"or set HEPHAESTUS_DATA_DIR to a folder on another file system"
            )

    def describe_lacks(self) -> tuple[str, ...]:
        """Return a line on each operation that does not work: what is done instead, and what it costs."""
        lacks = []
        if self.symlink_error:
            lacks.append(
                f"no symbolic links ({self.symlink_error}): a cube is published as a plain folder; readers "
                f"that keep using its name may get an error when a later generation is published"
            )
        if self.hard_link_error:
            how_often = "twice" if self.copies_per_generation == 2 else "once"
            lacks.append(
                f"no hard links ({self.hard_link_error}): each publication writes the whole cube {how_often}"
            )
        if self.lock_error:
            lacks.append(
                f"no file locks ({self.lock_error}): builds on this machine still exclude each other, those "
                f"on others do not; build a frame on one machine at a time"
            )
        elif self.local_locks:
            lacks.append(
                f"other machines do not see file locks ({self.local_locks}): build a frame on one machine at "
                f"a time"
            )
        if self.folder_sync_error:
            lacks.append(
                f"folders cannot be flushed to the disk ({self.folder_sync_error}): a power cut may undo the "
                f"last publication; the same command repeats it"
            )
        return tuple(f"{self.folder}: {lack}" for lack in lacks)


def probe_filesystem(folder: Path) -> FilesystemManners:
    """Try what the file system of a folder can do; nothing is left behind.

    Parameters
    ----------
    folder : pathlib.Path
        The folder. If it does not exist, its nearest parent that does is tried, since the folder will be on
        the same file system.

    Returns
    -------
    FilesystemManners
        What works. Never raises OSError.
    """
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(place).free
    _remove_left_probes(place)
    probe = place / f"{_PROBE}{uuid.uuid4().hex[:12]}"
    try:
        probe.mkdir()
    except OSError as error:
        return FilesystemManners(place, write_error=describe_errno(error), free_bytes=free)
    try:
        plain = probe / "plain"
        if reason := _failure(lambda: plain.write_bytes(b"x")):
            return FilesystemManners(place, write_error=reason, free_bytes=free)
        return FilesystemManners(
            place,
            rename_error=_failure(lambda: _try_renames(probe)),
            symlink_error=_failure(lambda: _try_symlink(probe)),
            hard_link_error=_failure(lambda: (probe / "hard").hardlink_to(plain)),
            lock_error=_failure(lambda: _try_lock(plain)),
            local_locks=find_local_locks(place),
            folder_sync_error=_failure(lambda: _try_folder_sync(probe)),
            disk_error=_failure(lambda: sync_files([plain])) or _failure(lambda: sync_folder(probe)),
            is_case_sensitive=not os.path.lexists(probe / "PLAIN"),
            free_bytes=free,
        )
    finally:
        with suppress(OSError):
            remove_folder(place, probe.name)


def describe_errno(error: OSError) -> str:
    """Return the name of a system error and its description, such as ``EPERM, Operation not permitted``."""
    number = error.errno or 0
    name = errno.errorcode.get(number, type(error).__name__)
    return f"{name}, {os.strerror(number)}" if number else f"{name}, {error}"


def _failure(work: Callable[[], object]) -> str:
    try:
        work()
    except OSError as error:
        return describe_errno(error)
    except NotImplementedError:  # raised by pathlib where the system has no such call
        return "ENOSYS, Function not implemented"
    return ""


def _try_renames(probe: Path) -> None:
    before, after = probe / "before", probe / "after"
    before.mkdir()
    (before / "inside").write_bytes(b"x")
    before.rename(after)
    other = after / "other"
    other.write_bytes(b"y")
    other.replace(after / "inside")
    with (after / "inside").open("ab") as stream:
        stream.write(b"z")
    if (after / "inside").read_bytes() != b"yz":
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _try_symlink(probe: Path) -> None:
    link, draft = probe / "link", probe / "draft"
    link.symlink_to("elsewhere")
    draft.symlink_to("plain")
    draft.replace(link)
    if link.readlink() != Path("plain"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _try_lock(path: Path) -> None:
    if fcntl is None:
        raise NotImplementedError
    with path.open("rb+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _try_folder_sync(folder: Path) -> None:
    """Raise an error if folders cannot be flushed; one of the disk itself is not meant."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _remove_left_probes(folder: Path) -> None:
    """Remove what probes that were killed have left, after an hour."""
    with suppress(OSError):
        for path in folder.glob(f"{_PROBE}*"):
            if _LEFT_PROBE.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _LEFT_AFTER:
                if path.is_dir() and not path.is_symlink():
                    remove_folder(folder, path.name)
                else:
                    path.unlink()
