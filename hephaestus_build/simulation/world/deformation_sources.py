"""Deformation sources of the simulated volcanoes and their time histories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.simulation.world import deformation_models
from hephaestus_build.simulation.world.random_fields import random_stream
from hephaestus_build.simulation.world.terrain import local_metres

#: Activity types, named as in the annotations.
SIMULATED_ACTIVITIES = ("Mogi", "Dyke", "Sill", "Spheroid", "Earthquake", "Unidentified")
_EPOCH = date(2014, 1, 1)
_MODELS: dict[str, Callable[..., np.ndarray]] = {
    "Mogi": deformation_models.mogi,
    "Spheroid": deformation_models.spheroid,
    "Unidentified": deformation_models.sagging_flank,
}


@lru_cache(maxsize=4096)
def _episode_size(seed: int, name: str, cycle: int) -> float:
    """Return the size of one episode of a source, 0.7 to 1.3."""
    return random_stream(seed, name, "episode", cycle).uniform(0.7, 1.3)


@dataclass(frozen=True)
class ActivityHistory:
    """Periodic episodes of growth at a constant rate, each followed by partial relaxation.

    Attributes
    ----------
    first : datetime.date
        Start of one episode; the others start whole periods before and after it.
    period, duration : float
        Time between the starts of two episodes, and length of an episode, days. A duration of 0 is a step.
    rebound : float
        Fraction of the growth that is lost after an episode, exponentially over about `duration` days.
    """

    first: date
    period: float
    duration: float
    rebound: float = 0.0

    def cumulative_growth(self, day: float, seed: int, name: str) -> float:
        """Return the growth since 2014-01-01, in mean episodes.

        Parameters
        ----------
        day : float
            Days since 2014-01-01.
        seed : int
            Seed of the world.
        name : str
            Name of the source. With the seed it sets the size of each episode, 0.7 to 1.3.
        """
        first = (self.first - _EPOCH).days % self.period
        total = 0.0
        for cycle in range(int(day // self.period) + 1):
            since = day - first - cycle * self.period
            if since <= 0:
                break
            size = _episode_size(seed, name, cycle)
            total += size * min(since / self.duration, 1.0) if self.duration else size
            after = since - self.duration
            if after > 0 and self.rebound:
                total -= size * self.rebound * (1 - np.exp(-after / max(self.duration, 1.0)))
        return float(total)


@dataclass(frozen=True, eq=False)
class DeformationSource:
    """One source of deformation.

    Attributes
    ----------
    name : str
        Name, unique within the frame.
    activity : str
        One of :data:`SIMULATED_ACTIVITIES`.
    longitude, latitude : float
        Position of the point above its centre, degrees.
    history : ActivityHistory
        Times at which it is active.
    parameters : mapping of str to float
        Arguments of its function in :mod:`hephaestus_build.simulation.world.deformation_models`, for one
        mean episode.
    """

    name: str
    activity: str
    longitude: float
    latitude: float
    history: ActivityHistory
    parameters: Mapping[str, float] = field(default_factory=dict)

    def displacement(self, latitudes: npt.NDArray[Any], longitudes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the displacement of one mean episode.

        Parameters
        ----------
        latitudes, longitudes : numpy.ndarray
            Points, degrees, (n,) and (m,).

        Returns
        -------
        numpy.ndarray
            Displacement (east, north, up), (3, n, m), metres.
        """
        east, north = local_metres(latitudes, longitudes, self.longitude, self.latitude)
        model: Callable[..., np.ndarray] = _MODELS.get(self.activity, deformation_models.okada)
        return model(east, north, **self.parameters)

    def growth_between(self, begin: date, end: date, seed: int) -> float:
        """Return the growth between two dates, in mean episodes; negative while the source relaxes."""
        before, after = (
            self.history.cumulative_growth((day - _EPOCH).days, seed, self.name) for day in (begin, end)
        )
        return after - before
