"""Reader of the CDS's netCDF results, in either of their layouts, with checks of every field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from hephaestus_build.core.era5_grid import (
    ERA5_VARIABLES,
    EXPVER_FINAL,
    EXPVER_PRELIMINARY,
    EXPVER_UNSTATED,
    Era5Area,
    Era5Variable,
)
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.sources.era5.fields import decode_cf_times, implausibility_reason, normalize_units
from hephaestus_build.sources.era5.netcdf_process import NetcdfProcess
from hephaestus_build.sources.era5.netcdf_reader import MAX_NETCDF_BYTES, NetcdfError, NetcdfFile
from hephaestus_build.sources.era5.netcdf_reader import NetcdfVariable as Stored

#: Versions of an hour in order of preference; fields without a stated version come last.
_VERSION_PREFERENCE = (EXPVER_FINAL, EXPVER_PRELIMINARY, EXPVER_UNSTATED)
_AXIS_NAMES = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "time": ("valid_time", "time"),
}
#: The field of each variable, hour and version, shape (n, m).
_LayersByVersion = dict[str, dict[datetime, dict[str, np.ndarray]]]


class InvalidCdsFileError(ValueError):
    """The file cannot be read or does not hold what was requested; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(sanitize_text(message))  # names and units in it come from the file


@dataclass
class CdsFields:
    """The requested fields that a result holds.

    Attributes
    ----------
    values : dict of datetime to np.ndarray, float32, shape (3, n, m)
        Checked fields in the order of :data:`ERA5_VARIABLES`.
    expver : dict of datetime to str
        Version of the same hours.
    rejected_hours : dict of datetime to str
        Requested hours that the file holds but that cannot be used, with the reason.
    notes : tuple of str
        Notes for the provenance.
    """

    values: dict[datetime, np.ndarray] = field(default_factory=dict)
    expver: dict[datetime, str] = field(default_factory=dict)
    rejected_hours: dict[datetime, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_cds_netcdf(
    path: Path, area: Era5Area, times: Sequence[datetime], reader: NetcdfProcess | None = None
) -> CdsFields:
    """Read a netCDF file, or a zip of several, and return the requested hours.

    The three variables are identified by GRIB parameter, long name or short name, in that order. They must
    have the expected units and every grid line of `area`. Both layouts are read: the present one
    (``valid_time``, strings in ``expver``) and the one until 2024 (``time``, packed integers, sometimes a
    dimension ``expver``).

    A file may hold an hour several times. One is selected in two steps:

    1. Of copies of one version, the first without missing values is taken, else the first. A note records
       where two copies differ.
    2. Of the versions, the first that has all three variables with plausible values is taken, in the order
       final, preliminary, not stated. Variables of different versions are never mixed.

    For example, an hour with a complete preliminary version and a final one that lacks the surface pressure
    is taken from the preliminary version.

    Parameters
    ----------
    path : Path
        The downloaded file.
    area : Era5Area
        Grid lines to select.
    times : sequence of datetime
        Requested hours.
    reader : NetcdfProcess, optional
        Process that reads the file; by default one is started for this file.

    Raises
    ------
    InvalidCdsFileError
        If no requested hour can be used.
    """
    if path.stat().st_size > MAX_NETCDF_BYTES:
        raise InvalidCdsFileError(f"it is larger than {MAX_NETCDF_BYTES >> 20} MB")
    try:
        if reader is None:
            with NetcdfProcess() as own:
                files = own.read(path.read_bytes())
        else:
            files = reader.read(path.read_bytes())
    except NetcdfError as error:
        raise InvalidCdsFileError(str(error)) from None
    return select_hours(files, area, times)


def select_hours(files: Sequence[NetcdfFile], area: Era5Area, times: Sequence[datetime]) -> CdsFields:
    """Select the requested hours from decoded files, as :func:`read_cds_netcdf` describes.

    Parameters
    ----------
    files : sequence of NetcdfFile
        All files of one result.
    area : Era5Area
        Grid lines to select.
    times : sequence of datetime
        Requested hours.

    Raises
    ------
    InvalidCdsFileError
        If no requested hour can be used.
    """
    layers: _LayersByVersion = {}
    seen: list[str] = []
    notes: list[str] = []
    wanted = set(times)
    for file in files:
        if file.attributes.get("simulated"):
            notes.append("simulated")
        for name, variable in file.variables.items():
            seen += [name] if len(variable.shape) > 1 else []
            if (known := _match_variable(name, variable)) is not None:
                notes.append(f"{known.name} read from {sanitize_text(name, 40)}")
                found = layers.setdefault(known.name, {})
                for time, version, layer in _iterate_hours(file, variable, known, area):
                    if time in wanted:
                        notes += _add_copy(
                            found.setdefault(time, {}), version, layer, f"{known.name} at {time}"
                        )
    for expected in ERA5_VARIABLES:
        if expected.name not in layers:
            raise InvalidCdsFileError(f"it holds no {expected.name}, only {', '.join(seen) or 'nothing'}")
    answer = CdsFields()
    for time in times:
        copies = [layers[expected.name].get(time, {}) for expected in ERA5_VARIABLES]
        if any(copies):
            _select_version(answer, time, copies)
    answer.notes = tuple(dict.fromkeys(notes))
    if not answer.values:
        found_wrong = [f"{time:%Y-%m-%d %H:%M}: {reason}" for time, reason in answer.rejected_hours.items()]
        raise InvalidCdsFileError(found_wrong[0] if found_wrong else "it holds none of the requested hours")
    return answer


def _add_copy(copies: dict[str, np.ndarray], version: str, layer: np.ndarray, what: str) -> list[str]:
    """Add `layer` as `version` unless there is a better copy; return a note if the two differ."""
    kept = copies.setdefault(version, layer)
    if kept is layer or not np.isfinite(layer).all():
        return []
    if not np.isfinite(kept).all():
        copies[version] = layer
        return []
    return [] if np.array_equal(kept, layer) else [f"{what} occurs twice and differs: the first is used"]


def _select_version(answer: CdsFields, time: datetime, copies: Sequence[dict[str, np.ndarray]]) -> None:
    """Take an hour from the first version that is complete and plausible, or record why none is."""
    reasons = []
    for version in _VERSION_PREFERENCE:
        layers = [copy[version] for copy in copies if version in copy]
        if len(layers) == len(ERA5_VARIABLES):
            reason = next(filter(None, map(implausibility_reason, ERA5_VARIABLES, layers)), "")
            if not reason:
                answer.values[time], answer.expver[time] = np.stack(layers), version
                return
            reasons.append(reason)
    if not all(copies):
        reasons.append("some variables lack this hour")
    versions = sorted({version for copy in copies for version in copy})
    reasons.append(f"its variables are of different versions: {', '.join(versions)}")
    answer.rejected_hours[time] = reasons[0]


def _match_variable(name: str, variable: Stored) -> Era5Variable | None:
    """Return which of the three variables this one is; None if it is another."""
    if not {"latitude", "lat"} & set(variable.dimensions) or not variable.dtype:
        return None
    param = variable.attributes.get("GRIB_paramId")
    if param is not None:
        return next((known for known in ERA5_VARIABLES if known.grib_param == param), None)
    title = _text_attribute(variable, "long_name").casefold()
    for known in ERA5_VARIABLES:
        if title == known.long_name.casefold():
            return known
    return next((known for known in ERA5_VARIABLES if name in (*known.aliases, known.name)), None)


def _iterate_hours(
    file: NetcdfFile, variable: Stored, known: Era5Variable, area: Era5Area
) -> Iterator[tuple[datetime, str, np.ndarray]]:
    """Yield each hour of one variable, its version and its field on `area`, shape (n, m)."""
    units = _text_attribute(variable, "units")
    if normalize_units(units) != normalize_units(known.units):
        raise InvalidCdsFileError(f"{known.name} is in {units or 'no units'!r}, not in {known.units!r}")
    roles = {role: _find_axis(file, variable, role) for role in _AXIS_NAMES}
    wanted = (roles["time"], "expver", roles["latitude"], roles["longitude"])
    data = variable.values()
    order = [variable.dimensions.index(name) for name in wanted if name in variable.dimensions]
    others = [position for position in range(data.ndim) if position not in order]
    if any(data.shape[position] != 1 for position in others):
        extra = ", ".join(variable.dimensions[position] for position in others)
        raise InvalidCdsFileError(f"{known.name} varies along {extra}")
    data = data.transpose(*others, *order).reshape([data.shape[position] for position in order])
    for position, name in enumerate(wanted[:2]):
        if name not in variable.dimensions:
            data = np.expand_dims(data, position)
    sizes = dict(zip(variable.dimensions, variable.shape, strict=True))
    rows, columns = (
        _locate_lines(file.variables[roles[role]], sizes[roles[role]], lines, known.name, turn)
        for role, lines, turn in (("latitude", area.latitudes, None), ("longitude", area.longitudes, 360))
    )
    with np.errstate(all="ignore"):  # values that overflow float32 are rejected as implausible later
        data = data[:, :, rows][..., columns].astype(np.float32)
    moments = _decode_time_axis(file.variables[roles["time"]])
    if data.shape[0] != len(moments):
        raise InvalidCdsFileError(f"{known.name} has {data.shape[0]} hours, its time axis {len(moments)}")
    versions = _read_versions(file, len(moments), data.shape[1], split="expver" in variable.dimensions)
    for moment, choices, names in zip(moments, data, versions, strict=True):
        # the layout until 2024 stores final and preliminary hours in two halves, one of them missing values
        for version, layer in zip(names, choices, strict=True):
            yield moment, version, layer


def _find_axis(file: NetcdfFile, variable: Stored, role: str) -> str:
    """Return the name of the coordinate of `variable` for `role`, a key of `_AXIS_NAMES`."""
    for name in _AXIS_NAMES[role]:
        axis = file.variables.get(name)
        if axis is None or not axis.dtype:
            continue
        if (name in variable.dimensions and axis.dimensions == (name,)) or (
            role == "time" and not axis.shape and name not in variable.dimensions
        ):
            return name
    raise InvalidCdsFileError(f"it has no {role} axis")


def _locate_lines(axis: Stored, size: int, wanted: np.ndarray, name: str, turn: int | None) -> list[int]:
    """Return the position of each `wanted` grid line on `axis`."""

    def key(degrees: float) -> int:
        thousandths = round(float(degrees) * 1000)
        return thousandths % (turn * 1000) if turn else thousandths

    found = axis.values()
    if found.size != size or not size or not np.isfinite(found).all():
        raise InvalidCdsFileError(f"an axis of {name} does not have {size} finite values")
    positions: dict[int, int] = {}
    for position, degrees in enumerate(found):
        positions.setdefault(key(degrees), position)
    try:
        return [positions[key(degrees)] for degrees in wanted]
    except KeyError:
        axis_name = "longitudes" if turn else "latitudes"
        raise InvalidCdsFileError(
            f"{name} covers {axis_name} {np.min(found):g} to {np.max(found):g}, requested were "
            f"{wanted.min():g} to {wanted.max():g}"
        ) from None


def _decode_time_axis(axis: Stored) -> list[datetime]:
    try:
        calendar = _text_attribute(axis, "calendar") or "standard"
        return decode_cf_times(np.atleast_1d(axis.values()), _text_attribute(axis, "units"), calendar)
    except ValueError as error:
        raise InvalidCdsFileError(str(error)) from None


def _read_versions(file: NetcdfFile, hours: int, halves: int, *, split: bool) -> list[list[str]]:
    """Return the version names of each hour, one for each of `halves`.

    With `split`, versions are a dimension of the data, as in ``data[hour, version]``; without, ``expver`` is
    a variable along time, and there is one half.
    """
    stated = file.variables.get("expver")
    if stated is None:
        # the old layout has no expver if all data is final; the present layout always should have it
        silent = EXPVER_FINAL if "valid_time" not in file.variables else EXPVER_UNSTATED
        return [[silent] * halves] * hours
    names = [_normalize_version(value) for value in np.atleast_1d(stated.values()).ravel().tolist()]
    if wrong := sorted(set(names) - {EXPVER_FINAL, EXPVER_PRELIMINARY}):
        raise InvalidCdsFileError(f"it is of version {', '.join(wrong)}, neither final nor preliminary ERA5")
    if len(names) != (halves if split else hours) and len(names) != 1:
        raise InvalidCdsFileError(f"it names {len(names)} versions for {hours} hours")
    if split:
        return [names * halves if len(names) == 1 else names] * hours
    return [[name] for name in (names * hours if len(names) == 1 else names)]


def _normalize_version(value: str | float) -> str:
    text = f"{value:g}" if isinstance(value, float) else value
    return text.strip().zfill(4)


def _text_attribute(variable: Stored, name: str) -> str:
    value = variable.attributes.get(name, "")
    return value[:200] if isinstance(value, str) else ""
