"""Validation of STAC documents against schemas that stand here and in pystac, without a network."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pystac.validation
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

DATA = Path(__file__).parents[1] / "data"
_CORE = Path(pystac.validation.__file__).parent / "jsonschemas"
_STAC = "https://schemas.stacspec.org/v1.1.0"
#: PROJJSON, which no document here has: an object at any rate.
_PROJJSON = {f"https://proj.org/schemas/{version}/projjson.schema.json" for version in ("v0.4", "v0.7")}
_EXTENSION = "https://stac-extensions.github.io/{}/{}/schema.json"


@cache
def _schemas() -> dict[str, Any]:
    """Return the known schemas by address."""
    found = {}
    for path in (_CORE / "stac-spec" / "v1.1.0").glob("*.json"):
        spec = path.stem if path.stem in ("collection", "catalog") else "item"
        found[f"{_STAC}/{spec}-spec/json-schema/{path.name}"] = path
    for path in (_CORE / "geojson").glob("*.json"):
        found[f"https://geojson.org/schema/{path.name}"] = path
    for path in (DATA / "stac-extensions").glob("*.json"):
        name, _, version = path.stem.rpartition("-")
        found[_EXTENSION.format(name, version)] = path
    read = {address: json.loads(path.read_text(encoding="utf-8")) for address, path in found.items()}
    return {**read, **{address: {"type": "object"} for address in _PROJJSON}}


def stac_errors(document: dict[str, Any]) -> list[str]:
    """Return where a STAC Item or Collection is not as its schemas say, of all extensions that it names.

    A schema that is not known here is an error.
    """
    spec = {"Feature": "item", "Collection": "collection"}[document["type"]]
    addresses = [f"{_STAC}/{spec}-spec/json-schema/{spec}.json", *document["stac_extensions"]]
    registry = Registry().with_resources(
        (address, Resource.from_contents(schema, DRAFT7)) for address, schema in _schemas().items()
    )
    found = []
    for address in addresses:
        validator = Draft7Validator(_schemas()[address], registry=registry)
        found += [
            f"{address}: {error.json_path}: {error.message}" for error in validator.iter_errors(document)
        ]
    return found
