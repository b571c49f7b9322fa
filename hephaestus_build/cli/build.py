"""``hephaestus plan`` and ``hephaestus build``."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.archive.embedded import archives_for, embedded_frames
from hephaestus_build.build import plan as plan_frame
from hephaestus_build.cli.common import (
    Json,
    Simulated,
    chosen_settings,
    explain,
    explain_owed,
    out,
    print_json,
    print_pairs,
    worst,
)
from hephaestus_build.errors import HephaestusError, UsageError
from hephaestus_build.frames import Frame
from hephaestus_build.plan import Plan, Request
from hephaestus_build.progress import bars
from hephaestus_build.result import Result
from hephaestus_build.runs import Run
from hephaestus_build.settings import Era5Choice, PairChoice, Settings
from hephaestus_build.watch import all_frames, build_frames

_DAYS = ["%Y-%m-%d", "%Y%m%d"]

Frames = Annotated[
    list[str] | None, typer.Argument(help="Frame ids, such as 124D_04854_171313 or 144A_SM_REUN_S6.")
]
Pairs = Annotated[
    PairChoice | None,
    typer.Option(help="Which pairs: annotated, all, or auto (annotated where the frame has annotations)."),
]
Since = Annotated[
    datetime | None, typer.Option(formats=_DAYS, help="Leave out pairs that begin before this day.")
]
Until = Annotated[
    datetime | None, typer.Option(formats=_DAYS, help="Leave out pairs that end after this day.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Take no more pairs than this, the earliest first.")]
Era5 = Annotated[
    Era5Choice | None,
    typer.Option(help="Source of ERA5: cds, arco, or auto (the CDS where a key is configured)."),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of cubes/, the cache and the results.")]
AtATime = Annotated[
    int, typer.Option("--at-a-time", min=1, max=8, help="Frames at once; they share the connections.")
]


def plan(
    frames: Frames = None,
    pairs: Pairs = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    era5: Era5 = None,
    data_dir: DataDir = None,
    simulated: Simulated = False,
    as_json: bool = Json,
) -> None:
    """Say what a build will fetch, skip, take and cost, from one listing.

    Simulated frames are asked of an archive that this command serves itself, unless a portal is set.
    """
    chosen = _frames(frames, simulated)
    settings = chosen_settings(simulated, data_dir=data_dir, era5=era5, pairs=pairs)
    with archives_for(settings, chosen) as served:
        plans = [plan_frame(request_of(frame, settings, since, until, limit), served) for frame in chosen]
    if as_json:
        print_json([item.to_json() for item in plans])
        return
    for item in plans:
        _print_plan(item)


def build(
    frames: Frames = None,
    every: Annotated[
        bool, typer.Option("--all", help="The 38 frames of the published data set, or those of --simulated.")
    ] = False,
    pairs: Pairs = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    era5: Era5 = None,
    data_dir: DataDir = None,
    simulated: Simulated = False,
    at_a_time: AtATime = 2,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another build works on the frame.")
    ] = False,
    quicklook: Annotated[bool, typer.Option(help="Draw a picture of each cube.")] = True,
    as_json: bool = Json,
) -> None:
    """Build or extend the cubes of frames, and publish them.

    Simulated frames, or all with --simulated, come to <data>/simulated, from an archive that this command
    serves itself unless a portal is set.
    A frame that fails never stops the others. Every run is written down in <data>/runs.jsonl.

    Exits with 0 when all is there (or only absences that the setting `accept` names are missing), 1 when a
    frame failed, 2 when every request was wrong, 3 when all are published and something is owed. What is owed
    is fetched by the same command later.
    """
    runs: list[Run] = []
    spoilt = False
    chosen = _frames(frames, simulated, every=every)
    settings = chosen_settings(simulated, data_dir=data_dir, era5=era5, pairs=pairs)
    requests = [request_of(frame, settings, since, until, limit) for frame in chosen]
    with archives_for(settings, chosen) as served, bars() as listener:
        for run in build_frames(requests, served, listener=listener, wait=wait, at_a_time=at_a_time):
            runs.append(run)
            if run.result is None:
                explain(run.error)
                continue
            picture = None
            if quicklook:
                picture, fault = _draw(run.result, settings.for_frame(run.frame))
                spoilt |= bool(fault)
            if not as_json:
                _print_result(run.result, picture)
    if as_json:
        print_json([run.result.to_json() if run.result else run.to_json() for run in runs])
    for run in runs:
        if run.result is not None:
            explain_owed(str(run.frame), run.result.owed)
    raise typer.Exit(worst([*(run.exit_code for run in runs), *([1] if spoilt else [])]))


def request_of(
    frame: Frame, settings: Settings, since: datetime | None, until: datetime | None, limit: int | None
) -> Request:
    """Return what the options of a command ask for."""
    return Request(frame, settings.pairs, _day(since), _day(until), limit)


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _frames(names: list[str] | None, simulated: bool, *, every: bool = False) -> list[Frame]:
    if names and every:
        raise UsageError("name frames or say --all, not both")
    if every and not simulated:
        return all_frames()
    if not names and not simulated:
        raise UsageError(
            "name a frame, such as 124D_04854_171313, or add --simulated for the embedded sample"
        )
    return list(dict.fromkeys(map(Frame.parse, names))) if names else list(embedded_frames())


def _print_plan(plan: Plan) -> None:
    facts = plan.to_json()
    rows = {
        "pairs upstream": facts["listed"],
        f"wanted ({facts['pairs']})": facts["wanted"],
        "in the cube already": facts["in_cube"],
        "to fetch": facts["to_fetch"],
        **{f"skipped, {reason}": count for reason, count in facts["skipped"].items()},
        "annotated, absent upstream": len(facts["annotated_but_absent_upstream"]),
        "ERA5": f"{facts['era5_dates']} dates in {facts['era5_requests']} requests",
        "download": f"{facts['download_gb']:.2f} GB",
        "disk": f"{facts['disk_gb']:.2f} GB",
        "sizes from": "the frame's grid" if facts["size_is_exact"] else "a typical frame's grid",
    }
    print_pairs(facts["frame"], rows)


def _draw(result: Result, settings: Settings) -> tuple[Path | None, str]:
    """Return the cube's picture, or why there is none: a cube without a picture is a cube."""
    from hephaestus_build.report.quicklook import write_quicklook

    path = settings.data_dir / "quicklooks" / f"{result.frame}.png"
    try:
        if result.published or not path.exists():
            write_quicklook(result.path, path)
    except (HephaestusError, OSError, ValueError) as error:
        explain(
            f"{result.frame}: its picture could not be drawn ({error}); `hephaestus verify "
            f"{result.frame}` says whether the cube is whole"
        )
        return None, str(error)
    return path, ""


def _print_result(result: Result, picture: Path | None) -> None:
    mark = ", simulated" if result.simulated else ""
    state = (
        f"generation {result.generation}"
        if result.published
        else f"nothing new, generation {result.generation}"
    )
    rows: dict[str, object] = {
        "cube": f"{result.path} ({state}{mark})",
        "interferograms": f"{result.pairs}"
        + (f", {len(result.absent)} absent upstream" if result.absent else ""),
        "brought to the grid": ", ".join(f"{count} {kind}" for kind, count in result.aligned.items()),
        "annotated": result.masks,
        **({"accepted as absent": f"{len(result.accepted)} products"} if result.accepted else {}),
        **({"gone upstream": f"{len(result.gone)} interferograms, kept"} if result.gone else {}),
        "ERA5": f"{result.epochs} dates, from {result.era5}",
        "open it": f"xarray.open_zarr({str(result.path)!r})",
    }
    if picture is not None:
        rows["picture"] = picture
    print_pairs(str(result.frame), rows)
    out.print()
