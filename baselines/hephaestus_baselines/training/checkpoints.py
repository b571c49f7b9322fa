"""Checkpoints: files of weights and metadata with a content hash, read without executing code in them.

A checkpoint may come from an untrusted source. Only files as :func:`write_checkpoint` writes them are
accepted: a zip archive of uncompressed members, no larger in memory than on disk, whose pickle has only
tensors and plain values.
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
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.validation_errors import first_mistake
from hephaestus_build.core.atomic_io import write_atomic
from hephaestus_build.core.embedded_hash import MissingHashError, add_zip_hash, check_zip_hash
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_text import sanitize_text

#: Key of the :class:`CheckpointMetadata`, as plain values, beside Lightning's own keys.
METADATA_KEY = "hephaestus"
#: Bytes of the pickle in a checkpoint, which lists every tensor; real models need less than 1 MB.
_MAX_PICKLE_BYTES = 16 << 20
_MAX_MEMBERS = 100_000
#: Bytes of the list of arrays in weights of the format safetensors; the largest model here needs 60 kB.
_MAX_HEADER_BYTES = 4 << 20
_SAFETENSORS_TYPES = {torch.float32: "F32", torch.int64: "I64"}
#: Plain values in a checkpoint's metadata; enough for 10,000 epochs.
_MAX_METADATA_VALUES = 200_000
_MAX_TEXT_LENGTH = 10_000  # characters of one string in the metadata
#: Members that torch.save writes beside the numbered tensors.
_KNOWN_MEMBERS = (
    "data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id",
)  # fmt: skip


class DamagedCheckpointError(HephaestusError):
    """A damaged or unusable checkpoint; the message states the cause."""


class EpochMetrics(BaseModel):
    """The metrics of one epoch: a row of ``metrics.csv``."""

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
    """What prediction needs besides the weights, and what resuming a run needs.

    Attributes
    ----------
    recipe : Recipe
    moments : dict of str to (mean, deviation)
        Mean and standard deviation by which each channel is normalised.
    simulated : bool
        Whether the model is trained on simulated data.
    split_sha256 : str
        Hash of the split.
    generations : dict of frame id to str
        Generations of the cubes that it is trained on.
    versions : dict of str to str
        Versions of Python and the libraries, and ``device``; results may depend on these.
    history : list of EpochMetrics
        One entry per epoch so far.
    calibration : tuple of float or None
        Slope and offset of the logits that were fitted to validation, which the weights of ``best.ckpt``
        include; None for a recipe that is not calibrated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    moments: dict[str, tuple[float, float]]
    simulated: bool
    split_sha256: str
    generations: dict[str, str]
    versions: dict[str, str]
    history: list[EpochMetrics]
    calibration: tuple[float, float] | None = None


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint with its content hash, atomically, and sync it to disk."""
    stream = io.BytesIO()
    torch.save(dict(content), stream)
    with add_zip_hash(stream) as sealed:  # released even if the disk is full
        write_atomic(path, sealed, durable=True)


def read_checkpoint(path: Path, *, unsealed: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing code in it.

    Parameters
    ----------
    path : pathlib.Path
    unsealed : bool
        Whether to accept a checkpoint without a content hash if the checksums of its members are correct.

    Raises
    ------
    HephaestusError
        If the checkpoint is missing, damaged (even by one bit), or was not written by this project.
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
            f"the checkpoint {path} cannot be read ({error}: it is damaged, or not of this project); restore "
            "it from a copy, or remove it and run the same command again; `hephaestus benchmark predict "
            "--unsealed` reads it without this check"
        ) from error
    except Exception as error:  # a foreign archive can fail in many ways
        raise DamagedCheckpointError(
            f"the checkpoint {path} cannot be read ({first_mistake(error)}); restore it from a copy, or "
            "remove it and run the same command again"
        ) from error


def load_checkpoint_archive(path: Path, *, unsealed: bool = False) -> dict[str, Any]:
    """Load an archive that :func:`write_checkpoint` wrote, after checking its content hash and its members.

    Raises
    ------
    MissingHashError
        If it has no content hash.
    ValueError
        If its content does not match its hash, or it is no archive of a checkpoint.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        try:
            check_zip_hash(stream)
        except MissingHashError:
            if not unsealed:
                raise
            _check_unhashed_archive(stream)
        _check_members(stream)
        stream.seek(0)
        with warnings.catch_warnings():  # torch's warnings about foreign content: a user cannot act on them
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
    """Raise ValueError unless the members are those of a checkpoint, no larger in memory than on disk."""
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
            raise ValueError("its list of tensors is too long")


