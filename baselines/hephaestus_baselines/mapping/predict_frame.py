"""Probability maps of whole frames, predicted in overlapping tiles that are blended."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import xarray as xr

from hephaestus_baselines.config.tasks import ScoringUnit
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.pinned_cubes import cube_generation_number, try_lock_folder
from hephaestus_baselines.evaluation.result_schema import RunResult, Threshold
from hephaestus_baselines.mapping.map_alarms import MapAlarm, find_alarm
from hephaestus_baselines.mapping.map_store import (
    MapStore,
    ProbabilityMap,
    map_name,
    require_cube_grid,
    write_map_figure,
    write_map_geotiff,
)
from hephaestus_baselines.training.exported_model import hash_model, require_model
from hephaestus_build import __version__
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.granules import Granule, GranuleKey
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import Generation, pinned_store
from hephaestus_build.dataset.samples import Sample, make_series
from hephaestus_build.dataset.tiling import Tile

if TYPE_CHECKING:
    from hephaestus_baselines.config.run_config import Recipe
    from hephaestus_baselines.training.inference import TrainedModel

#: Fraction of a tile's side that overlaps the next tile.
TILE_OVERLAP = 0.25
#: Maximum number of pixels per batch, regardless of the batch size in the checkpoint.
_BATCH_PIXELS = 1 << 22
_LEFTOVER_PATTERN = re.compile(r"\..+\.(tif|png)\.[0-9a-f]{12}")


def make_overlapping_tiles(
    shape: tuple[int, int], size: int, overlap: float = TILE_OVERLAP
) -> tuple[Tile, ...]:
    """Cover a frame with tiles that overlap by at least a fraction of their side.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frame.
    size : int
        Rows and columns of a tile; a smaller frame is covered by one tile that extends beyond it.
    overlap : float
        Minimum overlap as a fraction of the side, below 1.

    Returns
    -------
    tuple of Tile
        Tiles row by row. Their cores meet in the middle of each overlap and cover every pixel exactly once.
    """
    rows, columns = (_tile_cores(extent, size, int(size * overlap)) for extent in shape)
    return tuple(
        Tile(row, column, size, (top, bottom, left, right))
        for row, top, bottom in rows
        for column, left, right in columns
    )


def _tile_cores(extent: int, size: int, shared: int) -> list[tuple[int, int, int]]:
    """Return the start of each tile along one axis, and the first and last + 1 of its core."""
    count = max(1, -(-(extent - shared) // (size - shared)))
    room = max(0, extent - size)
    starts = [round(index * room / max(1, count - 1)) for index in range(count)]
    ends = [(start + size + after) // 2 for start, after in pairwise(starts)] + [extent]
    return list(zip(starts, [0, *ends[:-1]], ends, strict=True))


class TileMosaic:
    """Mosaic of tiles over a whole frame.

    Weights decrease towards the edges of a tile, where the model has the least context; this avoids visible
    seams.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frame.
    size : int
        Rows and columns of the tiles.
    overlap : float
        Fraction of the side over which a tile's weight rises from its edge.
    """

    def __init__(self, shape: tuple[int, int], size: int, overlap: float = TILE_OVERLAP) -> None:
        self._sum, self._weight = np.zeros(shape, "f4"), np.zeros(shape, "f4")
        away = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1
        ramp = np.minimum(1.0, away / max(1.0, size * overlap))
        self._ramp = np.outer(ramp, ramp).astype("f4")

    def blend_tile(self, tile: Tile, probability: npt.NDArray[Any]) -> None:
        """Add the probabilities of a tile's pixels, shape (size, size)."""
        rows, columns = self._sum.shape
        place = np.s_[tile.row : tile.row + tile.size, tile.column : tile.column + tile.size]
        inside = np.s_[: rows - tile.row, : columns - tile.column]
        self._sum[place] += (probability * self._ramp)[inside]
        self._weight[place] += self._ramp[inside]

    def fill_core(self, tile: Tile, probability: float) -> None:
        """Set the core of a tile to a single probability."""
        top, bottom, left, right = tile.core
        self._sum[top:bottom, left:right] = probability
        self._weight[top:bottom, left:right] = 1

    def to_array(self) -> npt.NDArray[np.float32]:
        """Return the blended probabilities, float32; NaN where no tile was added."""
        return np.divide(self._sum, self._weight, out=np.full_like(self._sum, np.nan), where=self._weight > 0)


