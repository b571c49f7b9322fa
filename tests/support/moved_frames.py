"""Simulated frames at other places than those of the catalog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hephaestus_build.simulation.world.frame_catalog import FrameSpec


def moved(spec: FrameSpec, longitude: float, latitude: float) -> FrameSpec:
    """Return a frame with its volcanoes and its deformation at another place."""
    east, north = longitude - spec.longitude, latitude - spec.latitude

    def there(item: Any) -> Any:
        return replace(item, longitude=item.longitude + east, latitude=item.latitude + north)

    return replace(
        spec,
        longitude=longitude,
        latitude=latitude,
        pixel_size=0.004,
        # the grid's north edge has no offset: the frames at the poles end at them
        corner_offset=(spec.corner_offset[0], 0.0),
        terrain=replace(spec.terrain, volcanoes=tuple(map(there, spec.terrain.volcanoes))),
        sources=tuple(map(there, spec.sources)),
    )
