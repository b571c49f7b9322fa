"""Tests of storage: a cube is determined by its granules, published as one, and immutable for readers."""

import threading
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from checkout import ROOT
from hephaestus_build.core.atomic_io import encode_json, write_atomic
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, era5_area_around
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.chunk_keys import ChunkKeys
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.granules import (
    AnyGranule,
    EpochGranule,
    Granule,
    InterferogramGranule,
    MaskGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.staging import StagingArea
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.pipeline.encoding import encode_atmosphere, encode_images

FRAME = Frame("198A_00210_131313")
GRID = Grid(70, 60, 10.0003, 20.0007, 0.001, 0.001)
GOOD = Receipt("x.tif", Outcome.DOWNLOADED, "http://127.0.0.1/x.tif", size=1, sha256="0" * 64)


def image(name: str) -> np.ndarray:
    values = np.random.default_rng(int(name[:8]) + int(name[9:])).uniform(-3, 3, GRID.shape).astype("f4")
    values[:20] = 0
    return values


def pair_unit(staging: StagingArea, name: str, **facts) -> Granule:
    granule = InterferogramGranule(
        name, receipts=(GOOD,), facts={"alignment": "identical", "valid_fraction": 0.5, **facts}
    )
    return staging.add(granule, encode_images({"insar_difference": image(name)}))


def epoch_unit(staging: StagingArea, name: str) -> Granule:
    area = era5_area_around(GRID)
    values = np.stack([np.full(area.shape, int(name[-2:]) * scale, "f4") for scale in (1, 1e3, 1e5)])
    facts = {"era5_time": 430_000, "era5_expver": "0001"}
    return staging.add(
        EpochGranule(name, receipts=(GOOD,), facts=facts),
        encode_atmosphere(values, area.latitudes, area.longitudes, GRID),
    )


def publish(frame_store: FrameStore, granules: list[Granule], origin=None) -> None:
    previous, granules = frame_store.published_generation(), {u.key: u for u in granules}
    attributes = {"title": "a cube", "schema_version": cube_schema().version}
    if previous is None:
        contents = CubeInventory.new(GRID, granules, attributes)
    else:
        known, history = previous.read_inventory(), frame_store.history()
        contents = known.succeed(GRID, granules, attributes, (), history)
    with frame_store.new_generation() as store:
        write_cube_store(store, contents, origin or frame_store.staging.chunk_paths)


@pytest.fixture
def frame_store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "cubes", FRAME)


def test_plain_xarray_reads_what_was_stored(frame_store):
    names = ["20190101_20190113", "20190101_20190125", "20190113_20190125"]
    granules = [pair_unit(frame_store.staging, name) for name in names]
    granules += [epoch_unit(frame_store.staging, day) for day in ("20190101", "20190113", "20190125")]
    publish(frame_store, granules)
    cube = xr.open_zarr(frame_store.published_link)
    assert list(cube.sizes)[:4] == ["primary_date", "secondary_date", "latitude", "longitude"]
    for name in names:
        pair = Pair.parse(name)
        read = cube.insar_difference.sel(
            primary_date=np.datetime64(pair.primary), secondary_date=[np.datetime64(pair.secondary)]
        )
        np.testing.assert_array_equal(read.values[0], image(name))
    assert cube.valid_date_pair.values.tolist() == [[False, True, True], [False, False, True], [False] * 3]
    assert cube.insar_difference.dtype == "float32"
    assert cube.insar_coherence.dtype == cube.deformation_mask.dtype == "uint8"
    for axis in ("primary", "secondary"):
        days = cube[f"{axis}_date"].dt.day.values
        for name, scale in zip(ERA5_VARIABLE_NAMES, (1, 1e3, 1e5), strict=True):
            read = cube[f"{axis}_date_{name}"]
            assert read.dtype == "float32"
            np.testing.assert_array_equal(read.values[:, 3, 5], (days * scale).astype("f4"))
    assert cube.era5_surface_pressure.values[1, 0, 0] == 13_000


def test_rioxarray_finds_the_grid(frame_store):
    import rioxarray  # noqa: F401

    publish(frame_store, [pair_unit(frame_store.staging, "20190101_20190113")])
    cube = xr.open_zarr(frame_store.published_link)
    assert cube.rio.crs.to_epsg() == 4326
    assert cube.insar_difference.rio.transform().almost_equals(GRID.transform)
    assert cube.dem.rio.bounds() == pytest.approx(GRID.bounds)


