"""Archive of the Hephaestus annotations (Bountos et al. 2022): loading, downloading and locating it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from hephaestus_build.core.atomic_io import make_folder
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import parse_url_setting
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.download_task import ByteProgress
from hephaestus_build.sources.annotations.archive_members import (
    ArchiveMember,
    UnreadableArchiveError,
    hash_archive,
    read_members,
)
from hephaestus_build.sources.annotations.parsed_cache import (
    ParsedArchive,
    read_parsed_archive,
    write_parsed_archive,
)
from hephaestus_build.sources.annotations.record import (
    Annotation,
    Defect,
    parse_annotation,
    shorten_repr,
)

_REPOSITORY = "https://raw.githubusercontent.com/Orion-AI-Lab/Hephaestus-minicubes"
#: Addresses of the published archive: a pinned commit first, then the main branch.
PUBLISHED_URLS = tuple(
    f"{_REPOSITORY}/{version}/dataset/annotations.tar.gz"
    for version in ("001bcec91a4720cb4802e3ddd3b732aff7bb8ef5", "main")
)
#: SHA-256 of the published archive; other content from those addresses is refused.
PUBLISHED_SHA256 = "55c80a96a24aeb1e8276904c6fd0b30127c2658156c2dc120c03993e928def43"
#: Size of the published archive.
PUBLISHED_BYTES = 1_508_161

#: Most lists and objects in one file; an annotation has ten, a file of all annotations half a million.
_MAX_JSON_VALUES = 2_000_000


@dataclass(frozen=True, repr=False)
class Annotations:
    """All annotations of one archive, by frame and pair, and the defects of its files.

    Attributes
    ----------
    source : str
        Path of the archive.
    sha256 : str
        SHA-256 of its content.
    defects : tuple of Defect
        What is wrong with single files, and how it was treated.
    by_frame : dict of Frame to dict of Pair to Annotation
        Annotations, sorted by frame and dates.
    """

    source: str
    sha256: str
    defects: tuple[Defect, ...] = ()
    by_frame: Mapping[Frame, Mapping[Pair, Annotation]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Annotations: {len(self)} of {len(self.by_frame)} frames, {len(self.defects)} defects>"

    def for_frame(self, frame: Frame) -> Mapping[Pair, Annotation]:
        """Return the annotations of `frame` by pair, sorted by dates; empty if there are none."""
        return self.by_frame.get(frame, MappingProxyType({}))

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Frames that have annotations, sorted."""
        return tuple(self.by_frame)

    def __len__(self) -> int:
        return sum(map(len, self.by_frame.values()))

    def __iter__(self) -> Iterator[Annotation]:
        for pairs in self.by_frame.values():
            yield from pairs.values()


