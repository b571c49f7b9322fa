"""The toy cube's content as a published cube: the same formulas, no code of the builder between."""

from __future__ import annotations

import numpy as np

import toy_cube
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.grid import Grid
from published_cubes import PublishedFrame, PublishedPair

#: Annotated pairs; published cubes hold no others.
PAIRS = toy_cube.PAIRS[:-1]


def toy_published(
    on: Grid | None = None, pairs: tuple[str, ...] = PAIRS, frame: str = toy_cube.FRAME
) -> PublishedFrame:
    """Return the content of :func:`toy_cube.toy_cube` for its annotated pairs."""
    on = on or toy_cube.grid()
    area = era5_area_around(on)
    return PublishedFrame(
        frame=frame,
        latitudes=np.asarray(on.latitudes),
        longitudes=np.asarray(on.longitudes),
        dem=toy_cube.height(on),
        pairs={
            name: PublishedPair(
                {
                    "insar_difference": toy_cube.phase(on, name),
                    "insar_coherence": toy_cube.coherence(on, name),
                    **toy_cube.masks(on, name),
                },
                toy_cube.annotation(name),
            )
            for name in pairs
        },
        atmosphere={
            day: np.stack(
                [
                    _between(field, area.latitudes, area.longitudes, on)
                    for field in toy_cube.atmosphere(on, day)
                ]
            )
            for day in sorted({day for name in pairs for day in name.split("_")})
        },
    )


def _between(field: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray, on: Grid) -> np.ndarray:
    """Interpolate bilinearly from the points of ERA5 to the pixels; not rounded."""
    order = np.argsort(latitudes)
    columns = np.stack([np.interp(on.longitudes, longitudes, row) for row in field[order].astype("f8")])
    pixels = [np.interp(on.latitudes, latitudes[order], column) for column in columns.T]
    return np.stack(pixels, axis=1).astype("f4")
