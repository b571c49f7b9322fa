"""Scene of one simulated frame: terrain, acquisitions and the interferograms formed from them.

The phase of an acquisition is the sum of the atmospheric delay and the displacement by the deformation
sources. An interferogram is the difference of two acquisitions, with decorrelation noise added and the
phase wrapped. All random numbers depend on the seed and on names only, so every product has the same
content whatever the order of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.concurrency import make_array_cache
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world import terrain
from hephaestus_build.simulation.world.acquisition_schedule import form_pairs
from hephaestus_build.simulation.world.coarse_grid import CoarseGrid
from hephaestus_build.simulation.world.deformation_models import line_of_sight
from hephaestus_build.simulation.world.deformation_sources import DeformationSource
from hephaestus_build.simulation.world.frame_catalog import FrameSpec
from hephaestus_build.simulation.world.random_fields import fractal_field, random_stream
from hephaestus_build.simulation.world.weather import DRY_DELAY_PER_PASCAL, PRESSURE_SCALE_HEIGHT, Weather

#: Radar wavelength of Sentinel-1, metres.
WAVELENGTH = 0.0554658
#: Two-way phase of one metre of path, radians.
RADIANS_PER_METRE = 4 * np.pi / WAVELENGTH
#: Independent looks per pixel after multilooking and filtering; with the coherence they set the phase noise.
EFFECTIVE_LOOKS = 14
#: Slope towards the satellite above which a pixel counts as layover and is masked, degrees.
LAYOVER_SLOPE = 38.0
#: Largest float32 below pi: wrapped phase stays inside [-pi, pi].
_PI = np.nextafter(np.float32(np.pi), np.float32(0))
#: Node spacing of the deformation field in metres (its sources lie deeper than that), and the largest number
#: of nodes per side of the deformation and turbulence fields. Pixels between nodes are interpolated.
_NODE_SPACING, _MAX_NODES = 250.0, 750


@dataclass(frozen=True)
class SimulatedInterferogram:
    """One interferogram on the frame's grid.

    Attributes
    ----------
    phase : numpy.ndarray
        Wrapped phase, float32, radians in [-pi, pi]; exactly 0 means no data.
    coherence : numpy.ndarray
        255 times the coherence, uint8; 0 means no data.
    unwrapped : numpy.ndarray
        Unwrapped phase, float32, radians; 0 means no data. Wraps to `phase`.
    """

    phase: np.ndarray
    coherence: np.ndarray
    unwrapped: np.ndarray


class FrameScene:
    """Physical scene of one frame.

    Parameters
    ----------
    place : FrameSpec
        Description of the frame.
    weather : Weather
        Atmosphere of the world.
    epochs : sequence of datetime.date
        Acquisition dates, sorted.
    seed : int
        Seed of the world.
    size : str
        Key of ``place.shapes``.

    Attributes
    ----------
    frame, grid : Frame, Grid
        The frame's id and its pixel grid.
    epochs, pairs : tuple
        Acquisition dates, and the pairs formed from them.
    coarse_grid : CoarseGrid
        Nodes at which the deformation is computed.
    """

    def __init__(
        self, place: FrameSpec, weather: Weather, epochs: Sequence[date], seed: int, size: str
    ) -> None:
        self.spec = place
        self.frame = Frame(place.id)
        self.weather = weather
        self.epochs = tuple(epochs)
        self.pairs = form_pairs(self.epochs)
        self.seed = seed
        rows, columns = place.shapes[size]
        self.grid = Grid(
            columns,
            rows,
            round(place.longitude - columns * place.pixel_size / 2, 3) + place.corner_offset[0],
            round(place.latitude + rows * place.pixel_size / 2, 3) + place.corner_offset[1],
            place.pixel_size,
            place.pixel_size,
        )
        self.coarse_grid = CoarseGrid.with_spacing(self.grid, _NODE_SPACING, _MAX_NODES)
        self._turbulence_grid = CoarseGrid.with_spacing(self.grid, 0, _MAX_NODES)
        self._cache = make_array_cache(320 << 20)

    def _cached(self, key: tuple[object, ...], compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return an array from the cache, read-only; compute it first if it is not there."""

        def compute_read_only() -> npt.NDArray[Any]:
            array = compute()
            array.setflags(write=False)
            return array

        return self._cache.get_or_compute(key, compute_read_only)

    # terrain

    @cached_property
    def height(self) -> npt.NDArray[np.float32]:
        """Terrain heights, float32 (rows, columns), metres; 0 is sea."""
        return terrain.terrain_heights(self.grid, self.spec.terrain, self.seed, self.frame.id)

    @cached_property
    def vegetation(self) -> npt.NDArray[np.float32]:
        """Vegetation cover, float32 (rows, columns), 0 to 1."""
        return terrain.vegetation_cover(self.grid, self.height, self.seed, self.frame.id)

    @cached_property
    def line_of_sight(self) -> npt.NDArray[np.float32]:
        """Unit vector to the satellite, float32 (3, 1, columns); it varies from near to far range."""
        near, far = self.spec.incidence
        across = np.linspace(0, 1, self.grid.width)[None, :]
        if self.frame.direction == "D":
            across = 1 - across
        return line_of_sight(near + (far - near) * across, self.spec.heading)

    @cached_property
    def valid_mask(self) -> npt.NDArray[np.bool]:
        """Pixels with data, bool: land inside the slanted swath and outside layover."""
        rows = np.linspace(0, 1, self.grid.height, dtype=np.float32)[:, None]
        columns = np.linspace(0, 1, self.grid.width, dtype=np.float32)[None, :]
        slant = 0.05 * (rows if self.frame.direction == "A" else 1 - rows)
        bursts = np.floor(columns * 3) / 3  # the three swaths start and end at different rows
        inside = (columns > 0.01 + slant) & (columns < 0.94 + slant)
        inside &= (rows > 0.01 + 0.03 * bursts) & (rows < 0.96 + 0.03 * bursts)
        laid_over = terrain.slope_to_satellite(self.height, self.grid, self.line_of_sight) > LAYOVER_SLOPE
        return np.asarray(inside & (self.height > 0) & ~laid_over)

    # acquisitions

    def acquisition_time(self, day: date) -> datetime:
        """Return the acquisition time on `day`, UTC (center_time counts from midnight)."""
        return datetime(day.year, day.month, day.day) + self.spec.center_time

    def perpendicular_baseline(self, day: date) -> float:
        """Return the perpendicular baseline of an acquisition relative to the first one, metres."""
        if day == self.epochs[0]:
            return 0.0
        return round(float(random_stream(self.seed, self.frame, "baseline", day).normal(0, 55)), 4)

    def slant_delay(self, day: date, time: datetime | None = None) -> npt.NDArray[np.float32]:
        """Return the slant delay of a weather model as GACOS and ICAMS give it: without turbulence.

        Parameters
        ----------
        day : datetime.date
            The acquisition.
        time : datetime.datetime, optional
            Time of the weather, UTC; that of the acquisition by default.

        Returns
        -------
        numpy.ndarray
            float32 (rows, columns), rad of two-way phase; NaN for no data.
        """
        zenith = self.weather.zenith_delay(
            time or self.acquisition_time(day), self.height, self.grid.latitudes, self.grid.longitudes
        )
        # the constant that the weather leaves out, which falls with height as the pressure does
        zenith += np.float32(DRY_DELAY_PER_PASCAL * 101_325) * np.exp(
            self.height * np.float32(-1 / PRESSURE_SCALE_HEIGHT)
        )
        zenith *= np.float32(RADIANS_PER_METRE)
        zenith /= self.line_of_sight[2]
        return np.where(self.valid_mask, zenith, np.float32(np.nan))

    def zenith_delay(self, day: date) -> npt.NDArray[np.float32]:
        """Return the zenith delay of an acquisition, float32, metres, up to a constant."""
        return self._cached(("delay", day), lambda: self.stratified_delay(day) + self.turbulent_delay(day))

    def stratified_delay(self, day: date, step: int = 1) -> npt.NDArray[np.float32]:
        """Return the delay computed from weather and height at every `step`-th pixel, float32, metres."""
        if step == 1:  # large, and already cached as part of the total delay
            return self._stratified_delay(day, step)
        return self._cached(("stratified", day, step), lambda: self._stratified_delay(day, step))

    def _stratified_delay(self, day: date, step: int) -> np.ndarray:
        latitudes, longitudes = self.grid.latitudes[::step], self.grid.longitudes[::step]
        return self.weather.zenith_delay(
            self.acquisition_time(day), self.height[::step, ::step], latitudes, longitudes
        )

    def turbulent_delay(self, day: date, step: int = 1) -> npt.NDArray[Any]:
        """Return the turbulent delay, metres: a fractal field that is stronger in moister air."""
        return self._turbulence_grid.interpolate(
            self._cached(("eddies", day), lambda: self._turbulence(day)), step
        )

    def _turbulence(self, day: date) -> np.ndarray:
        row, column = self.grid.height // 2, self.grid.width // 2
        middle = self.grid.latitudes[row : row + 1], self.grid.longitudes[column : column + 1]
        vapour = float(self.weather.era5_fields(self.acquisition_time(day), *middle)[0, 0, 0])
        eddies = fractal_field(
            self._turbulence_grid.shape, 3.07, random_stream(self.seed, self.frame, "turbulence", day)
        )
        eddies *= np.float32(0.0035 * np.sqrt(vapour / 15))
        return eddies

    # deformation

    def active_sources(self, pair: Pair) -> dict[DeformationSource, float]:
        """Return the sources that moved between the two dates, with their growth in mean episodes."""
        moved = {source: source.growth_between(*pair.dates, self.seed) for source in self.spec.sources}
        return {source: growth for source, growth in moved.items() if abs(growth) > 1e-3}

    def source_displacement(self, source: DeformationSource) -> npt.NDArray[np.float32]:
        """Return the displacement towards the satellite of one mean episode, float32, metres.

        The values are at the nodes of :attr:`coarse_grid`; pixels between them are interpolated.
        """
        return self._cached(("source", source.name), lambda: self._node_displacement(source))

    def _node_displacement(self, source: DeformationSource) -> np.ndarray:
        nodes = self.coarse_grid
        latitudes = self.grid.north - (nodes.rows + 0.5) * self.grid.dy
        longitudes = self.grid.west + (nodes.columns + 0.5) * self.grid.dx
        movement = source.displacement(latitudes, longitudes)
        sight = self.line_of_sight[:, :, np.minimum(nodes.columns, self.grid.width - 1)]
        return np.asarray(np.einsum("knm,knm->nm", movement, sight), dtype=np.float32)

    def displacement(self, pair: Pair) -> npt.NDArray[np.float32]:
        """Return the displacement towards the satellite between the dates of a pair, float32, metres."""
        total = np.zeros(self.coarse_grid.shape, np.float32)
        for source, growth in self.active_sources(pair).items():
            total += np.float32(growth) * self.source_displacement(source)
        return self.coarse_grid.interpolate(total)

    # interferogram

    def true_coherence(self, pair: Pair, step: int = 1) -> npt.NDArray[np.float32]:
        """Return the true coherence, without estimation bias, float32, 0 to 1, at every `step`-th pixel."""
        days = (pair.secondary - pair.primary).days
        lasting, passing, lifetime = self._decorrelation(step)
        geometry = max(
            0.2,
            1
            - abs(self.perpendicular_baseline(pair.primary) - self.perpendicular_baseline(pair.secondary))
            / 1200,
        )
        snow = 0.55 if self.spec.latitude > 60 and pair.secondary.month in (11, 12, 1, 2, 3) else 1.0
        decay = np.exp(-np.float32(days) / lifetime)
        return np.asarray((lasting + passing * decay) * np.float32(geometry * snow), np.float32)

    def _decorrelation(self, step: int) -> npt.NDArray[np.float32]:
        """Return lasting coherence, passing coherence and its lifetime in days, at every `step`-th pixel."""

        def compute() -> npt.NDArray[np.float32]:
            cover = self.vegetation[::step, ::step]
            fresh = 0.95 - 0.3 * cover
            lasting = 0.32 * (1 - cover) ** 2
            return np.stack([lasting, fresh - lasting, 14 + 420 * (1 - cover) ** 3])

        return self._cached(("decorrelation", step), compute)

    def interferogram_defect(self, pair: Pair) -> str:
        """Return the defect of the interferogram, such as ``orbital``, or an empty string."""
        if pair not in self.pairs:
            return ""
        return self.spec.defects.get(self.pairs.index(pair) % 29, "")

    def noise_free_phase(self, pair: Pair) -> npt.NDArray[np.float32]:
        """Return the unwrapped phase without noise and defects, float32, radians."""
        first, second = (self.zenith_delay(day) for day in pair.dates)
        phase = second - first
        phase /= self.line_of_sight[2]
        phase -= self.displacement(pair)
        phase *= np.float32(RADIANS_PER_METRE)
        return phase

    def simulate_interferogram(self, pair: Pair, revision: int = 0) -> SimulatedInterferogram:
        """Return the interferogram of `pair`.

        Parameters
        ----------
        pair : Pair
            Any two of :attr:`epochs`.
        revision : int
            Number of times the pair was reprocessed: each revision has the same signal and different noise.
        """
        random = random_stream(self.seed, self.frame, pair, "noise", revision)
        coherence = self.true_coherence(pair)
        phase = self.noise_free_phase(pair)
        valid = self.valid_mask
        blemish = self.interferogram_defect(pair)
        if blemish:
            phase, coherence, valid = self._apply_defect(blemish, phase, coherence, valid, random)
        # coherence plus circular noise gives both the phase noise and the bias of the estimated coherence
        noise = random.standard_normal((2, *self.grid.shape), dtype=np.float32)
        noise *= np.sqrt((1 - coherence**2) / np.float32(2 * EFFECTIVE_LOOKS))
        real, imaginary = noise
        real += coherence
        phase += np.arctan2(imaginary, real)
        estimate = np.hypot(real, imaginary, out=real)
        turns = np.rint(phase * np.float32(0.5 / np.pi))
        wrapped = np.clip(phase - turns * np.float32(2 * np.pi), -_PI, _PI)
        wrapped[wrapped == 0] = np.float32(1e-6)  # exactly 0 means no data
        counts = np.clip(np.rint(estimate * 255), 1, 248).astype(np.uint8)
        return SimulatedInterferogram(
            np.where(valid, wrapped, np.float32(0)),
            np.where(valid, counts, np.uint8(0)),
            np.where(valid, wrapped + turns * np.float32(2 * np.pi), np.float32(0)),
        )

    def _apply_defect(
        self,
        blemish: str,
        phase: np.ndarray,
        coherence: np.ndarray,
        valid: np.ndarray,
        random: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return phase, coherence and valid pixels after applying one defect."""
        rows = np.linspace(0, 1, self.grid.height, dtype=np.float32)[:, None]
        columns = np.linspace(0, 1, self.grid.width, dtype=np.float32)[None, :]
        if blemish == "orbital":
            phase = phase + np.float32(2 * np.pi) * (2.5 * columns + 1.2 * rows)
        elif blemish.startswith("processing"):  # phase jumps between bursts
            phase = phase + np.float32(1.9) * (np.floor(rows * 5) % 2)
        elif blemish == "corrupted":
            bad = random.random((self.grid.height, 1)) < 0.45
            coherence = np.where(bad, np.float32(0.02), coherence)
        elif blemish == "no info":
            valid = valid & (rows > 0.45) & (rows < 0.5)
        elif blemish == "artifacts":
            phase = phase + np.where((columns * 40) % 4 < 0.25, np.float32(2.2), np.float32(0))
        elif blemish == "glacier":
            ice = np.exp(-((columns - 0.3) ** 2 + (rows - 0.2) ** 2) / np.float32(0.02))
            phase = phase + np.float32(14) * ice
        return phase.astype(np.float32, copy=False), coherence, valid
