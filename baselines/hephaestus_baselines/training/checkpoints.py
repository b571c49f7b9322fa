"""Checkpoints: sealed files of weights and what belongs to them, read without running anything in them.

A checkpoint may come from a stranger. It is opened only as what :func:`write_checkpoint` writes: an archive
of stored members, no larger in memory than on disk, whose pickle holds tensors and plain values alone.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_build.core.atomic_io import write_atomic
from hephaestus_build.core.embedded_hash import MissingHashError, add_zip_hash, check_zip_hash
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import sanitize_text

#: What a checkpoint holds beside Lightning's own: an :class:`CheckpointMetadata` as plain values.
METADATA_KEY = "hephaestus"
#: Bytes of the pickle in a checkpoint, which names every tensor; no model's has a million.
_MAX_PICKLE_BYTES = 16 << 20
_MAX_MEMBERS = 100_000
#: Plain values in what a checkpoint says of itself: 10,000 epochs have so many.
_MAX_METADATA_VALUES = 200_000
_MAX_TEXT_LENGTH = 10_000  # characters of one text in it
#: What torch.save puts into an archive beside the numbered tensors.
_KNOWN_MEMBERS = (
    "data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id",
)  # fmt: skip


class DamagedCheckpointError(HephaestusError):
    """A checkpoint that is not what was written; the message says why."""


class EpochMetrics(BaseModel):
    """What is known of one epoch: a row of ``metrics.csv``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_score: float
    seconds: float
    samples_per_second: float


class CheckpointMetadata(BaseModel):
    """All that predicting needs beside the weights, and what it takes to go on with the numbers of one run.

    Attributes
    ----------
    recipe : Recipe
    moments : dict of str to (mean, deviation)
        What channels are normalised by.
    simulated : bool
        Whether it learnt from simulated data.
    split_sha256 : str
    generations : dict of frame id to str
        The cubes that it learns from.
    versions : dict of str to str
        Of Python and the libraries, and ``device``: numbers may depend on these.
    history : list of EpochMetrics
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    moments: dict[str, tuple[float, float]]
    simulated: bool
    split_sha256: str
    generations: dict[str, str]
    versions: dict[str, str]
    history: list[EpochMetrics]


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint, sealed, whole or not at all, and onto the disk."""
    stream = io.BytesIO()
    torch.save(dict(content), stream)
    write_atomic(path, add_zip_hash(stream), durable=True)


def read_checkpoint(path: Path, *, unsealed: bool = False) -> dict[str, Any]:
    """Return all that a checkpoint holds, on the CPU; no code in it is run.

    Parameters
    ----------
    path : pathlib.Path
    unsealed : bool
        Whether to read one without a seal too, if the checksums of its members are right.

    Raises
    ------
    HephaestusError
        If it is missing, damaged (by a single bit too), or not of this project.
    """
    try:
        content = load_checkpoint_archive(path, unsealed=unsealed)
        if METADATA_KEY not in content or not isinstance(content.get("state_dict"), Mapping):
            raise ValueError("it is not of this project")
        content[METADATA_KEY] = parse_checkpoint_metadata(content[METADATA_KEY])
        return content
    except FileNotFoundError as error:
        raise HephaestusError(
            f"there is no checkpoint {path}; `hephaestus benchmark run` trains models"
        ) from error
    except MissingHashError as error:
        raise DamagedCheckpointError(
            f"the checkpoint {path} cannot be read ({error}: it is damaged, or not of this project); take a "
            "whole copy of it, or remove it and run the same command again; `hephaestus benchmark predict "
            "--unsealed` reads it unchecked"
        ) from error
    except Exception as error:  # an archive of others fails in many ways
        raise DamagedCheckpointError(
            f"the checkpoint {path} cannot be read ({_shorten_error(error)}); take a whole copy of it, or "
            "remove it "
            "and run the same command again"
        ) from error


