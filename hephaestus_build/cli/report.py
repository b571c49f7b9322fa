"""``hephaestus report``: pictures of cubes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.inspect import DataDirOption
from hephaestus_build.cli.options import JSON_OPTION, SimulatedOption
from hephaestus_build.core.errors import HephaestusError, UsageError, wrap_unexpected_errors
from hephaestus_build.cube.discovery import find_cube, select_cubes, settings_for_cube
from hephaestus_build.report.quicklook import write_quicklook


def report(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FRAME_OR_PATH]...",
            help="Frame ids, volcanoes of one frame, or where cubes are. "
            "Default: all real cubes, or the simulated ones.",
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(help="Show this pair, such as 20160909_20160921; by default the newest."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to. Default: quicklooks/ in the data folder."),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Draw a pair of each cube: phase, coherence, terrain, water vapour, masks, and all pairs in time.

    Each pair has a picture of its own, <frame>_<pair>.png.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    if pair and len(targets or []) != 1:
        raise UsageError("--pair is of one cube: name it")
    cubes = [find_cube(target, settings) for target in targets or []]
    if not cubes:
        taken = select_cubes(settings)
        cubes = list(taken.stores)
        if taken.notice:
            print_notice(taken.notice)
    if not cubes:
        raise HephaestusError(
            f"there are no cubes in {settings.cubes_dir}; `hephaestus build FRAME` builds one"
        )
    pictures, failed = [], False
    for cube in cubes:
        home = folder or settings_for_cube(cube, settings).data_dir / "quicklooks"
        try:
            with wrap_unexpected_errors(cube.stem):
                done = write_quicklook(cube, home, pair)
        except HephaestusError as error:
            if len(cubes) == 1:
                raise
            print_notice(str(error))
            failed = True
            continue
        pictures.append(
            {
                "frame": done.frame,
                "cube": str(cube),
                "pair": done.pair.name,
                "chosen": "asked" if done.asked else "newest",
                "picture": str(done.path),
            }
        )
        if not as_json:
            out.print(f"{cube.stem}: {done.pair}, {done.reason}, in {done.path}", soft_wrap=True)
    if as_json:
        print_json({"pictures": pictures})
    if failed:
        raise typer.Exit(1)
