"""Tests that rasters are read and written equally whatever the GDAL and PROJ variables of the environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rasterio

from checkout import SUPPORT
from hephaestus_build.core import gdal
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.sources.licsar.geotiff import read_phase
from licsar_files import GRID, phase, write_tif

FAMILIES = ("GDAL_", "GTIFF_", "TIFF_", "CPL_", "VSI_", "OGR_", "OSR_", "PROJ_", "COG_", "ESRI_", "JPEG_")
TASK = SUPPORT / "gdal_task.py"
WHEEL = Path(rasterio.__file__).parent / "proj_data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PixelIsPoint raster and a damaged one."""
    path = tmp_path_factory.mktemp("rasters")
    write_tif(path / "point.tif", phase())
    with rasterio.open(path / "point.tif", "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    data = bytearray(write_tif(path / "damaged.tif", phase()).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (path / "damaged.tif").write_bytes(data)
    return path


def ran(folder: Path, out: Path, **environment: str) -> dict[str, Any]:
    """Return the results of the task in a process with `environment`; it must print nothing else."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FAMILIES)}
    done = subprocess.run(
        [sys.executable, TASK, folder, out],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=out.parent,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of the task in a clean environment."""
    found = ran(folder, tmp_path_factory.mktemp("plain") / "out.tif")
    assert found["grid"] == repr(read_phase(folder / "point.tif").grid)
    assert "cannot be read whole" in found["refused"]
    assert found["key"] == "made"
    return found


def option_names() -> list[str]:
    """Return every name of an option in the library of the wheel."""
    libraries = Path(rasterio.__file__).parents[1] / "rasterio.libs"
    found = list(libraries.glob("libgdal*")) + list(
        (Path(rasterio.__file__).parent / ".dylibs").glob("libgdal*")
    )
    if not found:
        pytest.skip("needs a wheel of rasterio, whose library can be searched for the names of options")
    families = "|".join(family.removesuffix("_") for family in FAMILIES)
    pattern = rb"(?<![A-Za-z0-9_])(?:%s)_[A-Z0-9_]+(?=\0)" % families.encode()
    return sorted({name.decode() for name in re.findall(pattern, found[0].read_bytes())})


@pytest.mark.parametrize("value", ["YES", "NO", "0", "junk"])
def test_no_option_of_gdal_changes_anything(folder, plain, tmp_path, value):
    names = option_names()
    assert len(names) > 100
    assert ran(folder, tmp_path / "out.tif", **dict.fromkeys(names, value)) == plain


def foreign(kind: str, folder: Path) -> Path:
    """Return a data folder like that of another installation."""
    path = folder / kind
    if kind != "missing":
        path.mkdir()
    if kind == "broken":
        (path / "proj.db").write_bytes(b"no database")
    if kind == "older":
        shutil.copy(WHEEL / "proj.db", path / "proj.db")
        with sqlite3.connect(path / "proj.db") as base:
            base.execute("update metadata set value = '0' where key = 'DATABASE.LAYOUT.VERSION.MINOR'")
        base.close()
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "broken", "older"])
def test_data_of_another_installation_changes_nothing(folder, plain, tmp_path, kind):
    if kind == "older" and not (WHEEL / "proj.db").exists():
        pytest.skip("needs a wheel of rasterio, which brings PROJ's database")
    other = str(foreign(kind, tmp_path))
    names = ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_AUX_DB")
    assert ran(folder, tmp_path / "out.tif", PROJ_NETWORK="ON", **dict.fromkeys(names, other)) == plain


def test_what_is_heeded_at_the_start_of_gdal_changes_nothing(folder, plain, tmp_path):
    options = "[configoptions]\nGTIFF_POINT_GEO_IGNORE=YES\nGTIFF_IGNORE_READ_ERRORS=YES\nGDAL_SKIP=GTiff\n"
    (tmp_path / ".gdal").mkdir()
    (tmp_path / ".gdal" / "gdalrc").write_text(options)
    (tmp_path / "options").write_text(options)
    out = tmp_path / "out.tif"
    assert ran(folder, out, HOME=str(tmp_path), GDAL_SKIP="GTiff,COG,MEM", GDAL_CACHEMAX="0") == plain
    assert ran(folder, out, GDAL_CONFIG_FILE=str(tmp_path / "options")) == plain


def test_files_beside_a_raster_change_nothing(folder, tmp_path):
    path = tmp_path / "point.tif"
    shutil.copy(folder / "point.tif", path)
    before = read_phase(path)
    (tmp_path / "point.tfw").write_text("0.5\n0\n0\n-0.5\n10\n20\n")
    shutil.copy(folder / "point.tif", tmp_path / "point.tif.msk")
    shutil.copy(folder / "point.tif", tmp_path / "point.tif.ovr")
    (tmp_path / "point.tif.aux.xml").write_text(
        "<PAMDataset><GeoTransform>10, 1, 0, 20, 0, -1</GeoTransform><SRS>EPSG:32633</SRS>"
        "<PAMRasterBand band='1'><NoDataValue>1</NoDataValue><Scale>10</Scale></PAMRasterBand></PAMDataset>"
    )
    after = read_phase(path)
    assert (after.grid, after.notes) == (before.grid, before.notes)
    assert after.values.tobytes() == before.values.tobytes()


def test_the_environment_stays_as_it_is_for_others(tmp_path):
    program = (
        "import os, hephaestus_build.core.gdal; "
        "print(os.environ['PROJ_LIB'], os.environ.get('GDAL_CONFIG_FILE'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PROJ_LIB": "/of/others"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["/of/others", "None"]


def test_a_gdal_that_another_library_started_wrongly_is_named(folder):
    """The error names the variable instead of calling the file corrupt."""
    program = (
        "import sys, pathlib, rasterio\n"
        "with rasterio.Env(): pass\n"  # drivers are registered here, without GTiff
        "from hephaestus_build.core.errors import HephaestusError\n"
        "from hephaestus_build.sources.licsar.geotiff import read_phase\n"
        "try: read_phase(pathlib.Path(sys.argv[1]))\n"
        "except HephaestusError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder / "point.tif"],
        env={**os.environ, "GDAL_SKIP": "GTiff"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unset GDAL_SKIP" in done.stdout
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_a_failure_of_gdal_is_no_fault_of_the_file(folder, monkeypatch):
    def broken(*, repeat: bool = False) -> None:
        if repeat:
            raise HephaestusError("GDAL does not work here")

    monkeypatch.setattr("hephaestus_build.sources.licsar.geotiff.check_gdal", broken)
    with pytest.raises(HephaestusError, match="does not work"):
        read_phase(folder / "damaged.tif")


def test_the_coordinate_system_is_that_of_its_code():
    assert gdal.wgs84_crs() == rasterio.crs.CRS.from_epsg(4326)
    assert gdal.wgs84_crs().to_wkt() == rasterio.crs.CRS.from_epsg(4326).to_wkt()


def test_the_grid_is_the_one_that_gdal_finds(folder):
    with rasterio.open(folder / "point.tif") as dataset:
        assert read_phase(folder / "point.tif").grid.transform == dataset.transform
    assert GRID.same_as(read_phase(folder / "point.tif").grid, 1e-6)
