"""One simulated frame: its land, its passes, and what an interferogram of two of them shows.

A pass sees the land through the delay of the air above it and moved by the sources below it; the
difference of two passes, wrapped and blurred by decorrelation, is the interferogram. All is a function of
the seed and of names, so the same pixel comes out whichever product is asked for first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

import numpy as np

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world import terrain
from hephaestus_build.simulation.world.acquisition_schedule import form_pairs
from hephaestus_build.simulation.world.array_cache import ArrayCache
from hephaestus_build.simulation.world.coarse_grid import CoarseGrid
from hephaestus_build.simulation.world.deformation_models import line_of_sight
from hephaestus_build.simulation.world.deformation_sources import DeformationSource
from hephaestus_build.simulation.world.frame_catalog import FrameSpec
from hephaestus_build.simulation.world.random_fields import fractal_field, random_stream
from hephaestus_build.simulation.world.weather import Weather

#: Sentinel-1's wavelength, metres.
WAVELENGTH = 0.0554658
#: Phase of one metre of path, there and back, radians.
RADIANS_PER_METRE = 4 * np.pi / WAVELENGTH
#: Independent looks of a pixel after multilooking and filtering: with coherence they give the noise.
EFFECTIVE_LOOKS = 14
#: Slope towards the satellite from which the ground is laid over and masked, degrees.
LAYOVER_SLOPE = 38.0
#: Largest float32 below pi: wrapped phase stays inside [-pi, pi].
_PI = np.nextafter(np.float32(np.pi), np.float32(0))
#: Deformation is computed so many metres apart (its sources lie deeper) and eddies at every pixel, but
#: neither at more than so many points a side; the rest is interpolated.
_NODE_SPACING, _MAX_NODES = 250.0, 750


@dataclass(frozen=True)
class SimulatedInterferogram:
    """What one interferogram shows, on the frame's grid.

    Attributes
    ----------
    phase : numpy.ndarray
        float32, radians in [-pi, pi], exact 0 = no data.
    coherence : numpy.ndarray
        uint8, 255 times coherence, 0 = no data.
    unwrapped : numpy.ndarray
        float32, radians, 0 = no data; wraps to `phase`.
    """

    phase: np.ndarray
    coherence: np.ndarray
    unwrapped: np.ndarray


class FrameScene:
    """One frame of the world.

    Parameters
    ----------
    place : FrameSpec
        What it is.
    weather : Weather
        The world's air.
    epochs : sequence of datetime.date
        Days of acquisition, sorted.
    seed : int
        Of the world.
    size : str
        Key of the place's shapes.

    Attributes
    ----------
    frame, grid : Frame, Grid
        What it is called and where its pixels lie.
    epochs, pairs : tuple
        Its days of acquisition, and the interferograms made of them.
    nodes : CoarseGrid
        Where its deformation is computed.
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
        self._cache = ArrayCache(320 << 20)

    # the ground

    @cached_property
    def height(self) -> np.ndarray:
        """Heights, float32 (rows, columns), metres; 0 is sea."""
        return terrain.terrain_heights(self.grid, self.spec.terrain, self.seed, self.frame.id)

    @cached_property
    def vegetation(self) -> np.ndarray:
        """How densely it is overgrown, float32, 0 to 1."""
        return terrain.vegetation_cover(self.grid, self.height, self.seed, self.frame.id)

    @cached_property
    def line_of_sight(self) -> np.ndarray:
        """Unit vector to the satellite, float32 (3, 1, columns): it changes from near to far range."""
        near, far = self.spec.incidence
        across = np.linspace(0, 1, self.grid.width)[None, :]
        if self.frame.direction == "D":
            across = 1 - across
        return line_of_sight(near + (far - near) * across, self.spec.heading)

    @cached_property
    def valid_mask(self) -> np.ndarray:
        """Where there is data, bool: land inside the slanted swath that is not laid over."""
        rows = np.linspace(0, 1, self.grid.height, dtype=np.float32)[:, None]
        columns = np.linspace(0, 1, self.grid.width, dtype=np.float32)[None, :]
        slant = 0.05 * (rows if self.frame.direction == "A" else 1 - rows)
        bursts = np.floor(columns * 3) / 3  # three swaths begin and end at different rows
        inside = (columns > 0.01 + slant) & (columns < 0.94 + slant)
        inside &= (rows > 0.01 + 0.03 * bursts) & (rows < 0.96 + 0.03 * bursts)
        laid_over = terrain.slope_to_satellite(self.height, self.grid, self.line_of_sight) > LAYOVER_SLOPE
        return np.asarray(inside & (self.height > 0) & ~laid_over)

    # the passes

    def acquisition_time(self, day: date) -> datetime:
        """Return the moment of the pass on `day`, UTC (center_time counts from its midnight)."""
        return datetime(day.year, day.month, day.day) + self.spec.center_time

    def perpendicular_baseline(self, day: date) -> float:
        """Return the perpendicular baseline of a pass to the first one, metres."""
        if day == self.epochs[0]:
            return 0.0
        return round(float(random_stream(self.seed, self.frame, "baseline", day).normal(0, 55)), 4)

    def zenith_delay(self, day: date) -> np.ndarray:
        """Return the zenith delay of a pass, float32, metres (less a constant)."""
        return self._cache.get(("delay", day), lambda: self.stratified_delay(day) + self.turbulent_delay(day))

    def stratified_delay(self, day: date, step: int = 1) -> np.ndarray:
        """Return the part of the delay that follows from the world's fields and the height, metres."""
        if step == 1:  # large, and kept as a part of the whole delay
            return self._stratified_delay(day, step)
        return self._cache.get(("stratified", day, step), lambda: self._stratified_delay(day, step))

    def _stratified_delay(self, day: date, step: int) -> np.ndarray:
        latitudes, longitudes = self.grid.latitudes[::step], self.grid.longitudes[::step]
        return self.weather.zenith_delay(
            self.acquisition_time(day), self.height[::step, ::step], latitudes, longitudes
        )

    def turbulent_delay(self, day: date, step: int = 1) -> np.ndarray:
        """Return the part of the delay that eddies make, metres: fractal, stronger in moister air."""
        return self._turbulence_grid.interpolate(
            self._cache.get(("eddies", day), lambda: self._turbulence(day)), step
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

    # the deformation

    def active_sources(self, pair: Pair) -> dict[DeformationSource, float]:
        """Return the sources that moved between the two passes, with their growth in mean episodes."""
        moved = {source: source.growth_between(*pair.dates, self.seed) for source in self.spec.sources}
        return {source: growth for source, growth in moved.items() if abs(growth) > 1e-3}

    def source_displacement(self, source: DeformationSource) -> np.ndarray:
        """Return the displacement towards the satellite of one mean episode, float32, metres.

        It is given at :attr:`nodes`; the pixels between are interpolated.
        """
        return self._cache.get(("source", source.name), lambda: self._node_displacement(source))

    def _node_displacement(self, source: DeformationSource) -> np.ndarray:
        nodes = self.coarse_grid
        latitudes = self.grid.north - (nodes.rows + 0.5) * self.grid.dy
        longitudes = self.grid.west + (nodes.columns + 0.5) * self.grid.dx
        movement = source.displacement(latitudes, longitudes)
        sight = self.line_of_sight[:, :, np.minimum(nodes.columns, self.grid.width - 1)]
        return np.asarray(np.einsum("knm,knm->nm", movement, sight), dtype=np.float32)

    def displacement(self, pair: Pair) -> np.ndarray:
        """Return the displacement towards the satellite between two passes, float32, metres."""
        total = np.zeros(self.coarse_grid.shape, np.float32)
        for source, growth in self.active_sources(pair).items():
            total += np.float32(growth) * self.source_displacement(source)
        return self.coarse_grid.interpolate(total)

    # the interferogram

    def true_coherence(self, pair: Pair, step: int = 1) -> np.ndarray:
        """Return the coherence before it is estimated, float32, 0 to 1, at every `step`-th pixel."""
        days = (pair.secondary - pair.primary).days
        cover = self.vegetation[::step, ::step]
        fresh = 0.95 - 0.3 * cover
        lasting = 0.32 * (1 - cover) ** 2
        lifetime = 14 + 420 * (1 - cover) ** 3
        geometry = max(
            0.2,
            1
            - abs(self.perpendicular_baseline(pair.primary) - self.perpendicular_baseline(pair.secondary))
            / 1200,
        )
        snow = 0.55 if self.spec.latitude > 60 and pair.secondary.month in (11, 12, 1, 2, 3) else 1.0
        decay = np.exp(-np.float32(days) / lifetime)
        return np.asarray((lasting + (fresh - lasting) * decay) * np.float32(geometry * snow), np.float32)

    def interferogram_defect(self, pair: Pair) -> str:
        """Return what is wrong with the interferogram, or an empty string."""
        if pair not in self.pairs:
            return ""
        return self.spec.defects.get(self.pairs.index(pair) % 29, "")

    def noise_free_phase(self, pair: Pair) -> np.ndarray:
        """Return the phase without noise and blemish, float32, radians."""
        first, second = (self.zenith_delay(day) for day in pair.dates)
        phase = second - first
        phase /= self.line_of_sight[2]
        phase -= self.displacement(pair)
        phase *= np.float32(RADIANS_PER_METRE)
        return phase

    def simulate_interferogram(self, pair: Pair, revision: int = 0) -> SimulatedInterferogram:
        """Return what the interferogram of `pair` shows.

        Parameters
        ----------
        pair : Pair
            Any two of :attr:`epochs`.
        revision : int
            Each one is processed anew: the same signal with other noise.
        """
        random = random_stream(self.seed, self.frame, pair, "noise", revision)
        coherence = self.true_coherence(pair)
        phase = self.noise_free_phase(pair)
        valid = self.valid_mask
        blemish = self.interferogram_defect(pair)
        if blemish:
            phase, coherence, valid = self._apply_defect(blemish, phase, coherence, valid, random)
        # a coherent part plus circular noise: this gives both the phase's noise and the estimate's bias
        noise = random.standard_normal((2, *self.grid.shape), dtype=np.float32)
        noise *= np.sqrt((1 - coherence**2) / np.float32(2 * EFFECTIVE_LOOKS))
        real, imaginary = noise
        real += coherence
        phase += np.arctan2(imaginary, real)
        estimate = np.hypot(real, imaginary, out=real)
        turns = np.rint(phase * np.float32(0.5 / np.pi))
        wrapped = np.clip(phase - turns * np.float32(2 * np.pi), -_PI, _PI)
        wrapped[wrapped == 0] = np.float32(1e-6)  # exact 0 is no data
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
        """Return phase, coherence and validity as the blemish leaves them."""
        rows = np.linspace(0, 1, self.grid.height, dtype=np.float32)[:, None]
        columns = np.linspace(0, 1, self.grid.width, dtype=np.float32)[None, :]
        if blemish == "orbital":
            phase = phase + np.float32(2 * np.pi) * (2.5 * columns + 1.2 * rows)
        elif blemish.startswith("processing"):  # bursts that do not meet
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
