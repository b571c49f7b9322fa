"""Windows of simulated interferograms without end, each made from a seed when it is asked for.

Two windows that follow each other show one place: first with a source of deformation that acts between the
dates, then without one, on other dates. Places, terrain, weather and sources are drawn again for each two
windows, anywhere on Earth, so that they share nothing with a cube. The physics is that of the simulated
archive (:mod:`hephaestus_build.simulation.world`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from hephaestus_baselines.config.channels import ATMOSPHERE_FIELDS
from hephaestus_baselines.data.buried_sources import SOURCE_KINDS, BuriedSource, draw_source
from hephaestus_baselines.data.window_dataset import draw_training_tile, locate_coarse_pixels, pixel_aspect
from hephaestus_build.core.era5_grid import ERA5_STEP
from hephaestus_build.core.frames import Pair
from hephaestus_build.simulation.world.annotator import DEFORMATION_THRESHOLD
from hephaestus_build.simulation.world.deformation_sources import ActivityHistory, DeformationSource
from hephaestus_build.simulation.world.frame_catalog import FrameSpec
from hephaestus_build.simulation.world.frame_scene import FrameScene
from hephaestus_build.simulation.world.terrain import SimulatedVolcano, TerrainSpec
from hephaestus_build.simulation.world.weather import Weather

#: Rows and columns of a place, in windows: some windows lie at the edge of the data.
_EXTENT = 1.4
#: Range of the largest displacement in line of sight, metres, drawn evenly in its logarithm.
_DISPLACEMENTS = (1.2 * DEFORMATION_THRESHOLD, 0.3)
#: Deformation counts if this share of its pixels is coherent and has data, as for the simulated experts.
_VISIBLE_SHARE, _VISIBLE_COHERENCE = 0.3, 0.2
#: Places that are tried for one whose deformation is visible; most are.
_TRIES = 20
#: Days between dates, the usual ones most often; period of a source that acts once, days.
_GAPS, _ONCE = (6, 12, 12, 12, 24, 36), 100_000
_ACTIVITIES = {"mogi": "Mogi", "dyke": "Dyke", "sill": "Sill", "spheroid": "Spheroid"}


class SimulatedWindows(Dataset[dict[str, torch.Tensor]]):
    """Map-style data set of `count` simulated windows; half of them show deformation.

    Parameters
    ----------
    count : int
        Number of windows.
    seed : int
        Seed; a window depends on nothing else but its index.
    size : int
        Rows and columns of a window.
    steps : int
        Interferograms of a window, which share their primary date.
    pixel_size : float
        Degrees.

    Notes
    -----
    An item is a dictionary as that of :class:`~hephaestus_baselines.data.window_dataset.WindowDataset`.
    """

    def __init__(
        self, count: int, seed: int, *, size: int, steps: int = 1, pixel_size: float = 0.001
    ) -> None:
        self.count, self.seed, self.size, self.steps, self.pixel_size = count, seed, size, steps, pixel_size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return a window: with deformation if `index` is even."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        for attempt in range(_TRIES):
            rng = np.random.default_rng((self.seed, index // 2, attempt))
            scene = _draw_scene(rng, int(self.size * _EXTENT), self.pixel_size, self.steps)
            shown = [_visible_deformation(scene, pair) for pair in _choose_pairs(scene, self.steps, 0)]
            if any(mask.any() for mask in shown):
                break
        mask = next((mask for mask in shown if mask.any()), shown[-1])
        pixels = np.argwhere(mask)
        pixel = tuple(pixels[rng.integers(len(pixels))].tolist()) if len(pixels) else None
        tile = draw_training_tile(scene.grid.shape, self.size, rng, pixel)
        pairs = _choose_pairs(scene, self.steps, index % 2)
        images = [scene.simulate_interferogram(pair) for pair in pairs]
        masks = shown if index % 2 == 0 else [np.zeros(scene.grid.shape, bool)] * self.steps
        height = np.where(scene.height > 0, scene.height, np.float32(0))
        sample: dict[str, npt.NDArray[Any]] = {
            "phase": np.stack([tile.read(image.phase) for image in images]),
            "coherence": np.stack([tile.read(image.coherence) for image in images]),
            "dem": tile.read(height.astype(np.float32)),
            "mask": np.stack([tile.read(mask) for mask in masks]).astype(np.uint8),
            "inside": tile.inside,
        }
        sample |= self._read_atmosphere(scene, pairs, tile.row, tile.column)
        return {
            **{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in sample.items()},
            "aspect": torch.tensor(pixel_aspect(scene.grid, tile), dtype=torch.float32),
            "label": torch.tensor(int(sample["mask"].any())),
            "weight": torch.tensor(1.0),
            "index": torch.tensor(index),
        }

    def _read_atmosphere(
        self, scene: FrameScene, pairs: tuple[Pair, ...], row: int, column: int
    ) -> dict[str, npt.NDArray[Any]]:
        """Return ERA5's fields on its own grid around the window, and the positions of pixels on it."""
        points = int((self.size - 1) * self.pixel_size / ERA5_STEP) + 3
        grid = scene.grid
        north = np.ceil(grid.north / ERA5_STEP) * ERA5_STEP
        west = np.floor(grid.west / ERA5_STEP) * ERA5_STEP
        count = int(max(grid.shape) * self.pixel_size / ERA5_STEP) + points + 2
        latitudes, longitudes = (
            north - ERA5_STEP * np.arange(count),
            west + ERA5_STEP * np.arange(count),
        )
        rows, first_row = locate_coarse_pixels(-grid.latitudes, -latitudes, row, self.size, points)
        columns, first_column = locate_coarse_pixels(grid.longitudes, longitudes, column, self.size, points)
        fields = np.stack(
            [
                scene.weather.era5_fields(
                    scene.acquisition_time(day),
                    latitudes[first_row : first_row + points],
                    longitudes[first_column : first_column + points],
                )
                for pair in pairs
                for day in pair.dates
            ]
        )
        shape = len(pairs), 2, len(ATMOSPHERE_FIELDS), points, points
        return {"atmosphere": fields.reshape(shape), "rows": rows, "columns": columns}


