"""``hephaestus catalog``: STAC, a table of pairs, Croissant and a data card of the cubes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.options import (
    JSON_OPTION,
    DataDirOption,
    FramesArgument,
    FramesFileOption,
    SimulatedOption,
    list_named_frames,
)
from hephaestus_build.cli.targets import no_cubes_error, select_frames_of_kind
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.extras import install_hint
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.web_address import parse_url_setting

if TYPE_CHECKING:
    from hephaestus_build.catalog.write_catalog import CatalogResult


def catalog(
    frames: FramesArgument = None,
    *,
    folder: Annotated[
        Path, typer.Option("--out", help="Folder to write to; made if need be. It holds nothing else.")
    ],
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of the folder of the cubes, for absolute links to them. Default: relative paths."
        ),
    ] = None,
    frames_file: FramesFileOption = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a catalogue of the cubes for others' tools: STAC, GeoParquet, Croissant and a data card.

    Only what has changed is written again. By default all real cubes are taken, else the simulated ones.
    Exits with 1 if the records of a cube cannot be read; the others are written.
    """
    try:
        from hephaestus_build.catalog.write_catalog import write_catalog
    except ModuleNotFoundError as error:
        raise HephaestusError(
            f"the catalogue needs {error.name}, which is not installed; {install_hint('catalog')}"
        ) from error

    base = parse_url_setting(base_url, "--base-url") if base_url else None
    settings = load_command_settings(simulated, data_dir=data_dir)
    named = list_named_frames(frames, settings, listed=frames_file)
    chosen, home = select_frames_of_kind(None if named is None else [frame.id for frame in named], settings)
    if not chosen:
        raise no_cubes_error(settings.cubes_dir)
    if len({home.for_frame(frame).is_simulated for frame in chosen}) == 2:
        raise UsageError("a catalogue is of real cubes or of simulated ones: name frames of one kind")
    with show_progress() as listener:
        result = write_catalog(chosen, home, folder, base=base, listener=listener)
    if as_json:
        print_json(_catalog_json(result))
    else:
        mark = " (simulated)" if result.findings.simulated else ""
        found, writing = result.findings, result.writing
        out.print(
            f"cataloged in {result.folder}: {count_of(found.cubes, 'cube')}{mark}, "
            f"{count_of(found.pairs, 'pair')}; {count_of(len(writing.written), 'file')} written, "
            f"{len(writing.kept)} kept, {len(writing.removed)} removed",
            soft_wrap=True,
        )
    for reason in result.failed.values():
        print_notice(reason)
    if result.failed:
        raise typer.Exit(1)


def _catalog_json(result: CatalogResult) -> dict[str, object]:
    found = result.findings
    return {
        "path": str(result.folder),
        "simulated": found.simulated,
        "cubes": found.cubes,
        "pairs": found.pairs,
        "annotated": found.annotated,
        "deforming": found.deforming,
        "splits": [
            {"split": split.name, "sha256": split.sha256, "here": sum(split.here.values())}
            for split in found.splits
        ],
        "written": result.writing.written,
        "kept": len(result.writing.kept),
        "removed": result.writing.removed,
        "failed": [{"frame": frame, "reason": reason} for frame, reason in result.failed.items()],
    }
