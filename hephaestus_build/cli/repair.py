"""``hephaestus repair``."""

from __future__ import annotations

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice, worst_exit_code
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, FramesArgument, SimulatedOption
from hephaestus_build.cli.targets import (
    raise_or_print_error,
    select_frames_of_kind,
)
from hephaestus_build.core.errors import HephaestusError, MissingProductsError, wrap_unexpected_errors
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import PrefixedListener, show_progress
from hephaestus_build.operations.repair import repair as repair_frame
from hephaestus_build.simulation.server.embedded import serve_for_frames


def repair(
    frames: FramesArgument = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Rebuild exactly what is damaged, and publish a whole cube.

    Without frames, the real cubes; with --simulated the simulated ones.
    Exits with 3 when some of it could not be fetched again, which is owed then, and with 1 when a frame could
    not be repaired.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    chosen, settings = select_frames_of_kind(frames, settings)
    repairs, failed = [], False
    with serve_for_frames(settings, chosen) as served:
        for frame in chosen:
            try:
                with wrap_unexpected_errors(frame), show_progress() as listener:
                    repairs.append(repair_frame(frame, served, PrefixedListener(listener, str(frame))))
            except HephaestusError as error:
                failed = raise_or_print_error(error, alone=len(chosen) == 1)
    if as_json:
        print_json({"frames": [item.to_json() for item in repairs]})
    for item in repairs:
        if not as_json:
            out.print(
                f"{item.frame}: {count_of(len(item.damages), 'object')} damaged, "
                f"{count_of(len(item.rebuilt), 'granule')} rebuilt, "
                f"generation {item.generation}"
                if item.damages
                else f"{item.frame}: whole, nothing to repair"
            )
        if item.version:
            print_notice(f"{item.frame}: {item.version}")
        for key in item.changed:
            print_notice(f"{item.frame}: {key} changed upstream meanwhile; the cube holds what is there now")
        for key in item.lost:
            print_notice(
                f"{item.frame}: {key} could not be had again; `hephaestus build {item.frame}` tries again"
            )
    raise typer.Exit(
        worst_exit_code([int(failed), *(MissingProductsError.exit_code for item in repairs if item.lost)])
    )
