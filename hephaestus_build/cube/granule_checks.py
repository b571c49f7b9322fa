"""Validation of granules that are read from a record: names, hashes and facts.

A record may come from an untrusted source. Its names become paths in the store and its facts become values in
the tables, so each granule is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

import numpy as np

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.parsing import check_depth
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.cube.decimation import MAX_FACTOR, MIN_FACTOR
from hephaestus_build.cube.granules import EpochGranule, Granule, GranuleKey, OptionalGranule, PairGranule
from hephaestus_build.cube.schema import cube_schema

_OBJECT = re.compile(r"[a-z][a-z0-9_]{0,99}(\.[0-9]{1,2})?")
_HASH = re.compile(r"[0-9a-f]{64}")
#: Characters of a text; captions of annotations are cut at this length when they are read.
_MAX_TEXT_LENGTH = 10_000
#: Variables of the layout ``table`` that the builder fills; the others come from annotations.
_BUILDER_TABLES = ("valid_date_pair", "annotated", "pair_status", "grid_alignment", "valid_fraction")
_PLACE_LAYOUTS = {"pair": Pair, "date": date}
#: How a raster was brought to the reference grid; positions are the flag_values of grid_alignment.
ALIGNMENT_KINDS = ("identical", "cropped", "shifted", "resampled")


def check_granule(granule: Granule, *, whole: bool) -> None:
    """Raise ValueError if a granule has content that no build writes.

    Parameters
    ----------
    granule : Granule
        A granule from a record or a ledger.
    whole : bool
        Whether to require every fact that the tables of this version need.
    """
    for fault in _faults(granule, whole=whole):
        raise ValueError(f"{granule.key}: {fault}")


def _faults(granule: Granule, *, whole: bool) -> Iterator[str]:
    match granule:
        case EpochGranule():
            named = f"{granule.day:%Y%m%d}" == granule.name
        case PairGranule():
            named = granule.pair.name == granule.name
        case OptionalGranule():
            named = granule.key == GranuleKey.of_optional(granule.variable, granule.place)
            yield from _find_wrong_place(granule)
        case _:
            named = granule.name == "dem"
    if not named:
        yield f"its name {granule.name!r} is not valid for its kind"
    for name, item in granule.objects.items():
        if not _OBJECT.fullmatch(name):
            yield f"{name!r} is not a valid name of a stored object"
        if not _HASH.fullmatch(item.digest) or item.size < 0:
            yield f"its {name} has no valid hash and size"
    check_depth(granule.facts)
    yield from _find_wrong_facts(granule.kind, granule.facts)
    if whole:
        needed = _needed(granule)
        yield from (f"its {name} is missing" for name in needed if name not in granule.facts)


def _find_wrong_place(granule: OptionalGranule) -> Iterator[str]:
    """Yield what is wrong with the variable or the place of an optional granule, or with its objects."""
    if granule.variable not in OPTIONAL_VARIABLES:
        yield f"there is no optional variable {_shortened(granule.variable)}"
        return
    variables = [item for item in cube_schema().variables.values() if item.quantity == granule.variable]
    if type(granule.place) is not _PLACE_LAYOUTS.get(variables[0].layout, type(None)):
        yield f"an optional variable of the layout {variables[0].layout} has no such place"
    if any(name.partition(".")[0] != granule.variable for name in granule.objects):
        yield f"it has objects of another variable than {granule.variable}"


def _needed(granule: Granule) -> tuple[str, ...]:
    """Return the names of the facts that the tables and the next build need."""
    if granule.kind == "mask":
        return ("annotation", "listed", "modified") if "preview" in granule.facts else ("annotation",)
    if not granule.is_complete:
        return ()
    if isinstance(granule, OptionalGranule):
        return ("metres",) if granule.variable == "perpendicular_baseline" else ("alignment",)
    if isinstance(granule, EpochGranule) and granule.is_imported:
        return ("era5_expver",)  # a published cube does not state the hour
    return {"pair": ("alignment", "valid_fraction"), "epoch": ("era5_time", "era5_expver")}.get(
        granule.kind, ()
    )


def _find_wrong_facts(kind: str, facts: Mapping[str, Any]) -> Iterator[str]:
    for name, rule in _FACT_RULES.items():
        if name in facts and not rule(facts[name]):
            yield f"its {name} is {_shortened(facts[name])}"
    if kind == "dem" and "grid" in facts:
        try:
            Grid(**facts["grid"])
        except (TypeError, ValueError):
            yield f"its grid is {_shortened(facts['grid'])}"
    annotation = facts.get("annotation", {}) if kind == "mask" else {}
    if not isinstance(annotation, dict):
        yield f"its annotation is {_shortened(annotation)}"
        return
    rules = _annotation_rules()
    for name, value in annotation.items():
        if name not in rules or not rules[name](value):
            yield f"its annotation has {_shortened(name)}: {_shortened(value)}"


def _shortened(value: Any) -> str:
    return repr(value)[:100]


def _text(value: Any) -> bool:
    """Return whether a value is text that the tables can hold: padding would hide a null character."""
    return isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH and "\0" not in value


def _is_number_or_null(value: Any) -> bool:
    """Return whether a JSON value is null or a number within the range of float32."""
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3e38
    )


def _integer_rule(lowest: int, highest: int) -> Any:
    return lambda value: type(value) is int and lowest <= value <= highest


def _is_baselines(value: Any) -> bool:
    """Return whether a JSON value is a number for each of some dates."""
    return isinstance(value, dict) and all(
        re.fullmatch("[0-9]{8}", day) and item is not None and _is_number_or_null(item)
        for day, item in value.items()
    )


_FACT_RULES: dict[str, Any] = {
    "metres": _is_baselines,
    "alignment": lambda value: value in ALIGNMENT_KINDS,
    "valid_fraction": lambda value: value is not None and _is_number_or_null(value),
    "era5_time": _integer_rule(0, 10_000_000),
    "era5_expver": _text,
    "source": _text,
    "grid": lambda value: isinstance(value, str | dict),
    "preview": lambda value: isinstance(value, dict) and _text(value.get("projection")),
    "modified": lambda value: value is None or _text(value),
    "listed": lambda value: isinstance(value, bool),
    "unlisted": lambda value: isinstance(value, bool),
    "elsewhere": lambda value: isinstance(value, bool),
    "factor": _integer_rule(MIN_FACTOR, MAX_FACTOR),
}


@cache
def _annotation_rules() -> dict[str, Any]:
    """Return a predicate of valid values for each variable that annotations fill."""
    rules: dict[str, Any] = {}
    for variable in cube_schema().variables_with_layout("table"):
        if (
            variable.optional
            or variable.name in _BUILDER_TABLES
            or variable.dims != ("primary_date", "secondary_date")
        ):
            continue
        if variable.dtype == "string":
            rules[variable.name] = _text
        elif variable.dtype.startswith("float"):
            rules[variable.name] = _is_number_or_null
        else:
            limits = np.iinfo(variable.dtype)
            rules[variable.name] = _integer_rule(int(limits.min), int(limits.max))
    return rules
