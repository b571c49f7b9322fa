"""Stage of the optional variables: one product for each variable of a pair, a date or the frame.

Each is a granule of its own, so that a cube gains a variable without anything else being made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.configuration.setting_values import NO_OPTIONAL_VARIABLES
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.cube.granules import (
    GranuleKey,
    InterferogramGranule,
    OptionalGranule,
    present_optional_variables,
)
from hephaestus_build.cube.schema import Variable, cube_schema
from hephaestus_build.pipeline.encoding import encode_field, encode_images
from hephaestus_build.pipeline.ledger import keys_of_kind
from hephaestus_build.pipeline.stage import Build, Stage
from hephaestus_build.processing.alignment import align_to_grid

#: The optional variable that is no raster.
_BASELINE = "perpendicular_baseline"


class OptionalStage(Stage):
    """Fetches, aligns, encodes and stores the optional variables that the request or the cube has."""

    name = "optional variables"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the granules to make: of stored pairs, of their dates, and of the frame."""
        keys = optional_keys(build) if only is None else keys_of_kind(only, "optional")
        return [key for key in keys if _must_make(build, key)]

    def run(self, build: Build, key: GranuleKey) -> None:
        """Make one granule."""
        if key.variable == _BASELINE:
            _store_baselines(build, key)
        else:
            _store_raster(build, key)


def optional_keys(build: Build, coming: Iterable[Pair] = ()) -> list[GranuleKey]:
    """Return the keys of every optional variable of the cube, with the stored and the `coming` pairs."""
    pairs = sorted({*build.ledger.complete_pairs(), *coming})
    names = merge_optional_variables(
        build.context.request.variables, present_optional_variables(build.ledger.snapshot().values())
    )
    return [key for name in names for key in _keys_of_variable(name, pairs)] if pairs else []


def merge_optional_variables(asked: tuple[str, ...], present: set[str]) -> tuple[str, ...]:
    """Return the optional variables that a cube is to have.

    Parameters
    ----------
    asked : tuple of str
        As :func:`~hephaestus_build.core.configuration.setting_values.parse_optional_variables` returns it.
    present : set of str
        Those that the cube has.

    Examples
    --------
    >>> merge_optional_variables(("look_up",), {"unwrapped_phase"})
    ('unwrapped_phase', 'look_up')
    >>> merge_optional_variables(("none",), {"unwrapped_phase"})
    ()
    """
    if NO_OPTIONAL_VARIABLES in asked:
        return ()
    return tuple(name for name in OPTIONAL_VARIABLES if name in asked or name in present)


def _keys_of_variable(name: str, pairs: Sequence[Pair]) -> Iterator[GranuleKey]:
    layout = _variable(name).layout
    if layout == "pair":
        yield from (GranuleKey.of_optional(name, pair) for pair in pairs)
    elif layout == "date":
        days = sorted({day for pair in pairs for day in pair.dates})
        yield from (GranuleKey.of_optional(name, day) for day in days)
    else:
        yield GranuleKey.of_optional(name)


def _variable(name: str) -> Variable:
    """Return a variable of the schema; of those with a date axis the primary one."""
    return next(variable for variable in cube_schema().variables.values() if variable.quantity == name)


def _must_make(build: Build, key: GranuleKey) -> bool:
    """Return whether a granule is missing, owed, changed upstream, or made from other inputs."""
    ledger, place = build.ledger, key.place
    granule = ledger.get(key)
    if (
        not isinstance(granule, OptionalGranule)
        or ledger.grid is None
        or ledger.must_refetch(key)
        or ledger.needs(key, ledger.grid_inputs())
    ):
        return True
    if key.variable == _BASELINE:  # the file was fetched when the build began
        return _cube_baselines(build) not in ({}, granule.metres)
    return isinstance(place, Pair) and _is_replaced(granule, build.context.modified.get(place))


def _is_replaced(granule: OptionalGranule, modified: str | None) -> bool:
    """Return whether the listing says that the pair of a complete granule was changed since."""
    return modified is not None and granule.modified is not None and modified != granule.modified


def _store_raster(build: Build, key: GranuleKey) -> None:
    """Fetch, align and store the raster of one variable; a failed one is recorded as owed."""
    context, ledger, place = build.context, build.ledger, key.place
    variable = _variable(key.variable)
    modified = context.modified.get(place) if isinstance(place, Pair) else None
    before = ledger.get(key)
    replaced = ledger.must_refetch(key) or (
        isinstance(before, OptionalGranule) and before.is_complete and _is_replaced(before, modified)
    )
    receipt, raster = context.interferograms.optional_raster(
        context.frame, key.variable, place, replaced=replaced
    )
    contents: dict[str, bytes] = {}
    kind = None
    if raster is not None:
        try:
            values, alignment = align_to_grid(
                raster.values, raster.grid, ledger.require_grid(), fill=variable.fill
            )
            if alignment.kind != "identical" and not _has_data(values, variable.fill):
                raise ValueError("there is no data of it within the frame's grid")
        except ValueError as error:  # a raster of another place
            receipt = receipt.replace(outcome=Outcome.CORRUPT, detail=str(error))
        else:
            kind = alignment.kind
            receipt = receipt.with_notes(alignment.note) if alignment.note else receipt
            contents = (
                encode_field(key.variable, variable, values)
                if variable.layout == "date"
                else encode_images({variable.name: values})
            )
    granule = OptionalGranule.make(key, ledger.grid_inputs(), (receipt,), modified=modified, alignment=kind)
    ledger.record(granule, contents)


def _has_data(values: npt.NDArray[np.float32], fill: float) -> bool:
    return bool((~np.isnan(values) if np.isnan(fill) else values != fill).any())


def _store_baselines(build: Build, key: GranuleKey) -> None:
    """Store the perpendicular baselines of the cube's dates, from the file that each build fetches."""
    receipt, baselines = build.context.baselines
    metres = _cube_baselines(build) if baselines is not None else None
    if metres == {} and receipt.ok:
        receipt, metres = (
            receipt.replace(outcome=Outcome.ABSENT, detail="it has none of the cube's dates"),
            None,
        )
    build.ledger.record(OptionalGranule.make(key, build.ledger.grid_inputs(), (receipt,), metres=metres), {})


def _cube_baselines(build: Build) -> dict[str, float]:
    """Return the baselines of the cube's dates, m, as far as the fetched file has them."""
    _, baselines = build.context.baselines
    days = {
        day
        for granule in build.ledger.snapshot().values()
        if isinstance(granule, InterferogramGranule) and granule.is_complete
        for day in granule.pair.dates
    }
    known = baselines.metres if baselines is not None else {}
    return {f"{day:%Y%m%d}": known[day] for day in sorted(days) if day in known}
