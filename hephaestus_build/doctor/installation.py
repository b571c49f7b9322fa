"""Checks of the installation: Python and packages within the tested bounds, GDAL and PROJ."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata

import rasterio
from packaging.requirements import InvalidRequirement, Requirement

from hephaestus_build.core.crs import is_wgs84
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.gdal import check_gdal, wgs84_crs
from hephaestus_build.doctor.check import Check, judge

DISTRIBUTION = "hephaestus-build"
_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.[0-9]+)")
_INSTALL_AGAIN = f"pip install --upgrade {DISTRIBUTION}"
_FOREIGN = ("GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_DATA", "PROJ_LIB")


def check_installation(extras: Iterable[str] = ()) -> Iterator[Check]:
    """Yield the checks of Python, of the packages and of GDAL.

    Parameters
    ----------
    extras : iterable of str
        Extras whose packages are checked too, where they are installed.
    """
    try:
        found = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Check(
            "packages",
            "failed",
            f"{DISTRIBUTION} is not installed, so its bounds are unknown",
            "pip install -e .",
        )
    else:
        yield check_python(found.get_all("Classifier") or [], platform.python_version())
        yield check_packages(found.get_all("Requires-Dist") or [], _installed_version, extras)
    yield check_raster_library()
    yield check_foreign_data(os.environ)


def check_python(classifiers: Sequence[str], version: str) -> Check:
    """Check that Python is one of the versions that are tested.

    Parameters
    ----------
    classifiers : sequence of str
        Those of the distribution; they name the tested versions.
    version : str
        Version of this Python.
    """
    tested = [match[1] for text in classifiers if (match := _CLASSIFIER.fullmatch(text))]
    within = ".".join(version.split(".")[:2]) in tested
    return judge(
        "python",
        "" if within else f"Python {version} is not tested; {', '.join(tested) or 'none'} are",
        ok=f"Python {version} on {sys.platform}",
        next_step=f"make an environment with Python {tested[-1] if tested else '3'}",
        verdict="warning",
    )


def check_packages(
    requirements: Iterable[str], installed: Callable[[str], str | None], extras: Iterable[str] = ()
) -> Check:
    """Check that every required package is installed in a version that is allowed.

    Parameters
    ----------
    requirements : iterable of str
        Lines ``Requires-Dist`` of the distribution.
    installed : callable
        Returns the version of a package; None if it is not installed.
    extras : iterable of str
        Extras whose packages must fit where they are installed.
    """
    missing, outside, count = [], [], 0
    for line in requirements:
        try:
            item = Requirement(line)
        except InvalidRequirement:
            continue
        needed = item.marker is None or item.marker.evaluate({"extra": ""})
        if not needed and not any(item.marker and item.marker.evaluate({"extra": name}) for name in extras):
            continue
        version = installed(item.name)
        if version is None:
            missing += [item.name] if needed else []
            continue
        count += 1
        if not item.specifier.contains(version, prereleases=True):
            outside.append(f"{item.name} {version} (allowed: {item.specifier})")
    faults = ([f"not installed: {', '.join(missing)}"] if missing else []) + (
        [f"outside of the tested bounds: {', '.join(outside)}"] if outside else []
    )
    return judge(
        "packages",
        "; ".join(faults),
        ok=f"{count} packages are within their bounds",
        next_step=_INSTALL_AGAIN,
    )


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_raster_library() -> Check:
    """Check that GDAL writes and reads a raster, and that its PROJ understands the coordinate system."""
    fault = ""
    try:
        check_gdal(repeat=True)
        if not is_wgs84(wgs84_crs().to_wkt()):
            fault = "PROJ does not understand WGS 84"
    except HephaestusError as error:
        fault = str(error)
    except Exception as error:  # rasterio raises many types where its data do not belong to it
        fault = f"PROJ does not work ({type(error).__name__}: {error})"
    return judge(
        "gdal",
        fault,
        ok=f"GDAL {rasterio.__gdal_version__} reads and writes rasters (rasterio {rasterio.__version__})",
        next_step="install rasterio again, and unset variables of other installations of GDAL and PROJ",
    )


def check_foreign_data(environment: Mapping[str, str]) -> Check:
    """Check whether variables lead other programs to data of another GDAL or PROJ.

    Parameters
    ----------
    environment : mapping of str to str
        Variables of the environment.
    """
    found = [name for name in _FOREIGN if environment.get(name)]
    return judge(
        "gdal_environment",
        f"{', '.join(found)} may belong to another installation; this program does not use them"
        if found
        else "",
        ok="no variable leads GDAL or PROJ elsewhere",
        next_step=f"unset {' '.join(found)} if other tools of this environment fail",
        verdict="warning",
    )
