"""What the CDS answers: netCDF of several makes, read whole and checked before any of it is used."""

from __future__ import annotations

import io
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_build.sources.fields import (
    CATALOGUE,
    FINAL,
    PRELIMINARY,
    UNSTATED,
    Area,
    Variable,
    decode_times,
    implausible,
)

#: The HDF5 library inside netCDF4 is not safe to enter from two threads; whoever calls netCDF4 holds this.
NETCDF_LOCK = threading.Lock()

_LARGEST = 1 << 30  # bytes unpacked: a month of one frame's area is a megabyte
_AXES = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "time": ("valid_time", "time"),
}


class WrongAnswerError(ValueError):
    """The answer is whole and is not what was asked for; the message says how."""


@dataclass
class Answer:
    """What an answer holds of what was asked.

    Attributes
    ----------
    values : dict of datetime to np.ndarray, float32, shape (3, n, m)
        Checked fields in the order of the catalogue.
    expver : dict of datetime to str
        For the same hours.
    troubles : dict of datetime to str
        Hours that were asked for, are in the answer and cannot be used, with the reason.
    notes : tuple of str
        Facts for the provenance.
    """

    values: dict[datetime, np.ndarray] = field(default_factory=dict)
    expver: dict[datetime, str] = field(default_factory=dict)
    troubles: dict[datetime, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_answer(path: Path, area: Area, times: Sequence[datetime]) -> Answer:
    """Read the netCDF (or the zip of some) at `path` and return the hours asked for.

    The three variables are found by their GRIB parameter, by long name or by one of their short names,
    in that order; they must have their units and cover `area` line by line. Both layouts are read: the
    present one (``valid_time``, strings in ``expver``) and the one until 2024 (``time``, packed integers,
    sometimes a dimension ``expver``).

    Raises
    ------
    WrongAnswerError
        If nothing of it can be used.
    """
    layers: dict[str, dict[datetime, tuple[np.ndarray, str]]] = {}
    seen: list[str] = []
    notes: list[str] = []
    with NETCDF_LOCK:
        for content in _members(path.read_bytes()):
            with _opened(content) as dataset:
                if getattr(dataset, "simulated", None):
                    notes.append("simulated")
                for name, variable in dataset.variables.items():
                    seen += [name] if variable.ndim > 1 else []
                    if (known := _identify(name, variable)) is not None:
                        notes.append(f"{known.name} read from {name}")
                        layers.setdefault(known.name, {}).update(_hours(dataset, variable, known, area))
    for wanted in CATALOGUE:
        if wanted.name not in layers:
            raise WrongAnswerError(f"it holds no {wanted.name}, only {', '.join(seen) or 'nothing'}")
    answer = Answer(notes=tuple(dict.fromkeys(notes)))
    for time in times:
        found = [layers[wanted.name].get(time) for wanted in CATALOGUE]
        here = [layer for layer in found if layer is not None]
        if not here:
            continue
        versions = {version for _, version in here}
        if len(here) < len(CATALOGUE):
            answer.troubles[time] = "some variables lack this hour"
        elif len(versions) > 1:
            answer.troubles[time] = f"its variables are of different versions: {', '.join(sorted(versions))}"
        elif reason := next(filter(None, map(implausible, CATALOGUE, (layer for layer, _ in here))), ""):
            answer.troubles[time] = reason
        else:
            answer.values[time], answer.expver[time] = np.stack([layer for layer, _ in here]), versions.pop()
    if not answer.values:
        found_wrong = [f"{time:%Y-%m-%d %H:%M}: {reason}" for time, reason in answer.troubles.items()]
        raise WrongAnswerError(found_wrong[0] if found_wrong else "it holds none of the hours asked for")
    return answer


def _members(content: bytes) -> Iterator[bytes]:
    """Yield the netCDF files in `content`, which is one or a zip of some."""
    if not content.startswith(b"PK\x03\x04"):
        yield content
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [info for info in archive.infolist() if info.filename.endswith(".nc")]
            if not names or sum(info.file_size for info in names) > _LARGEST:
                raise WrongAnswerError("it is a zip without netCDF files of a sensible size")
            for info in names:
                yield archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise WrongAnswerError(f"it is a zip that cannot be read: {error}") from None


def _opened(content: bytes) -> Any:
    """Open netCDF bytes; the caller holds the lock."""
    import netCDF4

    if not content.startswith((b"\x89HDF", b"CDF")):
        start = content[:24].decode("ascii", "replace").split("\n")[0]
        raise WrongAnswerError(f"it is no netCDF: it starts with {start!r}" if content else "it is empty")
    try:
        return netCDF4.Dataset("answer.nc", memory=content)
    except (OSError, RuntimeError) as error:
        raise WrongAnswerError(f"it is netCDF that cannot be read: {error}") from None


def _identify(name: str, variable: Any) -> Variable | None:
    """Return which of the three variables this one is."""
    if not {"latitude", "lat"} & set(variable.dimensions):
        return None
    param = getattr(variable, "GRIB_paramId", None)
    if param is not None:
        return next((known for known in CATALOGUE if known.param == int(param)), None)
    title = str(getattr(variable, "long_name", "")).casefold()
    for known in CATALOGUE:
        if title == known.long_name.casefold():
            return known
    return next((known for known in CATALOGUE if name in (*known.aliases, known.name)), None)


def _hours(
    dataset: Any, variable: Any, known: Variable, area: Area
) -> dict[datetime, tuple[np.ndarray, str]]:
    """Return the field (n, m) on `area` and the version of each hour of one variable."""
    units = str(getattr(variable, "units", ""))
    if _plain(units) != _plain(known.units):
        raise WrongAnswerError(f"{known.name} is in {units or 'no units'!r}, not in {known.units!r}")
    roles = {role: _axis(dataset, variable, role) for role in _AXES}
    wanted = (roles["time"], "expver", roles["latitude"], roles["longitude"])
    data = np.ma.filled(_read(variable, known.name).astype(np.float64), np.nan)
    order = [variable.dimensions.index(name) for name in wanted if name in variable.dimensions]
    others = [position for position in range(data.ndim) if position not in order]
    if any(data.shape[position] != 1 for position in others):
        extra = ", ".join(variable.dimensions[position] for position in others)
        raise WrongAnswerError(f"{known.name} varies along {extra}")
    data = data.transpose(*others, *order).reshape([data.shape[position] for position in order])
    for position, name in enumerate(wanted[:2]):
        if name not in variable.dimensions:
            data = np.expand_dims(data, position)
    rows = _lines(dataset[roles["latitude"]][:], area.latitudes, known.name, turn=None)
    columns = _lines(dataset[roles["longitude"]][:], area.longitudes, known.name, turn=360)
    data = data[:, :, rows][..., columns].astype(np.float32)
    moments = _moments(dataset[roles["time"]])
    versions = _versions(dataset, len(moments), data.shape[1], split="expver" in variable.dimensions)
    if data.shape[0] != len(moments):
        raise WrongAnswerError(f"{known.name} has {data.shape[0]} hours, its time axis {len(moments)}")
    result = {}
    for moment, choices, names in zip(moments, data, versions, strict=True):
        # an old answer holds final and preliminary hours in two halves, one of them missing
        best = next((k for k, choice in enumerate(choices) if np.isfinite(choice).all()), 0)
        result[moment] = choices[best], names[best]
    return result


def _read(variable: Any, name: str) -> np.ndarray:
    try:
        return np.ma.asanyarray(variable[:])
    except (OSError, RuntimeError) as error:
        raise WrongAnswerError(f"{name} cannot be read: {error}") from None


def _axis(dataset: Any, variable: Any, role: str) -> str:
    """Return the name of the coordinate of `variable` that plays `role`."""
    for name in _AXES[role]:
        if name in dataset.variables and (
            name in variable.dimensions or (role == "time" and dataset[name].ndim == 0)
        ):
            return name
    raise WrongAnswerError(f"it has no {role} axis")


def _lines(found: np.ndarray, wanted: np.ndarray, name: str, turn: int | None) -> list[int]:
    """Return the position of each `wanted` grid line among those `found`."""

    def key(degrees: float) -> int:
        thousandths = round(float(degrees) * 1000)
        return thousandths % (turn * 1000) if turn else thousandths

    try:
        positions = {key(degrees): position for position, degrees in enumerate(np.ma.filled(found, np.nan))}
        return [positions[key(degrees)] for degrees in wanted]
    except (KeyError, ValueError):
        axis = "longitudes" if turn else "latitudes"
        raise WrongAnswerError(
            f"{name} covers {axis} {np.min(found):g} to {np.max(found):g}, asked for were "
            f"{wanted.min():g} to {wanted.max():g}"
        ) from None


def _moments(axis: Any) -> list[datetime]:
    numbers = np.atleast_1d(np.ma.filled(axis[:]))
    try:
        return decode_times(
            numbers, str(getattr(axis, "units", "")), str(getattr(axis, "calendar", "standard"))
        )
    except ValueError as error:
        raise WrongAnswerError(str(error)) from None


def _versions(dataset: Any, hours: int, halves: int, *, split: bool) -> list[list[str]]:
    """Return the version of each half of each hour."""
    if "expver" not in dataset.variables:
        # only the old layout, which named versions where there were two, can be silent about final data
        stated = FINAL if "valid_time" not in dataset.variables else UNSTATED
        return [[stated] * halves] * hours
    names = [_version(value) for value in np.atleast_1d(np.ma.filled(dataset["expver"][:])).tolist()]
    if wrong := sorted(set(names) - {FINAL, PRELIMINARY}):
        raise WrongAnswerError(f"it is of version {', '.join(wrong)}, neither final nor preliminary ERA5")
    if len(names) != (halves if split else hours) and len(names) != 1:
        raise WrongAnswerError(f"it names {len(names)} versions for {hours} hours")
    if split:
        return [names] * hours
    return [[name] for name in (names * hours if len(names) == 1 else names)]


def _version(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip().zfill(4)


def _plain(units: str) -> str:
    return " ".join(units.replace("**", "").replace("^", "").split())
