"""Windows of the cubes as the samples that torchgeo's data sets hand over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch.utils.data import Dataset

from hephaestus_baselines.config.channels import InputChannels, channel_moments
from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch
from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.preparation import PreparedData, prepare_data
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.reporting.prediction_figures import (
    PREDICTION_COLOR,
    TRUTH_COLOR,
    add_caption,
    add_heading,
    add_phase_scale,
    draw_outline,
    make_figure,
    set_margins,
    show_framed_image,
    show_gray_phase,
    show_phase,
    tint_area,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.dataset.splits import SplitPart

TorchSample = dict[str, Any]
#: Our name of each part, by torchgeo's.
PART_BY_SPLIT: Mapping[str, SplitPart] = {"train": "train", "val": "validation", "test": "test"}


class HephaestusDataset(Dataset[TorchSample]):
    """Windows of one part of a split, as dictionaries with ``image``, ``mask`` and ``label``.

    It has the interface of torchgeo's ``NonGeoDataset``, which it does not import. Windows are those of
    :class:`~hephaestus_baselines.data.window_dataset.WindowDataset`, and channels those of
    :class:`~hephaestus_baselines.data.batch_expansion.ChannelStack`.

    Parameters
    ----------
    root : str or pathlib.Path
        Folder of published cubes.
    split : {"train", "val", "test"}
        Part of the split.
    transforms : callable, optional
        Takes a sample and returns it changed.
    rule : str
        Name of the split (``hephaestus splits list``).
    inputs : InputChannels, optional
        Channels of each step; by default sine and cosine of phase, coherence, height, and where data is.
    prepared : PreparedData, optional
        Data that are prepared already; `root`, `rule` and `choices` are not used then.
    **choices
        Further arguments of :func:`~hephaestus_baselines.data.preparation.prepare_data`: ``series``,
        ``size``, ``tiling``, ``limit`` and others.

    Raises
    ------
    UsageError
        If there is no such part.
    HephaestusError
        If there is no cube, or a part is empty.

    Notes
    -----
    A sample has, with S the size, C the channels and T the interferograms of an item:

    ``image`` float32 (T * C, S, S), normalised, in the order of :attr:`bands`; ``mask`` int64 (S, S), 1 where
    any step deforms; ``label`` int64, whether any pixel does; ``valid`` bool (S, S), where any step has data;
    ``inside`` bool (S, S), pixels that no other window of the item counts; ``weight`` float32, mean
    confidence of the annotators; ``index`` int64, position in the data set; ``frame`` str; ``pairs`` str,
    the pairs separated by spaces.

    A window of the training part is drawn again whenever it is read, with torch's random numbers, which
    loaders seed in each worker.
    """

    #: Names of the two classes of masks and labels.
    classes = ("no deformation", "deformation")

    def __init__(
        self,
        root: str | Path = "data/cubes",
        split: Literal["train", "val", "test"] = "train",
        transforms: Callable[[TorchSample], TorchSample] | None = None,
        *,
        rule: str = "strict-temporal",
        inputs: InputChannels | None = None,
        prepared: PreparedData | None = None,
        **choices: Any,
    ) -> None:
        if split not in PART_BY_SPLIT:
            raise UsageError(f"there is no part {split!r}; choose {', '.join(PART_BY_SPLIT)}")
        self.prepared = prepared or prepare_data(Path(root).expanduser(), split=rule, **choices)
        self.split, self.transforms = split, transforms
        self.inputs = inputs or InputChannels(phase="sin-cos", nodata=True)
        items = self.prepared.items[PART_BY_SPLIT[split]]
        tiles = [item.tile for one in self.prepared.items.values() for item in one if item.tile]
        self.windows = WindowDataset(
            items,
            self.prepared.stores,
            size=tiles[0].size,
            atmosphere=self.inputs.atmosphere != "none",
            volcanic_only=bool(choices.get("volcanic_only", False)),
        )
        self.steps = len(items[0].members)
        self.moments = channel_moments(self.prepared.statistics, self.inputs)
        self._stack = ChannelStack(self.inputs, self.steps, self.moments)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels of an image, ``<step>/<channel>``."""
        return self.inputs.stacked_channels(self.steps)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int | SampleDraw) -> TorchSample:
        """Return a sample; a draw of ``EpochBatchSampler`` fixes its window, an index of training does not.

        Raises
        ------
        HephaestusError
            If stored data is damaged; the message names the frame, the pair and the variable.
        """
        if not isinstance(index, tuple):
            if not -len(self) <= index < len(self):
                raise IndexError(index)  # which ends a loop over the data set
            seed = int(torch.randint(2**32, ())) if self.split == "train" else 0
            index = SampleDraw(int(index) % len(self), seed)
        window = self.windows[index]
        item = self.windows.items[index[0]]
        fields = expand_batch({name: values[None] for name, values in window.items()})
        sample: TorchSample = {
            "image": self._stack(fields)[0],
            "mask": (window["mask"] > 0).any(0).long(),
            "label": window["label"],
            "valid": fields["valid"][0].any(0),
            **{name: window[name] for name in ("inside", "weight", "index")},
            "frame": item.frame,
            "pairs": " ".join(item.pairs),
        }
        return self.transforms(sample) if self.transforms else sample

    def plot(self, sample: TorchSample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw a sample: phase and coherence of its last step, the mask, and the prediction if there is one.

        Parameters
        ----------
        sample : dict
            A sample of this data set; ``prediction`` may hold a mask, shape (S, S), or a class.
        show_titles : bool
            Whether panels have titles.
        suptitle : str, optional
            Heading; by default the frame and the last pair.

        Returns
        -------
        matplotlib.figure.Figure
            The figure, which is marked if the frame is simulated.
        """
        image, mask = (sample[name].detach().cpu().numpy() for name in ("image", "mask"))
        phase = self._phase_of(image)
        if (valid := sample.get("valid")) is not None:
            phase = np.where(valid.cpu().numpy(), phase, 0)
        prediction = sample.get("prediction")
        predicted = None if prediction is None else torch.as_tensor(prediction).detach().cpu()
        as_map = predicted is not None and predicted.ndim == 2
        columns = 3 + as_map
        figure = make_figure(2.55 * columns + 0.2, 3.72)
        set_margins(figure, wspace=0.05, hspace=0.12, bottom=0.5)
        panels = list(figure.subplots(1, columns, squeeze=False)[0])
        titles = ["phase", "coherence", "deformation" if mask.any() else "no deformation"]
        if predicted is not None and not as_map:
            titles[2] += f", predicted: {self.classes[int(predicted > 0)]}"
        show_phase(panels[0], phase)
        coherence = self._physical(image, "insar_coherence")
        show_framed_image(panels[1], coherence, cmap="gray", vmin=0, vmax=255)
        outlined = [(panels[2], mask > 0, TRUTH_COLOR)]
        if predicted is not None and as_map:
            outlined.append((panels[3], predicted.numpy() > 0, PREDICTION_COLOR))
            titles.append("predicted")
        for panel, area, color in outlined:
            show_gray_phase(panel, phase)
            tint_area(panel, area, color)
            draw_outline(panel, area, color, "-")
        for panel, title in zip(panels, titles, strict=True):
            if show_titles:
                add_caption(panel, title)
        add_phase_scale(figure)
        frame, pairs = str(sample.get("frame", "")), str(sample.get("pairs", ""))
        known = frame in self.prepared.stores
        simulated = self.windows.is_simulated(frame) if known else self.prepared.is_simulated
        add_heading(figure, suptitle or f"{frame}  {pairs.rpartition(' ')[2]}", simulated)
        return figure

    def _phase_of(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.inputs.phase == "angle":
            return self._physical(image, "insar_difference")
        sine, cosine = (self._physical(image, f"insar_difference_{part}") for part in ("sin", "cos"))
        return np.arctan2(sine, cosine)

    def _physical(self, image: npt.NDArray[np.float32], channel: str) -> npt.NDArray[np.float32]:
        """Return a channel of the last step before it was normalised."""
        mean, deviation = self.moments[channel]
        return image[self.bands.index(f"{self.steps - 1}/{channel}")] * deviation + mean
