"""``hephaestus verify``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.cli.targets import (
    published_generation,
    raise_or_print_error,
    select_targets,
    simulated_option,
    simulated_suffix,
)
from hephaestus_build.core.errors import HephaestusError, UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import PrefixedListener, ProgressListener, show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import cubes_dir_for, is_simulated_cube
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.pipeline.upstream_changes import UpstreamChange, check_upstream
from hephaestus_build.simulation.server.embedded import serve_for_frames

_MAX_PRINTED_FINDINGS = 200  # findings of a cube that are printed


TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FRAMES_OR_PATHS]...",
        help="Frame ids, volcanoes of one frame, or where cubes are; by default all.",
    ),
]


def verify(
    targets: TargetsArgument = None,
    data_dir: DataDirOption = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Ask the archive which products have changed since, instead.")
    ] = False,
    simulated: SimulatedOption = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Read every stored object and compare it with what was published; check the schema and the flags.

    Without frames or paths, those of all cubes, real and simulated.
    Exits with 1 and names the pair and the variable when anything differs, or the archive cannot be asked.
    What is owed is no failure: `hephaestus status` lists it.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    found: dict[str, list[str]] = {}
    unanswered: dict[str, list[UpstreamChange]] = {}
    failed = False
    chosen = select_targets(targets, settings)
    asked = [target for target, _ in chosen.values() if upstream and isinstance(target, Frame)]
    with serve_for_frames(settings, asked) as served:
        for name, (target, home) in chosen.items():
            try:
                with wrap_unexpected_errors(target), show_progress() as listener:
                    if upstream:
                        archive = served.for_simulated() if home.is_simulated else served
                        changes = _find_upstream_changes(target, archive, listener)
                        unanswered[name] = [change for change in changes if not change.certain]
                        found[name] = list(map(str, changes))
                    else:
                        found[name] = _find_faults(target, home, PrefixedListener(listener, str(target)))
            except HephaestusError as error:
                failed = raise_or_print_error(error, alone=bool(targets) and len(targets or ()) == 1)
    if as_json:
        print_json({"frames": [_to_json(*chosen[name], lines) for name, lines in found.items()]})
    for name, lines in found.items():
        target, home = chosen[name]
        if not as_json:
            result = count_of(len(lines), "finding") if lines else "whole"
            out.print(f"{target}{simulated_suffix(home)}: {result}")
        command = f"{target}{simulated_option(target, home)}"
        advice = (
            f"`hephaestus build {command}` fetches it"
            if upstream
            else f"`hephaestus repair {command}` mends it"
        )
        if silent := unanswered.get(name):
            lines = [line for line in lines if line not in set(map(str, silent))]
            more = f" and of {count_of(len(silent) - 1, 'more product')}" if len(silent) > 1 else ""
            print_notice(
                f"{target}: not compared, {silent[0].what}, of {silent[0].product}{more}; "
                f"`hephaestus verify --upstream {command}` asks again"
            )
        for line in lines[:_MAX_PRINTED_FINDINGS]:
            print_notice(f"{target}: {line}; {'copy it again' if isinstance(target, Path) else advice}")
        if len(lines) > _MAX_PRINTED_FINDINGS:
            print_notice(f"{target}: and {len(lines) - _MAX_PRINTED_FINDINGS} more, which --json lists")
    if failed or any(found.values()):
        raise typer.Exit(1)


def _to_json(target: Frame | Path, home: Settings, findings: list[str]) -> dict[str, Any]:
    """Return the findings on a cube as JSON values."""
    path = target if isinstance(target, Path) else cubes_dir_for(home, target) / f"{target}.zarr"
    frame = target.id if isinstance(target, Frame) else None
    with suppress(UsageError):  # a copy may have any name
        frame = frame or Frame(path.stem).id
    return {
        "frame": frame,
        "path": str(path),
        "simulated": home.is_simulated or is_simulated_cube(path),
        "findings": findings,
    }


def _find_upstream_changes(
    target: Frame | Path, settings: Settings, listener: ProgressListener
) -> list[UpstreamChange]:
    frame = target if isinstance(target, Frame) else Frame.parse(str(target))
    return check_upstream(frame, settings, listener)


def _find_faults(target: Frame | Path, settings: Settings, listener: ProgressListener) -> list[str]:
    """Return the faults of a cube: damaged objects, else deviations from schema, flags and record."""
    generation = (
        published_generation(settings, target) if isinstance(target, Frame) else Generation.from_path(target)
    )
    damages = verify_generation(generation, listener)
    if not damages and generation.read_inventory().is_outdated:
        print_notice(
            f"{target}: every object is as it was published; its values are checked once "
            f"`hephaestus migrate` has brought it over from an earlier schema"
        )
        return []
    findings = (
        [] if damages else check_schema(generation.store) or check_record_consistency(generation, listener)
    )
    return list(map(str, damages or findings))
