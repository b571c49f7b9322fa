"""``hephaestus export``: cubes for programs that do not read Zarr v3."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.degrees import parse_degrees
from hephaestus_build.cli.options import DATE_FORMATS, JSON_OPTION, DataDirOption, SimulatedOption, parse_pair
from hephaestus_build.cli.shard_selection import select_shard_samples
from hephaestus_build.cli.targets import require_cubes
from hephaestus_build.core.errors import UsageError, wrap_unexpected_errors
from hephaestus_build.core.frame_search import check_bounds
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import find_cube
from hephaestus_build.export.geotiff import ExportResult, export_geotiff
from hephaestus_build.export.licsbas import LICSBAS_VARIABLES, export_licsbas
from hephaestus_build.export.mintpy import export_mintpy
from hephaestus_build.export.selection import ExportSelection, open_export_selection
from hephaestus_build.export.webdataset import export_webdataset
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from hephaestus_build.operations.pair_table import kept_baselines


class ExportFormat(StrEnum):
    """What a cube can be exported to."""

    ZARR2 = "zarr2"
    GEOTIFF = "geotiff"
    WEBDATASET = "webdataset"
    LICSBAS = "licsbas"
    MINTPY = "mintpy"


#: Formats with the same variables each time, and why.
_FIXED_CONTENT = {
    ExportFormat.WEBDATASET: "whose channels are the published ones",
    ExportFormat.MINTPY: "which takes unwrapped phase, coherence, height and look vectors",
}


def export(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FRAME_OR_PATH...",
            help="A frame id, a volcano of one frame, or where a cube is. Of webdataset also several; by "
            "default all real cubes, or the simulated ones.",
        ),
    ] = None,
    *,
    to: Annotated[
        ExportFormat,
        typer.Option(
            help="zarr2: one store; geotiff: one file an image, with a QGIS project; licsbas, mintpy: a "
            "folder for LiCSBAS or MintPy; webdataset: shards of annotated windows."
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to; made if need be.")],
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", help="A pair, such as 20160909_20160921; may be repeated. Default: all."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=DATE_FORMATS, help="Leave out pairs that begin before this day."),
    ] = None,
    newest: Annotated[
        int | None, typer.Option(min=1, help="Take only as many pairs as this: those that end last.")
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N", help="Of geotiff: only the pixels that this box touches, in degrees."
        ),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--variables", help="Variables, with commas between; may be repeated. Default: all."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of webdataset: the split whose parts are exported. Default: all annotated pairs."),
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Of webdataset: train, validation or test. Default: all three.")
    ] = None,
    series: Annotated[
        bool,
        typer.Option(
            "--series", help="Of webdataset: series of three interferograms instead of single ones."
        ),
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Of webdataset: rows and columns; default 512.")
    ] = None,
    shard_mb: Annotated[
        int | None,
        typer.Option("--shard-mb", min=1, help="Of webdataset: megabytes of a shard at most; default 1000."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there already.")] = False,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Export cubes: Zarr v2, GeoTIFFs for QGIS, a folder for LiCSBAS or MintPy, WebDataset shards.

    An export that was interrupted goes on where it stopped. Nothing is replaced without --force.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    names = [name.strip() for text in variables or [] for name in text.split(",") if name.strip()]
    wanted = [parse_pair(text) for text in pairs or []]
    if names and to in _FIXED_CONTENT:
        raise UsageError(f"--variables chooses nothing of {to}, {_FIXED_CONTENT[to]}")
    if to is ExportFormat.WEBDATASET:
        _refuse("of --to geotiff, zarr2, licsbas and mintpy alone", since=since, newest=newest, bbox=bbox)
        cubes = [find_cube(target, settings) for target in targets or []]
        _export_webdataset(
            cubes, folder, wanted, split, part, size or 512, (shard_mb or 1000) * 1_000_000, force, settings,
            series=series, as_json=as_json,
        )  # fmt: skip
        return
    shards = {"split": split, "part": part, "series": series or None, "size": size, "shard-mb": shard_mb}
    _refuse("of --to webdataset alone", **shards)
    if to is not ExportFormat.GEOTIFF:
        _refuse("of --to geotiff alone", bbox=bbox)
    if targets is None or len(targets) != 1:
        raise UsageError(f"--to {to} is of one cube: name it")
    [target] = targets
    path = find_cube(target, settings)
    images_only = to is not ExportFormat.ZARR2
    foreign = [name for name in names if name not in LICSBAS_VARIABLES]
    if foreign and to is ExportFormat.LICSBAS:
        known = ", ".join(LICSBAS_VARIABLES)
        raise UsageError(f"LiCSBAS reads no {', '.join(foreign)}; it reads {known}")
    with wrap_unexpected_errors(target):
        source = open_export_selection(
            path,
            wanted,
            names,
            since=since.date() if since else None,
            newest=newest,
            images_only=images_only,
        )
    with wrap_unexpected_errors(source.frame):
        result = _write_cube(source, to, folder, _parse_box(bbox), settings, force=force)
    if as_json:
        print_json(result)
    else:
        _print_result(source, result)


def _write_cube(
    source: ExportSelection,
    to: ExportFormat,
    folder: Path,
    box: tuple[float, float, float, float] | None,
    settings: Settings,
    *,
    force: bool,
) -> dict[str, Any]:
    """Export a cube in one of the formats of a single cube; return what ``--json`` prints."""
    result: dict[str, Any] = {"frame": source.frame, "to": str(to), "simulated": source.is_simulated}
    with show_progress() as listener:
        common: Any = {"force": force, "threads": settings.worker_count, "listener": listener}
        if to is ExportFormat.ZARR2:
            return result | {"path": str(export_zarr_v2(source, folder, **common))}
        if to is ExportFormat.GEOTIFF:
            done = export_geotiff(source, folder, box=box, **common)
            for kept in done.changed:
                print_notice(
                    f"{kept} was changed after an earlier export and is kept; move it away for a new one"
                )
            return result | _describe_files(done)
        baselines = kept_baselines(Frame(source.frame), settings)
        if to is ExportFormat.LICSBAS:
            made = export_licsbas(source, folder, baselines, **common)
            found = {"unwrapped": made.unwrapped, "baselines": made.baselines}
            return result | _describe_files(made.files) | found
        stack = export_mintpy(source, folder, baselines, **common)
        return result | {
            "path": str(stack.folder),
            "written": stack.written,
            "kept": stack.kept,
            "unwrapped": stack.unwrapped,
            "baselines": stack.baselines == stack.unwrapped,
            "look_vectors": stack.look_vectors,
        }


def _print_result(source: ExportSelection, result: dict[str, Any]) -> None:
    mark = " (simulated)" if source.is_simulated else ""
    count = (
        f": {count_of(result['written'], 'file')} written, {result['kept']} kept"
        if "written" in result
        else ""
    )
    out.print(f"{source.frame}{mark} is in {result['path']}{count}", soft_wrap=True)
    if "look_vectors" in result:
        _print_what_mintpy_lacks(source, result)
    elif "unwrapped" in result:
        _print_what_licsbas_lacks(source, result)


def _describe_files(done: ExportResult) -> dict[str, Any]:
    return {"path": str(done.folder), "written": done.written, "kept": done.kept}


def _refuse(why: str, **options: object) -> None:
    """Refuse options that the chosen format does not have."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} is {why}")


