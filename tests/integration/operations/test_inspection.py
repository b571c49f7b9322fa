"""Tests of checking a cube against the schema and its flags against its files, and of its summary."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
import zarr
from typer.testing import CliRunner

from hephaestus_build.cli.inspect import find_cube, inspect
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations import inspection
from hephaestus_build.operations.inspection import count_dates_without_era5, summarize_cube
from toy_cube import ABSENT, FRAME, OWED, PAIRS, grid, toy_cube


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data") / "cubes")


@pytest.fixture
def store(cube, tmp_path) -> Path:
    """Copy of the cube that may be damaged."""
    return Path(shutil.copytree(cube.resolve(), tmp_path / cube.name))


def describe(store: Path, variable: str, change) -> None:
    """Change the metadata of an array, in both of its places."""
    path = store / variable / "zarr.json"
    array = json.loads(path.read_text())
    change(array)
    path.write_text(json.dumps(array))
    group = json.loads((store / "zarr.json").read_text())
    group["consolidated_metadata"]["metadata"][variable] = array
    (store / "zarr.json").write_text(json.dumps(group))


def attributes(store: Path, change) -> None:
    group = json.loads((store / "zarr.json").read_text())
    change(group["attributes"])
    (store / "zarr.json").write_text(json.dumps(group))


def write(store: Path, variable: str, at, value) -> None:
    zarr.open_array(store / variable, mode="r+")[at] = value


def remove_image(store: Path, variable: str, position: str) -> None:
    """Remove all strips of an image."""
    for strip in (store / variable).glob(f"c.{position}.0.*"):
        strip.unlink()


def test_a_cube_that_was_published_has_no_findings(cube):
    assert check_schema(cube) == []


def test_a_cube_without_dem_and_annotations_has_none_either(tmp_path):
    cube = toy_cube(tmp_path, frame="106A_09048_000909", pairs=PAIRS[-1:], dem=False)
    assert check_schema(cube) == []
    assert summarize_cube(cube).simulated is False


DAMAGES = {
    "a dtype": (
        lambda store: describe(store, "insar_coherence", lambda array: array.update(data_type="float32")),
        r"insar_coherence: dtype is 'float32', the schema says 'uint8'",
    ),
    "a fill value": (
        lambda store: describe(store, "insar_difference", lambda array: array.update(fill_value="NaN")),
        r"insar_difference: fill value is 'NaN', the schema says 0",
    ),
    "a CF fill value, which turns zeros into NaN": (
        lambda store: describe(
            store, "deformation_mask", lambda array: array["attributes"].update(_FillValue=0)
        ),
        r"deformation_mask: attribute _FillValue is 0, the schema says None",
    ),
    "a unit": (
        lambda store: describe(store, "dem", lambda array: array["attributes"].update(units="ft")),
        r"dem: attribute units is 'ft', the schema says 'm'",
    ),
    "a grid mapping": (
        lambda store: describe(store, "dem", lambda array: array["attributes"].pop("grid_mapping")),
        r"dem: attribute grid_mapping is None",
    ),
    "dimension names": (
        lambda store: describe(store, "annotated", lambda array: array.update(dimension_names=["a", "b"])),
        r"annotated: dimensions is \['a', 'b'\]",
    ),
    "a chunk": (
        lambda store: describe(
            store,
            "insar_difference",
            lambda array: array["chunk_grid"]["configuration"].update(chunk_shape=[1, 1, 256, 256]),
        ),
        r"insar_difference: chunk is \[1, 1, 256, 256\], the schema says \[1, 1, \d+, \d+\]",
    ),
    "a codec": (
        lambda store: describe(
            store,
            "insar_difference",
            lambda array: array["codecs"][1]["configuration"].update(clevel=9),
        ),
        r"insar_difference: codecs is .*'clevel': 9",
    ),
    "a filter": (
        lambda store: describe(
            store,
            "primary_date_surface_pressure",
            lambda array: array["codecs"].insert(
                0, {"name": "numcodecs.delta", "configuration": {"dtype": "<f4"}}
            ),
        ),
        r"primary_date_surface_pressure: codecs is .*'numcodecs.delta'",
    ),
    "a variable that is gone": (
        lambda store: (
            shutil.rmtree(store / "caption"),
            _forget(store, "caption"),
        ),
        r"caption: is missing",
    ),
    "metadata that differs from the consolidated": (
        lambda store: (store / "dem/zarr.json").write_text("{}"),
        r"dem: its zarr.json differs from the consolidated",
    ),
    "no consolidated metadata": (
        lambda store: (store / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}'),
        r"cube: zarr.json has no consolidated metadata",
    ),
    "the mark of simulated data": (
        lambda store: attributes(store, lambda group: group.pop("simulated")),
        r"cube: its frame is simulated, but its attributes do not say so",
    ),
    "the convention": (
        lambda store: attributes(store, lambda group: group.update(Conventions="CF-1.0")),
        r"cube: attribute Conventions is 'CF-1.0'",
    ),
    "the transform": (
        lambda store: describe(
            store,
            "spatial_ref",
            lambda array: array["attributes"].update(GeoTransform="10.0008 0.001 0 20.0007 0 -0.001"),
        ),
        r"longitude: is up to 0.5 pixels off the GeoTransform",
    ),
    "the coordinate system": (
        lambda store: describe(
            store, "spatial_ref", lambda array: array["attributes"].update(crs_wkt="LOCAL_CS[]")
        ),
        r"spatial_ref: its crs_wkt is not EPSG:4326",
    ),
    "the order of dates": (
        lambda store: write(store, "primary_date", slice(0, 2), [17_909, 17_897]),
        r"secondary_date: differs from primary_date",
    ),
    "a date": (
        lambda store: write(store, "epoch", 3, 30_000),
        r"epoch: differs from primary_date",
    ),
    "a latitude": (
        lambda store: write(store, "latitude", 5, 19.995_3),
        r"latitude: is up to 0.1 pixels off",
    ),
    "a flag": (
        lambda store: write(store, "corrupted", (0, 0), 7),
        r"corrupted: holds \[7\], which are not in flag_values",
    ),
    "a phase that is gone": (
        lambda store: remove_image(store, "insar_difference", "0.1"),
        rf"valid_date_pair: is true, but no phase is stored: {PAIRS[0]}$",
    ),
    "a flag of a stored pair": (
        lambda store: write(store, "valid_date_pair", (0, 1), False),
        rf"valid_date_pair: is false, but a phase is stored: {PAIRS[0]}$",
    ),
    "masks of a pair that nobody annotated": (
        lambda store: write(store, "annotated", (0, 2), False),
        rf"deformation_mask: is stored for a pair that is not annotated: {PAIRS[1]}$",
    ),
    "one of three masks": (
        lambda store: remove_image(store, "activity_type_mask", "0.2"),
        rf"activity_type_mask: is stored for other pairs than the other masks: {PAIRS[1]}$",
    ),
    "an atmosphere that is gone": (
        lambda store: (store / "primary_date_surface_pressure/c.1.0.0").unlink(),
        r"primary_date_surface_pressure: disagrees with era5_time at 1 dates, such as 2019-01-13",
    ),
    "an object beyond the axes": (
        lambda store: shutil.copyfile(
            store / "insar_difference/c.0.1.0.0", store / "insar_difference/c.0.9.0.0"
        ),
        r"insar_difference: 1 of its files lie beyond its dimensions",
    ),
    "a table that cannot be read": (
        lambda store: (store / "valid_date_pair/c.0.0").write_bytes(b"junk"),
        r"cube: its tables cannot be read",
    ),
}  # fmt: skip


def _forget(store: Path, variable: str) -> None:
    group = json.loads((store / "zarr.json").read_text())
    del group["consolidated_metadata"]["metadata"][variable]
    (store / "zarr.json").write_text(json.dumps(group))


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_wrong_is_found_and_named(store, damage):
    apply, expected = DAMAGES[damage]
    apply(store)
    found = "\n".join(map(str, check_schema(store)))
    assert re.search(expected, found, re.MULTILINE), found


def test_a_summary_says_what_is_in_the_cube(cube):
    summary = summarize_cube(cube)
    assert summary.findings == ()
    assert (summary.frame, summary.generation, summary.simulated) == (FRAME, 1, True)
    assert summary.pairs == {
        "valid": 5,
        "annotated": 5,
        "with_deformation": 3,
        "absent": 1,
        "refused": 0,
        "unreachable": 1,
        "corrupt": 0,
    }
    assert [(item.product, item.outcome) for item in summary.owed] == [(OWED, Outcome.UNREACHABLE)]
    assert ABSENT not in str(summary.owed)
    assert summary.shape == grid().shape
    assert summary.bounds == pytest.approx(grid().bounds)
    assert summary.pixel_m == pytest.approx((104.5, 111.2), abs=0.1)
    assert (summary.first, summary.last) == ("2019-01-01", "2019-02-18")
    assert summary.atmosphere == {
        "source": "arco",
        "final": 4,
        "preliminary": 0,
        "unstated": 0,
        "imported": 0,
        "missing": 0,
    }
    json.dumps(summary.to_json())


def test_era5_is_missing_at_dates_of_stored_pairs_alone(cube):
    opened = open_pinned_cube(cube, chunks=None).load()
    assert opened.era5_expver.values.tolist().count("") == 1  # the date of a pair that is owed
    assert count_dates_without_era5(opened) == 0
    opened.era5_expver.values[:] = ""
    assert count_dates_without_era5(opened) == 4


@pytest.mark.parametrize(("stated", "kind"), [("published", "imported"), ("unstated", "unstated")])
def test_era5_of_no_stated_version_is_counted_too(cube, monkeypatch, stated, kind):
    opened = open_pinned_cube(cube, chunks=None).load()
    opened.era5_expver.values[opened.era5_expver.values == "0001"] = stated
    monkeypatch.setattr(inspection, "open_pinned_cube", lambda *_, **__: opened)
    atmosphere = summarize_cube(cube).atmosphere
    assert (atmosphere["final"], atmosphere[kind]) == (0, 4)


def test_a_file_with_two_names_is_counted_once(cube):
    store = cube.resolve()
    files = [path for path in store.rglob("*") if path.is_file()]
    once = sum({path.stat().st_ino: path.stat().st_size for path in files}.values())
    summary = summarize_cube(cube)
    assert summary.bytes == sum(summary.parts.values()) == once < sum(path.stat().st_size for path in files)
    assert summary.bytes_per_pair == once / 5
    # a date on both axes is one file
    here = store / "primary_date_surface_pressure/c.1.0.0"
    assert here.samefile(store / "secondary_date_surface_pressure/c.1.0.0")


def run(*arguments: str):
    app = typer.Typer()
    app.command()(inspect)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_prints_json_and_ends_with_0(cube):
    result = run(FRAME, "--data-dir", str(cube.parents[1]), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["pairs"]["valid"] == 5


def test_the_command_names_findings_on_stderr_and_ends_with_1(store):
    remove_image(store, "insar_difference", "0.1")
    result = run(str(store))
    assert result.exit_code == 1
    assert "is true, but no phase is stored" in result.stderr
    assert "SIMULATED" in result.stdout.upper()


def test_a_cube_that_is_not_there_is_said_in_one_line(tmp_path):
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(HephaestusError, match=r"there is no cube at .*`hephaestus build 124D_04854_171313`"):
        find_cube("124d_04854_171313", settings)
    with pytest.raises(UsageError, match="neither a cube nor a frame id"):
        find_cube("volcano", settings)
    with pytest.raises(HephaestusError, match=r"there is no cube at .*; `hephaestus status` shows those"):
        check_schema(tmp_path)
    with pytest.raises(HephaestusError, match=r"there is no cube at .*; `hephaestus status` shows those"):
        find_cube(str(tmp_path), settings)


def test_no_image_is_read(cube, tmp_path):
    """Inspection reads no images: shards without content do not matter."""
    store = Path(shutil.copytree(cube.resolve(), tmp_path / cube.name))
    for path in store.glob("insar_difference/c.*"):
        if path.is_file():
            path.write_bytes(b"")
    assert summarize_cube(store).pairs["valid"] == 5
    assert np.isfinite(summarize_cube(store).bytes_per_pair)
