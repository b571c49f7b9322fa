"""``hephaestus compare``: how two cubes of one frame differ, or samples from the cubes of their frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hephaestus_build.cli.console import (
    load_command_settings,
    print_fields,
    print_json,
    print_notice,
    print_table,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.comparison.cube_comparison import CubeComparison, compare_cubes
from hephaestus_build.comparison.findings import Finding
from hephaestus_build.comparison.pair_comparison import PairComparison
from hephaestus_build.comparison.sample_comparison import SampleComparison, compare_samples
from hephaestus_build.comparison.sample_shards import find_samples
from hephaestus_build.core.errors import UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import ProgressListener, show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.reading.readable_cube import ReadableCube
from hephaestus_build.cube.schema import CHANNELS
from hephaestus_build.cube.storage.generations import FrameStore

#: Findings of a summary of ten lines.
_MAX_FINDINGS = 4

_CubeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="CUBE",
        help="A frame id, a volcano of one frame, or the path of a cube, an export or a published one, as a "
        "folder or in a tar file (all.tar, or all.tar/FRAME.zarr).",
    ),
]


def compare(
    first: _CubeArgument = None,
    second: _CubeArgument = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="SHARD",
            help="Compare the samples of a shard (a .tar of image.pth, labels.pth, sample.pth), or of all "
            "below a folder, with one CUBE; without one, with the cubes of their frames that are here.",
        ),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare two cubes: grid, pairs, phase, coherence, heights, masks, atmosphere and annotations.

    With --samples, the samples of shards and cubes: the pair of each, its window in the frame, each channel,
    the labels and the annotation.

    Exits with 0 where they agree: the same grid within 1e-6 degree and the same pairs; phase, coherence,
    heights, masks, flags and texts equal; the atmosphere within the step that it is rounded to. Else with 1.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    if samples is not None:
        if second is not None:
            raise UsageError("--samples compares a shard with one cube; leave the second out")
        _compare_with_samples(samples, first, settings, as_json=as_json)
    elif first is None or second is None:
        raise UsageError("two cubes are compared, or one with the samples of --samples SHARD")
    else:
        _compare_two(first, second, settings, as_json=as_json)


def _compare_two(first: str, second: str, settings: Settings, *, as_json: bool) -> None:
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
        _exit_differing(f"{first} and {second}", found.findings)


def _compare_with_samples(path: Path, target: str | None, settings: Settings, *, as_json: bool) -> None:
    with wrap_unexpected_errors(path), show_progress() as listener:
        stored = find_samples(path, listener)
        found = compare_samples(stored, _cubes_of_frames(target, settings, listener), listener=listener)
    elsewhere = ", ".join(f"{count} of {frame}" for frame, count in found.elsewhere.items())
    if not found.samples:
        raise UsageError(
            f"no sample of {path} was compared: it holds {elsewhere}, "
            + (f"and {target} is of another frame" if target else "and no cube of these is here")
        )
    if as_json:
        print_json(found.to_json())
    else:
        print_table(
            ["sample", "pair", "row, column", "phase", "coherence", "labels", "others"],
            [_sample_row(sample) for sample in found.samples],
        )
        equal = sum(sample.is_equal for sample in found.samples)
        compared = count_of(len(found.samples), "interferogram")
        print_fields(
            f"{', '.join(found.frames)}{' (simulated)' if found.simulated else ''}",
            {
                "samples": f"{compared} of {count_of(len(stored), 'sample')}, {equal} equal",
                **({"of other frames": elsewhere} if elsewhere else {}),
                **_finding_rows(found.findings),
                "verdict": "they agree" if found.agrees else "they differ",
            },
        )
    if not found.agrees:
        _exit_differing(f"{path} and {target or 'the cubes here'}", found.findings)


def _cubes_of_frames(
    target: str | None, settings: Settings, listener: ProgressListener
) -> Callable[[Frame], ReadableCube | None]:
    """Return a function that returns the cube with which samples of a frame are compared; None if none is."""
    if target is not None:
        cube = ReadableCube.open(target, settings, listener)
        return lambda frame: cube if cube.frame in ("", frame.id) else None

    @cache
    def cube_here(frame: Frame) -> ReadableCube | None:
        home = settings.for_frame(frame)
        if FrameStore(home.cubes_dir, frame).published_generation() is None:
            return None
        return ReadableCube.open(frame.id, home)

    return cube_here


def _exit_differing(what: str, findings: Sequence[Finding]) -> NoReturn:
    unexpected = sum(not finding.expected for finding in findings)
    print_notice(f"{what} differ: {count_of(len(findings), 'finding')}, {unexpected} of them unexpected")
    raise typer.Exit(1)


def _sample_row(one: SampleComparison) -> list[str]:
    if one.problem:
        return [one.sample, one.pair.name, "", one.problem, "", "", ""]
    phase, coherence, *others = (
        f"holds {one.swapped[name]}"
        if name in one.swapped
        else one.channels[name].words
        if name in one.channels
        else "not compared"
        for name in CHANNELS
    )
    differing = [
        f"{name}: {words}" for name, words in zip(CHANNELS[2:], others, strict=True) if name in one.differing
    ]
    return [
        one.sample,
        one.pair.name,
        f"{one.window.row}, {one.window.column}" if one.window else "",
        phase,
        coherence,
        one.labels.words if one.labels else "not compared",
        "; ".join([*differing, *one.annotations]) or "equal",
    ]


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
    rows |= _finding_rows(found.findings)
    if found.notes:
        note, *more = found.notes
        rows["no difference"] = f"{note.where} {note.what}" + (f"; and {len(more)} more" if more else "")
    rows["verdict"] = "they agree" if found.agrees else "they differ"
    return rows


def _finding_rows(findings: Sequence[Finding]) -> dict[str, str]:
    """Return what differs as a row of a summary; none where nothing does."""
    lines = [
        f"{finding.where} {finding.what}" + (f" (expected: {finding.expected})" if finding.expected else "")
        for finding in findings
    ]
    if len(lines) > _MAX_FINDINGS:
        lines[_MAX_FINDINGS - 1 :] = [f"and {len(lines) - _MAX_FINDINGS + 1} more: see --json"]
    return {"differs": "\n".join(lines)} if lines else {}
