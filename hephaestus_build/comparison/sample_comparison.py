"""Comparison of published samples with cubes: the pair of each, its window, and how it differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.comparison.findings import Finding
from hephaestus_build.comparison.image_difference import (
    ImageDifference,
    MaskDifference,
    compare_coherence,
    compare_heights,
    compare_masks,
    compare_phase,
    image_json,
)
from hephaestus_build.comparison.pair_comparison import plain_value
from hephaestus_build.comparison.sample_shards import StoredSample
from hephaestus_build.comparison.window_search import (
    FoundWindow,
    find_window,
    heights_to_phasors,
    to_phasors,
)
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.reading.readable_cube import ReadableCube
from hephaestus_build.cube.schema import CHANNELS, cube_schema
from hephaestus_build.sources.annotations.record import FLAGS

_PHASE, _COHERENCE, _DEM, _MASK = "insar_difference", "insar_coherence", "dem", "deformation_mask"
#: A window that fits worse is not said to be found: another image, or another frame.
_LEAST_FIT = 0.5
_TEXTS = {"phase": "phase", "caption": "caption", "unique_id": "uniqueID", "confidence": "confidence"}

#: Characters of a text that are compared; the longest published caption has 572.
_LONGEST_TEXT = 4000

_Image = npt.NDArray[Any]


@dataclass(frozen=True)
class SampleComparison:
    """How one interferogram of a sample differs from the same window of a cube.

    Attributes
    ----------
    shard, sample : str
        Name of the tar file, and of the sample's files up to the first dot.
    frame : str
        Frame id.
    pair : Pair
        The dates, as its annotation states them.
    window : FoundWindow or None
        First row and column in the frame, and how well it fits; None if it was not found.
    size : tuple of int
        Rows and columns of the sample.
    problem : str
        Why it was not compared; empty if it was.
    channels : dict of str to ImageDifference
        By variable.
    labels : MaskDifference or None
        Of where there is deformation; None if it was not compared.
    swapped : dict of str to str
        Variables whose channel holds another one, and which.
    annotations : dict of str to tuple
        Flags and texts that differ: the values of the sample and of the cube.
    """

    shard: str
    sample: str
    frame: str
    pair: Pair
    window: FoundWindow | None = None
    size: tuple[int, int] = (0, 0)
    problem: str = ""
    channels: dict[str, ImageDifference] = field(default_factory=dict)
    labels: MaskDifference | None = None
    swapped: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def differing(self) -> list[str]:
        """The variables that differ by more than their rounding."""
        return [name for name, image in self.channels.items() if not _is_within_rounding(name, image)]

    @property
    def is_equal(self) -> bool:
        """Whether it was compared and nothing differs."""
        labelled = self.labels is None or self.labels.is_equal
        return not (self.problem or self.differing or self.annotations) and labelled

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        mask = self.labels
        return {
            "shard": self.shard,
            "sample": self.sample,
            "frame": self.frame,
            "pair": self.pair.name,
            "row": self.window and self.window.row,
            "column": self.window and self.window.column,
            "rows": self.size[0],
            "columns": self.size[1],
            "fit": self.window and self.window.fit,
            "problem": self.problem,
            "equal": self.is_equal,
            "channels": {name: image_json(image) for name, image in self.channels.items()},
            "labels": mask
            and {**asdict(mask), "equal": mask.is_equal, "equal_pixels": mask.equal, "overlap": mask.overlap},
            "swapped": self.swapped,
            "annotations": {name: list(values) for name, values in self.annotations.items()},
        }


@dataclass(frozen=True)
class SampleSetComparison:
    """How the samples of shards differ from cubes.

    Attributes
    ----------
    samples : tuple of SampleComparison
        One for each interferogram of each sample, in their order.
    elsewhere : dict of str to int
        Samples of other frames, by frame.
    simulated : bool
        Whether any of the data is.
    """

    samples: tuple[SampleComparison, ...]
    elsewhere: dict[str, int]
    simulated: bool

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and nothing differs."""
        return bool(self.samples) and all(sample.is_equal for sample in self.samples)

    @property
    def frames(self) -> list[str]:
        """The frames that were compared."""
        return sorted({sample.frame for sample in self.samples})

    @property
    def findings(self) -> list[Finding]:
        """What differs, over all samples."""
        return list(self._iter_findings())

    def _iter_findings(self) -> Iterator[Finding]:
        total = count_of(len(self.samples), "interferogram")
        problems = [sample for sample in self.samples if sample.problem]
        if problems:
            worst = problems[0]
            yield Finding(
                "samples", f"{len(problems)} of {total} not compared, as {worst.sample}: {worst.problem}"
            )
        swapped = [sample for sample in self.samples if sample.swapped]
        if swapped:
            named = ", ".join(f"{held} in place of {name}" for name, held in swapped[0].swapped.items())
            yield Finding(
                "channels",
                f"in another order in {len(swapped)} of {total}, as in {swapped[0].sample}: {named}",
            )
        for name in CHANNELS:
            differing = [sample for sample in self.samples if name in sample.differing]
            if differing:
                worst = max(differing, key=lambda one: one.channels[name].pixels - one.channels[name].equal)
                words = worst.channels[name].words
                yield Finding(
                    name, f"differs in {len(differing)} of {total}, most in {worst.sample}: {words}"
                )
        labelled = [sample for sample in self.samples if sample.labels and not sample.labels.is_equal]
        if labelled:
            lowest = min(labelled, key=lambda one: one.labels.overlap if one.labels else 1)
            assert lowest.labels is not None
            yield Finding(
                "labels",
                f"differ in {len(labelled)} of {total}, most in {lowest.sample}: {lowest.labels.words}",
            )
        for name in (*FLAGS, *_TEXTS):
            differing = [sample for sample in self.samples if name in sample.annotations]
            if differing:
                mine, theirs = differing[0].annotations[name]
                yield Finding(
                    name,
                    f"differs in {len(differing)} of {total}, as in {differing[0].sample}: "
                    f"{mine!r} and {theirs!r} in the cube",
                )

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "frames": self.frames,
            "simulated": self.simulated,
            "agrees": self.agrees,
            "findings": [asdict(finding) for finding in self.findings],
            "elsewhere": self.elsewhere,
            "samples": [sample.to_json() for sample in self.samples],
        }


