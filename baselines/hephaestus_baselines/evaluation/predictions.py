"""Predictions of a model for all items, in a compact form from which any score can be computed later.

Neither torch nor the cubes are needed. Pixels of a segmentation are stored as histograms: the number of
pixels with and without deformation in each of 512 probability bins. At every bin edge, scores of all groups
and resamples are exact.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.tasks import TASK_SPECS, Task
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_zip_hash, check_zip_hash
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart

#: ``data``: pixels where at least one of the item's interferograms has data. ``all``: all pixels.
PixelSet = Literal["data", "all"]
PIXEL_SETS: tuple[PixelSet, ...] = ("data", "all")

PREDICTIONS_FORMAT = "hephaestus-predictions/2"
#: An item is scored as a window if at least this share of its core has data.
MIN_DATA_SHARE = 0.05
#: Number of histogram bins. A power of two, so that `probability * BINS` and all bin edges are exact.
PROBABILITY_BINS = 512
#: An item's probability in a segmentation is reached by this many pixels: about 1 km2 at 0.001 degree.
ALARM_PIXELS = 100
#: Maximum bytes of an archive of predictions and of each array, and of its JSON document.
_MAX_ARCHIVE_BYTES, _MAX_DOCUMENT_BYTES = 4 << 30, 256 << 20
#: Errors that reading a foreign or damaged archive can raise.
_READ_ERRORS = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, OverflowError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error, msgspec.MsgspecError,
)  # fmt: skip


@dataclass(frozen=True)
class PredictedItem:
    """Description of one item, independent of any model.

    Attributes
    ----------
    frame : str
    pairs : tuple of str
        Its interferograms, ``yyyymmdd_yyyymmdd``, ordered by secondary date; a series may repeat some.
    positive : bool
        Whether the expert saw deformation in any of them, inside or outside the tile.
    tile : tuple of int or None
        Row, column and size of the window; None where it was drawn at random.
    events : tuple of str
        Deformation events in its interferograms; empty if there are none.
    region : str
        The volcanoes that the frame covers.
    activity_types, intensities : tuple of str
        The expert's classes for its interferograms.
    volcanoes : tuple of str
        Volcanoes nearest to the events.
    sliver : bool
        Whether the tile shows so little of the deformation that it is neither with nor without.
    """

    frame: str
    pairs: tuple[str, ...]
    positive: bool
    tile: tuple[int, int, int] | None = None
    events: tuple[str, ...] = ()
    region: str = ""
    activity_types: tuple[str, ...] = ()
    intensities: tuple[str, ...] = ()
    volcanoes: tuple[str, ...] = ()
    sliver: bool = False


@dataclass(frozen=True)
class PredictionSource:
    """The model and the split of predictions; only predictions of one source can be combined.

    Attributes
    ----------
    task : str
    model : str
        Key of the run.
    split, sha256 : str
        Name and hash of the split.
    simulated : bool
        Whether any of its frames is simulated.
    """

    task: Task
    model: str
    split: str
    sha256: str
    simulated: bool


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model over one part of a split.

    Attributes
    ----------
    source : PredictionSource
    part : {"train", "validation", "test"}
        Part of the split; thresholds may be chosen on validation only.
    rows : tuple of PredictedItem
    label : numpy.ndarray
        bool, shape (N,): whether the item's window has a pixel with deformation. Of a task that tells its
        kind int8: the class, -1 if it is not known.
    probability : numpy.ndarray
        float32, shape (N,): probability of deformation. For segmentation, see :func:`item_probability`. Of a
        task that tells its kind (N, K): that of each class.
    scored : numpy.ndarray
        bool, shape (N,): whether the item is scored as a window. Slivers of deformation and windows almost
        without data are not; they count in interferograms and pixels. Nor are those without a known class.
    pixels : mapping of {"data", "all"} to numpy.ndarray, or None
        uint32, shape (N, 2, BINS): histograms of pixels without and with deformation; None for
        classification.
    """

    source: PredictionSource
    part: SplitPart
    rows: tuple[PredictedItem, ...]
    label: np.ndarray
    probability: np.ndarray
    scored: np.ndarray
    pixels: Mapping[PixelSet, np.ndarray] | None = None

    def __post_init__(self) -> None:
        count = len(self.rows)
        shapes = [values.shape == (count,) for values in (self.label, self.scored)]
        shapes += [self.probability.shape == (count, *_case_shape(self.source.task))]
        shapes += [values.shape == (count, 2, PROBABILITY_BINS) for values in (self.pixels or {}).values()]
        if not all(shapes) or TASK_SPECS[self.source.task].per_pixel != (self.pixels is not None):
            raise ValueError(f"the arrays do not fit {count} items of a {self.source.task}")
        if not np.all((self.probability >= 0) & (self.probability <= 1)):
            raise HephaestusError(
                f"{self.source.model} returned invalid probabilities (its training may have diverged); "
                "start it again with a lower learning rate"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, chosen: npt.NDArray[Any]) -> Predictions:
        """Return the items at the positions `chosen`, int or bool of shape (N,)."""
        places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return replace(
            self,
            rows=tuple(self.rows[place] for place in places),
            label=self.label[places],
            probability=self.probability[places],
            scored=self.scored[places],
            pixels=self.pixels and {name: values[places] for name, values in self.pixels.items()},
        )

    @cached_property
    def clusters(self) -> npt.NDArray[Any]:
        """Resampling cluster of each item, int of shape (N,); see :func:`cluster_items`."""
        return cluster_items(self.rows)

    def by_interferogram(self) -> Predictions:
        """Return one item per interferogram (or series), with the highest probability of its tiles.

        Alarms are raised on this unit. The label is the expert's for the whole frame, so deformation outside
        all tiles counts as missed. Histograms of tiles are summed.
        """
        places: dict[tuple[str, tuple[str, ...]], int] = {}
        group = np.array(
            [places.setdefault((row.frame, row.pairs), len(places)) for row in self.rows], dtype=int
        )
        first = np.unique(group, return_index=True)[1]
        highest = np.zeros(len(places), "f4")
        np.maximum.at(highest, group, self.probability)
        pixels: dict[PixelSet, np.ndarray] | None = None
        if self.pixels is not None:
            pixels = {}
            for name, values in self.pixels.items():
                pixels[name] = np.zeros((len(places), 2, PROBABILITY_BINS), values.dtype)
                np.add.at(pixels[name], group, values)
        rows = tuple(replace(self.rows[place], tile=None) for place in first)
        return replace(
            self, rows=rows, label=np.array([row.positive for row in rows], bool), probability=highest,
            scored=np.ones(len(rows), bool), pixels=pixels,
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write the predictions to `path` (``.npz``) with a content hash, atomically.

        Raises
        ------
        HephaestusError
            If the file cannot be written.
        """
        document = {
            "format": PREDICTIONS_FORMAT,
            "source": asdict(self.source),
            "part": self.part,
            "rows": [asdict(row) for row in self.rows],
        }
        arrays: dict[str, Any] = {
            "label": self.label,
            "probability": self.probability,
            "scored": self.scored,
        }
        arrays |= {f"pixels_{name}": values for name, values in (self.pixels or {}).items()}
        stream = io.BytesIO()
        np.savez_compressed(stream, document=np.frombuffer(json.dumps(document).encode(), "u1"), **arrays)
        with (
            translate_os_errors(f"{self.source.model}: writing {path}", setting="--results"),
            add_zip_hash(stream) as sealed,
        ):
            write_atomic(path, sealed)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a file that :meth:`write` wrote.

        Raises
        ------
        HephaestusError
            If the file is missing, damaged or of another format.
        """
        try:
            content = io.BytesIO(read_bounded(path, _MAX_ARCHIVE_BYTES))
            check_zip_hash(content)
            with zipfile.ZipFile(content) as archive:
                document = msgspec.convert(
                    parse_json(_read_array(archive, "document", "u1", None).tobytes()), _PredictionsDocument
                )
                rows = tuple(document.rows)
                count = len(rows)
                pixels: dict[PixelSet, np.ndarray] = {
                    name: _read_array(archive, f"pixels_{name}", "u4", (count, 2, PROBABILITY_BINS))
                    for name in PIXEL_SETS
                    if TASK_SPECS[document.source.task].per_pixel
                }
                return cls(
                    document.source,
                    document.part,
                    rows,
                    _read_array(archive, "label", _label_type(document.source.task), (count,)),
                    _read_array(archive, "probability", "f4", (count, *_case_shape(document.source.task))),
                    _read_array(archive, "scored", "?", (count,)),
                    pixels or None,
                )
        except (*_READ_ERRORS, HephaestusError) as error:
            raise HephaestusError(
                f"{path} holds no predictions that can be read ({sanitize_text(error, 200)}); remove it "
                "and run "
                f"`hephaestus benchmark run` again, without result.json beside it: the model predicts again"
            ) from error


class _PredictionsDocument(msgspec.Struct, forbid_unknown_fields=True):
    """JSON document of an archive of predictions: source, part and rows."""

    format: Literal["hephaestus-predictions/2"]
    source: PredictionSource
    part: SplitPart
    rows: list[PredictedItem]


def _case_shape(task: Task) -> tuple[int, ...]:
    """Return the shape of the answer for one item: one probability, or one for each class."""
    spec = TASK_SPECS[task]
    return (len(spec.classes),) if spec.tells_kind else ()


def _label_type(task: Task) -> str:
    return "i1" if TASK_SPECS[task].tells_kind else "?"


def _read_array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...] | None) -> np.ndarray:
    """Read an array of an archive; its declared size is checked before memory is allocated.

    Parameters
    ----------
    archive : zipfile.ZipFile
    name : str
        Name of the array.
    dtype : str
        Expected type.
    shape : tuple of int or None
        Expected shape; None for one dimension of any length.

    Raises
    ------
    ValueError
        If the array has another type, shape or size.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} has an unknown compression method")
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name} has the npy version {version}")
        found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
        size = math.prod(found) * kind.itemsize
        if (
            kind != np.dtype(dtype)
            or fortran
            or found != (shape or found[:1])
            or size > (_MAX_ARCHIVE_BYTES if shape else _MAX_DOCUMENT_BYTES)
            or entry.file_size != stream.tell() + size
        ):
            raise ValueError(f"{name} has another type, shape or size than expected")
        values = np.frombuffer(stream.read(size), kind)
    if len(values) * kind.itemsize != size:
        raise ValueError(f"{name} is truncated")
    return values.reshape(found)


def count_pixel_histograms(
    probability: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    inside: npt.NDArray[np.bool],
    data: npt.NDArray[np.bool],
) -> dict[PixelSet, npt.NDArray[Any]]:
    """Count pixels by truth and probability bin.

    Parameters
    ----------
    probability : numpy.ndarray
        Shape (N, rows, columns), 0 to 1.
    mask : numpy.ndarray
        Same shape, above 0 for deformation.
    inside : numpy.ndarray
        Same shape or broadcastable, bool: pixels of the tile's core, so that overlapping tiles count no
        pixel twice.
    data : numpy.ndarray
        Same shape, bool: pixels where any of the item's interferograms has data. The experts could not see
        deformation in the other pixels, although their outlines may include them.

    Returns
    -------
    dict
        ``data`` and ``all``, each uint32 of shape (N, 2, BINS): see :class:`Predictions`.
    """
    count = len(probability)
    # NaN would be counted in an arbitrary bin
    if not np.all((probability >= 0) & (probability <= 1)):
        raise HephaestusError(
            "the model returned invalid probabilities (its training may have diverged); "
            "start it again with a lower learning rate"
        )
    step = np.minimum((probability * PROBABILITY_BINS).astype(np.int64), PROBABILITY_BINS - 1)
    place = (np.arange(count)[:, None, None] * 2 + (mask > 0)) * PROBABILITY_BINS + step
    counted: dict[PixelSet, np.ndarray] = {
        "data": np.broadcast_to(inside & data, place.shape),
        "all": np.broadcast_to(inside, place.shape),
    }
    return {
        name: np.bincount(place[chosen], minlength=count * 2 * PROBABILITY_BINS)
        .reshape(count, 2, PROBABILITY_BINS)
        .astype(np.uint32)
        for name, chosen in counted.items()
    }


def item_probability(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the highest probability that at least :data:`ALARM_PIXELS` pixels of a segmented item reach.

    Single pixels are noise, not an alarm. If an item has fewer pixels, all of them have to reach it.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (N, 2, BINS), as :func:`count_pixel_histograms` counts them.

    Returns
    -------
    numpy.ndarray
        float32, shape (N,): a multiple of 1 / BINS, 0 for an item without pixels.
    """
    # pixels at or above each bin
    reached = np.cumsum(pixels.sum(axis=1, dtype=np.int64)[:, ::-1], axis=1)[:, ::-1]
    wanted = np.clip(reached[:, :1], 1, ALARM_PIXELS)
    return (np.maximum((reached >= wanted).sum(axis=1) - 1, 0) / PROBABILITY_BINS).astype("f4")


