"""From the raw LiCSAR and ERA5 archives to machine-learning cubes of volcanic unrest.

What stands here is loaded when it is asked for, so that the import itself costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hephaestus_build.core.frame_search import find_frames
    from hephaestus_build.cube.opening import open_cube

    __version__: str

__all__ = ["__version__", "find_frames", "open_cube"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, _LAZY[name]())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _open_cube() -> Any:
    from hephaestus_build.cube.opening import open_cube

    return open_cube


def _find_frames() -> Any:
    from hephaestus_build.core.frame_search import find_frames

    return find_frames


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hephaestus-build")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"


_LAZY = {"__version__": _version, "find_frames": _find_frames, "open_cube": _open_cube}
