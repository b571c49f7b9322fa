"""``hephaestus show``: write the page of a frame and open it in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption, complete_frame
from hephaestus_build.core.errors import wrap_unexpected_errors
from hephaestus_build.report.quicklook import parse_pair_argument


def show(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FRAME_OR_PATH",
            help="A frame id, a volcano of one frame, or where a cube is.",
            autocompletion=complete_frame,
        ),
    ],
    pair: Annotated[
        str | None,
        typer.Option(help="Begin with this pair, such as 20160909_20160921; by default the newest."),
    ] = None,
    newest: Annotated[
        int | None,
        typer.Option(min=1, max=5000, help="How many of the newest pairs have pictures; default 60."),
    ] = None,
    browse: Annotated[bool, typer.Option("--browser/--no-browser", help="Whether to open a browser.")] = True,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Open the page of a frame: every interferogram, what is owed, and where all comes from.

    The page is that of `hephaestus report --html`, in pages/ of the data folder. Without a browser or a
    screen it is only written, and its path is printed.
    """
    from hephaestus_build.pages.frame_page import NEWEST
    from hephaestus_build.pages.write_page import write_frame_page

    settings = load_command_settings(simulated, data_dir=data_dir)
    with wrap_unexpected_errors(Path(target).stem):
        done = write_frame_page(target, settings, newest=newest or NEWEST, pair=parse_pair_argument(pair))
    opened = browse and _open_in_browser(done.path)
    if as_json:
        print_json(
            {
                "frame": done.page.frame,
                "simulated": done.page.simulated,
                "page": str(done.path),
                "opened": opened,
            }
        )
        return
    out.print(str(done.path), soft_wrap=True)
    if browse and not opened:
        print_notice(f"{done.page.frame}: no browser was found here; open this file in one")


def _open_in_browser(path: Path) -> bool:
    """Open a file in the user's browser; return whether that could be asked for.

    Without a screen nothing is opened: the browser would be one for terminals, which would take this one.
    """
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, variables)):
        return False
    try:
        return webbrowser.open(path.resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False
