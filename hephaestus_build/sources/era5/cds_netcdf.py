"""What the CDS answers: netCDF of several makes, checked before any of it is used."""

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

#: Versions of an hour, the one to take first; what does not say which it is comes last.
_VERSION_PREFERENCE = (EXPVER_FINAL, EXPVER_PRELIMINARY, EXPVER_UNSTATED)
_AXIS_NAMES = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "time": ("valid_time", "time"),
}
#: For each variable and hour what each version says, shape (n, m).
_LayersByVersion = dict[str, dict[datetime, dict[str, np.ndarray]]]


class InvalidCdsFileError(ValueError):
    """The answer is not what was asked for, or cannot be read; the message says how."""

    def __init__(self, message: str) -> None:
        super().__init__(sanitize_text(message))  # names and units in it are the answer's


@dataclass
class CdsFields:
    """What an answer holds of what was asked.

    Attributes
    ----------
    values : dict of datetime to np.ndarray, float32, shape (3, n, m)
        Checked fields in the order of the catalogue.
    expver : dict of datetime to str
        For the same hours.
    rejected_hours : dict of datetime to str
        Hours that were asked for, are in the answer and cannot be used, with the reason.
    notes : tuple of str
        Facts for the provenance.
    """

    values: dict[datetime, np.ndarray] = field(default_factory=dict)
    expver: dict[datetime, str] = field(default_factory=dict)
    rejected_hours: dict[datetime, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_cds_netcdf(
    path: Path, area: Era5Area, times: Sequence[datetime], reader: NetcdfProcess | None = None
) -> CdsFields:
    """Read the netCDF (or the zip of some) at `path` and return the hours asked for.

    The three variables are found by their GRIB parameter, by long name or by one of their short names,
    in that order; they must have their units and cover `area` line by line. Both layouts are read: the
    present one (``valid_time``, strings in ``expver``) and the one until 2024 (``time``, packed integers,
    sometimes a dimension ``expver``).

    An hour may be there several times. All three variables are taken from one version of it: final before
    preliminary before one that is not stated, passing over a version that lacks a variable or whose values
    cannot be. Of two copies of one version, one without missing values counts before one with some, then
    the first in the answer; a note says where two differ.

    Parameters
    ----------
    path : Path
        The answer.
    area : Era5Area
        Where.
    times : sequence of datetime
        The hours asked for.
    reader : NetcdfProcess, optional
        Reads the file; by default one for this answer alone.

    Raises
    ------
    InvalidCdsFileError
        If nothing of it can be used.
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
    """Return the hours asked for from the files of one answer; as :func:`read_cds_netcdf`."""
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
        raise InvalidCdsFileError(found_wrong[0] if found_wrong else "it holds none of the hours asked for")
    return answer


def _add_copy(copies: dict[str, np.ndarray], version: str, layer: np.ndarray, what: str) -> list[str]:
    """Keep `layer` as `version` unless a better copy is kept; return a note if the two contradict."""
    kept = copies.setdefault(version, layer)
    if kept is layer or not np.isfinite(layer).all():
        return []
    if not np.isfinite(kept).all():
        copies[version] = layer
        return []
    return [] if np.array_equal(kept, layer) else [f"{what} is there twice and differs: the first counts"]


def _select_version(answer: CdsFields, time: datetime, copies: Sequence[dict[str, np.ndarray]]) -> None:
    """Take an hour from the first version that is whole and plausible, or note why there is none."""
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
    """Return which of the three variables this one is."""
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
    """Yield each hour of one variable, its version and the field (n, m) on `area`."""
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
    with np.errstate(all="ignore"):  # what is too large for single precision is no plausible value
        data = data[:, :, rows][..., columns].astype(np.float32)
    moments = _decode_time_axis(file.variables[roles["time"]])
    if data.shape[0] != len(moments):
        raise InvalidCdsFileError(f"{known.name} has {data.shape[0]} hours, its time axis {len(moments)}")
    versions = _read_versions(file, len(moments), data.shape[1], split="expver" in variable.dimensions)
    for moment, choices, names in zip(moments, data, versions, strict=True):
        # an old answer holds final and preliminary hours in two halves, one of them missing
        for version, layer in zip(names, choices, strict=True):
            yield moment, version, layer


def _find_axis(file: NetcdfFile, variable: Stored, role: str) -> str:
    """Return the name of the coordinate of `variable` that plays `role`."""
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
        raise InvalidCdsFileError(f"an axis of {name} has not one number for each of its {size} lines")
    positions: dict[int, int] = {}
    for position, degrees in enumerate(found):
        positions.setdefault(key(degrees), position)
    try:
        return [positions[key(degrees)] for degrees in wanted]
    except KeyError:
        axis_name = "longitudes" if turn else "latitudes"
        raise InvalidCdsFileError(
            f"{name} covers {axis_name} {np.min(found):g} to {np.max(found):g}, asked for were "
            f"{wanted.min():g} to {wanted.max():g}"
        ) from None


def _decode_time_axis(axis: Stored) -> list[datetime]:
    try:
        calendar = _text_attribute(axis, "calendar") or "standard"
        return decode_cf_times(np.atleast_1d(axis.values()), _text_attribute(axis, "units"), calendar)
    except ValueError as error:
        raise InvalidCdsFileError(str(error)) from None


def _read_versions(file: NetcdfFile, hours: int, halves: int, *, split: bool) -> list[list[str]]:
    """Return the version of each half of each hour."""
    stated = file.variables.get("expver")
    if stated is None:
        # only the old layout, which named versions where there were two, can be silent about final data
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
