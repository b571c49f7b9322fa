"""From the raw LiCSAR and ERA5 archives to machine-learning cubes of volcanic unrest.

>>> import hephaestus_build as hb
>>> [frame] = hb.find_frames("etna")                # an id by volcano, place, point or box
>>> hb.plan(frame.id)                               # doctest: +SKIP
>>> hb.build(frame.id, limit=5)                     # doctest: +SKIP
>>> hb.pairs(frame.id)                              # doctest: +SKIP
>>> hb.open_cube(frame.id)                          # doctest: +SKIP

Each name is loaded when it is first used, so that the import itself takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hephaestus_build.api.building import build_cube as build
    from hephaestus_build.api.building import plan_cube as plan
    from hephaestus_build.api.pairs import pairs
    from hephaestus_build.core.errors import HephaestusError, UsageError
    from hephaestus_build.core.frame_search import FoundFrame, find_frames
    from hephaestus_build.core.frames import Frame, Pair
    from hephaestus_build.cube.opening import open_cube
    from hephaestus_build.cube.reading.window_reader import WindowReader
    from hephaestus_build.cube.validation.checksums import verify_objects
    from hephaestus_build.dataset.predictor import Predictor, open_predictor
    from hephaestus_build.dataset.splits import Split, read_split
    from hephaestus_build.pipeline.plan import BuildPlan
    from hephaestus_build.pipeline.result import BuildResult
    from hephaestus_build.sources.annotations.archive import Annotations, load_annotations
    from hephaestus_build.sources.annotations.record import Annotation

    __version__: str

#: The public names, the module that holds each, and what it is called there.
_NAMES = {
    "Annotation": ("hephaestus_build.sources.annotations.record", "Annotation"),
    "Annotations": ("hephaestus_build.sources.annotations.archive", "Annotations"),
    "BuildPlan": ("hephaestus_build.pipeline.plan", "BuildPlan"),
    "BuildResult": ("hephaestus_build.pipeline.result", "BuildResult"),
    "FoundFrame": ("hephaestus_build.core.frame_search", "FoundFrame"),
    "Frame": ("hephaestus_build.core.frames", "Frame"),
    "HephaestusError": ("hephaestus_build.core.errors", "HephaestusError"),
    "Pair": ("hephaestus_build.core.frames", "Pair"),
    "Predictor": ("hephaestus_build.dataset.predictor", "Predictor"),
    "Split": ("hephaestus_build.dataset.splits", "Split"),
    "UsageError": ("hephaestus_build.core.errors", "UsageError"),
    "WindowReader": ("hephaestus_build.cube.reading.window_reader", "WindowReader"),
    "build": ("hephaestus_build.api.building", "build_cube"),
    "find_frames": ("hephaestus_build.core.frame_search", "find_frames"),
    "load_annotations": ("hephaestus_build.sources.annotations.archive", "load_annotations"),
    "open_cube": ("hephaestus_build.cube.opening", "open_cube"),
    "open_predictor": ("hephaestus_build.dataset.predictor", "open_predictor"),
    "pairs": ("hephaestus_build.api.pairs", "pairs"),
    "plan": ("hephaestus_build.api.building", "plan_cube"),
    "read_split": ("hephaestus_build.dataset.splits", "read_split"),
    "verify_objects": ("hephaestus_build.cube.validation.checksums", "verify_objects"),
}

__all__ = [
    "Annotation",
    "Annotations",
    "BuildPlan",
    "BuildResult",
    "FoundFrame",
    "Frame",
    "HephaestusError",
    "Pair",
    "Predictor",
    "Split",
    "UsageError",
    "WindowReader",
    "__version__",
    "build",
    "find_frames",
    "load_annotations",
    "open_cube",
    "open_predictor",
    "pairs",
    "plan",
    "read_split",
    "verify_objects",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return globals().setdefault(name, _version())
    try:
        module, attribute = _NAMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return globals().setdefault(name, getattr(import_module(module), attribute))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "Any", "annotations", "import_module"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hephaestus-build")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"
