"""The catalogue of volcanoes: names, spellings and coordinates (``schemas/volcanoes.csv``)."""

from __future__ import annotations

import csv
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from hephaestus_build.core.bounds import Bounds, great_circle_km
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import schema_path


@dataclass(frozen=True, repr=False)
class VolcanoCone:
    """A volcano of the catalogue, or one that only the data set names.

    Parameters
    ----------
    catalogue_name : str
        Name in the catalogue, such as ``Negra, Sierra``. Not unique: Ecuador and Chile each have an
        ``Azul, Cerro``.
    latitude, longitude : float or None
        Degrees; None if the catalogue does not have the volcano.
    elevation_m : int or None
        Height of the summit above sea level, m.
    type : str
        Volcano type, such as ``Shield volcano``; empty if unknown.
    smithsonian_number : int or None
        Number in the catalogue of the Global Volcanism Program; None if unknown.
    aliases : tuple of str
        Other spellings.
    """

    catalogue_name: str
    latitude: float | None = None
    longitude: float | None = None
    elevation_m: int | None = None
    type: str = ""
    smithsonian_number: int | None = None
    aliases: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """Name in reading order, such as ``Sierra Negra``."""
        noun, _, before = self.catalogue_name.partition(", ")
        return f"{before}{'' if before.endswith(chr(39)) else ' '}{noun}" if before else noun

    @property
    def catalogued(self) -> bool:
        """Whether the catalogue has the volcano, and thus its coordinates."""
        return self.latitude is not None

    @cached_property
    def spellings(self) -> frozenset[str]:
        """All names and aliases, folded by :func:`fold_name`."""
        return frozenset(map(fold_name, (self.catalogue_name, self.name, *self.aliases)))

    def distance_km(self, latitude: float, longitude: float) -> float:
        """Return the distance to a point given in degrees, km; infinite if not catalogued."""
        if self.latitude is None or self.longitude is None:
            return float("inf")
        return great_circle_km(self.latitude, self.longitude, latitude, longitude)

    def to_json(self) -> dict[str, Any]:
        """Return the volcano as a JSON-compatible mapping."""
        return {
            "name": self.name,
            "catalogue_name": self.catalogue_name if self.catalogued else None,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "elevation_m": self.elevation_m,
            "smithsonian_number": self.smithsonian_number,
        }

    def __repr__(self) -> str:
        where = f": {self.latitude:g}, {self.longitude:g}" if self.catalogued else ""
        return f"<VolcanoCone {self.name}{where}>"

    def __str__(self) -> str:
        return self.name


def fold_name(text: str) -> str:
    """Normalize case, accents, punctuation and spaces of a name, for comparing spellings.

    Examples
    --------
    >>> fold_name("kuh-e_nader"), fold_name("Nevado de  Longaví")
    ('kuh e nader', 'nevado de longavi')
    """
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", text) if letter.isascii())
    return re.sub(r"[^a-z0-9]+", " ", letters.casefold()).strip()


def parse_volcanoes(lines: Iterable[str]) -> tuple[VolcanoCone, ...]:
    """Parse a table such as ``schemas/volcanoes.csv``, keeping its order.

    Raises
    ------
    ValueError
        If a number is malformed.
    KeyError
        If a column is missing.
    """
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple(
        VolcanoCone(
            row["name"],
            float(row["latitude"]) if row["latitude"] else None,
            float(row["longitude"]) if row["longitude"] else None,
            int(row["elevation_m"]) if row["elevation_m"] else None,
            row["type"],
            int(row["smithsonian_number"]) if row["smithsonian_number"] else None,
            tuple(filter(None, row["aliases"].split(";"))),
        )
        for row in rows
    )


@cache
def load_volcanoes() -> tuple[VolcanoCone, ...]:
    """Return all volcanoes of ``schemas/volcanoes.csv``."""
    return _read_table("volcanoes.csv")


@cache
def load_simulated_volcanoes() -> tuple[VolcanoCone, ...]:
    """Return the volcanoes of the simulated frames (``schemas/simulated_volcanoes.csv``)."""
    return _read_table("simulated_volcanoes.csv")


def _read_table(name: str) -> tuple[VolcanoCone, ...]:
    with schema_path(name).open(encoding="utf-8", newline="") as lines:
        return parse_volcanoes(lines)


@cache
def _by_spelling() -> dict[str, tuple[VolcanoCone, ...]]:
    found: dict[str, tuple[VolcanoCone, ...]] = {}
    for volcano in load_volcanoes():
        for spelling in volcano.spellings:
            found[spelling] = (*found.get(spelling, ()), volcano)
    return found


def volcanoes_named(text: str) -> tuple[VolcanoCone, ...]:
    """Return the volcanoes with a name, ignoring case, accents and punctuation.

    Parameters
    ----------
    text : str
        Any spelling, such as ``Sierra Negra``, ``sierra_negra`` or ``Negra, Sierra``.

    Returns
    -------
    tuple of VolcanoCone
        Empty if no volcano has the name; several if the name is not unique.
    """
    return _by_spelling().get(fold_name(text), ())


def nearest_volcano(
    latitude: float, longitude: float, among: Iterable[VolcanoCone] | None = None
) -> VolcanoCone:
    """Return the volcano nearest to a point.

    Parameters
    ----------
    latitude, longitude : float
        Degrees.
    among : iterable of VolcanoCone, optional
        Candidates, at least one; by default, the whole catalogue.
    """
    volcanoes = load_volcanoes() if among is None else among
    return min(volcanoes, key=lambda volcano: volcano.distance_km(latitude, longitude))


@cache
def _by_latitude() -> tuple[list[float], list[VolcanoCone]]:
    """Return the latitudes of the catalogue in ascending order, and the volcanoes in that order."""
    placed = [(volcano.latitude, volcano) for volcano in load_volcanoes() if volcano.latitude is not None]
    placed.sort(key=lambda item: item[0])
    return [latitude for latitude, _ in placed], [volcano for _, volcano in placed]


def volcanoes_inside(bounds: Bounds, among: Iterable[VolcanoCone] | None = None) -> tuple[VolcanoCone, ...]:
    """Return the volcanoes whose coordinates lie in a box, sorted by name.

    Parameters
    ----------
    bounds : Bounds
        The box.
    among : iterable of VolcanoCone, optional
        Candidates; by default, the whole catalogue.
    """
    if among is None:
        latitudes, catalogue = _by_latitude()
        among = catalogue[bisect_left(latitudes, bounds.south) : bisect_right(latitudes, bounds.north)]
    inside = [
        volcano
        for volcano in among
        if volcano.latitude is not None
        and volcano.longitude is not None
        and bounds.contains(volcano.latitude, volcano.longitude)
    ]
    return tuple(sorted(inside, key=lambda volcano: volcano.name))


def volcanoes_of_frame(frame: Frame, bounds: Bounds) -> tuple[VolcanoCone, ...]:
    """Return the volcanoes that lie in a frame, sorted by name; simulated ones of a simulated frame.

    Parameters
    ----------
    frame : Frame
        The frame.
    bounds : Bounds
        Outer edges of its grid, degrees.
    """
    return volcanoes_inside(bounds, load_simulated_volcanoes() if frame.is_simulated else None)
