"""``hephaestus status``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice, print_table
from hephaestus_build.cli.messages import print_owed_notices
from hephaestus_build.cli.options import (
    JSON_OPTION,
    DataDirOption,
    FramesArgument,
    FramesFileOption,
    SimulatedOption,
    list_named_frames,
)
from hephaestus_build.cli.targets import no_cubes_error
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.schema_versions import describe_other_schema
from hephaestus_build.cube.validation.wording import describe_wording
from hephaestus_build.operations.frame_list import read_frame_list
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.operations.status import (
    FrameStatus,
    describe_overdue,
    frames_with_settings,
    list_frames_on_disk,
    read_frame_status,
)

#: How a frame can stand, and how a terminal shows its line.
_STYLES = {"failed": "bold red", "owed or stale": "yellow", "whole": ""}


def status(
    frames: FramesArgument = None,
    frames_file: FramesFileOption = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Show how all cubes stand, real and simulated: newest interferogram, what is owed or stale.

    Exits with 1 when a frame has no cube that can be read, or its last build failed; what is owed or stale is
    work for the next build and no failure.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    named = list_named_frames(frames, settings, listed=frames_file)
    chosen = (
        frames_with_settings(settings, list_frames_on_disk)
        if named is None
        else [(frame, settings.for_frame(frame)) for frame in named]
    )
    real, simulated_ones = (read_last_runs(home.data_dir) for home in (settings, settings.for_simulated()))
    # earlier versions wrote down runs of simulated frames among the real ones
    runs = {
        False: real,
        True: {**{name: run for name, run in real.items() if _is_simulated(name)}, **simulated_ones},
    }
    rows = [read_frame_status(home, frame, runs=runs[home.is_simulated]) for frame, home in chosen]
    if as_json:
        print_json({"frames": [row.to_json() for row in rows]})
    elif rows:
        _print_status(rows)
        if line := describe_overdue(rows, settings.overdue_days, datetime.now(UTC).date()):
            print_notice(line)
    else:
        print_notice(str(no_cubes_error(settings.cubes_dir)))
    if named is None and not as_json and (kept := read_frame_list(settings)):
        built = {row.frame for row in rows if row.generation is not None}
        known = {frame.id for frame in kept.frames}
        out.print(
            f"of {count_of(len(known), 'frame')} that the archive listed on {kept.updated[:10]}, "
            f"{len(built & known)} have a cube"
        )
    if any(row.has_failed for row in rows):
        raise typer.Exit(1)


def _is_simulated(frame: str) -> bool:
    """Return whether a text is the id of a simulated frame."""
    try:
        return Frame(frame).is_simulated
    except UsageError:
        return False


def _print_status(rows: list[FrameStatus]) -> None:
    """Print a line a frame, then what needs attention, a line each."""
    columns = ("frame", "built (UTC)", "newest", "late", "pairs", "owed", "stale", "GB")
    styles = {index: style for index, row in enumerate(rows) if (style := _STYLES[_standing(row)])}
    print_table(columns, map(_status_cells, rows), numbers=columns[3:], styles=styles)
    if len(rows) > 1:
        counts = Counter(map(_standing, rows))
        said = (f"{counts[standing]} {standing}" for standing in _STYLES if counts[standing])
        out.print(f"{count_of(len(rows), 'frame')}: {', '.join(said)}")
    if simulated := [row.frame for row in rows if row.simulated]:
        out.print(f"simulated: {', '.join(simulated)}")
    if accepted := [f"{len(row.accepted)} of {row.frame}" for row in rows if row.accepted]:
        out.print(f"accepted as absent: {', '.join(accepted)}")
    if later := sorted((row.next_look, row.frame) for row in rows if row.next_look is not None):
        moment, first = later[0]
        out.print(
            f"quiet for long, so `watch` looks later: {count_of(len(later), 'frame')}; next look at {first} "
            f"on {moment:%Y-%m-%d %H:%M} UTC"
        )
    for row in rows:
        apart = row.simulated and not _is_simulated(row.frame)  # its id alone means a real cube
        for text in _attention_lines(row):
            print_notice(f"{row.frame}: {text}", simulated=apart)
        print_owed_notices(row.frame, row.owed, simulated=apart)


def _standing(row: FrameStatus) -> str:
    """Return how a frame stands, a key of :data:`_STYLES`."""
    if row.has_failed:
        return "failed"
    return "owed or stale" if row.owed or row.stale else "whole"


def _status_cells(row: FrameStatus) -> tuple[str, ...]:
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


def _attention_lines(row: FrameStatus) -> Iterator[str]:
    """Yield what a person should know of a frame and a table has no room for."""
    if row.problem:
        yield row.problem
    if row.schema not in ("", cube_schema().version):
        yield describe_other_schema(row.frame, row.schema)
    elif row.other_wording:
        yield describe_wording(row.frame)
    elif row.to_migrate:
        yield (
            f"it is simulated and stored among the real cubes, as earlier versions did; `hephaestus "
            f"migrate {row.frame}` moves it"
        )
    yield from (
        f"stale: {reason}; `hephaestus build {row.frame}` brings it up to date" for reason in row.stale
    )
    if row.gone:
        yield f"gone upstream, kept in the cube: {count_of(len(row.gone), 'pair')}, such as {row.gone[0]}"
    if row.preliminary:
        yield f"preliminary ERA5 at {count_of(row.preliminary, 'date')}, replaced when the final is released"
    if row.unfinished and row.generation is not None:
        yield f"not published yet: {count_of(row.unfinished, 'granule')} of an interrupted or running build"
    if row.last_error:
        error = row.last_error.removeprefix(f"{row.frame}: ")
        error = error.replace("run the same command again", f"run `hephaestus build {row.frame}` again")
        yield f"its last build failed: {error}"
