"""From compact batches to what a model sees, on the batch's own device."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from baselines.inputs import Inputs


def expand(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the named fields of a batch in physical units, on its device.

    Returns
    -------
    dict of str to Tensor
        Shape (B, T, S, S): float32 ``insar_difference`` (rad), ``insar_coherence`` (0-255), ``dem`` (m) and,
        where the batch has an atmosphere, the six names of :data:`baselines.inputs.ATMOSPHERE`; bool
        ``valid``, where there is phase; uint8 ``mask``.
    """
    raise NotImplementedError


class Stack(nn.Module):
    """Stacks the named fields into one normalised tensor.

    Parameters
    ----------
    inputs : Inputs
        Which channels.
    steps : int
        Interferograms of an item.
    moments : mapping of str to (mean, deviation)
        By the names of ``inputs.channels``; see :func:`baselines.inputs.channel_moments`.
    """

    def __init__(self, inputs: Inputs, steps: int, moments: Mapping[str, tuple[float, float]]) -> None:
        super().__init__()
        self.inputs, self.steps, self.moments = inputs, steps, dict(moments)

    def forward(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Return float32 (B, steps * channels, S, S) in the order of ``inputs.stacked``; no data is 0."""
        raise NotImplementedError
