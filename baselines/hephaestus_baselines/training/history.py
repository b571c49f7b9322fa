"""The course of a training: a row of metrics for each epoch, and the record that a training is complete.

``training.json`` is sealed and names the hashes of ``best.ckpt`` and of ``metrics.csv``, which cannot hold a
seal of its own. While it is right, what is trained is never trained again.
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
_MAX_RECORD_BYTES = 1 << 20  # bytes of the record


def write_metrics(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Write one row an epoch as CSV, whole or not at all; return the file's hash."""
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
        Of the run; ``best.ckpt`` is there and was checked.
    key : str
        Of the run.
    rows : sequence of mapping
        All its epochs.
    """
    files = {
        BEST_CHECKPOINT_FILE: hash_file(folder / BEST_CHECKPOINT_FILE),
        METRICS_FILE: write_metrics(rows, folder),
    }
    record = {"format": _FORMAT, "key": key, "files": files}
    write_atomic(folder / TRAINING_RECORD_FILE, add_json_hash(encode_json(record)), durable=True)


def is_training_complete(folder: Path, key: str) -> bool:
    """Return whether the training of a run is complete and its best checkpoint is what was written."""
    try:
        record = _read_training_record(folder)
        return (
            record["key"] == key
            and hash_file(folder / BEST_CHECKPOINT_FILE) == record["files"][BEST_CHECKPOINT_FILE]
        )
    except (OSError, ValueError):
        return False


def verified_training_file(folder: Path, name: str) -> Path:
    """Return where a file of a complete training is, if it is what was written.

    Raises
    ------
    HephaestusError
        If it is damaged or missing, or the record is.
    """
    try:
        if hash_file(folder / name) == _read_training_record(folder)["files"][name]:
            return folder / name
        what = "its content is not what was written"
    except (OSError, ValueError) as error:
        what = sanitize_text(error, 200)
    raise HephaestusError(
        f"{folder / name} is damaged ({what}); take a whole copy of it, or remove {folder} and run "
        "`hephaestus benchmark run` again, which trains that run again"
    )


def _read_training_record(folder: Path) -> dict[str, Any]:
    record = parse_hashed_json(read_bounded(folder / TRAINING_RECORD_FILE, _MAX_RECORD_BYTES))
    files = record.get("files")
    if (
        record.get("format") != _FORMAT
        or not isinstance(files, dict)
        or not {BEST_CHECKPOINT_FILE, METRICS_FILE} <= files.keys()
    ):
        raise ValueError(f"{TRAINING_RECORD_FILE} is of another form")
    return record
