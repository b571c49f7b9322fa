"""Damage of one bit, for tests of checksums."""

from __future__ import annotations

import random
from pathlib import Path


def flip_bit(path: Path, chance: random.Random) -> None:
    """Flip one bit of a file in place; all hard links to it are affected."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
