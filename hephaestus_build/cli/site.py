"""``hephaestus site``: a web site of all cubes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.cli.targets import no_cubes_error, select_frames_of_kind
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.web_address import parse_url_setting


def site(
    *,
    folder: Annotated[
        Path,
        typer.Option("--out", help="Folder to write to; made if need be. It leaves files of others alone."),
    ],
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of the site, for absolute links in the feed. Default: relative ones."),
    ] = None,
    newest: Annotated[
        int | None,
        typer.Option(min=1, max=5000, help="How many of a frame's newest pairs have pictures. Default: all."),
    ] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(help="Folder with leaderboard.csv of `benchmark score --to`, for a page of it."),
    ] = None,
    full_resolution: Annotated[
        bool,
        typer.Option(
            "--full-resolution",
            help="Show each pair at full resolution too, read from its cube. Fetches scripts from npm's "
            "registry once.",
        ),
    ] = False,
    cubes_url: Annotated[
        str | None,
        typer.Option(help="Address of the folder of cubes, for that. Default: cubes/ beside index.html."),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a web site of all real cubes, or of the simulated ones: static files that open from a disk too.

    It has a map of all frames by latency or owed products, a search by volcano, a page of each frame and of
    each volcano, what is new, an Atom feed, and status.json for programs. Only what has changed is made
    again. Exits with 1 if the page of a frame, or full resolution, cannot be had; all else is written.
    """
    from hephaestus_build.pages.site.full_resolution import CUBES_BESIDE, parse_cubes_url
    from hephaestus_build.pages.site.write_site import ALL_PAIRS, write_site

    base = parse_url_setting(base_url, "--base-url") if base_url else None
    if cubes_url and not full_resolution:
        raise UsageError("--cubes-url says where --full-resolution reads cubes: give both")
    cubes = parse_cubes_url(cubes_url) if cubes_url else None
    settings = load_command_settings(simulated, data_dir=data_dir)
    chosen, home = select_frames_of_kind(None, settings)
    if not chosen:
        raise no_cubes_error(settings.cubes_dir)
    with show_progress() as listener:
        done = write_site(
            chosen,
            home,
            folder,
            base=base,
            newest=newest or ALL_PAIRS,
            benchmark=benchmark,
            full_resolution=full_resolution,
            cubes=cubes,
            listener=listener,
        )
    for problem in done.failed.values():
        print_notice(problem)
    if done.left_out:
        print_notice(done.left_out)
    elif full_resolution and cubes is None and not (folder / CUBES_BESIDE).is_dir():
        print_notice(
            f"full resolution reads {folder / CUBES_BESIDE}, which is not there: copy the cubes to it "
            "(rsync -aL), or say with --cubes-url where they are served"
        )
    for name in done.foreign:
        print_notice(f"{folder / name} is no longer part of the site, but was changed by somebody: it stays")
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "simulated": done.simulated,
                "frames": done.frames,
                "volcanoes": done.volcanoes,
                "made": list(done.made),
                "written": done.written,
                "kept": done.kept,
                "removed": done.removed,
                "full_resolution": done.full_resolution,
                "failed": [{"frame": frame, "reason": text} for frame, text in done.failed.items()],
            }
        )
    else:
        mark = " (simulated)" if done.simulated else ""
        out.print(
            f"{count_of(done.frames, 'frame')}{mark} and {count_of(done.volcanoes, 'volcano', 'volcanoes')} "
            f"are in {done.folder / 'index.html'}: {count_of(len(done.made), 'page')} of frames made again, "
            f"{count_of(done.written, 'file')} written, {done.removed} removed",
            soft_wrap=True,
        )
    if done.failed or done.left_out:
        raise typer.Exit(1)