def compare_samples(
    samples: Sequence[StoredSample],
    cube_of: Callable[[Frame], ReadableCube | None],
    *,
    listener: ProgressListener | None = None,
) -> SampleSetComparison:
    """Compare samples with the cubes of their frames; one sample is in memory at a time.

    Parameters
    ----------
    samples : sequence of StoredSample
        The samples.
    cube_of : callable
        Returns the cube of a frame; None if its samples are not compared.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If a sample or a cube is damaged, or a sample is none of the published form.
    """
    listener = listener or NullListener()
    stage = "samples compared"
    listener.stage(stage, len(samples))
    compared: list[SampleComparison] = []
    elsewhere: Counter[str] = Counter()
    simulated = False
    for sample in samples:
        cube = cube_of(sample.frame)
        if cube is None:
            elsewhere[sample.frame.id] += 1
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # values of a stranger may be of any size
                compared += _compare_sample(sample, cube)
            simulated = simulated or sample.is_simulated or cube.is_simulated
        listener.advance(stage)
    return SampleSetComparison(tuple(compared), dict(sorted(elsewhere.items())), simulated)


def _compare_sample(sample: StoredSample, cube: ReadableCube) -> Iterator[SampleComparison]:
    """Yield a comparison for each interferogram of a sample."""
    images, labels = sample.image(), sample.labels()
    size = images.shape[2:]
    # an exported window that is larger than its frame is filled up on the right and below
    rows, columns = (min(part, whole) for part, whole in zip(size, cube.grid.shape, strict=True))
    for pair, image, label, told in zip(sample.pairs, images, labels, sample.annotations, strict=True):
        new = partial(
            SampleComparison,
            sample.shard.tar.name,
            sample.key,
            sample.frame.id,
            pair,
            size=(size[0], size[1]),
        )
        if pair not in cube.pairs:
            yield new(problem=f"{cube.label} has no {pair.name}")
            continue
        if label.shape != size:
            what = (
                f"its labels have {label.shape[0]} x {label.shape[1]} pixels, its image {size[0]} x {size[1]}"
            )
            yield new(problem=what)
            continue
        channels = dict(zip(CHANNELS, image[:, :rows, :columns], strict=True))
        window = _find(channels, cube, pair)
        if window is None:
            yield new(problem=f"no window of {cube.label} looks like it")
            continue
        place = slice(window.row, window.row + rows), slice(window.column, window.column + columns)
        theirs = {name: _read(cube, name, pair)[place] for name in CHANNELS if name in cube}
        found = {name: _compare_channel(name, channels[name], theirs[name]) for name in theirs}
        wrong = [name for name, one in found.items() if not _is_within_rounding(name, one)]
        mask = cube.pair_image(_MASK, pair)[place] if _MASK in cube else None
        yield new(
            window=window,
            channels=found,
            labels=None if mask is None else compare_masks(label[:rows, :columns] != 0, mask != 0),
            swapped=_find_swapped({name: channels[name] for name in wrong}, theirs),
            annotations=_compare_annotations(told, cube, pair),
        )


