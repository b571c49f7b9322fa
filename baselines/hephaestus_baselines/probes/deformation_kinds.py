"""The kinds of deformation that windows show: types of activity, and intensity as a level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_build.cube.schema import cube_schema

#: Levels of intensity in ascending order; that of earthquakes is none of them.
INTENSITY_LEVELS = ("Low", "Medium", "High")


def activity_types() -> tuple[str, ...]:
    """Return the types of activity, in the order of their codes from 1."""
    return _meanings("activity_type_mask")[1:]


@dataclass(frozen=True)
class WindowKinds:
    """What the experts said of the deformation in N windows.

    Attributes
    ----------
    activities : numpy.ndarray
        bool (N, A): whether a window shows each of :func:`activity_types`.
    level : numpy.ndarray
        int64 (N,): place of the highest intensity in :data:`INTENSITY_LEVELS`; -1 for none of them.
    """

    activities: np.ndarray
    level: np.ndarray


def read_window_kinds(windows: WindowDataset, draws: Sequence[SampleDraw]) -> WindowKinds:
    """Return the kinds of deformation in windows, read from the cubes' masks."""
    activities = np.zeros((len(draws), len(activity_types())), bool)
    level = np.full(len(draws), -1)
    names = _meanings("intensity_level_mask")
    for place, draw in enumerate(draws):
        found = windows.read_kinds(draw)
        for code in found["activity_type_mask"]:
            activities[place, code - 1] = True
        known = [
            INTENSITY_LEVELS.index(names[code])
            for code in found["intensity_level_mask"]
            if names[code] in INTENSITY_LEVELS
        ]
        level[place] = max(known, default=-1)
    return WindowKinds(activities, level)


def _meanings(variable: str) -> tuple[str, ...]:
    known: dict[str, Any] = cube_schema().variables[variable].attributes
    return tuple(known["flag_meanings"].split())
