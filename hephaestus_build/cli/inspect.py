"""``hephaestus inspect``: content of a cube, checked against the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import load_command_settings, print_fields, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.core.errors import wrap_unexpected_errors
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.discovery import find_cube
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.schema_versions import UPGRADE, is_later_schema
from hephaestus_build.cube.validation.wording import describe_wording
from hephaestus_build.operations.inspection import CubeSummary, summarize_cube

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="FRAME_OR_PATH",
        help="A frame id, such as 124D_04854_171313, a volcano of one frame, or where a cube is.",
    ),
]


def inspect(
    target: TargetArgument,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Show what is in a cube, and check it against the schema.

    Exits with 1 when something is not as docs/cube.md says.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    path = find_cube(target, settings)
    with wrap_unexpected_errors(target):
        summary = summarize_cube(path, settings.accept)
    if as_json:
        print_json(summary.to_json())
    elif summary.frame:
        print_fields(
            f"{summary.frame}{' (simulated)' if summary.simulated else ''}", _summary_rows(path, summary)
        )
    name = summary.frame or target
    version = summary.versions.get("schema")
    if is_later_schema(version):
        advice = UPGRADE
    elif version not in (None, cube_schema().version):
        advice = f"`hephaestus migrate {name}` brings it over from an earlier schema"
    else:
        advice = f"`hephaestus verify {target}` names the command that mends it"
    for finding in summary.findings:
        print_notice(f"{name}: {finding}; {advice}")
    if summary.other_wording:
        print_notice(f"{name}: {describe_wording(name)}")
    if summary.findings:
        raise typer.Exit(1)


def _summary_rows(path: Path, summary: CubeSummary) -> dict[str, str]:
    pairs, dates, atmosphere = summary.pairs, summary.dates, summary.atmosphere
    rows = {"cube": str(path)}
    if summary.generation is not None:
        rows["generation"] = str(summary.generation)
    if summary.volcanoes:
        rows["volcanoes"] = ", ".join(summary.volcanoes)
    rows["dates"] = (
        f"{summary.first} to {summary.last}: {count_of(dates['epoch'], 'acquisition')}, "
        f"{dates['primary_date']} primary, {dates['secondary_date']} secondary"
    )
    rows["interferograms"] = str(pairs["valid"])
    rows["annotated"] = f"{pairs['annotated']}, {pairs['with_deformation']} with deformation"
    for name in ("absent", "refused", "unreachable", "corrupt"):
        if pairs.get(name):
            rows["absent upstream" if name == "absent" else name] = str(pairs[name])
    if summary.owed:
        more = f" and {len(summary.owed) - 3} more" if len(summary.owed) > 3 else ""
        rows["owed"] = ", ".join(f"{item.product} ({item.outcome})" for item in summary.owed[:3]) + more
    if summary.accepted:
        rows["accepted as absent"] = count_of(len(summary.accepted), "product")
    west, south, east, north = summary.bounds
    rows["grid"] = (
        f"{summary.shape[0]} rows x {summary.shape[1]} columns, "
        f"{west:.4f} to {east:.4f} E, {south:.4f} to {north:.4f} N"
    )
    rows["pixel"] = (
        f"{summary.pixel_m[0]:.1f} x {summary.pixel_m[1]:.1f} m "
        f"({summary.pixel_deg[0]:g} x {summary.pixel_deg[1]:g} degrees)"
    )
    source = f"from {atmosphere['source']}: " if atmosphere["source"] else ""
    others = "".join(
        f", {atmosphere[kind]} {kind}"
        for kind in ("preliminary", "unstated", "imported", "missing")
        if atmosphere[kind]
    )
    rows["ERA5"] = f"{source}{count_of(atmosphere['final'], 'date')} final{others}"
    if summary.optional_variables:
        rows["optional variables"] = ", ".join(summary.optional_variables)
    if overview := summary.overview:
        rows["overview"] = (
            f"{overview['rows']} rows x {overview['columns']} columns, a pixel of "
            f"{overview['decimation']} x {overview['decimation']}, "
            f"{count_of(overview['pairs'], 'pair')} on one axis"
        )
    rows["on disk"] = (
        f"{_format_size(summary.bytes)}, {_format_size(summary.bytes_per_pair)} an interferogram"
    )
    rows["of that"] = ", ".join(f"{name} {_format_size(size)}" for name, size in summary.parts.items())
    rows["versions"] = f"schema {summary.versions['schema']}, built by {summary.versions['hephaestus_build']}"
    lacking = f"; {count_of(len(summary.owed), 'product')} owed" if summary.owed else ""
    rows["findings"] = str(len(summary.findings) or f"none: what is there is as docs/cube.md says{lacking}")
    return rows


def _format_size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.{1 if size >= 1e5 else 3}f} MB"
