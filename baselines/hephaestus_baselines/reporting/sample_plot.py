"""Figure of one sample as the data loader returns it, for inspection before training."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from hephaestus_baselines.data.batch_expansion import expand_batch
from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.reporting.prediction_figures import (
    TRUTH_COLOR,
    add_caption,
    add_heading,
    add_phase_scale,
    add_scale,
    draw_outline,
    make_figure,
    set_margins,
    show_framed_image,
    show_gray_phase,
    show_phase,
    tint_area,
)
from hephaestus_build.cube.reading.window_reader import WindowReader

#: The atmospheric variable that determines most of the wet delay. 1 kg m-2 is 1 mm of water.
_WATER_VAPOR = "total_column_water_vapour"


def plot_sample(windows: WindowDataset, draw: SampleDraw | int) -> Figure:
    """Draw one sample of a data set: the inputs of a model and the expert's deformation mask.

    The panels show phase, coherence, height, the change of water vapour (if the atmosphere is read) and
    deformation. Simulated data is marked.

    Parameters
    ----------
    windows : WindowDataset
        The data set.
    draw : SampleDraw or int
        Index of the sample in the data set.

    Returns
    -------
    matplotlib.figure.Figure
        A row of panels for each time step.

    Raises
    ------
    HephaestusError
        If stored data is damaged; the message names the frame, the pair and the variable.

    Examples
    --------
    >>> plot_sample(windows, 0).savefig("sample.png")  # doctest: +SKIP
    """
    item, sample = windows.items[draw[0] if isinstance(draw, tuple) else draw], windows[draw]
    names = item.pairs
    fields = {
        name: values[0].numpy()
        for name, values in expand_batch({k: v[None] for k, v in sample.items()}).items()
    }
    vapour = None
    if f"primary_date_{_WATER_VAPOR}" in fields:
        vapour = fields[f"secondary_date_{_WATER_VAPOR}"] - fields[f"primary_date_{_WATER_VAPOR}"]
    pixel_km = WindowReader(windows.stores[item.frame]).grid.pixel_size_m()[0] / 1000
    steps, columns = len(names), 4 + (vapour is not None)
    figure = make_figure(2.55 * columns + 0.2, 2.72 * steps + 1.0)
    set_margins(figure, wspace=0.05, hspace=0.12, bottom=0.5)
    for step, row in enumerate(figure.subplots(steps, columns, squeeze=False)):
        phase, mask = fields["insar_difference"][step], fields["mask"][step] > 0
        show_phase(row[0], phase)
        add_scale(row[0], pixel_km)
        add_caption(row[0], f"{names[step]}: phase")
        show_framed_image(row[1], fields["insar_coherence"][step], cmap="gray", vmin=0, vmax=255)
        add_caption(row[1], "coherence")
        height = fields["dem"][step]
        show_framed_image(row[2], height, cmap="terrain")
        add_caption(row[2], f"height{_format_value_range(height, 'm')}")
        show_gray_phase(row[-1], phase)
        tint_area(row[-1], mask, TRUTH_COLOR)
        draw_outline(row[-1], mask, TRUTH_COLOR, "-")
        add_caption(row[-1], f"deformation in {mask.mean():.0%}" if mask.any() else "no deformation")
        if vapour is not None:
            change = vapour[step]
            most = float(np.nanmax(np.abs(change), initial=1e-9))
            show_framed_image(row[3], change, cmap="BrBG", vmin=-most, vmax=most)
            add_caption(row[3], f"water vapour change{_format_value_range(change, 'kg/m²', 1)}")
    add_phase_scale(figure)
    add_heading(figure, item.frame, windows.is_simulated(item.frame))
    return figure


def _format_value_range(values: np.ndarray, unit: str, digits: int = 0) -> str:
    if np.isnan(values).all():
        return ": none"
    return f", {np.nanmin(values):.{digits}f} to {np.nanmax(values):.{digits}f} {unit}"
