"""Tests of export: equal values, complete or nothing, and no file replaced without a request."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (gives data sets their .rio)
import typer
import xarray as xr
from rasterio.enums import Compression
from typer.testing import CliRunner

from hephaestus_build.cli.export import export
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.progress import NullListener
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.export.export_lock import exclusive_lock
from hephaestus_build.export.geotiff import export_geotiff
from hephaestus_build.export.geotiff_layers import KEY_TAG
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from toy_cube import FRAME, PAIRS, coherence, grid, masks, phase, toy_cube


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def zarr2(cube, tmp_path_factory) -> Path:
    return export_zarr_v2(open_export_selection(cube), tmp_path_factory.mktemp("zarr2"))


@pytest.fixture(scope="module")
def tifs(cube, tmp_path_factory) -> Path:
    return export_geotiff(open_export_selection(cube), tmp_path_factory.mktemp("tif")).folder


class Cut(NullListener):
    """Listener that ends an export after some images."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, name: str, steps: int = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Zarr v2


def test_plain_xarray_reads_the_same_from_format_2(cube, zarr2):
    old, new = open_pinned_cube(cube), xr.open_zarr(zarr2)
    # dates without a stored pair or an annotation are left out
    old = old.sel({axis: new[axis] for axis in ("primary_date", "secondary_date", "epoch")})
    assert set(new.variables) == set(old.variables)
    assert set(new.coords) == set(old.coords)
    for name in old.variables:
        assert new[name].dims == old[name].dims
        assert new[name].attrs == old[name].attrs, name
        if old[name].dtype.kind == "T":
            assert new[name].values.tolist() == old[name].values.tolist()
        else:
            assert new[name].dtype == old[name].dtype, name
            np.testing.assert_array_equal(new[name].values, old[name].values, err_msg=str(name))
    assert {key: value for key, value in new.attrs.items() if key != "exported_from"} == old.attrs
    assert new.attrs["simulated"] == 1
    # an annotated pair that upstream no longer lists
    assert not new.valid_date_pair.values[0, 2]
    assert new.deformation_mask.values[0, 2].any()
    assert new.rio.crs.to_epsg() == 4326
    assert new.insar_difference.rio.transform().almost_equals(grid().transform)


def test_zeros_and_dtypes_cannot_be_lost_to_a_fill_value(zarr2):
    for name in ("insar_difference", "insar_coherence", "deformation_mask", "corrupted", "annotated"):
        array = json.loads((zarr2 / name / ".zarray").read_text())
        assert array["fill_value"] is None, name
    # without a fill value, old readers invent missing chunks: all are written
    for name in ("insar_difference", "insar_coherence", "activity_type_mask"):
        chunks = [path for path in files(zarr2 / name) if not path.startswith(".")]
        assert len(chunks) == 3 * 3
    empty = [zarr2 / "insar_difference" / name for name in ("0.2.0.0", "2.0.0.0")]
    assert empty[0].samefile(empty[1])
    assert empty[0].stat().st_size < 4096


def test_an_old_reader_finds_only_what_it_knows(zarr2):
    metadata = json.loads((zarr2 / ".zmetadata").read_text())
    assert metadata["zarr_consolidated_format"] == 1
    arrays = {key: value for key, value in metadata["metadata"].items() if key.endswith(".zarray")}
    for key, array in arrays.items():
        assert array == json.loads((zarr2 / key).read_text())
        assert array["zarr_format"] == 2
        assert array["compressor"]["id"] == "blosc"
        assert {codec["id"] for codec in array["filters"] or []} <= {"fixedscaleoffset", "delta", "vlen-utf8"}
        if len(array["shape"]) == 4:
            assert array["chunks"] == [1, 1, *grid().shape]
    assert not [path for path in files(zarr2) if path.endswith("zarr.json")]


