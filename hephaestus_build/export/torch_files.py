"""Files that ``torch.load`` reads, written without PyTorch and with the same bytes each time.

A ``.pth`` file is an uncompressed zip archive of a pickle and the raw values of tensors. The pickles here
hold one tensor, or plain values alone, so that ``torch.load(..., weights_only=True)`` accepts them.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

_STORAGES = {"float32": "FloatStorage", "int64": "LongStorage", "uint8": "ByteStorage"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip entry


def encode_tensor(values: npt.NDArray[Any]) -> bytes:
    """Return an array as a ``.pth`` file with a tensor of the same shape and type.

    Parameters
    ----------
    values : numpy.ndarray
        float32, int64 or uint8, with fewer than 2**31 values.
    """
    values = np.ascontiguousarray(values)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    strides = tuple(step // values.itemsize for step in values.strides)
    storage = (
        b"(" + _text("storage") + f"ctorch\n{_STORAGES[values.dtype.name]}\n".encode()
        + _text("0") + _text("cpu") + _number(values.size) + b"tQ"
    )  # fmt: skip
    arguments = storage + _number(0) + _numbers(values.shape) + _numbers(strides)
    arguments += b"\x89ccollections\nOrderedDict\n)R"  # needs no gradient, has no hooks
    return _archive(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR.", values.tobytes())


def encode_plain_values(value: Any) -> bytes:
    """Return a value of dictionaries, lists, texts and numbers as a ``.pth`` file."""
    return _archive(pickle.dumps(value, protocol=2), None)


def _archive(pickled: bytes, raw: bytes | None) -> bytes:
    parts = {"data.pkl": pickled, "byteorder": b"little"}
    if raw is not None:
        parts["data/0"] = raw
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {**parts, "version": b"3\n"}.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", _EPOCH), content)
    return stream.getvalue()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _numbers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