def test_dates_between_the_old_ones_land_in_order_and_objects_are_shared(frame_store):
    first = [
        pair_unit(frame_store.staging, "20190101_20190206"),
        pair_unit(frame_store.staging, "20190113_20190206"),
    ]
    publish(frame_store, first)
    old = frame_store.published_generation()
    places = ChunkKeys(DateAxes.from_pairs(granule.pair for granule in first))
    new = pair_unit(frame_store.staging, "20190107_20190125")

    def origin(granule):
        if granule is new:
            return frame_store.staging.chunk_paths(granule)
        return {name: str(old.store / key) for name, key in places.keys(granule)}

    publish(frame_store, [*first, new], origin)
    cube = open_pinned_cube(frame_store.published_link)
    assert [str(day)[5:10] for day in cube.epoch.values] == ["01-01", "01-07", "01-13", "01-25", "02-06"]
    for granule in (*first, new):
        at = {
            "primary_date": np.datetime64(granule.pair.primary),
            "secondary_date": np.datetime64(granule.pair.secondary),
        }
        np.testing.assert_array_equal(cube.insar_difference.sel(at).values, image(granule.name))
    moved = frame_store.published_generation().store / "insar_difference/2.4.0.0"
    assert moved.samefile(old.store / "insar_difference/c.1.2.0.0")


def test_a_pinned_reader_keeps_its_generation(frame_store):
    publish(frame_store, [pair_unit(frame_store.staging, "20190113_20190125")])
    pinned = open_pinned_cube(frame_store.published_link)
    publish(frame_store, [pair_unit(frame_store.staging, "20190101_20190113")])
    np.testing.assert_array_equal(pinned.insar_difference.values[0, 1], image("20190113_20190125"))
    np.testing.assert_array_equal(
        open_pinned_cube(frame_store.published_link).insar_difference.values[0, 1], image("20190101_20190113")
    )


@pytest.mark.parametrize("verify", [None, "first"])
def test_a_reader_of_a_removed_generation_gets_an_error_and_never_no_data(frame_store, verify):
    name = "20190113_20190125"
    publish(frame_store, [pair_unit(frame_store.staging, name), epoch_unit(frame_store.staging, name[:8])])
    cube = open_pinned_cube(frame_store.published_link, verify=verify, chunks=None)
    windows = WindowReader(frame_store.published_link, verify=verify)
    windows.read("insar_difference", Pair.parse(name), 0, 0, np.empty(GRID.shape, "f4"))
    publish(frame_store, [pair_unit(frame_store.staging, "20190101_20190113")])
    assert frame_store.remove_old(keep=1, older_than=timedelta(0)) == [1]
    reads = [
        lambda: cube.insar_difference.values,
        lambda: cube.confidence.values,
        lambda: windows.read("insar_difference", Pair.parse(name), 0, 0, np.empty(GRID.shape, "f4")),
        lambda: windows.read("dem", None, 0, 0, np.empty(GRID.shape, "f4")),
        lambda: list(windows.iter_strips("insar_difference", Pair.parse(name))),
        lambda: windows.read_table("confidence"),
        lambda: windows.read_epoch(["era5_surface_pressure"], date(2019, 1, 13)),
    ]
    for read in reads:
        with pytest.raises(HephaestusError, match=rf"generation 1 .*was removed .*open {FRAME} again"):
            read()


def test_a_build_that_fails_while_publishing_leaves_the_old_cube(frame_store):
    publish(frame_store, [pair_unit(frame_store.staging, "20190113_20190125")])
    before = frame_store.published_link.resolve()
    with pytest.raises(RuntimeError, match="cut"), frame_store.new_generation() as store:
        (store / "zarr.json").write_text("{")
        raise RuntimeError("cut")
    assert frame_store.published_link.resolve() == before
    assert sorted(path.name for path in frame_store.root.iterdir()) == ["000001", "staging"]


def test_a_reader_never_sees_half_a_cube_while_others_publish(frame_store):
    publish(frame_store, [pair_unit(frame_store.staging, "20190101_20190113")])
    granules = [pair_unit(frame_store.staging, f"201901{day:02d}_20190225") for day in range(2, 8)]
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            cube = open_pinned_cube(frame_store.published_link)
            pairs = np.argwhere(cube.valid_date_pair.values)
            for primary, secondary in pairs:
                name = "_".join(
                    str(day)[:10].replace("-", "")
                    for day in (cube.primary_date.values[primary], cube.secondary_date.values[secondary])
                )
                np.testing.assert_array_equal(cube.insar_difference.values[primary, secondary], image(name))
            seen.add(len(pairs))

    failures = []
    reader = threading.Thread(target=lambda: _record(read, failures))
    reader.start()
    for count in range(1, len(granules) + 1):
        publish(frame_store, granules[:count])
    stop.set()
    reader.join()
    assert not failures
    assert seen


def _record(work, failures):
    try:
        work()
    except BaseException as error:
        failures.append(error)
        raise


def test_the_manifest_names_every_stored_object(frame_store):
    publish(
        frame_store,
        [pair_unit(frame_store.staging, "20190101_20190113"), epoch_unit(frame_store.staging, "20190101")],
    )
    store = frame_store.published_generation().store
    stored = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    assert set(frame_store.published_generation().read_manifest()) == stored - {"manifest.json"}


def test_the_same_units_make_the_same_bytes(tmp_path):
    manifests = []
    for name in "ab":
        frame_store = FrameStore(tmp_path / name, FRAME)
        publish(
            frame_store,
            [
                pair_unit(frame_store.staging, "20190101_20190113"),
                epoch_unit(frame_store.staging, "20190101"),
            ],
        )
        manifests.append(frame_store.published_generation().read_manifest())
    assert manifests[0] == manifests[1]


