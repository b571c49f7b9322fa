"""Tests of what is exported for looking closer: pairs by time, boxes, stacks and the QGIS project."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from matplotlib.colors import to_hex
from typer.testing import CliRunner

from hephaestus_build.cli import app
from hephaestus_build.export.geotiff import export_geotiff
from hephaestus_build.export.qgis_project import PHASE_COLOURS
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.report.image_ops import phase_colormap
from toy_cube import FRAME, PAIRS, grid, phase, toy_cube

#: The pairs of the toy cube in the order of the dates on which they end.
IN_TIME = sorted(PAIRS, key=lambda name: (name.partition("_")[2], name))
#: Python with QGIS, where a system has one; QGIS is on no package index.
QGIS_PYTHON = "/usr/bin/python3"
#: Reads a project, and prints what became of it; run by QGIS's Python.
READ_PROJECT = """
import sys
from qgis.core import QgsApplication, QgsProject
app = QgsApplication([], False)
app.initQgis()
project = QgsProject.instance()
assert project.read(sys.argv[1])
in_tree = [node.layer() for node in project.layerTreeRoot().findLayers()]
assert all(layer and layer.isValid() for layer in in_tree)
assert len(in_tree) == len(project.mapLayers())
print(project.crs().authid(), len(in_tree))
print(*sorted({type(layer.renderer()).__name__ for layer in in_tree}))
times = project.timeSettings()
print(times.temporalRange().begin().toString("yyyy-MM-dd"), times.timeStep())
"""


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def exported(cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_geotiff(open_export_selection(cube), tmp_path_factory.mktemp("tif")).folder


def run(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["export", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_newest_pairs_are_those_that_end_last(cube: Path, tmp_path: Path) -> None:
    run(cube, "--to", "geotiff", "--out", tmp_path, "--newest", "2", "--variables", "insar_difference")
    found = {path.name for path in (tmp_path / FRAME / "interferograms").iterdir()}
    assert found == set(IN_TIME[-2:])


def test_pairs_since_a_day_begin_on_it_or_later(cube: Path, tmp_path: Path) -> None:
    day = sorted(name.partition("_")[0] for name in PAIRS)[-1]
    run(cube, "--to", "geotiff", "--out", tmp_path, "--since", day, "--variables", "insar_coherence")
    found = {path.name for path in (tmp_path / FRAME / "interferograms").iterdir()}
    assert found == {name for name in PAIRS if name.partition("_")[0] >= day}


def test_no_pair_since_a_day_is_said_with_the_newest(cube: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", str(cube), "--to", "zarr2", "--out", str(tmp_path), "--since", "2031-01-01"]
    )
    assert done.exit_code != 0
    assert IN_TIME[-1] in str(done.exception)


def test_a_box_is_cut_at_pixels_and_keeps_their_values(cube: Path, tmp_path: Path) -> None:
    on = grid()
    west, south = on.west + 10.3 * on.dx, on.north - 40.6 * on.dy
    box = (west, south, west + 20 * on.dx, south + 15 * on.dy)
    folder = export_geotiff(open_export_selection(cube, newest=1), tmp_path, box=box).folder
    rows, columns = slice(25, 41), slice(10, 31)
    name = IN_TIME[-1]
    with rasterio.open(folder / f"interferograms/{name}/{name}.insar_difference.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), phase(on, name)[rows, columns])
        assert dataset.transform.almost_equals(on.crop(rows, columns).transform, 1e-12)
        assert dataset.tags()["WINDOW"] == "rows 25 to 40, columns 10 to 30 of the frame"
    with rasterio.open(folder / f"{FRAME}.insar_difference.vrt") as dataset:
        assert dataset.shape == (16, 21)


def test_another_box_replaces_nothing_unasked(cube: Path, tmp_path: Path) -> None:
    on = grid()
    box = f"{on.west},{on.bounds[1]},{on.west + 5 * on.dx},{on.north}"
    words = (cube, "--to", "geotiff", "--out", tmp_path, "--newest", "1", "--variables", "dem")
    run(*words)
    before = (tmp_path / FRAME / f"{FRAME}.dem.tif").read_bytes()
    done = CliRunner().invoke(app, ["export", *map(str, words), f"--bbox={box}"])
    assert done.exit_code != 0
    assert "--force" in str(done.exception)
    assert (tmp_path / FRAME / f"{FRAME}.dem.tif").read_bytes() == before


@pytest.mark.parametrize("box", ["13,36,17,39", "10,20,5", "1,2,3,x", "0,50,10,40"])
def test_a_box_elsewhere_or_no_box_is_refused_in_one_line(cube: Path, tmp_path: Path, box: str) -> None:
    done = CliRunner().invoke(
        app, ["export", str(cube), "--to", "geotiff", "--out", str(tmp_path), f"--bbox={box}"]
    )
    assert done.exit_code != 0
    assert "\n" not in str(done.exception)
    assert not list(tmp_path.rglob("*.tif"))


def test_a_stack_has_a_band_a_pair_in_order_of_time(exported: Path) -> None:
    with rasterio.open(exported / f"{FRAME}.insar_difference.vrt") as stack:
        assert stack.descriptions == tuple(IN_TIME)
        assert stack.nodata == 0
        assert stack.tags()["SIMULATED"] == "true"
        for number, name in enumerate(IN_TIME, 1):
            np.testing.assert_array_equal(stack.read(number), phase(grid(), name))
            assert stack.tags(number)["SECONDARY_DATE"].replace("-", "") == name.partition("_")[2]
    with rasterio.open(exported / f"{FRAME}.surface_pressure.vrt") as stack:
        assert stack.descriptions == ("2019-01-01", "2019-01-13", "2019-01-25", "2019-02-06")
    with rasterio.open(exported / f"{FRAME}.deformation_mask.vrt") as stack:
        assert stack.nodata is None


def test_the_folder_can_be_moved(exported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(exported, moved)
    with rasterio.open(moved / f"{FRAME}.insar_coherence.vrt") as stack:
        assert stack.read(1).any()
    sources = ElementTree.parse(moved / f"{FRAME}.qgs").iter("datasource")
    assert all((moved / str(source.text)).is_file() for source in sources)


def test_the_project_shows_each_pair_on_the_day_on_which_it_ends(exported: Path) -> None:
    project = ElementTree.parse(exported / f"{FRAME}.qgs").getroot()
    assert project.findtext("title") == f"{FRAME}, SIMULATED"
    shown = {
        layer.findtext("layername"): layer.findtext("temporal/fixedRange/start")
        for layer in project.iter("maplayer")
        if str(layer.findtext("id")).startswith("insar_difference")
    }
    assert shown == {
        name: f"{end[:4]}-{end[4:6]}-{end[6:]}T00:00:00Z"
        for name in PAIRS
        for end in [name.partition("_")[2]]
    }
    assert project.findtext("properties/TemporalControllerWidget/NavigationMode") == "1"
    colours = [item.get("color") for item in next(project.iter("colorrampshader"))]
    assert colours[0] == colours[-1]  # cyclic


def test_the_project_has_the_colours_of_our_pictures() -> None:
    colours = phase_colormap()
    steps = len(PHASE_COLOURS)
    assert [to_hex(colours(number / steps)) for number in range(steps)] == list(PHASE_COLOURS)


def test_a_project_that_somebody_changed_is_kept_and_others_are_renewed(cube: Path, tmp_path: Path) -> None:
    run(cube, "--to", "geotiff", "--out", tmp_path, "--newest", "1")
    project, stack = (tmp_path / FRAME / f"{FRAME}.{end}" for end in ("qgs", "insar_difference.vrt"))
    project.write_text(project.read_text().replace("SIMULATED", "my title"))
    said = run(cube, "--to", "geotiff", "--out", tmp_path, "--newest", "2")
    assert "my title" in project.read_text()
    assert f"{project} was changed" in " ".join(said.split())
    with rasterio.open(stack) as dataset:
        assert dataset.count == 2


def test_nothing_is_written_through_a_link(cube: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious.txt"
    target.write_text("keep me")
    (tmp_path / "out" / FRAME).mkdir(parents=True)
    (tmp_path / "out" / FRAME / f"{FRAME}.qgs").symlink_to(target)
    run(cube, "--to", "geotiff", "--out", tmp_path / "out", "--newest", "1")
    assert target.read_text() == "keep me"
    assert (tmp_path / "out" / FRAME / f"{FRAME}.qgs").is_symlink()


def test_qgis_reads_the_project(exported: Path) -> None:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""}
    probe = [QGIS_PYTHON, "-c", "import qgis.core"]
    if (
        not Path(QGIS_PYTHON).exists()
        or subprocess.run(probe, env=environment, capture_output=True).returncode
    ):
        pytest.skip("QGIS is not installed (Debian: python3-qgis)")
    done = subprocess.run(
        [QGIS_PYTHON, "-c", READ_PROJECT, exported / f"{FRAME}.qgs"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    crs, renderers, times = done.stdout.splitlines()
    assert crs == "EPSG:4326 23", done.stderr
    assert renderers.split() == [
        f"Qgs{kind}Renderer"
        for kind in ("Hillshade", "PalettedRaster", "SingleBandGray", "SingleBandPseudoColor")
    ]
    assert times == "2019-01-13 12.0"
