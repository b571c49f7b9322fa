"""Access to the registries and JSON Schemas in ``schemas/``."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hephaestus_build.core.plain_text import sanitize_text

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


def near_variables(name: str, among: Collection[str] | None = None) -> str:
    """Return the variables whose name or meaning has a word of `name`, with what each is; empty without any.

    Parameters
    ----------
    name : str
        The name that was asked for.
    among : collection of str, optional
        Names to choose from; by default those of all variables of a cube.

    Examples
    --------
    >>> near_variables("wrapped_phase", ["insar_difference", "phase", "dem"])
    'insar_difference (wrapped interferometric phase), phase (phase of the activity)'
    """
    meanings = {entry["name"]: _meaning(entry) for entry in load_schema("cube.json")["variables"]}
    words = _words(name)
    close = difflib.get_close_matches(name.lower(), meanings, n=2)

    def rank(other: str) -> tuple[int, bool]:
        return len(words & (_words(other) | _words(meanings[other]))), other in close

    known = [other for other in meanings if other != name and (among is None or other in among)]
    # sorted is stable: of equal ones, those that the schema has first
    found = sorted((other for other in known if any(rank(other))), key=rank, reverse=True)
    return ", ".join(f"{other} ({meanings[other]})" for other in found[:4])


def describe_misnamed(name: str, *, image: bool = False) -> str:
    """Return why `name` is no variable of a cube, or with `image` no image, and what is near it.

    Examples
    --------
    >>> describe_misnamed("phase", image=True).partition("; near it: ")[0]
    "phase is no image on the frame's grid: phase of the activity"
    """
    known = {entry["name"]: entry for entry in load_schema("cube.json")["variables"]}
    shown = sanitize_text(name, 80)
    if image and name in known:
        reason = f"{shown} is no image on the frame's grid: {_meaning(known[name])}"
    else:
        reason = f"{shown} is no variable of a cube"
    images = {other for other, entry in known.items() if entry["dims"][-1] == "longitude"}
    near = near_variables(name, images if image else None)
    return f"{reason}; near it: {near}" if near else f"{reason}; docs/cube.md lists them all"


def _meaning(entry: dict[str, dict[str, str]]) -> str:
    return entry["attributes"].get("long_name", "")


def _words(text: str) -> set[str]:
    parts = re.findall("[a-z]+", text.lower())
    # by their beginnings: an interferogram is interferometric
    return {part[:7] for part in parts if len(part) > 2 and part not in ("the", "and")}
