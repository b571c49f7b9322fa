"""Export of annotated interferograms as WebDataset shards: tar files that training streams one after another.

::

    <out>/index.json, SHA256SUMS
    <out>/train_pos/sample-train_pos-0-000000.tar

Shards hold the files of the published data set (``image.pth``, ``labels.pth``, ``sample.pth``) and image-text
pairs. What a shard holds follows from the cubes and the options alone, down to the byte.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import check_no_links, is_plain_file, open_plain_file, read_plain_file
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.schema import CHANNELS
from hephaestus_build.export.export_lock import check_export_target, exclusive_lock, remove_unfinished_files
from hephaestus_build.export.selection import ExportSelection
from hephaestus_build.export.shard_samples import ShardSample, encode_sample, largest_sample_bytes

SHARDS_FORMAT = "hephaestus-shards/1"
INDEX_FILE, SUMS_FILE = "index.json", "SHA256SUMS"
_MAX_INDEX_BYTES = 256 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One tar file of an export.

    Attributes
    ----------
    path : str
        Path below the folder of the export.
    part : str
        Part of the split; ``all`` without a split.
    samples : tuple of ShardSample
        Samples, in their order.
    sha256 : str
        Hash of the file; empty while it is not finished.
    size : int
        Bytes of the file.
    offsets : tuple of int
        Position in the file at which each sample begins.
    """

    path: str
    part: str
    samples: tuple[ShardSample, ...]
    sha256: str = ""
    size: int = 0
    offsets: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the index."""
        offsets = self.offsets or (None,) * len(self.samples)
        return {
            "path": self.path,
            "part": self.part,
            "bytes": self.size,
            "sha256": self.sha256,
            "samples": [
                {
                    "key": sample.key,
                    "frame": sample.frame,
                    "pair": sample.name,
                    "positive": sample.positive,
                    "offset": offset,
                }
                for sample, offset in zip(self.samples, offsets, strict=True)
            ],
        }


@dataclass(frozen=True)
class ShardExport:
    """Result of an export.

    Attributes
    ----------
    folder : pathlib.Path
        Folder of the index.
    shards : tuple of Shard
        All shards.
    written, kept : int
        Numbers of new shards and of those that were there already.
    """

    folder: Path
    shards: tuple[Shard, ...]
    written: int
    kept: int


def plan_shards(
    samples: Mapping[str, Sequence[tuple[ExportSelection, ShardSample]]], size: int, shard_bytes: int
) -> list[Shard]:
    """Return the shards of an export, each of at most `shard_bytes` bytes.

    Samples of train are in two folders, with and without deformation, as published.

    Parameters
    ----------
    samples : mapping of str to sequence
        Samples of each part, with their cubes.
    size : int
        Rows and columns of a window.
    shard_bytes : int
        Upper bound of the bytes of a shard.

    Raises
    ------
    UsageError
        If a shard has no room for one sample.
    """
    steps = max(len(one.members) for found in samples.values() for _, one in found)
    largest = largest_sample_bytes(size, steps)
    count = (shard_bytes - 10_240) // largest  # a tar file ends with a block of zeros
    if count < 1:
        of = f"a series of {steps} times " if steps > 1 else "a sample of "
        raise UsageError(
            f"{of}{size} x {size} pixels takes up to {largest / 1e6:.0f} MB; "
            "give --shard-mb more, or --size less"
        )
    shards = []
    for part, found in samples.items():
        for folder in (
            (f"{part}_pos", f"{part}_neg") if part == "train" else ("val" if part == "validation" else part,)
        ):
            chosen = [one for _, one in found if part != "train" or one.positive == folder.endswith("_pos")]
            for number, first in enumerate(range(0, len(chosen), count)):
                path = f"{folder}/sample-{folder}-0-{number:06d}.tar"
                shards.append(Shard(path, part, tuple(chosen[first : first + count])))
    return shards


def export_webdataset(
    samples: Mapping[str, Sequence[tuple[ExportSelection, ShardSample]]],
    folder: Path,
    *,
    size: int = 512,
    shard_bytes: int = 1_000_000_000,
    split: Mapping[str, str] | None = None,
    force: bool = False,
    listener: ProgressListener | None = None,
) -> ShardExport:
    """Write samples as shards with an index; an interrupted export continues with the shards that lack.

    Parameters
    ----------
    samples : mapping of str to sequence
        Samples of each part, with their cubes. One sample is in memory at a time.
    folder : pathlib.Path
        Destination; created if needed.
    size : int
        Rows and columns of a window.
    shard_bytes : int
        Upper bound of the bytes of a shard.
    split : mapping, optional
        Name and hash of the split, recorded in the index.
    force : bool
        Whether to replace an earlier export of other content.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    UsageError
        If `folder` holds something else, or an export of other content and `force` is false.
    HephaestusError
        If another export is writing there, a cube changes meanwhile, or the disk fails.
    """
    listener = listener or NullListener()
    sources = {source.frame: source for found in samples.values() for source, _ in found}
    shards = plan_shards(samples, size, shard_bytes)
    stamp = {
        "cubes": {frame: source.content_hash for frame, source in sorted(sources.items())},
        "split": dict(split or {}),
        "size": size,
        "samples_blake3": hash_bytes(encode_json([shard.to_json() for shard in shards])),
    }
    simulated = any(source.is_simulated for source in sources.values())
    for source in sources.values():
        check_export_target(source.store, folder)
    with translate_os_errors(f"exporting to {folder}", setting="--out"), exclusive_lock(folder):
        known = _prepare_folder(folder, shards, stamp, force=force)
        remove_unfinished_files(folder)
        stage = f"shards of {len(sources)} frames" if len(sources) > 1 else f"{next(iter(sources))} to shards"
        listener.stage(stage, len(shards))
        written = 0
        for place, shard in enumerate(shards):
            sha256 = known.get(shard.path)
            if sha256 and (finished := _read_finished(folder, shard, sha256)):
                shards[place] = finished
            else:
                if not written:  # from here on the names of all shards are known to be of this program
                    (folder / SUMS_FILE).unlink(missing_ok=True)
                    _write_index(folder, shards, stamp, simulated=simulated)
                shards[place] = _write_shard(folder, shard, sources, size)
                written += 1
                _write_index(folder, shards, stamp, simulated=simulated)
            listener.advance(stage)
        index = _write_index(folder, shards, stamp, simulated=simulated)
        sums = {INDEX_FILE: hashlib.sha256(index).hexdigest(), **{one.path: one.sha256 for one in shards}}
        lines = [f"{digest}  {path}\n" for path, digest in sums.items()]
        write_atomic(folder / SUMS_FILE, "".join(lines).encode())
    return ShardExport(folder, tuple(shards), written, len(shards) - written)


def _prepare_folder(
    folder: Path, shards: Sequence[Shard], stamp: Mapping[str, Any], *, force: bool
) -> dict[str, str]:
    """Return the hashes of finished shards of an earlier run of the same export; remove those of another one.

    Raises
    ------
    UsageError
        If the folder is not of this program, or of another export and `force` is false.
    """
    for name in (INDEX_FILE, SUMS_FILE, *(shard.path for shard in shards)):
        check_no_links(folder, name)
    index = _read_index(folder)
    if index is None:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        # an export that was killed at once left its first index unfinished
        there = [name for name in names if not re.fullmatch(rf"\.{INDEX_FILE}\.[0-9a-f]{{12}}", name)]
        if there:
            raise UsageError(
                f"{folder} holds {there[0]}, which is of no export of this program and never replaced; "
                "choose another --out"
            )
        return {}
    entries = {str(one["path"]): one for one in index["shards"]}
    foreign = [shard.path for shard in shards if shard.path not in entries and (folder / shard.path).exists()]
    if foreign:
        raise UsageError(
            f"{folder / foreign[0]} is of no export of this program and never replaced; move it away"
        )
    if index.get("made_from") == stamp:
        hashes = {path: str(one["sha256"]) for path, one in entries.items()}
        return {path: sha256 for path, sha256 in hashes.items() if _SHA256.fullmatch(sha256)}
    if not force:
        raise UsageError(
            f"{folder} holds an export of other content (cubes, split or options); add --force to replace it"
        )
    (folder / SUMS_FILE).unlink(missing_ok=True)  # its shards go now
    for path in entries:
        if re.fullmatch(r"[a-z_]+/sample-[a-z_]+-0-[0-9]{6}\.tar", path) and is_plain_file(folder, path):
            (folder / path).unlink()
    return {}


def _read_index(folder: Path) -> dict[str, Any] | None:
    """Return the index of an export; None if there is none of this program."""
    try:
        index = parse_json(read_plain_file(folder, INDEX_FILE, _MAX_INDEX_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(index, dict) or index.get("format") != SHARDS_FORMAT:
        return None
    entries = index.get("shards")
    fields = {"path", "sha256", "bytes", "samples"}
    good = isinstance(entries, list) and all(
        isinstance(one, dict) and fields <= one.keys() for one in entries
    )
    return index if good else None


def _write_index(
    folder: Path, shards: Sequence[Shard], stamp: Mapping[str, Any], *, simulated: bool
) -> bytes:
    content = encode_json(
        {
            "format": SHARDS_FORMAT,
            "simulated": simulated,
            "made_from": stamp,
            "channels": list(CHANNELS),
            "samples": sum(len(shard.samples) for shard in shards),
            "shards": [shard.to_json() for shard in shards],
        }
    )
    write_atomic(folder / INDEX_FILE, content)
    return content


def _write_shard(folder: Path, shard: Shard, sources: Mapping[str, ExportSelection], size: int) -> Shard:
    """Write one shard beside its name, then rename it."""
    target = folder / shard.path
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    try:
        with draft.open("xb") as stream:
            hashed = _HashingStream(stream)
            offsets = tuple(_write_samples(hashed, shard, sources, size))
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return replace(shard, sha256=hashed.digest.hexdigest(), size=hashed.size, offsets=offsets)


def _write_samples(
    stream: _HashingStream, shard: Shard, sources: Mapping[str, ExportSelection], size: int
) -> Iterator[int]:
    """Write the tar file of a shard, and yield where each sample begins."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as archive:  # type: ignore[call-overload]
        for sample in shard.samples:
            yield archive.offset
            for ending, content in encode_sample(sample, sources[sample.frame], size, shard.part).items():
                # owner, group, times and mode are the same everywhere
                entry = tarfile.TarInfo(f"{sample.key}.{ending}")
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))


class _HashingStream:
    """A file that is written from beginning to end, with its SHA-256 hash."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest, self.size = stream, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        """Write and hash `content`."""
        self.digest.update(content)
        self.size += len(content)
        return self.stream.write(content)


def _read_finished(folder: Path, shard: Shard, sha256: str) -> Shard | None:
    """Return a shard as its file is; None if the file has another hash or other samples.

    Of the index only the hash is taken: sizes and offsets in it may have been edited.
    """
    offsets: dict[str, int] = {}
    try:
        with open_plain_file(folder, shard.path) as (descriptor, _):
            with open(descriptor, "rb", closefd=False) as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    return None
                size = stream.tell()
                stream.seek(0)
                with tarfile.open(fileobj=stream, mode="r:") as archive:
                    for entry in archive:
                        offsets.setdefault(entry.name.partition(".")[0], entry.offset)
    except (OSError, tarfile.TarError):
        return None
    if [*offsets] != [sample.key for sample in shard.samples]:
        return None
    return replace(shard, sha256=sha256, size=size, offsets=tuple(offsets.values()))
