"""Exchange of two names in one step, where the file system can do that."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def exchange_names(one: Path, other: Path) -> bool:
    """Give each of two existing files or folders the name of the other, in one step.

    Returns
    -------
    bool
        False if nothing was changed: the system or the file system cannot do it.
    """
    call = getattr(ctypes.CDLL(None), "renameat2", None)  # Linux alone has it
    if call is None:
        return False
    here = ctypes.c_int(_AT_FDCWD)
    return bool(call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)) == 0)
