"""The small variables of a cube, filled from its units: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import numpy as np

from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.granule_checks import ALIGNMENT_KINDS
from hephaestus_build.cube.granules import (
    ChunkKeys,
    DateAxes,
    EpochGranule,
    Granule,
    InterferogramGranule,
    MaskGranule,
    PairGranule,
)
from hephaestus_build.cube.schema import Variable, cube_schema

#: flag_values of the variable pair_status
PAIR_STATUS_CODES = {
    Outcome.DOWNLOADED: 1,
    Outcome.UNCHANGED: 1,
    Outcome.ABSENT: 2,
    Outcome.REFUSED: 3,
    Outcome.UNREACHABLE: 4,
    Outcome.CORRUPT: 5,
}

_EPOCH = date(1970, 1, 1)


def days_since_1970(dates: Collection[date]) -> np.ndarray:
    """Return dates as days since 1970-01-01, shape (n,), int64."""
    return np.array([(day - _EPOCH).days for day in dates], dtype="int64")


def empty_table(variable: Variable, shape: tuple[int, ...]) -> np.ndarray:
    """Return a table of the variable's fill value."""
    if variable.dtype == "string":
        return np.zeros(shape, np.dtypes.StringDType())  # of empty text, in a fifth of the time of filling
    return np.full(shape, variable.fill, dtype=variable.dtype)


def fill_tables(units: Collection[Granule], axes: DateAxes) -> dict[str, np.ndarray]:
    """Return every variable of the layout ``table``, filled from what the units say.

    Parameters
    ----------
    units : collection of Unit
        All units of the cube.
    axes : Axes
        Of the cube.

    Returns
    -------
    dict of str to numpy.ndarray
        Shape (primary, secondary) or (epoch,).
    """
    places = ChunkKeys(axes)
    sizes = {
        "primary_date": len(axes.primary),
        "secondary_date": len(axes.secondary),
        "epoch": len(axes.epochs),
    }
    tables = {
        variable.name: empty_table(variable, tuple(sizes[dim] for dim in variable.dims))
        for variable in cube_schema().variables_with_layout("table")
    }
    for unit in units:
        if isinstance(unit, PairGranule):
            at: tuple[int, ...] = places.pair_index(unit.pair)
        elif isinstance(unit, EpochGranule):
            at = (places.epoch_index(unit.day),)
        else:
            continue
        for name, value in _table_values(unit).items():
            tables[name][at] = value
    return tables


def _table_values(unit: Granule) -> Mapping[str, Any]:
    """Return what one unit says in the tables, by variable."""
    if isinstance(unit, MaskGranule):
        return {"annotated": True, **unit.annotation}
    if isinstance(unit, EpochGranule) and unit.is_complete:
        return {"era5_time": unit.era5_time, "era5_expver": unit.era5_expver}
    if not isinstance(unit, InterferogramGranule):
        return {}
    values: dict[str, Any] = {
        "pair_status": PAIR_STATUS_CODES[unit.outcome],
        "valid_date_pair": unit.is_complete,
    }
    if unit.is_complete:
        values["grid_alignment"] = ALIGNMENT_KINDS.index(unit.alignment)
        values["valid_fraction"] = unit.valid_fraction
    return values
