"""Input channels of a model at each step, identified by name. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.dataset.running_moments import DATE_CHANNELS, MaskingConvention

if TYPE_CHECKING:  # at run time, every worker would import xarray and pandas
    from hephaestus_build.dataset.channel_statistics import ChannelStatistics

#: What a control run does not see.
BlindInput = Literal["insar_difference", "insar_coherence", "dem", "atmosphere"]
AtmosphereMode = Literal["none", "both", "difference"]
PhaseEncoding = Literal["angle", "sin-cos"]
DATE_ROLES = ("primary", "secondary")
#: ERA5 variables, in the order of the coarse arrays.
ATMOSPHERE_FIELDS: tuple[str, ...] = tuple(ERA5_VARIABLE_NAMES)
#: Names of the atmosphere channels: the three of the primary date, then those of the secondary.
ATMOSPHERE_CHANNELS = tuple(f"{role}_date_{name}" for role in DATE_ROLES for name in ATMOSPHERE_FIELDS)
_LARGEST_FLOAT32 = 3.4e38


@dataclass(frozen=True)
class InputChannels:
    """The channels of each step.

    Attributes
    ----------
    atmosphere : str
        ``none``; ``both``: three fields of each of the two dates, as in the paper; ``difference``:
        secondary minus primary, the part that affects an interferogram.
    phase : str
        ``angle``: the wrapped phase itself, as in the paper; ``sin-cos``: its sine and cosine, which have
        no jump at pi.
    nodata : bool
        Whether to add a channel that is 1 where a pixel has phase.
    blind : tuple of str
        Inputs whose channels are 0 everywhere; ``valid`` belongs to the phase.
    """

    atmosphere: AtmosphereMode = "none"
    phase: PhaseEncoding = "angle"
    nodata: bool = False
    blind: tuple[BlindInput, ...] = ()

    def is_blind(self, channel: str) -> bool:
        """Whether a channel is 0 everywhere."""
        if channel == "valid" or channel.removesuffix("_sin").removesuffix("_cos") == "insar_difference":
            return "insar_difference" in self.blind
        return (channel if channel in ("insar_coherence", "dem") else "atmosphere") in self.blind

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of one step, in stacking order."""
        angle = ("insar_difference",)
        names = angle if self.phase == "angle" else tuple(f"{angle[0]}_{part}" for part in ("sin", "cos"))
        names += ("insar_coherence", "dem")
        if self.atmosphere == "both":
            names += ATMOSPHERE_CHANNELS
        elif self.atmosphere == "difference":
            names += tuple(f"{name}_difference" for name in ATMOSPHERE_FIELDS)
        return (*names, "valid") if self.nodata else names

    def stacked_channels(self, steps: int) -> tuple[str, ...]:
        """Return ``<step>/<channel>`` for all `steps`; shared channels are repeated in each step."""
        return tuple(f"{step}/{name}" for step in range(steps) for name in self.channels)


def channel_moments(
    statistics: ChannelStatistics, inputs: InputChannels, convention: MaskingConvention = "valid"
) -> dict[str, tuple[float, float]]:
    """Return the mean and standard deviation by which each channel is normalised.

    Sine, cosine and ``valid`` are not normalised, nor is a channel without any values (a missing atmosphere).
    A difference of two dates has the mean 0 and is divided by the standard deviation of the variable itself.

    Parameters
    ----------
    statistics : ChannelStatistics
        Moments of the training part.
    inputs : InputChannels
        Channels to normalise.
    convention : str
        Which moments to use: ``valid`` for those of pixels with data, or the published convention.

    Returns
    -------
    dict of str to (mean, deviation)
        By channel name; (0, 1) for channels that are not normalised.
    """
    measured = {
        name: (item.mean, item.std)
        for name, item in statistics.moments_by_channel(convention).items()
        if item.count and math.isfinite(item.std) and item.std > 0
    }
    return {name: _moments_for_channel(name, measured) for name in inputs.channels}


def have_scale(moments: Mapping[str, tuple[float, float]]) -> bool:
    """Return whether channels can be normalised by mean and deviation in 32 bit, as models compute."""
    return all(
        deviation > 0
        and all(abs(value) < _LARGEST_FLOAT32 for value in (mean, 1 / deviation, mean / deviation))
        for mean, deviation in moments.values()
    )


def _moments_for_channel(channel: str, measured: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    for name in DATE_CHANNELS:
        if channel == f"{name}_difference":
            return 0.0, measured.get(name, (0.0, 1.0))[1]
        if channel.endswith(f"_date_{name}"):
            return measured.get(name, (0.0, 1.0))
    return measured.get(channel, (0.0, 1.0))
