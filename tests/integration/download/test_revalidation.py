"""Tests of a modified cache: detected by itself, or by `verify --upstream`, and repaired by a build."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from archives import ALL, FRAME, frame_store_of, objects, settings_for
from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.progress import NullListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.repair import repair
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.upstream_changes import check_upstream, read_upstream_state


@pytest.fixture
def settings(upstream, tmp_path) -> Settings:
    return settings_for(tmp_path / "data")


def falsify(path: Path) -> None:
    """Change a raster in the cache, with another size, and adapt its receipt."""
    with rasterio.open(path) as source:
        values, profile = source.read(1), source.profile
    path.unlink()
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.where(values != 0, np.float32(1), np.float32(0)), 1)
    note = path.with_name(path.name + ".receipt.json")
    receipt = json.loads(note.read_text())
    receipt.update(size=path.stat().st_size, blake3=hash_bytes(path.read_bytes()))
    note.write_text(json.dumps(receipt))


def first_phase(settings: Settings) -> Path:
    return min(settings.downloads_dir.rglob("*.geo.diff_pha.tif"))


def damage(settings: Settings, pattern: str) -> None:
    """Flip a bit in one stored object of the cube."""
    store = frame_store_of(settings).published_generation().store
    path = min(store.glob(pattern))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def test_what_upstream_contradicts_is_fetched_without_conditions(archive, settings, tmp_path):
    one = BuildRequest(FRAME, pairs="all", limit=1)
    build(one, settings)
    true = objects(settings)
    copy = settings_for(tmp_path / "copy")
    shutil.copytree(settings.downloads_dir, copy.downloads_dir)
    name = first_phase(copy).name
    falsify(first_phase(copy))
    build(one, copy)
    assert objects(copy) != true
    changes = check_upstream(FRAME, copy, NullListener())
    assert [change.product for change in changes] == [name]
    archive.clear_log()
    build(one, copy)
    (entry,) = [entry for entry in archive.log if entry.path.endswith(name)]
    assert entry.status == 200
    assert not {"if-none-match", "if-modified-since", "range"} & entry.headers.keys()
    assert {entry.status for entry in archive.log if entry.path.endswith(".cc.tif")} <= {200, 304}
    assert objects(copy) == true
    assert check_upstream(FRAME, copy, NullListener()) == []
    assert read_upstream_state(frame_store_of(copy)).changed == {}
    archive.clear_log()
    build(one, copy)
    assert not [entry for entry in archive.log if entry.path.endswith(".tif")]


def test_a_copy_of_another_hash_than_at_its_first_use_is_not_believed(archive, settings, caplog):
    build(ALL, settings)
    true = objects(settings)
    falsify(first_phase(settings))
    pair = first_phase(settings).name[:17]
    damage(settings, "insar_difference/c.0.*")
    broken = [item.unit for item in verify_generation(frame_store_of(settings).published_generation())]
    archive.clear_log()
    result = repair(FRAME, settings)
    assert result.changed == ()
    assert objects(settings) == true
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    if broken == [f"pair/{pair}"]:
        assert "is not what it was when first used" in caplog.text


def forge(path: Path, *, seals: bool) -> None:
    """Change the cached values of a month of ERA5, and their hashes too if `seals`."""
    with np.load(path) as kept:
        values, notes = kept["values"] * np.float32(1.01), json.loads(kept["notes"].tobytes())
    if seals:
        for plane, receipts in zip(values, notes["receipts"], strict=True):
            for receipt in receipts:
                claim = receipt["values"].rpartition(" ")[0]
                receipt["values"] = f"{claim} {hash_bytes(np.ascontiguousarray(plane).tobytes())}"
    encoded = np.frombuffer(json.dumps(notes).encode(), dtype=np.uint8)
    with path.open("wb") as stream:
        np.savez_compressed(stream, values=values, notes=encoded)


@pytest.mark.parametrize("seals", [False, True])
def test_hours_of_era5_with_other_values_than_at_their_first_use_are_asked_for_again(
    archive, settings, seals, caplog
):
    build(ALL, settings)
    true = objects(settings)
    for path in settings.downloads_dir.rglob("*.npz"):
        forge(path, seals=seals)
    name = next(name for name in true if "water_vapour" in name and "/c" in name)
    damage(settings, name)
    result = repair(FRAME, settings)
    assert result.lost == result.changed == ()
    assert objects(settings) == true
    assert "have changed since they were first used" in caplog.text


def test_the_seals_of_era5_change_no_cube(archive, settings):
    build(ALL, settings)
    epochs = [
        unit
        for unit in frame_store_of(settings).published_generation().read_inventory().granules.values()
        if unit.kind == "epoch"
    ]
    assert epochs
    assert all(receipt.values for unit in epochs for receipt in unit.receipts)
    (note,) = random.Random(0).sample(list(settings.downloads_dir.rglob("*.npz")), 1)
    note.unlink()
    before = frame_store_of(settings).published_generation().number
    build(ALL, settings)
    assert frame_store_of(settings).published_generation().number == before
