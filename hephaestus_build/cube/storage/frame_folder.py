"""The folder that holds the generations of one frame.

Other users may be able to write to this folder. Therefore only files that a build made are removed, and links
are never followed: removal goes through directory descriptors, so replacing a folder by a link between the
check and the removal makes the system call fail.
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

#: Folder of all generations, next to the links to the published ones.
GENERATIONS = ".generations"
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
#: What a staging area holds.
LEDGER, OBJECTS = "ledger.jsonl", "objects"
GENERATION_NUMBER = re.compile(r"[0-9]{6}")
#: Leftovers of a killed writer: folders and small files with a random suffix.
_LEFT_FOLDER = re.compile(r"\.(?:draft|removed)-[0-9a-f]{12}")
_LEFT_FILE = re.compile(r"\.(?:lock|upstream|baselines|summary|look)\.json\.[0-9a-f]{12}")


class FrameFolder:
    """``<cubes>/.generations/<frame>``: the folder of one frame's generations.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of the published cubes. It may be a link; only what lies below it is checked.
    frame : str
        Frame id.
    """

    def __init__(self, cubes: Path, frame: str) -> None:
        self.path = cubes / GENERATIONS / frame
        self._cubes, self._frame = cubes, frame
        self._own_names = {f"{frame}.zarr", MANIFEST, PROVENANCE}

    @contextmanager
    def guard_access(self) -> Iterator[None]:
        """Check that the folders are real, and turn an OSError raised in the block into a HephaestusError.

        Raises
        ------
        HephaestusError
            If ``.generations`` or the frame's folder is a link or a file, or cannot be read.
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
                f"correct that and run the same command again"
            ) from error

    def foreign_file_error(self, path: Path, mode: int) -> HephaestusError:
        """Return the error for a path of a type that no build creates there.

        Parameters
        ----------
        path : pathlib.Path
            Path of the foreign file.
        mode : int
            Its ``st_mode``.
        """
        what = "a file" if stat.S_ISREG(mode) else describe_file_type(mode)
        return HephaestusError(
            f"{self._frame}: {path} is {what}, which this program did not make and does not follow; move it "
            f"away and run the same command again"
        )

    def check_for_writing(self, lock: Path, staging: Path) -> None:
        """Check that writing to the lock and the staging area cannot lead outside the folder.

        Parameters
        ----------
        lock : pathlib.Path
            The lock file.
        staging : pathlib.Path
            The staging area.

        Raises
        ------
        HephaestusError
            If the lock or any staged object is not a plain file in a real folder.
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
        """Return every generation number that is taken as a file name, sorted."""
        with self.guard_access():
            names = list_names(self.path) if is_real_folder(self.path) else []
            return sorted(int(name) for name in names if GENERATION_NUMBER.fullmatch(name))

    def generation_numbers(self) -> list[int]:
        """Return the numbers of all generations, sorted.

        A generation is a real folder, named by six digits, that holds this frame's store and at least one
        copy of its manifest or provenance. Other folders are ignored.
        """
        return [number for number in self.used_numbers() if self._holds_generation(number)]

    def store_path(self, number: int) -> Path:
        """Return the path of a generation's store."""
        return self.path / f"{number:06d}" / f"{self._frame}.zarr"

    def _holds_generation(self, number: int) -> bool:
        store = self.store_path(number)
        places = (store, store.parent)
        return all(map(is_real_folder, places)) and any(
            is_plain_file(folder, name) for folder in places for name in (MANIFEST, PROVENANCE)
        )

    def remove_generation(self, number: int) -> bool:
        """Remove a generation; readers see all of it or none of it.

        Returns
        -------
        bool
            False if the generation was kept because it contains files that no build made.
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
        """Remove a draft that this process created."""
        with suppress(OSError), self._open() as root:
            remove_folder(root, name)

    def remove_leftovers(self) -> None:
        """Remove the leftovers of killed builds."""
        with self.guard_access(), suppress(FileNotFoundError), self._open() as root:
            for name in list_names(root):
                if _LEFT_FOLDER.fullmatch(name) and self._holds_only_own(root, name, LEDGER, OBJECTS):
                    remove_folder(root, name)
                elif _LEFT_FILE.fullmatch(name):
                    mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
                    if stat.S_ISREG(mode):
                        os.unlink(name, dir_fd=root)

    @contextmanager
    def _open(self) -> Iterator[int]:
        with open_real_folder(self._cubes, f"{GENERATIONS}/{self._frame}") as descriptor:
            yield descriptor

    def _holds_only_own(self, root: int, name: str, *others: str) -> bool:
        """Return whether a folder holds nothing but files of a generation of this frame, and some others."""
        try:
            with open_real_folder(root, name) as folder:
                return {*self._own_names, *others}.issuperset(list_names(folder))
        except UnsafePathError:
            return False
