"""Tests of building one frame over HTTP, compared with the simulated ground truth."""

import functools
import http.server
import os
import shutil
import threading
from datetime import timedelta

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (gives data sets their grid)
import xarray as xr
from rasterio.features import rasterize
from scipy.interpolate import RegularGridInterpolator

from archives import reached
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import error_status, replace_body
from hephaestus_build.simulation.server.raster_faults import shift_raster

ORDINARY = Frame("198A_00210_131313")
NORTHERN = Frame("201D_02400_131313")
STRIPMAP = Frame("203A_SM_SIMU_S3")


@pytest.fixture(scope="module")
def archive():
    with ArchiveServer(epochs=9) as server:
        yield server


@pytest.fixture
def settings(upstream, tmp_path):
    return load_settings(data_dir=tmp_path / "data", timeout=10, retries=1).for_simulated()


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    """Cube of each frame, built once."""
    folder = tmp_path_factory.mktemp("built") / "data"
    with reached(archive):
        settings = load_settings(data_dir=folder).for_simulated()
        return {frame: build(BuildRequest(frame), settings) for frame in (ORDINARY, NORTHERN, STRIPMAP)}


def at(pair: Pair) -> dict[str, np.datetime64]:
    return {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}


def stored_pairs(cube: xr.Dataset) -> list[Pair]:
    days = {
        axis: cube[f"{axis}_date"].values.astype("datetime64[D]").astype(object)
        for axis in ("primary", "secondary")
    }
    return [
        Pair(days["primary"][i], days["secondary"][j]) for i, j in np.argwhere(cube.valid_date_pair.values)
    ]


@pytest.mark.parametrize("frame", [ORDINARY, NORTHERN, STRIPMAP])
def test_phase_and_coherence_are_the_served_rasters_bit_for_bit(archive, built, frame):
    cube = open_pinned_cube(built[frame].path)
    world = archive.archive.world
    pairs = stored_pairs(cube)
    assert len(pairs) == built[frame].pairs >= 8
    compared = 0
    for pair in pairs:
        here = cube.sel(at(pair))
        if int(here.grid_alignment) == 0:
            np.testing.assert_array_equal(here.insar_difference.values, world.phase(frame, pair))
            np.testing.assert_array_equal(here.insar_coherence.values, world.coherence(frame, pair))
            compared += 1
    assert compared >= len(pairs) - 2
    np.testing.assert_array_equal(cube.dem.values, world.height(frame))


def test_odd_rasters_are_brought_to_the_grid_without_averaging(archive, built):
    cube = open_pinned_cube(built[ORDINARY].path)
    world = archive.archive.world
    kinds = dict(
        zip(
            cube.grid_alignment.attrs["flag_values"],
            cube.grid_alignment.attrs["flag_meanings"].split(),
            strict=True,
        )
    )
    cropped, shifted = (world.pair_with_oddity(ORDINARY, oddity) for oddity in ("cropped", "shifted"))
    assert kinds[int(cube.grid_alignment.sel(at(shifted)))] == "resampled"
    assert kinds[int(cube.grid_alignment.sel(at(cropped)))] == "shifted"
    truth = world.phase(ORDINARY, cropped)
    here = cube.insar_difference.sel(at(cropped)).values
    inside = here != 0
    assert inside.mean() > 0.4
    np.testing.assert_array_equal(here[inside], truth[inside])
    served = np.unique(world.frame_files(ORDINARY).served_content(shifted)[0].phase)
    assert np.isin(cube.insar_difference.sel(at(shifted)).values, np.append(served, 0)).all()
    assert built[ORDINARY].aligned["resampled"] == 1


@pytest.mark.parametrize("frame", [ORDINARY, NORTHERN, STRIPMAP])
def test_the_atmosphere_is_an_exact_bilinear_interpolation_within_half_a_step(archive, built, frame):
    cube = open_pinned_cube(built[frame].path)
    world = archive.archive.world
    scene = world.scene(frame)
    latitude, longitude = cube.era5_latitude.values, cube.era5_longitude.values
    points = np.stack(np.meshgrid(cube.latitude.values, cube.longitude.values, indexing="ij"), axis=-1)
    for day in cube.epoch.values[[0, -1]]:
        moment = scene.acquisition_time(day.astype("datetime64[D]").astype(object))
        hour = (moment + timedelta(minutes=30)).replace(minute=0, second=0, microsecond=0)
        assert cube.era5_time.sel(epoch=day).values == np.datetime64(hour)
        truth = world.era5_fields(hour, latitude, longitude)
        for index, name in enumerate(ERA5_VARIABLE_NAMES):
            np.testing.assert_array_equal(cube[f"era5_{name}"].sel(epoch=day).values, truth[index])
            exact = RegularGridInterpolator((latitude[::-1], longitude), truth[index][::-1].astype("f8"))(
                points
            )
            step = cube_schema().variables[f"primary_date_{name}"].step
            for axis in ("primary", "secondary"):
                if day in cube[f"{axis}_date"].values:
                    field = cube[f"{axis}_date_{name}"].sel({f"{axis}_date": day}).values
                    assert field.dtype == np.float32
                    assert np.abs(field - exact).max() <= step * 0.51 + np.spacing(np.float32(exact.max()))