def load_checkpoint_archive(path: Path, *, unsealed: bool = False) -> dict[str, Any]:
    """Return what :func:`write_checkpoint` wrote, after a look at its seal and its members.

    Raises
    ------
    MissingHashError
        If it has no seal.
    ValueError
        If it is not what was sealed, or no such archive.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no plain file")
        try:
            check_zip_hash(stream)
        except MissingHashError:
            if not unsealed:
                raise
            _check_unhashed_archive(stream)
        _check_members(stream)
        stream.seek(0)
        with warnings.catch_warnings():  # of what others put in: nothing for a user to act on
            warnings.simplefilter("ignore")
            content = torch.load(stream, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError("it is not of this project")
    return content


def _check_unhashed_archive(stream: BinaryIO) -> None:
    with zipfile.ZipFile(stream) as archive:
        _check_entries(archive.infolist(), stream.seek(0, io.SEEK_END))
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} in it is wrong")


def _check_members(stream: BinaryIO) -> None:
    size = stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        _check_entries(archive.infolist(), size)


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError unless the members are those of a checkpoint, and need no more memory than disk."""
    if len(entries) > _MAX_MEMBERS or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is no archive of a checkpoint")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its members claim to be larger than the file")
    folders = {entry.filename.partition("/")[0] for entry in entries}
    names = [entry.filename.partition("/")[2] for entry in entries]
    if len(folders) != 1 or len(set(names)) != len(names):
        raise ValueError("it is no archive of a checkpoint")
    for entry, name in zip(entries, names, strict=True):
        kind, _, number = name.partition("/")
        if name not in _KNOWN_MEMBERS and not (kind == "data" and number.isdecimal()):
            raise ValueError(f"it holds {sanitize_text(name, 60)!r}, which is no part of a checkpoint")
        if name == "data.pkl" and entry.file_size > _MAX_PICKLE_BYTES:
            raise ValueError("its list of tensors is larger than that of any model")


def parse_checkpoint_metadata(value: Any) -> CheckpointMetadata:
    """Return what a checkpoint says of itself, each value of its kind and none without bounds.

    Raises
    ------
    ValueError
        If anything is missing, unknown, or of another kind.
    """
    _check_plain_values(value)
    return CheckpointMetadata.model_validate(value)


def _check_plain_values(value: Any) -> None:
    """Raise ValueError unless `value` is of plain values, no more than a bound however they repeat."""
    pending, count = [value], 0
    while pending:
        item = pending.pop()
        count += 1
        if count > _MAX_METADATA_VALUES:
            raise ValueError("it says more of itself than any checkpoint does")
        if isinstance(item, dict):
            pending += (
                [*item.keys(), *item.values()]
                if len(item) <= _MAX_METADATA_VALUES
                else [item] * _MAX_METADATA_VALUES
            )
        elif isinstance(item, list | tuple):
            pending += item[:_MAX_METADATA_VALUES]
        elif isinstance(item, str):
            if len(item) > _MAX_TEXT_LENGTH:
                raise ValueError("a text in it is longer than any that belongs there")
        elif isinstance(item, int) and item.bit_length() > 64:
            raise ValueError("a number in it is larger than any that belongs there")
        elif not isinstance(item, int | float | None):
            raise ValueError(f"it holds a {type(item).__name__} where plain values belong")


def load_weights(model: nn.Module, weights: Mapping[Any, Any]) -> None:
    """Give a model the weights of a checkpoint; exactly its own names, shapes and types.

    Raises
    ------
    ValueError
        If any is missing, unknown, or of another form.
    """
    wanted = model.state_dict()
    if wanted.keys() != weights.keys():
        strange = next(iter(wanted.keys() ^ weights.keys()))
        raise ValueError(f"{sanitize_text(strange, 100)} is in one of the two only")
    for name, mine in wanted.items():
        given = weights[name]
        if (
            not isinstance(given, Tensor)
            or given.is_sparse
            or given.is_quantized
            or given.device.type != "cpu"
        ):
            raise ValueError(f"{name} is no plain tensor")
        if (given.shape, given.dtype) != (mine.shape, mine.dtype):
            raise ValueError(f"{name} is {tuple(given.shape)}, not {tuple(mine.shape)}")
        if given.untyped_storage().nbytes() < given.numel() * given.element_size():
            raise ValueError(f"{name} claims more values than it has")
    model.load_state_dict(weights)


def _shorten_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return sanitize_text(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
    return sanitize_text(error, 200)
