"""The name under which a cube is published: a link to a generation, or a plain folder equal to one.

Where the file system has no symbolic links, the name is a folder with the files of the generation: hard
links to them, or copies. It is filled beside and takes the name by one exchange of names, or by two renames
where the file system cannot exchange them. If a process is killed between these, nothing has the name until
the next command that writes publishes the newest generation.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
import uuid
from contextlib import suppress
from pathlib import Path

from hephaestus_build.core.atomic_io import link_files, sync_folder
from hephaestus_build.core.filesystem.exchange import exchange_names
from hephaestus_build.core.plain_files import is_real_folder, list_names, read_plain_file, walk_files
from hephaestus_build.cube.storage.frame_folder import GENERATIONS, MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES, decode_manifest

log = logging.getLogger(__name__)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BEING_REPLACED = re.compile(r"\.removed-[0-9a-f]{12}")
_LONGEST_REPLACEMENT = 1.0  # seconds for which a reader waits for the second of two renames


class PublishedName:
    """The published name of one frame's cube.

    Parameters
    ----------
    path : pathlib.Path
        ``<cubes>/<frame>.zarr``.
    root : pathlib.Path
        Folder of the frame's generations, in which drafts are made.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self._root = path, root

    def point_to(self, store: Path) -> None:
        """Let the name lead to the store of a generation, in place of what it leads to now.

        The caller has made sure that the name is free, or belongs to a generation.

        Raises
        ------
        OSError
            If the disk is full, or the file system refuses renames too.
        """
        target = os.path.relpath(store, self.path.parent)
        link = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:12]}")
        try:
            link.symlink_to(target)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise
            if has_record_of(self.path, [store]):
                return
            draft = self._make_draft("draft")
            copy_store(store, draft)
            self._replace(draft)
        else:
            if is_real_folder(self.path):
                draft = self._make_draft("draft")
                link.rename(draft)
                self._replace(draft)
            else:
                link.replace(self.path)
        sync_folder(self.path.parent)

    def _make_draft(self, kind: str) -> Path:
        """Make a folder that counts as a leftover; return the path of a store in it."""
        folder = self._root / f".{kind}-{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        return folder / self.path.name

    def _replace(self, draft: Path) -> None:
        """Give a folder or a link the published name; what has it now is removed with the other leftovers."""
        if is_real_folder(self.path) and _has_other_files(self.path):
            kept = self.path.with_name(f"{self.path.name}.replaced-{uuid.uuid4().hex[:12]}")
            self.path.rename(kept)
            log.warning("%s: it contains files that no build made, so it is kept as %s", self.path, kept)
        elif os.path.lexists(self.path) and not exchange_names(draft, self.path):
            self.path.rename(self._make_draft("removed"))
        if os.path.lexists(draft) and not os.path.lexists(self.path):
            draft.rename(self.path)

    def remove_leftovers(self) -> None:
        """Remove the links with temporary names that killed builds left."""
        left = re.compile(rf"\.{re.escape(self.path.name)}\.[0-9a-f]{{12}}")
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            if left.fullmatch(path.name) and path.is_symlink():
                path.unlink(missing_ok=True)


def copy_store(store: Path, target: Path) -> None:
    """Fill a folder with the plain files of a store that its manifest lists: hard links, or else copies.

    All plain files are taken if the manifest cannot be read.
    """
    listed = _listed_files(store)
    files = [name for name, facts in walk_files(store) if stat.S_ISREG(facts.st_mode)]
    link_files(target, {name: f"{store}/{name}" for name in files if listed is None or name in listed})
    sync_folder(target)


def _listed_files(store: Path) -> set[str] | None:
    with suppress(OSError, ValueError):
        objects = decode_manifest(read_plain_file(store, MANIFEST, MAX_RECORD_BYTES))
        return {*objects, MANIFEST, PROVENANCE}
    return None


def _has_other_files(store: Path) -> bool:
    """Return whether a published folder contains files that no build put there."""
    listed = _listed_files(store)
    return listed is not None and any(name not in listed for name, _ in walk_files(store))


def has_record_of(store: Path, folders: list[Path]) -> bool:
    """Return whether a store has the same manifest or the same provenance as one of some folders."""
    for name in (MANIFEST, PROVENANCE):
        with suppress(OSError, ValueError):
            own = read_plain_file(store, name, MAX_RECORD_BYTES)
            for folder in folders:
                with suppress(OSError, ValueError):
                    if read_plain_file(folder, name, MAX_RECORD_BYTES) == own:
                        return True
    return False


def wait_for_replacement(path: Path) -> bool:
    """Return whether something is published at a name; waits a moment if it is just being replaced."""
    deadline = time.monotonic() + _LONGEST_REPLACEMENT
    root = path.parent / GENERATIONS / path.name.removesuffix(".zarr")
    while not os.path.lexists(path):
        replacing = False
        with suppress(OSError):
            replacing = is_real_folder(root) and any(map(_BEING_REPLACED.fullmatch, list_names(root)))
        if not replacing or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
