"""Sources of known depth and volume change below a volcano, and the displacement that a radar sees of them.

The displacement of every source is linear in its volume change, so a source is drawn with a unit volume first
and then given the volume that leads to the wanted displacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hephaestus_build.simulation.world.deformation_models import mogi, okada, spheroid

SourceKind = Literal["mogi", "dyke", "sill", "spheroid"]
SOURCE_KINDS: tuple[SourceKind, ...] = get_args(SourceKind)

#: Depth of the centre of a source, metres; drawn evenly in its logarithm.
_DEPTHS = (1_000.0, 8_000.0)
#: Length of dykes and sills, metres, and width as a fraction of the length.
_LENGTHS, _WIDTH_SHARES = (1_000.0, 6_000.0), (0.4, 1.0)
#: The top of a dyke lies at least this deep, metres.
_MIN_TOP = 200.0
#: Potency of the vertical openings of a spheroid divided by that of the horizontal one: lens to pipe.
_ELONGATIONS = (0.3, 3.0)


@dataclass(frozen=True)
class BuriedSource:
    """A source below a point of the surface.

    Attributes
    ----------
    kind : str
        ``mogi``: a sphere; ``dyke`` and ``sill``: an opening or closing rectangle (Okada), steep or flat;
        ``spheroid``: a lens or a pipe.
    depth : float
        Depth of its centre, metres.
    volume : float
        Volume change, cubic metres; negative while it deflates. Of a spheroid the sum of its potencies.
    shape : mapping of str to float
        Further parameters of the kind: ``length``, ``width`` (metres), ``strike``, ``dip`` (degrees) of a
        rectangle; ``elongation`` of a spheroid.
    """

    kind: SourceKind
    depth: float
    volume: float
    shape: Mapping[str, float] = field(default_factory=dict)

    def displacement(self, east: npt.NDArray[Any], north: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the displacement (east, north, up) of the surface, (3, ...), metres.

        Parameters
        ----------
        east, north : numpy.ndarray
            Distances from the point above the centre, metres.
        """
        return _DISPLACEMENTS[self.kind](self, east, north)

    def scaled(self, factor: float) -> BuriedSource:
        """Return the source with `factor` times its volume change, and so its displacement.

        Parameters
        ----------
        factor : float
            Negative values turn inflation into deflation.
        """
        return replace(self, volume=self.volume * factor)


def draw_source(kind: SourceKind, rng: np.random.Generator) -> BuriedSource:
    """Return a random source of a kind, with a volume change of one million cubic metres.

    Parameters
    ----------
    kind : {"mogi", "dyke", "sill", "spheroid"}
    rng : numpy.random.Generator
    """
    depth = _draw_logarithmic(rng, *_DEPTHS)
    shape: dict[str, float] = {}
    if kind in ("dyke", "sill"):
        length = _draw_logarithmic(rng, *_LENGTHS)
        dip = float(rng.uniform(70, 90)) if kind == "dyke" else 0.0
        width = length * float(rng.uniform(*_WIDTH_SHARES))
        if kind == "dyke":
            width = min(width, 2 * (depth - _MIN_TOP) / float(np.sin(np.radians(dip))))
        shape = {"length": length, "width": width, "strike": float(rng.uniform(0, 360)), "dip": dip}
    elif kind == "spheroid":
        shape = {"elongation": _draw_logarithmic(rng, *_ELONGATIONS)}
    return BuriedSource(kind, depth, 1e6, shape)


def _draw_logarithmic(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _displace_sphere(source: BuriedSource, east: np.ndarray, north: np.ndarray) -> np.ndarray:
    return mogi(east, north, depth=source.depth, volume=source.volume)


def _displace_rectangle(source: BuriedSource, east: np.ndarray, north: np.ndarray) -> np.ndarray:
    opening = source.volume / (source.shape["length"] * source.shape["width"])
    return okada(east, north, depth=source.depth, opening=opening, **source.shape)


def _displace_spheroid(source: BuriedSource, east: np.ndarray, north: np.ndarray) -> np.ndarray:
    return spheroid(east, north, depth=source.depth, volume=source.volume, **source.shape)


_DISPLACEMENTS: Mapping[SourceKind, Callable[[BuriedSource, np.ndarray, np.ndarray], np.ndarray]] = {
    "mogi": _displace_sphere,
    "dyke": _displace_rectangle,
    "sill": _displace_rectangle,
    "spheroid": _displace_spheroid,
}