def test_some_pairs_and_variables_alone(cube, tmp_path):
    pairs = [Pair.parse(PAIRS[0]), Pair.parse(PAIRS[3])]
    names = ["insar_difference", "valid_date_pair", "caption", "primary_date_surface_pressure", "era5_time"]
    new = xr.open_zarr(export_zarr_v2(open_export_selection(cube, pairs, names), tmp_path))
    assert set(new.data_vars) == set(names)
    assert dict(new.sizes) == {
        "primary_date": 2, "secondary_date": 2, "latitude": 60, "longitude": 70, "epoch": 3,
    }  # fmt: skip
    assert new.valid_date_pair.values.tolist() == [[True, False], [False, True]]
    for name in (PAIRS[0], PAIRS[3]):
        pair = Pair.parse(name)
        at = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
        np.testing.assert_array_equal(new.insar_difference.sel(at).values, phase(grid(), name))
        assert new.caption.sel(at).values.item() != ""
    # a pair between the selected ones is not included
    assert not new.insar_difference.values[0, 1].any()
    assert new.caption.values[0, 1] == ""
    old = open_pinned_cube(cube).sel(primary_date=new.primary_date, epoch=new.epoch)
    np.testing.assert_array_equal(
        new.primary_date_surface_pressure.values, old.primary_date_surface_pressure.values
    )
    assert (new.era5_time.values == old.era5_time.values).all()


def test_an_interrupted_export_goes_on_and_ends_as_if_nothing_had_happened(cube, zarr2, tmp_path):
    source = open_export_selection(cube)
    with pytest.raises(KeyboardInterrupt):
        export_zarr_v2(source, tmp_path, listener=Cut(4), threads=1)
    assert not (tmp_path / f"{FRAME}.zarr").exists()
    draft = tmp_path / f".{FRAME}.zarr.partial"
    first = {path: path.stat().st_ino for path in draft.glob("insar_*/*.0.0")}
    assert len(first) >= 4
    (draft / "insar_difference" / ".0.1.0.0.0123456789ab").write_bytes(b"cut")
    target = export_zarr_v2(source, tmp_path)
    assert files(target) == files(zarr2)
    for path in files(target):
        assert (target / path).read_bytes() == (zarr2 / path).read_bytes(), path
    assert {(target / path.relative_to(draft)).stat().st_ino for path in first} == set(first.values())
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("left", [[], [".zgroup"], [".zgroup", ".zattrs.0123456789abcdef.partial"]])
def test_export_killed_before_its_group_was_written_goes_on(cube, zarr2, tmp_path, left):
    draft = tmp_path / f".{FRAME}.zarr.partial"
    draft.mkdir()
    for name in left:
        (draft / name).write_text('{"zarr_format": 2}')
    target = export_zarr_v2(open_export_selection(cube), tmp_path)
    assert files(target) == files(zarr2)


