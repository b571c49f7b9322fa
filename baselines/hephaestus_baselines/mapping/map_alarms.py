"""Alarms of probability maps: which interferograms reach the threshold of their run, and where."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.evaluation.predictions import count_pixel_histograms, item_probability
from hephaestus_build.core.atomic_io import require_writable, translate_os_errors, write_atomic
from hephaestus_build.core.bounds import KM_PER_DEGREE, Bounds
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.volcanoes import nearest_volcano, volcanoes_of_frame


@dataclass(frozen=True)
class MapAlarm:
    """An interferogram, or series, whose map reaches the threshold; the fields are the columns of a table.

    Attributes
    ----------
    frame, pair : str
        Frame and pair; of a series its last one.
    probability : float
        Of the interferogram: the score of a segmentation as runs have it, or the
        highest window of a classification.
    threshold : float
        That of interferograms, which the run chose on validation.
    area_km2 : float
        Area of the pixels, or windows, that reach it.
    latitude, longitude : float
        The pixel of the highest probability, or the first pixel of that window, degrees.
    volcano : str
        The volcano of the frame that is nearest to that pixel; empty if the catalogue has none there.
    volcano_km : float or None
        Its distance, km.
    simulated : bool
        Whether the interferogram is simulated.
    """

    frame: str
    pair: str
    probability: float
    threshold: float
    area_km2: float
    latitude: float
    longitude: float
    volcano: str
    volcano_km: float | None
    simulated: bool

    def to_json(self) -> dict[str, Any]:
        """Return the alarm as JSON values."""
        return asdict(self)


def find_alarm(
    frame: Frame,
    pair: str,
    probability: npt.NDArray[np.float32],
    grid: Grid,
    *,
    threshold: float,
    per_pixel: bool,
    simulated: bool = False,
) -> MapAlarm | None:
    """Return the alarm of a map, or None if it does not reach the threshold.

    Parameters
    ----------
    frame : Frame
        The frame.
    pair : str
        Name of the pair.
    probability : numpy.ndarray
        The map, in the shape of `grid`; NaN where there is no data.
    grid : Grid
        The frame's grid.
    threshold : float
        Of interferograms.
    per_pixel : bool
        Whether the map is a segmentation.
    simulated : bool
        Whether the interferogram is simulated.
    """
    if not np.isfinite(probability).any():
        return None
    reached = _segmentation_score(probability) if per_pixel else float(np.nanmax(probability))
    if reached < threshold:
        return None
    rows = np.count_nonzero(probability >= threshold, axis=1)
    pixel = KM_PER_DEGREE**2 * grid.dx * grid.dy * np.cos(np.radians(grid.latitudes))
    row, column = np.unravel_index(int(np.nanargmax(probability)), probability.shape)
    latitude, longitude = float(grid.latitudes[row]), float(grid.longitudes[column])
    known = volcanoes_of_frame(frame, Bounds(*grid.bounds))
    nearest = nearest_volcano(latitude, longitude, known) if known else None
    return MapAlarm(
        frame.id,
        pair,
        reached,
        threshold,
        round(float(rows @ pixel), 3),
        round(latitude, 6),
        round(longitude, 6),
        nearest.name if nearest else "",
        round(nearest.distance_km(latitude, longitude), 2) if nearest else None,
        simulated,
    )


def _segmentation_score(probability: npt.NDArray[np.float32]) -> float:
    """Return the score that a run has for a map as a single item."""
    data = np.isfinite(probability)[np.newaxis]
    known = np.where(data, probability, 0)
    pixels = count_pixel_histograms(known, np.zeros(data.shape, np.uint8), np.ones_like(data), data)
    return float(item_probability(pixels["data"])[0])


def check_alarm_table(path: Path) -> None:
    """Raise an error if a table of alarms cannot be written, before the maps are made.

    Raises
    ------
    UsageError
        If a file is there that is no table of alarms, which would be lost.
    HephaestusError
        If its folder cannot be written.
    """
    require_writable(path.parent, "--alarms")
    if not path.exists():
        return
    head = b""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.readline(1000)
    if head.decode("utf-8", "replace").strip() != ",".join(_COLUMNS):
        raise UsageError(f"{path} is there and no table of alarms; choose another file")


def write_alarm_table(path: Path, alarms: Iterable[MapAlarm]) -> None:
    """Write alarms as CSV, one row each; an earlier table is replaced."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for alarm in alarms:
        table.writerow({**asdict(alarm), "simulated": str(alarm.simulated).lower()})
    with translate_os_errors(f"writing {path}", setting="--alarms"):
        write_atomic(path, stream.getvalue().encode())


_COLUMNS = [field.name for field in fields(MapAlarm)]
