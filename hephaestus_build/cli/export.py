"""``hephaestus export``: a cube for programs that do not read Zarr v3."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json
from hephaestus_build.cli.inspect import DataDirOption, TargetArgument
from hephaestus_build.cli.options import JSON_OPTION, SimulatedOption
from hephaestus_build.core.errors import UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.cube.discovery import find_cube
from hephaestus_build.export.geotiff import export_geotiff
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2


class ExportFormat(StrEnum):
    """What a cube can be exported to."""

    ZARR2 = "zarr2"
    GEOTIFF = "geotiff"


def export(
    target: TargetArgument,
    to: Annotated[ExportFormat, typer.Option(help="zarr2: one store; geotiff: one file an image.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to; made if need be.")],
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", help="A pair, such as 20160909_20160921; may be repeated. Default: all."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--variables", help="Variables, with commas between; may be repeated. Default: all."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there already.")] = False,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Export a cube to Zarr v2 or to cloud-optimized GeoTIFFs.

    An export that was interrupted goes on where it stopped. Nothing is replaced without --force.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    names = [name.strip() for text in variables or [] for name in text.split(",") if name.strip()]
    path, wanted = find_cube(target, settings), [_parse_pair(text) for text in pairs or []]
    with wrap_unexpected_errors(target):
        source = open_export_selection(path, wanted, names, images_only=to is ExportFormat.GEOTIFF)
    result: dict[str, Any] = {"frame": source.frame, "to": str(to), "simulated": source.is_simulated}
    with wrap_unexpected_errors(source.frame), show_progress() as listener:
        if to is ExportFormat.ZARR2:
            path = export_zarr_v2(
                source, folder, force=force, threads=settings.worker_count, listener=listener
            )
            result |= {"path": str(path)}
        else:
            done = export_geotiff(
                source, folder, force=force, threads=settings.worker_count, listener=listener
            )
            result |= {"path": str(done.folder), "written": done.written, "kept": done.kept}
    if as_json:
        print_json(result)
        return
    mark = " (simulated)" if source.is_simulated else ""
    count = (
        f": {count_of(result['written'], 'file')} written, {result['kept']} kept"
        if "written" in result
        else ""
    )
    out.print(f"{source.frame}{mark} is in {result['path']}{count}", soft_wrap=True)


def _parse_pair(text: str) -> Pair:
    try:
        return Pair.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
