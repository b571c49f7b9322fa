"""One frame's folder of generations, in a place that others may write to: what is in it, and what may go.

Nothing is removed that a build did not make, and no link is followed: a folder that is replaced by a link
between two looks is refused by the system itself, since all is removed through descriptors.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import (
    UnsafePathError,
    describe_file_type,
    is_plain_file,
    is_real_folder,
    list_names,
    open_real_folder,
    remove_folder,
    walk_files,
)

#: Folder of all generations, beside the links to the published ones.
GENERATIONS = ".generations"
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
GENERATION_NUMBER = re.compile(r"[0-9]{6}")
#: What a killed writer leaves: folders and small files, each with a random ending of its own.
_LEFT_FOLDER = re.compile(r"\.(?:draft|removed)-[0-9a-f]{12}")
_LEFT_FILE = re.compile(r"\.(?:lock|upstream|baselines)\.json\.[0-9a-f]{12}")


class FrameFolder:
    """``<cubes>/.generations/<frame>``: the folder of one frame's generations.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of the published cubes; trusted as it is, also where it is a link.
    frame : str
        Id of the frame.
    """

    def __init__(self, cubes: Path, frame: str) -> None:
        self.path = cubes / GENERATIONS / frame
        self._cubes, self._frame = cubes, frame
        self._own_names = {f"{frame}.zarr", MANIFEST, PROVENANCE}

    @contextmanager
    def guard_access(self) -> Iterator[None]:
        """Refuse a folder that is a link, and say in one line what the system refuses meanwhile.

        Raises
        ------
        HephaestusError
            If the folder of generations or the frame's own is a link or a file, or cannot be read.
        """
        for folder in (self.path.parent, self.path):
            with suppress(OSError):
                mode = folder.lstat().st_mode
                if not stat.S_ISDIR(mode):
                    raise self.foreign_file_error(folder, mode)
        try:
            yield
        except OSError as error:
            raise HephaestusError(
                f"{self._frame}: {error.filename or self.path} cannot be read ({error.strerror or error}); "
                f"mend that and run the same command again"
            ) from error

    def foreign_file_error(self, path: Path, mode: int) -> HephaestusError:
        """Return the error that something in the folder is not what a build makes there."""
        what = "a file" if stat.S_ISREG(mode) else describe_file_type(mode)
        return HephaestusError(
            f"{self._frame}: {path} is {what}, which this program did not make and does not follow; move it "
            f"away and run the same command again"
        )

    def check_for_writing(self, lock: Path, staging: Path) -> None:
        """Refuse to write where something in the folder leads elsewhere.

        Raises
        ------
        HephaestusError
            If the lock, or anything that a build has staged, is not a plain file in a real folder.
        """
        with self.guard_access():
            for path, expected in ((lock, stat.S_ISREG), (staging, stat.S_ISDIR)):
                with suppress(FileNotFoundError, NotADirectoryError):
                    if not expected(mode := path.lstat().st_mode):
                        raise self.foreign_file_error(path, mode)
            if is_real_folder(staging):
                for name, facts in walk_files(staging):
                    if not stat.S_ISREG(facts.st_mode):
                        raise self.foreign_file_error(staging / name, facts.st_mode)

    def used_numbers(self) -> list[int]:
        """Return all numbers that are the name of something, sorted."""
        with self.guard_access():
            names = list_names(self.path) if is_real_folder(self.path) else []
            return sorted(int(name) for name in names if GENERATION_NUMBER.fullmatch(name))

    def generation_numbers(self) -> list[int]:
        """Return the numbers of all generations, sorted.

        A generation is a real folder of six digits that holds this frame's store with some of its record;
        other folders are somebody else's.
        """
        return [number for number in self.used_numbers() if self._holds_generation(number)]

    def store_path(self, number: int) -> Path:
        """Return where the store of a generation is."""
        return self.path / f"{number:06d}" / f"{self._frame}.zarr"

    def _holds_generation(self, number: int) -> bool:
        store = self.store_path(number)
        places = (store, store.parent)
        return all(map(is_real_folder, places)) and any(
            is_plain_file(folder, name) for folder in places for name in (MANIFEST, PROVENANCE)
        )

    def remove_generation(self, number: int) -> bool:
        """Remove a generation: for a reader it is there whole, or gone.

        Returns
        -------
        bool
            Whether it was removed; it stays where somebody has put something else into it.
        """
        left = f".removed-{uuid.uuid4().hex[:12]}"
        with self._open() as root:
            name = f"{number:06d}"
            if not self._holds_only_own(root, name):
                return False
            os.rename(name, left, src_dir_fd=root, dst_dir_fd=root)
            remove_folder(root, left)
            return True

    def remove_draft(self, name: str) -> None:
        """Remove a draft of this process."""
        with suppress(OSError), self._open() as root:
            remove_folder(root, name)

    def remove_leftovers(self) -> None:
        """Remove what killed builds left, and nothing that they did not make."""
        with self.guard_access(), suppress(FileNotFoundError), self._open() as root:
            for name in list_names(root):
                if _LEFT_FOLDER.fullmatch(name) and self._holds_only_own(root, name):
                    remove_folder(root, name)
                elif _LEFT_FILE.fullmatch(name):
                    mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
                    if stat.S_ISREG(mode):
                        os.unlink(name, dir_fd=root)

    @contextmanager
    def _open(self) -> Iterator[int]:
        with open_real_folder(self._cubes, f"{GENERATIONS}/{self._frame}") as descriptor:
            yield descriptor

    def _holds_only_own(self, root: int, name: str) -> bool:
        """Whether a folder is a generation of this frame, or the rest of one: it holds nothing else."""
        try:
            with open_real_folder(root, name) as folder:
                return self._own_names.issuperset(list_names(folder))
        except UnsafePathError:
            return False
