"""Default simulated world, created once per process for tests that only read it."""

from __future__ import annotations

from functools import cache

from hephaestus_build.simulation.world.world import World


@cache
def small_world() -> World:
    """Return the world that ``make cubes`` builds from; it must not be modified."""
    return World()
