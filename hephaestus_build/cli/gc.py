"""``hephaestus gc``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, FramesArgument, SimulatedOption
from hephaestus_build.cli.targets import (
    frames_by_label,
    raise_or_print_error,
    select_frames,
    simulated_suffix,
)
from hephaestus_build.core.errors import HephaestusError, wrap_unexpected_errors
from hephaestus_build.cube.discovery import cubes_dir_for
from hephaestus_build.cube.storage.generations import FrameStore


def gc(
    frames: FramesArgument = None,
    keep: Annotated[
        int, typer.Option(min=1, help="Newest generations to keep, the published one included.")
    ] = 2,
    older_than: Annotated[
        float, typer.Option(min=0, help="Remove only what is older than so many days.")
    ] = 7.0,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Remove old generations: all but the newest, and only when no reader can be expected any more.

    Without frames, those of all cubes, real and simulated.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    chosen, removed, failed = frames_by_label(select_frames(frames, settings)), {}, False
    for name, (frame, home) in chosen.items():
        try:
            with wrap_unexpected_errors(frame):
                frame_store = FrameStore(cubes_dir_for(home, frame), frame)
                with frame_store.lock():
                    removed[name] = frame_store.remove_old(keep=keep, older_than=timedelta(days=older_than))
        except HephaestusError as error:
            failed = raise_or_print_error(error, alone=len(chosen) == 1)
    if as_json:
        frames_done = [
            {"frame": chosen[name][0].id, "simulated": chosen[name][1].is_simulated, "removed": numbers}
            for name, numbers in removed.items()
        ]
        print_json({"frames": frames_done})
    else:
        for name, numbers in removed.items():
            frame, home = chosen[name]
            what = ", ".join(map(str, numbers))
            done = f"removed generations {what}" if numbers else "nothing to remove"
            out.print(f"{frame}{simulated_suffix(home)}: {done}")
    if failed:
        raise typer.Exit(1)
