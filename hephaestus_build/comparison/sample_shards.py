"""Samples of the published WebDataset form: tar files of ``image.pth``, ``labels.pth`` and ``sample.pth``.

Each sample is an interferogram, or a series of several with one primary date, cut to a window. Shards do not
name their channels; their order is that of :data:`~hephaestus_build.cube.schema.CHANNELS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.comparison.torch_values import MAX_FILE_BYTES, decode_torch_file
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.plain_files import is_plain_file, is_real_folder, walk_files
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.cube.reading.store_objects import read_object
from hephaestus_build.cube.reading.tar_objects import TarObjects, index_tar
from hephaestus_build.cube.schema import CHANNELS

_IMAGE, _LABELS, _ABOUT = "image.pth", "labels.pth", "sample.pth"
_MAX_STEPS = 100


@dataclass(frozen=True)
class StoredSample:
    """A sample in a shard; its images are read when they are asked for.

    Attributes
    ----------
    shard : TarObjects
        The members of the tar file.
    key : str
        Name of its files up to the first dot.
    """

    shard: TarObjects
    key: str

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.shard.tar.name}: {sanitize_text(self.key, 100)}"

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """What its ``sample.pth`` holds; nothing in it is trusted."""
        about = self._decode(_ABOUT)
        if not isinstance(about, dict):
            raise self._refusal(_ABOUT, "it is no dictionary")
        return about

    @cached_property
    def annotations(self) -> tuple[Mapping[str, Any], ...]:
        """The annotation of each interferogram, as its file has it."""
        found = self.about.get("annotation")
        if not isinstance(found, list) or not 0 < len(found) <= _MAX_STEPS:
            raise self._refusal(_ABOUT, f"it has no list of 1 to {_MAX_STEPS} annotations")
        if not all(isinstance(one, dict) for one in found):
            raise self._refusal(_ABOUT, "its annotations are no dictionaries")
        return tuple(found)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The dates of each interferogram."""
        try:
            return tuple(
                Pair(parse_day(str(one["primary_date"])), parse_day(str(one["secondary_date"])))
                for one in self.annotations
            )
        except (KeyError, ValueError, UsageError) as error:
            raise self._refusal(_ABOUT, f"its annotations state no pair of dates: {error}") from error

    @cached_property
    def frame(self) -> Frame:
        """Its frame."""
        try:
            return Frame.parse(str(self.about.get("frame_id"))[:100])
        except UsageError as error:
            raise self._refusal(_ABOUT, f"its frame_id is none: {error}") from error

    @property
    def is_simulated(self) -> bool:
        """Whether the data is simulated, as its frame's id or its ``sample.pth`` says."""
        return self.frame.is_simulated or self.about.get("simulated") is True

    def image(self) -> npt.NDArray[Any]:
        """Return its channels, shape (interferograms, channels, rows, columns)."""
        image = self._tensor(_IMAGE)
        steps = len(self.pairs)
        if image.shape[0] != steps * len(CHANNELS):
            raise self._refusal(
                _IMAGE, f"it has {image.shape[0]} channels in place of {len(CHANNELS)} for each of {steps}"
            )
        return image.reshape(steps, len(CHANNELS), *image.shape[1:])

    def labels(self) -> npt.NDArray[Any]:
        """Return its labels, shape (interferograms, rows, columns)."""
        labels = self._tensor(_LABELS)
        if labels.shape[0] != len(self.pairs):
            raise self._refusal(
                _LABELS, f"it has {labels.shape[0]} masks, and there are {len(self.pairs)} pairs"
            )
        return labels

    def _tensor(self, name: str) -> npt.NDArray[Any]:
        values = self._decode(name)
        if not isinstance(values, np.ndarray) or values.ndim != 3 or 0 in values.shape:
            shape = f"of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise self._refusal(name, f"it is no tensor of three dimensions, but {shape}")
        return values

    def _decode(self, name: str) -> Any:
        try:
            return decode_torch_file(read_object(self.shard, f"{self.key}.{name}", MAX_FILE_BYTES))
        except FileNotFoundError as error:
            raise self._refusal(name, "it is not in the shard") from error
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise self._refusal(name, str(reason)) from error

    def _refusal(self, name: str, why: str) -> HephaestusError:
        return HephaestusError(
            f"{self.shard.tar}: {sanitize_text(self.key, 100)}.{name} cannot be compared: {why}; nothing "
            f"in it was run, docs/published.md says what is read"
        )


def find_samples(path: Path, listener: ProgressListener | None = None) -> list[StoredSample]:
    """Return the samples of a shard, or of the shards below a folder, in their order.

    Raises
    ------
    UsageError
        If there are none.
    HephaestusError
        If a shard is cut or damaged, or has members that no shard has.
    """
    path = path.resolve()
    if is_real_folder(path):
        shards = [path / name for name, _ in walk_files(path) if name.endswith(".tar")]
    else:
        shards = [path]
        if not is_plain_file(path.parent, path.name):
            what = "no plain file that can be read" if path.exists() else "not there"
            raise UsageError(f"{path} is {what}; give a shard (.tar), or a folder of shards")
    found = [sample for shard in shards for sample in _iter_samples(index_tar(shard, listener))]
    if not found:
        raise UsageError(
            f"{path} holds no samples, which are files such as sample000000.{_ABOUT} in a tar file"
        )
    return found


def _iter_samples(shard: TarObjects) -> Iterator[StoredSample]:
    for name in shard:
        if name.endswith(f".{_ABOUT}"):
            yield StoredSample(shard, name.removesuffix(f".{_ABOUT}"))
