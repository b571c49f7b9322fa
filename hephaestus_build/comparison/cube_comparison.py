"""Comparison of two cubes, which says what was expected to differ apart from what was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.comparison.image_difference import (
    ImageDifference,
    MaskDifference,
    compare_coherence,
    compare_heights,
    compare_masks,
    compare_phase,
)
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.reading.readable_cube import AXES, ReadableCube
from hephaestus_build.cube.schema import MASK_VARIABLES, cube_schema
from hephaestus_build.sources.annotations.record import FLAGS

#: Grids whose corners differ by no more are the same, degrees.
GRID_TOLERANCE = 1e-6
#: What is said of a difference that follows a rule, of the share of the pairs and the rule.
_RULES = {
    "insar_difference": "{1} {0}, as if primary and secondary were exchanged: the wrapped sum is zero",
    "insar_coherence": "on another scale {0}: the {1}",
}
_TEXTS = ("phase", "caption", "unique_id", "confidence")
_STRIPMAP = "_SM_"


@dataclass(frozen=True)
class GridDifference:
    """Where one grid lies relative to another.

    Attributes
    ----------
    east, south : float
        Offset of the second's first corner, in pixels of the first.
    corner_deg : float
        Largest difference of a corner, degrees.
    pixel_ratio : float
        Largest ratio of the pixel sizes, at least 1.
    """

    east: float
    south: float
    corner_deg: float
    pixel_ratio: float

    @classmethod
    def between(cls, first: Grid, second: Grid) -> GridDifference:
        """Return the difference of two grids; longitudes that differ by whole turns are the same."""
        second = second.in_turn_of(first)
        ratios = [a / b for a, b in ((first.dx, second.dx), (first.dy, second.dy))]
        return cls(
            (second.west - first.west) / first.dx,
            (first.north - second.north) / first.dy,
            max(abs(a - b) for a, b in zip(first.bounds, second.bounds, strict=True)),
            max(max(ratio, 1 / ratio) for ratio in ratios),
        )

    @property
    def is_same(self) -> bool:
        """Whether the grids are the same."""
        return self.corner_deg <= GRID_TOLERANCE

    def shared(self, first: Grid, second: Grid) -> tuple[Crop, Crop] | None:
        """Return the part that both grids have, in each; None where pixels do not fall on pixels."""
        offsets = round(self.south), round(self.east)
        apart = max(abs(self.south - offsets[0]), abs(self.east - offsets[1]))
        if apart > 0.01 or (self.pixel_ratio - 1) * max(first.shape) > 0.01:
            return None
        crops = []
        for offset, height, other in zip(offsets, first.shape, second.shape, strict=True):
            begin, end = max(0, offset), min(height, offset + other)
            if begin >= end:
                return None
            crops.append((slice(begin, end), slice(begin - offset, end - offset)))
        (rows, rows2), (columns, columns2) = crops
        return (rows, columns), (rows2, columns2)


#: Rows and columns.
Crop = tuple[slice, slice]


@dataclass(frozen=True)
class Finding:
    """One thing that differs.

    Attributes
    ----------
    where : str
        What: ``frame``, ``grid``, ``pairs``, a variable, or ``atmosphere``.
    what : str
        How it differs.
    expected : str
        Why it was to be expected; empty if it was not.
    """

    where: str
    what: str
    expected: str = ""


@dataclass(frozen=True)
class Note:
    """Something that two cubes have in another form, and that is no difference of content.

    Attributes
    ----------
    where : str
        What: ``chunks``, a variable, or ``atmosphere``.
    what : str
        In which form each has it.
    """

    where: str
    what: str


@dataclass(frozen=True)
class PairComparison:
    """How a pair that both cubes hold differs.

    Attributes
    ----------
    pair : Pair
        The dates.
    phase, coherence : ImageDifference or None
        None where a cube lacks the variable or the grids have no pixels in common.
    masks : dict of str to MaskDifference
        By variable.
    tables : dict of str to tuple
        Flags and texts that differ: the values in the two cubes.
    """

    pair: Pair
    phase: ImageDifference | None
    coherence: ImageDifference | None
    masks: dict[str, MaskDifference] = field(default_factory=dict)
    tables: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        images = (self.phase, self.coherence, *self.masks.values())
        return not self.tables and all(image is not None and image.is_equal for image in images)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "pair": self.pair.name,
            "equal": self.is_equal,
            "phase": image_json(self.phase),
            "coherence": image_json(self.coherence),
            "masks": {
                name: {
                    **asdict(mask),
                    "equal": mask.is_equal,
                    "equal_pixels": mask.equal,
                    "overlap": mask.overlap,
                }
                for name, mask in self.masks.items()
            },
            "annotations": {name: list(values) for name, values in self.tables.items()},
        }


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
        for name in (*FLAGS, *_TEXTS)
        if name in first and name in second
    }
    stage = f"{first.frame or first.label}: pairs compared"
    listener.stage(stage, len(common))
    compared: list[PairComparison] = []
    for one in map_bounded(partial(_compare_pair, first, second, crops, tables), common, threads):
        compared.append(one)
        listener.advance(stage)
    compared.sort(key=lambda one: one.pair)
    dem = None
    if crops and "dem" in first and "dem" in second:
        dem = compare_heights(first.frame_image("dem")[crops[0]], second.frame_image("dem")[crops[1]])
    atmosphere = _compare_atmosphere(first, second, crops, threads)
    found = [
        *_grid_findings(first, second, grid, crops),
        *_pair_findings(first, second),
        *_missing_variables(first, second),
        *_image_findings(compared),
        *_mask_findings(first, second, compared),
        *_table_findings(compared),
        *_dem_findings(first, second, dem),
        *_atmosphere_findings(atmosphere),
    ]
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
        findings=tuple(sorted(found, key=lambda finding: bool(finding.expected))),
        notes=(*_rounding_notes(atmosphere), *_form_notes(first, second)),
    )


def _compare_pair(
    first: ReadableCube,
    second: ReadableCube,
    crops: tuple[Crop, Crop] | None,
    tables: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    pair: Pair,
) -> PairComparison:
    def images(name: str, compare: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Any]) -> Any:
        if crops is None or name not in first or name not in second:
            return None
        return compare(first.pair_image(name, pair)[crops[0]], second.pair_image(name, pair)[crops[1]])

    masks = {name: mask for name in MASK_VARIABLES if (mask := images(name, compare_masks)) is not None}
    differing = {}
    for name, (mine, theirs) in tables.items():
        values = tuple(
            plain_value(table[cube.pairs[pair]]) for cube, table in ((first, mine), (second, theirs))
        )
        if values[0] != values[1]:
            differing[name] = values
    return PairComparison(
        pair,
        images("insar_difference", compare_phase),
        images("insar_coherence", compare_coherence),
        masks,
        differing,
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


def _grid_findings(
    first: ReadableCube, second: ReadableCube, grid: GridDifference, crops: tuple[Crop, Crop] | None
) -> Iterator[Finding]:
    if first.frame and second.frame and first.frame != second.frame:
        yield Finding("frame", f"the cubes are of two frames: {first.frame} and {second.frame}")
    if first.grid.shape != second.grid.shape:
        sizes = " and ".join(f"{cube.grid.height} x {cube.grid.width}" for cube in (first, second))
        yield Finding("grid", f"the cubes have {sizes} pixels")
    if not grid.is_same:
        yield Finding(
            "grid",
            f"the second begins {grid.east:.3f} pixels east and {grid.south:.3f} pixels south of the first; "
            + ("only the part that both have is compared" if crops else "images are not compared"),
        )


def _pair_findings(first: ReadableCube, second: ReadableCube) -> Iterator[Finding]:
    for one, other, where in ((first, second, "first"), (second, first, "second")):
        alone = [pair.name for pair in one.pairs if pair not in other.pairs]
        if alone:
            named = ", ".join(alone[:3]) + (f" and {len(alone) - 3} more" if len(alone) > 3 else "")
            yield Finding("pairs", f"{count_of(len(alone), 'pair')} in the {where} alone: {named}")
    for cube, where in ((first, "first"), (second, "second")):
        if cube.swapped:
            yield Finding(
                "pairs",
                f"primary and secondary dates swapped in {count_of(len(cube.swapped), 'pair')} of the "
                f"{where}, as in {min(cube.swapped)}",
            )
    if not any(pair in second.pairs for pair in first.pairs):
        yield Finding("pairs", "no pair is in both")


def _missing_variables(first: ReadableCube, second: ReadableCube) -> Iterator[Finding]:
    atmosphere = [f"{axis}_{name}" for axis in AXES for name in ERA5_VARIABLE_NAMES]
    for name in ("insar_difference", "insar_coherence", "dem", *MASK_VARIABLES, *atmosphere, *FLAGS, *_TEXTS):
        lacking = [where for where, cube in (("first", first), ("second", second)) if name not in cube]
        if lacking:
            yield Finding(name, f"missing in the {' and in the '.join(lacking)}")
        elif name not in (*FLAGS, *_TEXTS) and (kinds := _differing_dtypes(first, second, name)):
            yield Finding(name, f"stored as {kinds}")


def _image_findings(compared: list[PairComparison]) -> Iterator[Finding]:
    for name, images in (
        ("insar_difference", [(one.pair, one.phase) for one in compared]),
        ("insar_coherence", [(one.pair, one.coherence) for one in compared]),
    ):
        differing = [(pair, image) for pair, image in images if image is not None and not image.is_equal]
        if differing:
            pair, worst = max(differing, key=lambda item: item[1].pixels - item[1].equal)
            share = f"in {len(differing)} of {count_of(len(compared), 'pair')}"
            if worst.rule and all(image.rule == worst.rule for _, image in differing):
                yield Finding(name, _RULES[name].format(share, worst.rule))
            else:
                yield Finding(name, f"differs {share}, most in {pair.name}: {worst.words}")


def _mask_findings(
    first: ReadableCube, second: ReadableCube, compared: list[PairComparison]
) -> Iterator[Finding]:
    frame = first.frame or second.frame
    expected = (
        "the published masks of the two Stripmap frames were drawn for another preview than the archive has"
        if _STRIPMAP in frame
        else ""
    )
    for name in MASK_VARIABLES:
        masks = [one.masks[name] for one in compared if name in one.masks]
        differing = [mask for mask in masks if not mask.is_equal]
        if differing:
            overlap = sum(mask.common for mask in masks) / max(1, sum(mask.either for mask in masks))
            worst = min(differing, key=lambda mask: mask.overlap)
            yield Finding(
                name,
                f"differs in {len(differing)} of {count_of(len(masks), 'pair')}; overlap {overlap:.3f}, "
                f"worst: {worst.words}",
                expected,
            )


def _table_findings(compared: list[PairComparison]) -> Iterator[Finding]:
    for name in (*FLAGS, *_TEXTS):
        differing = [(one.pair, one.tables[name]) for one in compared if name in one.tables]
        if differing:
            pair, (mine, theirs) = differing[0]
            yield Finding(
                name,
                f"differs in {count_of(len(differing), 'pair')}, as in {pair.name}: {mine!r} and {theirs!r}",
            )


def _dem_findings(
    first: ReadableCube, second: ReadableCube, dem: ImageDifference | None
) -> Iterator[Finding]:
    if dem is not None and not dem.is_equal:
        sources = [str(cube.dataset.attrs.get("dem_source", "")) for cube in (first, second)]
        expected = ""
        if sources[0] != sources[1]:
            named = " and ".join(source or "unstated" for source in sources)
            expected = f"the heights come from two sources ({named})"
        yield Finding("dem", f"{dem.words} m", expected)


def _atmosphere_findings(atmosphere: dict[str, float]) -> Iterator[Finding]:
    for name, largest in atmosphere.items():
        variable = cube_schema().variables[name]
        step = variable.step or 0.0
        if largest > step:
            units = str(variable.attributes.get("units", ""))
            how = (
                "is missing where the other has it"
                if np.isinf(largest)
                else f"differs by up to {largest:.4g} {units}"
            )
            yield Finding(name, f"{how}; rounding alone explains {step:g}")


def _rounding_notes(atmosphere: dict[str, float]) -> Iterator[Note]:
    """Say which fields differ within the step that they are rounded to."""
    for name, largest in atmosphere.items():
        variable = cube_schema().variables[name]
        if 0 < largest <= (variable.step or 0.0):
            units = str(variable.attributes.get("units", ""))
            yield Note(
                name, f"differs by up to {largest:.4g} {units}, within the rounding of {variable.step:g}"
            )


def _form_notes(first: ReadableCube, second: ReadableCube) -> Iterator[Note]:
    """Say which variables are stored in other chunks, and which tables as another type."""
    shared = [str(name) for name in first.dataset.data_vars if name in second]
    chunks = {name: [_chunks(cube, name) for cube in (first, second)] for name in shared}
    other = [(name, sizes) for name, sizes in chunks.items() if all(sizes) and sizes[0] != sizes[1]]
    if other:
        name, sizes = other[0]
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        yield Note("chunks", f"{name}{more} in chunks of {' and of '.join(sizes)}; the values are the same")
    for name in (*FLAGS, *_TEXTS):
        if name in shared and (kinds := _differing_dtypes(first, second, name)):
            yield Note(name, f"stored as {kinds}; the values are compared all the same")


def _chunks(cube: ReadableCube, name: str) -> str:
    """Return the chunk of a variable, such as ``1 x 1 x 60 x 70``; empty if it is not known."""
    sizes = cube.dataset[name].encoding.get("chunks") or ()
    return " x ".join(map(str, sizes))


def _differing_dtypes(first: ReadableCube, second: ReadableCube, name: str) -> str:
    """Return the types of a variable in two cubes; empty if they are the same, or texts."""
    kinds = [cube.dataset[name].dtype for cube in (first, second)]
    return "" if kinds[0] == kinds[1] or _is_text(first, name) else " and ".join(map(str, kinds))


def _is_text(cube: ReadableCube, name: str) -> bool:
    return cube.dataset[name].dtype.kind in "OUST"


def plain_value(value: Any) -> Any:
    """Return a value of a table as a JSON value; numbers of another type that are equal compare as equal."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    item = value.item() if isinstance(value, np.generic) else value
    if isinstance(item, float):
        return None if np.isnan(item) else round(item, 6)
    return item if isinstance(item, bool | int | str) else str(item)


def image_json(image: ImageDifference | None) -> dict[str, Any] | None:
    """Return the difference of two images as JSON values; None where they were not compared."""
    if image is None:
        return None
    return {**asdict(image), "equal": image.is_equal, "equal_pixels": image.equal}
