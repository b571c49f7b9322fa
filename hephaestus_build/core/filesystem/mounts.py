"""Mounts whose file locks other machines do not see, from the system's table of mounts.

``flock`` works on these, so trying it says nothing: the kernel of each machine keeps the locks to itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Linux's table of the mounts that this process sees: proc_pid_mountinfo(5).
MOUNT_TABLE = Path("/proc/self/mountinfo")

#: FUSE file systems of servers that do not pass locks on to the server.
_KEEP_LOCKS = frozenset(
    f"fuse.{name}"
    for name in ("davfs", "gcsfuse", "goofys", "mount-s3", "rclone", "s3fs", "smbnetfs", "sshfs")
)
#: Options of NFS mounts with which locks stay on the machine: nfs(5).
_NFS_KEEPS = frozenset(("nolock", "local_lock=all", "local_lock=flock"))


@dataclass(frozen=True)
class Mount:
    """One mounted file system.

    Attributes
    ----------
    place : pathlib.PurePosixPath
        Where it is mounted.
    kind : str
        Type of the file system, such as ``nfs4`` or ``fuse.sshfs``.
    options : frozenset of str
        Options of the mount and of the file system.
    """

    place: PurePosixPath
    kind: str
    options: frozenset[str]

    @property
    def local_locks(self) -> str:
        """Why other machines do not see locks of files there; empty if they do, or nothing is known."""
        if self.kind in _KEEP_LOCKS:
            return self.kind
        if self.kind in ("nfs", "nfs4") and (kept := self.options & _NFS_KEEPS):
            return f"{self.kind} mounted with {min(kept)}"
        if self.kind == "lustre" and "flock" not in self.options:
            return f"lustre mounted {'with localflock' if 'localflock' in self.options else 'without flock'}"
        return ""


def parse_mounts(table: str) -> Iterator[Mount]:
    r"""Yield the mounts of a table as :data:`MOUNT_TABLE` has it; lines of another form are left out.

    Examples
    --------
    >>> line = "46 27 0:42 / /mnt/my\\040data rw,relatime - fuse.sshfs host:/data rw,user_id=0"
    >>> [mount] = parse_mounts(line)
    >>> mount.place.name, mount.local_locks
    ('my data', 'fuse.sshfs')
    """
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        mount, system = before.split(" "), after.split(" ")
        if len(mount) >= 6 and len(system) >= 3:
            place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount[4])
            options = frozenset((mount[5] + "," + system[2]).split(","))
            yield Mount(PurePosixPath(place), system[0], options)


def find_local_locks(folder: Path, table: Path = MOUNT_TABLE) -> str:
    """Return why other machines do not see the locks of files in a folder.

    Parameters
    ----------
    folder : pathlib.Path
        The folder; it need not exist.
    table : pathlib.Path
        The table of mounts.

    Returns
    -------
    str
        Such as ``fuse.sshfs``; empty if they see them, or nothing is known, as on other systems than Linux.
    """
    found = None
    with suppress(OSError):
        place = PurePosixPath(os.path.realpath(folder))
        for mount in parse_mounts(table.read_text(errors="surrogateescape")):
            # of two mounts at one place, the later one hides the earlier one
            if place.is_relative_to(mount.place) and (
                found is None or len(mount.place.parts) >= len(found.place.parts)
            ):
                found = mount
    return found.local_locks if found else ""
