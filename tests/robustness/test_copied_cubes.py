"""Tests of copies of published cubes, and of cubes of which the record or the store is lost."""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from archives import ALL, FRAME, asked, copied, frame_store_of, objects, settings_for
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.status import list_started_frames, read_frame_status
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest


@pytest.fixture
def settings(upstream, whole_cube, tmp_path):
    return settings_for(copied(whole_cube, tmp_path / "data"))


def follow_links(source: Path, target: Path) -> None:
    """Copy as ``cp -rL``, ``rsync -L`` and a synchronization with S3 do."""
    shutil.copytree(source, target, symlinks=False)


def zip_and_unpack(source: Path, target: Path) -> None:
    """Copy through an archive, which holds the files that links lead to, and their content alone."""
    target.mkdir(parents=True)
    with zipfile.ZipFile(target.with_suffix(".zip"), "w") as archive:
        for folder, _, names in os.walk(source, followlinks=True):
            for name in names:
                archive.write(Path(folder) / name, (Path(folder) / name).relative_to(source))
    with zipfile.ZipFile(target.with_suffix(".zip")) as archive:
        archive.extractall(target)


@pytest.fixture(params=["with its generations", "alone", "zip"])
def copy(request, settings, tmp_path):
    """Settings of a data folder that holds a copy of the cube, without the cache."""
    copier = zip_and_unpack if request.param == "zip" else follow_links
    there = settings_for(tmp_path / "copy")
    copier(settings.cubes_dir, there.cubes_dir)
    if request.param != "with its generations":
        shutil.rmtree(there.cubes_dir / ".generations")
    assert not frame_store_of(there).published_link.is_symlink()
    return there


def test_a_faithful_copy_is_taken_for_what_it_is(archive, copy, settings) -> None:
    assert list_started_frames(copy) == [FRAME]
    row, before = read_frame_status(copy, FRAME), objects(settings)
    assert (row.problem, row.pairs, row.owed) == ("", 7, ())
    assert objects(copy) == before
    assert verify_generation(frame_store_of(copy).published_generation()) == []
    assert plan(ALL, copy).pairs_to_fetch == ()
    assert repair(FRAME, copy).damages == ()
    archive.clear_log()
    pinned = open_pinned_cube(frame_store_of(copy).published_link, chunks=None)
    result = build(ALL, copy)
    assert (result.published, result.exit_code, result.pairs) == (False, 0, 7)
    archive.archive.reprocess(FRAME, archive.archive.pairs(FRAME)[0])  # a build goes on from it
    assert build(ALL, copy).published
    changed = archive.archive.pairs(FRAME)[0].name
    assert {name.partition(".")[0] for name in asked(archive)} == {changed}
    assert verify_generation(frame_store_of(copy).published_generation()) == []
    with frame_store_of(copy).lock():
        frame_store_of(copy).remove_old(keep=1, older_than=timedelta(0))
    assert verify_generation(frame_store_of(copy).published_generation()) == []
    pinned.close()


def test_a_plain_build_continues_from_a_copy_without_downloading_it_again(
    archive, settings, tmp_path
) -> None:
    there = settings_for(tmp_path / "copy")
    follow_links(frame_store_of(settings).published_link.resolve(), frame_store_of(there).published_link)
    assert build(ALL, there).generation == 1
    assert asked(archive) == set()
    assert frame_store_of(there).published_link.is_symlink()
    assert objects(there) == objects(settings)


def test_a_damaged_copy_is_not_built_on_and_is_repaired(archive, settings, tmp_path) -> None:
    there, before = settings_for(tmp_path / "copy"), objects(settings)
    folder = frame_store_of(there).published_link
    follow_links(frame_store_of(settings).published_link.resolve(), folder)
    lost = sorted((folder / "insar_difference").glob("c.*"))[0]
    lost.unlink()
    (folder / "dem" / "c.0.0").write_bytes(b"other")
    kept = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        HephaestusError, match=r"damaged or incomplete copy.*copy it again, or `hephaestus repair"
    ):
        build(ALL, there)
    assert {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } == kept
    report = repair(FRAME, there)
    assert (len(report.damages), len(report.rebuilt), report.lost) == (2, 2, ())
    assert objects(there) == before


