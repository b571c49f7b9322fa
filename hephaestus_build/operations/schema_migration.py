"""Migration of cubes that were written with an earlier schema, without downloading anything.

A cube of this schema whose descriptive texts are those of another version gets the texts of this one.

A cube of an earlier schema is brought over in two steps:

1. ``metadata``: granules without images, the axes, and the attributes are taken over as they are.
2. ``re-encoding``: every image is decoded and stored in the layout of this version. The atmosphere on the
   frame's grid is interpolated again from the fields on ERA5's own grid, which the cube holds. At last the
   overviews are drawn.

Each finished granule is staged, so that a migration that was interrupted goes on from there. At the end all
of them are published as the next generation. The earlier one stays until ``hephaestus gc`` removes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zarr

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_files import is_real_folder
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import (
    EpochGranule,
    Granule,
    GranuleKey,
    InterferogramGranule,
    OverviewGranule,
    PairGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.overview_parts import COHERENCE, MASK, PHASE, WATER_VAPOUR, OverviewParts
from hephaestus_build.cube.reading.dataset import suppress_codec_warnings
from hephaestus_build.cube.reading.plain_store import PlainStore
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.verified_objects import ObjectVerifier
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.schema_versions import FIRST_SCHEMA, describe_other_schema, is_later_schema
from hephaestus_build.cube.storage.adoption import adopt_copy
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.staging import StagingArea
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.cube.validation.wording import has_other_wording
from hephaestus_build.operations.republication import republish
from hephaestus_build.operations.status import frames_with_settings
from hephaestus_build.pipeline.encoding import (
    decimate_pair,
    encode_atmosphere,
    encode_images,
    encode_overview,
)
from hephaestus_build.sources.selection import open_interferogram_source

log = logging.getLogger(__name__)

_STAGING = "migration"


@dataclass(frozen=True)
class SchemaMigration:
    """A cube that was brought over to the schema of this version.

    Attributes
    ----------
    frame : Frame
        The frame.
    generation : int
        Number of the published generation.
    earlier : str
        Schema of the generation before; that of this version if only its descriptions were another's.
    re_encoded : int
        Number of granules whose images were encoded again.
    left_out : tuple of str
        Keys of granules with damaged images. The next build makes them again from their products.
    """

    frame: Frame
    generation: int
    earlier: str
    re_encoded: int
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the migration as JSON values."""
        return {**vars(self), "frame": str(self.frame), "schema": cube_schema().version}


def frames_of_other_schemas(settings: Settings) -> list[tuple[Frame, Settings]]:
    """Return the frames whose published cube has another schema or wording, and the settings of each.

    Those too whose migration was killed once it had published. Cubes whose record cannot be read are left
    out; `hephaestus status` names them.
    """
    found = []
    for frame, home in frames_with_settings(settings):
        with suppress(HephaestusError):
            frame_store = FrameStore(home.cubes_dir, frame, staging=_STAGING)
            current = frame_store.published_generation()
            if current is not None and (
                is_real_folder(frame_store.staging.folder)
                or current.read_inventory().is_outdated
                or has_other_wording(current.store)
            ):
                found.append((frame, home))
    return found


