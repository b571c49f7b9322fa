"""Stored copies of a frame's listing and baselines, for reading offline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from hephaestus_build.core.atomic_io import write_json
from hephaestus_build.core.frames import Pair, parse_day
from hephaestus_build.core.plain_files import is_real_folder, read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import parse_url_setting, redact_url
from hephaestus_build.download.small_response import decode_text
from hephaestus_build.sources.interferograms import EpochBaselines, KeptListing
from hephaestus_build.sources.licsar.baselines_file import MAX_LINES, parse_baselines

log = logging.getLogger(__name__)
T = TypeVar("T")

#: File of the last listing of a frame's interferograms, in the frame's cache folder.
LISTING_FILE = "listing.json"
#: File of the baselines as downloaded, in that folder.
BASELINES_PRODUCT = "baselines"
# Host of the embedded archive, whose port differs from run to run.
_EMBEDDED_HOST = "127.0.0.1"
_MAX_BYTES = 8 << 20  # a listing of 5,000 pairs has 250,000


class _ListingRecord(msgspec.Struct):
    fetched: str
    url: str
    pairs: dict[str, str | None]


class _BaselinesRecord(msgspec.Struct):
    receipt: Receipt
    reference: str
    metres: dict[str, float]


def archive_cache_folder(settings: Settings) -> Path:
    """Return the cache folder of the LiCSAR archive in `settings`; each host has its own."""
    embedded = settings.is_simulated and not settings.is_portal_set and settings.embedded_archive is None
    address = parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
    host = _EMBEDDED_HOST if embedded else address.host
    return settings.downloads_dir / "licsar" / host.strip("[]").replace(":", "_")


def keep_listing(folder: Path, pairs: Mapping[Pair, str | None], url: str) -> None:
    """Store the listing of a frame's interferograms; a failure to write is only logged.

    Parameters
    ----------
    folder : pathlib.Path
        The frame's folder in the cache.
    pairs : dict of Pair to str or None
        The listing's Last-modified column of each pair.
    url : str
        Address of the listing.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _write(
        folder / LISTING_FILE,
        _ListingRecord(now, redact_url(url), {pair.name: modified for pair, modified in pairs.items()}),
    )


def read_kept_listing(folder: Path) -> KeptListing | None:
    """Return the listing that was kept in `folder`, the frame's in the cache; None where there is none."""
    record = _read(folder, LISTING_FILE, _ListingRecord)
    if record is None:
        return None
    found: dict[Pair, str | None] = {}
    for name, modified in record.pairs.items():
        with suppress(ValueError):
            found[Pair.parse(name)] = None if modified is None else sanitize_text(modified, 40)
    pairs = {pair: found[pair] for pair in sorted(found)}
    return KeptListing(pairs, sanitize_text(record.fetched, 40), sanitize_text(record.url))


def keep_baselines(path: Path, baselines: EpochBaselines, receipt: Receipt) -> None:
    """Store a frame's baselines beside its cube, where they outlive the cache.

    Does nothing if the folder of `path` does not exist.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    baselines : EpochBaselines
        The baselines.
    receipt : Receipt
        Receipt of their download.
    """
    if is_real_folder(path.parent):
        metres = {f"{day:%Y%m%d}": value for day, value in sorted(baselines.metres.items())}
        record = _BaselinesRecord(receipt, f"{baselines.reference:%Y%m%d}", metres)
        _write(path, record)


def read_kept_baselines(path: Path, folder: Path) -> EpochBaselines | None:
    """Return a frame's baselines: those kept beside its cube, else those in the cache, else None.

    Parameters
    ----------
    path : pathlib.Path
        Where they are kept beside the cube.
    folder : pathlib.Path
        The frame's, in the cache.
    """
    record = _read(path.parent, path.name, _BaselinesRecord)
    if record is not None and len(record.metres) <= MAX_LINES:
        with suppress(ValueError):
            days: dict[date, float] = {parse_day(name): value for name, value in record.metres.items()}
            return EpochBaselines(parse_day(record.reference), days)
    with suppress(OSError, ValueError):
        cached = read_plain_file(folder, BASELINES_PRODUCT, _MAX_BYTES)
        return parse_baselines(decode_text(cached, None))
    return None


def _write(path: Path, record: msgspec.Struct) -> None:
    try:
        write_json(path, record)
    except OSError as error:
        log.debug("%s could not be written: %s", path, error)


def _read(folder: Path, name: str, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(read_plain_file(folder, name, _MAX_BYTES), type=kind)
    except (OSError, ValueError, RecursionError):  # missing, damaged, or of another format
        return None
