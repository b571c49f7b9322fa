"""``hephaestus frames``: find a frame by volcano, place, point or box, offline."""

from __future__ import annotations

import csv
import io
from typing import Annotated

import typer

from hephaestus_build.cli.console import print_json, print_notice, print_table
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import FoundFrame, find_frames, suggestion
from hephaestus_build.core.frames import FRAME_ID_HELP


def frames(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Volcano, place, region or the beginning of an id. Default: all frames."),
    ] = None,
    near: Annotated[
        str | None,
        typer.Option(metavar="LAT,LON", help="Frames that cover this point, else the five nearest."),
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(metavar="W,S,E,N", help="Frames that share a part of this box, in degrees."),
    ] = None,
    as_json: bool = JSON_OPTION,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """Find frames of the published data set by volcano, place, point or box; asks no archive.

    Footprints are approximate. Other frames are built by their id, which the COMET-LiCSAR portal shows.
    """
    if as_json and as_csv:
        raise UsageError("choose --json or --csv, not both")
    point = None if near is None else _parse_numbers("--near", near, "LAT,LON", "37.75,15.0")
    box = None if bbox is None else _parse_numbers("--bbox", bbox, "W,S,E,N", "13,36,17,39")
    text = " ".join(words or ())
    found = find_frames(
        text,
        near=None if point is None else (point[0], point[1]),
        bbox=None if box is None else (box[0], box[1], box[2], box[3]),
    )
    if as_json:
        print_json({"frames": [item.to_json() for item in found]})
    elif as_csv:
        typer.echo(_format_csv(found), nl=False)
    elif found:
        _print_frames(found)
    if not found:
        hint = suggestion(text) if text else ""
        print_notice(
            f"no frame of the registry fits{hint}; `hephaestus frames` lists all 38, others are built by "
            f"their id: {FRAME_ID_HELP.rpartition(', ')[2]}"
        )
    elif point is not None and not found[0].bounds.contains(point[0], point[1]):
        print_notice(f"no frame of the registry covers {near}; these are the nearest")


def _parse_numbers(option: str, text: str, form: str, example: str) -> tuple[float, ...]:
    """Return the numbers of an option such as ``37.75,15.0``."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != form.count(",") + 1:
        raise UsageError(f"{option} {text} is not {form} in degrees; write {option} {example}")
    return numbers


def _print_frames(found: list[FoundFrame]) -> None:
    """Print one line per frame."""
    near = found[0].distance_km is not None
    columns = ["frame", "lat", "lon", *(["km"] if near else []), "annotated", "region", "volcanoes"]
    lines = [[_frame_cell(item, name) for name in columns] for item in found]
    print_table(columns, lines, numbers=("lat", "lon", "km", "annotated"), folded=("volcanoes",))


def _frame_cell(item: FoundFrame, column: str) -> str:
    match column:
        case "frame":
            return item.id
        case "lat":
            return f"{item.latitude:.2f}"
        case "lon":
            return f"{item.longitude:.2f}"
        case "km":
            return f"{item.distance_km:.0f}"
        case "annotated":
            return str(item.annotations)
        case "region":
            return item.region
        case _:
            names = ", ".join(volcano.name for volcano in item.volcanoes)
            inside = ", ".join(volcano.name for volcano in item.found_inside)
            return f"{names} (and {inside} in its approximate footprint)" if inside else names


def _format_csv(found: list[FoundFrame]) -> str:
    """Return the frames as CSV; several names in one cell are separated by semicolons."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    where = ("latitude", "longitude", "west", "south", "east", "north", "region", "places")
    table.writerow(("frame", "direction", *where, "annotations", "distance_km", "volcanoes", "also_inside"))
    for item in found:
        facts = item.to_json()
        table.writerow(
            [
                item.id,
                facts["direction"],
                item.latitude,
                item.longitude,
                *facts["bounds"],
                item.region,
                ";".join(item.places),
                item.annotations,
                facts["distance_km"],
                *(";".join(v.name for v in volcanoes) for volcanoes in (item.volcanoes, item.also_inside)),
            ]
        )
    return text.getvalue()
