"""The coordinate system of all rasters, geographic WGS 84 (EPSG:4326), as WKT.

It is spelled out rather than given as an EPSG code, because a code is looked up in PROJ's database, which may
be missing or belong to another installation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

WGS84_WKT = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],'
    'AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],'
    'UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],'
    'AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]]'
)

_TOKEN = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([A-Za-z_][A-Za-z0-9_]*)|([-+0-9.][-+0-9.eE]*)|([\[\](),]))')
_LONGEST, _DEEPEST = 20_000, 32
_ROOTS = {"GEOGCS", "GEOGCRS", "GEOGRAPHICCRS", "GEODCRS", "GEODETICCRS"}
_DATUMS = {"wgs1984", "dwgs1984", "wgs84", "worldgeodeticsystem1984", "worldgeodeticsystem1984ensemble"}


@dataclass
class _Node:
    """A WKT keyword with its values: strings, numbers and nested nodes."""

    keyword: str
    texts: list[str] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    nodes: list[_Node] = field(default_factory=list)

    def all(self, *keywords: str) -> Iterator[_Node]:
        """Yield all nested nodes with the given keyword."""
        for node in self.nodes:
            if node.keyword in keywords:
                yield node
            yield from node.all(*keywords)


def is_wgs84(wkt: object) -> bool:
    """Whether a coordinate system in WKT 1 or 2 is geographic WGS 84, in degrees east of Greenwich.

    Axes may be in either order and names may differ, as they do between versions of PROJ.
    """
    if wkt == WGS84_WKT:
        return True
    try:
        root = _parse_wkt(str(wkt))
    except ValueError:
        return False
    ellipsoids = [node.numbers[:2] for node in root.all("SPHEROID", "ELLIPSOID")]
    datums = [node.texts[:1] for node in root.all("DATUM", "ENSEMBLE", "GEODETICDATUM", "TRF")]
    meridians = [node.numbers[:1] for node in root.all("PRIMEM", "PRIMEMERIDIAN")]
    units = [node.numbers[:1] for node in root.all("UNIT", "ANGLEUNIT")]
    codes = [(*node.texts, *(f"{number:.0f}" for number in node.numbers))[:2] for node in root.nodes
             if node.keyword in ("AUTHORITY", "ID")]  # fmt: skip
    return (
        root.keyword in _ROOTS
        and len(ellipsoids) == 1
        and _close(ellipsoids[0], (6378137.0, 298.257223563))
        and len(datums) == 1
        and _normalize_name(datums[0]) in _DATUMS
        and all(_close(meridian, (0.0,)) for meridian in meridians)
        and len(units) > 0
        and all(_close(unit, (math.radians(1),)) for unit in units)
        and not any(any(node.numbers) for node in root.all("TOWGS84"))
        and not any(root.all("LINUNIT"))  # no vertical axis
        and all(code == ("EPSG", "4326") for code in codes)
    )


def _close(values: list[float], expected: tuple[float, ...]) -> bool:
    return len(values) == len(expected) and all(
        math.isclose(value, other, rel_tol=1e-10, abs_tol=1e-12)
        for value, other in zip(values, expected, strict=True)
    )


def _normalize_name(texts: list[str]) -> str:
    return "".join(filter(str.isalnum, texts[0])).lower() if texts else ""


def _parse_wkt(text: str) -> _Node:
    """Parse WKT into a tree of nodes; raise ValueError if it is malformed."""
    if len(text) > _LONGEST:
        raise ValueError("too long")
    root = _Node("")
    path, at = [root], 0
    text = text.rstrip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ValueError("no WKT")
        at = token.end()
        quoted, word, number, mark = token.groups()
        if word is not None:
            path[-1].nodes.append(_Node(word.upper()))
        elif quoted is not None:
            path[-1].texts.append(quoted)
        elif number is not None:
            path[-1].numbers.append(float(number))
        elif mark in "[(":
            if not path[-1].nodes or len(path) > _DEEPEST:
                raise ValueError("no WKT")
            path.append(path[-1].nodes[-1])
        elif mark in "])":
            if len(path) == 1:
                raise ValueError("no WKT")
            path.pop()
    if len(path) != 1 or len(root.nodes) != 1 or root.texts or root.numbers:
        raise ValueError("no WKT")
    return root.nodes[0]
