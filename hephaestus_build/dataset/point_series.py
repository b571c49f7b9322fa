"""What the interferograms of a cube show at one point: wrapped phase, coherence and mask, by pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import cube_schema

_PHASE, _UNWRAPPED, _COHERENCE, _MASK = (
    *("insar_difference", "unwrapped_phase"),
    *("insar_coherence", "deformation_mask"),
)


@dataclass(frozen=True)
class PointSample:
    """One interferogram at the point.

    Attributes
    ----------
    pair : Pair
        The pair.
    phase_rad : float or None
        Wrapped phase, rad, from -pi to pi; None for no data.
    unwrapped_rad : float or None
        Unwrapped phase, rad; None for no data, and where the cube has none.
    coherence : float or None
        From 0 to 1; None for no data.
    deformation : str
        What the expert outlined there: ``volcanic``, ``earthquake``, or ``none``; empty where the pair is not
        annotated.
    """

    pair: Pair
    phase_rad: float | None
    unwrapped_rad: float | None
    coherence: float | None
    deformation: str

    def to_json(self) -> dict[str, Any]:
        """Return the sample as JSON values."""
        return {
            "pair": self.pair.name,
            "primary": str(self.pair.primary),
            "secondary": str(self.pair.secondary),
            "phase_rad": self.phase_rad,
            "unwrapped_rad": self.unwrapped_rad,
            "coherence": self.coherence,
            "deformation": self.deformation,
        }


@dataclass(frozen=True)
class PointSeries:
    """The interferograms of a cube at one pixel.

    Attributes
    ----------
    frame : str
        Frame id.
    simulated : bool
        Whether the data is simulated.
    latitude, longitude : float
        Centre of the pixel, degrees.
    primary : datetime.date or None
        Common primary date of the pairs; None if they are all pairs of the cube.
    has_unwrapped : bool
        Whether the cube has unwrapped phase.
    samples : tuple of PointSample
        In order of dates.
    """

    frame: str
    simulated: bool
    latitude: float
    longitude: float
    primary: date | None
    has_unwrapped: bool
    samples: tuple[PointSample, ...]


def longest_primary(pairs: Sequence[Pair]) -> date:
    """Return the primary date of the most pairs; the latest of several."""
    counts = Counter(pair.primary for pair in pairs)
    return max(counts, key=lambda day: (counts[day], day))


def read_point_series(
    reader: WindowReader,
    latitude: float,
    longitude: float,
    *,
    primary: date | None = None,
    every_pair: bool = False,
    listener: ProgressListener | None = None,
) -> PointSeries:
    """Read the pairs of one primary date, or all, at the pixel that holds a point.

    Parameters
    ----------
    reader : WindowReader
        The cube.
    latitude, longitude : float
        The point, degrees.
    primary : datetime.date, optional
        Primary date; by default that of the most pairs.
    every_pair : bool
        Whether to take all pairs, whatever their primary date.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    UsageError
        If the point lies outside of the frame, or no pair has this primary date.
    HephaestusError
        If no interferogram is stored, or something of the cube is damaged.
    """
    frame = str(reader.attributes.get("frame", reader.frame))
    grid = reader.grid
    row, column = _find_pixel(frame, grid, latitude, longitude)
    pairs = _stored_pairs(reader)
    if not pairs:
        raise HephaestusError(f"{frame}: no interferogram is stored; `hephaestus status {frame}` says why")
    if not every_pair:
        primary = primary or longest_primary(pairs)
        chosen = [pair for pair in pairs if pair.primary == primary]
        if not chosen:
            near = min((pair.primary for pair in pairs), key=lambda day: abs((day - primary).days))
            raise UsageError(f"{frame}: no stored pair has the primary date {primary}; the nearest is {near}")
        pairs = chosen
    unwrapped = reader.has_variable(_UNWRAPPED)
    annotated = reader.read_table("annotated")
    names = str(cube_schema().variables[_MASK].attributes["flag_meanings"]).split()
    listener = listener or NullListener()
    stage = f"{frame} at a point"
    listener.stage(stage, len(pairs))

    def pixel(name: str, pair: Pair) -> float:
        out = np.empty((1, 1), cube_schema().variables[name].dtype)
        return float(reader.read(name, pair, row, column, out)[0, 0])

    def sample(pair: Pair) -> PointSample:
        phase, coherence = pixel(_PHASE, pair), pixel(_COHERENCE, pair)
        series = pixel(_UNWRAPPED, pair) if unwrapped else 0.0
        is_annotated = bool(annotated[reader.pair_position(pair)])
        listener.advance(stage)
        return PointSample(
            pair,
            phase or None,  # an exact 0 is no data
            series if np.isfinite(series) and series else None,
            round(coherence / 255, 3) if coherence else None,
            names[int(pixel(_MASK, pair))] if is_annotated else "",
        )

    return PointSeries(
        frame,
        bool(reader.attributes.get("simulated", False)),
        float(grid.latitudes[row]),
        float(grid.longitudes[column]),
        None if every_pair else primary,
        unwrapped,
        tuple(map(sample, pairs)),
    )


def _find_pixel(frame: str, grid: Grid, latitude: float, longitude: float) -> tuple[int, int]:
    try:
        return grid.pixel(latitude, longitude)
    except ValueError:
        west, south, east, north = grid.bounds
        raise UsageError(
            f"{frame}: {latitude:g},{longitude:g} lies outside of the frame, which reaches from {south:.4f} "
            f"to {north:.4f} north and from {west:.4f} to {east:.4f} east"
        ) from None


def _stored_pairs(reader: WindowReader) -> list[Pair]:
    """Return the pairs that are stored, in order of dates."""
    first = date(1970, 1, 1).toordinal()
    primary, secondary = (
        [date.fromordinal(first + int(day)) for day in reader.read_table(f"{axis}_date").tolist()]
        for axis in ("primary", "secondary")
    )
    return sorted(
        Pair(primary[row], secondary[column])
        for row, column in np.argwhere(reader.read_table("valid_date_pair"))
    )
