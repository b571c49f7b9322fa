"""Adding sources to quiet interferograms of the test part and scoring a model on them."""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hephaestus_baselines.data.buried_sources import SOURCE_KINDS, SourceKind, draw_source
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import evenly_spaced
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.detectability.detectability_report import DetectabilityReport, InjectedPlace
from hephaestus_baselines.detectability.detection_limits import threshold_of_false_alarms
from hephaestus_baselines.detectability.phase_injection import RadarGeometry, inject_phase
from hephaestus_baselines.detectability.place_groups import DISPLACEMENTS, PlaceGroups
from hephaestus_baselines.detectability.quiet_windows import QuietWindows, find_quiet_windows
from hephaestus_baselines.detectability.source_placement import (
    PlacedSource,
    draw_pixel,
    place_source,
    read_radar_geometry,
)
from hephaestus_baselines.evaluation.predictions import MIN_DATA_SHARE, item_probability
from hephaestus_baselines.training.batch_collector import count_histograms_on_device
from hephaestus_baselines.training.exported_model import hash_model
from hephaestus_baselines.training.inference import (
    TrainedModel,
    expand_on_device,
    load_deformation_model,
)
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.reading.window_reader import WindowReader

log = logging.getLogger(__name__)
T = TypeVar("T")

#: At most this many quiet windows of the validation part set the threshold, evenly spaced.
_MAX_VALIDATION_WINDOWS = 4000
#: Windows that are tried for each wanted place, since some have hardly any data.
_TRIES = 10
_BATCH_PIXELS = 1 << 22
_LOOK_VARIABLES = ("look_east", "look_north", "look_up")


@dataclass(frozen=True, eq=False)
class _QuietSample:
    """One quiet window, and where it has data that count."""

    item: DatasetItem
    tensors: Mapping[str, torch.Tensor]
    data: npt.NDArray[np.bool]

    @property
    def data_share(self) -> float:
        inside = self.tensors["inside"].numpy()
        return float(self.data.sum() / max(int(inside.sum()), 1))


def measure_detectability(
    checkpoint: Path,
    stores: Mapping[str, Path],
    *,
    places: int,
    false_alarms: float,
    interferograms: int | None = None,
    seed: int = 0,
    device: str = "auto",
    unsealed: bool = False,
    mixed: bool = False,
    checker: CubeIntegrityChecker | None = None,
    listener: ProgressListener | None = None,
) -> tuple[DetectabilityReport, list[InjectedPlace]]:
    """Return how small a deformation a model finds in the quiet interferograms of cubes.

    Parameters
    ----------
    checkpoint : pathlib.Path
        ``best.ckpt`` of a run, or the folder of an exported model.
    stores : mapping of frame id to pathlib.Path
        Published cubes.
    places : int
        Places for each frame; each gets one source with every displacement of :data:`DISPLACEMENTS`.
    false_alarms : float
        Share of quiet validation windows that may raise an alarm.
    interferograms : int, optional
        Interferograms (of a model of series: series) from which each frame's places are taken, equally many
        from each, evenly spaced in time; by default from all at random.
    seed : int
        Seed of places, sources and noise.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    unsealed : bool
        Whether to accept a checkpoint without a seal.
    mixed : bool
        Whether real and simulated cubes may be mixed.
    checker : CubeIntegrityChecker, optional
        Checks what is read of the cubes.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If the checkpoint or a cube cannot be used, or there are too few quiet interferograms.
    """
    listener = listener or NullListener()
    trained = load_deformation_model(checkpoint, device, unsealed=unsealed, what="a detection limit")
    quiet = find_quiet_windows(stores, trained.recipe, mixed=mixed, checker=checker)
    known = evenly_spaced(quiet.items["validation"], _MAX_VALIDATION_WINDOWS)
    scores = _score_quiet_windows(trained, quiet, known, listener)
    threshold = threshold_of_false_alarms(scores, false_alarms)
    unstated = _find_unstated_geometry(quiet)
    if len(unstated) == len({item.frame for item in quiet.items["test"]}):
        raise HephaestusError(next(iter(unstated.values())))
    for problem in unstated.values():
        log.warning("%s; the frame is left out", problem)
    injected = list(_score_places(trained, quiet, places, interferograms, seed, listener, set(unstated)))
    if not injected:
        raise HephaestusError(
            "no quiet window of the test part has enough data for a source; build further frames or dates"
        )
    fringe = float(str(quiet.attributes[injected[0].frame]["radar_wavelength_m"])) / 2
    alarmed = np.array([place.quiet_score > threshold for place in injected])

    groups = PlaceGroups(injected, threshold, fringe, seed)
    report = DetectabilityReport(
        simulated=quiet.is_simulated,
        trained_on_simulated=trained.trained_on_simulated,
        model=trained.recipe.key,
        checkpoint=hash_model(checkpoint),
        task=trained.recipe.task,
        steps=trained.recipe.steps,
        split=quiet.split_name,
        same_split=quiet.split_sha256 == trained.split_sha256,
        tiling=quiet.tiling,
        seed=seed,
        false_alarm_rate=false_alarms,
        threshold=threshold,
        validation_windows=len(scores),
        test_windows=len(injected),
        test_false_alarms=int(alarmed.sum()),
        frames_left_out=sorted(unstated),
        displacements_cm=[100 * displacement for displacement in DISPLACEMENTS],
        all=groups.trace(injected),
        by_frame=groups.by_name(lambda place: place.frame),
        by_kind=groups.by_name(lambda place: place.kind),
        by_extent=groups.by_thirds([place.extent_km2 for place in injected], "km²"),
        by_coherence=groups.by_thirds([place.coherence for place in injected], ""),
        by_interferogram=groups.by_interferogram(),
    )
    return report, injected