def migrate_schema(
    frame: Frame, settings: Settings, listener: ProgressListener | None = None
) -> SchemaMigration:
    """Bring the published cube of a frame over to the schema of this version.

    Parameters
    ----------
    frame : Frame
        The frame.
    settings : Settings
        Folders and the number of threads.
    listener : ProgressListener, optional
        Receives the progress of both steps.

    Raises
    ------
    HephaestusError
        If there is no cube, it already has this schema, or no interferogram of it can be read; the published
        cube stays unchanged.
    """
    frame_store = FrameStore(settings.cubes_dir, frame, staging=_STAGING)
    listener = listener or NullListener()
    begun = is_real_folder(frame_store.staging.folder)
    with frame_store.lock():
        adopt_copy(frame_store, listener=listener)
        current = frame_store.published_generation()
        contents = current.read_inventory() if current is not None else None
        if current is not None and contents is not None and not contents.is_outdated:
            if has_other_wording(current.store):
                return _reword(frame_store, current, contents)
            if begun:  # killed once all of it was complete
                frame_store.staging.discard()
                return SchemaMigration(frame, current.number, _schema_before(frame_store, current), 0, ())
            contents = None
        if contents is not None and is_later_schema(contents.schema_version):
            raise HephaestusError(f"{frame}: {describe_other_schema(str(frame), contents.schema_version)}")
        if current is None or contents is None:
            raise HephaestusError(f"{frame}: there is no cube of an earlier schema to migrate")
        granules = _take_over(contents, frame_store.staging, listener)
        damaged = _encode_again(current, contents, granules, frame_store.staging, settings, listener)
        granules = _without(granules, damaged)
        _draw_overviews(current, contents, granules, frame_store.staging, settings, listener)
        if not any(isinstance(granule, PairGranule) and granule.objects for granule in granules.values()):
            raise HephaestusError(
                f"{frame}: no interferogram of generation {current.number} can be read; remove "
                f"{current.store.parent} and the link to it, and `hephaestus build {frame}` builds it again"
            )
        listing = open_interferogram_source(settings, frame).kept_listing(frame)
        migrated = contents.succeed(
            contents.grid,
            granules,
            {
                **contents.attributes,
                "schema_version": cube_schema().version,
                "overview_factor": settings.overview_factor,
            },
            listing.pairs if listing else (),
            frame_store.history(),
        )
        with (
            translate_os_errors(f"{frame}: publishing the migrated cube"),
            frame_store.new_generation() as draft,
        ):
            frame_store.staging.sync(granules.values())
            write_cube_store(draft, migrated, frame_store.staging.chunk_paths)
        frame_store.staging.discard()
        published = frame_store.published_generation()
        assert published is not None
        return SchemaMigration(
            frame,
            published.number,
            contents.schema_version or FIRST_SCHEMA,
            sum(bool(granule.objects) for granule in granules.values()),
            tuple(damaged),
        )


def _reword(frame_store: FrameStore, current: Generation, contents: CubeInventory) -> SchemaMigration:
    """Publish a cube of this schema with the descriptions of this version; images are linked as they are."""
    republish(frame_store, current, contents)
    published = frame_store.published_generation()
    assert published is not None
    return SchemaMigration(frame_store.frame, published.number, cube_schema().version, 0, ())


def _schema_before(frame_store: FrameStore, current: Generation) -> str:
    """Return the schema of the generation before the published one; its own if there is none any more."""
    for number in reversed(frame_store.generation_numbers()):
        store = frame_store.root / f"{number:06d}" / current.store.name
        if number < current.number:
            with suppress(HephaestusError):
                return Generation(number, store).read_inventory().schema_version or FIRST_SCHEMA
    return cube_schema().version


def _take_over(
    contents: CubeInventory, staging: StagingArea, listener: ProgressListener
) -> dict[str, Granule]:
    """Return the granules that need no encoding, or no more: step ``metadata``."""
    staged = staging.read_granules()
    listener.stage("metadata", len(contents.granules))
    taken = {}
    for key, granule in contents.granules.items():
        if not granule.objects:
            taken[key] = granule
        elif key in staged and _without_objects(staged[key]) == _without_objects(granule):
            taken[key] = staged[key]
        listener.advance("metadata")
    return taken


def _without_objects(granule: Granule) -> Granule:
    return msgspec.structs.replace(granule, objects={})


def _encode_again(
    current: Generation,
    contents: CubeInventory,
    granules: dict[str, Granule],
    staging: StagingArea,
    settings: Settings,
    listener: ProgressListener,
) -> list[str]:
    """Add the granules with images to `granules`: step ``re-encoding``. Return the keys of damaged ones."""
    todo = [granule for key, granule in contents.granules.items() if key not in granules]
    listener.stage("re-encoding", len(todo))
    read = _ImageReader(current, contents)
    damaged = []

    def work(granule: Granule) -> tuple[Granule, str]:
        try:
            images = read.objects(granule)
        except (HephaestusError, RuntimeError, ValueError) as error:  # codecs raise these for damaged chunks
            return granule, str(error)
        return staging.add(_without_objects(granule), images), ""

    with suppress_codec_warnings():
        for granule, fault in map_bounded(work, todo, settings.worker_count):
            listener.advance("re-encoding")
            if fault:
                message = "%s: %s is left out, and the next build makes it again: %s"
                log.warning(message, current.store.stem, granule.key, fault)
                damaged.append(granule.key)
            else:
                granules[granule.key] = granule
    return sorted(damaged)


