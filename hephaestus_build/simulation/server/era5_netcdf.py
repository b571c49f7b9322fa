"""ERA5 fields in the form of CDS downloads: values rounded as by GRIB packing, in the CDS netCDF layout."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import ERA5_STEP, ERA5_VARIABLES

#: Lock to hold while calling netCDF4, whose HDF5 library is not thread-safe.
NETCDF_LOCK = threading.Lock()


def round_as_grib(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Round fields as GRIB's simple packing with 16 bits does, each (n, m) plane separately.

    Parameters
    ----------
    values : np.ndarray, shape (..., n, m)
        Fields.

    Returns
    -------
    np.ndarray, float32
        The plane's minimum plus multiples of a power of two, the smallest for which 16 bits suffice.
    """
    planes = np.asarray(values, dtype=np.float64)
    least = planes.min(axis=(-2, -1), keepdims=True)
    span = np.maximum(planes.max(axis=(-2, -1), keepdims=True) - least, np.finfo(np.float64).tiny)
    scale = 2.0 ** np.ceil(np.log2(span / (2**16 - 1)))
    return (least + np.rint((planes - least) / scale) * scale).astype(np.float32)


def write_cds_netcdf(
    times: Sequence[datetime],
    latitudes: npt.NDArray[Any],
    longitudes: npt.NDArray[Any],
    values: npt.NDArray[Any],
    versions: Sequence[str],
    names: dict[str, int],
    units: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Return the bytes of a netCDF file in the layout of the present CDS.

    Parameters
    ----------
    times : sequence of datetime
        Hours, sorted, UTC.
    latitudes, longitudes : np.ndarray
        Coordinates, degrees; latitudes descending, longitudes ascending.
    values : np.ndarray, shape (times, 3, latitudes, longitudes)
        Fields, in the order of ``ERA5_VARIABLES``.
    versions : sequence of str
        ``expver`` of each hour.
    names : dict of str to int
        NetCDF names of the variables to write, with their index in `values`.
    units : mapping of str to str, optional
        Units to state of a variable, by its long name, in place of its own.
    """
    import netCDF4

    packing: dict[str, Any] = {"zlib": True, "complevel": 1, "shuffle": True}
    # written to a file: netCDF4's in-memory files are padded and cannot be amended
    with NETCDF_LOCK, TemporaryDirectory(prefix="hephaestus-") as folder:
        path = Path(folder) / "answer.nc"
        dataset = netCDF4.Dataset(path, "w")
        dataset.createDimension("valid_time", len(times))
        dataset.createDimension("latitude", latitudes.size)
        dataset.createDimension("longitude", longitudes.size)
        dataset.setncatts(
            {
                "GRIB_centre": "ecmf",
                "GRIB_centreDescription": "European Centre for Medium-Range Weather Forecasts",
                "GRIB_subCentre": np.int64(0),
                "Conventions": "CF-1.7",
                "institution": "Simulated by hephaestus-build; no data of any weather centre",
                "history": "written by a simulated archive",
                "simulated": "true",
            }
        )
        number = dataset.createVariable("number", "i8", ())
        number.setncatts(
            {"long_name": "ensemble member numerical id", "units": "1", "standard_name": "realization"}
        )
        number[...] = 0
        moment = dataset.createVariable("valid_time", "i8", ("valid_time",))
        moment.setncatts({"long_name": "time", "standard_name": "time", "units": "seconds since 1970-01-01"})
        moment.calendar = "proleptic_gregorian"
        moment[:] = [int((time - datetime(1970, 1, 1)) / timedelta(seconds=1)) for time in times]
        for name, axis, direction in (
            ("latitude", latitudes, "decreasing"),
            ("longitude", longitudes, ""),
        ):
            line = dataset.createVariable(name, "f8", (name,), fill_value=np.nan)
            unit = "degrees_north" if direction else "degrees_east"
            line.setncatts({"units": unit, "standard_name": name, "long_name": name})
            if direction:
                line.stored_direction = direction
            line[:] = axis
        version = dataset.createVariable("expver", str, ("valid_time",))
        version[:] = np.array(versions, dtype=object)
        for name, position in names.items():
            known = ERA5_VARIABLES[position]
            variable = dataset.createVariable(
                name, "f4", ("valid_time", "latitude", "longitude"), fill_value=np.float32(np.nan), **packing
            )
            variable.setncatts(
                {
                    "GRIB_paramId": np.int64(known.grib_param),
                    "GRIB_dataType": "an",
                    "GRIB_numberOfPoints": np.int64(latitudes.size * longitudes.size),
                    "GRIB_typeOfLevel": "surface",
                    "GRIB_stepUnits": np.int64(1),
                    "GRIB_stepType": "instant",
                    "GRIB_gridType": "regular_ll",
                    "GRIB_Nx": np.int64(longitudes.size),
                    "GRIB_Ny": np.int64(latitudes.size),
                    "GRIB_iDirectionIncrementInDegrees": ERA5_STEP,
                    "GRIB_jDirectionIncrementInDegrees": ERA5_STEP,
                    "GRIB_jScansPositively": np.int64(0),
                    "GRIB_cfName": "unknown",
                    "GRIB_cfVarName": name,
                    "GRIB_missingValue": 3.4028234663852886e38,
                    "GRIB_name": known.long_name,
                    "GRIB_shortName": known.aliases[0],
                    "GRIB_totalNumber": np.int64(0),
                    "GRIB_units": units.get(known.name, known.units),
                    "long_name": known.long_name,
                    "units": units.get(known.name, known.units),
                    "standard_name": "unknown",
                    "GRIB_surface": 0.0,
                    "coordinates": "number valid_time latitude longitude expver",
                }
            )
            variable[:] = values[:, position]
        dataset.close()
        return path.read_bytes()
