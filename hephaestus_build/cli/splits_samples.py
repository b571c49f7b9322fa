"""Samples that ``hephaestus splits`` makes splits of, and where written splits stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hephaestus_build.cli.annotations import read_selected_annotations
from hephaestus_build.cli.console import load_command_settings
from hephaestus_build.cli.targets import require_cubes
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.samples import Sample, samples_from_annotations, samples_from_cube
from hephaestus_build.dataset.splits import SIMULATED_SOURCE
from hephaestus_build.sources.annotations.archive import Annotations


def split_path(name: str, settings: Settings) -> Path:
    """Return the file of a split: of real samples, or of simulated ones where there is no other."""
    path, other = (home.data_dir / "splits" / f"{name}.json" for home in (settings, settings.for_simulated()))
    return other if other.is_file() and not path.is_file() else path


def read_selected_samples(
    archive: Path | None,
    cubes: Sequence[Path] | None,
    *,
    simulated: bool = False,
    mixed: bool = False,
    data_dir: Path | None = None,
) -> tuple[list[Sample], dict[str, str | int]]:
    """Return the samples of cubes, if there are any named, else of the annotations; and where from.

    Parameters
    ----------
    archive : pathlib.Path, optional
        Annotations; by default what the settings lead to.
    cubes : sequence of pathlib.Path, optional
        Folders of cubes, or cubes.
    simulated : bool
        Take the simulated cubes, where none are named.
    mixed : bool
        Whether real and simulated samples may be taken together.
    data_dir : pathlib.Path, optional
        Where the simulated cubes are.
    """
    if not cubes and not simulated:
        annotations = read_annotations_of_kind(archive, mixed)
        samples = samples_from_annotations(annotations)
        return samples, {"annotations": annotations.sha256, "absent_pairs": "absent_pairs.json"}
    taken = require_cubes(load_command_settings(simulated, data_dir=data_dir), cubes or (), mixed=mixed)
    samples, source = [], {}
    for path in taken.stores:
        with open_pinned_cube(path, chunks=None) as cube:
            found = samples_from_cube(cube)
            source[path.stem] = f"generation {Path(cube.encoding['source']).parent.name}"
        samples += found
    if not samples:
        raise HephaestusError("the cubes hold no annotated interferogram; name an archive with --archive")
    marks = {SIMULATED_SOURCE: "as the cubes say"} if taken.settings.is_simulated else {}
    return samples, {"cubes": len(source), **source, **marks}


def describe_source(source: dict[str, str | int]) -> dict[str, Any]:
    """Return as JSON values where samples come from: the frames of cubes in a list."""
    if "cubes" not in source:
        return dict(source)
    number = {name: str(text).removeprefix("generation ") for name, text in source.items()}
    return {
        "cubes": [
            {"frame": name, "generation": int(text)}
            for name, text in number.items()
            if name not in ("cubes", SIMULATED_SOURCE)
        ]
    }


def read_annotations_of_kind(archive: Path | None, mixed: bool) -> Annotations:
    """Return annotations of real or of simulated frames; of both only if `mixed` says so.

    Raises
    ------
    UsageError
        If they are of both.
    """
    annotations = read_selected_annotations(archive)
    frames = {frame.is_simulated: frame for frame in annotations.frames}
    if len(frames) == 2 and not mixed:
        raise UsageError(
            f"the annotations are of real frames and of simulated ones, such as {frames[False]} and "
            f"{frames[True]}: name an archive of one kind with --archive, or --mixed to take both"
        )
    return annotations
