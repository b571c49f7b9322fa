"""Controls of tasks that tell the kind of deformation: what places and earlier interferograms suggest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.tasks import TASK_SPECS, KindTask
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.task_items import classes_of_samples
from hephaestus_baselines.evaluation.controls import last_finished
from hephaestus_baselines.evaluation.predictions import PredictedItem
from hephaestus_build.core.frames import Pair

Distribution = npt.NDArray[np.float64]
#: Returns how probable each class is, (K,), of an item.
KindControlScore = Callable[[PredictedItem], Distribution]


def make_kind_controls(task: KindTask, prepared: PreparedData) -> dict[str, KindControlScore]:
    """Return the controls of a task, by name. None of them looks at an image.

    *majority* has the shares of the classes among all deforming training interferograms, *frame prior* among
    those of the item's frame, *volcano prior* among those of events at its volcanoes, *persistence* among the
    last :data:`~hephaestus_baselines.evaluation.controls.REMEMBERED` deforming ones of the frame, of any
    part, that ended earlier and are not in the item. A place of which nothing is known takes the shares of
    all.
    """
    count = len(TASK_SPECS[task].classes)
    trained: list[Distribution] = []
    by_frame: dict[str, list[Distribution]] = defaultdict(list)
    by_volcano: dict[str, list[Distribution]] = defaultdict(list)
    finished: dict[str, list[tuple[Pair, Distribution]]] = defaultdict(list)
    for one in sorted(prepared.known, key=lambda one: (one.pair.secondary, one.pair.primary)):
        key = one.frame, one.pair.name
        classes = classes_of_samples(task, prepared, [key]) if one.positive else frozenset()
        if not classes:
            continue
        shown = np.zeros(count)
        shown[list(classes)] = 1 / len(classes)
        finished[one.frame].append((one.pair, shown))
        if one.in_train:
            trained.append(shown)
            by_frame[one.frame].append(shown)
            for event in prepared.events.get(key, ()):
                if event in prepared.event_volcanoes:
                    by_volcano[prepared.event_volcanoes[event]].append(shown)
    overall = _mean(trained, np.full(count, 1 / count))

    def of_volcanoes(row: PredictedItem) -> Distribution:
        return _mean([one for name in row.volcanoes for one in by_volcano.get(name, ())], overall)

    def of_last(row: PredictedItem) -> Distribution:
        known = finished.get(row.frame, [])
        last = last_finished([pair for pair, _ in known], [Pair.parse(name) for name in row.pairs])
        return _mean([known[place][1] for place in last], overall)

    return {
        "majority": lambda row: overall,
        "frame prior": lambda row: _mean(by_frame.get(row.frame, ()), overall),
        "volcano prior": of_volcanoes,
        "persistence": of_last,
    }


def _mean(found: Sequence[Distribution], otherwise: Distribution) -> Distribution:
    return np.mean(found, axis=0) if len(found) else otherwise
