"""Preparation of training data: items, split, statistics, events and attributes of pinned cubes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.sample_attributes import (
    SampleAttributes,
    SampleKey,
    assign_events,
    find_deformation_boxes,
    read_sample_attributes,
    read_union_mask,
)
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.registry import published_frames
from hephaestus_build.cube.discovery import are_simulated
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.dataset.channel_statistics import ChannelStatistics, read_statistics, update_statistics
from hephaestus_build.dataset.samples import Sample, samples_from_cube
from hephaestus_build.dataset.splits import PARTS, Split, SplitPart, make_split, split_rule
from hephaestus_build.dataset.tiling import TILE_SIZE, TILING_MODES, Tile, TilingMode, choose_tiles

log = logging.getLogger(__name__)


TrainingPlacement = Literal["random", "label-centred"]

T = TypeVar("T")


@dataclass(frozen=True)
class PreparedData:
    """The data of a run.

    Attributes
    ----------
    split : Split
        The split of the samples in these cubes.
    stores : mapping of frame id to pathlib.Path
        Store of each cube's generation; builds that run meanwhile do not affect it.
    generations : mapping of frame id to str
        Number of each generation and hash of its content, for results.
    statistics : ChannelStatistics
        Statistics of the training part.
    items : mapping of part to tuple of DatasetItem
        Validation and test items have tiles; training items only if windows are centred on the label.
    is_simulated : bool
        Whether any cube is simulated.
    events : mapping of (frame id, pair name) to str
        The event that each positive sample belongs to.
    attributes : mapping of (frame id, pair name) to SampleAttributes
        Attributes of every sample in a part.
    missing_frames : tuple of str
        Published frames without a cube here; empty if the cubes are simulated.
    """

    split: Split
    stores: Mapping[str, Path]
    generations: Mapping[str, str]
    statistics: ChannelStatistics
    items: Mapping[SplitPart, tuple[DatasetItem, ...]]
    is_simulated: bool
    events: Mapping[SampleKey, str] = field(default_factory=dict)
    attributes: Mapping[SampleKey, SampleAttributes] = field(default_factory=dict)
    missing_frames: tuple[str, ...] = ()


def prepare_data(
    cubes: Path,
    *,
    split: str = "strict-temporal",
    series: bool = False,
    size: int = TILE_SIZE,
    training: TrainingPlacement = "random",
    tiling: TilingMode = "grid",
    limit: int | None = None,
    results: Path | None = None,
    mixed: bool = False,
    threads: int = 2,
    whole: CubeIntegrityChecker | None = None,
    listener: ProgressListener | None = None,
) -> PreparedData:
    """Pin the cubes in a folder and make items of their samples.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of published cubes.
    split : str
        Name of a split rule.
    series : bool
        Whether items have three interferograms instead of one.
    size : int
        Rows and columns of the windows.
    training : str
        ``random``: each draw has a random window (see :mod:`hephaestus_baselines.data.window_dataset`);
        ``label-centred``: each item has a fixed window, as in the published benchmark.
    tiling : str
        Tiling mode of validation and test, from :mod:`hephaestus_build.dataset.tiling`.
    limit : int, optional
        Maximum number of samples or series per part, evenly spread over it.
    results : pathlib.Path, optional
        Folder where the statistics are stored (``statistics/<split>.json``); not stored by default.
    mixed : bool
        Whether real and simulated cubes may be mixed.
    threads : int
        Number of products to process at once.
    whole : CubeIntegrityChecker, optional
        Checks all objects of the items against the manifests before they are read.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If there is no cube, a part is empty, or stored data is damaged.
    UsageError
        If the split or the tiling is unknown, or there are both real and simulated cubes and `mixed` is
        false.
    """
    if training not in ("random", "label-centred"):
        raise UsageError(f"there is no training window mode {training!r}")
    if tiling not in TILING_MODES:
        raise UsageError(f"there is no tiling mode {tiling!r}; choose {', '.join(TILING_MODES)}")
    rule = split_rule(split)
    stores = {path.stem: path.resolve() for path in sorted(cubes.glob("*.zarr"))}
    if not stores:
        raise HephaestusError(f"there is no cube in {cubes}; `hephaestus build FRAME` builds one")
    are_simulated(stores.values(), mixed=mixed)
    if whole:
        for store in stores.values():
            whole.check_cube(store, ())
    samples = [sample for store in stores.values() for sample in _read_samples(store)]
    made = make_split(rule, samples, source={"cubes": len(stores)})
    readers = {frame: WindowReader(store) for frame, store in stores.items()}
    members = {
        part: _evenly_spaced([item.members for item in made.series[part]], limit)
        if series
        else _evenly_spaced([(sample,) for sample in made.parts[part]], limit)
        for part in PARTS
    }
    for part in PARTS:
        if not members[part]:
            raise HephaestusError(
                f"the {part} part of the split {split} is empty with the cubes in {cubes}; build further "
                "frames or dates with `hephaestus build`, or choose another split (`hephaestus splits list`)"
            )
    used = sorted(sample for part in PARTS for sample in made.parts[part])
    if whole:
        for frame, store in stores.items():
            whole.check_cube(store, {sample.pair for sample in used if sample.frame.id == frame})
    items = {
        part: tuple(_make_items(members[part], readers, size, training if part == "train" else tiling))
        for part in PARTS
    }
    boxes = {
        sample: find_deformation_boxes(readers[sample.frame.id], sample) for sample in used if sample.positive
    }
    simulated = made.is_simulated or any(reader.attributes.get("simulated") for reader in readers.values())
    return PreparedData(
        split=made,
        stores=stores,
        generations={frame: _generation_label(store) for frame, store in stores.items()},
        statistics=_update_statistics(made, stores, results, threads, listener),
        items=items,
        is_simulated=bool(simulated),
        events=assign_events(boxes),
        attributes={
            (sample.frame.id, sample.pair.name): read_sample_attributes(readers[sample.frame.id], sample)
            for sample in used
        },
        missing_frames=() if simulated else tuple(sorted(set(published_frames()) - set(stores))),
    )


def _read_samples(store: Path) -> list[Sample]:
    with open_pinned_cube(store, chunks=None) as cube:
        return samples_from_cube(cube)


def _evenly_spaced(members: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` of `members`, evenly spaced in their order."""
    count = len(members) if limit is None else min(limit, len(members))
    return [members[index * len(members) // count] for index in range(count)]


def _make_items(
    groups: Sequence[tuple[Sample, ...]],
    readers: Mapping[str, WindowReader],
    size: int,
    choice: TilingMode | Literal["random"],
) -> Iterator[DatasetItem]:
    for members in groups:
        positive = any(sample.positive for sample in members)
        if choice == "random":
            yield DatasetItem(members, positive)
            continue
        cube = readers[members[0].frame.id]
        for tile in _make_tiles(cube, members, size, choice):
            yield DatasetItem(members, positive, tile)


def _make_tiles(
    cube: WindowReader, members: tuple[Sample, ...], size: int, mode: TilingMode
) -> tuple[Tile, ...]:
    mask = read_union_mask(cube, members) if mode == "label-centred" else None
    return choose_tiles(mode, cube.shape, size, mask=mask, sample=members[0]).tiles


def _update_statistics(
    split: Split,
    stores: Mapping[str, Path],
    results: Path | None,
    threads: int,
    listener: ProgressListener | None,
) -> ChannelStatistics:
    """Measure samples that the stored statistics lack, and store the result."""
    path = results / "statistics" / f"{split.name}.json" if results else None
    previous = None
    if path and path.is_file():
        try:
            previous = read_statistics(path)
        except HephaestusError as error:
            log.warning("%s; the statistics are measured again", str(error).partition("; ")[0])
    statistics = update_statistics(split, stores, previous, threads=threads, listener=listener)
    if path and statistics != previous:
        path.parent.mkdir(parents=True, exist_ok=True)
        statistics.write(path)
    return statistics


def _generation_label(store: Path) -> str:
    """Return ``<number>:<content>`` of a generation; copies of a cube differ only in the number."""
    generation = Generation.from_path(store)
    manifest = generation.store / MANIFEST
    content = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12] if manifest.is_file() else "unknown"
    return f"{generation.number}:{content}"
