"""The tasks of the benchmark: what is asked of a model, of which labels, and in which units it is scored.

Deformation is told of windows or of pixels; type of activity and intensity of windows that show deformation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from hephaestus_build.core.errors import UsageError
from hephaestus_build.cube.schema import cube_schema

#: Tasks that tell deformation from none, and tasks that tell its kind.
DetectionTask = Literal["classification", "segmentation"]
KindTask = Literal["activity", "intensity"]
Task = Literal[DetectionTask, KindTask]
DETECTION_TASKS: tuple[DetectionTask, ...] = get_args(DetectionTask)
KIND_TASKS: tuple[KindTask, ...] = get_args(KindTask)
#: ``items``: tiles. ``interferograms``: the highest of their tiles. ``pixels``: pixels with data.
#: ``all-pixels``: all pixels. ``deforming-items``: tiles that show deformation of a known kind.
ScoringUnit = Literal["items", "interferograms", "pixels", "all-pixels", "deforming-items"]
#: Levels of intensity in ascending order; that of earthquakes is none of them.
INTENSITY_LEVELS = ("Low", "Medium", "High")


@dataclass(frozen=True)
class TaskSpec:
    """What a task asks of a model.

    Attributes
    ----------
    labels : str
        The cube's mask whose codes are the labels.
    classes : tuple of str
        Meanings of the model's outputs, in their order.
    units : tuple of ScoringUnit
        Units that are scored, the one of the headline first.
    scores : tuple of str
        Scores over all classes, the headline first; empty where each unit has its own.
    per_pixel : bool
        Whether each pixel has an answer, or each window.
    ordered : bool
        Whether classes are levels: a window has its highest one, the answer is the median of the predicted
        distribution, and errors are counted in steps. Otherwise a window has the class of most of its
        deforming pixels, and the answer is the most probable one.
    """

    labels: str
    classes: tuple[str, ...]
    units: tuple[ScoringUnit, ...]
    scores: tuple[str, ...] = ()
    per_pixel: bool = False
    ordered: bool = False

    @property
    def tells_kind(self) -> bool:
        """Whether the kind of deformation is told, of windows that show some."""
        return self.units == ("deforming-items",)

    @property
    def network(self) -> DetectionTask:
        """The kind of network: one answer a window, or one a pixel."""
        return "segmentation" if self.per_pixel else "classification"

    def class_of_codes(self, pixels: Mapping[int, int]) -> int:
        """Return the class of a window; -1 if it shows none that is known.

        Parameters
        ----------
        pixels : mapping of int to int
            Deforming pixels of each code of the mask.
        """
        counts = [0] * len(self.classes)
        for code, count in pixels.items():
            if (name := self._meanings.get(code)) in self.classes:
                counts[self.classes.index(str(name))] += count
        shown = [place for place, count in enumerate(counts) if count]
        if not shown:
            return -1
        return max(shown) if self.ordered else max(shown, key=counts.__getitem__)

    def classes_of_names(self, names: Sequence[str]) -> frozenset[int]:
        """Return the classes that an expert's words name; of levels the highest alone."""
        found = {self.classes.index(name) for name in names if name in self.classes}
        return frozenset({max(found)} if found and self.ordered else found)

    @property
    def _meanings(self) -> Mapping[int, str]:
        return flag_meanings(self.labels)


@cache
def flag_meanings(variable: str) -> Mapping[int, str]:
    """Return the meaning of each code of a mask of the cube."""
    known: dict[str, Any] = cube_schema().variables[variable].attributes
    return dict(zip(known["flag_values"], known["flag_meanings"].split(), strict=True))


_KIND_SCORES = ("macro_f1", "balanced_accuracy", "accuracy")
TASK_SPECS: Mapping[Task, TaskSpec] = {
    "classification": TaskSpec("deformation_mask", ("none", "deformation"), ("items", "interferograms")),
    "segmentation": TaskSpec(
        "deformation_mask",
        ("none", "deformation"),
        ("pixels", "all-pixels", "interferograms"),
        per_pixel=True,
    ),
    "activity": TaskSpec(
        "activity_type_mask",
        tuple(name for code, name in flag_meanings("activity_type_mask").items() if code),
        ("deforming-items",),
        _KIND_SCORES,
    ),
    "intensity": TaskSpec(
        "intensity_level_mask",
        INTENSITY_LEVELS,
        ("deforming-items",),
        (*_KIND_SCORES, "mae", "macro_mae", "quadratic_kappa"),
        ordered=True,
    ),
}


def require_detection(task: Task, what: str) -> None:
    """Raise UsageError unless a task tells deformation from none.

    Parameters
    ----------
    task : str
    what : str
        What needs it, to begin the message.
    """
    if TASK_SPECS[task].tells_kind:
        raise UsageError(
            f"{what} is of deformation, and this model tells the {task} of windows that show some; choose a "
            f"run of {' or '.join(DETECTION_TASKS)}"
        )
