"""Records of published cubes, read from their inventories; no array is opened."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from hephaestus_build import __version__
from hephaestus_build.catalog.cube_record import CubeRecord, RecordFile, make_cube_record
from hephaestus_build.core.atomic_io import encode_json, hash_bytes
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import cubes_dir_for, no_cube_error
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES
from hephaestus_build.pipeline.kept.generation_summary import read_summary
from hephaestus_build.pipeline.upstream_changes import read_upstream_state
from hephaestus_build.sources.selection import open_interferogram_source

#: Number of the layout of Items and rows; those of another are made again.
_LAYOUT = 2


def fingerprint_cube(store: FrameStore, current: Generation, *places: str) -> str:
    """Return a fingerprint of everything that the Item and the rows of a cube are made from.

    It needs the kept summary alone, which knows the size and the time of each record.

    Parameters
    ----------
    store : FrameStore
        The frame's repository.
    current : Generation
        Its published generation.
    *places : str
        Where the cube and its Item are.
    """
    summary = read_summary(store, current)
    try:
        baselines = store.baselines_file.stat().st_mtime_ns
    except OSError:
        baselines = 0
    gone = read_upstream_state(store).gone
    inputs = [_LAYOUT, __version__, summary.generation, summary.files, baselines, gone, places]
    return hash_bytes(encode_json(inputs, order="deterministic"))


def find_published(settings: Settings, frame: Frame) -> tuple[FrameStore, Generation]:
    """Return the repository of a frame and its published generation.

    Raises
    ------
    HephaestusError
        If there is none.
    """
    cubes = cubes_dir_for(settings, frame)
    store = FrameStore(cubes, frame)
    current = store.published_generation()
    if current is None:
        raise no_cube_error(cubes / f"{frame}.zarr")
    return store, current


def read_cube_record(settings: Settings, store: FrameStore, current: Generation) -> CubeRecord:
    """Return the record of a published cube.

    Raises
    ------
    HephaestusError
        If its records cannot be read.
    """
    inventory, manifest = current.read_inventory(), current.read_manifest()
    with closing(open_interferogram_source(settings, store.frame)) as source:
        baselines = source.kept_baselines(store.frame, store.baselines_file)
    files = {}
    for name in (MANIFEST, PROVENANCE):
        content = read_plain_file(current.store, name, MAX_RECORD_BYTES)
        files[name] = RecordFile(hash_bytes(content), len(content))
    return make_cube_record(
        store.frame,
        current.number,
        datetime.fromtimestamp(store.publication_time(current.number), UTC),
        inventory,
        files,
        size=sum(dict(manifest.values()).values()),
        baselines=baselines,
        gone=frozenset(read_upstream_state(store).gone),
    )
