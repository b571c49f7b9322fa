"""Tests of the folder for MintPy: values, signs, angles and places by MintPy's own formulas."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.export.mintpy import export_mintpy
from hephaestus_build.export.mintpy_geometry import look_angles, radar_attributes, slant_range
from hephaestus_build.export.selection import ExportSelection, open_export_selection
from hephaestus_build.sources.interferograms import EpochBaselines
from toy_cube import (
    FRAME,
    HEADING,
    PAIRS,
    attributes,
    coherence,
    grid,
    height,
    look_vectors,
    toy_cube,
    unwrapped_phase,
)

DAYS = sorted({day for name in PAIRS for day in Pair.parse(name).dates})
BASELINES = EpochBaselines(DAYS[0], {day: 10.0 * number**2 for number, day in enumerate(DAYS)})


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube with unwrapped phase and look vectors."""
    return toy_cube(tmp_path_factory.mktemp("data"), optional=OPTIONAL_VARIABLES)


@pytest.fixture(scope="module")
def inputs(cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``inputs`` of a whole export."""
    folder = tmp_path_factory.mktemp("out")
    done = export_mintpy(open_export_selection(cube), folder, BASELINES)
    assert (done.written, done.kept, done.unwrapped, done.look_vectors) == (3, 0, len(PAIRS), True)
    return folder / FRAME / "inputs"


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with h5py.File(path) as file:
        return {name: file[name][...] for name in file}, dict(file.attrs)


def test_the_stack_has_the_values_of_the_pairs(inputs: Path) -> None:
    arrays, attrs = read(inputs / "ifgramStack.h5")
    assert attrs["FILE_TYPE"] == "ifgramStack"
    assert ["_".join(day.decode() for day in row) for row in arrays["date"]] == list(PAIRS)
    assert arrays["dropIfgram"].all()
    for number, name in enumerate(PAIRS):
        np.testing.assert_array_equal(arrays["unwrapPhase"][number], unwrapped_phase(grid(), name))
        np.testing.assert_allclose(arrays["coherence"][number] * 255, coherence(grid(), name), atol=1e-4)
    assert arrays["coherence"].max() <= 1
    expected = [
        10.0 * (DAYS.index(second) ** 2 - DAYS.index(first) ** 2)
        for first, second in (Pair.parse(name).dates for name in PAIRS)
    ]
    np.testing.assert_allclose(arrays["bperp"], expected)
    types = {name: array.dtype.str[1:] for name, array in arrays.items()}
    assert types == {"unwrapPhase": "f4", "coherence": "f4", "bperp": "f4", "dropIfgram": "b1", "date": "S8"}


def test_mintpy_makes_the_look_vectors_of_the_angles(inputs: Path) -> None:
    arrays, attrs = read(inputs / "geometryGeo.h5")
    assert attrs["FILE_TYPE"] == "geometry"
    np.testing.assert_array_equal(arrays["height"], height(grid()))
    incidence, azimuth = np.radians(arrays["incidenceAngle"]), np.radians(arrays["azimuthAngle"])
    # get_unit_vector4component_of_interest("enu2los") of mintpy.utils.utils0
    made = -np.sin(incidence) * np.sin(azimuth), np.sin(incidence) * np.cos(azimuth), np.cos(incidence)
    for part, truth in zip(made, look_vectors(grid()).values(), strict=True):
        np.testing.assert_allclose(part, truth, atol=1e-6)
    # heading2azimuth_angle, for a satellite that looks to the right
    np.testing.assert_allclose(arrays["azimuthAngle"], 90 - HEADING, atol=1e-3)
    # incidence_angle2slant_range_distance: the law of sines
    radius, orbit = float(attrs["EARTH_RADIUS"]), float(attrs["HEIGHT"])
    circle = (radius + orbit) / np.sin(np.pi - incidence)
    np.testing.assert_allclose(
        arrays["slantRangeDistance"], circle * np.sin(incidence - np.arcsin(radius / circle)), rtol=1e-4
    )


def test_attributes_say_where_and_how_the_radar_saw(inputs: Path) -> None:
    for name in ("ifgramStack.h5", "geometryGeo.h5"):
        _, attrs = read(inputs / name)
        place = [float(attrs[key]) for key in ("X_FIRST", "Y_FIRST", "X_STEP", "Y_STEP", "LENGTH", "WIDTH")]
        assert place == [10.0003, 20.0007, 0.001, -0.001, 60, 70]
        assert (attrs["X_UNIT"], attrs["Y_UNIT"], attrs["PLATFORM"]) == ("degrees", "degrees", "Sen")
        assert float(attrs["WAVELENGTH"]) == pytest.approx(0.0554658, abs=1e-7)
        assert (attrs["ORBIT_DIRECTION"], attrs["HEADING"], attrs["ANTENNA_SIDE"]) == (
            "ASCENDING", "-10.5", "-1",
        )  # fmt: skip
        assert attrs["SIMULATED"] == "true"


@pytest.mark.parametrize(
    ("frame", "heading", "direction", "looks"),
    [
        ("124D_04854_171313", 190.25, ("DESCENDING", -169.75), ("20", "4")),
        ("144A_SM_REUN_S6", 347.5, ("ASCENDING", -12.5), ("11", "7")),
    ],
)
def test_attributes_of_other_frames(
    frame: str, heading: float, direction: tuple[str, float], looks: tuple[str, str]
) -> None:
    cube = {**attributes(grid(), frame), "platform_heading_deg": heading, "center_time": "1 day, 0:00:12.5"}
    credit = {"license": "Open Government Licence v3", "source": "LiCSAR\nmintpy.deramp = no" + 70_000 * "."}
    found = radar_attributes({**cube, **credit}, grid())
    assert (found["ORBIT_DIRECTION"], float(found["HEADING"])) == direction
    assert (found["RLOOKS"], found["ALOOKS"]) == looks
    assert float(found["CENTER_LINE_UTC"]) == 12.5
    assert found["LICENSE"] == "Open Government Licence v3"
    # no cube adds lines to the template, or more than HDF5 holds
    assert "\n" not in found["SOURCE"]
    assert len(found["SOURCE"]) < 1000
    assert "SIMULATED" not in found
    # the first line at near range: in the south west of an ascending orbit, else in the north east
    west, south, east, north = grid().bounds
    first = (south, west) if direction[0] == "ASCENDING" else (north, east)
    assert (float(found["LAT_REF1"]), float(found["LON_REF1"])) == first


def test_without_look_vectors_mintpy_has_the_mean_angle_and_distance(tmp_path: Path) -> None:
    plain = toy_cube(tmp_path / "data", optional=("unwrapped_phase",))
    done = export_mintpy(open_export_selection(plain), tmp_path / "out", None)
    assert (done.look_vectors, done.baselines) == (False, 0)
    arrays, attrs = read(done.folder / "inputs" / "geometryGeo.h5")
    assert set(arrays) == {"height"}
    assert float(attrs["CENTER_INCIDENCE_ANGLE"]) == 39.2
    # range_distance of mintpy.utils.utils0: of the middle column
    near, step, width = (float(attrs[name]) for name in ("STARTING_RANGE", "RANGE_PIXEL_SIZE", "WIDTH"))
    assert (near + near + step * (width - 1)) / 2 == pytest.approx(float(slant_range(39.2)), rel=1e-6)
    assert (read(done.folder / "inputs" / "ifgramStack.h5")[0]["bperp"] == 0).all()


def test_angles_and_distances_are_those_of_sentinel_1() -> None:
    incidence, azimuth = look_angles(*(np.float32(part) for part in (0.6, -0.11, 0.79)))
    # a descending satellite stands in the east: -102 degrees from north, anti-clockwise
    assert (round(float(incidence)), round(float(azimuth))) == (38, -100)
    assert float(slant_range(0)) == 693_000
    assert 850_000 < float(slant_range(39)) < 900_000
    assert np.isnan(look_angles(*np.full((3, 2, 2), np.nan, "f4"))[0]).all()


def test_phase_of_the_other_sign_is_turned_over(cube: Path, tmp_path: Path) -> None:
    source = open_export_selection(cube, [Pair.parse(PAIRS[1])])
    other = source.cube.assign_attrs(phase_sign="positive_towards_satellite")
    done = export_mintpy(replace(source, cube=other), tmp_path, None)
    arrays, _ = read(done.folder / "inputs" / "ifgramStack.h5")
    np.testing.assert_array_equal(arrays["unwrapPhase"], -unwrapped_phase(grid(), PAIRS[1])[None])
    unknown = replace(
        source, cube=source.cube.drop_attrs(deep=False).assign_attrs(frame=FRAME, radar_wavelength_m=0.05)
    )
    with pytest.raises(HephaestusError, match="does not state the sign"):
        export_mintpy(unknown, tmp_path / "other", None)
    assert not (tmp_path / "other").exists()


def test_what_mintpy_and_the_user_changed_stays(cube: Path, tmp_path: Path) -> None:
    source = open_export_selection(cube, newest=3)
    folder = export_mintpy(source, tmp_path, BASELINES).folder
    stack, template = folder / "inputs" / "ifgramStack.h5", folder / f"{FRAME}.txt"
    with h5py.File(stack, "r+") as file:
        file.attrs["REF_X"] = "12"
        file["dropIfgram"][0] = False
    template.write_text("mintpy.deramp = linear\n")
    again = export_mintpy(source, tmp_path, BASELINES)
    assert (again.written, again.kept) == (0, 3)
    assert read(stack)[1]["REF_X"] == "12"
    # another choice of pairs is another stack, and the same geometry
    more = open_export_selection(cube)
    with pytest.raises(UsageError, match=r"ifgramStack\.h5 is not of this cube as it is now; add --force"):
        export_mintpy(more, tmp_path, BASELINES)
    assert len(read(stack)[0]["date"]) == 3
    replaced = export_mintpy(more, tmp_path, BASELINES, force=True)
    assert (replaced.written, replaced.kept) == (1, 2)
    arrays, attrs = read(stack)
    assert (len(arrays["date"]), "REF_X" in attrs) == (len(PAIRS), False)
    assert template.read_text() == "mintpy.deramp = linear\n"


def test_a_file_of_another_program_is_never_replaced(cube: Path, tmp_path: Path) -> None:
    stack = tmp_path / FRAME / "inputs" / "ifgramStack.h5"
    stack.parent.mkdir(parents=True)
    with h5py.File(stack, "w") as file:
        file["unwrapPhase"] = np.zeros((1, 2, 2), "f4")
    before = stack.read_bytes()
    with pytest.raises(UsageError, match="of no export of this program, never replaced"):
        export_mintpy(open_export_selection(cube), tmp_path, None, force=True)
    assert stack.read_bytes() == before
    assert [path.name for path in stack.parent.iterdir()] == ["ifgramStack.h5"]


def test_an_export_that_stops_half_way_leaves_nothing_that_looks_whole(
    cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = ExportSelection.read_window, []

    def stop(self: ExportSelection, *place: Any) -> Any:
        seen.append(place)
        if len(seen) > 4:
            raise KeyboardInterrupt
        return whole(self, *place)

    with monkeypatch.context() as patch:
        patch.setattr(ExportSelection, "read_window", stop)
        with pytest.raises(KeyboardInterrupt):
            export_mintpy(open_export_selection(cube), tmp_path, None)
    inputs = tmp_path / FRAME / "inputs"
    assert list(inputs.iterdir()) == []
    (inputs / ".ifgramStack.h5.0123456789ab").write_bytes(b"left by a process that was killed")
    assert export_mintpy(open_export_selection(cube), tmp_path, None).written == 3
    assert {path.name for path in inputs.iterdir()} == {"ifgramStack.h5", "geometryGeo.h5"}


def test_a_disk_that_takes_no_more_ends_in_one_line(cube: Path, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-m", "hephaestus_build", "export", str(cube), "--to", "mintpy"]
    done = subprocess.run(
        [*command, "--out", "out", "--data-dir", "."],
        cwd=tmp_path,
        preexec_fn=limited,
        stderr=subprocess.PIPE,
        text=True,
        # .pyc files cut at the limit would break later imports
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    # HDF5 alone would crash at the end of the process
    assert (done.returncode, "the limit on file sizes was reached" in done.stderr) == (1, True), done.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_the_command_says_what_it_wrote_and_what_is_missing(
    cube: Path, tmp_path: Path, hephaestus: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("export", "--to", "mintpy", "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path))
    code, out, err = hephaestus(*words, str(cube))
    assert code == 0
    assert f"{FRAME} (simulated) is in {tmp_path / 'out' / FRAME}: 3 files written, 0 kept" in out
    assert "some perpendicular baselines are not known; MintPy takes zeros" in " ".join(err.split())
    found = json.loads(hephaestus(*words, str(cube), "--json")[1])
    assert {key: found[key] for key in ("to", "unwrapped", "baselines", "look_vectors", "kept")} == {
        "to": "mintpy", "unwrapped": len(PAIRS), "baselines": False, "look_vectors": True, "kept": 3,
    }  # fmt: skip
    text = (tmp_path / "out" / FRAME / f"{FRAME}.txt").read_text()
    assert "SIMULATED DATA" in text
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == [
        "mintpy.troposphericDelay.method = no"
    ]
    plain = toy_cube(tmp_path / "plain")
    code, _, err = hephaestus(*words, str(plain))
    assert code != 0
    command = f"`hephaestus build {FRAME} --variables unwrapped_phase,look_east,look_north,look_up"
    assert command in " ".join(err.split())
    code, _, err = hephaestus(*words, str(cube), "--variables", "dem")
    assert code != 0
    assert "--variables chooses nothing of mintpy" in " ".join(err.split())


def test_a_frame_without_height_is_refused(tmp_path: Path) -> None:
    plain = toy_cube(tmp_path / "data", dem=False, optional=("unwrapped_phase",))
    with pytest.raises(HephaestusError, match="the cube has no height"):
        export_mintpy(open_export_selection(plain), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
