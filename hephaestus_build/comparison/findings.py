"""What differs between two cubes in words, and why it was to be expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hephaestus_build.comparison.grid_difference import Crop, GridDifference
from hephaestus_build.comparison.image_difference import ImageDifference
from hephaestus_build.comparison.pair_comparison import PairComparison
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.reading.readable_cube import AXES, ReadableCube
from hephaestus_build.cube.schema import MASK_VARIABLES, cube_schema
from hephaestus_build.sources.annotations.record import FLAGS

#: Variables of texts and numbers of an annotation, compared beside its flags.
ANNOTATION_VALUES = ("phase", "caption", "unique_id", "confidence")
#: What is said of a difference that follows a rule, of the share of the pairs and the rule.
_RULES = {
    "insar_difference": "{1} {0}, as if primary and secondary were exchanged: the wrapped sum is zero",
    "insar_coherence": "on another scale {0}: the {1}",
}
_STRIPMAP = "_SM_"


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


def find_differences(
    first: ReadableCube,
    second: ReadableCube,
    grid: GridDifference,
    crops: tuple[Crop, Crop] | None,
    compared: Sequence[PairComparison],
    dem: ImageDifference | None,
    atmosphere: Mapping[str, float],
) -> tuple[Finding, ...]:
    """Return what differs, that which was not expected first.

    Parameters
    ----------
    first, second : ReadableCube
        The cubes.
    grid : GridDifference
        Offset of the second's grid.
    crops : tuple of Crop or None
        The part that both grids have, in each.
    compared : sequence of PairComparison
        The pairs of both.
    dem : ImageDifference or None
        How heights differ; None where they were not compared.
    atmosphere : mapping of str to float
        Largest difference of each field.
    """
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
    return tuple(sorted(found, key=lambda finding: bool(finding.expected)))


def note_forms(
    first: ReadableCube, second: ReadableCube, atmosphere: Mapping[str, float]
) -> tuple[Note, ...]:
    """Return what is equal within its rounding, or stored in another form."""
    return (*_rounding_notes(atmosphere), *_form_notes(first, second))


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
    for name in (
        "insar_difference",
        "insar_coherence",
        "dem",
        *MASK_VARIABLES,
        *atmosphere,
        *FLAGS,
        *ANNOTATION_VALUES,
    ):
        lacking = [where for where, cube in (("first", first), ("second", second)) if name not in cube]
        if lacking:
            yield Finding(name, f"missing in the {' and in the '.join(lacking)}")
        elif name not in (*FLAGS, *ANNOTATION_VALUES) and (kinds := _differing_dtypes(first, second, name)):
            yield Finding(name, f"stored as {kinds}")


def _image_findings(compared: Sequence[PairComparison]) -> Iterator[Finding]:
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
    first: ReadableCube, second: ReadableCube, compared: Sequence[PairComparison]
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


def _table_findings(compared: Sequence[PairComparison]) -> Iterator[Finding]:
    for name in (*FLAGS, *ANNOTATION_VALUES):
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


def _atmosphere_findings(atmosphere: Mapping[str, float]) -> Iterator[Finding]:
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


def _rounding_notes(atmosphere: Mapping[str, float]) -> Iterator[Note]:
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
    for name in (*FLAGS, *ANNOTATION_VALUES):
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
