"""The folder of a catalogue: which files in it are the catalogue's own, and writing only what has changed.

A record in the folder has the hash of every file that was written there. A file that is not in it, or that
somebody has changed since, is never replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.plain_files import check_no_links, is_real_folder, list_names, read_plain_file

#: Record of what was written.
RECORD = ".hephaestus-catalog.json"
_FORMAT = "hephaestus-catalog/1"
_MAX_BYTES = 1 << 30
#: Names that a catalogue writes; the record may come from elsewhere.
_OWN_NAME = re.compile(
    r"items/[0-9A-Z_]{6,40}\.json|collection\.json|pairs\.parquet|croissant\.json|README\.md"
)


class CatalogState(msgspec.Struct, frozen=True, kw_only=True):
    """What was written into a folder.

    Attributes
    ----------
    format : str
        Name of this format.
    simulated : bool
        Whether the catalogue is of simulated cubes.
    files : dict of str to tuple of str
        BLAKE3 hashes that each file may have: one, or, of a catalogue whose writing was interrupted, two.
    cubes : dict of str to str
        Fingerprint of what each Item and its rows were made from, by frame.
    audits : dict of str to dict
        Audits of splits, by the hash of what they were made from.
    """

    format: str = _FORMAT
    simulated: bool = False
    files: dict[str, tuple[str, ...]] = {}
    cubes: dict[str, str] = {}
    audits: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class CatalogWriting:
    """What became of the files of a catalogue: paths written, left as they were, and removed."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class CatalogFolder:
    """The folder of a catalogue.

    Parameters
    ----------
    path : pathlib.Path
        The folder, which need not exist.
    simulated : bool
        Whether the catalogue is of simulated cubes.

    Raises
    ------
    UsageError
        If the folder is a link or a file, holds something else, or a catalogue of the other kind.
    """

    def __init__(self, path: Path, *, simulated: bool) -> None:
        self.path = path
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError(f"{path} is a link or a file, not a folder; choose another --out")
        found = self._read_state()
        if found is None and path.exists() and list_names(path):
            raise UsageError(
                f"{path} holds something else than a catalogue, such as {list_names(path)[0]}: name an empty "
                f"or a new folder with --out"
            )
        if found is not None and found.simulated != simulated and found.files:
            kinds = {True: "simulated", False: "real"}
            raise UsageError(
                f"{path} is a catalogue of {kinds[found.simulated]} cubes, and these are {kinds[simulated]}: "
                f"name another folder with --out"
            )
        self.state = found or CatalogState(simulated=simulated)

    def _read_state(self) -> CatalogState | None:
        try:
            content = read_plain_file(self.path, RECORD, _MAX_BYTES)
            state = msgspec.json.decode(content, type=CatalogState)
        except (OSError, ValueError, RecursionError):
            return None
        own = state.format == _FORMAT and all(map(_OWN_NAME.fullmatch, state.files))
        return state if own else None

    def read_own(self, name: str) -> bytes | None:
        """Return the content of a file as it was written here; None if it is missing or was changed."""
        try:
            content = read_plain_file(self.path, name, _MAX_BYTES)
        except (OSError, ValueError):
            return None
        return content if hash_bytes(content) in self.state.files.get(name, ()) else None

    def write(
        self, files: Mapping[str, bytes], cubes: Mapping[str, str], audits: Mapping[str, Any]
    ) -> CatalogWriting:
        """Write the files that differ from those here, and remove those of earlier that are no more.

        Each file is replaced at once. An interrupted writing leaves some files of before and some new ones;
        the next completes it.

        Parameters
        ----------
        files : dict of str to bytes
            All files of the catalogue by path in the folder.
        cubes, audits : dict
            See :class:`CatalogState`.

        Raises
        ------
        UsageError
            If a file of that name is not the catalogue's own, or was changed by somebody.
        HephaestusError
            If the disk refuses.
        """
        hashes = {name: hash_bytes(content) for name, content in files.items()}
        done = CatalogWriting()
        with translate_os_errors(f"the catalogue in {self.path}", setting="--out"):
            for name, new in hashes.items():
                known = self._find_own(name, new)
                (done.kept if known == new else done.written).append(name)
            gone = [
                name for name in self.state.files if name not in files and self.read_own(name) is not None
            ]
            if done.written or gone:
                both = {
                    name: tuple(
                        dict.fromkeys((*self.state.files.get(name, ()), *filter(None, [hashes.get(name)])))
                    )
                    for name in {**self.state.files, **hashes}
                }
                self._write_state(files=both)
            for name in done.written:
                write_atomic(self.path / name, files[name])
            for name in gone:
                (self.path / name).unlink()
                done.removed.append(name)
            with suppress(OSError):
                (self.path / "items").rmdir()  # if it is empty now
            self._write_state(
                files={name: (new,) for name, new in hashes.items()}, cubes=dict(cubes), audits=dict(audits)
            )
        return done

    def _find_own(self, name: str, new: str) -> str | None:
        """Return the hash of a file of the catalogue; None where there is none."""
        target = self.path / name
        if (
            "/" in name
            and (target.parent.is_symlink() or target.parent.exists())
            and not is_real_folder(target.parent)
        ):
            raise UsageError(f"{target.parent} is a link or a file; move it away, or choose another --out")
        check_no_links(self.path, name)
        try:
            found = hash_bytes(read_plain_file(self.path, name, _MAX_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:
            found = ""
        if found != new and found not in self.state.files.get(name, ()):
            raise UsageError(
                f"{target} is not as `hephaestus catalog` wrote it: move it away, or name another folder "
                "with --out"
            )
        return found

    def _write_state(self, **changes: Any) -> None:
        state = msgspec.structs.replace(self.state, **changes)
        content = encode_json(state, order="deterministic")
        if state != self.state or not (self.path / RECORD).is_file():
            write_atomic(self.path / RECORD, content)
        self.state = state
