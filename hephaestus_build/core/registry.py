"""Access to the registries and JSON Schemas in ``schemas/``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

#: Variables that a cube has only if a build asks for them; ``schemas/cube.json`` describes each.
OPTIONAL_VARIABLES = (
    "unwrapped_phase",
    "look_east",
    "look_north",
    "look_up",
    "perpendicular_baseline",
    "gacos_delay",
    "icams_delay",
)


def schema_path(name: str) -> Path:
    """Return the path of the file `name` in ``schemas/``, in an installation or a source tree.

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
    """One of the 38 frames of the published data set, with details known without downloads.

    Attributes
    ----------
    id : str
        Frame id.
    volcanoes : tuple of str
        Names of the volcanoes that the data set's authors list, as in
        :attr:`hephaestus_build.core.volcanoes.VolcanoCone.name`.
    longitude, latitude : float
        Centre, degrees.
    center_time : str
        Acquisition time at the frame's centre, UTC, in the format of ``metadata.txt``.
    annotations : int
        Number of interferograms that experts annotated.
    reference : str
        Day of the frame's reference epoch, ``yyyymmdd``.
    region : str
        Name shared by frames that have a volcano in common or lie within 300 km of each other. They must not
        be split between training and test data.
    preview : str
        Latitude mapping of the previews that the experts saw: ``linear`` or ``mercator``.
    implied_shape : tuple of int or None
        Rows and columns implied by the annotations; the rasters determine the true shape.
    implied_from : str or None
        Origin of `implied_shape`: ``volcanoes`` (accurate to 60 pixels), ``bursts`` (150 pixels) or
        ``assumed``.
    implied_pixel : float
        Pixel size of `implied_shape`, degrees.
    uncertain_geometry : str or None
        Reason why the geometry of the previews is uncertain, if it is.
    places : tuple of str
        Countries, and islands or states where those are better known.
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
