"""Training data in memory, without cubes, for tests of training: windows of which some have a bright blob."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import INTENSITY_LEVELS, TASK_SPECS, Task
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.sample_attributes import SampleAttributes
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.dataset.channel_statistics import ChannelStatistics
from hephaestus_build.dataset.running_moments import MEASURED_CHANNELS, ProductMoments, RunningMoments
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import Split, SplitPart
from hephaestus_build.dataset.tiling import Tile

# models this small gain nothing from a second thread, and wait for it on a busy machine
torch.set_num_threads(1)

FRAME = Frame("198A_00210_131313")
ACTIVITIES = TASK_SPECS["activity"].classes


class ToyWindows(Dataset[dict[str, torch.Tensor]]):
    """Substitute for `hephaestus_baselines.data.window_dataset.Windows`, computed from item and draw only."""

    def __init__(
        self,
        items: Any,
        stores: Any,
        *,
        size: int,
        atmosphere: bool,
        volcanic_only: bool = False,
        task: Task = "classification",
        threads: int,
    ) -> None:
        self.items, self.size, self.atmosphere = tuple(items), size, atmosphere
        self.spec = TASK_SPECS[task]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Any) -> dict[str, torch.Tensor]:
        index, seed, _ = draw if isinstance(draw, tuple) else (int(draw), 0, -1)
        item, size = self.items[index], self.size
        steps = len(item.members)
        chance = np.random.default_rng((item.members[0].unique_id, seed if item.tile is None else 0))
        phase = chance.normal(0, 0.3, (steps, size, size)).astype("f4")
        mask = np.zeros((steps, size, size), "u1")
        if item.positive:
            row, column = chance.integers(2, size // 2, 2)
            mask[-1, row : row + size // 3, column : column + size // 3] = 1
            phase[mask > 0] += -2 if self.spec.tells_kind and kind_of(item) else 2
        phase[:, :2] = 0  # no data
        inside = np.ones((size, size), bool)
        inside[-1] = False
        coherence = chance.integers(1, 256, phase.shape).astype("u1")
        sample = {
            "phase": torch.from_numpy(phase),
            "coherence": torch.from_numpy(coherence * (phase != 0)),
            "dem": torch.from_numpy(chance.normal(500, 100, (size, size)).astype("f4")),
            "mask": torch.from_numpy(mask),
            "inside": torch.from_numpy(inside),
            "rows": torch.linspace(0, 2, size),
            "columns": torch.linspace(0, 2, size),
            "aspect": torch.tensor(0.8),
            "label": torch.tensor(kind_of(item) if self.spec.tells_kind else int(mask.any())),
            "weight": torch.tensor(1.0),
            "index": torch.tensor(index),
        }
        if self.atmosphere:
            fields = chance.normal(0, 1, (steps, 2, 3, 3, 3)).astype("f4")
            sample["atmosphere"] = torch.from_numpy(fields)
        return sample


def kind_of(item: DatasetItem) -> int:
    """Return the class of an item's deformation, -1 without any: its blob goes up or down."""
    return item.members[0].unique_id // 2 % 2 if item.positive else -1


def toy_items(
    count: int, *, series: bool = False, fixed: bool = False, start: int = 0
) -> tuple[DatasetItem, ...]:
    """Return items, every second one positive; `fixed`: each with a fixed window."""
    items = []
    for number in range(start, start + count):
        first = date(2019, 1, 1) + timedelta(days=12 * number)
        members = tuple(
            Sample(FRAME, Pair(first, first + timedelta(days=12 * (step + 1))), number % 2 == 1, number)
            for step in range(3 if series else 1)
        )
        tile = Tile(0, 0, 32, (0, 32, 0, 32)) if fixed else None
        positive = number % 2 == 1
        items.append(DatasetItem(members, positive, tile, pixels=100 if positive and fixed else 0))
    return tuple(items)


def toy_prepared(train: int = 12, held: int = 8, *, series: bool = False, same: bool = False) -> PreparedData:
    """Return data with `train` and `held` items per part; `same`: validation uses the training windows."""
    measured = {name: ProductMoments("", RunningMoments(1000, 0.0, 1000.0)) for name in MEASURED_CHANNELS}
    measured["dem"] = ProductMoments("", RunningMoments(1000, 500.0, 1000 * 100.0**2))
    measured["insar_coherence"] = ProductMoments("", RunningMoments(1000, 128.0, 1000 * 70.0**2))
    empty = {"train": (), "validation": (), "test": ()}
    split = Split("strict-temporal", 1, "by hand", (), empty)  # type: ignore[arg-type]
    training = toy_items(train, series=series, fixed=same)
    parts: dict[SplitPart, tuple[DatasetItem, ...]] = {
        "train": training,
        "validation": training if same else toy_items(held, series=series, fixed=True, start=100),
        "test": toy_items(held, series=series, fixed=True, start=200),
    }
    return PreparedData(
        split,
        {},
        {},
        ChannelStatistics(
            split.name, split.sha256, True, {FRAME.id: measured}, {FRAME.id: dict.fromkeys(measured, 1)}
        ),
        parts,
        True,
        attributes={
            (item.frame, pair): SampleAttributes(
                "", (ACTIVITIES[kind_of(item)],), (INTENSITY_LEVELS[kind_of(item)],)
            )
            for items in parts.values()
            for item in items
            if item.positive
            for pair in item.pairs
        },
    )


def toy_recipe(**fields: Any) -> Recipe:
    """Return a recipe that trains within seconds."""
    task = fields.setdefault("task", "classification")
    small = {
        "model": "unet-tiny" if TASK_SPECS[task].per_pixel else "resnet-tiny",
        "size": 32,
        "weights": "none",
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "workers": 0,
    }
    return Recipe(**{**small, **fields})
