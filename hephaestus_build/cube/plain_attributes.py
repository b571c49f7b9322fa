"""Attributes in the form that every netCDF format holds: text, numbers, and lists of numbers.

The record of a cube keeps its attributes as JSON values; this form is that of the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SEPARATOR = "; "


def to_plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes in the form that the store holds.

    True and false become 1 and 0, a list of texts one text, and a mapping, or a list of other values, JSON
    text. Null and empty lists are left out.

    Examples
    --------
    >>> to_plain_attributes({"simulated": True, "volcanoes": ["Etna", "Vulcano"], "none": None})
    {'simulated': 1, 'volcanoes': 'Etna; Vulcano'}
    >>> to_plain_attributes({"pixel_size_m": [83.1, 111.2], "build_settings": {"pairs": "all"}})
    {'pixel_size_m': [83.1, 111.2], 'build_settings': '{"pairs": "all"}'}
    """
    plain = {name: _plain(value) for name, value in attributes.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: Any) -> str | float | list[float] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        if all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
            return list(value) or None
        if all(isinstance(item, str) for item in value):
            return _SEPARATOR.join(value)
    return json.dumps(value, ensure_ascii=False)


def split_texts(value: Any) -> list[str]:
    """Return the texts of an attribute, given the one text of the store, or the list of older cubes.

    Examples
    --------
    >>> split_texts("Etna; Vulcano"), split_texts(["Etna"]), split_texts(None)
    (['Etna', 'Vulcano'], ['Etna'], [])
    """
    if isinstance(value, str):
        return value.split(_SEPARATOR) if value else []
    return [str(item) for item in value] if isinstance(value, list | tuple) else []
