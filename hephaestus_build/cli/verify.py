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
from hephaestus_build.cube.storage.migration import needs_migration
from hephaestus_build.operations.verification import verify_cube
from hephaestus_build.pipeline.upstream_changes import UpstreamChange, check_upstream, compare_with_archive
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
    advice: dict[str, str] = {}
    failed = False
    chosen = select_targets(targets, settings)
    asked = [frame for target, _ in chosen.values() if upstream and (frame := _frame_of(target))]
    with serve_for_frames(settings, asked) as served:
        for name, (target, home) in chosen.items():
            try:
                with wrap_unexpected_errors(target), show_progress() as listener:
                    if upstream:
                        archive = served.for_simulated() if home.is_simulated else served
                        changes = _find_upstream_changes(target, archive, listener)
                        unanswered[name] = [change for change in changes if not change.certain]
                        found[name] = list(map(str, changes))
                        command = f"hephaestus build {target}{simulated_option(target, home)}"
                        advice[name] = f"`{command}` fetches it"
                    else:
                        prefixed = PrefixedListener(listener, str(target))
                        found[name], advice[name] = _find_faults(target, home, prefixed)
            except HephaestusError as error:
                failed = raise_or_print_error(error, alone=bool(targets) and len(targets or ()) == 1)
    if as_json:
        print_json({"frames": [_to_json(*chosen[name], lines) for name, lines in found.items()]})
    for name, lines in found.items():
        target, home = chosen[name]
        if not as_json:
            out.print(
                f"{target}{simulated_suffix(home)}: {_sum_up(len(lines), len(unanswered.get(name, ())))}"
            )
        if silent := unanswered.get(name):
            command = f"{target}{simulated_option(target, home)}"
            lines = [line for line in lines if line not in set(map(str, silent))]
            more = f" and of {count_of(len(silent) - 1, 'more product')}" if len(silent) > 1 else ""
            print_notice(
                f"{target}: not compared, {silent[0].what}, of {silent[0].product}{more}; "
                f"`hephaestus verify --upstream {command}` asks again"
            )
        for line in lines[:_MAX_PRINTED_FINDINGS]:
            print_notice(f"{target}: {line}; {advice[name]}")
        if len(lines) > _MAX_PRINTED_FINDINGS:
            print_notice(f"{target}: and {len(lines) - _MAX_PRINTED_FINDINGS} more, which --json lists")
    if failed or any(found.values()):
        raise typer.Exit(1)


def _sum_up(found: int, not_compared: int) -> str:
    """Return the number of findings in words; products that nobody could be asked about are none."""
    texts = [count_of(found - not_compared, "finding")] if found > not_compared else []
    texts += [f"{count_of(not_compared, 'product')} not compared"] if not_compared else []
    return ", ".join(texts) or "whole"


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


def _frame_of(target: Frame | Path) -> Frame | None:
    """Return the frame of a cube; None where a path leads to no cube that says it."""
    if isinstance(target, Frame):
        return target
    with suppress(HephaestusError):
        return Frame(str(Generation.from_path(target).read_inventory().attributes.get("frame")))
    return None


def _find_upstream_changes(
    target: Frame | Path, settings: Settings, listener: ProgressListener
) -> list[UpstreamChange]:
    if isinstance(target, Frame):
        return check_upstream(target, settings, listener)
    contents = Generation.from_path(target).read_inventory()
    frame = Frame(str(contents.attributes.get("frame")))
    return compare_with_archive(frame, contents, settings, listener)


def _find_faults(target: Frame | Path, home: Settings, listener: ProgressListener) -> tuple[list[str], str]:
    """Return the faults of a cube, and the command that mends them; say what another version wrote."""
    generation = (
        published_generation(home, target) if isinstance(target, Frame) else Generation.from_path(target)
    )
    found = verify_cube(generation, listener)
    if version := found.describe_version(str(target)):
        print_notice(f"{target}: {version}")
    advice = "copy it again"
    if isinstance(target, Frame):
        advice = found.describe_remedy(f"{target}{simulated_option(target, home)}", generation.store)
        if home.is_simulated and needs_migration(home, target):
            advice = f"`hephaestus migrate {target}` moves the cube, then {advice}"
    return list(map(str, found.damages)), advice
