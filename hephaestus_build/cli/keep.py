"""``hephaestus status``, ``verify``, ``repair``, ``watch`` and ``gc``: the daily life of cubes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.archive.embedded import archives_for
from hephaestus_build.cli.build import AtATime, DataDir, Frames, Pairs, Since, request_of
from hephaestus_build.cli.common import (
    Json,
    Simulated,
    chosen_settings,
    err,
    explain,
    explain_owed,
    out,
    print_json,
    worst,
)
from hephaestus_build.collection import cubes_of, only_simulated
from hephaestus_build.cube.check import check_schema
from hephaestus_build.cube.generation import Generation, Shelf
from hephaestus_build.cube.implied import check_implied
from hephaestus_build.cube.verify import verify_content
from hephaestus_build.errors import HephaestusError, OwedError, UsageError, one_line
from hephaestus_build.frames import Frame
from hephaestus_build.progress import Listener, bars
from hephaestus_build.repair import repair as repair_frame
from hephaestus_build.runs import last_runs
from hephaestus_build.settings import Settings, refuse_address
from hephaestus_build.status import FrameStatus, frames_begun, frames_on_disk, homes, status_of
from hephaestus_build.upstream import check_upstream
from hephaestus_build.watch import all_frames
from hephaestus_build.watch import watch as watch_frames


def status(
    frames: Frames = None, simulated: Simulated = False, data_dir: DataDir = None, as_json: bool = Json
) -> None:
    """Show how all cubes stand, real and simulated: newest interferogram, what is owed or stale.

    Exits with 1 when a frame has no cube that can be read, or its last build failed; what is owed or stale is
    work for the next build and no failure.
    """
    settings = chosen_settings(simulated, data_dir=data_dir)
    chosen = _homes(frames, settings, frames_on_disk)
    runs = {False: last_runs(settings.data_dir)}
    runs[True] = {**runs[False], **last_runs(settings.simulated().data_dir)}
    rows = [status_of(home, frame, runs=runs[home.is_simulated]) for frame, home in chosen]
    if as_json:
        print_json([row.to_json() for row in rows])
    elif rows:
        _print_status(rows)
    else:
        explain(f"there are no cubes in {settings.cubes_dir}; `hephaestus build FRAME` builds one")
    if any(row.failed for row in rows):
        raise typer.Exit(1)


_SHOWN = 200  # findings of a cube that are printed

Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FRAMES_OR_PATHS]...", help="Frame ids, or where cubes are; by default all."),
]


def verify(
    targets: Targets = None,
    data_dir: DataDir = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Ask the archive which products have changed since, instead.")
    ] = False,
    simulated: Simulated = False,
    as_json: bool = Json,
) -> None:
    """Read every stored object and compare it with what was published; check the schema and the flags.

    Without frames or paths, those of all cubes, real and simulated.
    Exits with 1 and names the pair and the variable when anything differs, or the archive cannot be asked.
    What is owed is no failure: `hephaestus status` lists it.
    """
    settings = chosen_settings(simulated, data_dir=data_dir)
    found: dict[str, list[str]] = {}
    failed = False
    chosen = _targets(targets, settings)
    asked = [target for target, _ in chosen.values() if upstream and isinstance(target, Frame)]
    with archives_for(settings, asked) as served:
        for name, (target, home) in chosen.items():
            try:
                with one_line(target), bars() as listener:
                    found[name] = (
                        _upstream(target, served.simulated() if home.is_simulated else served, listener)
                        if upstream
                        else _whole(target, home, listener)
                    )
            except HephaestusError as error:
                failed = _go_on(error, alone=bool(targets) and len(targets or ()) == 1)
    if as_json:
        print_json(found)
    for name, lines in found.items():
        target, home = chosen[name]
        if not as_json:
            result = f"{len(lines)} findings" if lines else "whole"
            out.print(f"{target}{_mark(home)}: {result}")
        command = f"{target}{_option(target, home)}"
        advice = (
            f"`hephaestus build {command}` fetches it"
            if upstream
            else f"`hephaestus repair {command}` mends it"
        )
        for line in lines[:_SHOWN]:
            explain(f"{target}: {line}; {'copy it again' if isinstance(target, Path) else advice}")
        if len(lines) > _SHOWN:
            explain(f"{target}: and {len(lines) - _SHOWN} more, which --json lists")
    if failed or any(found.values()):
        raise typer.Exit(1)


def _upstream(target: Frame | Path, settings: Settings, listener: Listener) -> list[str]:
    frame = target if isinstance(target, Frame) else Frame.parse(str(target))
    return [str(change) for change in check_upstream(frame, settings, listener)]


def _whole(target: Frame | Path, settings: Settings, listener: Listener) -> list[str]:
    """Return what is wrong with a cube: its bytes; if they are right, what they say, and the record."""
    generation = _generation(settings, target) if isinstance(target, Frame) else Generation.at(target)
    damages = verify_content(generation, listener)
    findings = [] if damages else check_schema(generation.store) or check_implied(generation, listener)
    return list(map(str, damages or findings))


def repair(
    frames: Frames = None, simulated: Simulated = False, data_dir: DataDir = None, as_json: bool = Json
) -> None:
    """Rebuild exactly what is damaged, and publish a whole cube.

    Without frames, the real cubes; with --simulated the simulated ones.
    Exits with 3 when some of it could not be fetched again, which is owed then, and with 1 when a frame could
    not be repaired.
    """
    settings = chosen_settings(simulated, data_dir=data_dir)
    chosen, settings = _of_one_kind(frames, settings)
    repairs, failed = [], False
    with archives_for(settings, chosen) as served:
        for frame in chosen:
            try:
                with one_line(frame), bars() as listener:
                    repairs.append(repair_frame(frame, served, listener))
            except HephaestusError as error:
                failed = _go_on(error, alone=len(chosen) == 1)
    if as_json:
        print_json([item.to_json() for item in repairs])
    for item in repairs:
        if not as_json:
            out.print(
                f"{item.frame}: {len(item.damages)} objects damaged, {len(item.rebuilt)} units rebuilt, "
                f"generation {item.generation}"
                if item.damages
                else f"{item.frame}: whole, nothing to repair"
            )
        for key in item.changed:
            explain(f"{item.frame}: {key} changed upstream meanwhile; the cube holds what is there now")
        for key in item.lost:
            explain(
                f"{item.frame}: {key} could not be had again; `hephaestus build {item.frame}` tries again"
            )
    raise typer.Exit(worst([int(failed), *(OwedError.exit_code for item in repairs if item.lost)]))


def _go_on(error: HephaestusError, *, alone: bool) -> bool:
    """Say what went wrong with one frame of several; return that something did."""
    if alone:
        raise error
    explain(str(error))
    return True


def watch(
    frames: Frames = None,
    every_frame: Annotated[
        bool, typer.Option("--all", help="The 38 frames of the published data set.")
    ] = False,
    pairs: Pairs = None,
    since: Since = None,
    every: Annotated[float, typer.Option(min=0.01, help="Hours from one round to the next.")] = 12.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Stop after so many rounds.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop after one round, as for cron.")] = False,
    at_a_time: AtATime = 2,
    simulated: Simulated = False,
    data_dir: DataDir = None,
    as_json: bool = Json,
) -> None:
    """Keep cubes up to date: look for new interferograms now and again, and build what arrived.

    Without frames, those that have a cube of real data, or with --simulated of simulated; any LiCSAR frame
    may be named, annotated or not. Every build is written down in <data>/runs.jsonl (of simulated data in
    <data>/simulated/runs.jsonl). Ctrl-C stops it at any time. After its last round it exits as `build` does:
    with 3 when something is owed, with 1 when a frame failed.
    """
    if once and rounds is not None:
        raise UsageError("say --once or --rounds, not both")
    settings = chosen_settings(simulated, data_dir=data_dir, pairs=pairs)
    if frames and every_frame:
        raise UsageError("name frames or say --all, not both")
    chosen, settings = (all_frames(), settings) if every_frame else _of_one_kind(frames, settings)
    if not chosen:
        raise UsageError("there are no cubes yet: name the frames to watch, such as 124D_04854_171313")
    requests = [request_of(frame, settings, since, None, None) for frame in chosen]
    codes = set()
    with archives_for(settings, chosen) as served, bars() as listener:
        for run in watch_frames(
            requests,
            served,
            interval=every * 3600,
            rounds=1 if once else rounds,
            listener=listener if err.is_terminal else None,
            at_a_time=at_a_time,
        ):
            codes.add(run.exit_code)
            if as_json:
                typer.echo(json.dumps(run.to_json(), default=str))
            elif run.result is None:
                explain(run.error)
            else:
                news = f"generation {run.result.generation}" if run.result.published else "nothing new"
                owed = f", {len(run.result.owed)} owed" if run.result.owed else ""
                owed += f", {len(run.result.accepted)} accepted as absent" if run.result.accepted else ""
                out.print(f"{run.began:%Y-%m-%d %H:%M} {run.frame}: {news}, {run.result.pairs} pairs{owed}")
            sys.stdout.flush()  # whoever reads along should not wait for a full buffer
    raise typer.Exit(worst(codes))


def gc(
    frames: Frames = None,
    keep: Annotated[
        int, typer.Option(min=1, help="Newest generations to keep, the published one included.")
    ] = 2,
    older_than: Annotated[
        float, typer.Option(min=0, help="Remove only what is older than so many days.")
    ] = 7.0,
    simulated: Simulated = False,
    data_dir: DataDir = None,
    as_json: bool = Json,
) -> None:
    """Remove old generations: all but the newest, and only when no reader can be expected any more.

    Without frames, those of all cubes, real and simulated.
    """
    settings = chosen_settings(simulated, data_dir=data_dir)
    chosen, removed, failed = _labelled(_homes(frames, settings)), {}, False
    for name, (frame, home) in chosen.items():
        try:
            with one_line(frame):
                shelf = Shelf(cubes_of(home, frame), frame)
                with shelf.lock():
                    removed[name] = shelf.collect(keep=keep, older_than=timedelta(days=older_than))
        except HephaestusError as error:
            failed = _go_on(error, alone=len(chosen) == 1)
    if as_json:
        print_json(removed)
    else:
        for name, numbers in removed.items():
            frame, home = chosen[name]
            what = ", ".join(map(str, numbers))
            done = f"removed generations {what}" if numbers else "nothing to remove"
            out.print(f"{frame}{_mark(home)}: {done}")
    if failed:
        raise typer.Exit(1)


def _homes(
    names: Sequence[str] | None,
    settings: Settings,
    by_default: Callable[[Settings], list[Frame]] = frames_begun,
) -> list[tuple[Frame, Settings]]:
    """Return the frames that a user named, else all here, each with the settings that hold for it."""
    frames = dict.fromkeys(map(Frame.parse, names or ()))
    return [(frame, settings.for_frame(frame)) for frame in frames] or homes(settings, by_default)


def _labelled(chosen: Sequence[tuple[Frame, Settings]]) -> dict[str, tuple[Frame, Settings]]:
    """Return frames by what JSON calls them: the id, marked where it stands for a real cube too."""
    real = {frame for frame, home in chosen if not home.is_simulated}
    return {f"{frame}{_mark(home) if frame in real else ''}": (frame, home) for frame, home in chosen}


def _of_one_kind(names: list[str] | None, settings: Settings) -> tuple[list[Frame], Settings]:
    """Return the frames that a user named, else those of the real cubes, else of the simulated ones."""
    if names:
        return list(dict.fromkeys(map(Frame.parse, names))), settings
    found = homes(settings)
    real = [frame for frame, home in found if not home.is_simulated]
    if real or not found:
        return real, settings
    if not settings.is_simulated:
        explain(only_simulated(settings))
    return [frame for frame, _ in found], settings.simulated()


def _targets(names: list[str] | None, settings: Settings) -> dict[str, tuple[Frame | Path, Settings]]:
    """Return frames and paths by what JSON calls them."""
    if not names:
        return dict(_labelled(_homes(None, settings)))
    found: dict[str, tuple[Frame | Path, Settings]] = {}
    for name in names:
        if is_path(name):
            refuse_address("the cube", name)
            found[name] = Path(name), settings
        else:
            frame = Frame.parse(name)
            found[name] = frame, settings.for_frame(frame)
    return found


def _mark(home: Settings) -> str:
    return " (simulated)" if home.is_simulated else ""


def _option(target: Frame | Path, home: Settings) -> str:
    """Return what a command needs beside a frame's id to find its simulated cube."""
    return " --simulated" if home.is_simulated and isinstance(target, Frame) and not target.simulated else ""


