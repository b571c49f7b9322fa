"""The simulated frames of the benchmark, where neither the terrain nor the place gives labels away.

In the catalog, each source acts again and again at one place, most often at a summit. Here, each episode of
unrest has a place of its own anywhere in the frame, and cones stand in it that never stir. Who knows the
terrain, or where a frame deformed before, knows little of what comes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from functools import cache

import numpy as np

from hephaestus_build.simulation.world.deformation_sources import ActivityHistory, DeformationSource
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS, FrameSpec
from hephaestus_build.simulation.world.terrain import SimulatedVolcano

#: Changes whenever the frames do, so that cubes of earlier ones are not taken for these.
BENCHMARK_WORLD = "episodes-anywhere-1"
#: First day with an episode, and the mean number of days from one to the next.
_FIRST_DAY, _SPACING = date(2018, 3, 20), 910 / 9
#: Episodes of each frame in the world 0, and in every other one.
_EPISODES, _EPISODES_ELSEWHERE = 9, 18
#: Period of a source that acts once, days.
_ONCE = 100_000
#: Share of a frame's extent at each edge where no episode lies.
_MARGIN = 0.14
#: Cones that never stir, by frame: longitude, latitude, height and radius in metres.
_QUIET_CONES = {
    "198A_00210_131313": ((-24.405, 37.855, 1500, 3600), (-24.185, 37.66, 1300, 3200)),
    "201D_02400_131313": ((-17.2, 66.2, 1200, 4200), (-17.0, 65.87, 1100, 3800)),
    "203A_SM_SIMU_S3": ((55.635, -21.175, 1600, 2600), (55.77, -21.3, 1400, 2400)),
}


@cache
def benchmark_frame_specs(world: int = 0) -> tuple[FrameSpec, ...]:
    """Return the frames of the benchmark, with the ids, grids and acquisitions of the catalog's.

    Parameters
    ----------
    world : int
        Number of the world: each has episodes of its own. Those of the world 0 last two and a half years, of
        all others five, which gives test five times as many.
    """
    return tuple(_with_scattered_unrest(place, world) for place in FRAME_SPECS)


def _with_scattered_unrest(place: FrameSpec, world: int) -> FrameSpec:
    chance = np.random.default_rng([7, *place.id.encode(), *([world] if world else [])])
    rows, columns = place.shapes["small"]
    extent = np.array([columns, rows]) * place.pixel_size
    corner = np.array([place.longitude, place.latitude]) - extent / 2
    sources = []
    for number in range(_EPISODES_ELSEWHERE if world else _EPISODES):
        template = place.sources[number % len(place.sources)]
        longitude, latitude = corner + extent * chance.uniform(_MARGIN, 1 - _MARGIN, 2)
        day = _FIRST_DAY + timedelta(days=float(_SPACING * (number + chance.uniform(0, 0.6))))
        history = ActivityHistory(day, _ONCE, template.history.duration, template.history.rebound)
        parameters = dict(template.parameters)
        for name in ("strike", "azimuth"):
            if name in parameters:
                parameters[name] = float(chance.uniform(0, 360))
        sources.append(
            DeformationSource(
                f"episode {number + 1}",
                template.activity,
                float(longitude),
                float(latitude),
                history,
                parameters,
            )
        )
    cones = tuple(SimulatedVolcano(*cone) for cone in _QUIET_CONES[place.id])
    terrain = replace(place.terrain, volcanoes=(*place.terrain.volcanoes, *cones))
    return replace(place, sources=tuple(sources), terrain=terrain)
