"""The portal's text files: ``metadata.txt`` and ``metadata/baselines`` of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.download.small_response import decode_text
from hephaestus_build.sources.interferograms import EpochBaselines, FrameMetadata
from hephaestus_build.sources.licsar.acquisition import parse_geometry
from hephaestus_build.sources.licsar.baselines_file import parse_baselines
from hephaestus_build.sources.licsar.satellites import sentinel1_satellite

#: Bytes of a text file.
MAX_TEXT_FILE_BYTES = 1 << 20
# Lines of metadata.txt (the real ones have twenty) and characters of a value.
_MAX_FIELDS, _MAX_VALUE = 200, 200


def read_metadata(path: Path) -> dict[str, str]:
    """Return the ``key=value`` lines, values without control characters; ValueError if there are none."""
    text = decode_text(read_bounded(path, MAX_TEXT_FILE_BYTES), None)
    lines = (line.partition("=") for line in text.splitlines())
    fields = {key.strip(): sanitize_text(value, _MAX_VALUE) for key, _, value in lines if len(key) < 100}
    fields = {key: value for key, value in fields.items() if value and key.isascii() and key.isidentifier()}
    if not fields:
        raise ValueError("it has no line of the form key=value")
    if len(fields) > _MAX_FIELDS:
        raise ValueError(f"it has more than {_MAX_FIELDS} lines")
    return fields


def describe_frame(
    frame: Frame, center_time: timedelta | None, fields: Mapping[str, str], receipt: Receipt
) -> FrameMetadata:
    """Return what the lines of ``metadata.txt`` say of a frame."""
    return FrameMetadata(
        center_time,
        fields,
        receipt,
        parse_geometry(fields),
        fields.get("applied_DEM", ""),
        partial(sentinel1_satellite, frame.track, center_time),
    )


def read_baselines(path: Path) -> EpochBaselines:
    """Return the perpendicular baselines of a downloaded file; ValueError if it has none."""
    return parse_baselines(decode_text(read_bounded(path, MAX_TEXT_FILE_BYTES), None))