@pytest.mark.parametrize("frame", [ORDINARY, NORTHERN, STRIPMAP])
def test_masks_are_the_true_outlines_within_a_pixel(archive, built, frame):
    cube = open_pinned_cube(built[frame].path)
    world = archive.archive.world
    grid = world.scene(frame).grid
    handed_in = {
        f"{item['primary_date']}_{item['secondary_date']}": len(item["segmentation_mask"])
        for item in world.annotations(frame)
    }
    drawn = 0
    for pair in stored_pairs(cube):
        here = cube.sel(at(pair))
        if not bool(here.annotated):
            assert not here.deformation_mask.values.any()
            continue
        outlines = [corners for _, corners in world.truth_polygons(frame, pair)]
        if len(outlines) != handed_in[pair.name]:
            continue  # one of the defects that real annotations have, too: fewer polygons than seen
        mask = here.deformation_mask.values > 0
        if not mask.any():
            continue
        shapes = [({"type": "Polygon", "coordinates": [corners.tolist()]}, 1) for corners in outlines]
        truth = rasterize(shapes, out_shape=grid.shape, transform=grid.transform).astype(bool)
        near = _grown(truth) & ~_shrunk(truth)
        assert (mask == truth)[~near].all()
        assert truth.any()
        drawn += 1
    assert drawn >= 3


