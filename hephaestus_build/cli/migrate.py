"""``hephaestus migrate``: moves cubes of earlier versions to their present place."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import typer

from hephaestus_build.cli.console import out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, FramesArgument
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.storage.migration import (
    folders_to_migrate,
    frames_to_migrate,
    migrate_cube,
    migrate_folder,
)


def migrate(
    frames: FramesArgument = None, data_dir: DataDirOption = None, as_json: bool = JSON_OPTION
) -> None:
    """Move simulated cubes that stand among the real ones, as earlier versions had them, to <data>/simulated.

    Without frames, all that need it (`hephaestus status` names them), and the cubes and results of the
    simulated benchmark. Nothing is replaced, and a move that was
    cut off goes on where it stopped. Whoever has such a cube open should open it again afterwards.
    """
    settings = load_settings(data_dir=data_dir)
    chosen = list(dict.fromkeys(map(frame_named, frames))) if frames else frames_to_migrate(settings)
    folders = [] if frames else folders_to_migrate(settings)
    moved: list[dict[str, Any]] = []
    failed = False
    steps = [
        *(partial(_migrate_frame, frame, settings) for frame in chosen),
        *(partial(_migrate_folder, *item) for item in folders),
    ]
    for step in steps:
        try:
            moved.append(step())
        except HephaestusError as error:
            print_notice(str(error))
            failed = True
    if as_json:
        print_json(moved)
    elif not steps:
        out.print("nothing to move: everything stands where this version has it")
    else:
        for item in moved:
            name = f"{item['frame']}: " if "frame" in item else ""
            out.print(f"{name}moved from {item['from']} to {item['to']}")
    if failed:
        raise typer.Exit(1)


def _migrate_frame(frame: Frame, settings: Settings) -> dict[str, Any]:
    return migrate_cube(frame, settings).to_json()


def _migrate_folder(source: Path, target: Path) -> dict[str, Any]:
    migrate_folder(source, target)
    return {"from": str(source), "to": str(target)}
