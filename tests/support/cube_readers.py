"""All readers of a cube's records combined into one reader of one file, for fuzzing.

The file replaces the file of that name in a copy of a cube, with hashes adapted as an attacker would. The
only permitted outcomes are validation findings and HephaestusError.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage import manifest as manifests
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.validation.checksums import verify_generation, verify_objects
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations.inspection import summarize_cube
from hephaestus_build.operations.run_log import RUN_LOG, read_last_runs
from hephaestus_build.operations.status import read_frame_status

logging.disable(logging.CRITICAL)

#: Kinds of files that are part of a generation.
_STORED_FILES = {"manifest.json", "broken.manifest.json", "provenance.json", "zarr.json"}


def read(path: Path) -> None:
    """Read the cube of ``FUZZ_CUBE`` with one file of it replaced; put the file back."""
    data, kind = Path(os.environ["FUZZ_CUBE"]), path.name.partition(".")[2]
    frame_store = FrameStore(data / "cubes", Frame(os.environ["FUZZ_FRAME"]))
    generation = frame_store.published_generation()
    assert generation is not None
    content = path.read_bytes()
    new: dict[Path, bytes] = {}
    match kind:
        case "manifest.json":  # the list of hashes; its own embedded hash is recomputed
            new = {folder / MANIFEST: manifests._with_hash(content) for folder in generation.record_folders}
        case "broken.manifest.json":
            new = {folder / MANIFEST: content for folder in generation.record_folders}
        case "provenance.json" | "zarr.json":
            objects = {**generation.read_manifest(), kind: [hash_bytes(content), len(content)]}
            new = {
                folder / MANIFEST: manifests.encode_manifest(objects) for folder in generation.record_folders
            }
            new |= {
                folder / kind: content for folder in generation.record_folders if (folder / kind).exists()
            }
        case "summary.json":
            new = {frame_store.summary_file: content}
        case "runs.jsonl":
            new = {data / RUN_LOG: content}
        case _:
            new = {frame_store.root / kind.replace("~", "/"): content}
    old = {place: place.read_bytes() if place.exists() else None for place in new}
    try:
        for place, written in new.items():
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(written)
        _read_all(data, frame_store, generation, kind)
    finally:
        for place, before in old.items():
            place.write_bytes(before) if before is not None else place.unlink()


def _read_all(data: Path, frame_store: FrameStore, generation: Generation, kind: str) -> None:
    """Call every reader that opens the replaced file."""
    read_frame_status(load_settings(data_dir=data), frame_store.frame, runs=read_last_runs(data)).to_json()
    if kind not in _STORED_FILES:
        frame_store.staging.read_granules()
        return
    store = generation.store
    for look in (verify_generation, verify_objects, check_record_consistency):
        with suppress(HephaestusError):
            list(map(str, look(generation)))
    with suppress(HephaestusError):
        str(summarize_cube(store))
    if kind != "zarr.json":  # the readers of values do not read the records
        return
    with suppress(HephaestusError):
        str(check_schema(store))
    with suppress(HephaestusError):
        cube = open_pinned_cube(store, chunks=None)
        for name in cube.variables:
            if cube[name].size < 1 << 20:
                _ = cube[name].values
    with suppress(HephaestusError):
        windows = WindowReader(store)
        for name in ("primary_date", "valid_date_pair", "confidence", "dem"):
            if name == "dem":
                windows.read(name, None, 0, 0, np.empty((64, 64), np.float32))
            else:
                windows.read_table(name)
