"""Inputs of a request to the simulated CDS: variables, hours, area and form of the file."""

from __future__ import annotations

from datetime import datetime
from itertools import product
from typing import Any

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES


def asks_for_zip(inputs: dict[str, Any]) -> bool:
    """Return whether the file is wanted in a zip archive; ValueError for another form."""
    form = inputs.get("download_format", "unarchived")
    if form not in ("unarchived", "zip"):
        raise ValueError(f"download_format not available: {form}")
    return bool(form == "zip")


def text_list(inputs: dict[str, Any], name: str) -> list[str]:
    """Return a value of a request as a list of strings; a single value is a list of one."""
    value = inputs[name]
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def parse_hours(inputs: dict[str, Any]) -> list[datetime]:
    """Return the hours that a request selects: the product of its lists, less dates that do not exist.

    Raises
    ------
    ValueError
        If the request is invalid or selects nothing.
    """
    if unknown := set(text_list(inputs, "variable")) - set(ERA5_VARIABLE_NAMES):
        raise ValueError(f"variable not available: {', '.join(sorted(unknown))}")
    if text_list(inputs, "product_type") != ["reanalysis"]:
        raise ValueError("product_type must be reanalysis")
    form = inputs.get("data_format", inputs.get("format", "grib"))
    if form != "netcdf":
        what = "GRIB is not simulated" if form == "grib" else f"data_format {form} is not available"
        raise ValueError(f"{what}; request data_format netcdf")
    found = set()
    for year, month, day, hour in product(
        *(text_list(inputs, name) for name in ("year", "month", "day", "time"))
    ):
        moment = datetime.strptime(hour, "%H:%M")
        if moment.minute:
            raise ValueError(f"time not available: {hour}")
        try:
            found.add(datetime(int(year), int(month), int(day), moment.hour))
        except ValueError as error:
            if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
                raise ValueError(f"no such day: {year}-{month}-{day}") from error
    if not found:
        raise ValueError("the request selects nothing")
    return sorted(found)


def parse_area(inputs: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return north, west, south and east, degrees; the globe by default. ValueError if they are invalid."""
    north, west, south, east = (float(edge) for edge in inputs.get("area", (90, -180, -90, 179.75)))
    if east < west and -180 <= east < west <= 360:  # MARS goes eastwards from west, around the globe
        east += 360
    if not (-90 <= south <= north <= 90 and west <= east):
        raise ValueError(f"area must be North, West, South, East, got {[north, west, south, east]}")
    return north, west, south, east
