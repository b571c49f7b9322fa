"""Size of an interferogram's preview, from the header of its PNG."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from hephaestus_build.sources.interferograms import PreviewSize

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_preview(path: Path) -> PreviewSize:
    """Return size and colour mode from the header of a PNG; ValueError if it is cut or damaged."""
    with path.open("rb") as stream:  # nothing in the file is decompressed
        head = stream.read(33)
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 12))
        tail = stream.read(12)
    if not head.startswith(PNG_SIGNATURE) or len(head) < 33 or head[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("it is not a PNG")
    if b"IEND" not in tail:
        raise ValueError("the PNG is cut")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    modes = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
    sides = 0 < width <= 20_000 and 0 < height <= 20_000
    if colour not in modes or depth not in (1, 2, 4, 8, 16) or not sides:
        raise ValueError("the PNG's header is invalid")
    if zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        raise ValueError("the PNG's header is damaged")
    return PreviewSize(width, height, modes[colour])