def load_annotations(source: str | os.PathLike[str]) -> Annotations:
    """Load an archive of annotations: .tar.gz, .tar, .zip, a folder, or one JSON file.

    No file is skipped silently: every file that could not be read, or only in part, is in ``defects``. The
    result does not depend on the order of the files.

    Parameters
    ----------
    source : str or path
        Path of the archive.

    Returns
    -------
    Annotations
        By frame and pair; ``len`` counts them, and ``for_frame`` returns those of one frame.

    Raises
    ------
    HephaestusError
        If the archive cannot be read or holds no annotation.
    """
    source = Path(source)
    defects: list[Defect] = []
    found: list[_Candidate] = []
    hint = "fetch the published one with `hephaestus annotations fetch`"
    try:
        for member in read_members(source):
            mark = hashlib.sha256(member.content).hexdigest()
            found += [
                _Candidate(item.unique_id, member.name, mark, item) for item in _parse_member(member, defects)
            ]
        digest = hash_archive(source)
    except (UnreadableArchiveError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise HephaestusError(f"annotation archive {source} cannot be read ({reason}); {hint}") from error
    kept = _drop_duplicates(found, defects)
    if not kept:
        why = f"; first defect: {defects[0].file}: {defects[0].what}" if defects else ""
        raise HephaestusError(f"annotation archive {source} holds no annotation{why}; {hint}")
    kept.sort(key=lambda item: (item.frame, item.pair))
    return _group_by_frame(
        source, ParsedArchive(digest, tuple(sorted(defects, key=_defect_sort_key)), tuple(kept))
    )


def _group_by_frame(source: Path, reading: ParsedArchive) -> Annotations:
    by_frame: dict[Frame, dict[Pair, Annotation]] = {}
    for annotation in reading.annotations:
        by_frame.setdefault(annotation.frame, {})[annotation.pair] = annotation
    return Annotations(str(source), reading.sha256, reading.defects, MappingProxyType(by_frame))


def fetch_annotations(
    settings: Settings,
    *,
    url: str | None = None,
    sha256: str | None = None,
    revalidate: bool = True,
    progress: ByteProgress | None = None,
) -> Path:
    """Download an archive of annotations and check it.

    Parameters
    ----------
    settings : Settings
        If ``annotations`` is an address, the archive is downloaded from there, else from the published
        addresses.
    url : str, optional
        Address to use instead of those.
    sha256 : str, optional
        Expected SHA-256 of the archive. By default that of the published archive, for its addresses.
    revalidate : bool
        Whether to ask upstream even if a complete copy is in the cache.
    progress : callable, optional
        Called with the number of bytes that have just arrived.

    Returns
    -------
    Path
        ``<data_dir>/annotations.tar.gz`` for the published archive, where every command finds it; a file in
        the cache for any other.

    Raises
    ------
    HephaestusError
        If the archive cannot be downloaded, is not the expected one or is not readable.
    """
    address = url or (settings.annotations if _is_address(settings.annotations) else None)
    expected = sha256 or (PUBLISHED_SHA256 if address in (None, *PUBLISHED_URLS) else None)

    def read(path: Path) -> bytes:
        if expected:
            digest = hash_archive(path)
            if digest != expected.lower():
                raise ValueError(f"its SHA-256 is {digest}, expected {expected}")
        else:
            try:
                load_annotations(path)
            except HephaestusError as error:
                reason = error.__cause__ or "it holds none"
                raise ValueError(f"not an archive of annotations: {reason}") from error
        return path.read_bytes()

    cached = _cached_path(settings, address or PUBLISHED_URLS[0])
    with HttpClient(settings) as client:
        receipt, content = client.download(
            [address] if address else PUBLISHED_URLS,
            cached,
            product="annotations.tar.gz",
            read=read,
            revalidate=revalidate,
            max_bytes=256 << 20,
            progress=progress,
        )
    if content is None:
        raise HephaestusError(
            f"the annotations could not be fetched ({receipt.outcome}: {receipt.detail}; asked {receipt.url}"
            "); try again later, or name a copy with HEPHAESTUS_ANNOTATIONS"
        )
    if hashlib.sha256(content).hexdigest() != PUBLISHED_SHA256:
        return cached
    return _write_archive(content, _local_path(settings))


def _write_archive(content: bytes, target: Path) -> Path:
    try:
        make_folder(target.parent)
        partial = target.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        raise HephaestusError(
            f"the annotations cannot be written to {target} ({error.strerror}); "
            "set HEPHAESTUS_DATA_DIR to a writable folder"
        ) from error
    return target


def find_annotations(
    settings: Settings,
    frame: Frame | None = None,
    *,
    needed: bool = False,
    offline: bool = False,
) -> Annotations:
    """Return the annotations that the settings name, else the downloaded ones, else none.

    Parameters
    ----------
    settings : Settings
        ``annotations`` may be a file, a folder or an address.
    frame : Frame, optional
        Frame whose annotations are wanted.
    needed : bool
        Whether to download the published archive if there is no local copy and `frame` is one of its frames
        (or not given).
    offline : bool
        Whether to download nothing. For an archive that the settings name by address, the cached copy is
        used.

    Returns
    -------
    Annotations
        Annotations of all frames in the archive; empty if there is none.

    Raises
    ------
    HephaestusError
        If the named archive cannot be read, or is needed and cannot be downloaded.
    """
    kept = settings.downloads_dir / "annotations"
    if settings.annotations and not _is_address(settings.annotations):
        if "://" in settings.annotations:  # not shown: it may hold a password
            raise UsageError(
                "HEPHAESTUS_ANNOTATIONS is neither a file nor an address that begins with http:// or https://"
            )
        return _load_cached(Path(settings.annotations), kept)
    place = _local_path(settings)
    wanted = frame is None or frame.id in published_frames()
    # with a portal on the loopback address, such as in tests, nothing is downloaded from the internet
    away = not parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL").is_loopback
    if offline:
        if settings.annotations:
            place = _cached_path(settings, settings.annotations)
        elif settings.is_simulated and not place.exists():  # the embedded archive's, at any port
            place = max(kept.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, default=place)
    elif settings.annotations or (needed and wanted and away and not place.exists()):
        place = fetch_annotations(settings, revalidate=False)
    return _load_cached(place, kept) if place.exists() else Annotations("none", "")


def _local_path(settings: Settings) -> Path:
    return settings.data_dir / "annotations.tar.gz"


def _cached_path(settings: Settings, address: str) -> Path:
    mark = hashlib.sha256(address.encode()).hexdigest()[:8]
    return settings.downloads_dir / "annotations" / f"{mark}.tar.gz"


def _is_address(text: str | None) -> bool:
    return text is not None and text.lower().startswith(("http://", "https://"))


def _load_cached(source: Path, kept: Path) -> Annotations:
    """Load `source`, from the cache of parsed archives in `kept` if it was parsed before."""
    try:
        state = source.stat()
    except OSError:
        return load_annotations(source)
    if source.is_dir():
        return load_annotations(source)
    return _load_file(source.resolve(), state.st_mtime_ns, state.st_size, kept)


@lru_cache(maxsize=1)
def _load_file(source: Path, _changed: int, _size: int, kept: Path) -> Annotations:
    with suppress(OSError, UnreadableArchiveError):  # load_annotations below reports the error
        if reading := read_parsed_archive(kept, source.name, hash_archive(source)):
            return _group_by_frame(source, reading)
    annotations = load_annotations(source)
    write_parsed_archive(
        kept, source.name, ParsedArchive(annotations.sha256, annotations.defects, tuple(annotations))
    )
    return annotations


def _parse_member(member: ArchiveMember, defects: list[Defect]) -> Iterator[Annotation]:
    file = shorten_repr(member.name.replace("\\", "/").rsplit("/", 1)[-1])
    if member.refusal_reason:
        defects.append(Defect(file, member.refusal_reason, "left out", "not read"))
        return
    try:
        if member.content.count(b"{") + member.content.count(b"[") > _MAX_JSON_VALUES:
            raise ValueError("too many lists and objects")  # parsed, each takes forty times its bytes
        content = parse_json(member.content)
    except ValueError as error:
        reason = "it is empty" if not member.content.strip() else f"not JSON ({shorten_repr(str(error))})"
        defects.append(Defect(file, reason, "left out", "not JSON"))
        return
    many = isinstance(content, list)
    for index, item in enumerate(content if many else [content]):
        name = f"{file}[{index}]" if many else file
        if not isinstance(item, dict):
            defects.append(Defect(name, "not a JSON object", "left out", "not JSON"))
            continue
        annotation = parse_annotation(item, name, defects)
        if annotation is None:
            continue
        if not many and (stem := file.rsplit(".", 1)[0]) != str(annotation.unique_id):
            what = f"uniqueID is {annotation.unique_id}, the file is called {stem}"
            defects.append(Defect(name, what, "the uniqueID counts", "file name"))
        yield annotation


class _Candidate(NamedTuple):
    """An annotation with the keys that decide between duplicates, independent of the order of files."""

    unique_id: int
    name: str
    content_hash: str
    annotation: Annotation


def _drop_duplicates(found: list[_Candidate], defects: list[Defect]) -> list[Annotation]:
    """Keep one annotation per id and per interferogram: the smaller id, then the earlier file name."""
    ids: dict[int, str] = {}
    pairs: dict[tuple[Frame, Pair], int] = {}
    kept: list[Annotation] = []
    for unique_id, name, _, annotation in sorted(found, key=lambda item: item[:3]):
        file, place = shorten_repr(name.rsplit("/", 1)[-1]), (annotation.frame, annotation.pair)
        if unique_id in ids:
            what = f"uniqueID {unique_id} again, as in {shorten_repr(ids[unique_id])}"
            defects.append(Defect(file, what, "left out, the first name is kept", "duplicate"))
        elif place in pairs:
            what = f"{annotation.frame} {annotation.pair} again, as in uniqueID {pairs[place]}"
            defects.append(Defect(file, what, "left out, the smaller uniqueID is kept", "duplicate"))
        else:
            ids[unique_id], pairs[place] = name, unique_id
            kept.append(annotation)
    return kept


def _defect_sort_key(defect: Defect) -> tuple[int, str, str]:
    stem = defect.file.split(".")[0]
    return (
        int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 12 else -1,
        defect.file,
        defect.what,
    )