def _draw_overviews(
    current: Generation,
    contents: CubeInventory,
    granules: dict[str, Granule],
    staging: StagingArea,
    settings: Settings,
    listener: ProgressListener,
) -> None:
    """Add the overviews of all stored pairs to `granules`."""
    grid, factor = contents.grid, settings.overview_factor
    read = _ImageReader(current, contents)
    staged = staging.read_granules()
    found = {granule.pair: OverviewParts.find(granules, granule.pair, grid) for granule in _pairs(granules)}

    def work(item: tuple[Pair, OverviewParts]) -> Granule:
        pair, parts = item
        inputs = parts.fingerprint(grid, factor)
        known = staged.get(GranuleKey.of_overview(pair))
        if known is not None and known.inputs == inputs:
            return known
        return staging.add(OverviewGranule.make(pair, inputs, factor), read.overview(parts, factor))

    todo = [(pair, parts) for pair, parts in found.items() if parts is not None]
    listener.stage("overviews", len(todo))
    with suppress_codec_warnings():
        for granule in map_bounded(work, todo, settings.worker_count):
            listener.advance("overviews")
            granules[granule.key] = granule


def _pairs(granules: Mapping[str, Granule]) -> list[InterferogramGranule]:
    return [granule for granule in granules.values() if isinstance(granule, InterferogramGranule)]


def _without(granules: Mapping[str, Granule], damaged: list[str]) -> dict[str, Granule]:
    """Return the granules without epochs that only damaged ones need."""
    dates = {
        day for granule in granules.values() if isinstance(granule, PairGranule) for day in granule.pair.dates
    }
    return {
        key: granule
        for key, granule in granules.items()
        if not damaged or not isinstance(granule, EpochGranule) or granule.day in dates
    }


class _ImageReader:
    """Reader of the images of a cube of an earlier schema, each compared with the manifest."""

    def __init__(self, generation: Generation, contents: CubeInventory) -> None:
        metadata = read_store_metadata(generation.store)
        store = PlainStore(generation.store, metadata.arrays, ObjectVerifier(generation.store))
        self._group = zarr.open_group(store, mode="r")
        self._contents = contents

    def objects(self, granule: Granule) -> dict[str, bytes]:
        """Return the objects of a granule in the layout of this version."""
        if isinstance(granule, EpochGranule):
            place = self._contents.chunk_keys.epoch_index(granule.day)
            fields = np.stack([self._read(f"era5_{name}", (place,)) for name in ERA5_VARIABLE_NAMES])
            area = self._contents.era5_area
            return encode_atmosphere(fields, area.latitudes, area.longitudes, self._contents.grid)
        leading: tuple[int, ...] = ()
        if isinstance(granule, PairGranule):
            leading = self._contents.chunk_keys.pair_index(granule.pair)
        return encode_images({name: self._read(name, leading) for name in granule.objects})

    def overview(self, parts: OverviewParts, factor: int) -> dict[str, bytes]:
        """Return the objects of the overview of a pair."""
        leading = self._contents.chunk_keys.pair_index(parts.interferogram.pair)
        water_vapour = [
            self._read(WATER_VAPOUR, (self._contents.chunk_keys.epoch_index(epoch.day),))
            for epoch in parts.epochs
        ]
        grid = self._contents.grid
        small = decimate_pair(
            grid,
            factor,
            phase=[(0, self._read(PHASE, leading))],
            coherence=[(0, self._read(COHERENCE, leading))],
        )
        return encode_overview(
            grid,
            factor,
            small,
            mask=[(0, self._read(MASK, leading))] if parts.mask is not None else (),
            water_vapour=(water_vapour[0], water_vapour[1]) if water_vapour else None,
        )

    def _read(self, name: str, leading: tuple[int, ...]) -> npt.NDArray[Any]:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        return np.ascontiguousarray(array[leading])
