"""Simulated atmosphere: ERA5 fields at any place and time, and the radar delay they cause.

The fields are sums of waves that travel around the globe. Each value is computed from its own coordinates
and then rounded to a fixed step, as in GRIB, so a grid point has the same value in every requested area.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.simulation.world.random_fields import random_stream, upsample_bilinear

#: Rounding steps of total column water vapour, surface pressure and the temperature integral.
ROUNDING_STEPS = (2.0**-9, 1.0, 16.0)
#: Scale heights of water vapour and pressure (decrease to 1/e), metres.
VAPOUR_SCALE_HEIGHT, PRESSURE_SCALE_HEIGHT = 2100.0, 8000.0
#: Zenith delay per water vapour, m / (kg m-2), and per surface pressure, m / Pa.
WET_DELAY_PER_VAPOUR, DRY_DELAY_PER_PASCAL = 6.4e-3, 2.2768e-5
_GRAVITY = 9.80665
_EPOCH = datetime(2000, 1, 1)


@dataclass(frozen=True)
class OrographicHill:
    """One hill of the model orography, which is smoother than the frames' terrain.

    Attributes
    ----------
    longitude, latitude : float
        Centre, degrees.
    height : float
        Height, metres.
    radius : float
        Distance at which the height has fallen to 1/e, degrees of latitude.
    """

    longitude: float
    latitude: float
    height: float
    radius: float = 0.6


@dataclass(frozen=True)
class _Waves:
    """Travelling waves: arrays of their wavenumbers, phase change per hour, phase and amplitude."""

    zonal: np.ndarray
    meridional: np.ndarray
    turn: np.ndarray
    phase: np.ndarray
    amplitude: np.ndarray

    @classmethod
    def draw(cls, random: np.random.Generator, count: int, finest: int, steepness: float) -> _Waves:
        """Draw random waves.

        Parameters
        ----------
        random : numpy.random.Generator
            Source of random numbers.
        count : int
            Number of waves, before equal wavenumbers are merged.
        finest : int
            Largest zonal wavenumber; the smallest is 2.
        steepness : float
            Amplitudes fall as wavenumber**-steepness.
        """
        zonal = np.unique(np.round(np.geomspace(2, finest, count))).astype(float)
        amplitude = zonal**-steepness * random.uniform(0.6, 1.4, zonal.size)
        speed = random.uniform(25, 60, zonal.size)  # km/h at 45 degrees
        return cls(
            zonal,
            random.choice([-1, 1], zonal.size) * zonal * random.uniform(0.5, 1.5, zonal.size),
            zonal * speed / (6371 * np.cos(np.pi / 4)),
            random.uniform(0, 2 * np.pi, zonal.size),
            amplitude / np.sqrt((amplitude**2).sum() / 2),
        )

    def at(self, hours: float, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        """Return the sum of the waves, standard deviation about 1, (n, m); angles in radians."""
        total = np.zeros((latitude.size, longitude.size))
        part = np.empty_like(total)
        for zonal, meridional, turn, phase, amplitude in zip(
            self.zonal, self.meridional, self.turn, self.phase, self.amplitude, strict=True
        ):
            moving = meridional * latitude - turn * hours + phase
            # outer products added in a fixed order give bit-identical values for any area
            total += np.multiply.outer(amplitude * np.cos(moving), np.cos(zonal * longitude), out=part)
            total -= np.multiply.outer(amplitude * np.sin(moving), np.sin(zonal * longitude), out=part)
        return total


class Weather:
    """Global atmospheric fields generated from a seed.

    Parameters
    ----------
    seed : int
        Seed of the world.
    hills : tuple of OrographicHill
        Hills of the model orography, one per frame.
    """

    def __init__(self, seed: int, hills: tuple[OrographicHill, ...] = ()) -> None:
        self.hills = hills
        random = random_stream(seed, "weather")
        self._pressure = _Waves.draw(random, 12, 14, 0.6)
        self._vapour = _Waves.draw(random, 26, 400, 0.55)
        self._temperature = _Waves.draw(random, 10, 24, 0.6)

    def orography(self, latitudes: npt.NDArray[Any], longitudes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the model orography, float64 (n, m), metres."""
        ground = np.zeros((len(latitudes), len(longitudes)))
        for hill in self.hills:
            across = (np.asarray(longitudes) - hill.longitude + 180) % 360 - 180
            across = across * np.cos(np.radians(hill.latitude))
            ground += np.multiply.outer(
                hill.height * np.exp(-(((np.asarray(latitudes) - hill.latitude) / hill.radius) ** 2)),
                np.exp(-((across / hill.radius) ** 2)),
            )
        return ground

    def era5_fields(
        self, time: datetime, latitudes: npt.NDArray[Any], longitudes: npt.NDArray[Any]
    ) -> npt.NDArray[np.float32]:
        """Return water vapour (kg m-2), surface pressure (Pa) and temperature integral (K kg m-2).

        Parameters
        ----------
        time : datetime.datetime
            UTC, without a time zone.
        latitudes, longitudes : numpy.ndarray
            Degrees, (n,) and (m,); longitudes may have any multiple of 360 added.

        Returns
        -------
        numpy.ndarray
            float32, (3, n, m), in the order of ``hephaestus_build.core.era5_grid.ERA5_VARIABLE_NAMES``.
        """
        hours = (time - _EPOCH).total_seconds() / 3600
        latitude = np.radians(np.asarray(latitudes, dtype=np.float64))
        # normalize: 350 and -10 degrees are the same place and must give identical bits
        longitude = np.radians(np.asarray(longitudes, dtype=np.float64) % 360)
        ground = self.orography(latitudes, np.asarray(longitudes, dtype=np.float64) % 360)
        summer = np.cos(2 * np.pi * (hours / 24 / 365.25 - 0.56))  # 1 in late July, -1 in late January
        belt = np.degrees(latitude) - 8 * summer

        sea_level = 101_325 + (350 + 800 * np.sin(latitude) ** 2)[:, None] * self._pressure.at(
            hours, latitude, longitude
        )
        tide = np.cos(2 * (np.pi * hours / 12 + longitude) - 2.6)
        sea_level += np.multiply.outer(110 * np.cos(latitude) ** 3, tide)
        pressure = sea_level * (1 - 0.0065 * ground / 288.15) ** 5.2559

        vapour = (4 + 42 * np.exp(-((belt / 28) ** 2)))[:, None] * np.exp(
            0.19 * self._vapour.at(hours, latitude, longitude) - ground / VAPOUR_SCALE_HEIGHT
        )
        warmth = 257 - 26 * np.sin(np.radians(belt)) ** 2
        temperature = (
            warmth[:, None] + 2.2 * self._temperature.at(hours, latitude, longitude) - 0.0025 * ground
        )
        values = (vapour, pressure, pressure / _GRAVITY * temperature)
        return np.stack(
            [
                (np.rint(value / step) * step).astype(np.float32)
                for value, step in zip(values, ROUNDING_STEPS, strict=True)
            ]
        )

    def zenith_delay(
        self,
        time: datetime,
        height: npt.NDArray[Any],
        latitudes: npt.NDArray[Any],
        longitudes: npt.NDArray[Any],
    ) -> npt.NDArray[np.float32]:
        """Return the stratified zenith delay of each pixel.

        The fields of :meth:`era5_fields` at the surrounding points of the 0.25-degree grid are interpolated
        to each pixel and carried from the model orography to the pixel's height.

        Parameters
        ----------
        time : datetime.datetime
            UTC.
        height : numpy.ndarray
            Terrain height, metres, (rows, columns).
        latitudes, longitudes : numpy.ndarray
            Pixel centres, degrees, (rows,) descending and (columns,) ascending.

        Returns
        -------
        numpy.ndarray
            float32, metres, (rows, columns), less a constant of about 2.3 m.
        """
        step = 0.25
        north = np.ceil(latitudes[0] / step) * step
        west = np.floor(longitudes[0] / step) * step
        node_latitudes = np.arange(north, latitudes[-1] - step, -step)
        node_longitudes = np.arange(west, longitudes[-1] + step, step)
        vapour, pressure, _ = self.era5_fields(time, node_latitudes, node_longitudes).astype(np.float64)
        ground = self.orography(node_latitudes, node_longitudes)
        rows = (north - latitudes) / step
        columns = (longitudes - west) / step
        wet = upsample_bilinear(
            WET_DELAY_PER_VAPOUR * vapour * np.exp(ground / VAPOUR_SCALE_HEIGHT), rows, columns
        )
        # only differences of delays are used: drop the mean of 2.3 m, to keep precision in float32
        dry = upsample_bilinear(
            DRY_DELAY_PER_PASCAL * (pressure * np.exp(ground / PRESSURE_SCALE_HEIGHT) - 101_325),
            rows,
            columns,
        )
        wet *= np.exp(height * np.float32(-1 / VAPOUR_SCALE_HEIGHT))
        dry *= np.exp(height * np.float32(-1 / PRESSURE_SCALE_HEIGHT))
        wet += dry
        return wet
