"""Values of ``.pth`` files, read without PyTorch, without running anything, and within bounds.

A ``.pth`` file is an uncompressed zip archive of a pickle and the raw values of tensors. A pickle can call
any function that it names; here it is refused unless it consists of tensors and plain values alone.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.plain_text import sanitize_text

#: Size of the largest file that is read: a series of 27 pairs of 512 x 512 pixels.
MAX_FILE_BYTES = 1 << 28
_MAX_PICKLE_BYTES = 1 << 20  # the largest published annotation takes 5 kB
_MAX_ENTRIES = 64
#: A tensor takes four. Tuples within tuples are what a hash descends into.
_MAX_TUPLES = 100
_MAX_DIMENSIONS = 4
#: What a pickle of tensors and plain values consists of, in protocol 2, which PyTorch writes.
_OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET",
    "LONG_BINGET", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE",
    "NEWFALSE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS",
})  # fmt: skip
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def decode_torch_file(content: bytes) -> Any:
    """Return what a ``.pth`` file holds: numbers, texts, lists, dictionaries, and tensors as NumPy arrays.

    Parameters
    ----------
    content : bytes
        The file.

    Raises
    ------
    ValueError
        If it is damaged, too large, or holds anything else; nothing of it was run.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
    # each entry of a zip archive begins so, and the library reads as many as there are
    if content.count(b"PK\1\2") > _MAX_ENTRIES:
        raise ValueError(f"it has more than {_MAX_ENTRIES} entries")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _Reader(archive, len(content)).read()
    except ValueError:
        raise
    except Exception as error:  # zipfile and pickle raise many types for damaged files
        raise ValueError(f"it is damaged, or no file of torch.save ({sanitize_text(error, 100)})") from error


class _Reader:
    """Reads the pickle of an archive, and the raw values that it refers to."""

    def __init__(self, archive: zipfile.ZipFile, limit: int) -> None:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which torch.save does not do")
        if sum(entry.file_size for entry in entries) > limit:
            raise ValueError("its entries overlap")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"it does not hold one pickle of at most {_MAX_PICKLE_BYTES >> 20} MiB")
        self.archive, self.root = archive, pickles[0].filename.removesuffix("/data.pkl")
        self.raw: dict[str, bytes] = {}

    def read(self) -> Any:
        """Return the value of the pickle."""
        pickled = self.archive.read(f"{self.root}/data.pkl")
        _check_opcodes(pickled)
        return _PlainUnpickler(io.BytesIO(pickled), self).load()

    def storage(self, dtype: np.dtype[Any], key: str) -> npt.NDArray[Any]:
        """Return all raw values under a key."""
        if key not in self.raw:
            self.raw[key] = self.archive.read(f"{self.root}/data/{key}")
        content = self.raw[key]
        return np.frombuffer(content, self._ordered(dtype), len(content) // dtype.itemsize)

    def _ordered(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        name = f"{self.root}/byteorder"
        is_big = name in self.archive.namelist() and self.archive.read(name).strip() == b"big"
        return dtype.newbyteorder(">" if is_big else "<")


def _check_opcodes(pickled: bytes) -> None:
    """Raise ValueError if a pickle has an instruction that tensors and plain values do not need."""
    tuples = 0
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name not in _OPCODES:
            raise ValueError(f"its pickle has the instruction {opcode.name}, which no plain value needs")
        if opcode.name == "LONG_BINPUT" and not 0 <= int(argument or 0) <= len(pickled):
            raise ValueError("its pickle numbers more values than it has")
        tuples += opcode.name.startswith("TUPLE")
    if tuples > _MAX_TUPLES:
        raise ValueError(f"its pickle has {tuples} tuples")


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors, their hooks, of which there are none, and nothing else."""

    def __init__(self, stream: io.BytesIO, reader: _Reader) -> None:
        super().__init__(stream)
        self.reader = reader

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name in the pickle."""
        match module, name:
            case "torch._utils", "_rebuild_tensor_v2":
                return _view_storage
            case "collections", "OrderedDict":
                return _no_hooks
            case "torch", _ if name in _STORAGES:
                return np.dtype(_STORAGES[name])
        named = sanitize_text(f"{module}.{name}", 100)
        raise ValueError(f"its pickle names {named}, which is neither a tensor nor a plain value")

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        """Return the raw values that a tensor refers to."""
        match pid:
            case ("storage", np.dtype() as dtype, str() as key, *_):
                return self.reader.storage(dtype, key)
        raise ValueError("its pickle refers to something that is no storage of a tensor")


def _no_hooks() -> dict[str, Any]:
    return {}


def _view_storage(
    storage: Any, offset: Any, size: Sequence[Any], stride: Sequence[Any], *_unused: Any
) -> npt.NDArray[Any]:
    """Return a tensor as a read-only view of raw values, which must hold all of it."""
    numbers = (offset, *size, *stride)
    if not (isinstance(storage, np.ndarray) and len(size) == len(stride) <= _MAX_DIMENSIONS):
        raise ValueError("its tensor has no storage, or other dimensions than strides")
    if not all(type(number) is int and 0 <= number <= MAX_FILE_BYTES for number in numbers):
        raise ValueError("its tensor has an invalid shape")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count > MAX_FILE_BYTES or (count and last >= storage.size):
        raise ValueError(f"its tensor of {' x '.join(map(str, size))} values does not fit its storage")
    if not count:
        return np.zeros(tuple(size), storage.dtype)
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides, writeable=False)
