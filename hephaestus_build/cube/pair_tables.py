"""The tables of a cube (flags, annotations, ERA5 times), computed from its granules."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.chunk_keys import ChunkKeys
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.granule_checks import ALIGNMENT_KINDS
from hephaestus_build.cube.granules import (
    EpochGranule,
    Granule,
    InterferogramGranule,
    MaskGranule,
    OptionalGranule,
    PairGranule,
    present_optional_variables,
)
from hephaestus_build.cube.schema import Variable, cube_schema

#: flag_values of the variable pair_status.
PAIR_STATUS_CODES = {
    Outcome.DOWNLOADED: 1,
    Outcome.UNCHANGED: 1,
    Outcome.ABSENT: 2,
    Outcome.REFUSED: 3,
    Outcome.UNREACHABLE: 4,
    Outcome.CORRUPT: 5,
}

_EPOCH = date(1970, 1, 1)


def days_since_1970(dates: Collection[date]) -> npt.NDArray[np.int64]:
    """Return dates as days since 1970-01-01, shape (n,), int64."""
    return np.array([(day - _EPOCH).days for day in dates], dtype="int64")


def empty_table(variable: Variable, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a table that is filled with the variable's fill value."""
    if variable.dtype == "string":
        return np.zeros(shape, np.dtypes.StringDType())  # empty strings; five times faster than np.full
    return np.full(shape, variable.fill, dtype=variable.dtype)


def fill_tables(granules: Collection[Granule], axes: DateAxes) -> dict[str, npt.NDArray[Any]]:
    """Return every variable of the layout ``table``, filled from the granules.

    Parameters
    ----------
    granules : collection of Granule
        All granules of the cube.
    axes : DateAxes
        Date axes of the cube.

    Returns
    -------
    dict of str to numpy.ndarray
        Tables by variable, of shape (primary_date, secondary_date) or (epoch,); optional ones if the
        granules have them.
    """
    places = ChunkKeys(axes)
    sizes = {
        "primary_date": len(axes.primary),
        "secondary_date": len(axes.secondary),
        "epoch": len(axes.epochs),
    }
    tables = {
        variable.name: empty_table(variable, tuple(sizes[dim] for dim in variable.dims))
        for variable in cube_schema()
        .with_optional(present_optional_variables(granules))
        .variables_with_layout("table")
    }
    for granule in granules:
        if isinstance(granule, PairGranule):
            at: tuple[int, ...] = places.pair_index(granule.pair)
        elif isinstance(granule, EpochGranule):
            at = (places.epoch_index(granule.day),)
        else:
            continue
        for name, value in _table_values(granule).items():
            tables[name][at] = value
    _fill_baselines(tables, granules, places)
    return tables


def _fill_baselines(
    tables: Mapping[str, npt.NDArray[Any]], granules: Collection[Granule], places: ChunkKeys
) -> None:
    """Set the perpendicular baseline of every stored pair whose two dates have one."""
    table = tables.get("perpendicular_baseline")
    known = [
        granule.metres for granule in granules if isinstance(granule, OptionalGranule) and granule.metres
    ]
    if table is None or not known:
        return
    for granule in granules:
        if isinstance(granule, InterferogramGranule) and granule.is_complete:
            first, second = (known[0].get(f"{day:%Y%m%d}", math.nan) for day in granule.pair.dates)
            table[places.pair_index(granule.pair)] = second - first


def _table_values(granule: Granule) -> Mapping[str, Any]:
    """Return the values that one granule contributes to the tables, by variable."""
    if isinstance(granule, MaskGranule):
        return {"annotated": True, **granule.annotation}
    if isinstance(granule, EpochGranule) and granule.is_complete:
        unstated = {} if granule.era5_time is None else {"era5_time": granule.era5_time}
        return {**unstated, "era5_expver": granule.era5_expver}
    if not isinstance(granule, InterferogramGranule):
        return {}
    values: dict[str, Any] = {
        "pair_status": PAIR_STATUS_CODES[granule.outcome],
        "valid_date_pair": granule.is_complete,
    }
    if granule.is_complete:
        values["grid_alignment"] = ALIGNMENT_KINDS.index(granule.alignment)
        values["valid_fraction"] = granule.valid_fraction
    return values
