"""All that reads a cube's records, as one reader of one file: for the fuzzing of them.

The file is put into a copy of a cube in the place that its name tells, and sealed as somebody would who wants
it to be believed. What may be said of it then is a finding or a HephaestusError.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from hephaestus_build.core.atomic_io import digest
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_cube
from hephaestus_build.cube.reading.window_reader import CubeWindows
from hephaestus_build.cube.storage import manifest as manifests
from hephaestus_build.cube.storage.generations import MANIFEST, Generation, Shelf
from hephaestus_build.cube.validation.checksums import verify_content, verify_objects
from hephaestus_build.cube.validation.record_consistency import check_implied
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations.inspection import summarise
from hephaestus_build.operations.run_log import RUNS, last_runs
from hephaestus_build.operations.status import status_of

logging.disable(logging.CRITICAL)


def read(path: Path) -> None:
    """Read the cube of ``FUZZ_CUBE`` with one file of it replaced; put the file back."""
    data, kind = Path(os.environ["FUZZ_CUBE"]), path.name.partition(".")[2]
    shelf = Shelf(data / "cubes", Frame(os.environ["FUZZ_FRAME"]))
    generation = shelf.current()
    assert generation is not None
    content = path.read_bytes()
    new: dict[Path, bytes] = {}
    match kind:
        case "manifest.json":  # the list itself; its seal is made to fit
            new = {folder / MANIFEST: manifests._sealed(content) for folder in generation.folders}
        case "broken.manifest.json":
            new = {folder / MANIFEST: content for folder in generation.folders}
        case "provenance.json" | "zarr.json":
            objects = {**generation.manifest(), kind: [digest(content), len(content)]}
            new = {folder / MANIFEST: manifests.seal(objects) for folder in generation.folders}
            new |= {folder / kind: content for folder in generation.folders if (folder / kind).exists()}
        case "runs.jsonl":
            new = {data / RUNS: content}
        case _:
            new = {shelf.root / kind.replace("~", "/"): content}
    old = {place: place.read_bytes() if place.exists() else None for place in new}
    try:
        for place, written in new.items():
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(written)
        _read_all(data, shelf, generation)
    finally:
        for place, before in old.items():
            place.write_bytes(before) if before is not None else place.unlink()


def _read_all(data: Path, shelf: Shelf, generation: Generation) -> None:
    status_of(load_settings(data_dir=data), shelf.frame, runs=last_runs(data)).to_json()
    shelf.staging.units()
    store = generation.store
    for look in (verify_content, verify_objects, check_implied):
        with suppress(HephaestusError):
            list(map(str, look(generation)))
    for check in (check_schema, summarise):
        with suppress(HephaestusError):
            str(check(store))
    with suppress(HephaestusError):
        cube = open_cube(store, chunks=None)
        for name in cube.variables:
            if cube[name].size < 1 << 20:
                _ = cube[name].values
    with suppress(HephaestusError):
        windows = CubeWindows(store)
        for name in ("primary_date", "valid_date_pair", "confidence", "dem"):
            if name == "dem":
                windows.read(name, None, 0, 0, np.empty((64, 64), np.float32))
            else:
                windows.table(name)
