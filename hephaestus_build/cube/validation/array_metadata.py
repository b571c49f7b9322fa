"""Comparison of array metadata (``zarr.json``) with the schema; pure functions of JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.geozarr import drop_geozarr
from hephaestus_build.cube.schema import Coordinate, Variable
from hephaestus_build.cube.validation.wording import is_wording
from hephaestus_build.cube.zarr_json import make_codecs


@dataclass(frozen=True)
class ValidationFinding:
    """One violation that the validation of a cube found.

    Attributes
    ----------
    where : str
        Name of a variable, or ``cube`` for the cube as a whole.
    what : str
        Description of the violation.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return sanitize_text(f"{self.where}: {self.what}", 1000)


def check_array_metadata(
    item: Variable | Coordinate,
    found: Mapping[str, Any],
    sizes: Mapping[str, int],
    attributes: Mapping[str, Any],
) -> Iterator[ValidationFinding]:
    """Yield a finding for each difference between an array's metadata and the schema.

    Parameters
    ----------
    item : Variable or Coordinate
        Entry of the schema.
    found : mapping
        The array's ``zarr.json``.
    sizes : mapping of str to int
        Length of every dimension.
    attributes : mapping
        The attributes that it should have, without those of GeoZarr.
    """
    for fault in _faults(item, found, sizes, attributes):
        yield ValidationFinding(item.name, fault)


def _faults(
    item: Variable | Coordinate,
    found: Mapping[str, Any],
    sizes: Mapping[str, int],
    attributes: Mapping[str, Any],
) -> Iterator[str]:
    yield from _compare("dimensions", found.get("dimension_names"), list(item.dims))
    shape = [sizes.get(dim, -1) for dim in item.dims]
    yield from _compare("shape", found.get("shape"), shape)
    yield from _compare("dtype", found.get("data_type"), item.dtype)
    if isinstance(item, Variable):
        yield from _compare("fill value", _fill(found.get("fill_value")), _fill(item.fill))
    chunk = found.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    yield from _compare("chunk", chunk, list(item.chunk_shape(shape)))
    codecs = [_codec(codec) for codec in found.get("codecs", [])]
    yield from _compare("codecs", codecs, [_codec(codec) for codec in make_codecs(item)])
    stored = drop_geozarr(found.get("attributes", {}))  # these are compared with the grid
    # an additional attribute may change the decoded values: scale_factor, add_offset, missing_value
    for name in sorted(attributes.keys() | stored.keys()):
        if is_wording(name, stored.get(name), attributes.get(name)):
            continue
        yield from _compare(f"attribute {name}", stored.get(name), attributes.get(name))


def _codec(codec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a codec as a flat mapping; ``bytes`` with its byte order, which one-byte dtypes may omit."""
    settings = dict(codec.get("configuration", {}))
    if codec.get("name") == "bytes":
        settings.setdefault("endian", "little")
    return {"name": codec.get("name"), **settings}


def _fill(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def _compare(what: str, found: Any, expected: Any) -> Iterator[str]:
    if found != expected:
        yield f"{what} is {short_repr(found)}, the schema says {short_repr(expected)}"


def short_repr(value: Any) -> str:
    """Return the repr of an untrusted value, shortened and without control characters."""
    return sanitize_text(repr(value), 200)