@pytest.mark.parametrize("kind", ["other folder", "file", "other frame", "Zarr of others"])
def test_what_is_no_cube_of_the_frame_is_never_replaced(settings, kind) -> None:
    link = frame_store_of(settings).published_link
    store = link.resolve()
    link.unlink()
    match kind:
        case "other folder":
            link.mkdir()
            (link / "precious").write_text("x")
        case "file":
            link.write_text("x")
        case "other frame":
            shutil.copytree(store, link)
            shutil.rmtree(frame_store_of(settings).root)
            for path in link.glob("*.json"):
                path.write_bytes(path.read_bytes().replace(FRAME.id.encode(), b"198A_00999_131313"))
        case "Zarr of others":
            xr.Dataset({"a": ("x", np.arange(3))}).to_zarr(link, zarr_format=3, consolidated=False)
    before = sorted(link.rglob("*"))
    for command in (lambda: build(ALL, settings), lambda: repair(FRAME, settings)):
        with pytest.raises(HephaestusError, match="move it away"):
            command()
    assert sorted(link.rglob("*")) == before
    assert "move it away" in read_frame_status(settings, FRAME).problem


# --- lost records and stores


def lose_records(settings) -> None:
    for folder in frame_store_of(settings).published_generation().record_folders:
        (folder / PROVENANCE).unlink()


def test_a_cube_without_any_record_is_built_again_from_the_cache(archive, settings) -> None:
    first = BuildRequest(FRAME, pairs="all", limit=4)
    before = objects(settings)
    by_name = xr.open_zarr(frame_store_of(settings).published_link, chunks=None)
    values = by_name.insar_difference.values
    lose_records(settings)
    with pytest.raises(HephaestusError, match="`hephaestus repair"):
        build(first, settings)
    archive.clear_log()
    report = repair(FRAME, settings)
    assert report.lost == ()
    assert {f"pair/{pair}" for pair in archive.archive.pairs(FRAME)} <= set(report.rebuilt)
    assert not [entry for entry in archive.log if entry.status == 200 and entry.path.endswith(".tif")]
    assert objects(settings) == before
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    np.testing.assert_array_equal(by_name.insar_difference.values, values)


def test_what_cannot_be_had_again_is_said(archive, settings) -> None:
    gone = archive.archive.pairs(FRAME)[1]
    archive.archive.withdraw(FRAME, gone)
    lose_records(settings)
    report = repair(FRAME, settings)
    assert report.lost == (f"pair/{gone}",)
    assert verify_generation(frame_store_of(settings).published_generation()) == []


def test_only_the_pairs_that_it_held_come_back(archive, settings, tmp_path) -> None:
    there = settings_for(tmp_path / "small", cache_dir=settings.downloads_dir.parent)
    build(BuildRequest(FRAME, pairs="all", limit=3), there)
    held, before = read_frame_status(there, FRAME).pairs, objects(there)
    lose_records(there)
    repair(FRAME, there)
    assert read_frame_status(there, FRAME).pairs == held == 3
    assert objects(there) == before


def test_a_link_that_leads_nowhere_is_mended(archive, settings) -> None:
    before = objects(settings)
    archive.archive.reprocess(FRAME, archive.archive.pairs(FRAME)[0])
    build(ALL, settings)
    store = frame_store_of(settings).published_generation().store
    shutil.rmtree(store.parent)
    assert "`hephaestus repair" in read_frame_status(settings, FRAME).problem
    repair(FRAME, settings)  # the generation before is still there
    assert (frame_store_of(settings).published_generation().number, objects(settings)) == (1, before)
    shutil.rmtree(frame_store_of(settings).root)
    with pytest.raises(HephaestusError, match="is gone; `hephaestus repair"):
        build(ALL, settings)
    repair(FRAME, settings)  # nothing tells which pairs it held: those of a new build
    assert read_frame_status(settings, FRAME).pairs == 6


def test_a_flipped_bit_in_a_copy_with_its_generations_is_found_and_mended(
    archive, settings, tmp_path
) -> None:
    there = settings_for(tmp_path / "copy")
    follow_links(settings.cubes_dir, there.cubes_dir)
    path = sorted((frame_store_of(there).published_link / "insar_difference").glob("c.*"))[0]
    content = bytearray(path.read_bytes())
    content[random.Random(1).randrange(len(content))] ^= 1
    path.write_bytes(content)
    (damage,) = verify_generation(frame_store_of(there).published_generation())
    assert "in the published folder" in str(damage)
    archive.clear_log()
    assert repair(FRAME, there).rebuilt == ()
    assert asked(archive) == set()
    assert verify_generation(frame_store_of(there).published_generation()) == []
    assert frame_store_of(there).published_link.is_symlink()
