"""Files that name frames, one a line."""

from __future__ import annotations

from pathlib import Path

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import decode_utf8, read_bounded

_MAX_BYTES = 4 << 20  # some 200,000 frames


def read_frames_file(path: Path) -> list[Frame]:
    """Return the frames that a file names, in its order and without repeats.

    Raises
    ------
    UsageError
        If it cannot be read, names no frame, or a line is neither an id nor a volcano of one frame; the
        message begins with file and line.
    """
    try:
        lines = decode_utf8(read_bounded(path, _MAX_BYTES)).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--frames-file {path} cannot be read ({reason}); name a file of ids") from None
    found: dict[Frame, None] = {}
    for number, line in enumerate(lines, 1):
        if name := line.partition("#")[0].strip():
            try:
                found[frame_named(name)] = None
            except UsageError as error:
                raise UsageError(f"--frames-file {path}, line {number}: {error}") from None
    if not found:
        raise UsageError(f"--frames-file {path} names no frame: write one id a line; # begins a comment")
    return list(found)
