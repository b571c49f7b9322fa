"""``hephaestus frames``: find a frame by volcano, place, point or box, offline; learn all of the archive."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import load_command_settings, print_json, print_notice, print_table
from hephaestus_build.cli.degrees import parse_degrees
from hephaestus_build.cli.options import (
    JSON_OPTION,
    DataDirOption,
    PublishedOption,
    SimulatedOption,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import FoundFrame, find_frames, suggestion
from hephaestus_build.core.frames import FRAME_ID_HELP, Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.operations.frame_list import newest_listed_day, read_frame_list, update_frame_list
from hephaestus_build.simulation.server.embedded import embedded_frames, serve_for_frames
from hephaestus_build.sources.selection import open_interferogram_source

# which source is meant: the one whose ids look like this
_ANY_FRAME = Frame("124D_04854_171313")


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
    published: PublishedOption = False,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="First learn all frames from the archive's listings of its tracks, one request each; tracks "
            "that were asked within a week are not asked again.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="With --update, ask about every track.")] = False,
    data_dir: DataDirOption = None,
    simulated: SimulatedOption = False,
    as_json: bool = JSON_OPTION,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """Find frames by volcano, place, point or box; asks no archive unless --update is given.

    The 38 frames of the published data set are always known, all others of the archive after --update.
    Footprints are approximate. Any frame is built by its id, known or not.
    With --update alone it says what is new, and exits with 3 when some tracks did not answer.
    """
    if as_json and as_csv:
        raise UsageError("choose --json or --csv, not both")
    if force and not update:
        raise UsageError("--force goes with --update")
    settings = load_command_settings(simulated, data_dir=data_dir)
    code = _update(settings, force=force) if update else 0
    point = None if near is None else parse_degrees("--near", near, "LAT,LON")
    box = None if bbox is None else parse_degrees("--bbox", bbox, "W,S,E,N")
    text = " ".join(words or ())
    kept = None if published else read_frame_list(settings)
    if simulated and kept is None:
        raise UsageError("no list of simulated frames is kept; add --update")
    found = find_frames(
        text,
        others=kept.frames if kept else (),
        near=None if point is None else (point[0], point[1]),
        bbox=None if box is None else (box[0], box[1], box[2], box[3]),
    )
    if simulated:
        found = [item for item in found if item.frame.is_simulated]
    newest = _newest_days(found, settings)
    if as_json:
        print_json({"frames": [item.to_json() | _latency(newest.get(item.frame)) for item in found]})
    elif as_csv:
        typer.echo(_format_csv(found, newest), nl=False)
    elif found and not (update and not words and point is None and box is None):
        _print_frames(found, newest)
    if not found:
        hint = suggestion(text) if text else ""
        print_notice(
            f"no frame of the registry fits{hint}; `hephaestus frames` lists all 38, others are built by "
            f"their id: {FRAME_ID_HELP.rpartition(', ')[2]}"
            if kept is None
            else f"no known frame fits{hint}; `hephaestus frames` lists all {len(kept.frames)}"
        )
    elif point is not None and not found[0].bounds.contains(point[0], point[1]):
        among = "known frame" if kept else "frame of the registry"
        print_notice(f"no {among} covers {near}; these are the nearest")
    if code:
        raise typer.Exit(code)


def _update(settings: Settings, *, force: bool) -> int:
    """Ask the archive for its frames, say what came of it, and return the exit code."""
    # a portal that the settings name is asked; else simulated frames are served by this command itself
    with serve_for_frames(settings, embedded_frames() if settings.is_simulated else ()) as served:
        home = served.for_simulated() if settings.is_simulated else served
        source = open_interferogram_source(home, _ANY_FRAME)
        try:
            with show_progress() as listener:
                done = update_frame_list(home, source, force=force, listener=listener)
        finally:
            source.close()
    young = f", {done.young} not, since they were asked within a week" if done.young else ""
    print_notice(
        f"{count_of(len(done.frames), 'frame')} known of {source.address}, {len(done.added)} of them new; "
        f"{count_of(done.asked, 'track')} asked{young}"
    )
    for track, why in done.unchanged.items():
        print_notice(f"track {track}: its frames of an earlier list are kept ({why})")
    if done.failed:
        first, why = next(iter(done.failed.items()))
        more = f" and {len(done.failed) - 1} more" if len(done.failed) > 1 else ""
        print_notice(f"track {first}{more}: not known yet; {why.removeprefix(f'track {first}: ')}")
    return done.exit_code


def _newest_days(found: list[FoundFrame], settings: Settings) -> dict[Frame, date]:
    """Return the newest secondary date of frames whose listing is kept."""
    source = open_interferogram_source(settings, _ANY_FRAME)
    try:
        days = {item.frame: newest_listed_day(source, item.frame) for item in found}
    finally:
        source.close()
    return {frame: day for frame, day in days.items() if day is not None}


def _latency(newest: date | None) -> dict[str, Any]:
    """Return the newest date and the days since, as JSON values; null where they are not known."""
    days = None if newest is None else (datetime.now(UTC).date() - newest).days
    return {"newest": None if newest is None else newest.isoformat(), "latency_days": days}


def _print_frames(found: list[FoundFrame], newest: Mapping[Frame, date]) -> None:
    """Print one line per frame."""
    columns = [
        *("frame", "lat", "lon"),
        *(["km"] if found[0].distance_km is not None else []),
        *("annotated", *(["late"] if newest else []), "region", "volcanoes"),
    ]
    lines = [[_frame_cell(item, name, newest.get(item.frame)) for name in columns] for item in found]
    print_table(columns, lines, numbers=("lat", "lon", "km", "annotated", "late"), folded=("volcanoes",))


def _frame_cell(item: FoundFrame, column: str, newest: date | None) -> str:
    match column:
        case "frame":
            return item.id
        case "lat" | "lon":
            value = item.latitude if column == "lat" else item.longitude
            return "-" if math.isnan(value) else f"{value:.2f}"
        case "late":
            days = _latency(newest)["latency_days"]
            return "-" if days is None else f"{days} d"
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


def _format_csv(found: list[FoundFrame], newest: Mapping[Frame, date]) -> str:
    """Return the frames as CSV; several names in one cell are separated by semicolons."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    where = ("latitude", "longitude", "west", "south", "east", "north", "region", "places")
    counts = ("annotations", "distance_km", "newest", "latency_days")
    table.writerow(("frame", "direction", *where, *counts, "volcanoes", "also_inside"))
    for item in found:
        facts = item.to_json() | _latency(newest.get(item.frame))
        places = (item.latitude, item.longitude, *facts["bounds"])
        table.writerow(
            [
                item.id,
                facts["direction"],
                *("" if math.isnan(value) else value for value in places),
                item.region,
                ";".join(item.places),
                item.annotations,
                *(facts[name] for name in counts[1:]),
                *(";".join(v.name for v in volcanoes) for volcanoes in (item.volcanoes, item.also_inside)),
            ]
        )
    return text.getvalue()
