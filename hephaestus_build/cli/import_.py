"""``hephaestus import``: cubes of the published data set become cubes here."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import (
    load_command_settings,
    out,
    print_fields,
    print_json,
    print_notice,
    worst_exit_code,
)
from hephaestus_build.cli.messages import print_owed_notices
from hephaestus_build.cli.options import (
    JSON_OPTION,
    DataDirOption,
    FramesArgument,
    SimulatedOption,
)
from hephaestus_build.core.errors import HephaestusError, wrap_unexpected_errors
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import PrefixedListener, ProgressListener, show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.published.cube_import import ImportResult, import_cube
from hephaestus_build.published.found_cubes import FoundCube, find_published_cubes
from hephaestus_build.published.published_cube import PublishedCube

#: Remarks that are printed; --json has all.
_PRINTED_REMARKS = 6


class Preferred(StrEnum):
    """Whose product is taken where both have one."""

    PUBLISHED = "published"
    ARCHIVE = "archive"


def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A published cube: a folder in Zarr format 2, a tar file of such, or a folder of both.",
        ),
    ],
    frames: FramesArgument = None,
    prefer: Annotated[
        Preferred,
        typer.Option(
            help="published: take everything from PATH and ask no archive. archive: take what the archive "
            "or the cache has from there, and the rest from PATH."
        ),
    ] = Preferred.PUBLISHED,
    data_dir: DataDirOption = None,
    simulated: SimulatedOption = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while a build works on the frame.")] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Make cubes of published ones, so that builds go on from them.

    Phase, coherence, heights, masks, annotations and atmosphere are checked on the way in; the record of each
    says that it was published, in which file, and its hash. A frame is needed only where PATH does not name
    it. `hephaestus build` afterwards fetches what is missing.

    Exits with 0 when all is there, 1 when a frame failed and nothing of it was imported, 2 when PATH holds
    no such cube, 3 when something damaged was left out and is owed.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    entries: list[dict[str, Any]] = []
    codes: list[int] = []
    with show_progress() as listener:
        found = find_published_cubes(path, list(map(frame_named, frames or ())), listener)
        for one in found:
            tagged = PrefixedListener(listener, str(one.frame)) if len(found) > 1 else listener
            try:
                result = _import(one, settings, prefer, tagged, wait=wait)
            except HephaestusError as error:
                print_notice(str(error), logging.ERROR)
                codes.append(error.exit_code)
                entries.append({"frame": str(one.frame), "error": str(error), "exit_code": error.exit_code})
                continue
            codes.append(result.built.exit_code)
            entries.append(result.to_json())
            if not as_json:
                _print_result(result)
            print_owed_notices(str(one.frame), result.built.owed)
    if as_json:
        print_json({"frames": entries})
    raise typer.Exit(worst_exit_code(codes))


def _import(
    one: FoundCube, settings: Settings, prefer: Preferred, listener: ProgressListener, *, wait: bool
) -> ImportResult:
    with wrap_unexpected_errors(one.frame):
        published = PublishedCube.open(one.objects, one.frame)
        return import_cube(published, settings, prefer=prefer.value, listener=listener, wait=wait)


def _print_result(result: ImportResult) -> None:
    built = result.built
    news = "" if built.published else "nothing new, "
    mark = ", simulated" if built.simulated else ""
    more = len(result.remarks) - _PRINTED_REMARKS
    remarks = [*result.remarks[:_PRINTED_REMARKS], *([f"and {more} more: see --json"] if more > 0 else [])]
    print_fields(
        str(built.frame),
        {
            "cube": f"{built.path} ({news}generation {built.generation}{mark})",
            "interferograms": f"{built.pairs}, {result.imported} of them published",
            "annotated": built.masks,
            "ERA5": count_of(built.epochs, "date"),
            **({"remarks": "\n".join(remarks)} if remarks else {}),
            "next": f"`hephaestus build {built.frame}` fetches what is missing",
        },
    )
    out.print()
