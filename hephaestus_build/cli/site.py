"""``hephaestus site``: a web site of all cubes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.cli.targets import select_frames_of_kind
from hephaestus_build.core.errors import HephaestusError
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
        typer.Option(help="Folder with leaderboard.csv of `benchmark tables --out`, for a page of it."),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a web site of all real cubes, or of the simulated ones: static files that open from a disk too.

    It has a map of all frames by latency or owed products, a search by volcano, a page of each frame and of
    each volcano, what is new, an Atom feed, and status.json for programs. Only what has changed is made
    again. Exits with 1 if the page of a frame cannot be made; all others are written.
    """
    from hephaestus_build.pages.site.write_site import ALL_PAIRS, write_site

    base = parse_url_setting(base_url, "--base-url") if base_url else None
    settings = load_command_settings(simulated, data_dir=data_dir)
    chosen, home = select_frames_of_kind(None, settings)
    if not chosen:
        raise HephaestusError(
            f"there are no cubes in {settings.cubes_dir}; `hephaestus build FRAME` builds one"
        )
    with show_progress() as listener:
        done = write_site(
            chosen,
            home,
            folder,
            base=base,
            newest=newest or ALL_PAIRS,
            benchmark=benchmark,
            listener=listener,
        )
    for problem in done.failed.values():
        print_notice(problem)
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
    if done.failed:
        raise typer.Exit(1)
