"""``hephaestus migrate``: cubes of earlier versions, brought to where this version has them."""

from __future__ import annotations

import typer

from hephaestus_build.cli.build import DataDir, Frames
from hephaestus_build.cli.common import Json, explain, out, print_json
from hephaestus_build.errors import HephaestusError
from hephaestus_build.frames import Frame
from hephaestus_build.migration import move, to_move
from hephaestus_build.settings import load_settings


def migrate(frames: Frames = None, data_dir: DataDir = None, as_json: bool = Json) -> None:
    """Move simulated cubes that stand among the real ones, as earlier versions had them, to <data>/simulated.

    Without frames, all that need it; `hephaestus status` names them. Nothing is replaced, and a move that was
    cut off goes on where it stopped. Whoever has such a cube open should open it again afterwards.
    """
    settings = load_settings(data_dir=data_dir)
    chosen = list(dict.fromkeys(map(Frame.parse, frames))) if frames else to_move(settings)
    moved, failed = [], False
    for frame in chosen:
        try:
            moved.append(move(frame, settings))
        except HephaestusError as error:
            if len(chosen) == 1:
                raise
            explain(str(error))
            failed = True
    if as_json:
        print_json([item.to_json() for item in moved])
    elif not chosen:
        out.print("nothing to move: everything stands where this version has it")
    else:
        for item in moved:
            out.print(f"{item.frame}: moved from {item.source} to {item.target}", markup=False)
    if failed:
        raise typer.Exit(1)
