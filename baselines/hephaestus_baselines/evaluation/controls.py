"""Controls: predictors that look at no pixel of the images that they score.

A model is worth what it finds beyond them. They know what an observatory knows without any image: how often a
frame has deformed, what its last interferograms showed, or where a crop was placed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import islice

import numpy as np

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.dataset_items import KnownInterferogram, WindowKey
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions
from hephaestus_build.core.frames import Pair

#: Interferograms of a frame that `persistence` remembers.
REMEMBERED = 10


def make_controls(recipe: Recipe, prepared: PreparedData) -> dict[str, Callable[[PredictedItem], float]]:
    """Return the controls that are computed for a run, by name."""
    found = {"frame prior": frame_prior(prepared.known), "persistence": persistence(prepared.known)}
    if recipe.tiling == "label-centred":
        found["place of the crop"] = place_of_crop(prepared.shapes)
    return found


def frame_prior(known: Iterable[KnownInterferogram]) -> Callable[[PredictedItem], float]:
    """Return the share of a frame's training interferograms that show deformation in the item's window.

    For a frame without any in the training part it is the share in all frames.
    """
    trained: dict[str, list[KnownInterferogram]] = defaultdict(list)
    for item in known:
        if item.in_train:
            trained[item.frame].append(item)
    every = [item for items in trained.values() for item in items]
    shares: dict[tuple[str, WindowKey | None], float] = {}

    def score(row: PredictedItem) -> float:
        key = row.frame, row.tile
        if key not in shares:
            items = trained.get(row.frame)
            shares[key] = (
                _share(item.shows(row.tile) for item in items)
                if items
                else _share(item.positive for item in every)
            )
        return shares[key]

    return score


def persistence(known: Iterable[KnownInterferogram]) -> Callable[[PredictedItem], float]:
    """Return the share of the frame's last interferograms that show deformation in the item's window.

    They are the last :data:`REMEMBERED` of any part whose secondary acquisition is earlier than that of the
    item; of a series, those that are not in it, since their labels make its own. The expert's word on them is
    taken as known, as it is in an observatory.
    """
    finished: dict[str, list[KnownInterferogram]] = defaultdict(list)
    for item in sorted(known, key=lambda item: (item.pair.secondary, item.pair.primary)):
        finished[item.frame].append(item)
    pairs = {frame: [item.pair for item in items] for frame, items in finished.items()}

    def score(row: PredictedItem) -> float:
        last = last_finished(pairs.get(row.frame, []), [Pair.parse(name) for name in row.pairs])
        return _share(finished[row.frame][place].shows(row.tile) for place in last)

    return score


def last_finished(pairs: Sequence[Pair], members: Collection[Pair]) -> list[int]:
    """Return the positions of the last :data:`REMEMBERED` pairs that ended before an item did.

    Parameters
    ----------
    pairs : sequence of Pair
        Pairs of the item's frame, in the order of their secondary acquisitions.
    members : collection of Pair
        The interferograms of the item, which are left out.
    """
    end = bisect_left(pairs, max(pair.secondary for pair in members), key=lambda pair: pair.secondary)
    before = (place for place in range(end - 1, -1, -1) if pairs[place] not in members)
    return sorted(islice(before, REMEMBERED))


def place_of_crop(shapes: Mapping[str, tuple[int, int]]) -> Callable[[PredictedItem], float]:
    """Return how far a crop's centre lies from that of its frame, 0 to 1.

    Crops that were placed around the label lie off the centre where there is deformation.

    Parameters
    ----------
    shapes : mapping of frame id to tuple of int
        Rows and columns of each frame.
    """

    def score(row: PredictedItem) -> float:
        if row.tile is None:
            return 0.0
        top, left, size = row.tile
        rows, columns = shapes[row.frame]
        offset = max(abs(top + size / 2 - rows / 2), abs(left + size / 2 - columns / 2))
        return float(min(1.0, offset / max(rows, columns)))

    return score


def predict_control(name: str, score: Callable[[PredictedItem], float], cases: Predictions) -> Predictions:
    """Return the predictions of a control for the cases of a model: the same items and labels.

    Parameters
    ----------
    name : str
        Name of the control.
    score : callable
        Returns its score of an item, 0 to 1.
    cases : Predictions
        Predictions of a model in the unit that is scored; those in windows have tiles.
    """
    return replace(
        cases,
        source=replace(cases.source, model=f"control: {name}"),
        probability=np.array([score(row) for row in cases.rows], np.float32),
    )


def last_day(row: PredictedItem) -> date:
    """Return the day of the last acquisition of an item."""
    return max(Pair.parse(name).secondary for name in row.pairs)


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 0.0
