"""Tests of the groups `pairs` and `overview`: they follow the root's arrays through builds and repairs."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from typer.testing import CliRunner

from archives import ALL, FRAME, asked, copied, frame_store_of, objects, settings_for
from hephaestus_build.cli import app
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.cube.codecs.padded_text import decode_texts
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from hephaestus_build.operations.inspection import summarize_cube
from hephaestus_build.operations.repair import repair
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.prepare import prepare_build
from hephaestus_build.pipeline.stages import OVERVIEWS

pytestmark = pytest.mark.usefixtures("upstream")


@pytest.fixture
def settings(whole_cube, tmp_path):
    return settings_for(copied(whole_cube, tmp_path / "data"))


def store_of(settings):
    return frame_store_of(settings).published_generation().store


def overview_objects(settings) -> dict[str, list]:
    return {
        path: item
        for path, item in objects(settings).items()
        if path.startswith("overview/") and path.count(".") == 3
    }


def check_groups(settings) -> None:
    """Compare both groups of a cube with its root group."""
    store = store_of(settings)
    assert (
        verify_generation(frame_store_of(settings).published_generation()),
        check_schema(store),
        check_record_consistency(frame_store_of(settings).published_generation()),
    ) == ([], [], [])
    tree = xr.open_datatree(store, engine="zarr")
    assert sorted(tree.children) == ["overview", "pairs"]
    root, table, small = tree.to_dataset(), tree["pairs"].to_dataset(), tree["overview"].to_dataset()
    n = small.attrs["decimation"]
    height, width = root.sizes["latitude"], root.sizes["longitude"]
    rows, columns = slice(min(n, height) // 2, None, n), slice(min(n, width) // 2, None, n)
    np.testing.assert_allclose(small.y, root.latitude[rows])
    np.testing.assert_allclose(small.x, root.longitude[columns])
    dates = list(zip(table.secondary.values, table.primary.values, strict=True))
    assert dates == sorted(set(dates))
    assert (small.secondary.values == table.secondary.values).all()
    texts = {name: decode_texts(table[name].values) for name in ("caption", "phase")}
    assert decode_texts(table.era5_expver.values) == root.era5_expver.values.tolist()
    assert decode_texts(table.epoch_satellite.values) == root.epoch_satellite.values.tolist()
    # every listed pair, stored or not
    assert table.sizes["pair"] >= int((root.pair_status.values > 0).sum())
    assert int(table.stored.sum()) == int(root.valid_date_pair.sum())
    raw = xr.open_zarr(store, group="overview", mask_and_scale=False)
    for row, (secondary, primary) in enumerate(dates):
        at = {"primary_date": primary, "secondary_date": secondary}
        here = root.sel(at)
        for name in table.data_vars:
            if name in ("caption", "phase"):
                assert texts[name][row] == here[name].item()
            elif name not in ("era5_expver", "epoch_satellite"):
                other = "valid_date_pair" if name == "stored" else name
                np.testing.assert_array_equal(table[name][row].values, here[other].values)
        phase = here.insar_difference.values[rows, columns]
        shown = small.wrapped_phase[row].values
        np.testing.assert_array_equal(np.isnan(shown), phase == 0)
        np.testing.assert_allclose(shown[phase != 0], phase[phase != 0], rtol=0, atol=np.pi / 254 + 1e-5)
        np.testing.assert_array_equal(raw.coherence[row], here.insar_coherence.values[rows, columns])
        if here.valid_date_pair:
            np.testing.assert_array_equal(raw.deformation_mask[row], here.deformation_mask[rows, columns])
            vapour = (
                here.secondary_date_total_column_water_vapour - here.primary_date_total_column_water_vapour
            ).values[rows, columns]
            np.testing.assert_allclose(small.water_vapour_difference[row], vapour, rtol=0, atol=2**-6)


def test_the_groups_of_a_built_cube_show_what_its_root_group_shows(settings):
    check_groups(settings)
    store = store_of(settings)
    small = open_pinned_cube(store, group="overview")
    assert small.rio.crs.to_epsg() == 4326
    np.testing.assert_allclose(small.rio.bounds()[0], small.x[0] - (small.x[1] - small.x[0]) / 2)
    assert small.wrapped_phase.chunks[0] == (1,) * small.sizes["pair"]
    summary = summarize_cube(store)
    assert summary.overview == {
        "decimation": 8,
        "pairs": small.sizes["pair"],
        "rows": small.sizes["y"],
        "columns": small.sizes["x"],
    }
    assert summary.parts["overview"] == sum(
        size
        for path, (_, size) in objects(settings).items()
        if path.startswith("overview/") and not path.endswith(".json")
    )
    plain = xr.open_zarr(store)
    assert "pair" not in plain.sizes
    assert not any("/" in name for name in plain.variables)


def test_tables_of_groups_have_chunks_of_a_fixed_number_of_rows(settings):
    stored = xr.open_zarr(store_of(settings), group="pairs", chunks=None)
    for name in stored.variables:
        assert stored[name].encoding["chunks"] == (1024, 64)[: stored[name].ndim]


def test_a_pair_that_is_added_has_an_overview_and_no_other_is_drawn_again(archive, tmp_path):
    settings = settings_for(tmp_path / "data")
    build(replace(ALL, limit=4), settings)
    check_groups(settings)
    before = overview_objects(settings)
    build(ALL, settings)
    check_groups(settings)
    shared = {tuple(item) for item in before.values()} & {
        tuple(item) for item in overview_objects(settings).values()
    }
    assert shared == {tuple(item) for item in before.values()}


def test_era5_that_arrives_later_is_drawn_into_the_overviews(archive, tmp_path):
    settings = settings_for(tmp_path / "data", era5="cds")
    archive.cds.job_end = "failed"
    assert build(ALL, settings).exit_code == 3
    assert not any("water_vapour" in path for path in overview_objects(settings))
    small = xr.open_zarr(store_of(settings), group="overview")
    assert np.isnan(small.water_vapour_difference.values).all()
    assert not np.isnan(small.wrapped_phase.values).all()
    archive.reset()
    assert build(ALL, settings).exit_code == 0
    check_groups(settings)


def test_final_era5_replaces_what_was_drawn_of_preliminary_fields(archive, settings, tmp_path):
    fresh = settings_for(tmp_path / "fresh", era5="cds")
    archive.cds.final_until = archive.archive.epochs(FRAME)[2]
    build(ALL, fresh)
    before = overview_objects(fresh)
    archive.cds.final_until = None
    assert build(ALL, fresh).published
    check_groups(fresh)
    changed = {path for path, item in overview_objects(fresh).items() if before[path] != item}
    assert all("water_vapour" in path for path in changed)
    assert overview_objects(fresh) == overview_objects(settings)


def test_a_pair_that_has_changed_upstream_is_drawn_again_alone(archive, settings):
    before = overview_objects(settings)
    pair = archive.archive.pairs(FRAME)[2]
    archive.archive.reprocess(FRAME, pair)
    build(ALL, settings)
    check_groups(settings)
    after = overview_objects(settings)
    changed = {path.rpartition("/")[2] for path, item in after.items() if before[path] != item}
    assert len(changed) == 1


def test_another_factor_draws_all_overviews_again_and_fetches_nothing(archive, settings):
    finer = settings.model_copy(update={"overview_factor": 4})
    archive.clear_log()
    assert build(ALL, finer).published
    assert asked(archive) == set()
    check_groups(finer)
    assert summarize_cube(store_of(finer)).overview["decimation"] == 4
    assert not build(ALL, finer).published


@pytest.mark.parametrize("name", ["wrapped_phase", "water_vapour_difference"])
def test_a_flipped_byte_of_an_overview_is_found_and_mended_without_a_download(archive, settings, name):
    before = objects(settings)
    path = sorted((store_of(settings) / "overview" / name).glob("c.*"))[0]
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    path.write_bytes(content)
    (damage,) = verify_generation(frame_store_of(settings).published_generation())
    assert damage.variable == f"overview/{name}"
    assert damage.unit.startswith("overview/")
    archive.clear_log()
    shutil.rmtree(settings.downloads_dir)
    # a repair keeps the cube's factor
    result = repair(FRAME, settings.model_copy(update={"overview_factor": 4}))
    assert (result.rebuilt, result.lost, result.changed) == ((damage.unit,), (), ())
    assert asked(archive) == set()
    assert objects(settings) == before
    check_groups(settings)


def test_a_damaged_table_of_a_group_is_mended_without_a_network(archive, settings):
    before = objects(settings)
    (store_of(settings) / "pairs" / "caption" / "c.0.0").write_bytes(b"no chunk")
    archive.clear_log()
    assert [damage.variable for damage in repair(FRAME, settings).damages] == ["pairs/caption"]
    assert archive.log == []
    assert objects(settings) == before


def test_an_overview_is_never_drawn_from_a_damaged_object(settings):
    made = prepare_build(ALL, settings, frame_store_of(settings))
    pair = next(key.pair for key in made.ledger.snapshot() if key.kind == "overview")
    granule = made.ledger.interferogram(pair)
    path = next(iter(made.context.object_paths(granule).values()))
    with open(path, "r+b") as stream:  # noqa: PTH123
        stream.seek(40)
        stream.write(b"\0\1\2\3")
    made.ledger.drop([f"overview/{pair}"])
    (key,) = OVERVIEWS.items(made)
    with pytest.raises(
        HephaestusError, match=rf"{FRAME}: insar_.* of pair/{pair}.*hephaestus repair {FRAME}"
    ):
        OVERVIEWS.run(made, key)


def test_inspect_shows_the_overviews_and_exports_leave_them_out(settings, tmp_path):
    cube = str(frame_store_of(settings).published_link)
    shown = CliRunner().invoke(app, ["inspect", cube])
    assert "a pixel of 8 x 8, 8 pairs on one axis" in shown.output
    exported = export_zarr_v2(open_export_selection(cube), tmp_path / "v2")
    assert not any((exported / name).exists() for name in ("overview", "pairs"))
    plain = xr.open_zarr(exported)
    assert "pair" not in plain.sizes