@dataclass
class PredictionCollector:
    """Collect the predictions of a model batch by batch, in any order, and check that none is missing.

    Parameters
    ----------
    source : PredictionSource
    part : {"train", "validation", "test"}
    rows : sequence of PredictedItem
        All items to be predicted.
    """

    source: PredictionSource
    part: SplitPart
    rows: Sequence[PredictedItem]
    _label: np.ndarray = field(init=False, repr=False)
    _probability: np.ndarray = field(init=False, repr=False)
    _scored: np.ndarray = field(init=False, repr=False)
    _pixels: dict[PixelSet, np.ndarray] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        count = len(self.rows)
        task = self.source.task
        self._label = np.zeros(count, _label_type(task))
        self._probability = np.full((count, *_case_shape(task)), np.nan, "f4")
        self._scored = np.array([not row.sliver for row in self.rows], bool)
        if TASK_SPECS[task].per_pixel:
            self._pixels = {name: np.zeros((count, 2, PROBABILITY_BINS), np.uint32) for name in PIXEL_SETS}

    def add(
        self,
        index: npt.NDArray[Any],
        label: npt.NDArray[Any],
        probability: npt.NDArray[Any] | None = None,
        pixels: Mapping[PixelSet, npt.NDArray[Any]] | None = None,
        *,
        data_share: npt.NDArray[Any] | None = None,
    ) -> None:
        """Add the predictions of a batch of B items.

        Parameters
        ----------
        index : numpy.ndarray
            int, shape (B,): positions in the rows.
        label : numpy.ndarray
            Shape (B,): whether the window has deformation, or its class.
        probability : numpy.ndarray, optional
            Shape (B,), or (B, K) of K classes; for segmentation it is computed from `pixels` by default.
        pixels : mapping, optional
            Histograms of a segmentation, as :func:`count_pixel_histograms` returns them (they may also be
            counted on the device).
        data_share : numpy.ndarray, optional
            Shape (B,): share of the pixels of each item's core that have data; 1 by default.
        """
        index = np.asarray(index)
        if self._pixels is not None:
            if pixels is None:
                raise ValueError("pixel histograms are required for a segmentation")
            for name, values in self._pixels.items():
                values[index] = np.asarray(pixels[name])
            if probability is None:
                probability = item_probability(self._pixels["data"][index])
        if probability is None:
            raise ValueError("probabilities are required for a classification")
        if TASK_SPECS[self.source.task].tells_kind:
            self._label[index] = label
            self._scored[index] &= np.asarray(label) >= 0
        else:
            self._label[index] = np.asarray(label) > 0
        if data_share is not None:
            self._scored[index] &= np.asarray(data_share) >= MIN_DATA_SHARE
        self._probability[index] = np.asarray(probability)

    def finish(self) -> Predictions:
        """Return the predictions.

        Raises
        ------
        HephaestusError
            If an item has no prediction, or a prediction is NaN.
        """
        open_ = int(np.isnan(self._probability.reshape(len(self.rows), -1)).any(axis=1).sum())
        if open_:
            raise HephaestusError(
                f"{self.source.model}: {open_} of {len(self.rows)} items of {self.part} have no probability "
                "(never asked for, or the model gave NaN); run `hephaestus benchmark` again"
            )
        return Predictions(
            self.source,
            self.part,
            tuple(self.rows),
            self._label,
            self._probability,
            self._scored,
            self._pixels,
        )


def cluster_items(rows: Sequence[PredictedItem]) -> npt.NDArray[Any]:
    """Return the resampling cluster of each item, as a number.

    Items that share an event form a cluster, as do the items of events that share an item, because repeated
    views of an event are not independent. Items without deformation are clustered by frame and primary
    acquisition, whose atmosphere they share.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = name = parent[above]
        return name

    names = []
    for row in rows:
        keys = [f"event {event}" for event in row.events] or [f"quiet {row.frame} {row.pairs[0][:8]}"]
        for key in keys[1:]:
            parent[root(key)] = root(keys[0])
        names.append(keys[0])
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(root(name), len(numbers)) for name in names], dtype=int)
