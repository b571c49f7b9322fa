"""Training history: metrics per epoch, and the record of a completed training.

``training.json`` carries its own content hash and those of ``best.ckpt`` and ``metrics.csv``. As long as the
hashes match, a completed training is not repeated.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, hash_file, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text

BEST_CHECKPOINT_FILE, METRICS_FILE, TRAINING_RECORD_FILE = "best.ckpt", "metrics.csv", "training.json"
_FORMAT = "hephaestus-training/1"
_MAX_RECORD_BYTES = 1 << 20  # bytes of the training record


def write_metrics(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Write one row per epoch as CSV, atomically; return the file's hash."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    write_atomic(folder / METRICS_FILE, content)
    return hash_bytes(content)


def write_training_record(folder: Path, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record that the training of a run is complete.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the run, with a verified ``best.ckpt``.
    key : str
        Key of the run.
    rows : sequence of mapping
        Metrics of all its epochs.
    """
    files = {
        BEST_CHECKPOINT_FILE: hash_file(folder / BEST_CHECKPOINT_FILE),
        METRICS_FILE: write_metrics(rows, folder),
    }
    record = {"format": _FORMAT, "key": key, "files": files}
    write_atomic(folder / TRAINING_RECORD_FILE, add_json_hash(encode_json(record)), durable=True)


def is_training_complete(folder: Path, key: str) -> bool:
    """Return whether the training of a run is complete and its best checkpoint matches the recorded hash."""
    try:
        record = _read_training_record(folder)
        return (
            record["key"] == key
            and hash_file(folder / BEST_CHECKPOINT_FILE) == record["files"][BEST_CHECKPOINT_FILE]
        )
    except (OSError, ValueError):
        return False


def verified_training_file(folder: Path, name: str) -> Path:
    """Return the path of a file of a completed training, after comparing it with the recorded hash.

    Raises
    ------
    HephaestusError
        If the file or the record is damaged or missing.
    """
    try:
        if hash_file(folder / name) == _read_training_record(folder)["files"][name]:
            return folder / name
        what = "its content does not match the recorded hash"
    except (OSError, ValueError) as error:
        what = sanitize_text(error, 200)
    raise HephaestusError(
        f"{folder / name} is damaged ({what}); restore it from a copy, or remove {folder} and run "
        "`hephaestus benchmark run` again, which trains the run again"
    )


def _read_training_record(folder: Path) -> dict[str, Any]:
    record = parse_hashed_json(read_bounded(folder / TRAINING_RECORD_FILE, _MAX_RECORD_BYTES))
    files = record.get("files")
    if (
        record.get("format") != _FORMAT
        or not isinstance(files, dict)
        or not {BEST_CHECKPOINT_FILE, METRICS_FILE} <= files.keys()
    ):
        raise ValueError(f"{TRAINING_RECORD_FILE} has an unknown format")
    return record