def test_what_is_left_of_another_cube_is_not_used(cube, zarr2, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        export_zarr_v2(
            open_export_selection(cube, [Pair.parse(PAIRS[3])]), tmp_path, listener=Cut(1), threads=1
        )
    target = export_zarr_v2(open_export_selection(cube), tmp_path)
    assert files(target) == files(zarr2)
    np.testing.assert_array_equal(xr.open_zarr(target).insar_difference.values[0, 0], phase(grid(), PAIRS[0]))


def test_nothing_is_replaced_unasked(cube, tmp_path):
    pair = [Pair.parse(PAIRS[0])]
    small = ["dem", "valid_date_pair"]
    target = export_zarr_v2(open_export_selection(cube, pair, small), tmp_path)
    before = (target / ".zmetadata").stat().st_ino
    assert export_zarr_v2(open_export_selection(cube, pair, small), tmp_path) == target
    assert (target / ".zmetadata").stat().st_ino == before
    with pytest.raises(UsageError, match="--force"):
        export_zarr_v2(open_export_selection(cube, pair, ["dem"]), tmp_path)
    assert "valid_date_pair" in xr.open_zarr(target)
    export_zarr_v2(open_export_selection(cube, pair, ["dem"]), tmp_path, force=True)
    assert set(xr.open_zarr(target).data_vars) == {"dem"}
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_generation_that_goes_away_is_no_empty_image(tmp_path):
    cube = toy_cube(tmp_path)
    source = open_export_selection(cube)
    shutil.rmtree(cube.resolve())
    with pytest.raises(HephaestusError, match="run the same command again"):
        source.read_image(source.variables[0], (0, 1))


# GeoTIFF


def test_geotiffs_hold_the_values_where_they_belong(tifs):
    on = grid()
    for name in PAIRS:
        for variable, expected, nodata in (
            ("insar_difference", phase(on, name), 0),
            ("insar_coherence", coherence(on, name), 0),
        ):
            with rasterio.open(tifs / f"interferograms/{name}/{name}.{variable}.tif") as dataset:
                np.testing.assert_array_equal(dataset.read(1), expected)
                assert dataset.dtypes == (expected.dtype.name,)
                assert dataset.crs.to_epsg() == 4326
                assert dataset.transform.almost_equals(on.transform, 1e-12)
                assert dataset.nodata == nodata
    with rasterio.open(tifs / f"{FRAME}.dem.tif") as dataset:
        assert np.isnan(dataset.nodata)
        assert np.isnan(dataset.read(1)).any()
        assert dataset.units == ("m",)


def test_masks_are_there_where_an_expert_looked_and_only_there(tifs):
    for name in PAIRS:
        found = sorted((tifs / "interferograms" / name).glob("*_mask.tif"))
        assert len(found) == (0 if name == PAIRS[-1] else 3)
        for path in found:
            variable = path.name.split(".")[1]
            with rasterio.open(path) as dataset:
                expected = masks(grid(), name).get(variable, np.zeros(grid().shape, "u1"))
                np.testing.assert_array_equal(dataset.read(1), expected)
                assert dataset.nodata is None
    with rasterio.open(tifs / f"interferograms/{PAIRS[1]}/{PAIRS[1]}.activity_type_mask.tif") as dataset:
        tags = dataset.tags()
    assert tags["FLAG_MEANINGS"].split()[5] == "Earthquake"
    assert tags["ANNOTATION_PHASE"] == "Unrest"
    assert tags["ANNOTATION_CAPTION"].endswith("höher im Süden.")


def test_the_atmosphere_is_there_once_for_each_date(cube, tifs):
    found = sorted(path.name for path in (tifs / "epochs").glob("*/*.surface_pressure.tif"))
    assert found == [
        f"{day}.surface_pressure.tif" for day in ("20190101", "20190113", "20190125", "20190206")
    ]
    opened = open_pinned_cube(cube)
    with rasterio.open(tifs / "epochs/20190206/20190206.surface_pressure.tif") as dataset:
        expected = opened.secondary_date_surface_pressure.sel(secondary_date="2019-02-06").values
        np.testing.assert_array_equal(dataset.read(1), expected)
        tags = dataset.tags()
    assert tags["UNITS"] == "Pa"
    assert tags["DATE"] == "2019-02-06"
    assert tags["ERA5_EXPVER"] == "0001"
    assert tags["LONG_NAME"] == "surface pressure"


def test_every_file_says_what_it_is_and_that_it_is_simulated(tifs):
    for path in tifs.rglob("*.tif"):
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
        assert tags["SIMULATED"] == "true"
        assert "SIMULATED" in tags["TIFFTAG_IMAGEDESCRIPTION"]
        assert tags["FRAME"] == FRAME
        assert tags["LONG_NAME"]


def test_what_is_not_simulated_is_not_marked_so(tmp_path):
    cube = toy_cube(tmp_path, frame="106A_09048_000909", pairs=PAIRS[-1:], dem=False)
    folder = export_geotiff(open_export_selection(cube), tmp_path / "out").folder
    assert not list(folder.glob("*.tif"))  # the DEM is missing
    for path in folder.rglob("*.tif"):
        with rasterio.open(path) as dataset:
            assert "SIMULATED" not in dataset.tags()
            assert "Copernicus" in dataset.tags()["SOURCE"]


def test_files_are_cloud_optimized(tmp_path):
    cube = toy_cube(tmp_path, grid(600, 700), pairs=PAIRS[1:2])
    names = ["insar_difference", "deformation_mask", "primary_date_total_column_water_vapour"]
    folder = export_geotiff(open_export_selection(cube, variables=names), tmp_path / "out").folder
    found = list(folder.rglob("*.tif"))
    assert len(found) == 3
    for path in found:
        # what GDAL promises in the file's first bytes: directories first, then overviews, then the image
        assert b"LAYOUT=IFDS_BEFORE_DATA" in path.read_bytes()[:300]
        with rasterio.open(path) as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert dataset.block_shapes == [(512, 512)]
            assert dataset.compression is Compression.deflate
            assert dataset.overviews(1) == [2]
            whole = dataset.read(1)
        with rasterio.open(path, overview_level=0) as dataset:
            small = dataset.read(1)
        if "water_vapour" not in path.name:  # neither wrapped phase nor codes may be averaged
            assert np.isin(small, whole).all()


def test_a_second_export_writes_what_is_new_and_keeps_the_rest(cube, tmp_path):
    names = ["insar_coherence", "dem"]
    first = export_geotiff(open_export_selection(cube, [Pair.parse(PAIRS[0])], names), tmp_path)
    assert (first.written, first.kept) == (2, 0)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tif")}
    second = export_geotiff(open_export_selection(cube, variables=names), tmp_path)
    assert (second.written, second.kept) == (4, 2)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_an_interrupted_export_leaves_whole_files_alone(cube, tmp_path):
    source = open_export_selection(cube, variables=["insar_coherence"])
    with pytest.raises(KeyboardInterrupt):
        export_geotiff(source, tmp_path, listener=Cut(1), threads=1)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.suffix == ".tif"
            with rasterio.open(path) as dataset:
                assert dataset.read(1).any()
    cut = tmp_path / FRAME / f".{FRAME}.dem.tif.0123456789ab"
    cut.write_bytes(b"cut")
    done = export_geotiff(source, tmp_path)
    assert not cut.exists()
    assert done.kept >= 1
    assert done.written + done.kept == len(PAIRS)


def test_files_of_another_content_stay_without_force(cube, tmp_path):
    source = open_export_selection(cube, variables=["insar_coherence"])
    strange = tmp_path / f"{FRAME}/interferograms/{PAIRS[2]}/{PAIRS[2]}.insar_coherence.tif"
    strange.parent.mkdir(parents=True)
    strange.write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match=r" is of no export of this program, never replaced"):
            export_geotiff(source, tmp_path, force=force)
    assert files(tmp_path) == [str(strange.relative_to(tmp_path))]
    assert strange.read_text() == "mine"
    strange.unlink()
    assert export_geotiff(source, tmp_path).written == len(PAIRS)
    with rasterio.open(strange, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(**{KEY_TAG: "of another cube"})
    with pytest.raises(UsageError, match=r" is not of this cube as it is now; .*--force"):
        export_geotiff(source, tmp_path)
    assert export_geotiff(source, tmp_path, force=True).written == 1


def test_two_exports_do_not_meet(cube, tmp_path):
    source = open_export_selection(cube, variables=["dem"])
    with (
        exclusive_lock(tmp_path / f"{FRAME}.zarr"),
        pytest.raises(HephaestusError, match="another export is writing"),
    ):
        export_zarr_v2(source, tmp_path)
    with exclusive_lock(tmp_path / FRAME), pytest.raises(HephaestusError, match="another export is writing"):
        export_geotiff(source, tmp_path)
    assert not list(tmp_path.iterdir())


# replacing existing files


@pytest.mark.parametrize("force", [False, True])
def test_no_cube_is_exported_onto_itself_nor_into_a_cube(tmp_path, force):
    link = toy_cube(tmp_path / "cubes")
    before = files(tmp_path)
    source = open_export_selection(link, variables=["dem"])
    copy = tmp_path / "copies" / FRAME
    shutil.copytree(link, copy)
    for folder in (link.parent, link.resolve().parent, link.resolve(), link.parent / ".generations", copy):
        for write in (export_zarr_v2, export_geotiff):
            if write is export_geotiff and folder == link.parent:
                continue
            with pytest.raises(UsageError, match="--out"):
                write(source, folder, force=force)
    with pytest.raises(UsageError, match="--out"):
        export_zarr_v2(open_export_selection(copy, variables=["dem"]), link.parent, force=force)
    assert link.is_symlink()
    assert [name for name in files(tmp_path) if not name.startswith("copies")] == before


def test_force_replaces_exports_alone(cube, tmp_path):
    source = open_export_selection(cube, variables=["dem"])
    target = tmp_path / f"{FRAME}.zarr"
    target.mkdir()
    (target / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(UsageError, match="never replaced"):
            export_zarr_v2(source, tmp_path, force=force)
    assert files(tmp_path) == [f"{FRAME}.zarr/thesis.txt"]
    shutil.rmtree(target)
    draft = tmp_path / f".{FRAME}.zarr.partial"
    draft.mkdir()
    (draft / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="move it away"):
        export_zarr_v2(source, tmp_path, force=True)
    assert (draft / "thesis.txt").exists()


@pytest.mark.parametrize(
    "name",
    [FRAME, f"{FRAME}/interferograms", f"{FRAME}/interferograms/{PAIRS[0]}", f".{FRAME}.zarr.partial", "x"],
)
def test_nothing_is_written_through_a_link(cube, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("precious")
    out = tmp_path / "out"
    link = out / name
    if name == "x":  # a file of the export, and one of an unfinished one
        link = out / FRAME / "interferograms" / PAIRS[0] / f"{PAIRS[0]}.insar_coherence.tif"
        (out / f".{FRAME}.zarr.partial").mkdir(parents=True)
        (out / f".{FRAME}.zarr.partial" / ".zattrs").symlink_to(outside / "victim")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "victim" if name == "x" else outside)
    source = open_export_selection(cube, variables=["insar_coherence"])
    write = export_zarr_v2 if name.endswith("partial") else export_geotiff
    with pytest.raises(HephaestusError, match="link"):
        write(source, out, force=True)
    if name == "x":
        with pytest.raises(HephaestusError, match="link"):
            export_zarr_v2(source, out, force=True)
    assert files(outside) == ["victim"]
    assert (outside / "victim").read_text() == "precious"


def test_a_cube_cannot_say_where_its_export_goes(cube, tmp_path):
    copy = shutil.copytree(cube, tmp_path / "copy.zarr")
    metadata = json.loads((copy / "zarr.json").read_text())
    metadata["attributes"]["frame"] = "../../elsewhere"
    (copy / "zarr.json").write_text(json.dumps(metadata))
    (copy / "manifest.json").unlink()
    with pytest.raises(HephaestusError, match="what frame"):
        open_export_selection(copy)


@pytest.mark.parametrize("write", [export_geotiff, export_zarr_v2])
@pytest.mark.parametrize("damage", ["a strip is missing", "an image is missing", "a bit is flipped"])
def test_damage_is_handed_over_neither_as_data_nor_as_no_data(cube, tmp_path, write, damage):
    copy = tmp_path / f"{FRAME}.zarr"
    shutil.copytree(cube.resolve(), copy)
    strips = [path for path in (copy / "insar_difference").iterdir() if path.name != "zarr.json"]
    broken = bytearray(strips[0].read_bytes())
    broken[-1] ^= 1
    for strip in strips[: None if damage == "an image is missing" else 1]:
        strip.unlink()  # not written in place: copies may share the file
    if damage == "a bit is flipped":
        strips[0].write_bytes(broken)
    with pytest.raises(HephaestusError, match=r"insar_difference/\S+ is (missing|damaged).* repair"):
        write(open_export_selection(copy), tmp_path / "out")


# the command


def run(*arguments: object):
    app = typer.Typer()
    app.command()(export)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_exports_what_is_named(cube, tmp_path):
    result = run(cube, "--to", "geotiff", "--out", tmp_path, "--pair", PAIRS[0],
                 "--variables", "insar_difference,dem", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "frame": FRAME, "to": "geotiff", "simulated": True, "path": str(tmp_path / FRAME),
        "written": 2, "kept": 0,
    }  # fmt: skip
    result = run(cube, "--to", "zarr2", "--out", tmp_path, "--variables", "dem")
    assert result.exit_code == 0, result.output
    assert "simulated" in result.stdout
    assert (tmp_path / f"{FRAME}.zarr" / ".zmetadata").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variables", "velocity"], "velocity is no variable"),
        (["--pair", "20190101"], "is not a pair"),
        (["--pair", "20200101_20200113"], "no interferogram of 20200101_20200113 is stored"),
        (["--variables", "dem,caption"], "caption is no image on the frame's grid"),
        (["--variables", "phase"], "near it: insar_difference (wrapped interferometric phase)"),
        (["--variables", "unwrapped_phase"], "--variables unwrapped_phase` adds it"),
    ],
)
def test_what_cannot_be_exported_is_wrong_usage(cube, tmp_path, options, message):
    result = run(cube, "--to", "geotiff", "--out", tmp_path / "out", *options)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
