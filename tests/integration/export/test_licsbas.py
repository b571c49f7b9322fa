"""Tests of the folder for LiCSBAS: its names, values and files, as its first step reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from hephaestus_build.cli import app
from hephaestus_build.export.licsbas import baselines_text, export_licsbas, metadata_text
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.sources.interferograms import EpochBaselines
from hephaestus_build.sources.licsar.baselines_file import parse_baselines
from toy_cube import FRAME, PAIRS, coherence, grid, phase, toy_cube

BASELINES = EpochBaselines(date(2019, 1, 13), {date(2019, 1, 1): -40.25, date(2019, 1, 13): 0.0})


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


def read_perpendicular_baselines(text: str) -> dict[str, float]:
    """Return metres by day, read in the way of LiCSBAS: by the number of fields of the first line."""
    assert len(text.splitlines()[0].split()) == 4
    rows = [line.split() for line in text.splitlines() if len(line.split()) == 4]
    return {row[0]: 0.0 for row in rows[:1]} | {row[1]: float(row[2]) for row in rows}


def test_images_have_licsar_names_and_the_cube_values(cube: Path, tmp_path: Path) -> None:
    done = export_licsbas(open_export_selection(cube), tmp_path, BASELINES)
    geoc = tmp_path / FRAME / "GEOC"
    for name in PAIRS:
        with rasterio.open(geoc / name / f"{name}.geo.diff_pha.tif") as dataset:
            np.testing.assert_array_equal(dataset.read(1), phase(grid(), name))
        with rasterio.open(geoc / name / f"{name}.geo.cc.tif") as dataset:
            np.testing.assert_array_equal(dataset.read(1), coherence(grid(), name))
            assert dataset.dtypes == ("uint8",)
    with rasterio.open(geoc / f"{FRAME}.geo.hgt.tif") as dataset:
        assert dataset.shape == grid().shape
    assert {path.name for path in geoc.iterdir()} == {
        *PAIRS, f"{FRAME}.geo.hgt.tif", "baselines",
    }  # fmt: skip
    assert done.unwrapped == 0
    again = export_licsbas(open_export_selection(cube), tmp_path, BASELINES)
    assert again.files.written == 0


def test_metadata_are_written_where_the_time_is_known(cube: Path, tmp_path: Path) -> None:
    # step 02 of COMET's LiCSBAS stops at a file without center_time, and goes on without a file
    source = open_export_selection(cube)
    timed = replace(source, cube=source.cube.assign_attrs(center_time="18:41:07"))
    geoc = export_licsbas(timed, tmp_path, None).files.folder / "GEOC"
    assert "center_time=18:41:07\n" in (geoc / "metadata.txt").read_text()
    assert not (
        export_licsbas(source, tmp_path / "other", None).files.folder / "GEOC" / "metadata.txt"
    ).exists()


def test_baselines_are_read_as_they_were(tmp_path: Path) -> None:
    text = baselines_text(BASELINES, simulated=True)
    assert read_perpendicular_baselines(text) == {"20190113": 0.0, "20190101": -40.25}
    read = parse_baselines(text)
    assert (read.reference, dict(read.metres), read.is_simulated) == (
        BASELINES.reference, dict(BASELINES.metres), True,
    )  # fmt: skip


def test_metadata_has_what_the_cube_knows_and_nothing_else() -> None:
    known = {"center_time": "18:41:07", "radar_wavelength_m": 0.05546576, "platform_heading_deg": -12.5}
    lines = dict(line.split("=") for line in metadata_text(known).splitlines())
    assert lines == {"center_time": "18:41:07", "radar_freq": "5405000454", "heading": "-12.5"}
    assert metadata_text({}) == ""
    assert "simulated=true" in metadata_text({"simulated": 1})


def test_the_command_says_what_a_series_lacks(cube: Path, tmp_path: Path) -> None:
    words = ["export", str(cube), "--to", "licsbas", "--out", str(tmp_path), "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    said = " ".join(done.output.split())
    count = len(PAIRS)
    assert f"{count} of {count} pairs have no unwrapped phase; `hephaestus build" in said
    assert "no perpendicular baselines are known" in said
    found = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout)
    assert (found["unwrapped"], found["baselines"], found["written"]) == (0, False, 0)


def test_what_licsbas_does_not_read_is_refused(cube: Path, tmp_path: Path) -> None:
    words = [
        "export",
        str(cube),
        "--to",
        "licsbas",
        "--out",
        str(tmp_path),
        "--variables",
        "surface_pressure",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert not (tmp_path / FRAME).exists()