def is_path(target: str) -> bool:
    """Return whether what a user typed is where a cube is, not a frame's id."""
    return target.endswith(".zarr") or "/" in target or Path(target).exists()


def _generation(settings: Settings, frame: Frame) -> Generation:
    cubes = cubes_of(settings, frame)
    current = Shelf(cubes, frame).current()
    if current is None:
        raise HephaestusError(f"{frame}: there is no cube in {cubes}; `hephaestus build {frame}` builds it")
    return current


def _print_status(rows: list[FrameStatus]) -> None:
    """Print a line a frame, then what needs attention, a line each."""
    columns = ("frame", "built (UTC)", "newest", "late", "pairs", "owed", "stale", "GB")
    lines = [columns, *(_cells(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = [
            cell.ljust(width) if index < 3 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.print("  ".join(cells).rstrip())
    if simulated := [row.frame for row in rows if row.simulated]:
        out.print(f"simulated: {', '.join(simulated)}")
    if accepted := [f"{len(row.accepted)} of {row.frame}" for row in rows if row.accepted]:
        out.print(f"accepted as absent: {', '.join(accepted)}")
    for row in rows:
        for text in _attention(row):
            explain(f"{row.frame}: {text}")
        explain_owed(row.frame, row.owed)


def _cells(row: FrameStatus) -> tuple[str, ...]:
    if row.generation is None:
        return (row.frame, "-", "-", "-", "-", "-", "-", "-")
    return (
        row.frame,
        f"{row.built:%Y-%m-%d}",
        str(row.newest or "-"),
        f"{row.latency_days} d" if row.latency_days is not None else "-",
        str(row.pairs),
        str(len(row.owed)),
        "yes" if row.stale else "no",
        f"{row.bytes / 1e9:.2f}",
    )


def _attention(row: FrameStatus) -> Iterator[str]:
    """Yield what a person should know of a frame and a table has no room for."""
    if row.problem:
        yield row.problem
    if row.to_migrate:
        yield (
            f"it is simulated and stands among the real cubes, as earlier versions had it; `hephaestus "
            f"migrate {row.frame}` moves it apart"
        )
    yield from (
        f"stale: {reason}; `hephaestus build {row.frame}` brings it up to date" for reason in row.stale
    )
    if row.gone:
        yield f"{len(row.gone)} pairs are gone upstream and stay in the cube, such as {row.gone[0]}"
    if row.preliminary:
        yield f"{row.preliminary} dates have preliminary ERA5, replaced when the final is released"
    if row.unfinished and row.generation is not None:
        yield f"{row.unfinished} units of a build that was cut off, or is at work, are not published yet"
    if row.last_error:
        yield f"its last build failed: {row.last_error}"
