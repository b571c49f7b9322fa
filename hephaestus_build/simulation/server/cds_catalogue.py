"""Documents of the simulated CDS's catalogue: the data set, its form, its constraints and its licence."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, ERA5_VARIABLES

DATASET = "reanalysis-era5-single-levels"
TITLE = "ERA5 hourly data on single levels from 1940 to present, simulated"
#: First day of the data set.
FIRST_DATE = date(1940, 1, 1)
#: The licence of the data set; an account accepts one revision of it.
LICENCE: dict[str, Any] = {
    "id": "licence-to-use-copernicus-products",
    "revision": 12,
    "label": "Licence to use Copernicus Products (simulated: nothing has to be accepted)",
    "scope": "dataset",
}
_PUBLISHED = datetime(2018, 6, 14, tzinfo=UTC)
#: Values of the parameters that are not dates.
_CHOICES: dict[str, list[str]] = {
    "product_type": ["reanalysis"],
    "variable": list(ERA5_VARIABLE_NAMES),
    "time": [f"{hour:02d}:00" for hour in range(24)],
    "data_format": ["netcdf"],
    "download_format": ["unarchived", "zip"],
}


class UnknownParameterError(ValueError):
    """A request has a parameter, or a value of one, that the data set does not have."""


def collection_document(api: str, latest: date) -> dict[str, Any]:
    """Return the description of the data set in the form of a STAC collection.

    Parameters
    ----------
    api : str
        Address of the API.
    latest : datetime.date
        Last date with data.
    """
    begin, end, updated = (
        datetime.combine(day, time(), tzinfo=UTC).isoformat() for day in (FIRST_DATE, latest, latest)
    )
    here = f"{api}/catalogue/v1/collections/{DATASET}"
    return {
        "type": "Collection",
        "id": DATASET,
        "stac_version": "1.1.0",
        "title": TITLE,
        "description": "Fields of a simulated world in the form of ERA5; they describe no weather that was.",
        "keywords": ["Simulated", "Reanalysis"],
        "license": LICENCE["id"],
        "published": _PUBLISHED.isoformat(),
        "updated": updated,
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[begin, end]]},
        },
        "links": [
            {"rel": "self", "type": "application/json", "href": here},
            {"rel": "retrieve", "type": "application/json", "href": _process_url(api)},
            {"rel": "form", "type": "application/json", "href": f"{here}/form.json"},
            {"rel": "constraints", "type": "application/json", "href": f"{here}/constraints.json"},
        ],
        "cads:disabled_reason": None,
        "simulated": True,
    }


def process_document(api: str) -> dict[str, Any]:
    """Return the description of the data set's process."""
    link = {"rel": "self", "type": "application/json", "href": _process_url(api)}
    return {"id": DATASET, "title": TITLE, "version": "1.0.0", "links": [link]}


def form_document(latest: date) -> list[dict[str, Any]]:
    """Return the form of a request: its parameters, with their values and labels."""
    labels = {variable.name: variable.long_name for variable in ERA5_VARIABLES}
    form: list[dict[str, Any]] = [
        {
            "name": name,
            "label": name.replace("_", " ").capitalize(),
            "type": "StringListWidget",
            "required": name not in ("data_format", "download_format"),
            "details": {"values": values, "labels": {value: labels.get(value, value) for value in values}},
        }
        for name, values in find_valid_values({}, latest).items()
    ]
    area = {"range": {"n": 90, "w": -180, "s": -90, "e": 180}, "precision": 2}
    form.append({"name": "area", "label": "Area", "type": "GeographicExtentWidget", "details": area})
    return form


def constraints_document(latest: date) -> list[dict[str, list[str]]]:
    """Return the valid combinations of values: years before the last one, its months, and its last month."""
    last = {"year": [f"{latest.year}"]}
    selections = (
        {"year": [f"{year}" for year in range(FIRST_DATE.year, latest.year)]},
        {**last, "month": [f"{month:02d}" for month in range(1, latest.month)]},
        {**last, "month": [f"{latest.month:02d}"]},
    )
    found = (find_valid_values(selection, latest) | selection for selection in selections)
    return [values for values in found if all(values.values())]


def find_valid_values(selection: dict[str, Any], latest: date) -> dict[str, list[str]]:
    """Return the values of each parameter that can be combined with what is selected of the others.

    Parameters
    ----------
    selection : dict
        Parameters of an incomplete request.
    latest : datetime.date
        Last date with data.

    Raises
    ------
    UnknownParameterError
        If the data set does not have a parameter, or a value of one.
    """
    every = {
        "year": [f"{year}" for year in range(FIRST_DATE.year, latest.year + 1)],
        "month": [f"{month:02d}" for month in range(1, 13)],
        "day": [f"{day:02d}" for day in range(1, 32)],
    }
    names = {**_CHOICES, **every, "area": []}
    for name, value in selection.items():
        unknown = {str(item) for item in _as_list(value)} - {*names.get(name, ())}
        if name not in names or (unknown and name != "area"):
            what = f"value {', '.join(sorted(unknown))} of " if name in names else ""
            raise UnknownParameterError(f"{what}parameter '{name}' is not valid")
    only_last_year = _is_only(selection.get("year"), f"{latest.year}")
    months = every["month"][: latest.month] if only_last_year else every["month"]
    only_last_month = only_last_year and _is_only(selection.get("month"), f"{latest.month:02d}")
    days = every["day"][: latest.day] if only_last_month else every["day"]
    return {**_CHOICES, "year": every["year"], "month": months, "day": days}


def _is_only(value: Any, wanted: str) -> bool:
    return [str(item) for item in _as_list(value)] == [wanted]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _process_url(api: str) -> str:
    return f"{api}/retrieve/v1/processes/{DATASET}"
