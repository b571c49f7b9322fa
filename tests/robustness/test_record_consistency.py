"""Tests that a record with false values but valid hashes is found by comparing it with the arrays."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from hephaestus_build.cli import app
from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.manifest import encode_manifest
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.verification import CubeVerification, verify_cube
from toy_cube import FRAME, PAIRS, toy_cube


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    toy_cube(folder / "simulated" / "cubes")
    return folder


@pytest.fixture
def cube(pristine, tmp_path) -> Generation:
    shutil.copytree(pristine, tmp_path / "data", symlinks=True)
    current = FrameStore(tmp_path / "data" / "simulated" / "cubes", Frame(FRAME)).published_generation()
    assert current is not None
    return current


def findings(cube: Generation) -> list[str]:
    return list(
        map(str, verify_generation(cube) or check_schema(cube.store) or check_record_consistency(cube))
    )


def reseal(cube: Generation) -> None:
    """Recompute every hash of the cube in its present state."""
    stored = {
        str(path.relative_to(cube.store)): path.read_bytes()
        for path in cube.store.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    manifest = encode_manifest(
        {path: [hash_bytes(content), len(content)] for path, content in stored.items()}
    )
    for folder in cube.record_folders:
        for name, content in ((MANIFEST, manifest), (PROVENANCE, stored[PROVENANCE])):
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(content)


def record(change: Callable[[dict[str, Any]], None]) -> Callable[[Generation], None]:
    """Return a change of the record only."""

    def apply(cube: Generation) -> None:
        value = json.loads((cube.store / PROVENANCE).read_bytes())
        change(value)
        (cube.store / PROVENANCE).write_text(json.dumps(value))

    return apply


def unit(value: dict[str, Any], key: str) -> dict[str, Any]:
    return next(item for item in value["units"] if f"{item['kind']}/{item['name']}" == key)


def array(name: str, change: Callable[[np.ndarray], None]) -> Callable[[Generation], None]:
    """Return a change of the values of an array only."""

    def apply(cube: Generation) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = zarr.open_group(cube.store, mode="r+")[name]
            values = stored[...]
            change(values)
            stored[...] = values

    return apply


def attribute(where: str, **new: Any) -> Callable[[Generation], None]:
    """Return a change of attributes, in the array's own metadata and in the group's copy."""

    def apply(cube: Generation) -> None:
        path = cube.store / "zarr.json"
        group = json.loads(path.read_bytes())
        if where:
            nodes = group["consolidated_metadata"]["metadata"]
            nodes[where]["attributes"].update(new)
            parent, _, child = where.rpartition("/")
            if parent:  # a group has a copy of its own
                own = json.loads((cube.store / parent / "zarr.json").read_bytes())
                own["consolidated_metadata"]["metadata"][child]["attributes"].update(new)
                (cube.store / parent / "zarr.json").write_text(json.dumps(own))
            own = json.loads((cube.store / where / "zarr.json").read_bytes())
            own["attributes"].update(new)
            (cube.store / where / "zarr.json").write_text(json.dumps(own))
        else:
            group["attributes"].update(new)
        path.write_text(json.dumps(group))

    return apply


def put(place: int | tuple[int, ...], new: Any) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[place] = new

    return change


def _swap_dates(value: dict[str, Any]) -> None:
    """Swap the pairs of the phases in the record; the files stay in place."""
    first, second = unit(value, f"pair/{PAIRS[0]}"), unit(value, f"pair/{PAIRS[1]}")
    for name in ("objects", "facts"):
        first[name], second[name] = second[name], first[name]


def _shift_all(value: dict[str, Any]) -> None:
    for item in value["units"]:
        item["name"] = item["name"].replace("20190101", "20190102")
    for axis in ("dates", "pairs"):
        value[axis] = [name.replace("20190101", "20190102") for name in value[axis]]


DEM, PAIR, DAY, MASK = "dem/dem", f"pair/{PAIRS[0]}", "epoch/20190113", f"mask/{PAIRS[1]}"
FALSE: dict[str, Callable[[Generation], None]] = {
    "grid of the record": record(lambda value: value["grid"].update(west=value["grid"]["west"] + 0.001)),
    "pixel size": record(lambda value: value["grid"].update(dx=0.002)),
    "rows and columns": record(lambda value: value["grid"].update(width=value["grid"]["width"] - 1)),
    "grid of the DEM": record(lambda value: unit(value, DEM)["facts"]["grid"].update(north=1.0)),
    "inputs of a pair": record(lambda value: unit(value, PAIR).update(inputs="0" * 16)),
    "a date of all units": record(_shift_all),
    "pairs that changed places": record(_swap_dates),
    "valid fraction": record(lambda value: unit(value, PAIR)["facts"].update(valid_fraction=0.25)),
    "alignment": record(lambda value: unit(value, PAIR)["facts"].update(alignment="shifted")),
    "expver": record(lambda value: unit(value, DAY)["facts"].update(era5_expver="0005")),
    "hour of ERA5": record(lambda value: unit(value, DAY)["facts"].update(era5_time=1)),
    "annotation": record(lambda value: unit(value, MASK)["facts"]["annotation"].update(caption="other")),
    "source of ERA5": record(lambda value: value["attributes"].update(era5_source="a friend")),
    "another frame": record(lambda value: value["attributes"].update(frame="198A_00001_131313")),
    "product of another pair": record(
        lambda value: unit(value, PAIR)["receipts"][0].update(product=f"{PAIRS[1]}.geo.diff_pha.tif")
    ),
    "a pair that is owed": record(lambda value: unit(value, PAIR)["receipts"][0].update(outcome="corrupt")),
    "axis of dates": array("primary_date", put(0, 17000)),
    "axis of latitude": array("latitude", put(slice(None), 1.0)),
    "longitudes, slightly": array("longitude", put(3, 10.00379)),
    "ERA5's own axis": array("era5_latitude", put(0, 80.0)),
    "table of flags": array("is_crowd", put((0, 0), 1)),
    "table of text": array("caption", put((0, 0), "nothing to see")),
    "table of numbers": array("confidence", put((0, 1), 0.1)),
    "table of hours": array("era5_time", put(0, 400_000)),
    "GeoTransform": attribute("spatial_ref", GeoTransform="10.0003 0.0011 0.0 20.0007 0.0 -0.001"),
    "attribute of the group": attribute("", license="CC0"),
    "one more attribute of the group": attribute("", note="trust me"),
    "a scale": attribute("insar_coherence", scale_factor=2.0),
    "an offset": attribute("dem", add_offset=100.0),
    "a value that means none": attribute("insar_difference", missing_value=1.0),
    "unit of time": attribute("primary_date", units="days since 1970-01-02"),
    "a file of others": lambda cube: (cube.store / "dem" / "readme").write_text("x") and None,
}


def test_a_whole_cube_says_what_its_record_implies(cube):
    assert findings(cube) == []
    reseal(cube)
    assert findings(cube) == []


@pytest.mark.parametrize("kind", FALSE)
def test_what_does_not_agree_with_the_record_is_found(cube, kind):
    FALSE[kind](cube)
    reseal(cube)
    found = findings(cube)
    assert found
    assert all(len(line) < 500 for line in found)


def call(cube: Generation, command: str, *options: str) -> tuple[int, str]:
    """Run a command on the frame as the console script does; return its exit code and its errors."""
    frame_store = FrameStore(cube.store.parents[3], Frame(FRAME))
    data = frame_store.published_link.parents[2]
    result = CliRunner().invoke(app, [command, FRAME, *options], env={"HEPHAESTUS_DATA_DIR": str(data)})
    if isinstance(result.exception, HephaestusError):
        return result.exception.exit_code, f"{result.output}{result.exception}"
    return result.exit_code, result.output


def published(cube: Generation) -> Generation:
    current = FrameStore(cube.store.parents[3], Frame(FRAME)).published_generation()
    assert current is not None
    return current


# pairs are fetched again where they changed places: tests/robustness/test_repair.py has an archive
@pytest.mark.parametrize("kind", sorted(FALSE.keys() - {"pairs that changed places"}))
def test_the_command_that_verify_names_mends_it(cube, kind):
    FALSE[kind](cube)
    reseal(cube)
    found = verify_cube(cube)
    assert found.damages
    settings = load_settings(data_dir=cube.store.parents[5], licsar_url="http://127.0.0.1:9/", retries=0)
    if found.remedy == "repair":
        repair(Frame(FRAME), settings)
        assert verify_cube(published(cube)) == CubeVerification()
    else:  # the record is false: nothing but the archive can give the cube back
        assert found.remedy == "rebuild"
        with pytest.raises(HephaestusError) as refusal:
            repair(Frame(FRAME), settings)
        assert str(refusal.value).endswith(found.describe_remedy(FRAME, cube.store))


@pytest.mark.parametrize(("kind", "command"), [("table of text", "repair"), ("valid fraction", "build")])
def test_verify_and_repair_name_the_same_command(cube, kind, command):
    FALSE[kind](cube)
    reseal(cube)
    code, said = call(cube, "verify")
    assert (code, f"`hephaestus {command} {FRAME}`" in said) == (1, True)
    code, said = call(cube, "repair")
    assert (code, f"`hephaestus {command} {FRAME}`" in said) == (
        (0, False) if command == "repair" else (1, True)
    )


#: Changes of descriptive attributes, as the next release may make them.
REWORDED = {
    "long name": attribute("dem", long_name="elevation of the ground"),
    "comment that is new": attribute("dem", comment="above the ellipsoid"),
    "comment of a group": attribute("pairs", comment="one row a pair"),
    "name in a group": attribute("overview/wrapped_phase", long_name="small phase"),
}


@pytest.mark.parametrize("kind", REWORDED)
def test_older_wording_is_no_damage_and_migrate_brings_it_to_this_version(cube, kind):
    REWORDED[kind](cube)
    reseal(cube)
    advice = f"`hephaestus migrate {FRAME}` writes those of this version"
    for command in ("verify", "inspect", "status", "repair") if kind == "long name" else ["verify"]:
        code, said = call(cube, command)
        assert (code, advice in said) == (0, True), said
    before = {path: item for path, item in cube.read_manifest().items() if "/c." in path}
    if kind != "long name":  # the commands are the same for all
        return
    assert call(cube, "migrate")[0] == 0
    current = published(cube)
    assert current.number == cube.number + 1
    assert {path: item for path, item in current.read_manifest().items() if "/c." in path} == before
    for command in ("verify", "inspect", "status", "repair"):
        code, said = call(cube, command)
        assert (code, "migrate" in said) == (0, False), said
    assert call(cube, "migrate")[0] == 1  # there is nothing to do any more


def test_a_text_that_hides_that_data_is_simulated_is_no_wording(cube):
    attribute("dem", source="COMET-LiCSAR")(cube)
    reseal(cube)
    code, said = call(cube, "verify")
    assert (code, f"`hephaestus repair {FRAME}` mends it" in said) == (1, True)


def test_a_phase_that_would_decode_to_gigabytes_is_found(cube):
    shard = next((cube.store / "insar_difference").glob("c.*"))
    content = bytearray(shard.read_bytes())
    content[4:8] = (0x7FFFFFFF).to_bytes(4, "little")  # the decoded size in the header of the first tile
    shard.write_bytes(content)
    value = json.loads((cube.store / PROVENANCE).read_bytes())
    for item in value["units"]:
        stored = item.get("objects", {}).get("insar_difference")
        if stored and stored[1] == len(content):
            item["objects"]["insar_difference"] = [hash_bytes(bytes(content)), len(content)]
    (cube.store / PROVENANCE).write_text(json.dumps(value))
    reseal(cube)
    assert any("insar_difference" in line for line in findings(cube))


@pytest.mark.parametrize(
    "kind", ["axis of dates", "table of text", "a scale", "one more attribute of the group"]
)
def test_repair_writes_again_what_follows_from_the_record(cube, kind):
    FALSE[kind](cube)
    reseal(cube)
    data = cube.store.parents[5]
    repaired = repair(Frame(FRAME), load_settings(data_dir=data))
    assert repaired.damages
    assert repaired.generation == 2
    current = FrameStore(data / "simulated" / "cubes", Frame(FRAME)).published_generation()
    assert findings(current) == []
    assert repair(Frame(FRAME), load_settings(data_dir=data)).damages == ()


@pytest.mark.parametrize("kind", ["valid fraction", "inputs of a pair", "product of another pair"])
def test_repair_says_that_a_false_record_mends_nothing(cube, kind):
    FALSE[kind](cube)
    reseal(cube)
    with pytest.raises(HephaestusError, match=rf"^{FRAME}: its record is wrong .*hephaestus build"):
        repair(Frame(FRAME), load_settings(data_dir=cube.store.parents[5]))
