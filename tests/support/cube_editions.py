"""Model of cubes for tests: content in numbered editions, and the files expected on disk for each.

An edition of a granule always has the same content, so a dictionary from granule keys to editions describes
the complete content of a cube.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xarray as xr
import zarr

import toy_cube
from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.chunk_keys import ChunkKeys
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.fingerprints import fingerprint_grid
from hephaestus_build.cube.granules import (
    ChunkRef,
    DemGranule,
    EpochGranule,
    Granule,
    InterferogramGranule,
    MaskGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.key_spaces import RETIRED_CHUNK
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.storage.writer import encode_metadata
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.pipeline.encoding import encode_atmosphere, encode_images

FRAME = Frame(toy_cube.FRAME)
GRID = toy_cube.grid(9, 11)
ATTRIBUTES = toy_cube.attributes(GRID, str(FRAME))
DAYS = ("20190101", "20190113", "20190125", "20190206")
PAIRS = tuple("_".join(days) for days in combinations(DAYS, 2))
KEYS = (*(f"{kind}/{name}" for kind in ("pair", "mask") for name in PAIRS), "dem/dem", f"epoch/{DAYS[1]}")
#: Paths, relative to the store, of both copies of a generation's manifest and provenance.
RECORD = (MANIFEST, PROVENANCE, f"../{MANIFEST}", f"../{PROVENANCE}")
#: Edition of each granule of a cube, by key. A pair of edition 0 is absent; masks of even editions are empty.
Editions = Mapping[str, int]


def is_pair(key: str) -> bool:
    return key.startswith("pair/")


def pair_of(key: str) -> Pair:
    """Return the pair of a pair or mask granule."""
    return Pair.parse(key.partition("/")[2])


def planes(key: str, edition: int) -> dict[str, np.ndarray]:
    """Return the images of an edition of a pair, a mask or the DEM; empty for an absent pair."""
    kind = key.partition("/")[0]
    chance = np.random.default_rng([edition, *key.encode()])
    if kind == "dem":
        return {"dem": chance.uniform(0, 3000, GRID.shape).astype("f4")}
    if kind == "pair" and edition:
        phase = chance.uniform(-3, 3, GRID.shape).astype("f4")
        phase[:2] = 0
        return {"insar_difference": phase, "insar_coherence": chance.integers(1, 255, GRID.shape, "u1")}
    if kind == "mask" and edition % 2:
        marked = chance.integers(0, 2, GRID.shape, "u1")
        return dict.fromkeys(("deformation_mask", "activity_type_mask", "intensity_level_mask"), marked)
    return {}


def pressure(key: str, edition: int) -> float:
    """Return the surface pressure of an edition of an epoch, a constant field."""
    return 90_000.0 + 100 * edition + int(key[-2:])


@cache
def made(key: str, edition: int) -> tuple[Granule, dict[str, bytes]]:
    """Return an edition of a granule and its stored objects, as a build produces them."""
    kind, _, name = key.partition("/")
    inputs, found = fingerprint_grid(GRID), planes(key, edition)
    facts: dict[str, Any] = {"modified": str(edition)}
    outcome = Outcome.DOWNLOADED
    objects = encode_images(found)
    if kind == "dem":
        facts |= {"grid": asdict(GRID)}
    elif kind == "epoch":
        area = era5_area_around(GRID)
        fields = np.stack([np.full(area.shape, value, "f4") for value in (20, pressure(key, edition), 2e6)])
        objects = encode_atmosphere(fields, area.latitudes, area.longitudes, GRID)
        facts |= {"era5_time": toy_cube._hour(name), "era5_expver": "0001", "source": "arco"}
    elif kind == "mask":
        facts |= {
            "annotation": toy_cube.annotation(toy_cube.PAIRS[0]) | {"unique_id": edition},
            "grid": inputs,
        }
    elif found:
        share = round(float(np.count_nonzero(found["insar_difference"])) / GRID.size, 6)
        facts |= {"alignment": "identical", "valid_fraction": share}
    else:
        outcome, facts = Outcome.ABSENT, facts | {"unlisted": True}
    good = {"size": 1, "sha256": "0" * 64} if outcome.ok else {}
    receipts = (Receipt(name, outcome, f"http://127.0.0.1/{name}", **good),)
    types = {"pair": InterferogramGranule, "mask": MaskGranule, "epoch": EpochGranule, "dem": DemGranule}
    return types[kind](name, inputs, receipts=receipts, facts=facts), objects


@cache
def stored(key: str, edition: int) -> Granule:
    """Return an edition of a granule as recorded in a cube's provenance."""
    granule, contents = made(key, edition)
    objects = {name: ChunkRef(hash_bytes(content), len(content)) for name, content in contents.items()}
    return msgspec.structs.replace(granule, objects=objects)


def completed(editions: Editions) -> dict[str, int]:
    """Return editions completed with the DEM and the epochs of their pairs, without other epochs."""
    pairs = [pair_of(key) for key in editions if key.startswith(("pair/", "mask/"))]
    days = {f"epoch/{day:%Y%m%d}" for pair in pairs for day in pair.dates}
    kept = {key: edition for key, edition in editions.items() if not key.startswith("epoch/") or key in days}
    return {"dem/dem": 0, **dict.fromkeys(days, 0), **kept}


def inventory_of(editions: Editions, like: CubeInventory | None = None) -> CubeInventory:
    """Return the inventory of a cube with the given editions: of a new cube, or with the axes of another."""
    granules = {key: stored(key, edition) for key, edition in editions.items()}
    contents = CubeInventory.new(GRID, granules, ATTRIBUTES)
    if like is None:
        return contents
    return replace(contents, axes=like.axes, keys=like.keys, pair_keys=like.pair_keys)