def _score_quiet_windows(
    trained: TrainedModel, quiet: QuietWindows, items: Sequence[DatasetItem], listener: ProgressListener
) -> npt.NDArray[np.float64]:
    """Return the scores of those windows that have enough data, as alarms count them."""
    stage = f"{trained.recipe.model}: quiet windows"
    listener.stage(stage, len(items))
    scores: list[float] = []
    waiting: list[Mapping[str, torch.Tensor]] = []
    limit = _batch_size(trained)
    for sample in _read_samples(trained, quiet, items):
        if sample.data_share >= MIN_DATA_SHARE:
            waiting.append(sample.tensors)
        if len(waiting) == limit:
            scores += _score_windows(trained, waiting)
            waiting = []
        listener.advance(stage)
    if waiting:
        scores += _score_windows(trained, waiting)
    return np.array(scores)


def _score_places(
    trained: TrainedModel,
    quiet: QuietWindows,
    places: int,
    interferograms: int | None,
    seed: int,
    listener: ProgressListener,
    left_out: Collection[str],
) -> Iterable[InjectedPlace]:
    by_frame: dict[str, list[DatasetItem]] = defaultdict(list)
    for item in quiet.items["test"]:
        if item.frame not in left_out:
            by_frame[item.frame].append(item)
    stage = f"{trained.recipe.model}: sources"
    listener.stage(stage, places * len(by_frame))
    for frame, items in by_frame.items():
        rng = np.random.default_rng((seed, zlib.crc32(frame.encode())))
        reader = WindowReader(quiet.stores[frame])
        kinds = cycle(SOURCE_KINDS)
        for wanted, group in _share_places(items, places, interferograms):
            drawn = [group[index] for index in rng.integers(len(group), size=_TRIES * wanted).tolist()]
            found = 0
            kind = next(kinds)
            for sample in _read_samples(trained, quiet, drawn):
                placed = _place_source(trained, quiet, reader, sample, kind, rng)
                if placed is None:
                    continue
                yield _score_place(trained, sample, *placed, rng)
                listener.advance(stage)
                found += 1
                if found == wanted:
                    break
                kind = next(kinds)


