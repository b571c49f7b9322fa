"""``hephaestus migrate``: brings cubes of earlier versions over to this one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer

from hephaestus_build.cli.console import out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, FramesArgument
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import PrefixedListener, show_progress
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.storage.migration import (
    folders_to_migrate,
    frames_to_migrate,
    migrate_cube,
    migrate_folder,
    needs_migration,
)
from hephaestus_build.operations.schema_migration import frames_of_other_schemas, migrate_schema


def migrate(
    frames: FramesArgument = None, data_dir: DataDirOption = None, as_json: bool = JSON_OPTION
) -> None:
    """Bring cubes of earlier versions over to this one. Nothing is downloaded.

    Descriptions that another version has worded are rewritten.
    Simulated cubes among the real ones are moved to <data>/simulated. Cubes of an earlier schema are written
    again, first their metadata, then their images; the earlier generation stays until `hephaestus gc`.

    Without frames, all that need it (`hephaestus status` names them), and the cubes and results of the
    simulated benchmark. What was cut off goes on where it stopped. A program that has such a cube
    open must open it again afterwards.
    """
    settings = load_settings(data_dir=data_dir)
    chosen = list(dict.fromkeys(map(frame_named, frames))) if frames else None
    results: list[dict[str, Any]] = []
    failed = False
    for step in _steps(settings, chosen):
        try:
            results.append(step())
        except HephaestusError as error:
            print_notice(str(error), logging.ERROR)
            failed = True
    if as_json:
        print_json(
            {
                "moved": [item for item in results if "schema" not in item],
                "migrated": [item for item in results if "schema" in item],
            }
        )
    elif not results and not failed:
        out.print("nothing to migrate: everything is where and as this version has it")
    else:
        for item in results:
            _print_result(item)
    if failed:
        raise typer.Exit(1)


def _steps(settings: Settings, chosen: list[Frame] | None) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield what is to be done; cubes of an earlier schema are looked up after all moves are done."""
    found = frames_to_migrate(settings) if chosen is None else chosen
    moving = [frame for frame in found if needs_migration(settings, frame)]
    for frame in moving:
        yield partial(_move_frame, frame, settings)
    for source, target in folders_to_migrate(settings) if chosen is None else ():
        yield partial(_move_folder, source, target)
    outdated = frames_of_other_schemas(settings)
    for frame, home in outdated:
        if chosen is None or frame in chosen:
            yield partial(_encode_frame_again, frame, home)
    for frame in chosen or ():
        if frame not in (*moving, *(other for other, _ in outdated)):
            yield partial(_move_frame, frame, settings)  # raises the error that says so


def _move_frame(frame: Frame, settings: Settings) -> dict[str, Any]:
    return migrate_cube(frame, settings).to_json()


def _move_folder(source: Path, target: Path) -> dict[str, Any]:
    migrate_folder(source, target)
    return {"from": str(source), "to": str(target)}


def _encode_frame_again(frame: Frame, settings: Settings) -> dict[str, Any]:
    with show_progress() as listener:
        return migrate_schema(frame, settings, PrefixedListener(listener, str(frame))).to_json()


def _print_result(item: dict[str, Any]) -> None:
    name = f"{item['frame']}: " if "frame" in item else ""
    if item.get("schema", "") and item["earlier"] == item["schema"]:
        out.print(f"{name}descriptions of this version written as generation {item['generation']}")
    elif "schema" in item:
        out.print(
            f"{name}schema {item['earlier']} brought over to {item['schema']} as generation "
            f"{item['generation']}; {count_of(item['re_encoded'], 'granule')} encoded again"
        )
    else:
        out.print(f"{name}moved from {item['from']} to {item['to']}")
