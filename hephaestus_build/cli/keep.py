"""``hephaestus status``, ``verify``, ``repair``, ``watch`` and ``gc``: the daily life of cubes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from hephaestus_build.cli.build import DataDir, Frames, Pairs, Since, request_of
from hephaestus_build.cli.common import Json, explain, explain_owed, out, print_json
from hephaestus_build.cube.generation import Generation, Shelf
from hephaestus_build.cube.verify import verify_content
from hephaestus_build.errors import HephaestusError
from hephaestus_build.frames import Frame
from hephaestus_build.progress import bars
from hephaestus_build.repair import repair as repair_frame
from hephaestus_build.settings import Settings, load_settings
from hephaestus_build.status import FrameStatus, frames_on_disk, status_of
from hephaestus_build.upstream import check_upstream
from hephaestus_build.watch import watch as watch_frames


def status(frames: Frames = None, data_dir: DataDir = None, as_json: bool = Json) -> None:
    """Show how all cubes stand: last build, newest interferogram, what is owed or stale."""
    settings = load_settings(data_dir=data_dir)
    rows = [status_of(settings, frame) for frame in _chosen(frames, settings)]
    if as_json:
        print_json([row.to_json() for row in rows])
    elif rows:
        _print_status(rows)
    else:
        explain(f"there are no cubes in {settings.cubes_dir}; `hephaestus build FRAME` builds one")
    if any(row.owed or row.problem or row.stale for row in rows):
        raise typer.Exit(1)


def verify(
    frames: Frames = None,
    data_dir: DataDir = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Ask the archive which products have changed since, instead.")
    ] = False,
    as_json: bool = Json,
) -> None:
    """Read every stored object and compare it with what was published.

    Exits with 1 and names the pair and the variable when anything differs.
    """
    settings = load_settings(data_dir=data_dir)
    found: dict[str, list[str]] = {}
    for frame in _chosen(frames, settings):
        with bars() as listener:
            if upstream:
                found[frame.id] = [str(change) for change in check_upstream(frame, settings, listener)]
            else:
                found[frame.id] = [
                    str(damage) for damage in verify_content(_generation(settings, frame), listener)
                ]
    if as_json:
        print_json(found)
    for name, lines in found.items():
        if not as_json:
            out.print(f"{name}: " + (f"{len(lines)} findings" if lines else "whole"))
        advice = (
            f"`hephaestus build {name}` fetches it" if upstream else f"`hephaestus repair {name}` rebuilds it"
        )
        for line in lines:
            explain(f"{name}: {line}; {advice}")
    if any(found.values()):
        raise typer.Exit(1)


def repair(frames: Frames = None, data_dir: DataDir = None, as_json: bool = Json) -> None:
    """Rebuild exactly what is damaged, and publish a whole cube."""
    settings = load_settings(data_dir=data_dir)
    repairs = []
    for frame in _chosen(frames, settings):
        with bars() as listener:
            repairs.append(repair_frame(frame, settings, listener))
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
    if any(item.lost for item in repairs):
        raise typer.Exit(1)


def watch(
    frames: Frames = None,
    pairs: Pairs = None,
    since: Since = None,
    every: Annotated[float, typer.Option(min=0.01, help="Hours from one round to the next.")] = 12.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Stop after so many rounds.")] = None,
    data_dir: DataDir = None,
    as_json: bool = Json,
) -> None:
    """Keep cubes up to date: look for new interferograms now and again, and build what arrived.

    Without frames, those that have a cube. Every round is written down in <data>/runs.jsonl.
    """
    settings = load_settings(data_dir=data_dir, pairs=pairs)
    requests = [request_of(frame, settings, since, None, None) for frame in _chosen(frames, settings)]
    failed = False
    with bars() as listener:
        for run in watch_frames(requests, settings, interval=every * 3600, rounds=rounds, listener=listener):
            failed |= run.exit_code != 0
            if as_json:
                typer.echo(json.dumps(run.to_json(), default=str))
            elif run.result is None:
                explain(run.error)
            else:
                news = f"generation {run.result.generation}" if run.result.published else "nothing new"
                owed = f", {len(run.result.owed)} owed" if run.result.owed else ""
                out.print(f"{run.began:%Y-%m-%d %H:%M} {run.frame}: {news}, {run.result.pairs} pairs{owed}")
    if failed:
        raise typer.Exit(1)


def gc(
    frames: Frames = None,
    keep: Annotated[
        int, typer.Option(min=1, help="Newest generations to keep, the published one included.")
    ] = 2,
    older_than: Annotated[
        float, typer.Option(min=0, help="Remove only what is older than so many days.")
    ] = 7.0,
    data_dir: DataDir = None,
    as_json: bool = Json,
) -> None:
    """Remove old generations: all but the newest, and only when no reader can be expected any more."""
    settings = load_settings(data_dir=data_dir)
    removed = {}
    for frame in _chosen(frames, settings):
        shelf = Shelf(settings.cubes_dir, frame)
        with shelf.lock():
            removed[frame.id] = shelf.collect(keep=keep, older_than=timedelta(days=older_than))
    if as_json:
        print_json(removed)
        return
    for name, numbers in removed.items():
        what = ", ".join(map(str, numbers))
        out.print(f"{name}: " + (f"removed generations {what}" if numbers else "nothing to remove"))


def _chosen(frames: list[str] | None, settings: Settings) -> list[Frame]:
    return [Frame.parse(name) for name in frames] if frames else frames_on_disk(settings)


def _generation(settings: Settings, frame: Frame) -> Generation:
    current = Shelf(settings.cubes_dir, frame).current()
    if current is None:
        raise HephaestusError(
            f"{frame}: there is no cube in {settings.cubes_dir}; `hephaestus build {frame}` builds it"
        )
    return current


def _print_status(rows: list[FrameStatus]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("frame", "built (UTC)", "newest", "latency", "pairs", "owed", "stale", "size"):
        table.add_column(name, justify="right" if name in ("latency", "pairs", "owed", "size") else "left")
    for row in rows:
        if row.problem:
            table.add_row(row.frame, row.problem)
            continue
        table.add_row(
            row.frame + (" (simulated)" if row.simulated else ""),
            f"{row.built:%Y-%m-%d %H:%M}",
            str(row.newest),
            f"{row.latency_days} d",
            str(row.pairs),
            str(len(row.owed)),
            "; ".join(row.stale) or "no",
            f"{row.bytes / 1e9:.2f} GB",
        )
    out.print(table)
    for row in rows:
        explain_owed(row.frame, row.owed)
