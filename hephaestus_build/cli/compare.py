"""``hephaestus compare``: how two cubes of one frame differ."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import (
    load_command_settings,
    print_fields,
    print_json,
    print_notice,
    print_table,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.comparison.cube_comparison import CubeComparison, PairComparison, compare_cubes
from hephaestus_build.core.errors import wrap_unexpected_errors
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.cube.reading.readable_cube import ReadableCube

#: Findings of a summary of ten lines.
_MAX_FINDINGS = 4

_CubeArgument = Annotated[
    str,
    typer.Argument(
        metavar="CUBE",
        help="A frame id, a volcano of one frame, or the path of a cube, an export or a published one, as a "
        "folder or in a tar file (all.tar, or all.tar/FRAME.zarr).",
    ),
]


def compare(
    first: _CubeArgument,
    second: _CubeArgument,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare two cubes: grid, pairs, phase, coherence, heights, masks, atmosphere and annotations.

    Exits with 0 where they agree: the same grid within 1e-6 degree and the same pairs; phase, coherence,
    heights, masks, flags and texts equal; the atmosphere within the step that it is rounded to. Else with 1.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    with wrap_unexpected_errors(f"{first} and {second}"), show_progress() as listener:
        cubes = [ReadableCube.open(target, settings, listener) for target in (first, second)]
        found = compare_cubes(*cubes, threads=settings.worker_count, listener=listener)
    if as_json:
        print_json(found.to_json())
    else:
        print_table(
            ["pair", "phase", "coherence", "masks", "annotations"],
            [_table_row(pair) for pair in found.pairs],
        )
        print_fields(
            f"{found.frame or 'two cubes'}{' (simulated)' if found.simulated else ''}", _summary(found)
        )
    if not found.agrees:
        unexpected = sum(not finding.expected for finding in found.findings)
        print_notice(
            f"{first} and {second} differ: {count_of(len(found.findings), 'finding')}, "
            f"{unexpected} of them unexpected"
        )
        raise typer.Exit(1)


def _table_row(pair: PairComparison) -> list[str]:
    masks = [
        f"{name.removesuffix('_mask')}: {mask.words}"
        for name, mask in pair.masks.items()
        if not mask.is_equal
    ]
    return [
        pair.pair.name,
        pair.phase.words if pair.phase else "not compared",
        pair.coherence.words if pair.coherence else "not compared",
        "; ".join(masks) or ("equal" if pair.masks else "not compared"),
        ", ".join(pair.tables) or "equal",
    ]


def _summary(found: CubeComparison) -> dict[str, Any]:
    """Return the rows of a summary of at most ten lines, its heading among them."""
    equal = sum(pair.is_equal for pair in found.pairs)
    rows = {
        "first": found.first,
        "second": found.second,
        "pairs": f"{len(found.pairs)} in both, {equal} equal; "
        f"{len(found.only_first)} and {len(found.only_second)} in one alone",
    }
    lines = [
        f"{finding.where} {finding.what}" + (f" (expected: {finding.expected})" if finding.expected else "")
        for finding in found.findings
    ]
    if len(lines) > _MAX_FINDINGS:
        lines[_MAX_FINDINGS - 1 :] = [f"and {len(lines) - _MAX_FINDINGS + 1} more: see --json"]
    if lines:
        rows["differs"] = "\n".join(lines)
    if found.notes:
        note, *more = found.notes
        rows["no difference"] = f"{note.where} {note.what}" + (f"; and {len(more)} more" if more else "")
    rows["verdict"] = "they agree" if found.agrees else "they differ"
    return rows