@dataclass(frozen=True)
class WrittenMap:
    """One map and its files.

    Attributes
    ----------
    frame : Frame
        The frame.
    pairs : tuple of Pair
        What the model saw: one interferogram, or the series of one primary date.
    geotiff, picture : pathlib.Path or None
        None if the map already existed.
    highest : float
        Maximum probability of the map; NaN if the map already existed or has no data.
    alarm : MapAlarm or None
        None if the map already existed, is below the threshold of interferograms, or none is known.
    """

    frame: Frame
    pairs: tuple[Pair, ...]
    geotiff: Path | None = None
    picture: Path | None = None
    highest: float = float("nan")
    alarm: MapAlarm | None = None

    @property
    def name(self) -> str:
        """Name of the map, after its pairs."""
        return map_name(self.pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the map as JSON values."""
        series = {"series": [pair.name for pair in self.pairs]} if len(self.pairs) > 1 else {}
        return {
            "frame": self.frame.id,
            "pair": self.pairs[-1].name,
            **series,
            "geotiff": self.geotiff,
            "picture": self.picture,
            "highest": self.highest,
            "alarm": self.alarm and self.alarm.to_json(),
        }


@dataclass(frozen=True)
class PairFilter:
    """Selection of a frame's interferograms.

    Attributes
    ----------
    pairs : tuple of Pair
        Selected pairs; empty for all stored ones. Models of series get series of the selected pairs.
    since : datetime.date or None
        Exclude pairs whose primary date is before this day.
    only_new : bool
        Exclude maps that already exist for this model and the same images.
    """

    pairs: tuple[Pair, ...] = ()
    since: date | None = None
    only_new: bool = False


def predict_frame_maps(
    checkpoint: Path,
    cube: Path,
    folder: Path,
    wanted: PairFilter | None = None,
    *,
    device: str = "auto",
    unsealed: bool = False,
    unchecked: bool = False,
    needs_threshold: bool = False,
    listener: ProgressListener | None = None,
) -> Iterator[WrittenMap]:
    """Write the maps of a frame to ``<folder>/<frame>.zarr``, and a GeoTIFF and a picture of each.

    Parameters
    ----------
    checkpoint : pathlib.Path
        ``best.ckpt`` of a run, or the folder of an exported model.
    cube : pathlib.Path
        The frame's cube, opened read-only and pinned to its generation.
    folder : pathlib.Path
        Folder of the maps of all frames.
    wanted : PairFilter, optional
        Pairs to predict; by default all stored ones.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    unsealed : bool
        Whether to accept a checkpoint without a seal.
    unchecked : bool
        Whether to skip comparing cube data with the hashes that were published with it.
    needs_threshold : bool
        Whether it is an error if the threshold of interferograms is not known.
    listener : ProgressListener, optional
        Receives progress events.

    Yields
    ------
    WrittenMap
        Each map as soon as it is written.

    Raises
    ------
    HephaestusError
        If the cube or the checkpoint cannot be read, data is damaged, or another process is writing these
        maps.
    UsageError
        If a pair is not stored, or existing maps are of another model or grid.
    """
    from hephaestus_baselines.training.inference import load_deformation_model

    wanted, listener = wanted or PairFilter(), listener or NullListener()
    trained = load_deformation_model(require_model(checkpoint), device=device, unsealed=unsealed)
    recipe = trained.recipe
    alarm_from = read_threshold(checkpoint, recipe, "interferograms")
    if needs_threshold and alarm_from is None:
        raise UsageError(
            f"no threshold of alarms is known for {checkpoint}: it stands in result.json beside it; give "
            "best.ckpt in the folder of its finished run, or --model with an exported one"
        )
    whole = None if unchecked else CubeIntegrityChecker(listener=listener)
    if whole and (cube / "zarr.json").is_file():
        cube = pinned_store(cube)  # check the same generation that is read below
        whole.check_cube(cube, ())
    with open_pinned_cube(cube, chunks=None) as dataset:
        store = Path(dataset.encoding["source"])
        frame = Frame.parse(str(dataset.attrs["frame"]))
        groups = select_map_pairs(dataset, frame, wanted, recipe.steps)
        simulated = bool(dataset.attrs.get("simulated", False))
        about = {
            "title": f"probability of deformation in frame {frame}" + (" (simulated)" if simulated else ""),
            "frame": frame.id,
            **describe_model(trained, checkpoint),
            "simulated": simulated,
            "source": f"hephaestus-build {__version__}",
        }
        with try_lock_folder(folder / f".{frame}.lock") as ours:
            if not ours:
                raise HephaestusError(
                    f"{frame}: another process is writing its maps; try again when it has finished"
                )
            target = folder / frame.id
            if target.is_symlink():
                raise HephaestusError(
                    f"{target} is a symbolic link; remove it, maps are not written through links"
                )
            maps = MapStore(folder / f"{frame}.zarr", dataset, recipe.steps, about)
            maps.remove_leftovers()
            _remove_leftovers(target)
            units = _read_granules(store)
            images = {pairs: hash_images(units, pairs) for pairs in groups}
            todo = [pairs for pairs in groups if not (wanted.only_new and maps.has_map(pairs, images[pairs]))]
            if whole:
                whole.check_cube(store, {pair for pairs in todo for pair in pairs})
            listener.stage(f"maps of {frame}", len(todo))
            grid, threshold = require_cube_grid(dataset), read_threshold(checkpoint, recipe)
            tags = {key.upper(): str(value) for key, value in about.items()}
            try:
                for pairs in todo:
                    probability, phase = predict_pairs(trained, dataset, pairs)
                    made = ProbabilityMap(pairs, probability, images[pairs], cube_generation_number(store))
                    tif, png = (target / f"{made.name}.{ending}" for ending in ("tif", "png"))
                    write_map_geotiff(tif, made, grid, tags)
                    title = f"{frame}  {made.name}  {recipe.model}"
                    write_map_figure(png, made, phase, grid, title, threshold=threshold, simulated=simulated)
                    maps.write_map(made, publish=False)  # last: a map in the group always has its files
                    listener.advance(f"maps of {frame}")
                    highest = float(np.fmax.reduce(probability, axis=None))  # NaN if all are NaN
                    alarm = (
                        find_alarm(
                            frame,
                            pairs[-1].name,
                            probability,
                            grid,
                            threshold=alarm_from.value,
                            per_pixel=recipe.spec.per_pixel,
                            simulated=simulated,
                        )
                        if alarm_from
                        else None
                    )
                    yield WrittenMap(frame, pairs, tif, png, highest, alarm)
            finally:
                maps.publish_replacements()  # replace earlier maps all at once
            yield from (WrittenMap(frame, pairs) for pairs in groups if pairs not in todo)


def select_map_pairs(
    cube: xr.Dataset, frame: Frame, wanted: PairFilter, steps: int
) -> list[tuple[Pair, ...]]:
    """Return the pairs of each requested map, in order.

    Raises
    ------
    UsageError
        If a pair is not stored, or no pair is selected.
    """
    flags = cube["valid_date_pair"].transpose("primary_date", "secondary_date").to_numpy()
    first, second = (
        cube[f"{axis}_date"].to_numpy().astype("datetime64[D]").tolist() for axis in ("primary", "secondary")
    )
    stored = sorted(Pair(first[row], second[column]) for row, column in np.argwhere(flags).tolist())
    if absent := [pair for pair in wanted.pairs if pair not in stored]:
        raise UsageError(
            f"{frame}: no interferogram of {absent[0]} is stored; `hephaestus inspect {frame}` shows what is"
        )
    chosen = [
        pair
        for pair in (sorted(set(wanted.pairs)) or stored)
        if wanted.since is None or pair.primary >= wanted.since
    ]
    if not chosen:
        raise UsageError(
            f"{frame}: no interferogram begins on {wanted.since} or later; the last one begins on "
            f"{stored[-1].primary}"
            if stored
            else f"{frame}: no interferogram is stored"
        )
    if steps == 1:
        return [(pair,) for pair in chosen]
    series = make_series((Sample(frame, pair, False) for pair in chosen), length=steps)
    return [tuple(sample.pair for sample in one.members) for one in series]


def _remove_leftovers(folder: Path) -> None:
    """Remove partially written GeoTIFFs and pictures of a killed process."""
    for pattern in (".*.tif.*", ".*.png.*"):
        for left in folder.glob(pattern):
            if _LEFTOVER_PATTERN.fullmatch(left.name):
                left.unlink(missing_ok=True)


def hash_images(units: Mapping[str, Granule], pairs: Sequence[Pair]) -> int:
    """Return a hash of the content of interferograms, from the object hashes that the cube records."""
    stored = [msgspec.to_builtins(units[GranuleKey.of_pair(pair)].objects) for pair in pairs if units]
    text = json.dumps([[pair.name for pair in pairs], stored], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _read_granules(store: Path) -> Mapping[str, Granule]:
    """Return the granules of a cube; empty for a copy without its provenance."""
    return Generation.from_path(store).read_inventory().granules if (store / PROVENANCE).exists() else {}


def read_threshold(checkpoint: Path, recipe: Recipe, unit: ScoringUnit | None = None) -> Threshold | None:
    """Return the threshold that a run chose for a unit, by default its first one.

    None unless the run's result is beside the checkpoint and has the unit.
    """
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "result.json"
    if not path.is_file():
        return None
    try:
        result = RunResult.read(path)
    except HephaestusError:
        return None  # the maps do not need it; `benchmark tables` says that it is damaged
    if result.key != recipe.key:
        return None
    scored = result.assessment.units.get(unit or recipe.spec.units[0])
    return scored.threshold if scored else None


def describe_model(trained: TrainedModel, checkpoint: Path) -> dict[str, str | bool]:
    """Return the metadata of a model that is stored with its predictions."""
    return {
        "model": trained.recipe.key,
        "task": trained.recipe.task,
        "checkpoint": hash_model(checkpoint),
        "learnt_from_simulated": trained.trained_on_simulated,
    }


def predict_pairs(
    trained: TrainedModel, cube: xr.Dataset, pairs: Sequence[Pair]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Predict the probability of deformation in each pixel of a frame; also return the last pair's phase.

    Parameters
    ----------
    trained : TrainedModel
        The model.
    cube : xarray.Dataset
        The frame's cube, pinned to its generation and opened without dask.
    pairs : sequence of Pair
        One pair, or the pairs of a series.

    Returns
    -------
    probability : numpy.ndarray
        float32, the shape of the frame's images; NaN where no interferogram has data.
    phase : numpy.ndarray
        Wrapped phase of the last pair, rad, the same shape; 0 where there is none.
    """
    phases = [_read_phase(cube, pair) for pair in dict.fromkeys(pairs)]
    seen = np.logical_or.reduce([phase != 0 for phase in phases])
    frame, store = Frame.parse(str(cube.attrs["frame"])), Path(cube.encoding["source"])
    probability = _predict_tiles(trained, frame, pairs, store, seen.shape)
    return np.where(seen, probability, np.float32("nan")), phases[-1]


def _predict_tiles(
    trained: TrainedModel, frame: Frame, pairs: Sequence[Pair], store: Path, shape: tuple[int, int]
) -> np.ndarray:
    """Return a model's probabilities for a whole frame, float32 of `shape`, including pixels without data."""
    import torch

    from hephaestus_baselines.data.dataset_items import DatasetItem
    from hephaestus_baselines.data.window_dataset import WindowDataset

    recipe = trained.recipe
    tiles = make_overlapping_tiles(shape, recipe.size)
    members = tuple(Sample(frame, pair, False) for pair in pairs)
    windows = WindowDataset(
        [DatasetItem(members, False, tile) for tile in tiles],
        {frame.id: store},
        size=recipe.size,
        atmosphere=recipe.atmosphere != "none",
    )
    mosaic = TileMosaic(shape, recipe.size)
    with torch.inference_mode():
        most = max(1, _BATCH_PIXELS // (recipe.size**2 * recipe.steps))
        for batch in torch.utils.data.DataLoader(windows, batch_size=min(recipe.samples_per_step, most)):
            answers = trained.predict_probabilities(batch).float().cpu().numpy()
            for index, answer in zip(batch["index"].tolist(), answers, strict=True):
                if recipe.task == "segmentation":
                    mosaic.blend_tile(tiles[index], answer)
                else:
                    mosaic.fill_core(tiles[index], float(answer))
    return mosaic.to_array()


def _read_phase(cube: xr.Dataset, pair: Pair) -> np.ndarray:
    days = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
    return np.asarray(cube["insar_difference"].sel(days).to_numpy())
