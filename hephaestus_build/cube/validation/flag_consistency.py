"""Validation of a cube's flags against the files that are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import EXPVER_PUBLISHED
from hephaestus_build.core.plain_files import is_real_folder, read_plain_file, walk_files
from hephaestus_build.cube.key_spaces import RETIRED_CHUNK, KeySpace
from hephaestus_build.cube.schema import MASK_VARIABLES, cube_schema
from hephaestus_build.cube.validation.array_metadata import ValidationFinding

StoredPositions = dict[str, set[tuple[int, ...]]]
#: pair_status of a pair that is stored.
_STATUS_STORED = 1


def check_flags(
    store: Path, tables: Mapping[str, npt.NDArray[Any]], space: KeySpace
) -> list[ValidationFinding]:
    """Compare every flag of a cube with the files that it describes.

    Parameters
    ----------
    store : pathlib.Path
        Folder of the cube.
    tables : mapping of str to numpy.ndarray
        Coordinates and all variables of the layout ``table``, as read by xarray.
    space : KeySpace
        Key space of the chunks.

    Returns
    -------
    list of ValidationFinding
        Empty if all flags are consistent.
    """
    stored = _stored_positions(store, space)
    return [
        *_check_values(tables),
        *_check_positions(tables, stored),
        *_check_pairs(tables, stored),
        *_check_dates(tables, stored),
    ]


def _check_values(tables: Mapping[str, np.ndarray]) -> Iterator[ValidationFinding]:
    for variable in cube_schema().variables_with_layout("table"):
        allowed = variable.attributes.get("flag_values")
        if (
            allowed
            and variable.name in tables
            and (strange := sorted(set(np.unique(tables[variable.name]).tolist()) - set(allowed)))
        ):
            yield ValidationFinding(variable.name, f"holds {strange}, which are not in flag_values")


def _stored_positions(store: Path, space: KeySpace) -> StoredPositions:
    """Return the date positions that have a file, by variable; (-1,) represents any other file name."""
    found: StoredPositions = {}
    for variable in cube_schema().variables.values():
        if variable.layout != "table":
            folder = store / variable.name
            files = walk_files(folder) if is_real_folder(folder) else ()
            names = [name for name, facts in files if not _is_retired(folder, name, facts.st_size)]
            strips = {str(strip) for strip in range(variable.strips)}
            found[variable.name] = {
                _parse_position(space.split_chunk_name(name), len(variable.dims) - 2, strips)
                for name in names
                if name != "zarr.json"
            }
    return found


def _is_retired(folder: Path, name: str, size: int) -> bool:
    """Return whether a file is the object of a retired key."""
    try:
        return size == len(RETIRED_CHUNK) and read_plain_file(folder, name, size) == RETIRED_CHUNK
    except (OSError, ValueError):
        return False


def _parse_position(parts: Sequence[str], leading: int, strips: Collection[str]) -> tuple[int, ...]:
    right = (
        len(parts) == leading + 2
        and all(part.isascii() and part.isdigit() for part in parts)
        and parts[-2] == "0"
        and parts[-1] in strips
    )
    return tuple(int(part) for part in parts[:leading]) if right else (-1,)


def _check_positions(
    tables: Mapping[str, np.ndarray], stored: StoredPositions
) -> Iterator[ValidationFinding]:
    variables = cube_schema().variables
    for name, places in stored.items():
        limits = [len(tables[dim]) for dim in variables[name].dims[:-2]]
        beyond = sum(not _is_inside(place, limits) for place in places)
        if beyond:
            yield ValidationFinding(name, f"{beyond} of its files lie beyond its dimensions")


def _is_inside(place: tuple[int, ...], limits: Sequence[int]) -> bool:
    return len(place) == len(limits) and all(
        0 <= index < limit for index, limit in zip(place, limits, strict=True)
    )


def _check_pairs(tables: Mapping[str, np.ndarray], stored: StoredPositions) -> Iterator[ValidationFinding]:
    def has(name: str) -> np.ndarray:
        flags = np.zeros(tables["valid_date_pair"].shape, bool)
        for place in stored[name]:
            if _is_inside(place, flags.shape):
                flags[place] = True
        return flags

    def differ(name: str, wrong: np.ndarray, what: str) -> Iterator[ValidationFinding]:
        if wrong.any():
            yield ValidationFinding(name, f"{what}: {_name_pairs(tables, wrong)}")

    valid, annotated = tables["valid_date_pair"], tables["annotated"]
    yield from differ("valid_date_pair", valid & ~has("insar_difference"), "is true, but no phase is stored")
    yield from differ("valid_date_pair", ~valid & has("insar_difference"), "is false, but a phase is stored")
    for name in ("insar_coherence", "unwrapped_phase"):
        yield from differ(name, ~valid & has(name), "is stored for an invalid pair")
    yield from differ(
        "pair_status", (tables["pair_status"] == _STATUS_STORED) != valid, "disagrees with valid_date_pair"
    )
    yield from differ(
        "grid_alignment", (tables["grid_alignment"] >= 0) != valid, "disagrees with valid_date_pair"
    )
    yield from differ(
        "valid_fraction", np.isfinite(tables["valid_fraction"]) != valid, "disagrees with valid_date_pair"
    )
    deforming = has("deformation_mask")
    for name in MASK_VARIABLES:
        yield from differ(name, has(name) & ~annotated, "is stored for a pair that is not annotated")
        yield from differ(name, has(name) != deforming, "is stored for other pairs than the other masks")
    yield from differ("unique_id", (tables["unique_id"] >= 0) & ~annotated, "disagrees with annotated")


def _check_dates(tables: Mapping[str, np.ndarray], stored: StoredPositions) -> Iterator[ValidationFinding]:
    timed = ~np.isnat(tables["era5_time"])
    imported = tables["era5_expver"] == EXPVER_PUBLISHED  # on the frame's grid alone, at an unstated hour
    known = dict(zip(tables["epoch"].tolist(), timed, strict=True))
    shown = dict(zip(tables["epoch"].tolist(), timed | imported, strict=True))
    schema = cube_schema()
    for variable in (*schema.variables_with_layout("date"), *schema.variables_with_layout("epoch")):
        if variable.optional:
            continue  # not of ERA5
        days = tables[variable.dims[0]]
        here = {place[0] for place in stored[variable.name]}
        said = known if variable.layout == "epoch" else shown
        wrong = [day for at, day in enumerate(days) if (at in here) != said.get(day.item(), False)]
        if wrong:
            names = ", ".join(np.datetime_as_string(wrong[:3], "D"))
            yield ValidationFinding(
                variable.name, f"disagrees with era5_time at {len(wrong)} dates, such as {names}"
            )


def _name_pairs(tables: Mapping[str, np.ndarray], wrong: np.ndarray) -> str:
    """Return text that names the first three pairs marked in `wrong` and counts the others."""
    dates = [np.datetime_as_string(tables[f"{axis}_date"], "D") for axis in ("primary", "secondary")]
    names = [
        f"{dates[0][first]}_{dates[1][second]}".replace("-", "") for first, second in np.argwhere(wrong)[:3]
    ]
    more = int(wrong.sum()) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
