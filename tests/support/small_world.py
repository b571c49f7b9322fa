"""The default simulated world, made once for all tests that only look at it."""

from __future__ import annotations

from functools import cache

from hephaestus_build.simulation.world.world import World


@cache
def small_world() -> World:
    """Return the world that ``make cubes`` builds from; nothing in it ever changes."""
    return World()
