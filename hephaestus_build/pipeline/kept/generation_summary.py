"""Summary of a published generation, kept beside it, so that ``status`` need not read whole records.

The record of a frame of 500 pairs has megabytes, its summary a kilobyte. A summary is a copy and nothing
else: it counts only while every file that it was made from has the size and the time that it had then. It is
written when a generation is published, and by ``status`` where there is none that counts; it may be deleted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec

from hephaestus_build.core.atomic_io import write_json
from hephaestus_build.core.era5_grid import EXPVER_PRELIMINARY
from hephaestus_build.core.frames import parse_day
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.granules import EpochGranule, InterferogramGranule, MaskGranule
from hephaestus_build.cube.schema_versions import FIRST_SCHEMA
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.validation.wording import has_other_wording, wording_fingerprint
from hephaestus_build.pipeline.missing_products import MissingProduct, find_missing_products

log = logging.getLogger(__name__)

_MAX_BYTES = 8 << 20  # a frame that owes all of 1,000 pairs has half a megabyte
_Count = Annotated[int, msgspec.Meta(ge=0)]


class GenerationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What ``status`` says of a generation, without what depends on the day or on settings.

    Attributes
    ----------
    generation : int
        Its number.
    files : dict of str to tuple of int
        Size and time of modification (nanoseconds) of each file that it was made from, by path.
    wording : str
        Fingerprint of the descriptive texts of the version that made it.
    pairs, annotated : int
        Numbers of complete interferograms and of annotated pairs.
    newest : str or None
        Secondary date of the newest complete interferogram, ``yyyymmdd``.
    absent : tuple of str
        Annotated pairs that the archive does not have.
    missing : tuple of MissingProduct
        Products that it lacks, accepted ones among them.
    preliminary : int
        Number of dates with preliminary ERA5.
    simulated, outdated, reworded : bool
        Whether its data is simulated, its schema another than that of this version, its texts too.
    schema : str
        Version of its schema.
    bytes : int
        Size of its objects.
    """

    generation: _Count
    files: Mapping[str, tuple[int, int]]
    wording: str
    pairs: _Count
    annotated: _Count
    newest: str | None
    absent: tuple[str, ...]
    missing: tuple[MissingProduct, ...]
    preliminary: _Count
    simulated: bool
    outdated: bool
    reworded: bool
    schema: str
    bytes: _Count

    @property
    def newest_day(self) -> date | None:
        """Secondary date of the newest complete interferogram."""
        return parse_day(self.newest) if self.newest else None


def summarize_generation(generation: Generation) -> GenerationSummary:
    """Return the summary of a generation, from its whole record.

    Raises
    ------
    HephaestusError
        If no copy of the record is undamaged.
    """
    files = _record_files(generation)  # before the files are read: a later change makes it void
    contents, manifest = generation.read_inventory(), generation.read_manifest()
    granules = contents.granules
    pairs = [granule for granule in granules.values() if isinstance(granule, InterferogramGranule)]
    complete = [granule.pair for granule in pairs if granule.is_complete]
    newest = max((pair.secondary for pair in complete), default=None)
    epochs = (granule for granule in granules.values() if isinstance(granule, EpochGranule))
    simulated = bool(contents.attributes.get("simulated"))
    return GenerationSummary(
        generation=generation.number,
        files=files,
        wording=wording_fingerprint(simulated=simulated),
        pairs=len(complete),
        annotated=sum(isinstance(granule, MaskGranule) for granule in granules.values()),
        newest=f"{newest:%Y%m%d}" if newest else None,
        absent=tuple(
            granule.pair.name for granule in pairs if not granule.is_complete and not granule.needs_retry
        ),
        missing=find_missing_products(granules),
        preliminary=sum(
            granule.is_complete and granule.era5_expver == EXPVER_PRELIMINARY for granule in epochs
        ),
        simulated=simulated,
        outdated=contents.is_outdated,
        reworded=not contents.is_outdated and has_other_wording(generation.store),
        schema=contents.schema_version or FIRST_SCHEMA,
        bytes=sum(dict(manifest.values()).values()),
    )


def read_summary(store: FrameStore, generation: Generation) -> GenerationSummary:
    """Return the summary of a frame's published generation: the kept one, else a new one, which is kept.

    Raises
    ------
    HephaestusError
        If no copy of the generation's record is undamaged.
    """
    if (kept := _read_kept(store)) is not None and _counts(kept, generation):
        return kept
    return keep_summary(store, generation)


def keep_summary(store: FrameStore, generation: Generation) -> GenerationSummary:
    """Make the summary of a generation, keep it beside the generations, and return it.

    A folder that cannot be written to is no error: then the next call reads the whole record again.

    Raises
    ------
    HephaestusError
        If no copy of the generation's record is undamaged.
    """
    made = summarize_generation(generation)
    if generation.number:  # a copy outside of the generations has no place of its own
        try:
            write_json(store.summary_file, made)
        except OSError as error:
            log.debug("%s could not be written: %s", store.summary_file, error)
    return made


def _read_kept(store: FrameStore) -> GenerationSummary | None:
    try:
        content = read_plain_file(store.root, store.summary_file.name, _MAX_BYTES)
        kept = msgspec.json.decode(content, type=GenerationSummary)
        _ = kept.newest_day
    except (OSError, ValueError, RecursionError):  # missing, damaged, or of another version
        return None
    # the folder may come from elsewhere: what is shown is text
    return msgspec.structs.replace(
        kept,
        schema=sanitize_text(kept.schema, 40),
        absent=tuple(map(sanitize_text, kept.absent)),
        missing=tuple(
            MissingProduct(
                sanitize_text(item.unit),
                sanitize_text(item.product),
                Outcome(item.outcome),
                sanitize_text(item.detail),
                sanitize_text(item.part),
            )
            for item in kept.missing
        ),
    )


def _counts(kept: GenerationSummary, generation: Generation) -> bool:
    """Return whether a kept summary is of this generation, as it is on disk, and of this version."""
    return (
        kept.generation == generation.number
        and kept.wording == wording_fingerprint(simulated=kept.simulated)
        and kept.files == _record_files(generation)
    )


def _record_files(generation: Generation) -> dict[str, tuple[int, int]]:
    """Return size and time of every file that a summary is made from; of one that is missing, -1."""
    found: dict[str, tuple[int, int]] = {}
    names = {f"{number}/{name}": folder / name for number, folder in enumerate(generation.record_folders)
             for name in (MANIFEST, PROVENANCE)}  # fmt: skip
    for name, path in {**names, "zarr.json": generation.store / "zarr.json"}.items():
        found[name] = _size_and_time(path)
    return found


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        facts = os.lstat(path)
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns
