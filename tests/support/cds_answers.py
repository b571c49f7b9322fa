"""NetCDF files in the CDS's present layout and in its layout before 2024."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from era5_servers import AREA, JUNE, fields, truth
from hephaestus_build.simulation.server.era5_netcdf import NETCDF_LOCK, write_cds_netcdf

NAMES = {"tcwv": 0, "sp": 1, "vit": 2}


def answer(path: Path, **changes: Any) -> Path:
    """Write a file in the present layout, with `changes` applied."""
    given = {
        "times": JUNE,
        "latitudes": AREA.latitudes,
        "longitudes": AREA.longitudes,
        "versions": ["0001"] * len(JUNE),
        "names": NAMES,
        **changes,
    }
    values = changes.get("values")
    if values is None:
        values = np.stack([fields(hour, given["latitudes"], given["longitudes"]) for hour in given["times"]])
    path.write_bytes(write_cds_netcdf(**{**given, "values": values}))
    return path


def old_answer(path: Path, *, split: bool) -> Path:
    """Write a file in the layout before 2024: packed integers over `time`, and `expver` too if `split`."""
    with NETCDF_LOCK, netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as dataset:
        halves = ("expver",) if split else ()
        for name, size in (("longitude", 7), ("latitude", 5), ("time", 2), *((half, 2) for half in halves)):
            dataset.createDimension(name, size)
        for name, axis in (("longitude", AREA.longitudes % 360), ("latitude", AREA.latitudes)):
            dataset.createVariable(name, "f4", (name,))[:] = axis
        moment = dataset.createVariable("time", "i4", ("time",))
        moment.setncatts({"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"})
        moment[:] = [int((hour - datetime(1900, 1, 1)) / timedelta(hours=1)) for hour in JUNE]
        if split:
            dataset.createVariable("expver", "i4", ("expver",))[:] = [1, 5]
        for position, name in enumerate(("tcwv", "sp", "p54.162")):
            field = truth(JUNE)[:, position].astype(np.float64)
            variable = dataset.createVariable(
                name, "i2", ("time", *halves, "latitude", "longitude"), fill_value=-32767
            )
            units = ("kg m**-2", "Pa", "K kg m**-2")[position]
            variable.setncatts(
                {
                    "scale_factor": np.ptp(field) / 65_000,
                    "add_offset": (field.min() + field.max()) / 2,
                    "units": units,
                }
            )
            if split:
                halved = np.ma.array(np.zeros((2, 2, 5, 7)), mask=True)
                halved[0, 0], halved[1, 1] = field
                field = halved
            variable[:] = field
    return path