def parse_checkpoint_metadata(value: Any) -> CheckpointMetadata:
    """Validate the metadata of a checkpoint: the type of each value, and its size.

    Raises
    ------
    ValueError
        If a value is missing, unknown, too large, or of another type.
    """
    _check_plain_values(value)
    return CheckpointMetadata.model_validate(value)


def _check_plain_values(value: Any) -> None:
    """Raise ValueError unless `value` has only plain values, and not too many of them, repeats included."""
    pending, count = [value], 0
    while pending:
        item = pending.pop()
        count += 1
        if count > _MAX_METADATA_VALUES:
            raise ValueError("its metadata has too many values")
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
                raise ValueError("a text in its metadata is too long")
        elif isinstance(item, int) and item.bit_length() > 64:
            raise ValueError("a number in its metadata is too large")
        elif not isinstance(item, int | float | None):
            raise ValueError(f"its metadata holds a {type(item).__name__}, which is no plain value")


def load_weights(model: nn.Module, weights: Mapping[Any, Any]) -> None:
    """Load the weights of a checkpoint into a model; names, shapes and types must match exactly.

    Raises
    ------
    ValueError
        If an array is missing, unknown, or of another shape or type.
    """
    wanted = model.state_dict()
    if wanted.keys() != weights.keys():
        strange = next(iter(wanted.keys() ^ weights.keys()))
        raise ValueError(f"{sanitize_text(strange, 100)} is only in one of model and checkpoint")
    for name, mine in wanted.items():
        given = weights[name]
        if (
            not isinstance(given, Tensor)
            or given.is_sparse
            or given.is_quantized
            or given.device.type != "cpu"
        ):
            raise ValueError(f"{name} is not a dense CPU tensor")
        if (given.shape, given.dtype) != (mine.shape, mine.dtype):
            raise ValueError(f"{name} has the shape {tuple(given.shape)}, not {tuple(mine.shape)}")
        if given.untyped_storage().nbytes() < given.numel() * given.element_size():
            raise ValueError(f"{name} has fewer values than its shape needs")
    model.load_state_dict(weights)


def load_safetensors_weights(model: nn.Module, content: bytes) -> None:
    """Load weights in the format safetensors; names, shapes and types are compared before any is decoded.

    Parameters
    ----------
    model : torch.nn.Module
        The model whose arrays the file must hold.
    content : bytes
        Content of the file.

    Raises
    ------
    ValueError
        If it is not of that format, or an array is missing, unknown, or of another shape or type.
    """
    _check_safetensors_header(content, model.state_dict())
    try:
        weights = load_safetensors(content)
    except SafetensorError as error:
        raise ValueError(f"its weights cannot be read ({sanitize_text(error, 100)})") from error
    load_weights(model, weights)


def _check_safetensors_header(content: bytes, wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless weights in the format safetensors list exactly the arrays of a model."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= size <= min(_MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError("its list of weights is too long, or cut off")
    header = parse_json(content[8 : 8 + size], limit=_MAX_HEADER_BYTES)
    if not isinstance(header, dict):
        raise ValueError("it has no list of weights")
    header.pop("__metadata__", None)
    if header.keys() != wanted.keys():
        strange = sanitize_text(next(iter(header.keys() ^ wanted.keys())), 100)
        raise ValueError(f"{strange} is only in one of recipe and weights")
    for name, mine in wanted.items():
        given = header[name]
        shape, dtype = (given.get("shape"), given.get("dtype")) if isinstance(given, dict) else (None, None)
        if shape != list(mine.shape) or dtype != _SAFETENSORS_TYPES.get(mine.dtype):
            raise ValueError(
                f"{name} is {sanitize_text(dtype, 10)} of the shape {sanitize_text(shape, 60)}, not "
                f"{_SAFETENSORS_TYPES.get(mine.dtype)} of {list(mine.shape)}"
            )
