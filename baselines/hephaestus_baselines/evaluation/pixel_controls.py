"""Controls of segmentation: maps of where a frame has deformed, compared with masks pixel by pixel.

They look at no phase; it is read only to know which pixels have data, as for a model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.data.dataset_items import DatasetItem, KnownInterferogram
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.controls import last_finished
from hephaestus_baselines.evaluation.predictions import (
    PIXEL_SETS,
    PixelSet,
    Predictions,
    count_pixel_histograms,
    item_probability,
)
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.coverage import VOLCANIC
from hephaestus_build.dataset.splits import SplitPart

#: Controls that a segmentation is compared with pixel by pixel.
PIXEL_CONTROLS = ("frame prior", "persistence")

#: Returns the share of interferograms that deform at each pixel of an item's frame; None for 0 everywhere.
_FrameMap = Callable[[DatasetItem], npt.NDArray[np.float32] | None]


@dataclass(frozen=True, eq=False)
class _Patch:
    """The deforming pixels of one interferogram: the smallest window that has all of them."""

    row: int
    column: int
    deforming: npt.NDArray[np.bool]

    def add_to(self, counts: npt.NDArray[np.float32]) -> None:
        rows, columns = self.deforming.shape
        counts[self.row : self.row + rows, self.column : self.column + columns] += self.deforming


def pixel_control_file(control: str, part: SplitPart) -> str:
    """Return the name of the file, in a run's folder, with the predictions of a control for a part.

    Examples
    --------
    >>> pixel_control_file("frame prior", "test")
    'frame-prior-test.npz'
    """
    return f"{control.replace(' ', '-')}-{part}.npz"


class FrameHistory:
    """Masks of the interferograms of frames, read once.

    Parameters
    ----------
    known : iterable of KnownInterferogram
        What the experts saw in each interferogram of every part.
    stores : mapping of frame id to pathlib.Path
        The store of each frame's cube.
    volcanic_only : bool
        Whether the deformation of earthquakes is no deformation, as for the model.
    """

    def __init__(
        self,
        known: Iterable[KnownInterferogram],
        stores: Mapping[str, Path],
        *,
        volcanic_only: bool = False,
    ) -> None:
        self._volcanic_only = volcanic_only
        self._finished: dict[str, list[KnownInterferogram]] = defaultdict(list)
        for item in sorted(known, key=lambda item: (item.pair.secondary, item.pair.primary)):
            self._finished[item.frame].append(item)
        self._pairs = {frame: [item.pair for item in items] for frame, items in self._finished.items()}
        self.cubes = {frame: WindowReader(store) for frame, store in stores.items()}
        self._patches: dict[tuple[str, Pair], _Patch | None] = {}
        self._prior: dict[str, npt.NDArray[np.float32] | None] = {}
        #: The last map of `persistence`: the windows of an interferogram follow each other.
        self._last: tuple[tuple[str, tuple[str, ...]], npt.NDArray[np.float32] | None] = ("", ()), None

    def frame_prior(self, item: DatasetItem) -> npt.NDArray[np.float32] | None:
        """Return the share of the frame's training interferograms that deform at each pixel."""
        if item.frame not in self._prior:
            trained = [one for one in self._finished[item.frame] if one.in_train]
            self._prior[item.frame] = self._share(item.frame, trained)
        return self._prior[item.frame]

    def persistence(self, item: DatasetItem) -> npt.NDArray[np.float32] | None:
        """Return the share of the frame's last interferograms that deform at each pixel."""
        key = item.frame, item.pairs
        if self._last[0] != key:
            last = last_finished(self._pairs.get(item.frame, []), [member.pair for member in item.members])
            finished = [self._finished[item.frame][place] for place in last]
            self._last = key, self._share(item.frame, finished)
        return self._last[1]

    def mask(self, item: DatasetItem) -> npt.NDArray[np.bool]:
        """Return where any member of an item deforms, bool, in the frame's shape."""
        counts = np.zeros(self.cubes[item.frame].shape, np.float32)
        for member in item.members:
            if member.positive and (patch := self._patch(item.frame, member.pair)):
                patch.add_to(counts)
        return counts > 0

    def _share(self, frame: str, items: Sequence[KnownInterferogram]) -> npt.NDArray[np.float32] | None:
        patches = [patch for one in items if one.positive and (patch := self._patch(frame, one.pair))]
        if not patches:
            return None
        counts = np.zeros(self.cubes[frame].shape, np.float32)
        for patch in patches:
            patch.add_to(counts)
        return counts / np.float32(len(items))

    def _patch(self, frame: str, pair: Pair) -> _Patch | None:
        key = frame, pair
        if key not in self._patches:
            codes = self.cubes[frame].read_union("deformation_mask", [pair])
            mask = codes == VOLCANIC if self._volcanic_only else codes > 0
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            self._patches[key] = (
                _Patch(
                    int(rows[0]),
                    int(columns[0]),
                    mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy(),
                )
                if rows.size
                else None
            )
        return self._patches[key]


