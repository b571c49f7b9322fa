"""Samples (one annotated interferogram each) and series (several samples with the same primary date)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from itertools import combinations, groupby
from typing import TYPE_CHECKING

import numpy as np

from hephaestus_build.core.bounds import great_circle_km
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.sources.annotations.record import Annotation

if TYPE_CHECKING:
    import xarray as xr

#: Interferograms in a series, as in the paper.
SERIES_LENGTH = 3
_TABLES = ("valid_date_pair", "annotated", "corrupted", "processing_error", "no_info", "phase", "unique_id")
#: Maximum distance in km between the centres of a frame and a published frame of the same region.
REGION_RADIUS = 300.0


@dataclass(frozen=True, order=True)
class Sample:
    """One annotated interferogram of good quality.

    Attributes
    ----------
    frame : Frame
        Frame of the interferogram.
    pair : Pair
        Dates of the interferogram.
    positive : bool
        Whether the expert saw deformation of any kind, including earthquakes.
    unique_id : int
        Id of the annotation; -1 if unknown.
    region : str
        Region of the frame (see :func:`region_of`).
    """

    frame: Frame
    pair: Pair
    positive: bool = field(compare=False)
    unique_id: int = field(compare=False, default=-1)
    region: str = field(compare=False, default="")

    @property
    def acquisitions(self) -> tuple[tuple[Frame, date], tuple[Frame, date]]:
        """Frame and date of the two acquisitions of the interferogram."""
        return (self.frame, self.pair.primary), (self.frame, self.pair.secondary)


@dataclass(frozen=True, order=True)
class Series:
    """Samples with the same primary, in the order of their secondaries; a short series repeats samples."""

    members: tuple[Sample, ...]

    @property
    def positive(self) -> bool:
        """Whether any member is positive."""
        return any(sample.positive for sample in self.members)

    @property
    def has_repeats(self) -> bool:
        """Whether an interferogram occurs more than once."""
        return len(set(self.members)) < len(self.members)

    @property
    def name(self) -> str:
        """``<primary>_<secondary>_<secondary>...``, unique within a frame."""
        # pair names are cached, formatting a date is slow
        return "_".join([self.members[0].pair.name[:8], *(sample.pair.name[9:] for sample in self.members)])


@cache
def published_absent_pairs() -> frozenset[tuple[Frame, Pair]]:
    """Return the good-quality pairs that the published benchmark leaves out (``absent_pairs.json``)."""
    return frozenset(
        (Frame(entry["frame"]), Pair.parse(entry["pair"]))
        for entry in load_schema("absent_pairs.json")["pairs"]
    )


def is_published(frame: Frame, pair: Pair) -> bool:
    """Return whether a usable sample may be one of the published benchmark; simulated frames may."""
    known = frame.is_simulated or frame.id in published_frames()
    return known and (frame, pair) not in published_absent_pairs()


def is_usable(annotation: Annotation) -> bool:
    """Return whether an interferogram is of good quality: not corrupted, no processing error, not empty."""
    return annotation.corrupted == 0 and annotation.processing_error == 0 and annotation.no_info == 0


def samples_from_annotations(
    annotations: Iterable[Annotation], absent: Iterable[tuple[Frame, Pair]] | None = None
) -> list[Sample]:
    """Return the usable samples among `annotations`, sorted by frame and dates.

    Parameters
    ----------
    annotations : iterable of Annotation
        Annotations in any order.
    absent : iterable of (Frame, Pair), optional
        Pairs without an interferogram; by default the 15 that the published benchmark leaves out.
    """
    missing = published_absent_pairs() if absent is None else frozenset(absent)
    return sorted(
        Sample(item.frame, item.pair, item.is_deforming, item.unique_id, region_of(item.frame))
        for item in annotations
        if is_usable(item) and (item.frame, item.pair) not in missing
    )


def samples_from_cube(cube: xr.Dataset) -> list[Sample]:
    """Return the usable samples of a cube, from its flags and annotations, sorted by dates.

    Parameters
    ----------
    cube : xarray.Dataset
        A cube as opened by :func:`xarray.open_zarr`.

    Raises
    ------
    HephaestusError
        If the cube does not state its frame or lacks one of the variables.
    """
    frame = _frame_of(cube)
    try:
        table = {name: cube[name].transpose("primary_date", "secondary_date").to_numpy() for name in _TABLES}
    except (KeyError, ValueError) as error:
        raise HephaestusError(
            f"the cube of {frame} lacks a variable ({error}); `hephaestus inspect {frame}` lists them"
        ) from error
    good = table["valid_date_pair"].astype(bool) & table["annotated"].astype(bool)
    for name in ("corrupted", "processing_error", "no_info"):
        good &= table[name] == 0
    primaries, secondaries = (
        cube[name].to_numpy().astype("datetime64[D]").tolist() for name in ("primary_date", "secondary_date")
    )
    region = region_of(frame, _cube_center(cube))
    samples = []
    for row, column in np.argwhere(good).tolist():
        phase = str(table["phase"][row, column])
        # in the released files, the phase is "Rest" if and only if there is no deformation
        positive = phase != "Rest" if phase else _has_deformation_mask(cube, row, column)
        pair = Pair(primaries[row], secondaries[column])
        samples.append(Sample(frame, pair, positive, int(table["unique_id"][row, column]), region))
    return sorted(samples)


def region_of(frame: Frame, centre: tuple[float, float] | None = None) -> str:
    """Return the name of the region of `frame`.

    The regions of published frames are in the registry. Another frame belongs to the region of the nearest
    published frame within 300 km, and otherwise forms its own region. The result depends on this frame only,
    so adding a frame never changes the region of another one.

    Parameters
    ----------
    frame : Frame
        The frame.
    centre : tuple of float, optional
        Longitude and latitude of the frame's centre in degrees.
    """
    frames = published_frames()
    if frame.id in frames:
        return frames[frame.id].region
    if centre is None or frame.is_simulated:
        return frame.id
    distance, region = min(
        (great_circle_km(centre[1], centre[0], known.latitude, known.longitude), known.region)
        for known in frames.values()
    )
    return region if distance <= REGION_RADIUS else frame.id


def make_series(
    samples: Iterable[Sample], *, length: int = SERIES_LENGTH, share_positive: int = 1
) -> list[Series]:
    """Return the series of `samples` according to the rule of the paper.

    1. Samples with the same frame and primary date form a group, sorted by secondary date.
    2. A group with at most `length` samples gives one series, in which samples are repeated if necessary.
    3. A larger group gives several. Its subsets of `length` samples are visited in lexicographic order, and
       one is kept if it shares fewer samples than the limit with every subset kept before.

    For example, with `length` 3, a group (a, b) gives the series (a, a, b). A group (a, b, c, d, e) gives
    only (a, b, c) with the limit 1. With the limit 2, it gives (a, b, c) and (a, d, e).

    Parameters
    ----------
    samples : iterable of Sample
        Samples of one part of a split, in any order.
    length : int
        Number of interferograms in a series.
    share_positive : int
        The limit for groups with deformation (2 in the paper's training part); it is 1 for all others.
    """
    series = []
    for _, members in groupby(sorted(samples), key=lambda sample: (sample.frame, sample.pair.primary)):
        group = list(members)
        limit = share_positive if any(sample.positive for sample in group) else 1
        series += [
            Series(tuple(group[index] for index in chosen))
            for chosen in _low_overlap_subsets(len(group), length, limit)
        ]
    return series


def _low_overlap_subsets(count: int, length: int, limit: int) -> Iterable[tuple[int, ...]]:
    if count <= length:
        yield tuple(index * count // length for index in range(length))
        return
    taken: set[tuple[int, ...]] = set()  # combinations of `limit` entries that a kept subset contains
    for chosen in combinations(range(count), length):
        parts = list(combinations(chosen, limit))
        if taken.isdisjoint(parts):
            taken.update(parts)
            yield chosen


def _has_deformation_mask(cube: xr.Dataset, row: int, column: int) -> bool:
    return bool(cube["deformation_mask"].isel(primary_date=row, secondary_date=column).any())


def _frame_of(cube: xr.Dataset) -> Frame:
    name = cube.attrs.get("frame")
    if not isinstance(name, str):
        raise HephaestusError("the cube does not name its frame; build it again with `hephaestus build`")
    return Frame.parse(name)


def _cube_center(cube: xr.Dataset) -> tuple[float, float]:
    return tuple(float((cube[name][0] + cube[name][-1]) / 2) for name in ("longitude", "latitude"))  # type: ignore[return-value]


def count_classes(samples: Iterable[Sample | Series]) -> dict[str, int]:
    """Return the number of positive and of negative samples or series."""
    flags = [sample.positive for sample in samples]
    return {"positive": sum(flags), "negative": len(flags) - sum(flags)}
