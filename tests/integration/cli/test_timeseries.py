"""Tests of the time series at a point: the values of the cube's images, said to be wrapped phase."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hephaestus_build.cli import app
from toy_cube import FRAME, MOVING, PAIRS, coherence, grid, masks, phase, toy_cube

ROW, COLUMN = 30, 40
POINT = f"{grid().latitudes[ROW]},{grid().longitudes[COLUMN]}"


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


def run(cube: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["timeseries", str(cube), "--at", POINT, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_pair_has_the_values_of_its_images(cube: Path) -> None:
    found = json.loads(run(cube, "--all", "--json"))
    assert (found["simulated"], found["primary"]) == (True, None)
    assert [row["pair"] for row in found["pairs"]] == sorted(PAIRS)
    for row in found["pairs"]:
        name = row["pair"]
        assert row["phase_rad"] == phase(grid(), name)[ROW, COLUMN]
        assert row["coherence"] == round(coherence(grid(), name)[ROW, COLUMN] / 255, 3)
        assert row["unwrapped_rad"] is None
        drawn = masks(grid(), name).get("deformation_mask", np.zeros(grid().shape))[ROW, COLUMN]
        expected = "" if name == PAIRS[-1] else ["none", "volcanic", "earthquake"][int(drawn)]
        assert row["deformation"] == expected
    assert {row["deformation"] for row in found["pairs"] if row["pair"] in MOVING} & {
        "volcanic",
        "earthquake",
    }


def test_by_default_the_primary_date_of_the_most_pairs_is_taken(cube: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(cube, "--csv"))))
    # two have two pairs; the later one is taken
    assert [row["pair"] for row in rows] == [name for name in PAIRS if name.startswith("20190113")]
    chosen = list(csv.DictReader(io.StringIO(run(cube, "--csv", "--primary", "2019-01-25"))))
    assert [row["secondary"] for row in chosen] == ["2019-02-06"]


def test_no_data_is_no_value(cube: Path) -> None:
    corner = f"{grid().latitudes[0]},{grid().longitudes[-1]}"
    done = CliRunner().invoke(app, ["timeseries", str(cube), "--at", corner, "--all", "--json"])
    assert all(row["phase_rad"] is None for row in json.loads(done.stdout)["pairs"])
    shown = CliRunner().invoke(app, ["timeseries", str(cube), "--at", corner, "--all"])
    assert "no interferogram of these has data at the point" in shown.stderr
    assert "has data" not in CliRunner().invoke(app, ["timeseries", str(cube), "--at", POINT]).stderr


def test_a_lost_image_is_an_error_and_not_a_gap(cube: Path, tmp_path: Path) -> None:
    copy = tmp_path / f"{FRAME}.zarr"
    shutil.copytree(cube.resolve(), copy)
    for strip in [path for path in (copy / "insar_difference").iterdir() if path.name != "zarr.json"]:
        strip.unlink()
    done = CliRunner().invoke(app, ["timeseries", str(copy), "--at", POINT, "--csv"])
    assert done.exit_code != 0
    assert "insar_difference" in str(done.exception)
    assert "is missing" in str(done.exception)


def test_a_picture_is_written_and_named(cube: Path, tmp_path: Path) -> None:
    [line] = run(cube, "--png", "--out", str(tmp_path)).splitlines()
    assert Path(line).parent == tmp_path
    assert Path(line).name.startswith(f"{FRAME}_at_")
    with Image.open(line) as picture:
        assert picture.width > 500


def test_a_table_says_that_it_is_wrapped_phase(cube: Path) -> None:
    assert "wrapped phase in rad at" in run(cube)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--at", "50,10"), "reaches from"),
        (("--at", "20"), "LAT,LON"),
        (("--at", "nan,10"), "LAT,LON"),
        (("--at", POINT, "--primary", "2019-01-14"), "the nearest is 2019-01-13"),
        (("--at", POINT, "--csv", "--json"), "one of --csv, --png and --json"),
        (("--at", POINT, "--all", "--primary", "2019-01-13"), "not both"),
    ],
)
def test_what_cannot_be_is_one_line(cube: Path, words: tuple[str, ...], why: str) -> None:
    done = CliRunner().invoke(app, ["timeseries", str(cube), *words])
    assert done.exit_code != 0
    assert why in str(done.exception)
    assert "\n" not in str(done.exception)