def test_a_second_writer_is_told_who_holds_the_lock(frame_store):
    other = FrameStore(frame_store.published_link.parent, FRAME)
    with (
        frame_store.lock(),
        pytest.raises(HephaestusError, match=r"another build .*process \d+ on"),
        other.lock(),
    ):
        pass
    with other.lock():
        pass


def test_a_folder_that_is_not_ours_is_not_replaced(frame_store):
    frame_store.published_link.mkdir(parents=True)
    (frame_store.published_link / "precious").write_text("data")
    with pytest.raises(HephaestusError, match="move it away"):
        publish(frame_store, [pair_unit(frame_store.staging, "20190101_20190113")])
    assert (frame_store.published_link / "precious").read_text() == "data"


def test_staging_forgets_a_line_that_was_cut_and_objects_that_were_damaged(frame_store):
    staging = frame_store.staging
    whole = pair_unit(staging, "20190101_20190113")
    damaged = pair_unit(staging, "20190101_20190125")
    path = staging.chunk_path(damaged, "insar_difference.0")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with (staging.folder / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"kind": "pair", "name": "2019')
    later = pair_unit(staging, "20190113_20190125")
    assert StagingArea(staging.folder).read_granules() == {whole.key: whole, later.key: later}


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(TypeError):
        write_atomic(target, "not bytes")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "old"


days = st.dates(date(2014, 10, 1), date(2030, 1, 1))
pairs = st.tuples(days, days).filter(lambda both: both[0] < both[1]).map(lambda both: Pair(*both))


@given(st.lists(pairs, min_size=1, max_size=20, unique=True))
def test_every_pair_has_its_own_place_on_sorted_axes(found):
    axes = DateAxes.from_pairs(found)
    assert list(axes.primary) == sorted(set(axes.primary))
    assert list(axes.secondary) == sorted(set(axes.secondary))
    places = ChunkKeys(axes)
    at = {places.pair_index(pair) for pair in found}
    assert len(at) == len(found)
    for pair in found:
        primary, secondary = places.pair_index(pair)
        assert (axes.primary[primary], axes.secondary[secondary]) == pair.dates


@given(pairs, st.text(max_size=20), st.sampled_from(list(Outcome)))
def test_a_unit_survives_its_json(pair, caption, outcome):
    receipt = Receipt("x", outcome, "http://127.0.0.1/", notes=("cropped",), detail="why")
    granule = MaskGranule(pair.name, "abc", {}, (receipt,), {"annotation": {"caption": caption}})
    assert msgspec.json.decode(encode_json(granule), type=AnyGranule) == granule


def test_tables_say_what_the_annotation_says_and_cannot_be_mistaken_where_there_is_none(frame_store):
    written = {
        "phase": "Unrest", "atmospheric_fringes": 0, "glacier_fringes": 0, "orbital_fringes": 0,
        "processing_error": 0, "corrupted": 0, "no_info": 0, "low_coherence": 1, "image_artifacts": 0,
        "is_crowd": 0, "confidence": 0.8, "caption": "a dyke, höher", "unique_id": 12,
    }  # fmt: skip
    absent = InterferogramGranule(
        "20190113_20190125", receipts=(Receipt("x", Outcome.ABSENT, ""),), facts={"unlisted": True}
    )
    granules = [
        pair_unit(frame_store.staging, "20190101_20190113"),
        frame_store.staging.add(MaskGranule("20190101_20190113", facts={"annotation": written}), {}),
        frame_store.staging.add(absent, {}),
    ]
    publish(frame_store, granules)
    cube = open_pinned_cube(frame_store.published_link)
    for name, value in written.items():
        stored, nothing = cube[name].values[0, 1], cube[name].values[1, 2]
        assert stored == (np.float32(value) if name == "confidence" else value)
        assert nothing == cube_schema().variables[name].fill or np.isnan(nothing)
    assert cube.annotated.values.tolist() == [[False, True, False], [False] * 3, [False] * 3]
    assert cube.pair_status.values.tolist() == [[0, 1, 0], [0, 0, 2], [0, 0, 0]]
    assert cube.pair_status.attrs["flag_meanings"].split()[2] == "absent_upstream"


def test_the_documentation_lists_the_variables_of_the_schema():
    from hephaestus_build.cube.schema_docs import variable_table

    text = (ROOT / "docs" / "cube.md").read_text(encoding="utf-8")
    assert variable_table() in text, (
        "run python -m hephaestus_build.cube.schema_docs and put its table into docs/cube.md"
    )


def test_the_documentation_lists_the_images_of_the_overview():
    from hephaestus_build.cube.schema_docs import overview_table

    assert overview_table() in (ROOT / "docs" / "cube.md").read_text(encoding="utf-8"), (
        "run python -m hephaestus_build.cube.schema_docs and put its second table into docs/cube.md"
    )