def predict_in_both_parts(
    prepared: PreparedData, validation: Predictions, test: Predictions, *, volcanic_only: bool
) -> dict[str, tuple[Predictions, Predictions]]:
    """Return the predictions of each control for validation and test; see :func:`predict_pixel_controls`."""
    history = FrameHistory(prepared.known, prepared.stores, volcanic_only=volcanic_only)
    known, unseen = (
        predict_pixel_controls(prepared.items[found.part], found, history) for found in (validation, test)
    )
    return {control: (known[control], unseen[control]) for control in known}


def predict_pixel_controls(
    items: Sequence[DatasetItem], model: Predictions, history: FrameHistory
) -> dict[str, Predictions]:
    """Return the predictions of the controls for the items of a segmentation.

    Parameters
    ----------
    items : sequence of DatasetItem
        The items, with tiles.
    model : Predictions
        Predictions of a model for the same items, in their order. Its counts of pixels are used where a
        control predicts 0 everywhere, so that nothing is read.
    history : FrameHistory
        Masks of all interferograms.

    Returns
    -------
    dict of str to Predictions
        One for each of :data:`PIXEL_CONTROLS`.
    """
    maps: dict[str, _FrameMap] = {"frame prior": history.frame_prior, "persistence": history.persistence}
    return {name: _predict(items, model, history, name, maps[name]) for name in PIXEL_CONTROLS}


def _predict(
    items: Sequence[DatasetItem], model: Predictions, history: FrameHistory, name: str, find_map: _FrameMap
) -> Predictions:
    assert model.pixels is not None
    counted: dict[PixelSet, npt.NDArray[np.uint32]] = {
        kind: np.zeros_like(values) for kind, values in model.pixels.items()
    }
    for place, item in enumerate(items):
        tile, share = item.tile, find_map(item)
        assert tile is not None
        window = None if share is None else tile.read(share)
        if window is None or not window.any():
            for kind in PIXEL_SETS:
                counted[kind][place, :, 0] = model.pixels[kind][place].sum(axis=1)
            continue
        histograms = count_pixel_histograms(
            window[np.newaxis],
            tile.read(history.mask(item))[np.newaxis],
            tile.inside[np.newaxis],
            _read_valid(history.cubes[item.frame], item)[np.newaxis],
        )
        for kind in PIXEL_SETS:
            counted[kind][place] = histograms[kind][0]
    return replace(
        model,
        source=replace(model.source, model=f"control: {name}"),
        probability=item_probability(counted["data"]),
        pixels=counted,
    )


def _read_valid(cube: WindowReader, item: DatasetItem) -> npt.NDArray[np.bool]:
    """Return where any member of an item has data, bool, in its window."""
    assert item.tile is not None
    tile = item.tile
    valid = np.zeros((tile.size, tile.size), bool)
    phase = np.empty((tile.size, tile.size), np.float32)
    for pair in {member.pair for member in item.members}:
        valid |= cube.read("insar_difference", pair, tile.row, tile.column, phase) != 0
    return valid