def _parse_box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    west, south, east, north = parse_degrees("--bbox", text, "W,S,E,N")
    check_bounds((west, south, east, north))
    return west, south, east, north


def _print_what_licsbas_lacks(source: ExportSelection, result: dict[str, Any]) -> None:
    pairs = len(source.pair_positions)
    if lacking := pairs - result["unwrapped"]:
        print_notice(
            f"{source.frame}: {lacking} of {count_of(pairs, 'pair')} have no unwrapped phase; "
            f"`hephaestus build {source.frame} --variables unwrapped_phase` fetches LiCSAR's, or "
            "LiCSBAS02to05_unwrap.py of COMET's LiCSBAS unwraps them"
        )
    if not result["baselines"]:
        print_notice(f"{source.frame}: no perpendicular baselines are known; LiCSBAS takes zeros")


def _print_what_mintpy_lacks(source: ExportSelection, result: dict[str, Any]) -> None:
    pairs = len(source.pair_positions)
    if lacking := pairs - result["unwrapped"]:
        print_notice(
            f"{source.frame}: {lacking} of {count_of(pairs, 'pair')} have no unwrapped phase and are left out"
        )
    if not result["look_vectors"]:
        print_notice(
            f"{source.frame}: the cube has no look vectors, so MintPy takes the mean angle; "
            f"`hephaestus build {source.frame} --variables look_east,look_north,look_up` adds them"
        )
    if not result["baselines"]:
        print_notice(f"{source.frame}: some perpendicular baselines are not known; MintPy takes zeros")


def _export_webdataset(
    cubes: Sequence[Path],
    folder: Path,
    wanted: Sequence[Pair],
    split: str | None,
    part: str | None,
    size: int,
    shard_bytes: int,
    force: bool,
    settings: Settings,
    *,
    series: bool,
    as_json: bool,
) -> None:
    cubes = cubes or require_cubes(settings).stores
    if wanted and len(cubes) != 1:
        raise UsageError("--pair is of one cube: name it")
    samples, recorded = select_shard_samples(cubes, wanted, split, part, series=series)
    sources = {source.frame: source for found in samples.values() for source, _ in found}
    with wrap_unexpected_errors(", ".join(sources)), show_progress() as listener:
        done = export_webdataset(
            samples,
            folder,
            size=size,
            shard_bytes=shard_bytes,
            split=recorded,
            force=force,
            listener=listener,
        )
    simulated = any(source.is_simulated for source in sources.values())
    count = sum(len(shard.samples) for shard in done.shards)
    if as_json:
        print_json(
            {
                "frames": list(sources),
                "to": "webdataset",
                "simulated": simulated,
                "path": str(done.folder),
                "written": done.written,
                "kept": done.kept,
                "samples": count,
                "shards": [
                    {
                        "path": shard.path,
                        "part": shard.part,
                        "samples": len(shard.samples),
                        "bytes": shard.size,
                        "sha256": shard.sha256,
                    }
                    for shard in done.shards
                ],
            }
        )
        return
    mark = " (simulated)" if simulated else ""
    out.print(
        f"{count_of(count, 'sample')} of {count_of(len(sources), 'frame')}{mark} in {done.folder}: "
        f"{count_of(done.written, 'shard')} written, {done.kept} kept; `sha256sum -c SHA256SUMS` checks them",
        soft_wrap=True,
    )
