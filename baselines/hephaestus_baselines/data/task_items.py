"""The items that a task is asked of, and the kinds of deformation that experts named for them. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from hephaestus_baselines.config.tasks import TASK_SPECS, Task
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.sample_attributes import InterferogramKey
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.dataset.splits import SplitPart


def select_task_items(task: Task, prepared: PreparedData, part: SplitPart) -> tuple[DatasetItem, ...]:
    """Return the items of a part that a task is asked of.

    The kind of deformation is asked of training items that show a known one, and of windows of validation and
    test with more than a sliver of deformation.

    Raises
    ------
    HephaestusError
        If there is none.
    """
    items = prepared.items[part]
    if not TASK_SPECS[task].tells_kind:
        return items
    if part == "train":
        shown = item_classes(task, prepared, items)
        found = tuple(item for item, classes in zip(items, shown, strict=True) if classes)
    else:
        found = tuple(item for item in items if item.pixels and not item.sliver)
    if not found:
        raise HephaestusError(
            f"no window of the {part} part of {prepared.split.name} shows deformation of a known {task}; "
            "build further frames or dates with `hephaestus build`, or choose another split"
        )
    return found


def item_classes(task: Task, prepared: PreparedData, items: Sequence[DatasetItem]) -> list[frozenset[int]]:
    """Return the classes that the experts named for the interferograms of each item, in whole frames."""
    return [
        classes_of_samples(
            task, prepared, [(item.frame, pair) for pair in item.pairs] if item.positive else []
        )
        for item in items
    ]


def classes_of_samples(
    task: Task, prepared: PreparedData, keys: Sequence[InterferogramKey]
) -> frozenset[int]:
    """Return the classes that the experts named for interferograms together."""
    spec = TASK_SPECS[task]
    known = (prepared.attributes[key] for key in keys if key in prepared.attributes)
    return spec.classes_of_names([name for one in known for name in one.names_in(spec.labels)])


def count_trained_classes(task: Task, prepared: PreparedData) -> list[int]:
    """Return how many training items show each class of a task that tells the kind of deformation."""
    shown = item_classes(task, prepared, prepared.items["train"])
    return [sum(kind in classes for classes in shown) for kind in range(len(TASK_SPECS[task].classes))]