def _share_places(
    items: Sequence[DatasetItem], places: int, interferograms: int | None
) -> list[tuple[int, list[DatasetItem]]]:
    """Return groups of windows, and how many places each has: all, or those of some interferograms."""
    if interferograms is None:
        return [(places, list(items))]
    by_pairs: dict[tuple[str, ...], list[DatasetItem]] = defaultdict(list)
    for item in items:
        by_pairs[item.pairs].append(item)
    chosen = evenly_spaced(sorted(by_pairs), min(interferograms, places))
    ends = [places * number // len(chosen) for number in range(len(chosen) + 1)]
    return [(ends[number + 1] - ends[number], by_pairs[pairs]) for number, pairs in enumerate(chosen)]


def _place_source(
    trained: TrainedModel,
    quiet: QuietWindows,
    reader: WindowReader,
    sample: _QuietSample,
    kind: SourceKind,
    rng: np.random.Generator,
) -> tuple[PlacedSource, RadarGeometry] | None:
    """Return a random source below a random pixel of a window; None if the window has too little data."""
    assert sample.item.tile is not None
    window = sample.item.tile.row, sample.item.tile.column
    pixel = draw_pixel(sample.data, window, rng)
    if sample.data_share < MIN_DATA_SHARE or pixel is None:
        return None
    geometry = _read_geometry(reader, window, trained.recipe.size)
    placed = place_source(
        draw_source(kind, rng).scaled(float(rng.choice([-1, 1]))),
        window,
        pixel,
        quiet.grids[sample.item.frame],
        geometry,
        sample.data,
        sample.tensors["coherence"].numpy(),
    )
    return None if placed is None else (placed, geometry)


def _find_unstated_geometry(quiet: QuietWindows) -> dict[str, str]:
    """Return the frames of the test part whose cubes do not state the radar's geometry, and the problem."""
    problems = {}
    for frame in sorted({item.frame for item in quiet.items["test"]}):
        try:
            _read_geometry(WindowReader(quiet.stores[frame]), (0, 0), 1)
        except HephaestusError as error:
            problems[frame] = str(error)
    return problems


def _score_place(
    trained: TrainedModel,
    sample: _QuietSample,
    placed: PlacedSource,
    geometry: RadarGeometry,
    rng: np.random.Generator,
) -> InjectedPlace:
    trials: list[Mapping[str, torch.Tensor]] = [sample.tensors]
    trials += [
        _add_displacement(sample, geometry.phase_of(displacement * placed.towards), rng)
        for displacement in DISPLACEMENTS
    ]
    limit, scores = _batch_size(trained), []
    for start in range(0, len(trials), limit):
        scores += _score_windows(trained, trials[start : start + limit])
    return InjectedPlace(
        sample.item.frame,
        sample.item.pairs,
        placed.row,
        placed.column,
        placed.source.kind,
        placed.source.depth,
        placed.source.volume,
        dict(placed.source.shape),
        placed.extent_km2,
        placed.coherence,
        scores[0],
        tuple(scores[1:]),
    )


def _add_displacement(
    sample: _QuietSample, added: npt.NDArray[np.float64], rng: np.random.Generator
) -> Mapping[str, torch.Tensor]:
    """Return the sample with a phase added to every interferogram; one that is repeated stays the same."""
    phase = sample.tensors["phase"].numpy().copy()
    coherence = sample.tensors["coherence"].numpy().copy()
    first: dict[str, int] = {}
    for step, pair in enumerate(sample.item.pairs):
        if (known := first.setdefault(pair, step)) != step:
            phase[step], coherence[step] = phase[known], coherence[known]
        else:
            phase[step], coherence[step] = inject_phase(phase[step], coherence[step], added, rng)
    changed = {"phase": torch.from_numpy(phase), "coherence": torch.from_numpy(coherence)}
    return {**sample.tensors, **changed}


def _read_samples(
    trained: TrainedModel, quiet: QuietWindows, items: Sequence[DatasetItem]
) -> Iterable[_QuietSample]:
    recipe = trained.recipe
    windows = WindowDataset(
        items,
        quiet.stores,
        size=recipe.size,
        atmosphere=recipe.atmosphere != "none",
        threads=torch.get_num_threads(),
    )
    for index, item in enumerate(items):
        tensors = windows[index]
        data = (tensors["phase"].numpy() != 0).any(axis=0) & tensors["inside"].numpy()
        yield _QuietSample(item, tensors, data)


def _read_geometry(reader: WindowReader, window: tuple[int, int], size: int) -> RadarGeometry:
    look = None
    if all(reader.has_variable(name) for name in _LOOK_VARIABLES):
        look = np.stack(
            [reader.read(name, None, *window, np.empty((size, size), np.float32)) for name in _LOOK_VARIABLES]
        )
    return read_radar_geometry(reader.frame, reader.attributes, look)


def _score_windows(trained: TrainedModel, samples: Sequence[Mapping[str, torch.Tensor]]) -> list[float]:
    """Return the score of each window, by which alarms are raised."""
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    probability = trained.predict_probabilities(batch)
    if trained.recipe.task == "segmentation":
        counted = count_histograms_on_device(probability, expand_on_device(batch, trained.device))
        return [float(value) for value in item_probability(counted["data"])]
    return [float(value) for value in probability.cpu().numpy()]


def _batch_size(trained: TrainedModel) -> int:
    return max(1, min(32, _BATCH_PIXELS // (trained.recipe.size**2 * trained.recipe.steps)))
