"""Adding sources to quiet interferograms of the test part and scoring a model on them."""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hephaestus_baselines.data.buried_sources import SOURCE_KINDS, draw_source
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.detectability.detectability_report import DetectabilityReport, InjectedPlace
from hephaestus_baselines.detectability.detection_limits import (
    DetectionCurve,
    threshold_of_false_alarms,
    trace_detection_curve,
)
from hephaestus_baselines.detectability.phase_injection import RadarGeometry, inject_phase
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

#: Largest displacements in line of sight that are tried, metres: a tenth of a fringe to eleven.
DISPLACEMENTS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
#: At most this many quiet windows of the validation part set the threshold, evenly spaced.
_MAX_VALIDATION_WINDOWS = 4000
#: Windows that are tried for each wanted place, since some have hardly any data.
_TRIES = 10
_BATCH_PIXELS = 1 << 22
_LOOK_VARIABLES = ("look_east", "look_north", "look_up")
#: Names of the thirds of extent and coherence.
_THIRDS = ("lower", "middle", "upper")


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
    known = _evenly_spaced(quiet.items["validation"], _MAX_VALIDATION_WINDOWS)
    scores = _score_quiet_windows(trained, quiet, known, listener)
    threshold = threshold_of_false_alarms(scores, false_alarms)
    unstated = _find_unstated_geometry(quiet)
    if len(unstated) == len({item.frame for item in quiet.items["test"]}):
        raise HephaestusError(next(iter(unstated.values())))
    for problem in unstated.values():
        log.warning("%s; the frame is left out", problem)
    injected = list(_score_places(trained, quiet, places, seed, listener, set(unstated)))
    if not injected:
        raise HephaestusError(
            "no quiet window of the test part has enough data for a source; build further frames or dates"
        )
    fringe = float(str(quiet.attributes[injected[0].frame]["radar_wavelength_m"])) / 2
    alarmed = np.array([place.quiet_score > threshold for place in injected])

    def curve(chosen: Sequence[InjectedPlace]) -> DetectionCurve:
        return _trace_curve(chosen, threshold, fringe, seed)

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
        all=curve(injected),
        by_frame=_trace_groups(injected, lambda place: place.frame, curve),
        by_kind=_trace_groups(injected, lambda place: place.kind, curve),
        by_extent=_trace_thirds(injected, [place.extent_km2 for place in injected], "km²", curve),
        by_coherence=_trace_thirds(injected, [place.coherence for place in injected], "", curve),
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
        drawn = [items[index] for index in rng.integers(len(items), size=_TRIES * places).tolist()]
        found = 0
        for sample in _read_samples(trained, quiet, drawn):
            if found == places:
                break
            kind = SOURCE_KINDS[found % len(SOURCE_KINDS)]
            assert sample.item.tile is not None
            window = sample.item.tile.row, sample.item.tile.column
            pixel = draw_pixel(sample.data, window, rng)
            if sample.data_share < MIN_DATA_SHARE or pixel is None:
                continue
            geometry = _read_geometry(reader, window, trained.recipe.size)
            placed = place_source(
                draw_source(kind, rng).scaled(float(rng.choice([-1, 1]))),
                window,
                pixel,
                quiet.grids[frame],
                geometry,
                sample.data,
                sample.tensors["coherence"].numpy(),
            )
            if placed is None:
                continue
            found += 1
            listener.advance(stage)
            yield _score_place(trained, sample, placed, geometry, rng)


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


def _evenly_spaced(items: Sequence[DatasetItem], most: int) -> list[DatasetItem]:
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]


def _trace_curve(
    places: Sequence[InjectedPlace], threshold: float, fringe: float, seed: int
) -> DetectionCurve:
    names = [(place.frame, place.pairs[0][:8]) for place in places]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return trace_detection_curve(
        DISPLACEMENTS,
        np.array([[score > threshold for score in place.scores] for place in places]),
        np.array([place.quiet_score > threshold for place in places]),
        np.array([numbers[name] for name in names]),
        fringe,
        seed=seed,
    )


def _trace_groups(
    places: Sequence[InjectedPlace],
    name: Callable[[InjectedPlace], str],
    curve: Callable[[Sequence[InjectedPlace]], DetectionCurve],
) -> dict[str, DetectionCurve]:
    groups: dict[str, list[InjectedPlace]] = defaultdict(list)
    for place in places:
        groups[name(place)].append(place)
    return {key: curve(groups[key]) for key in sorted(groups)}


def _trace_thirds(
    places: Sequence[InjectedPlace],
    values: Sequence[float],
    unit: str,
    curve: Callable[[Sequence[InjectedPlace]], DetectionCurve],
) -> dict[str, DetectionCurve]:
    """Return the curves of the places with the lowest, middle and highest third of a value."""
    order = np.argsort(values, kind="stable")
    thirds = {}
    for name, part in zip(_THIRDS, np.array_split(order, len(_THIRDS)), strict=True):
        if len(part):
            low, high = (
                np.format_float_positional(values[place], precision=2, fractional=False, trim="-")
                for place in (part[0], part[-1])
            )
            thirds[f"{name}: {low}-{high} {unit}".strip()] = curve([places[index] for index in part])
    return thirds
