"""Which interferograms ``hephaestus export --to webdataset`` takes, and in which part of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hephaestus_build.core.errors import HephaestusError, UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.samples import Sample, Series, make_series, samples_from_cube
from hephaestus_build.dataset.splits import PARTS, make_split, split_rule
from hephaestus_build.export.selection import ExportSelection, open_export_selection
from hephaestus_build.export.shard_samples import ShardSample

#: Part of an export without a split.
ALL = "all"


def select_shard_samples(
    cubes: Sequence[Path], pairs: Sequence[Pair], split: str | None, part: str | None, *, series: bool = False
) -> tuple[dict[str, list[tuple[ExportSelection, ShardSample]]], dict[str, str]]:
    """Return the samples of each part with their cubes, and what is recorded of the split.

    Without a split every annotated pair is a sample, also one of poor quality, as its flags say. The rule of
    a split looks at frame and dates alone, so that a part is the same whatever cubes are there. Series follow
    the paper's rule within each part.

    Raises
    ------
    UsageError
        If there is no such split or part, or a pair is not in the cube or not annotated.
    HephaestusError
        If the cubes have no sample for what is wanted.
    """
    if part and not split:
        raise UsageError("--part is of a split: name it with --split")
    if part and part not in PARTS:
        raise UsageError(f"there is no part {sanitize_text(part, 40)!r}; choose one of {', '.join(PARTS)}")
    rule = split_rule(split) if split else None
    sources: dict[str, ExportSelection] = {}
    for path in cubes:
        with wrap_unexpected_errors(path.stem):
            source = open_export_selection(path, pairs)
        if sources.setdefault(source.frame, source) is not source:
            raise UsageError(f"{source.frame} is named twice; a frame has one cube in an export")
    found: dict[str, Sequence[Sample | Series]] = {}
    recorded = {}
    if rule is None:
        annotated = [one for source in sources.values() for one in _annotated_samples(source)]
        found[ALL] = make_series(annotated) if series else sorted(annotated)
    else:
        usable = [
            one
            for source in sources.values()
            for one in samples_from_cube(source.cube)
            if one.pair in source.pair_positions
        ]
        made = make_split(rule, usable)
        of_parts = made.series if series else made.parts
        found |= {name: of_parts[name] for name in PARTS if part in (None, name)}
        recorded = {"name": made.name, "sha256": made.sha256, "part": part or ALL}
    numbered = {
        name: [ShardSample(f"sample{place:06d}", one) for place, one in enumerate(members)]
        for name, members in found.items()
    }
    samples = {name: [(sources[one.frame], one) for one in members] for name, members in numbered.items()}
    if not any(samples.values()):
        of = f"for {part or 'any part'} of the split {split}" if split else "that is annotated"
        raise HephaestusError(f"{', '.join(sources)}: no interferogram {of} is stored")
    return samples, recorded


def _annotated_samples(source: ExportSelection) -> list[Sample]:
    cube, frame = source.cube, Frame(source.frame)
    annotated, phases = cube["annotated"].values, cube["phase"].values
    chosen = [(pair, place) for pair, place in source.pair_positions.items() if annotated[place]]
    if source.pairs and len(chosen) < len(source.pair_positions):
        left = next(pair for pair, place in source.pair_positions.items() if not annotated[place])
        raise UsageError(f"{source.frame}: {left} is not annotated, so it has no labels to export")
    ids = np.asarray(cube["unique_id"].values)
    return [Sample(frame, pair, str(phases[place]) != "Rest", int(ids[place])) for pair, place in chosen]
