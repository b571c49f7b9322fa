"""Adding a displacement to an interferogram as it would have been recorded: to the complex signal.

An interferogram's pixel is an average over many looks. With the stored phase ``p`` and coherence ``c`` its
complex value is ``c exp(ip)``, which has the pair's own atmosphere, noise and decorrelation in it. A
displacement ``d`` towards the satellite turns it by ``-4 pi d / wavelength`` where positive phase is motion
away. In addition, a slope of the displacement within a pixel turns the looks by different angles, so their
average shrinks by

    a = sinc(x / 2 pi) sinc(y / 2 pi),    x, y: phase between neighbouring pixels along each axis, rad,

and what is lost becomes noise. If the estimated value is coherence plus circular noise of variance
``(1 - c**2) / 2L`` in each component, for ``L`` effective looks, then turning and shrinking it leaves
``a**2 (1 - c**2) / 2L``, and noise of variance ``(1 - a**2) / 2L`` is missing for the new coherence ``a c``.
For example, a slope of one fringe in four pixels has a = sinc(1/4) = 0.90; one of a fringe in two pixels, the
steepest that pixels can show, 0.64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

#: Independent looks of a pixel of LiCSAR's filtered interferograms, for the noise that slopes add.
_EFFECTIVE_LOOKS = 14
_FULL_COHERENCE = 255


@dataclass(frozen=True, eq=False)
class RadarGeometry:
    """How a radar sees a displacement.

    Attributes
    ----------
    wavelength : float
        Metres.
    look : numpy.ndarray
        Unit vector from the ground to the satellite (east, north, up), (3,) or (3, rows, columns).
    positive_phase : {"away", "towards"}
        Direction of motion that increases the phase.
    """

    wavelength: float
    look: npt.NDArray[Any]
    positive_phase: Literal["away", "towards"] = "away"

    def displacement_to_satellite(self, displacement: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the part of a displacement (east, north, up), (3, rows, columns), towards the satellite."""
        look = self.look if self.look.ndim == displacement.ndim else self.look[:, None, None]
        return np.asarray((look * displacement).sum(axis=0), np.float64)

    def phase_of(self, towards: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the unwrapped phase, rad, of a displacement towards the satellite, metres."""
        sign = -1 if self.positive_phase == "away" else 1
        return np.asarray(sign * 4 * np.pi / self.wavelength * towards, np.float64)


def inject_phase(
    phase: npt.NDArray[np.float32],
    coherence: npt.NDArray[np.uint8],
    added: npt.NDArray[Any],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Add a phase to the complex signal of an interferogram.

    Parameters
    ----------
    phase : numpy.ndarray
        Wrapped phase, float32 (rows, columns), rad; exactly 0 is no data and stays so.
    coherence : numpy.ndarray
        uint8, same shape; 255 is 1.
    added : numpy.ndarray
        Unwrapped phase to add, same shape, rad.
    rng : numpy.random.Generator
        Source of the noise that slopes of `added` cause.

    Returns
    -------
    phase : numpy.ndarray
        Wrapped phase, float32, within pi; 0 exactly where there are no data.
    coherence : numpy.ndarray
        uint8: unchanged where `added` is flat.
    """
    valid = phase != 0
    remaining = coherence_after_slope(added)
    # a pixel without coherence keeps its phase, which is noise already
    length = np.maximum(coherence, 1) / _FULL_COHERENCE
    signal = remaining * length * np.exp(1j * (phase.astype(np.float64) + added))
    lost = np.sqrt((1 - remaining**2) / (2 * _EFFECTIVE_LOOKS))
    noise = rng.standard_normal((2, *phase.shape))
    signal += lost * (noise[0] + 1j * noise[1])
    turned = np.angle(signal).astype(np.float32)
    turned[turned == 0] = np.float32(1e-6)  # exactly 0 is no data
    bound = np.nextafter(np.float32(np.pi), np.float32(0))
    estimate = np.clip(np.rint(np.abs(signal) * _FULL_COHERENCE), 1, _FULL_COHERENCE).astype(np.uint8)
    changed = valid & (coherence > 0) & (remaining < 1)
    return (
        np.where(valid, np.clip(turned, -bound, bound), np.float32(0)),
        np.where(changed, estimate, coherence),
    )


def coherence_after_slope(added: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return by what factor the slope of a phase reduces the coherence of each pixel, 0 to 1.

    Parameters
    ----------
    added : numpy.ndarray
        Unwrapped phase, (rows, columns), rad; two rows and two columns at least.
    """
    down, across = np.gradient(np.asarray(added, np.float64))
    factor = np.ones(down.shape)
    for slope in (down, across):
        # a pixel of more than one fringe has lost all: the further lobes of sinc do not bring it back
        factor *= np.sinc(np.minimum(np.abs(slope) / (2 * np.pi), 1))
    return factor
