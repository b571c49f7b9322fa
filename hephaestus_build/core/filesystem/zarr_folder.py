"""A folder that zarr-python writes to, on file systems without hard links too."""

from __future__ import annotations

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore


class ZarrFolder(LocalStore):
    """The folder of a Zarr store that one process at a time writes.

    zarr-python's own store creates a file that must not exist yet by a hard link, so that two processes
    cannot both create it. The callers here hold a lock, or write to a draft of their own.
    """

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Store a value unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)