def places_of(contents: CubeInventory, editions: Editions) -> dict[str, bytes]:
    """Return the objects expected in a store, by path."""
    found: dict[str, bytes] = dict.fromkeys(contents.retired_keys, RETIRED_CHUNK)
    for key, edition in editions.items():
        objects = made(key, edition)[1]
        found |= {path: objects[name] for name, path in contents.chunk_keys.keys(stored(key, edition))}
    return found


def on_disk(store: Path) -> dict[str, str]:
    """Return the hash of every file of a generation, including the second copy of its record, by path."""
    found = {}
    for folder, _, names in os.walk(store):
        inside = "" if (part := os.path.relpath(folder, store)) == "." else f"{part}/"
        found |= {f"{inside}{name}": f"{folder}/{name}" for name in names}
    found |= {f"../{name}": path for name in (MANIFEST, PROVENANCE) if (path := store.parent / name).exists()}
    return {name: sha256(Path(path).read_bytes()) for name, path in found.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def edition_of(granule: Granule) -> int:
    """Return the edition of a granule, found from its record."""
    return int(granule.facts["modified"])


def clean_files(contents: CubeInventory, editions: Editions) -> dict[str, str]:
    """Return the hashes of the files of a cube built from scratch with these axes, without its record."""
    built = inventory_of(editions, contents)
    objects = encode_metadata(built) | places_of(built, editions)
    return {path: sha256(content) for path, content in objects.items()}


def flip(path: Path, chance: random.Random) -> None:
    """Flip a bit in place, like bit rot: the modification time stays, and all hard links are affected."""
    facts = path.stat()
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def expected_phase(key: str, edition: int) -> np.ndarray:
    """Return the expected phase of a pair; zeros if it is absent."""
    return planes(key, edition).get("insar_difference", np.zeros(GRID.shape, "f4"))


def read_phase(windows: WindowReader, pair: Pair) -> np.ndarray:
    """Return a pair's phase, read with the window reader of the training loader."""
    return windows.read("insar_difference", pair, 0, 0, np.empty(GRID.shape, "f4"))


def check_phases(link: Path, editions: Editions) -> None:
    """Check every pair's phase with the window reader, which verifies each object against the manifest."""
    windows = WindowReader(link, verify="first")
    for key, edition in editions.items():
        if is_pair(key):
            np.testing.assert_array_equal(read_phase(windows, pair_of(key)), expected_phase(key, edition))


def check_generation(store: Path, editions: Editions) -> None:
    """Check a generation's metadata against its record, and its images, read by zarr, against the model."""
    group = json.loads((store / "zarr.json").read_bytes())
    own = {path.parent: json.loads(path.read_bytes()) for path in store.glob("*/**/zarr.json")}
    assert group["consolidated_metadata"]["metadata"] == {
        str(folder.relative_to(store)): {
            name: value for name, value in metadata.items() if name != "consolidated_metadata"
        }
        for folder, metadata in own.items()
    }
    assert check_record_consistency(Generation(int(store.parent.name), store)) == []
    plain = zarr.open_group(store, mode="r")
    contents = Generation.from_path(store).read_inventory()
    if contents.keys.own_retired:
        return  # a lost image for whose key no key space was left is an error for new readers too
    for name, expected in arrays_of(contents.axes, editions).items():
        np.testing.assert_array_equal(plain[name][...], expected, err_msg=name)


def check_whole(link: Path, editions: Editions) -> None:
    """Check the published cube against the schema, and its variables, read by xarray, against the model."""
    assert check_schema(link) == []
    contents = Generation.from_path(link).read_inventory()
    cubes = [open_pinned_cube(link, verify="first", chunks=None)]
    if not contents.keys.own_retired:  # a lost image is an error for readers by name, new ones too
        cubes.append(xr.open_zarr(link, chunks=None))
    for cube in cubes:
        for name, days in (
            ("primary_date", contents.axes.primary),
            ("secondary_date", contents.axes.secondary),
        ):
            np.testing.assert_array_equal(cube[name].values, np.array(days, "datetime64[ns]"))
        for name, expected in arrays_of(contents.axes, editions).items():
            np.testing.assert_array_equal(cube[name].values, expected, err_msg=name)


def arrays_of(axes: DateAxes, editions: Editions) -> dict[str, np.ndarray]:
    """Return the expected arrays of a cube, by name."""
    places, shape = ChunkKeys(axes), (len(axes.primary), len(axes.secondary))
    images = ("insar_difference", "insar_coherence", "deformation_mask")
    arrays = {name: np.zeros((*shape, *GRID.shape), "f4" if "diff" in name else "u1") for name in images}
    arrays |= {name: np.zeros(shape, bool) for name in ("valid_date_pair", "annotated")}
    for key, edition in editions.items():
        kind = key.partition("/")[0]
        if kind in ("pair", "mask"):
            at = places.pair_index(pair_of(key))
            for variable in planes(key, edition).keys() & arrays.keys():
                arrays[variable][at] = planes(key, edition)[variable]
            arrays["valid_date_pair" if kind == "pair" else "annotated"][at] = kind == "mask" or edition > 0
    area, epochs = era5_area_around(GRID), [f"epoch/{day:%Y%m%d}" for day in axes.epochs]
    values = [
        np.full(area.shape, pressure(key, editions[key]) if key in editions else np.nan, "f4")
        for key in epochs
    ]
    return arrays | {
        "dem": planes("dem/dem", editions["dem/dem"])["dem"],
        "era5_surface_pressure": np.stack(values),
    }
