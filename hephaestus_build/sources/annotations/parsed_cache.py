"""Cache of parsed annotation archives; parsing 20,000 JSON files takes seconds.

The key is made of the archive's name, its content and the code of the parser. Like the rest of the cache, it
may be deleted at any time.
"""

from __future__ import annotations

import glob
import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, write_atomic
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.sources.annotations.record import Annotation, Defect

_SUFFIX = ".reading"
#: Length of the hexadecimal SHA-256 at the start of a cache file.
_DIGEST_LENGTH = 64
#: Source files of the parser; a change in any of them invalidates the cache.
_PARSER_FILES = (
    "archive.py",
    "record.py",
    "archive_members.py",
    "parsed_cache.py",
    "../../core/frames.py",
    "../../core/filesystem/tar_members.py",
)


class ParsedArchive(msgspec.Struct, frozen=True):
    """Parsed content of an archive of annotations.

    Attributes
    ----------
    sha256 : str
        SHA-256 of the archive.
    defects : tuple of Defect
        Defects of its files.
    annotations : tuple of Annotation
        Annotations, sorted by frame and dates.
    """

    sha256: str
    defects: tuple[Defect, ...]
    annotations: tuple[Annotation, ...]


def read_parsed_archive(folder: Path, name: str, sha256: str) -> ParsedArchive | None:
    """Return the cached content of an archive, or None if it is not cached or damaged.

    Parameters
    ----------
    folder : Path
        Folder of the cache.
    name : str
        File name of the archive.
    sha256 : str
        SHA-256 of the archive.
    """
    with suppress(OSError, ValueError):
        content = _cache_path(folder, name, sha256).read_bytes()
        seal, record = content[:_DIGEST_LENGTH], content[_DIGEST_LENGTH:]
        if seal == hash_bytes(record).encode():
            return msgspec.msgpack.decode(record, type=ParsedArchive, dec_hook=_decode_array)
    return None


def write_parsed_archive(folder: Path, name: str, reading: ParsedArchive) -> None:
    """Cache a parsed archive in `folder` and delete earlier entries of archives with the same name.

    Does nothing if the parent of `folder` does not exist: reading annotations must not create a data folder.

    Parameters
    ----------
    folder : Path
        Folder of the cache.
    name : str
        File name of the archive.
    reading : ParsedArchive
        Content to store.
    """
    if not folder.parent.is_dir():
        return
    place = _cache_path(folder, name, reading.sha256)
    with suppress(OSError):
        record = msgspec.msgpack.encode(reading, enc_hook=_encode_array)
        write_atomic(place, hash_bytes(record).encode() + record)
        for other in folder.glob(f"{glob.escape(name)}-*{_SUFFIX}"):
            if other != place:
                other.unlink(missing_ok=True)


def _cache_path(folder: Path, name: str, sha256: str) -> Path:
    mark = hashlib.sha256(f"{_parser_fingerprint()} {sha256}".encode()).hexdigest()[:16]
    return folder / f"{name}-{mark}{_SUFFIX}"


@cache
def _parser_fingerprint() -> str:
    code = [(Path(__file__).parent / name).read_bytes() for name in _PARSER_FILES]
    known = encode_json([load_schema("annotation.json"), sorted(published_frames())])
    return hashlib.sha256(b"".join([*code, known])).hexdigest()


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    raise TypeError(f"{value!r} cannot be part of a parsed archive")


def _decode_array(kind: type, value: Any) -> Any:
    if kind is np.ndarray:
        return np.frombuffer(value, np.float64).reshape(-1, 2)
    raise TypeError(f"{kind} cannot be part of a parsed archive")
