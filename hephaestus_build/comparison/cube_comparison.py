"""Comparison of two cubes, which says what was expected to differ apart from what was not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from hephaestus_build.comparison.findings import (
    ANNOTATION_VALUES,
    Finding,
    Note,
    find_differences,
    note_forms,
)
from hephaestus_build.comparison.grid_difference import Crop, GridDifference
from hephaestus_build.comparison.image_difference import ImageDifference, compare_heights, image_json
from hephaestus_build.comparison.pair_comparison import PairComparison, compare_pair
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.reading.readable_cube import AXES, ReadableCube
from hephaestus_build.sources.annotations.record import FLAGS


@dataclass(frozen=True)
class CubeComparison:
    """How two cubes differ.

    Attributes
    ----------
    first, second : str
        How messages name them.
    frame : str
        Frame id; empty if neither cube states it.
    simulated : bool
        Whether either says that it is simulated.
    grid : GridDifference
        Offset of the second's grid.
    only_first, only_second : tuple of Pair
        Pairs of one cube alone.
    pairs : tuple of PairComparison
        Pairs of both, in date order.
    dem : ImageDifference or None
        None where a cube has none, or the grids have no pixels in common.
    atmosphere : dict of str to float
        Largest difference of each field, in its units, over all dates of both cubes; infinite where one has
        values and the other has none.
    findings : tuple of Finding
        What differs, that which was not expected first.
    notes : tuple of Note
        What is equal within its rounding, or stored in another form.
    """

    first: str
    second: str
    frame: str
    simulated: bool
    grid: GridDifference
    only_first: tuple[Pair, ...]
    only_second: tuple[Pair, ...]
    pairs: tuple[PairComparison, ...]
    dem: ImageDifference | None
    atmosphere: dict[str, float]
    findings: tuple[Finding, ...]
    notes: tuple[Note, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether phase, coherence, masks, flags, texts and heights are equal, the rest within its step."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "frame": self.frame or None,
            "simulated": self.simulated,
            "first": self.first,
            "second": self.second,
            "agrees": self.agrees,
            "grid": {**asdict(self.grid), "same": self.grid.is_same},
            "only_first": [pair.name for pair in self.only_first],
            "only_second": [pair.name for pair in self.only_second],
            "dem": image_json(self.dem),
            "atmosphere": {
                name: value if np.isfinite(value) else None for name, value in self.atmosphere.items()
            },
            "findings": [asdict(finding) for finding in self.findings],
            "notes": [asdict(note) for note in self.notes],
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def compare_cubes(
    first: ReadableCube, second: ReadableCube, *, threads: int = 2, listener: ProgressListener | None = None
) -> CubeComparison:
    """Compare two cubes; a few images are in memory at once.

    Parameters
    ----------
    first, second : ReadableCube
        The cubes.
    threads : int
        Pairs compared at once.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If a cube is damaged, or a variable has other dimensions than those of a cube.
    """
    listener = listener or NullListener()
    grid = GridDifference.between(first.grid, second.grid)
    crops = grid.shared(first.grid, second.grid)
    common = [pair for pair in first.pairs if pair in second.pairs]
    tables = {
        name: (first.table(name), second.table(name))
        for name in (*FLAGS, *ANNOTATION_VALUES)
        if name in first and name in second
    }
    stage = f"{first.frame or first.label}: pairs compared"
    listener.stage(stage, len(common))
    compared: list[PairComparison] = []
    for one in map_bounded(partial(compare_pair, first, second, crops, tables), common, threads):
        compared.append(one)
        listener.advance(stage)
    compared.sort(key=lambda one: one.pair)
    dem = None
    if crops and "dem" in first and "dem" in second:
        dem = compare_heights(first.frame_image("dem")[crops[0]], second.frame_image("dem")[crops[1]])
    atmosphere = _compare_atmosphere(first, second, crops, threads)
    return CubeComparison(
        first=first.label,
        second=second.label,
        frame=first.frame or second.frame,
        simulated=first.is_simulated or second.is_simulated,
        grid=grid,
        only_first=tuple(pair for pair in first.pairs if pair not in second.pairs),
        only_second=tuple(pair for pair in second.pairs if pair not in first.pairs),
        pairs=tuple(compared),
        dem=dem,
        atmosphere=atmosphere,
        findings=find_differences(first, second, grid, crops, compared, dem, atmosphere),
        notes=note_forms(first, second, atmosphere),
    )


def _compare_atmosphere(
    first: ReadableCube, second: ReadableCube, crops: tuple[Crop, Crop] | None, threads: int
) -> dict[str, float]:
    """Return the largest difference of each field over the dates that both cubes have."""
    names = [(f"{axis}_{quantity}", axis) for axis in AXES for quantity in ERA5_VARIABLE_NAMES]
    items = [
        (name, axis, day)
        for name, axis in names
        if crops is not None and name in first and name in second
        for day in sorted(first.days[axis] & second.days[axis])
    ]

    def gap(item: tuple[str, str, Any]) -> tuple[str, float]:
        assert crops is not None
        name, axis, day = item
        mine, theirs = (
            cube.date_image(name, axis, day)[crop].astype("f8")
            for cube, crop in zip((first, second), crops, strict=True)
        )
        lacking = np.isnan(mine) != np.isnan(theirs)
        largest = float(np.nanmax(np.abs(mine - theirs), initial=0.0)) if not np.isnan(mine).all() else 0.0
        return name, float("inf") if lacking.any() else largest

    largest: dict[str, float] = {}
    for name, value in map_bounded(gap, items, threads):
        largest[name] = max(largest.get(name, 0.0), value)
    return dict(sorted(largest.items()))
