"""A picture of one sample as the loader hands it over: to look before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from hephaestus_baselines.data.batch_expansion import expand
from hephaestus_baselines.reporting.prediction_figures import (
    TRUTH,
    blank,
    caption,
    draw_grey,
    draw_phase,
    fill,
    framed,
    heading,
    margins,
    outline,
)

#: Of the atmosphere, what tells most of a delay: millimetres of water, since kg m-2 are that.
_VAPOUR = "total_column_water_vapour"


def draw_sample(sample: Mapping[str, Tensor], names: Sequence[str], title: str, simulated: bool) -> Figure:
    """Draw phase, coherence, height, change of water vapour and deformation of every step.

    Parameters
    ----------
    sample : mapping of str to Tensor
        An item of :class:`hephaestus_baselines.data.window_dataset.Windows`.
    names : sequence of str
        One for each step.
    title : str
    simulated : bool
        Whether to mark the picture so.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each step.
    """
    fields = {
        name: values[0].numpy() for name, values in expand({k: v[None] for k, v in sample.items()}).items()
    }
    vapour = None
    if f"primary_date_{_VAPOUR}" in fields:
        vapour = fields[f"secondary_date_{_VAPOUR}"] - fields[f"primary_date_{_VAPOUR}"]
    steps, columns = len(names), 4 + (vapour is not None)
    figure = blank(2.55 * columns + 0.2, 2.72 * steps + 0.6)
    margins(figure, wspace=0.05, hspace=0.12, bottom=0.1)
    for step, row in enumerate(figure.subplots(steps, columns, squeeze=False)):
        phase, mask = fields["insar_difference"][step], fields["mask"][step] > 0
        draw_phase(row[0], phase)
        caption(row[0], f"{names[step]}: phase")
        framed(row[1], fields["insar_coherence"][step], cmap="gray", vmin=0, vmax=255)
        caption(row[1], "coherence")
        height = fields["dem"][step]
        framed(row[2], height, cmap="terrain")
        caption(row[2], f"height{_span(height, 'm')}")
        draw_grey(row[-1], phase)
        fill(row[-1], mask, TRUTH)
        outline(row[-1], mask, TRUTH, "-")
        caption(row[-1], f"deformation in {mask.mean():.0%}" if mask.any() else "no deformation")
        if vapour is not None:
            change = vapour[step]
            most = float(np.nanmax(np.abs(change), initial=1e-9))
            framed(row[3], change, cmap="BrBG", vmin=-most, vmax=most)
            caption(row[3], f"water vapour change{_span(change, 'kg/m²', 1)}")
    heading(figure, title, simulated)
    return figure


def _span(values: np.ndarray, unit: str, digits: int = 0) -> str:
    if np.isnan(values).all():
        return ": none"
    return f", {np.nanmin(values):.{digits}f} to {np.nanmax(values):.{digits}f} {unit}"
