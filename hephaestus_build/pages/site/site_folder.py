"""The folder of a site: which files in it are its own, and writing only what has changed.

A journal in the folder says of every file, before it is written, which hash it will have, and of every frame
what its page was made from. So a run that is stopped is continued, and a file of others is never replaced.
"""

from __future__ import annotations

import re
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from hephaestus_build.core.atomic_io import append_line, encode_json, hash_bytes, write_atomic
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import FRAME_ID_FORMS
from hephaestus_build.core.plain_files import (
    check_no_links,
    is_plain_file,
    is_real_folder,
    list_names,
    read_plain_file,
    walk_files,
)
from hephaestus_build.pages.site.site_values import FrameDigest

#: The journal.
JOURNAL = ".hephaestus-site.jsonl"
_FORMAT = "hephaestus-site/1"
_MAX_BYTES = 1 << 30
_FRAME = "|".join(form.plain_pattern for form in FRAME_ID_FORMS)
#: Names that a site writes; the journal may come from elsewhere.
_OWN_NAME = re.compile(
    rf"(?:index|benchmark|data-card|full)\.html|status\.json|atom\.xml|frames/(?:{_FRAME})\.html|"
    rf"pictures/(?:{_FRAME})_[0-9]{{8}}_[0-9]{{8}}\.png|volcanoes/[a-z0-9-]{{1,120}}\.html|"
    r"vendor/[a-z0-9.-]{1,80}/(?:LICENSE|(?:dist|esm)/(?:[a-z0-9_-]{1,40}/){0,3}[A-Za-z0-9_-]{1,80}\.js)"
)
_FOLDERS = ("frames/", "pictures/", "volcanoes/")
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{12}")


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the journal: of the site, of a file, or of a frame."""

    format: str = ""
    feed: str = ""
    simulated: bool = False
    file: str = ""
    hash: str = ""
    size: int | None = None
    frame: str = ""
    key: str = ""
    digest: FrameDigest | None = None


class SiteFolder:
    """The folder of a site.

    Parameters
    ----------
    path : pathlib.Path
        The folder, which need not exist.
    simulated : bool
        Whether the site is of simulated cubes.

    Attributes
    ----------
    feed : str
        Id of its feed, a UUID.
    written, kept, removed : int
        Numbers of files.

    Raises
    ------
    UsageError
        If it is a file, a site of the other kind of cubes, or has an index page that is not a site's.
    """

    def __init__(self, path: Path, *, simulated: bool) -> None:
        self.path = path
        self.feed, self.simulated = str(uuid.uuid4()), simulated
        self.written = self.kept = self.removed = 0
        self._lock = threading.Lock()
        self._files: dict[str, set[str]] = {}
        self._sizes: dict[str, int | None] = {}  # of those that are complete; None from an earlier version
        self._frames: dict[str, _Line] = {}
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not a folder; choose another --out")
        head = self._read()
        if head is None:
            if (path / "index.html").exists():
                raise UsageError(
                    f"{path}/index.html was not written by `hephaestus site`: choose another --out"
                )
            self._append(_Line(format=_FORMAT, feed=self.feed, simulated=simulated))
            return
        self.feed = head.feed
        if head.simulated != simulated and self._files:
            kinds = {True: "simulated", False: "real"}
            raise UsageError(
                f"{path} is a site of {kinds[head.simulated]} cubes, and these are {kinds[simulated]}: "
                "name another folder with --out"
            )

    def _read(self) -> _Line | None:
        """Read the journal, and return its first line; lines that are cut or of others are left out."""
        try:
            content = read_plain_file(self.path, JOURNAL, _MAX_BYTES)
        except (OSError, ValueError):
            return None
        head: _Line | None = None
        for text in content.splitlines():
            try:
                line = msgspec.json.decode(text, type=_Line)
            except (ValueError, RecursionError):
                continue
            if head is None:
                if line.format != _FORMAT or not _is_uuid(line.feed):
                    return None
                head = line
            elif line.file and _OWN_NAME.fullmatch(line.file):
                if line.hash:
                    self._files.setdefault(line.file, set()).add(line.hash)
                    self._sizes[line.file] = line.size
                else:
                    self._files.pop(line.file, None)
            elif line.frame and line.digest is not None:
                self._frames[line.frame] = line
        return head

    def digest_of(
        self, frame: str, key: str, files: Callable[[FrameDigest], list[str]]
    ) -> FrameDigest | None:
        """Return the digest of a frame whose page was made from `key` and is there, else None.

        Files are told by their sizes, not read: a site of 2,000 frames has gigabytes.
        """
        known = self._frames.get(frame)
        if known is None or known.key != key or known.digest is None:
            return None
        return known.digest if all(map(self._is_there, files(known.digest))) else None

    def last_digest(self, frame: str) -> FrameDigest | None:
        """Return the digest of a frame as of its last page, whatever that was made from."""
        known = self._frames.get(frame)
        return known.digest if known else None

    def keep_digest(self, frame: str, key: str, digest: FrameDigest) -> None:
        """Note that the page of a frame is complete, and what it was made from."""
        line = _Line(frame=frame, key=key, digest=digest)
        with self._lock:
            self._frames[frame] = line
            self._append(line)

    def write(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there with this content; return whether it was written.

        Raises
        ------
        UsageError
            If a file of that name is not the site's own, or was changed by somebody.
        OSError
            If the disk refuses.
        """
        assert _OWN_NAME.fullmatch(name), name
        new, found = hash_bytes(content), self._hash_of(name)
        with self._lock:
            known = self._files.setdefault(name, set())
            if found == new and new in known:
                self.kept += 1
                return False
            if found is not None and found not in known:
                raise UsageError(
                    f"{self.path / name} is not as `hephaestus site` wrote it: move it away, or name another "
                    "folder with --out"
                )
            known.add(new)
            self._append(_Line(file=name, hash=new, size=len(content)))
            self.written += 1
        write_atomic(self.path / name, content)
        with self._lock:
            self._files[name], self._sizes[name] = {new}, len(content)
        return True

    def remove_others(self, wanted: set[str]) -> Iterator[str]:
        """Remove the site's files beside `wanted`; yield those that stay, since somebody changed them."""
        for name in sorted(self._files.keys() - wanted):
            found = self._hash_of(name)
            if found is not None and found not in self._files[name]:
                yield name
                continue
            if found is not None:
                (self.path / name).unlink()
                self.removed += 1
            self._append(_Line(file=name))
            del self._files[name]

    def remove_unfinished(self) -> None:
        """Remove what a killed run left of files of the site; what else stands here is others'."""
        vendor = self.path / "vendor"
        inner = (
            {name.rpartition("/")[0] for name, _ in walk_files(vendor)} if is_real_folder(vendor) else set()
        )
        for place in ("", *_FOLDERS, *(f"vendor/{name}/" for name in sorted(inner))):
            folder = self.path / place
            for name in list_names(folder) if is_real_folder(folder) else []:
                found = _UNFINISHED.fullmatch(name)
                own = found and (found[1] == JOURNAL or _OWN_NAME.fullmatch(f"{place}{found[1]}"))
                if own and is_plain_file(folder, name):
                    (folder / name).unlink()

    def close(self, frames: set[str]) -> None:
        """Write the journal again, with what holds alone."""
        lines = [_Line(format=_FORMAT, feed=self.feed, simulated=self.simulated)]
        lines += [
            _Line(file=name, hash=one, size=self._sizes.get(name))
            for name, hashes in sorted(self._files.items())
            for one in sorted(hashes)
        ]
        lines += [line for name, line in sorted(self._frames.items()) if name in frames]
        write_atomic(self.path / JOURNAL, b"".join(encode_json(line) + b"\n" for line in lines))

    def _is_there(self, name: str) -> bool:
        """Return whether a file is there, with the size that it was written with."""
        try:
            facts = (self.path / name).stat()
        except OSError:
            return False
        return stat.S_ISREG(facts.st_mode) and self._sizes.get(name) in (None, facts.st_size)

    def _hash_of(self, name: str) -> str | None:
        """Return the hash of a file; None where there is none, another text where it is no plain file."""
        check_no_links(self.path, name)
        try:
            return hash_bytes(read_plain_file(self.path, name, _MAX_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:  # larger than any page
            return ""

    def _append(self, line: _Line) -> None:
        append_line(self.path / JOURNAL, encode_json(line).decode() + "\n")


def _is_uuid(text: Any) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
