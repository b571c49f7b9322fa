"""Tests that flipped bits are found and named, and that repair rebuilds only the damaged granules."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from archives import (
    ALL,
    FRAME,
    asked,
    copied,
    frame_store_of,
    objects,
    rasters,
    settings_for,
)
from bit_flips import flip_bit
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.progress import NullListener
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.validation.checksums import Damage, verify_generation
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.operations.verification import CubeVerification, verify_cube
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.simulation.server import faults


@pytest.fixture
def settings(upstream, whole_cube, tmp_path):
    return settings_for(copied(whole_cube, tmp_path / "data"))


def files_of(generation: Generation) -> list[Path]:
    """Return every file of a published generation, including the second copies of its record."""
    return sorted(path for path in generation.store.parent.rglob("*") if path.is_file())


def products_of(damages: tuple[Damage, ...]) -> set[str]:
    """Return the rasters that a repair may request."""
    wanted: set[str] = set()
    for kind, _, name in (damage.unit.partition("/") for damage in damages):
        wanted |= rasters(Pair.parse(name)) if kind == "pair" else set()
        wanted |= {f"{FRAME}.geo.hgt.tif"} if kind == "dem" else set()
        wanted |= {f"{name}.geo.diff.png"} if kind == "mask" else set()
    return wanted


def flip_and_repair(archive, settings, chance: random.Random, flips: int) -> list[str]:
    """Flip bits, check that they are found, named and repaired, and return the damaged paths."""
    before = objects(settings)
    current = frame_store_of(settings).published_generation()
    hit = chance.sample(files_of(current), flips)
    for path in hit:
        flip_bit(path, chance)
    found = {damage.path for damage in verify_generation(current)}
    names = []
    for path in hit:
        inside = path.is_relative_to(current.store)
        names.append(str(path.relative_to(current.store)) if inside else f"../{path.name}")
        assert names[-1] in found, f"a flipped bit in {names[-1]} was not found"
    archive.clear_log()
    result = repair(FRAME, settings)
    assert result.lost == ()
    assert asked(archive) | asked(archive, ".png") <= products_of(result.damages)
    if not any(damage.unit for damage in result.damages):
        assert archive.log == []
    assert result.generation == current.number + 1
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    assert objects(settings) == before
    return names


def test_bits_flipped_at_random_places_are_mended(archive, settings):
    chance = random.Random(4)
    for flips in (1, 1, 1, 4):
        flip_and_repair(archive, settings, chance, flips)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_bits_flipped_hundreds_of_times(archive, settings):
    chance = random.Random(0)
    hit: Counter[str] = Counter()
    rounds = 0
    while hit.total() < 300:
        hit.update(name.partition("/")[0] for name in flip_and_repair(archive, settings, chance, 3))
        rounds += 1
        for number in frame_store_of(settings).generation_numbers()[:-1]:
            shutil.rmtree(frame_store_of(settings).root / f"{number:06d}")
    print(f"\n{hit.total()} bits flipped in {len(hit)} arrays and records, {rounds} repairs")


def test_one_damaged_pair_is_fetched_and_nothing_else(archive, settings):
    current = frame_store_of(settings).published_generation()
    path = current.store / "insar_coherence" / "c.1.2.0.0"
    path = path if path.exists() else next((current.store / "insar_coherence").glob("c.*"))
    flip_bit(path, random.Random(0))
    (damage,) = verify_generation(current)
    assert damage.variable == "insar_coherence"
    assert damage.unit.startswith("pair/")
    archive.clear_log()
    shutil.rmtree(settings.downloads_dir / "licsar")
    result = repair(FRAME, settings)
    assert result.rebuilt == (damage.unit,)
    assert result.changed == result.lost == ()
    assert asked(archive) == rasters(Pair.parse(damage.unit.partition("/")[2]))
    assert not any("execution" in entry.path or "/arco" in entry.path for entry in archive.log)


@pytest.mark.parametrize("name", ["zarr.json", "phase/zarr.json", "phase/c.0.0", MANIFEST, PROVENANCE])
def test_metadata_is_mended_without_any_network(archive, settings, name):
    current = frame_store_of(settings).published_generation()
    before = objects(settings)
    flip_bit(current.store / name, random.Random(1))
    assert verify_generation(current)
    away = settings.model_copy(update={"licsar_url": "http://127.0.0.1:9/", "annotations": None})
    archive.clear_log()
    result = repair(FRAME, away)
    assert result.rebuilt == ()
    assert archive.log == []
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    assert objects(settings) == before


def test_a_build_reads_the_record_that_is_whole_and_passes_no_damage_on(archive, settings):
    current = frame_store_of(settings).published_generation()
    for name in (MANIFEST, PROVENANCE):
        (current.store / name).write_bytes(b"{" + (current.store / name).read_bytes()[1:].swapcase())
    archive.archive.reprocess(FRAME, archive.archive.pairs(FRAME)[0])
    assert build(ALL, settings).generation == 2
    assert verify_generation(frame_store_of(settings).published_generation()) == []


def test_without_any_record_a_build_says_how_to_begin_again(settings):
    current = frame_store_of(settings).published_generation()
    for folder in current.record_folders:
        (folder / PROVENANCE).unlink()
    with pytest.raises(HephaestusError, match="`hephaestus repair"):
        build(ALL, settings)
    shutil.rmtree(current.store.parent)
    with pytest.raises(HephaestusError, match="is gone; `hephaestus repair"):
        build(ALL, settings)
    frame_store_of(settings).published_link.unlink()
    assert build(ALL, settings).exit_code == 0


def test_a_file_that_two_generations_share_is_mended_in_the_published_one(archive, settings):
    pairs = archive.archive.pairs(FRAME)
    archive.archive.reprocess(FRAME, pairs[0])
    build(ALL, settings)
    old, new = (
        Generation.from_path(frame_store_of(settings).root / f"{n:06d}" / f"{FRAME}.zarr") for n in (1, 2)
    )
    name = next(
        path.relative_to(new.store)
        for path in sorted((new.store / "insar_difference").glob("c.*"))
        if path.samefile(old.store / path.relative_to(new.store))
    )
    flip_bit(new.store / name, random.Random(2))
    assert [damage.path for damage in verify_generation(old)] == [str(name)]
    repair(FRAME, settings)
    mended = frame_store_of(settings).published_generation()
    assert verify_generation(mended) == []
    assert not (mended.store / name).samefile(old.store / name)
    assert [damage.path for damage in verify_generation(old)] == [str(name)]  # unchanged until gc removes it


def test_a_copy_elsewhere_is_verified_where_it_is(settings, tmp_path):
    copy = Path(
        shutil.copytree(frame_store_of(settings).published_link.resolve(), tmp_path / "elsewhere.zarr")
    )
    assert verify_generation(Generation.from_path(copy)) == []
    flip_bit(copy / "dem" / "c.0.0", random.Random(3))
    (damage,) = verify_generation(Generation.from_path(copy))
    assert str(damage).startswith("dem of dem/dem: dem/c.0.0 is damaged")
    with pytest.raises(HephaestusError, match="there is no cube at"):
        Generation.from_path(tmp_path)


def test_what_upstream_has_lost_meanwhile_is_owed_and_the_rest_is_mended(archive, settings):
    current = frame_store_of(settings).published_generation()
    first, second = sorted((current.store / "insar_difference").glob("c.*.0"))[:2]
    flip_bit(first, random.Random(5))
    flip_bit(second, random.Random(6))
    units = sorted(damage.unit for damage in verify_generation(current))
    lost = units[0].partition("/")[2]
    archive.faults.add(lost, faults.error_status(404))
    shutil.rmtree(settings.downloads_dir)
    result = repair(FRAME, settings)
    assert (result.lost, result.rebuilt) == ((units[0],), (units[1],))
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    archive.reset()
    paid = build(ALL, settings)
    assert (paid.exit_code, paid.pairs) == (0, 7)


@pytest.mark.parametrize("fault", [faults.error_status(404), faults.error_status(503), faults.empty_body()])
def test_what_upstream_does_not_give_comes_from_the_cache_if_it_is_what_the_cube_was_made_of(
    archive, settings, fault
):
    before = objects(settings)
    current = frame_store_of(settings).published_generation()
    flip_bit(next((current.store / "insar_coherence").glob("c.*")), random.Random(5))
    (damage,) = verify_generation(current)
    pair = damage.unit.partition("/")[2]
    archive.faults.add(pair, fault)
    archive.archive.withdraw(FRAME, pair)
    result = repair(FRAME, settings)
    assert (result.lost, result.rebuilt) == ((), (damage.unit,))
    assert objects(settings) == before
    flip_bit(frame_store_of(settings).published_generation().store / damage.path, random.Random(5))
    product = next(settings.downloads_dir.rglob(f"{pair}.geo.cc.tif"))
    product.write_bytes(bytes(product.stat().st_size))
    assert repair(FRAME, settings).lost == (damage.unit,)


def damage_one_of_each_kind(generation: Generation) -> set[str]:
    """Damage one granule of each kind, and return their keys."""
    for name in ("insar_difference", "dem", "deformation_mask", "primary_date_surface_pressure", "overview"):
        flip_bit(next(path for path in sorted((generation.store / name).rglob("c.*"))), random.Random(11))
    return {damage.unit for damage in verify_generation(generation)}


def test_what_the_cache_holds_is_taken_without_asking_anyone(archive, settings):
    before = objects(settings)
    damaged = damage_one_of_each_kind(frame_store_of(settings).published_generation())
    assert {unit.partition("/")[0] for unit in damaged} == {"pair", "dem", "mask", "epoch", "overview"}
    archive.clear_log()
    result = repair(FRAME, settings)
    assert (set(result.rebuilt), result.lost, result.changed) == (damaged, (), ())
    assert archive.log == []
    assert objects(settings) == before


def test_what_the_archive_has_changed_stays_known_when_the_old_is_restored_from_the_cache(archive, settings):
    current = frame_store_of(settings).published_generation()
    flip_bit(next((current.store / "insar_difference").glob("c.*")), random.Random(7))
    (damage,) = verify_generation(current)
    archive.archive.reprocess(FRAME, damage.unit.partition("/")[2])
    assert check_upstream(FRAME, settings, NullListener())
    assert repair(FRAME, settings).rebuilt == (damage.unit,)
    assert read_frame_status(settings, FRAME).stale
    assert build(ALL, settings).published
    assert not read_frame_status(settings, FRAME).stale


def test_what_upstream_has_changed_meanwhile_is_said(archive, settings):
    current = frame_store_of(settings).published_generation()
    flip_bit(next((current.store / "insar_difference").glob("c.*")), random.Random(7))
    (damage,) = verify_generation(current)
    archive.archive.reprocess(FRAME, damage.unit.partition("/")[2])
    shutil.rmtree(settings.downloads_dir / "licsar")
    assert repair(FRAME, settings).changed == (damage.unit,)
    assert verify_generation(frame_store_of(settings).published_generation()) == []


def test_a_killed_repairs_work_that_a_build_has_passed_is_not_used(archive, settings):
    frame_store = frame_store_of(settings)
    flip_bit(
        next((frame_store.published_generation().store / "insar_difference").glob("c.*")), random.Random(7)
    )
    (damage,) = verify_generation(frame_store.published_generation())

    from hephaestus_build.operations import repair as repairing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairing, "republish", lambda *_: (_ for _ in ()).throw(HephaestusError("killed")))
        with pytest.raises(HephaestusError, match="killed"):
            repair(FRAME, settings)
    archive.archive.reprocess(FRAME, damage.unit.partition("/")[2])
    build(ALL, settings)
    after = objects(settings)
    flip_bit(frame_store.published_generation().store / damage.path, random.Random(8))
    assert repair(FRAME, settings).changed == ()
    assert objects(settings) == after


def test_an_object_that_is_gone_sends_a_build_to_repair(archive, settings):
    current, pairs = frame_store_of(settings).published_generation(), archive.archive.pairs(FRAME)
    contents = current.read_inventory()
    gone = dict(contents.chunk_keys.keys(contents.granules[f"pair/{pairs[0]}"]))["insar_difference.0"]
    (current.store / gone).unlink()
    archive.archive.reprocess(FRAME, pairs[-1])
    with pytest.raises(HephaestusError, match=rf"{gone} is missing .*`hephaestus repair {FRAME}`"):
        build(ALL, settings)
    assert repair(FRAME, settings).lost == ()
    assert build(ALL, settings).exit_code == 0
    assert verify_generation(frame_store_of(settings).published_generation()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"annotation":', b'"ann/tation":'),
        (b'"era5_time":', b'"era5_tome":'),
        (b'"kind":"pair","name":"2', b'"kind":"pair","name":"x'),
    ],
)
def test_a_record_of_which_no_cube_can_be_made_is_one_error_and_mended(settings, old, new):
    before = objects(settings)
    current = frame_store_of(settings).published_generation()
    for folder in current.record_folders:
        content = (folder / "provenance.json").read_bytes()
        assert old in content
        (folder / "provenance.json").write_bytes(content.replace(old, new, 1))
    with pytest.raises(HephaestusError, match=r"provenance.*`hephaestus repair"):
        verify_generation(current)
    assert repair(FRAME, settings).lost == ()
    assert objects(settings) == before


def test_masks_are_not_mended_without_their_annotation(settings, monkeypatch):
    current = frame_store_of(settings).published_generation()
    before = frame_store_of(settings).published_link.resolve()
    flip_bit(next((current.store / "deformation_mask").glob("c.*")), random.Random(8))
    without = settings.model_copy(update={"annotations": None})
    with pytest.raises(HephaestusError, match="HEPHAESTUS_ANNOTATIONS"):
        repair(FRAME, without)
    assert frame_store_of(settings).published_link.resolve() == before
    assert repair(FRAME, settings).lost == ()


def test_a_repair_leaves_an_interrupted_builds_work_alone(archive, settings):
    frame_store = frame_store_of(settings)
    pair = archive.archive.pairs(FRAME)[2]
    archive.archive.reprocess(FRAME, pair)

    from hephaestus_build.pipeline import build as building

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "publish", lambda job: (_ for _ in ()).throw(HephaestusError("killed")))
        with pytest.raises(HephaestusError, match="killed"):
            build(ALL, settings)
    finished = set(frame_store.staging.read_granules())
    assert f"pair/{pair}" in finished
    flip_bit(frame_store.published_generation().store / "zarr.json", random.Random(9))
    repair(FRAME, settings)
    assert set(frame_store.staging.read_granules()) == finished
    archive.clear_log()
    assert build(ALL, settings).published
    assert asked(archive) == set()


def test_damage_in_more_places_than_one_is_all_named(archive, settings):
    current = frame_store_of(settings).published_generation()
    (current.store / "dem" / "c.0.0").unlink()
    (current.store / "insar_difference" / "stranger").write_bytes(b"x")
    (current.store.parent / PROVENANCE).unlink()
    found = {damage.path: damage.what for damage in verify_generation(current)}
    assert found == {
        "dem/c.0.0": "missing",
        "insar_difference/stranger": "unknown",
        f"../{PROVENANCE}": "missing",
    }
    result = repair(FRAME, settings)
    assert result.rebuilt == ("dem/dem",)
    assert verify_generation(frame_store_of(settings).published_generation()) == []


def _truncate(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"x")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def _put_beside(path: Path) -> None:
    path.with_name(f"{path.name}.copy").write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    "harm",
    [_truncate, Path.unlink, _replace_by_folder, _replace_by_link, _put_beside],
    ids=lambda f: f.__name__,
)
def test_what_verify_says_that_repair_mends_it_mends(settings, harm):
    before = objects(settings)
    inside = (
        "insar_difference/c.*", "dem/c.*", "deformation_mask/c.*", "primary_date_surface_pressure/c.*",
        "overview/coherence/c.*", "valid_date_pair/c.*", "pairs/primary/c.*", "zarr.json",
        "overview/zarr.json", MANIFEST, PROVENANCE,
    )  # fmt: skip
    for kinds in (inside, (f"../{MANIFEST}",), (f"../{PROVENANCE}",)):
        current = frame_store_of(settings).published_generation()
        for kind in kinds:
            harm((sorted(current.store.glob(kind)) or [current.store / kind])[0])
        seen = verify_cube(current)
        if not seen.damages:  # files beside a generation belong to no cube
            assert harm is _put_beside
            assert kinds is not inside
            continue
        assert seen.describe_remedy(FRAME.id, current.store) == f"`hephaestus repair {FRAME}` mends it"
        assert repair(FRAME, settings).lost == ()
        assert verify_cube(frame_store_of(settings).published_generation()) == CubeVerification()
        assert objects(settings) == before
