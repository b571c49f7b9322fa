"""Small PNG files: figures written with a palette of the colours that they use."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from hephaestus_build.report.image_ops import phase_colormap
from hephaestus_build.report.style import ALARM, BLUE, EMPTY
from hephaestus_build.report.text_rendering import suppress_glyph_warnings

_GRAYS = 40


def encode_palette_png(figure: Figure, colours: npt.NDArray[np.floating]) -> bytes:
    """Return a figure as a PNG whose palette has greys, the colours of marks, and `colours`.

    A palette that is made from the image instead would tint greys in favour of the many hues of phase.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    colours : numpy.ndarray
        Shape (n, 3), from 0 to 1; at most 213.
    """
    canvas = FigureCanvasAgg(figure)
    with suppress_glyph_warnings():
        canvas.draw()
    grays = np.linspace(0, 1, _GRAYS)[:, np.newaxis].repeat(3, axis=1)
    known = np.concatenate([grays, [to_rgb(one) for one in (ALARM, BLUE, EMPTY)], colours])
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * known).round().astype("u1").tobytes())
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    stream = io.BytesIO()
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def phase_colours() -> npt.NDArray[np.floating]:
    """Return evenly spaced colours of wrapped phase, shape (80, 3)."""
    return np.asarray(phase_colormap()(np.linspace(0, 1, 80, endpoint=False)))[:, :3]
