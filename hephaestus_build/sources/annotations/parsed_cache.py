"""What reading an archive of annotations gave, kept: twenty thousand files take seconds, one takes a blink.

A reading is found again by the archive's name and content and by the code that read it. Like all of the cache
it may be thrown away at any time.
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
#: Letters of the hash that the record of a reading begins with.
_DIGEST_LENGTH = 64
#: Files whose code decides what is read.
_PARSER_FILES = (
    "archive.py",
    "record.py",
    "archive_members.py",
    "tar_members.py",
    "parsed_cache.py",
    "../../core/frames.py",
)


class ParsedArchive(msgspec.Struct, frozen=True):
    """What an archive of annotations holds.

    Attributes
    ----------
    sha256 : str
        Of the archive.
    defects : tuple of Defect
    annotations : tuple of Annotation
    """

    sha256: str
    defects: tuple[Defect, ...]
    annotations: tuple[Annotation, ...]


def read_parsed_archive(folder: Path, name: str, sha256: str) -> ParsedArchive | None:
    """Return what reading the archive `name` gave before; None if it is not kept whole in `folder`."""
    with suppress(OSError, ValueError):
        content = _cache_path(folder, name, sha256).read_bytes()
        seal, record = content[:_DIGEST_LENGTH], content[_DIGEST_LENGTH:]
        if seal == hash_bytes(record).encode():
            return msgspec.msgpack.decode(record, type=ParsedArchive, dec_hook=_decode_array)
    return None


def write_parsed_archive(folder: Path, name: str, reading: ParsedArchive) -> None:
    """Keep a reading in `folder`, in place of earlier ones of archives of that name.

    Not where there is no cache yet: who only looks at annotations does not ask for a folder of data.
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
    raise TypeError(f"{value!r} is no part of a reading")


def _decode_array(kind: type, value: Any) -> Any:
    if kind is np.ndarray:
        return np.frombuffer(value, np.float64).reshape(-1, 2)
    raise TypeError(f"{kind} is no part of a reading")
