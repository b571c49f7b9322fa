"""Georeference of a GeoTIFF: its transform and coordinate system, read from its tags.

No database of coordinate systems is needed, since the only allowed one is geographic WGS 84 (EPSG:4326). The
tags and keys are defined in OGC GeoTIFF 1.1 (OGC 19-008r4).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from affine import Affine

from hephaestus_build.sources.licsar.tiff_directory import TiffDirectory, TiffTag

# GeoTIFF keys.
_MODEL, _RASTER_TYPE = 1024, 1025
_GEOGRAPHIC, _DATUM, _MERIDIAN, _UNIT, _ELLIPSOID = 2048, 2050, 2051, 2054, 2056
_UNIT_SIZE, _SEMI_MAJOR, _SEMI_MINOR, _FLATTENING, _MERIDIAN_AT = 2055, 2057, 2058, 2059, 2061
_TO_WGS84 = 2062
_PROJECTED, _VERTICAL, _VERTICAL_UNIT = 3072, 4096, 4099
# EPSG codes of heights in metres above the ellipsoid, mean sea level, EGM84, EGM96, EGM2008 and NAVD88.
_HEIGHT_CRS_CODES = (5030, 5714, 5798, 5773, 3855, 5703)
_USER_DEFINED = 32767
_PIXEL_IS_POINT = 2
_DEGREE = 0.0174532925199433

# Allowed values of each key in geographic WGS 84; 0 (undefined) and 32767 (user-defined) are allowed too.
_WGS84_CODES = {_DATUM: (6326,), _MERIDIAN: (8901,), _UNIT: (9102, 9122), _ELLIPSOID: (7030,)}
_WGS84_VALUES = {
    _UNIT_SIZE: (_DEGREE, 1e-9),
    _SEMI_MAJOR: (6378137.0, 1e-3),
    _SEMI_MINOR: (6356752.314245, 1e-3),
    _FLATTENING: (298.257223563, 1e-7),
    _MERIDIAN_AT: (0.0, 1e-12),
}

GeoKeys = Mapping[int, "int | np.ndarray"]


def read_geokeys(directory: TiffDirectory) -> GeoKeys:
    """Return the GeoTIFF keys of an image: codes as int, values as float64; texts are left out.

    Raises
    ------
    ValueError
        If the key directory is cut.
    """
    table = directory.values(TiffTag.GEO_KEYS, (3,), most=4 * 1024)
    if table is None or table.size < 4:
        return {}
    doubles = directory.values(TiffTag.GEO_DOUBLES, (12,), most=4096)
    keys: dict[int, int | np.ndarray] = {}
    count = int(table[3])
    if table.size < 4 * (count + 1):
        raise ValueError("its directory of GeoTIFF keys is cut")
    for key, place, number, value in table[4 : 4 * (count + 1)].reshape(-1, 4).tolist():
        if place == 0:
            keys[key] = value
        elif place == TiffTag.GEO_DOUBLES:
            if doubles is None or value + number > doubles.size:
                raise ValueError("its directory of GeoTIFF keys is cut")
            keys[key] = doubles[value : value + number]
    return keys


def check_wgs84(keys: GeoKeys) -> None:
    """Check that the coordinate system is geographic WGS 84, in degrees from Greenwich.

    1. It must be geographic, and either EPSG:4326 or user-defined.
    2. No key may contradict WGS 84: datum, ellipsoid, prime meridian, unit, axis lengths, datum shift.
    3. A user-defined system must identify WGS 84 by its datum or its ellipsoid.

    Raises
    ------
    ValueError
        If it is another coordinate system, or its keys contradict one another.
    """
    projected, geographic = _key_code(keys, _PROJECTED), _key_code(keys, _GEOGRAPHIC)
    named = next((f"EPSG:{code}" for code in (projected, geographic) if 0 < code < _USER_DEFINED), "")
    if not keys:
        raise ValueError("the coordinate system is missing where EPSG:4326 was expected")
    if _key_code(keys, _MODEL) != 2 or projected or geographic not in (4326, _USER_DEFINED):
        raise ValueError(f"the coordinate system is {named or 'not geographic'} where EPSG:4326 was expected")
    wrong = [
        f"key {key} is {code}"
        for key, allowed in _WGS84_CODES.items()
        if (code := _key_code(keys, key)) not in (0, _USER_DEFINED, *allowed)
    ]
    for key, (expected, tolerance) in _WGS84_VALUES.items():
        if key in keys and not np.allclose(_key_doubles(keys, key), expected, rtol=0, atol=tolerance):
            wrong.append(f"key {key} is {_key_doubles(keys, key)[:1].tolist()}")
    if _key_doubles(keys, _TO_WGS84).any():
        wrong.append("it is shifted against WGS 84")
    known = (
        _key_code(keys, _DATUM) == 6326 or _key_code(keys, _ELLIPSOID) == 7030 or {_SEMI_MAJOR} <= keys.keys()
    )
    if not wrong and geographic == _USER_DEFINED and not known:
        wrong.append("its datum is not given")
    if wrong:
        raise ValueError(f"the coordinate system is not EPSG:4326: {', '.join(wrong)}")


def check_vertical_units(keys: GeoKeys) -> None:
    """Check that the vertical coordinate system, if there is one, has heights in metres.

    Raises
    ------
    ValueError
        If it is not known to have heights in metres: others are in feet, or are depths.
    """
    vertical, unit = _key_code(keys, _VERTICAL), _key_code(keys, _VERTICAL_UNIT)
    if vertical not in (0, *_HEIGHT_CRS_CODES) or unit not in (0, 9001):
        raise ValueError(
            f"its vertical coordinate system is EPSG:{vertical} in units of EPSG:{unit}, which is not known "
            "to be heights in metres"
        )


def read_geotransform(directory: TiffDirectory, keys: GeoKeys) -> Affine:
    """Return the transform from pixel-edge coordinates to degrees, as GDAL does by default.

    If the raster type is *pixel is point*, the tags locate the centres of pixels, so the origin is moved by
    half a pixel: with pixels of 0.001 degrees, from 10.0 E to 9.9995 E.

    Parameters
    ----------
    directory : TiffDirectory
        Tags of the image.
    keys : GeoKeys
        GeoTIFF keys of the image, for the raster type.

    Raises
    ------
    ValueError
        If there is no transform, only ground control points, or two transforms that differ.
    """
    scale = directory.doubles(TiffTag.PIXEL_SCALE, most=3)
    ties = _read_tie_point(directory)
    matrix = directory.doubles(TiffTag.TRANSFORMATION, most=16)
    found: list[Affine] = []
    if scale is not None and scale.size >= 2 and scale[:2].all() and ties is not None:
        dx, dy = float(scale[0]), -float(scale[1])
        if dy > 0:
            raise ValueError("its pixel size is negative: its orientation is ambiguous")
        column, row, _, x, y, _ = ties.tolist()
        found.append(Affine(dx, 0.0, x - column * dx, 0.0, dy, y - row * dy))
    if matrix is not None and matrix.size == 16:
        a, b, _, c, d, e, _, f = matrix[:8].tolist()
        found.append(Affine(a, b, c, d, e, f))
    if not found or not found[0].determinant:
        raise ValueError("the raster has no georeference")
    if len(found) == 2 and not found[0].almost_equals(found[1], 1e-9):
        raise ValueError("it has two georeferences that differ")
    here = found[0]
    kind = _key_code(keys, _RASTER_TYPE)
    if kind not in (0, 1, _PIXEL_IS_POINT):
        raise ValueError(f"its pixels are neither areas nor points (raster type {kind})")
    if kind == _PIXEL_IS_POINT:
        return Affine(
            here.a, here.b, here.c - (here.a * 0.5 + here.b * 0.5),
            here.d, here.e, here.f - (here.d * 0.5 + here.e * 0.5),
        )  # fmt: skip
    return here


def _read_tie_point(directory: TiffDirectory) -> np.ndarray | None:
    """Return the only tie point; None if there is none or if there are several (ground control points)."""
    if directory.entries.get(TiffTag.TIE_POINTS, (0, 0, 0))[:2] != (12, 6):
        return None
    return directory.doubles(TiffTag.TIE_POINTS, most=6)


def _key_code(keys: GeoKeys, key: int) -> int:
    value = keys.get(key, 0)
    return value if isinstance(value, int) else -1


def _key_doubles(keys: GeoKeys, key: int) -> np.ndarray:
    value = keys.get(key, ())
    return np.atleast_1d(np.asarray(value, dtype=float))
