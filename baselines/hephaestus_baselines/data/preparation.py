"""Preparation of training data: items, split, statistics, events and attributes of pinned cubes."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import shapely

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.dataset_items import (
    SLIVER_PIXELS,
    SLIVER_SHARE,
    DatasetItem,
    KnownInterferogram,
)
from hephaestus_baselines.data.pinned_cubes import resolve_pin
from hephaestus_baselines.data.sample_attributes import (
    InterferogramKey,
    SampleAttributes,
    assign_events,
    read_sample_attributes,
    trace_outlines,
)
from hephaestus_build.core.bounds import Bounds
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.volcanoes import nearest_volcano, volcanoes_of_frame
from hephaestus_build.cube.discovery import are_simulated
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.dataset.channel_statistics import ChannelStatistics, read_statistics, update_statistics
from hephaestus_build.dataset.coverage import (
    Coverage,
    VisibleDeformation,
    count_visible,
    find_earthquakes_alone,
    keep_deformation,
    summarize_coverage,
)
from hephaestus_build.dataset.samples import Sample, samples_from_cube
from hephaestus_build.dataset.splits import PARTS, Split, SplitPart, make_split, split_rule
from hephaestus_build.dataset.tiling import (
    DEFAULT_TILING,
    TILE_SIZE,
    TILING_MODES,
    Tile,
    TilingMode,
    choose_tiles,
)

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
    coverage : Coverage or None
        How much of the deformation the windows of the tiling contain.
    uncertain_left_out : mapping of part to int
        Samples or series left out because the outlines of their frames are uncertain.
    events : mapping of (frame id, pair name) to tuple of str
        The events that each positive sample shows.
    event_volcanoes : mapping of str to str
        The volcano nearest to each event whose place is known.
    known : tuple of KnownInterferogram
        What the experts saw in each sample of every part, for controls.
    shapes : mapping of frame id to tuple of int
        Rows and columns of each frame.
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
    coverage: Coverage | None = None
    uncertain_left_out: Mapping[SplitPart, int] = field(default_factory=dict)
    events: Mapping[InterferogramKey, tuple[str, ...]] = field(default_factory=dict)
    event_volcanoes: Mapping[str, str] = field(default_factory=dict)
    known: tuple[KnownInterferogram, ...] = ()
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    attributes: Mapping[InterferogramKey, SampleAttributes] = field(default_factory=dict)
    missing_frames: tuple[str, ...] = ()


def prepare_recipe_data(recipe: Recipe, cubes: Path | Sequence[Path], **options: Any) -> PreparedData:
    """Pin cubes and make the items of a recipe: its split, windows and samples.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    cubes : pathlib.Path or sequence of pathlib.Path
        Folder of published cubes, or the cubes themselves.
    **options
        What a recipe does not state, as :func:`prepare_data` takes it: ``results``, ``mixed``, ``whole`` and
        others.
    """
    return prepare_data(
        cubes,
        split=recipe.split,
        series=recipe.series,
        size=recipe.size,
        training=recipe.training,
        tiling=recipe.tiling,
        uncertain=recipe.uses_uncertain,
        volcanic_only=recipe.positives == "volcanic",
        **options,
    )


def prepare_data(
    cubes: Path | Sequence[Path],
    *,
    split: str = "strict-temporal",
    series: bool = False,
    size: int = TILE_SIZE,
    training: TrainingPlacement = "random",
    tiling: TilingMode = DEFAULT_TILING,
    uncertain: bool = True,
    volcanic_only: bool = False,
    limit: int | None = None,
    results: Path | None = None,
    mixed: bool = False,
    measure: bool = True,
    threads: int = 2,
    whole: CubeIntegrityChecker | None = None,
    listener: ProgressListener | None = None,
) -> PreparedData:
    """Pin the cubes in a folder and make items of their samples.

    Parameters
    ----------
    cubes : pathlib.Path or sequence of pathlib.Path
        Folder of published cubes, or the cubes themselves.
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
    uncertain : bool
        Whether frames are used whose outlines are uncertain (``uncertain_geometry`` of the cube).
    volcanic_only : bool
        Whether interferograms that show an earthquake alone are left out, and its pixels are no deformation.
    limit : int, optional
        Maximum number of samples or series per part, evenly spread over it.
    results : pathlib.Path, optional
        Folder where the statistics are stored (``statistics/<split>.json``); not stored by default.
    mixed : bool
        Whether real and simulated cubes may be mixed.
    measure : bool
        Whether statistics are measured, which takes a reading of all training samples; without them nothing
        can be normalised.
    threads : int
        Number of products to process at once.
    whole : CubeIntegrityChecker, optional
        Checks all objects of the items against the manifests before they are read.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If there is no cube, a part is empty, no window of validation has more than a sliver of deformation,
        or stored data is damaged.
    UsageError
        If the split or the tiling is unknown, or there are both real and simulated cubes and `mixed` is
        false.
    """
    if training not in ("random", "label-centred"):
        raise UsageError(f"there is no training window mode {training!r}")
    if tiling not in TILING_MODES:
        raise UsageError(f"there is no tiling mode {tiling!r}; choose {', '.join(TILING_MODES)}")
    rule = split_rule(split)
    paths = cubes.glob("*.zarr") if isinstance(cubes, Path) else cubes
    stores = {path.stem: resolve_pin(path) for path in sorted(paths)}
    where = cubes if isinstance(cubes, Path) else f"these {len(stores)} cubes"
    if not stores:
        where = cubes if isinstance(cubes, Path) else "an empty list"
        raise HephaestusError(f"there is no cube in {where}; `hephaestus build FRAME` builds one")
    are_simulated(stores.values(), mixed=mixed)
    if whole:
        for store in stores.values():
            whole.check_cube(store, ())
    samples = [sample for store in stores.values() for sample in _read_samples(store)]
    made = make_split(rule, samples, source={"cubes": len(stores)})
    readers = {frame: WindowReader(store) for frame, store in stores.items()}
    used = sorted(sample for part in PARTS for sample in made.parts[part])
    if whole:
        for frame, store in stores.items():
            whole.check_cube(store, {sample.pair for sample in used if sample.frame.id == frame})
    shown = {
        sample: _read_deformation(readers[sample.frame.id], sample, size, tiling, volcanic_only)
        for sample in used
        if sample.positive
    }
    visible = {sample: found.visible for sample, found in shown.items()}
    shaken = find_earthquakes_alone(visible) if volcanic_only else frozenset()
    doubtful = {
        frame
        for frame, cube in readers.items()
        if not uncertain and cube.attributes.get("uncertain_geometry")
    }
    members: dict[SplitPart, list[tuple[Sample, ...]]] = {}
    left_out: dict[SplitPart, int] = {}
    for part in PARTS:
        chosen, left_out[part] = select_groups(
            made, part, series=series, uncertain_frames=doubtful, earthquakes=shaken
        )
        members[part] = evenly_spaced(chosen, limit)
        if not members[part] and left_out[part]:
            raise HephaestusError(
                f"the {part} part of the split {split} has frames with uncertain outlines alone ("
                f"{', '.join(sorted({sample.frame.id for sample in made.parts[part]}))}), which this task "
                "leaves out; choose another split, or keep them (--set uncertain=keep)"
            )
        if not members[part]:
            raise HephaestusError(
                f"the {part} part of the split {split} is empty with the cubes in {where}; build further "
                "frames or dates with `hephaestus build`, or choose another split (`hephaestus splits list`)"
            )
    items = {
        part: tuple(
            _make_items(
                members[part], readers, shown, size, training if part == "train" else tiling, volcanic_only
            )
        )
        for part in PARTS
    }
    if not any(item.pixels and not item.sliver for item in items["validation"]):
        raise HephaestusError(
            f"no window of the validation part of {split} has more than a sliver of deformation with the "
            f"tiling {tiling}, so no epoch and no threshold can be chosen; choose another tiling "
            f"(`hephaestus splits coverage {split}`) or another split, or build further frames"
        )
    events = assign_events({sample: found.outlines for sample, found in shown.items()})
    simulated = made.is_simulated or any(reader.attributes.get("simulated") for reader in readers.values())
    return PreparedData(
        split=made,
        stores=stores,
        generations={frame: _generation_label(store) for frame, store in stores.items()},
        statistics=_update_statistics(made, stores, results, threads, listener)
        if measure
        else ChannelStatistics(made.name, made.sha256, bool(simulated), {}, {}),
        items=items,
        is_simulated=bool(simulated),
        coverage=summarize_coverage(made, tiling, size, visible, leave_out=shaken),
        uncertain_left_out=left_out,
        events=events,
        event_volcanoes=_nearest_volcanoes(events, shown, readers),
        known=tuple(
            KnownInterferogram(
                sample.frame.id,
                sample.pair,
                part == "train",
                sample.positive and sample not in shaken,
                frozenset((tile.row, tile.column, tile.size) for tile in shown[sample].windows)
                if sample.positive
                else frozenset(),
            )
            for part in PARTS
            for sample in made.parts[part]
        ),
        shapes={frame: cube.shape for frame, cube in readers.items()},
        attributes={
            (sample.frame.id, sample.pair.name): read_sample_attributes(
                readers[sample.frame.id], sample, volcanic_only=volcanic_only
            )
            for sample in used
        },
        missing_frames=() if simulated else tuple(sorted(set(published_frames()) - set(stores))),
    )


def group_samples(split: Split, part: SplitPart, *, series: bool) -> list[tuple[Sample, ...]]:
    """Return the series of a part of a split, or each of its samples alone."""
    return [one.members for one in split.series[part]] if series else [(one,) for one in split.parts[part]]


def select_groups(
    split: Split,
    part: SplitPart,
    *,
    series: bool,
    uncertain_frames: Collection[str],
    earthquakes: Collection[Sample],
) -> tuple[list[tuple[Sample, ...]], int]:
    """Select what a run uses of a part of its split.

    Parameters
    ----------
    split : Split
    part : str
    series : bool
        Whether a run uses series instead of single samples.
    uncertain_frames : collection of str
        Frames that are left out because their outlines are uncertain.
    earthquakes : collection of Sample
        Samples that are left out, and series with one of them, because they show an earthquake alone.

    Returns
    -------
    groups : list of tuple of Sample
        The series, or each sample alone.
    uncertain : int
        Number of groups that are left out because their outlines are uncertain.
    """
    groups = group_samples(split, part, series=series)
    certain = [group for group in groups if group[0].frame.id not in uncertain_frames]
    chosen = [group for group in certain if not any(sample in earthquakes for sample in group)]
    return chosen, len(groups) - len(certain)


def _read_samples(store: Path) -> list[Sample]:
    with open_pinned_cube(store, chunks=None) as cube:
        return samples_from_cube(cube)


def evenly_spaced(members: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` of `members`, evenly spaced in their order."""
    count = len(members) if limit is None else min(limit, len(members))
    return [members[index * len(members) // count] for index in range(count)]


@dataclass(frozen=True)
class _ShownDeformation:
    """Deformation of one interferogram: outlines, pixels in all windows together, pixels in each window."""

    outlines: Sequence[shapely.Geometry]
    visible: VisibleDeformation
    windows: Mapping[Tile, int]


def _read_deformation(
    cube: WindowReader, sample: Sample, size: int, tiling: TilingMode, volcanic_only: bool
) -> _ShownDeformation:
    mask = _read_mask(cube, [sample], volcanic_only)
    tiles = choose_tiles(tiling, sample, cube.grid, size, mask=mask).tiles
    return _ShownDeformation(
        trace_outlines(cube, mask),
        count_visible(mask > 0, tiles),
        {tile: pixels for tile in tiles if (pixels := int(np.count_nonzero(tile.read(mask))))},
    )


def _nearest_volcanoes(
    events: Mapping[InterferogramKey, tuple[str, ...]],
    shown: Mapping[Sample, _ShownDeformation],
    readers: Mapping[str, WindowReader],
) -> dict[str, str]:
    """Return the volcano of the frame that is nearest to the deformation of each event."""
    outlines: dict[str, list[shapely.Geometry]] = defaultdict(list)
    frames: dict[str, Sample] = {}
    for sample, found in shown.items():
        if readers[sample.frame.id].attributes.get("uncertain_geometry"):
            continue  # nobody knows the place
        for event in events.get((sample.frame.id, sample.pair.name), ()):
            outlines[event] += found.outlines
            frames[event] = sample
    nearest = {}
    for event, shapes in outlines.items():
        frame = frames[event].frame
        known = volcanoes_of_frame(frame, Bounds(*readers[frame.id].grid.bounds))
        if known:
            middle = shapely.unary_union(shapes).centroid
            nearest[event] = nearest_volcano(middle.y, middle.x, known).name
    return nearest


def _read_mask(cube: WindowReader, samples: Iterable[Sample], volcanic_only: bool) -> npt.NDArray[np.uint8]:
    """Return the deformation of samples together, without that of earthquakes where it does not count."""
    union = np.zeros(cube.shape, np.uint8)
    for sample in samples:
        mask = cube.read_union("deformation_mask", [sample.pair])
        np.maximum(union, keep_deformation(mask, volcanic_only=volcanic_only), out=union)
    return union


def _make_items(
    groups: Sequence[tuple[Sample, ...]],
    readers: Mapping[str, WindowReader],
    shown: Mapping[Sample, _ShownDeformation],
    size: int,
    choice: TilingMode | Literal["random"],
    volcanic_only: bool,
) -> Iterator[DatasetItem]:
    for members in groups:
        deforming = [shown[sample] for sample in members if sample.positive]
        if choice == "random":
            yield DatasetItem(members, bool(deforming))
            continue
        cube = readers[members[0].frame.id]
        mask = None
        if choice == "label-centred":
            mask = _read_mask(cube, members, volcanic_only)
        for tile in choose_tiles(choice, members[0], cube.grid, size, mask=mask).tiles:
            if mask is None:
                # the member that shows most of its deformation here decides
                pixels, most = max(
                    ((one.windows.get(tile, 0), one.visible.pixels) for one in deforming), default=(0, 0)
                )
            else:
                pixels, most = int(np.count_nonzero(tile.read(mask))), int(np.count_nonzero(mask))
            sliver = 0 < pixels < max(min(SLIVER_PIXELS, most), SLIVER_SHARE * most)
            yield DatasetItem(members, bool(deforming), tile, pixels, sliver)


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
