"""What a model sees at each step, by name and never by position alone. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.dataset.running_moments import DATE_CHANNELS, MaskingConvention

if TYPE_CHECKING:  # it would have every process that reads windows import xarray and pandas
    from hephaestus_build.dataset.channel_statistics import ChannelStatistics

AtmosphereMode = Literal["none", "both", "difference"]
PhaseEncoding = Literal["angle", "sin-cos"]
DATE_ROLES = ("primary", "secondary")
#: ERA5's variables, in the order of the coarse arrays.
ATMOSPHERE_FIELDS: tuple[str, ...] = tuple(ERA5_VARIABLE_NAMES)
#: The cube's 100 m variables: the three of the primary date, then those of the secondary.
ATMOSPHERE_CHANNELS = tuple(f"{role}_date_{name}" for role in DATE_ROLES for name in ATMOSPHERE_FIELDS)


@dataclass(frozen=True)
class InputChannels:
    """The channels of each step.

    Attributes
    ----------
    atmosphere : str
        ``none``; ``both``: three fields of each of the two dates, as in the paper; ``difference``:
        secondary less primary, the part that an interferogram sees.
    phase : str
        ``angle``: the wrapped phase itself, as in the paper; ``sin-cos``: its sine and cosine, which know
        no jump at pi.
    nodata : bool
        Whether a channel says which pixels hold phase.
    """

    atmosphere: AtmosphereMode = "none"
    phase: PhaseEncoding = "angle"
    nodata: bool = False

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of one step, in the order in which they are stacked."""
        angle = ("insar_difference",)
        names = angle if self.phase == "angle" else tuple(f"{angle[0]}_{part}" for part in ("sin", "cos"))
        names += ("insar_coherence", "dem")
        if self.atmosphere == "both":
            names += ATMOSPHERE_CHANNELS
        elif self.atmosphere == "difference":
            names += tuple(f"{name}_difference" for name in ATMOSPHERE_FIELDS)
        return (*names, "valid") if self.nodata else names

    def stacked_channels(self, steps: int) -> tuple[str, ...]:
        """Return ``<step>/<channel>`` of all `steps`: each step repeats what all share."""
        return tuple(f"{step}/{name}" for step in range(steps) for name in self.channels)


def channel_moments(
    statistics: ChannelStatistics, inputs: InputChannels, convention: MaskingConvention = "valid"
) -> dict[str, tuple[float, float]]:
    """Return the mean and deviation that each channel is normalised by.

    Sine, cosine and ``valid`` stay as they are. A difference of two dates has the mean 0 and is divided by
    the deviation of the variable itself. A channel without any value (an atmosphere that is owed) stays
    as it is.
    """
    measured = {
        name: (item.mean, item.std)
        for name, item in statistics.moments_by_channel(convention).items()
        if item.count and math.isfinite(item.std) and item.std > 0
    }
    return {name: _moments_for_channel(name, measured) for name in inputs.channels}


def _moments_for_channel(channel: str, measured: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    for name in DATE_CHANNELS:
        if channel == f"{name}_difference":
            return 0.0, measured.get(name, (0.0, 1.0))[1]
        if channel.endswith(f"_date_{name}"):
            return measured.get(name, (0.0, 1.0))
    return measured.get(channel, (0.0, 1.0))
