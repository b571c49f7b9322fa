"""Features of windows on disk, named by all that they depend on.

The files are safetensors, which hold numbers and no code. A file is used only if its description is the one
that is asked for and its content has the hash that it states; otherwise the features are computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hephaestus_build.core.atomic_io import hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.plain_text import sanitize_text

log = logging.getLogger(__name__)

#: Part of every description; changes when features are computed otherwise.
FEATURES_FORMAT = "hephaestus-features/1"
#: Bytes of the description in a file, and numbers of a window.
_MAX_HEADER_BYTES, _MAX_WIDTH = 1 << 20, 1 << 14
_DTYPES = {"features": np.float32, "label": np.uint8, "data_share": np.float32}


@dataclass(frozen=True)
class WindowFeatures:
    """Features of windows.

    Attributes
    ----------
    features : numpy.ndarray
        float32 (N, F).
    label : numpy.ndarray
        uint8 (N,): whether the window has a pixel with deformation.
    data_share : numpy.ndarray
        float32 (N,): share of the pixels of the window's core that have data.
    """

    features: np.ndarray
    label: np.ndarray
    data_share: np.ndarray


def cached_features(
    folder: Path, about: Mapping[str, Any], count: int, compute: Callable[[], WindowFeatures]
) -> WindowFeatures:
    """Return the features that `about` describes, from `folder` or computed and stored there.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the cache; it may be deleted at any time.
    about : mapping
        All that the features depend on, as JSON values.
    count : int
        Number of windows.
    compute : callable
        Returns the features where the cache does not have them.
    """
    document = json.dumps({"format": FEATURES_FORMAT, "windows": count, **about}, sort_keys=True)
    name = hashlib.sha256(document.encode()).hexdigest()[:32]
    path = folder / f"{name}.safetensors"
    if path.is_file():
        try:
            return _read(path, document, count)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning(
                "%s holds no features that can be used (%s); they are computed again",
                path, sanitize_text(error, 160),
            )  # fmt: skip
    made = compute()
    arrays = {key: np.ascontiguousarray(getattr(made, key), dtype) for key, dtype in _DTYPES.items()}
    with translate_os_errors(f"features: writing {path}", setting="--results or --to"):
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.unlink(missing_ok=True)  # a pipe or a lost link, which no file replaces by itself
        write_atomic(path, save(arrays, {"about": document, "hash": _hash(arrays)}))
    return WindowFeatures(**arrays)


def _read(path: Path, document: str, count: int) -> WindowFeatures:
    content = read_bounded(path, _MAX_HEADER_BYTES + count * (4 * _MAX_WIDTH + 5))
    length = int.from_bytes(content[:8], "little")
    if not 0 < length <= min(_MAX_HEADER_BYTES, len(content)):
        raise ValueError("its header is too long")
    metadata = parse_json(content[8 : 8 + length])["__metadata__"]
    if metadata["about"] != document:
        raise ValueError("it describes other windows")
    arrays = load(content)
    shapes = {"features": (count, *arrays["features"].shape[1:]), "label": (count,), "data_share": (count,)}
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].shape != shapes[name]:
            raise ValueError(f"{name} has another type or shape than expected")
    if arrays["features"].ndim != 2 or metadata["hash"] != _hash(arrays):
        raise ValueError("its content does not match its hash")
    return WindowFeatures(**{name: arrays[name] for name in _DTYPES})


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    parts = [hash_bytes(arrays[name].tobytes()) for name in _DTYPES]
    parts += [str(math.prod(arrays[name].shape)) for name in _DTYPES]
    return hash_bytes(" ".join(parts).encode())