def _find(channels: dict[str, _Image], cube: ReadableCube, pair: Pair) -> FoundWindow | None:
    """Return the window of a sample: by its phase, also with the other sign, else by its heights."""
    phase = to_phasors(cube.pair_image(_PHASE, pair))
    cut = to_phasors(channels[_PHASE])
    tries: list[Callable[[], FoundWindow | None]] = [
        lambda: find_window(phase, cut),
        lambda: find_window(phase, np.conj(cut)),
    ]
    if _DEM in cube:
        heights = heights_to_phasors(channels[_DEM])
        tries.append(lambda: find_window(heights_to_phasors(cube.frame_image(_DEM)), heights))
    for look in tries:
        found = look()
        if found is not None and found.fit >= _LEAST_FIT:
            return found
    return None


def _read(cube: ReadableCube, name: str, pair: Pair) -> _Image:
    """Return the image of a frame that a channel is cut from."""
    axis = next((axis for axis in ("primary_date", "secondary_date") if name.startswith(axis)), "")
    if axis:
        dates = pair.dates
        if pair in cube.swapped:
            dates = dates[::-1]
        return cube.date_image(name, axis, dates[axis == "secondary_date"])
    return cube.frame_image(name) if name == _DEM else cube.pair_image(name, pair)


def _compare_channel(name: str, mine: _Image, theirs: _Image) -> ImageDifference:
    if name == _PHASE:
        return compare_phase(mine, theirs)
    if name == _COHERENCE:
        return compare_coherence(mine, theirs)
    # where a cube has no value, a sample may have 0, since NaN would make a loss NaN
    return compare_heights(np.where((mine == 0) & np.isnan(theirs), np.nan, mine), theirs)


def _is_within_rounding(name: str, image: ImageDifference) -> bool:
    step = cube_schema().variables[name].step
    is_small = step is not None and image.largest <= step and not (image.only_first or image.only_second)
    return image.is_equal or is_small


def _find_swapped(mine: dict[str, _Image], theirs: dict[str, _Image]) -> dict[str, str]:
    """Return for each channel that differs which other variable of the cube it holds, if any."""
    swapped = {}
    for name, image in mine.items():
        for other in mine:
            if other != name and _is_within_rounding(other, _compare_channel(other, image, theirs[other])):
                swapped[name] = other
    return swapped


def _compare_annotations(told: Any, cube: ReadableCube, pair: Pair) -> dict[str, tuple[Any, Any]]:
    keys = {**{name: name for name in FLAGS}, **_TEXTS}
    differing = {}
    for name, key in keys.items():
        if name in cube and key in told:
            values = _told_value(told[key]), plain_value(cube.table(name)[cube.pairs[pair]])
            if values[0] != values[1] and not _is_rounded(*values):
                differing[name] = values
    return differing


def _told_value(value: Any) -> Any:
    """Return a value of ``sample.pth`` as a JSON value of bounded length."""
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return plain_value(value) if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def _is_rounded(one: Any, other: Any) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers and abs(one - other) < 1e-3  # an export writes three decimals of a float32