def _draw_scene(rng: np.random.Generator, extent: int, pixel_size: float, steps: int) -> FrameScene:
    """Return a place with one source, which acts between the first two of its dates."""
    longitude, latitude = float(rng.uniform(-179, 179)), float(rng.uniform(-58, 68))
    half = extent * pixel_size / 2

    def anywhere() -> tuple[float, float]:
        return longitude + half * float(rng.uniform(-1, 1)), latitude + half * float(rng.uniform(-1, 1))

    cones = tuple(
        SimulatedVolcano(*anywhere(), float(rng.uniform(300, 2500)), float(rng.uniform(2000, 7000)))
        for _ in range(int(rng.integers(1, 4)))
    )
    ascending, near = bool(rng.integers(2)), float(rng.uniform(29, 38))
    spec = FrameSpec(
        id=f"199{'A' if ascending else 'D'}_00000_000000",
        longitude=longitude,
        latitude=latitude,
        corner_offset=(0.0, 0.0),
        pixel_size=pixel_size,
        shapes={"window": (extent, extent)},
        heading=-12.0 if ascending else -168.0,
        incidence=(near, near + 8),
        center_time=timedelta(seconds=float(rng.uniform(0, 86_000))),
        day_offset=0,
        terrain=TerrainSpec(
            cones,
            relief=float(rng.uniform(40, 220)),
            base_height=float(rng.uniform(-60, 900)),
            tilt=float(rng.uniform(-600, 600)),
        ),
        sources=(),
        preview_era="linear",
        oddities=frozenset(),
    )
    gaps = rng.choice(_GAPS, size=2 * steps + 1)
    first = date(2015, 1, 1) + timedelta(days=int(rng.integers(3000)))
    days = [first + timedelta(days=int(day)) for day in (0, *np.cumsum(gaps))]
    seed = int(rng.integers(2**31))
    scene = FrameScene(spec, Weather(seed), days, seed, "window")
    source = draw_source(SOURCE_KINDS[int(rng.integers(len(SOURCE_KINDS)))], rng)
    wanted = float(np.exp(rng.uniform(*np.log(_DISPLACEMENTS)))) * float(rng.choice([-1, 1]))
    place, history = anywhere(), ActivityHistory(days[0], _ONCE, float((days[1] - days[0]).days))
    largest = float(np.abs(scene.source_displacement(_place_source("unit", source, place, history))).max())
    acting = _place_source("source", source.scaled(wanted / largest), place, history)
    scene.spec = replace(spec, sources=(acting,))
    return scene


def _place_source(
    name: str, source: BuriedSource, place: tuple[float, float], history: ActivityHistory
) -> DeformationSource:
    shape, parameters = source.shape, {"depth": source.depth, **source.shape}
    if source.kind in ("dyke", "sill"):
        parameters["opening"] = source.volume / (shape["length"] * shape["width"])
    else:
        parameters["volume"] = source.volume
    return DeformationSource(name, _ACTIVITIES[source.kind], *place, history, parameters)


def _choose_pairs(scene: FrameScene, steps: int, kind: int) -> tuple[Pair, ...]:
    """Return pairs of one primary date: 0, in which the source acts, or 1, later ones without it."""
    primary, *later = scene.epochs[kind * (steps + 1) : (kind + 1) * (steps + 1)]
    return tuple(Pair(primary, day) for day in later)


def _visible_deformation(scene: FrameScene, pair: Pair) -> npt.NDArray[np.bool]:
    """Return where an expert would see deformation; nowhere if most of it is hidden."""
    moved = np.abs(scene.displacement(pair)) >= DEFORMATION_THRESHOLD
    clear = scene.valid_mask & (scene.true_coherence(pair) > _VISIBLE_COHERENCE)
    hidden = not moved.any() or clear[moved].mean() < _VISIBLE_SHARE
    return np.zeros_like(moved) if hidden else moved
