"""The registries and schemas that stand in ``schemas/``, read in one place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


def schema_path(name: str) -> Path:
    """Return the path of the file `name` in ``schemas/``, in a wheel or in a source tree.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_schemas", package.parent / "schemas"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"schemas/{name} is missing from this installation; install hephaestus-build again"
    )


@cache
def load_schema(name: str) -> Any:
    """Return the parsed JSON of ``schemas/<name>``; treat it as read-only."""
    return json.loads(schema_path(name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class PublishedFrame:
    """What is known beforehand of one of the 38 frames of the published data set.

    Attributes
    ----------
    id : str
        Frame id.
    volcanoes : tuple of str
        Those that the data set's authors list, by :attr:`hephaestus_build.core.volcanoes.VolcanoCone.name`.
    longitude, latitude : float
        Centre, degrees.
    center_time : str
        Acquisition time of the frame's centre, UTC, as ``metadata.txt`` writes it.
    annotations : int
        How many interferograms the experts looked at.
    reference : str
        Day of the frame's reference epoch, ``yyyymmdd``.
    region : str
        Name of the frames that share a volcano or lie within 300 km; nothing learnt on one of them is
        unseen on another.
    preview : str
        How the previews that the experts saw map latitude to rows: ``linear`` or ``mercator``.
    implied_shape : tuple of int or None
        Rows and columns that follow from the annotations; the true shape is the rasters'.
    implied_from : str or None
        What `implied_shape` was derived from: ``volcanoes`` (within 60 pixels), ``bursts`` (150) or
        ``assumed``.
    implied_pixel : float
        Pixel size that `implied_shape` counts in, degrees.
    uncertain_geometry : str or None
        Why the previews' geometry cannot be known beforehand, if it cannot.
    places : tuple of str
        Countries, and islands or states where they are better known.
    """

    id: str
    volcanoes: tuple[str, ...]
    longitude: float
    latitude: float
    center_time: str
    annotations: int
    reference: str
    region: str
    preview: str = "linear"
    implied_shape: tuple[int, int] | None = None
    implied_from: str | None = None
    implied_pixel: float = 0.001
    uncertain_geometry: str | None = None
    places: tuple[str, ...] = ()


@cache
def published_frames() -> dict[str, PublishedFrame]:
    """Return the 38 frames of the published data set by id (``schemas/frames.json``)."""
    frames = {}
    for entry in load_schema("frames.json")["frames"]:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        frames[entry["id"]] = PublishedFrame(**fields)
    return frames
