"""Tests of new, changed and withdrawn products: a cube follows its archive, and downloads only changes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta

import numpy as np
import pytest
from affine import Affine
from rasterio.io import MemoryFile

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
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frame_search import list_published_frames
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.progress import NullListener
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube import fingerprints as inputs_module
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.staging import StagingArea
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.batch import build_frames, watch
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.operations.status import list_frames_on_disk, read_frame_status
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.simulation.server import faults
from toy_cube import toy_cube

#: The dates of a listing, without which nothing shows that a file was replaced in place.
_DATES = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d")

pytestmark = pytest.mark.usefixtures("upstream")


@pytest.fixture
def settings(whole_cube, tmp_path):
    return settings_for(copied(whole_cube, tmp_path / "data"))


def same_as_clean(settings, tmp_path) -> bool:
    clean = settings_for(tmp_path / "clean")
    assert build(ALL, clean).exit_code == 0
    if objects(settings) == objects(clean):
        return True
    # positions have moved: the same values at other keys
    contents = frame_store_of(settings).published_generation().read_inventory()
    assert (contents.keys.index, contents.pair_keys.index) != (0, 0)
    stores = [frame_store_of(each).published_generation().store for each in (settings, clean)]
    return all(
        open_pinned_cube(stores[0], group=group).equals(open_pinned_cube(stores[1], group=group))
        for group in (None, "pairs", "overview")
    )


def test_a_pair_that_is_replaced_in_place_is_fetched_alone(archive, settings, tmp_path):
    pair = archive.archive.pairs(FRAME)[2]
    archive.archive.reprocess(FRAME, pair)
    assert plan(ALL, settings).pairs_to_fetch == (pair,)
    archive.clear_log()
    result = build(ALL, settings)
    assert asked(archive) == rasters(pair)
    assert (result.exit_code, result.generation) == (0, 2)
    here = open_pinned_cube(result.path).sel(
        primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
    )
    truth = archive.archive.world.phase(FRAME, pair, revision=1)
    np.testing.assert_array_equal(here.insar_difference.values, truth)
    assert same_as_clean(settings, tmp_path)


def test_a_change_that_only_asking_shows_is_stale_until_the_next_build(archive, settings, tmp_path):
    archive.faults.add(r"/interferograms/$", faults.replace_body(lambda page: _DATES.sub(b"", page)))
    assert build(ALL, settings).published is False
    pair = archive.archive.pairs(FRAME)[3]
    archive.archive.reprocess(FRAME, pair)
    assert build(ALL, settings).published is False
    changes = check_upstream(FRAME, settings, NullListener())
    assert {change.unit for change in changes} == {f"pair/{pair}"}
    assert "changed upstream" in str(changes[0])
    assert read_frame_status(settings, FRAME).stale == ("1 granule changed upstream",)
    archive.clear_log()
    result = build(ALL, settings)
    assert asked(archive) == rasters(pair)
    assert (result.exit_code, result.generation) == (0, 2)
    assert read_frame_status(settings, FRAME).stale == ()
    assert check_upstream(FRAME, settings, NullListener()) == []
    assert build(ALL, settings).published is False
    truth = archive.archive.world.coherence(FRAME, pair, revision=1)
    here = open_pinned_cube(result.path).sel(
        primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
    )
    np.testing.assert_array_equal(here.insar_coherence.values, truth)


def test_what_cannot_be_asked_about_is_not_called_changed(archive, settings):
    archive.faults.add(r"\.tif$", faults.error_status(503))
    changes = check_upstream(FRAME, settings, NullListener())
    assert len(changes) == 15
    assert all("cannot be asked" in str(change) for change in changes)
    assert read_frame_status(settings, FRAME).stale == ()


def test_a_changed_pair_that_cannot_be_had_stays_as_it_was_and_is_owed(archive, settings, tmp_path):
    pair = archive.archive.pairs(FRAME)[2]
    before = objects(settings)
    archive.archive.reprocess(FRAME, pair)
    archive.faults.add(rf"{pair}\.geo\.cc\.tif", faults.error_status(503))
    result = build(ALL, settings)
    assert (result.exit_code, result.pairs) == (3, 7)
    assert [(item.unit, item.outcome) for item in result.owed] == [(f"pair/{pair}", Outcome.UNREACHABLE)]
    assert objects(settings) == before or result.published  # its masks may follow a newer preview already
    assert read_frame_status(settings, FRAME).stale == ("1 granule changed upstream",)
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    archive.reset()
    archive.archive.reprocess(FRAME, pair)
    assert build(ALL, settings).exit_code == 0
    assert read_frame_status(settings, FRAME).stale == ()
    assert same_as_clean(settings, tmp_path)


def test_pairs_that_are_gone_upstream_stay_and_are_reported(archive, settings, whole_cube):
    gone = archive.archive.pairs(FRAME)[1]
    archive.archive.withdraw(FRAME, gone)
    result = build(ALL, settings)
    assert (result.exit_code, result.pairs, result.gone) == (0, 7, (gone,))
    assert result.published is False
    status = read_frame_status(settings, FRAME)
    assert (status.gone, status.stale) == ((gone.name,), ())
    assert result.to_json()["gone"] == [gone.name]
    assert {change.unit for change in check_upstream(FRAME, settings, NullListener())} == {f"pair/{gone}"}
    archive.clear_log()
    assert build(ALL, settings).gone == (gone,)
    assert asked(archive) == set()
    assert read_frame_status(settings, FRAME).stale == ()


def test_a_build_that_dies_after_publishing_what_verify_found_fetches_it_once(archive, settings, monkeypatch):
    archive.archive.reprocess(FRAME, archive.archive.pairs(FRAME)[0])
    assert check_upstream(FRAME, settings, NullListener())
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(StagingArea, "discard", lambda _: (_ for _ in ()).throw(RuntimeError("killed")))
        build(ALL, settings)
    assert frame_store_of(settings).published_generation().number == 2
    assert read_frame_status(settings, FRAME).stale == ()
    archive.clear_log()
    assert not build(ALL, settings).published
    assert asked(archive) == set()


#: Alignment of this archive's pairs with the frame's grid; one has an oddity.
USUAL = {"identical": 6, "shifted": 1}


def changed(
    rows: int | None = None, columns: int | None = None, east: float = 0.0
) -> Callable[[bytes], bytes]:
    """Return what crops a raster, or moves it by so many degrees."""

    def change(content: bytes) -> bytes:
        with MemoryFile(content) as file, file.open() as source:
            values, profile = source.read(1)[:rows, :columns], source.profile
        height, width = values.shape
        transform = Affine.translation(east, 0) * profile["transform"]
        with MemoryFile() as file:
            with file.open(**profile | {"height": height, "width": width, "transform": transform}) as target:
                target.write(values, 1)
            return bytes(file.getbuffer())

    return change


@pytest.mark.parametrize("change", [changed(east=10), changed(rows=6, columns=5)], ids=["elsewhere", "tiny"])
def test_a_dem_of_another_place_is_corrupt_and_the_pairs_are_built(archive, tmp_path, change):
    settings = settings_for(tmp_path / "data")
    rule = archive.faults.add(r"\.hgt\.tif$", faults.replace_body(change))
    result = build(ALL, settings)
    assert [(item.unit, item.outcome) for item in result.owed] == [("dem/dem", Outcome.CORRUPT)]
    assert (result.pairs, result.aligned) == (7, USUAL)
    assert read_frame_status(settings, FRAME).owed == result.owed
    archive.faults.remove(rule)
    assert build(ALL, settings).owed == ()
    assert same_as_clean(settings, tmp_path)


def test_a_dem_of_another_place_that_nothing_spoke_against_is_asked_for_again(archive, tmp_path):
    settings = settings_for(tmp_path / "data")
    archive.faults.add(r"\.hgt\.tif$", faults.replace_body(changed(east=10)))
    for pair in archive.archive.pairs(FRAME)[:3]:
        archive.faults.add(str(pair), faults.error_status(404))
    with pytest.raises(HephaestusError, match="no interferogram could be fetched"):
        build(ALL, settings)
    archive.reset()
    assert build(ALL, settings).exit_code == 0
    assert same_as_clean(settings, tmp_path)


def test_a_dem_that_goes_astray_takes_no_good_cube_with_it(archive, tmp_path):
    settings = settings_for(tmp_path / "data")
    build(ALL, settings)
    rule = archive.faults.add(r"\.hgt\.tif$", faults.replace_body(changed(rows=6, columns=5)))
    check_upstream(FRAME, settings, NullListener())
    result = build(ALL, settings)
    assert [item.unit for item in result.owed] == ["dem/dem"]
    assert open_pinned_cube(result.path).sizes["latitude"] == 80
    archive.faults.remove(rule)
    assert build(ALL, settings).exit_code == 0
    assert same_as_clean(settings, tmp_path)


@pytest.mark.parametrize("change", [changed(east=10), changed(rows=40, columns=40)], ids=["elsewhere", "cut"])
def test_without_a_dem_one_bad_raster_does_not_decide_the_grid(archive, tmp_path, change):
    settings = settings_for(tmp_path / "data")
    first = archive.archive.pairs(FRAME)[0]
    archive.faults.add(r"\.hgt\.tif$", faults.error_status(404))
    rule = archive.faults.add(rf"{first}\.geo\.diff_pha\.tif$", faults.replace_body(change))
    alone = settings_for(tmp_path / "alone")
    for place in (settings, alone):
        with suppress(HephaestusError):  # of the bad one alone there is no cube, or one on its grid
            build(BuildRequest(FRAME, pairs="all", limit=1 if place is alone else None), place)
        result = build(ALL, place)
        assert open_pinned_cube(result.path).sizes["latitude"] == 80
        assert result.aligned["identical"] == USUAL["identical"] - 1
    archive.faults.remove(rule)
    check_upstream(FRAME, settings, NullListener())
    assert build(ALL, settings).aligned == USUAL


def test_a_dem_with_another_grid_has_everything_built_on_it(archive, tmp_path):
    """A cube has one grid: if the DEM appears later and differs, the pairs are aligned to it."""
    settings = settings_for(tmp_path / "data")
    archive.faults.add(r"\.hgt\.tif$", faults.error_status(404))
    archive.faults.add(r"\.geo\.(diff_pha|cc)\.tif$", faults.replace_body(changed(rows=77, columns=85)))
    result = build(BuildRequest(FRAME, pairs="all", limit=3), settings)
    assert [item.unit for item in result.owed] == ["dem/dem"]
    assert open_pinned_cube(result.path).sizes["latitude"] == 77
    archive.reset()
    check_upstream(FRAME, settings, NullListener())
    done = build(BuildRequest(FRAME, pairs="all", limit=1), settings)
    assert done.exit_code == 0
    assert open_pinned_cube(done.path).sizes["latitude"] == 80
    assert done.pairs == 3
    build(ALL, settings)
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    assert same_as_clean(settings, tmp_path)


def test_another_version_of_the_processing_builds_all_again_from_the_cache(archive, tmp_path, monkeypatch):
    settings = settings_for(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(inputs_module, "PROCESSING_VERSION", "0.9")
        build(ALL, settings)
    archive.clear_log()
    result = build(BuildRequest(FRAME, pairs="all", limit=1), settings)
    assert (result.generation, result.pairs) == (2, 7)
    statuses = {entry.status for entry in archive.log if entry.path.endswith(".tif")}
    assert statuses == {304}
    assert same_as_clean(settings, tmp_path)


def test_only_new_things_are_asked_for_whatever_the_cube_holds(archive, tmp_path):
    """One listing, the metadata and the new products: no request grows with the cube."""
    settings = settings_for(tmp_path / "data")
    pairs = archive.archive.pairs(FRAME)
    counts = []
    for count in range(2, 7):
        archive.clear_log()
        build(BuildRequest(FRAME, pairs="all", limit=count), settings)
        counts.append(len([entry for entry in archive.log if "/LiCSAR_products" in entry.path]))
    assert max(counts[1:]) <= 6, counts  # listing, metadata, two rasters, a preview, a page of links
    assert len(pairs) == 7


@pytest.fixture
def large(tmp_path) -> tuple[FrameStore, list[str]]:
    """A cube of 300 tiny pairs."""
    days = [date(2015, 1, 1) + timedelta(6 * step) for step in range(80)]
    names = [f"{a:%Y%m%d}_{b:%Y%m%d}" for i, a in enumerate(days) for b in days[i + 1 : i + 5]][:300]
    tiny = Grid(8, 6, 10.0, 20.0, 0.001, 0.001)
    import toy_cube as toys

    original = toys.PAIRS
    try:
        toys.PAIRS = tuple(names)
        toy_cube(tmp_path / "cubes", tiny, pairs=tuple(names))
    finally:
        toys.PAIRS = original
    return FrameStore(tmp_path / "cubes", FRAME), names


def test_the_bookkeeping_of_a_large_cube_takes_a_blink(large):
    """A generation without changes costs as much as a new pair without its reading and encoding."""
    frame_store, names = large
    clock = time.process_time()
    current = frame_store.published_generation()
    contents = current.read_inventory()
    places = contents.chunk_keys
    stored = {
        u.key: {n: str(current.store / k) for n, k in places.keys(u)} for u in contents.granules.values()
    }
    with frame_store.new_generation() as store:
        write_cube_store(store, contents, lambda granule: stored[granule.key])
    spent = time.process_time() - clock
    assert len(names) == 300
    assert objects_of(frame_store) == current.read_manifest()
    # measured: 0.4 s of processor time, most of which a cube of ten pairs takes too (docs/reliability.md)
    assert spent < 4, f"{spent:.1f} s"


def objects_of(frame_store: FrameStore) -> dict[str, list]:
    return frame_store.published_generation().read_manifest()


def test_watch_builds_what_arrives_and_records_each_run(archive, tmp_path):
    settings = settings_for(tmp_path / "data")
    days = archive.archive.epochs(FRAME)
    arrivals = iter([days[3], None])
    archive.archive.publish_until(days[1])
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        archive.archive.publish_until(next(arrivals))

    stranger = BuildRequest(Frame("199A_00001_000001"))
    runs = list(watch([ALL, stranger], settings, interval=3600, rounds=3, sleep=sleep))
    good = [run for run in runs if run.frame == FRAME]
    counts = [sum(pair.secondary <= day for pair in archive.archive.pairs(FRAME)) for day in days]
    assert [run.result.pairs for run in good] == [counts[1], counts[3], 7]
    assert [run.result.generation for run in good] == [1, 2, 3]
    assert [run.exit_code for run in runs] == [0, 1] * 3
    assert len(naps) == 2
    assert all(0 < nap <= 3600 for nap in naps)
    lines = (settings.data_dir / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 6
    last = read_last_runs(settings.data_dir)
    assert last[FRAME.id]["exit_code"] == 0
    assert "no such frame" in last[stranger.frame.id]["error"]
    assert "no such frame" in read_frame_status(settings, stranger.frame).last_error
    assert list_frames_on_disk(settings) == [FRAME, stranger.frame]


def test_a_frame_that_nobody_annotated_is_watched_with_all_its_pairs(archive, tmp_path, monkeypatch):
    monkeypatch.delenv("HEPHAESTUS_ANNOTATIONS")
    settings = settings_for(tmp_path / "data")
    (run,) = watch([BuildRequest(FRAME)], settings, interval=1, rounds=1)
    assert (run.result.pairs, run.result.masks) == (7, 0)


def test_the_registry_has_38_frames_and_each_failure_is_on_record(archive, tmp_path):
    settings = settings_for(tmp_path / "data")
    frames = list_published_frames()
    assert len(frames) == 38
    runs = list(build_frames([BuildRequest(frame) for frame in (*frames[:5], FRAME)], settings, at_a_time=3))
    assert sorted((run.frame, run.exit_code) for run in runs) == sorted(
        [(frame, 1) for frame in frames[:5]] + [(FRAME, 0)]
    )
    assert set(read_last_runs(settings.data_dir)) == {frame.id for frame in (*frames[:5], FRAME)}


def test_a_mistake_of_ours_in_one_frame_is_one_line_and_stops_no_other(archive, tmp_path, monkeypatch):
    from hephaestus_build.operations import batch as watch_module

    def broken(request, *_, **__):
        raise ZeroDivisionError("of all things\nin two lines")

    monkeypatch.setattr(watch_module, "build", broken)
    (run,) = build_frames([ALL], settings_for(tmp_path / "data"))
    assert run.exit_code == 1
    assert run.error.startswith(f"{FRAME}: ZeroDivisionError: of all things in two lines")
