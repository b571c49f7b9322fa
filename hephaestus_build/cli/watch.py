"""``hephaestus watch``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import err, load_command_settings, print_notice, worst_exit_code
from hephaestus_build.cli.messages import BuildSummary, print_run
from hephaestus_build.cli.options import (
    JSON_OPTION,
    AllFramesOption,
    AtATimeOption,
    DataDirOption,
    FramesArgument,
    FramesFileOption,
    PairsOption,
    PartOfFramesOption,
    PublishedOption,
    SimulatedOption,
    SinceOption,
    list_named_frames,
    make_build_request,
    select_requested_part,
)
from hephaestus_build.cli.targets import (
    select_frames_of_kind,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import ProgressListener, show_progress
from hephaestus_build.operations.batch import watch as watch_frames
from hephaestus_build.operations.look_schedule import WatchRound
from hephaestus_build.operations.round_report import RoundReporter
from hephaestus_build.simulation.server.embedded import serve_for_frames


def watch(
    frames: FramesArgument = None,
    every_frame: AllFramesOption = False,
    published: PublishedOption = False,
    frames_file: FramesFileOption = None,
    part: PartOfFramesOption = None,
    pairs: PairsOption = None,
    since: SinceOption = None,
    every: Annotated[float, typer.Option(min=0.01, help="Hours from one round to the next.")] = 12.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Stop after so many rounds.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop after one round, as for cron.")] = False,
    at_a_time: AtATimeOption = 2,
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replace this file by metrics for Prometheus after each round (setting metrics_file).",
        ),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Keep cubes up to date: look for new interferograms now and again, and build what arrived.

    Without frames, those that have a cube of real data, or with --simulated of simulated; any LiCSAR frame
    may be named, annotated or not. Frames that are not named are looked at less often the longer nothing new
    has come (setting `quiet_share`); `status` says when. Every build is written down in <data>/runs.jsonl (of
    simulated data in <data>/simulated/runs.jsonl). Ctrl-C stops it at any time; a summary of all rounds is
    its last line. After its last round it exits as `build` does: with 3 when something is owed, with 1 when a
    frame failed.
    """
    if once and rounds is not None:
        raise UsageError("say --once or --rounds, not both")
    settings = load_command_settings(simulated, data_dir=data_dir, pairs=pairs, metrics_file=metrics)
    chosen = list_named_frames(frames, settings, every=every_frame, published=published, listed=frames_file)
    if chosen is None:
        chosen, settings = select_frames_of_kind(None, settings)
    if not chosen:
        raise UsageError("there are no cubes yet: name the frames to watch, such as 124D_04854_171313")
    requests = [make_build_request(frame, settings, since, None, None) for frame in chosen]
    if not (requests := select_requested_part(requests, part)):
        raise typer.Exit
    chosen = [request.frame for request in requests]
    codes = set()
    rounds = 1 if once else rounds
    total, summary, done, begun, left_out = BuildSummary(), BuildSummary(), 0, 0, 0

    @contextmanager
    def run_round() -> Iterator[ProgressListener | None]:
        nonlocal summary, begun
        begun += 1
        summary = BuildSummary()
        reporter.begin()
        with show_progress(quiet=True) as listener:
            yield listener
        summary.print(f"round {begun}: ")
        for line in reporter.end(summary.runs, left_out):
            print_notice(line, logging.WARNING)

    def report_later(coming: WatchRound) -> None:
        nonlocal left_out
        left_out = len(coming.later)
        _print_later(coming)

    with serve_for_frames(settings, chosen) as served:
        reporter = RoundReporter(chosen, served)
        try:
            for run in watch_frames(
                requests,
                served,
                interval=every * 3600,
                rounds=rounds,
                open_listener=run_round,
                at_a_time=at_a_time,
                report_later=None if frames else report_later,
            ):
                codes.add(run.exit_code)
                total.add(run)
                summary.add(run)
                print_run(run, as_json=as_json)
                done += 1
        finally:  # it may be stopped
            if rounds != 1 and done:
                total.print(f"watch: {count_of(begun, 'round')}, ", "build")
    raise typer.Exit(worst_exit_code(codes))


def _print_later(coming: WatchRound) -> None:
    """Say on standard error how many frames a round leaves out, and when the first of them is due."""
    if coming.later:
        moment, frame = coming.later[0]
        err.print(
            f"{count_of(len(coming.later), 'frame')} left out of this round, since nothing new has come for "
            f"long: the first, {frame}, is due on {moment:%Y-%m-%d %H:%M} UTC, or at once where it is named",
            markup=False,
        )