def _grown(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return np.any([np.roll(padded, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)[
        1:-1, 1:-1
    ]


def _shrunk(mask: np.ndarray) -> np.ndarray:
    return ~_grown(~mask)


def test_published_loaders_read_it_unchanged(built):
    """Uses the access pattern of code written for the published cubes."""
    names = ["insar_difference", "insar_coherence", "deformation_mask"]
    names += [f"{axis}_date_{name}" for axis in ("primary", "secondary") for name in ERA5_VARIABLE_NAMES]
    cube = xr.open_zarr(built[ORDINARY].path)
    pairs = stored_pairs(cube)
    primary = next(pair.primary for pair in pairs if sum(p.primary == pair.primary for p in pairs) > 1)
    secondaries = [np.datetime64(pair.secondary) for pair in pairs if pair.primary == primary][:2]
    series = cube.sel(primary_date=np.datetime64(primary), secondary_date=secondaries)[names].load()
    assert series.insar_difference.shape == (2, *cube.dem.shape)
    assert not np.isnan(series.insar_difference.values).any()
    assert set(np.unique(series.deformation_mask.values)) <= {0, 1, 2}


def test_simulated_data_says_so_everywhere(built):
    for result in built.values():
        assert result.simulated
        cube = open_pinned_cube(result.path)
        assert cube.attrs["simulated"] == 1
        assert "simulated" in cube.attrs["source"]


def test_a_second_build_has_nothing_to_do_and_asks_little(archive, settings):
    build(BuildRequest(ORDINARY, limit=3), settings)
    archive.clear_log()
    result = build(BuildRequest(ORDINARY, limit=3), settings)
    assert not result.published
    assert result.generation == 1
    asked = [entry.path for entry in archive.log]
    assert not any(path.endswith((".tif", ".png")) for path in asked)
    assert len(asked) <= 4


def test_new_pairs_between_the_old_ones_are_fetched_alone_and_equal_a_clean_build(
    archive, settings, tmp_path
):
    pairs = archive.archive.pairs(ORDINARY)
    build(BuildRequest(ORDINARY, pairs="all", since=pairs[3].primary), settings)
    archive.clear_log()
    grown = build(BuildRequest(ORDINARY, pairs="all"), settings)
    fetched = {
        entry.path.rsplit("/", 1)[1][:17]
        for entry in archive.log
        if entry.path.endswith("diff_pha.tif") and entry.method == "GET" and entry.status == 200
    }
    assert fetched == {pair.name for pair in pairs if pair.primary < pairs[3].primary}
    clean = build(
        BuildRequest(ORDINARY, pairs="all"), settings.model_copy(update={"data_dir": tmp_path / "clean"})
    )
    stores = [FrameStore(result.path.parent, ORDINARY).published_generation() for result in (grown, clean)]
    objects = [
        {path: item for path, item in store.read_manifest().items() if path != "provenance.json"}
        for store in stores
    ]
    assert objects[0] == objects[1]
    assert grown.generation == 2


@pytest.mark.parametrize("era5", ["cds", "arco"])
def test_both_sources_of_era5_give_the_same_fields(archive, settings, built, era5):
    result = build(BuildRequest(STRIPMAP, limit=1), settings.model_copy(update={"era5": era5}))
    here, whole = open_pinned_cube(result.path), open_pinned_cube(built[STRIPMAP].path)
    for name in ERA5_VARIABLE_NAMES:
        fields = here[f"era5_{name}"].dropna("epoch")  # of the dates of the one stored pair
        assert fields.sizes["epoch"] == 2
        np.testing.assert_array_equal(fields, whole[f"era5_{name}"].sel(epoch=fields.epoch))
    assert here.attrs["era5_source"] == era5


def test_a_product_that_cannot_be_had_is_owed_and_paid_by_the_next_build(archive, settings):
    pair = archive.archive.pairs(ORDINARY)[0]
    rule = archive.faults.add(rf"{pair}\.geo\.cc\.tif", error_status(503))
    result = build(BuildRequest(ORDINARY, limit=3), settings)
    assert result.exit_code == 3
    assert [(item.unit, item.outcome) for item in result.owed] == [(f"pair/{pair}", Outcome.UNREACHABLE)]
    cube = open_pinned_cube(result.path)
    assert int(cube.pair_status.sel(at(pair))) == 4
    assert not bool(cube.valid_date_pair.sel(at(pair)))
    archive.faults.remove(rule)
    archive.clear_log()
    paid = build(BuildRequest(ORDINARY, limit=3), settings)
    assert (paid.exit_code, paid.pairs, paid.generation) == (0, 3, 2)
    assert {entry.path.rsplit("/", 1)[1][:17] for entry in archive.log if entry.path.endswith(".tif")} == {
        pair.name
    }


def test_a_frame_without_annotations_takes_all_pairs(archive, settings, monkeypatch):
    monkeypatch.delenv("HEPHAESTUS_ANNOTATIONS")
    plain = load_settings(data_dir=settings.data_dir)
    result = build(BuildRequest(NORTHERN, limit=2), plain)
    cube = open_pinned_cube(result.path)
    assert result.pairs == 2
    assert not cube.annotated.values.any()
    with pytest.raises(HephaestusError, match="--pairs all"):
        build(BuildRequest(NORTHERN, pairs="annotated"), plain)


def test_plan_says_what_a_build_will_do_without_fetching_a_product(archive, settings):
    archive.clear_log()
    first = plan(BuildRequest(ORDINARY, limit=3), settings)
    assert not any(entry.path.endswith(".tif") for entry in archive.log)
    assert (
        len(first.pairs_to_fetch),
        first.selection.resolved_choice,
        first.selection.skipped["beyond --limit"] > 0,
    ) == (
        3,
        "annotated",
        True,
    )
    build(BuildRequest(ORDINARY, limit=3), settings)
    after = plan(BuildRequest(ORDINARY, limit=4), settings)
    assert len(after.pairs_to_fetch) == 1
    assert after.to_json()["size_is_exact"] is True


def test_bad_requests_say_what_to_do(archive, settings, monkeypatch):
    with pytest.raises(UsageError, match="124D_04854_171313"):
        Frame.parse("nonsense")
    with pytest.raises(HephaestusError, match=r"199A_00001_000001: .*404|199A_00001_000001: .*no such frame"):
        build(BuildRequest(Frame("199A_00001_000001")), settings)
    monkeypatch.delenv("CDSAPI_KEY")
    with pytest.raises(UsageError, match="CDSAPI_KEY"):
        build(BuildRequest(ORDINARY), settings.model_copy(update={"era5": "cds"}))
    assert not (settings.cubes_dir / f"{ORDINARY}.zarr").exists()


def test_a_refused_licence_leaves_the_atmosphere_owed_with_its_address(archive, settings):
    archive.cds.licence_accepted = False
    try:
        result = build(BuildRequest(ORDINARY, limit=1), settings)
    finally:
        archive.cds.licence_accepted = True
    assert result.exit_code == 3
    assert {item.outcome for item in result.owed} == {Outcome.REFUSED}
    assert all("licence" in item.detail for item in result.owed)
    assert result.pairs == 1
    assert build(BuildRequest(ORDINARY, limit=1), settings).exit_code == 0


def test_no_network_is_one_line(settings):
    nowhere = settings.model_copy(update={"licsar_url": "http://127.0.0.1:9/"})
    with pytest.raises(HephaestusError, match="HEPHAESTUS_LICSAR_URL") as caught:
        build(BuildRequest(ORDINARY, pairs="all"), nowhere)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("chattr"), reason="root writes anywhere")
def test_a_data_folder_that_is_a_file_is_refused_in_one_line(archive, settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HephaestusError, match="HEPHAESTUS_DATA_DIR"):
        build(BuildRequest(ORDINARY, limit=1), settings.model_copy(update={"data_dir": tmp_path / "file"}))


def test_a_damaged_annotation_archive_is_one_line(archive, settings, tmp_path):
    bad = tmp_path / "annotations.tar.gz"
    bad.write_bytes(b"not an archive")
    with pytest.raises(HephaestusError, match=r"annotations\.tar\.gz"):
        build(BuildRequest(ORDINARY, limit=1), settings.model_copy(update={"annotations": str(bad)}))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def real_portal(shared_data, tmp_path):
    """The real frame behind a plain static server, in the portal's layout, where files can be added."""
    frame = tmp_path / "portal" / "106" / "106A_09048_000909"
    shutil.copytree(shared_data / "licsar" / "106A_09048_000909", frame, copy_function=os.symlink)
    for folder in (frame, *(path for path in frame.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    handler = functools.partial(_Quiet, directory=str(tmp_path / "portal"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", frame
        server.shutdown()
        thread.join()


def test_a_real_frame_without_dem_is_built_and_completed_when_the_dem_arrives(archive, settings, real_portal):
    address, folder = real_portal
    # whole globes are slow to simulate, while the pairs are built
    real = load_settings(
        data_dir=settings.real_data_dir, licsar_url=address, era5="arco", timeout=30, retries=1
    )
    archive.arco.areas = ()
    frame = Frame("106A_09048_000909")
    result = build(BuildRequest(frame), real)
    assert (result.exit_code, result.pairs, result.simulated) == (3, 6, False)
    assert [(item.unit, item.outcome) for item in result.owed] == [("dem/dem", Outcome.ABSENT)]
    cube = open_pinned_cube(result.path)
    assert np.isnan(cube.dem.values).all()
    assert "simulated" not in cube.attrs
    for pair in stored_pairs(cube):
        name = f"interferograms/{pair}/{pair}.geo"
        with (
            rasterio.open(folder / f"{name}.diff_pha.tif") as phase,
            rasterio.open(folder / f"{name}.cc.tif") as cc,
        ):
            here = cube.sel(at(pair))
            np.testing.assert_array_equal(here.insar_difference.values, phase.read(1))
            np.testing.assert_array_equal(here.insar_coherence.values, cc.read(1))
            grid = Grid.from_transform(phase.transform, phase.shape)
            profile = phase.profile
    assert cube.insar_difference.rio.transform().almost_equals(grid.transform)
    height = np.linspace(1, 1500, grid.size, dtype="f4").reshape(grid.shape)
    with rasterio.open(folder / "metadata" / f"{frame}.geo.hgt.tif", "w", **profile) as dem:
        dem.write(height, 1)
    done = build(BuildRequest(frame), real)
    assert (done.exit_code, done.generation) == (0, 2)
    np.testing.assert_array_equal(open_pinned_cube(done.path).dem.values, height)
    assert verify_generation(FrameStore(real.cubes_dir, frame).published_generation()) == []


def test_a_raster_from_elsewhere_is_corrupt_and_the_rest_is_built(archive, settings):
    pair = archive.archive.pairs(ORDINARY)[0]
    archive.faults.add(rf"{pair}\.geo\.diff_pha\.tif", replace_body(shift_raster(500.0, 0.0)))
    result = build(BuildRequest(ORDINARY, limit=3), settings)
    assert [(item.unit, item.outcome) for item in result.owed] == [(f"pair/{pair}", Outcome.CORRUPT)]
    assert result.pairs == 2
