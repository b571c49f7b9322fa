"""Expansion of compact batches into model inputs, on the batch's device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hephaestus_baselines.config.channels import ATMOSPHERE_CHANNELS, ATMOSPHERE_FIELDS, InputChannels


def expand_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the named fields of a batch in physical units, on its device.

    Fields that all steps share (the DEM, the primary date's atmosphere) are broadcast views: copy them
    before writing.

    Returns
    -------
    dict of str to Tensor
        Shape (B, T, S, S): float32 ``insar_difference`` (rad), ``insar_coherence`` (0-255), ``dem`` (m) and,
        where the batch has an atmosphere, the six names of
        :data:`hephaestus_baselines.config.channels.ATMOSPHERE_CHANNELS`, NaN outside the frame; bool
        ``valid``, True where there is phase; uint8 ``mask``.
    """
    phase = batch["phase"]
    fields = {
        "insar_difference": phase,
        "insar_coherence": batch["coherence"].float(),
        "dem": batch["dem"].unsqueeze(1).expand_as(phase),
        "valid": phase != 0,
        "mask": batch["mask"],
    }
    if "atmosphere" in batch:
        coarse = batch["atmosphere"]
        # all steps of a series have the same primary date
        primary = interpolate_coarse_fields(coarse[:, 0, 0], batch["rows"], batch["columns"])
        secondary = interpolate_coarse_fields(coarse[:, :, 1], batch["rows"], batch["columns"])
        ends = [primary[:, i].unsqueeze(1).expand_as(phase) for i in range(len(ATMOSPHERE_FIELDS))]
        ends += [secondary[:, :, i] for i in range(len(ATMOSPHERE_FIELDS))]
        fields |= dict(zip(ATMOSPHERE_CHANNELS, ends, strict=True))
    return fields


def interpolate_coarse_fields(coarse: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate coarse fields bilinearly at pixel positions, as two small matrix products.

    Parameters
    ----------
    coarse : Tensor
        float32 (B, ..., K, K), the coarse fields.
    rows, columns : Tensor
        float32 (B, S), positions on the coarse grid from 0 to K - 1; NaN gives NaN.

    Returns
    -------
    Tensor
        float32 (B, ..., S, S), within a few ulp of exact arithmetic.
    """
    # GPUs may round float32 matrix products to a 10-bit mantissa (TF32); float64 is exact
    exact = torch.float64 if coarse.is_cuda else torch.float32
    batch, *leading, points, _ = coarse.shape
    with torch.autocast(coarse.device.type, enabled=False):
        fields = coarse.reshape(batch, -1, points)
        # subtract the mean of large values first: the remainder keeps its precision in the product
        middle = coarse.mean((-2, -1), keepdim=True)
        fields = (coarse - middle).to(exact).reshape(batch, -1, points)
        across = fields @ _linear_weights(columns, points, exact).mT
        down = _linear_weights(rows, points, exact).unsqueeze(1)
        result = down @ across.reshape(batch, -1, points, columns.shape[-1])
    size = rows.shape[-1], columns.shape[-1]
    return result.float().reshape(batch, *leading, *size).add_(middle)


def _linear_weights(positions: Tensor, points: int, dtype: torch.dtype) -> Tensor:
    """Return the linear weight of each grid point at each position, (B, S, K)."""
    points_at = torch.arange(points, dtype=dtype, device=positions.device)
    # clamp propagates NaN
    return (1 - (positions.to(dtype).unsqueeze(-1) - points_at).abs()).clamp(min=0)


class ChannelStack(nn.Module):
    """Stack named fields into one normalised tensor.

    Parameters
    ----------
    inputs : InputChannels
        The channels of one step.
    steps : int
        Number of interferograms per item.
    moments : mapping of str to (mean, deviation)
        By channel name (``inputs.channels``), from
        :func:`hephaestus_baselines.config.channels.channel_moments`.
    """

    def __init__(self, inputs: InputChannels, steps: int, moments: Mapping[str, tuple[float, float]]) -> None:
        super().__init__()
        self.inputs, self.steps = inputs, steps
        self.moments = {name: moments[name] for name in inputs.channels}

    def forward(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Return float32 (B, steps * channels, S, S), ordered as ``inputs.stacked_channels``.

        Phase and coherence are 0 in physical units where there are no data, and then normalised: no coherence
        is not average coherence. Gaps of the DEM and of the atmosphere are 0 after normalisation.
        """
        batch, steps, *size = fields["insar_difference"].shape
        names = self.inputs.channels
        shape = batch, steps, len(names), *size
        result = torch.empty(shape, dtype=torch.float32, device=fields["insar_difference"].device)
        for place, name in enumerate(names):
            mean, deviation = self.moments[name]
            if self.inputs.is_blind(name):
                result[:, :, place] = 0
                continue
            _write_channel(name, fields, mean, deviation, result[:, :, place])
        return result.flatten(1, 2)


def _write_channel(
    name: str, fields: Mapping[str, Tensor], mean: float, deviation: float, out: Tensor
) -> None:
    """Write one normalised channel, (B, T, S, S), into `out`."""
    match name:
        case "valid":
            out.copy_(fields["valid"])
        case "insar_difference_sin":
            _write_result(torch.sin, fields["insar_difference"], out=out)
        case "insar_difference_cos":
            _write_result(torch.cos, fields["insar_difference"], out=out).masked_fill_(~fields["valid"], 0)
        case "insar_difference" | "insar_coherence":
            _normalize_into(fields[name], mean, deviation, out)
        case _ if name.endswith("_difference"):
            variable = name.removesuffix("_difference")
            change = fields[f"secondary_date_{variable}"] - fields[f"primary_date_{variable}"]
            _normalize_into(change, mean, deviation, out).nan_to_num_(nan=0.0)
        case _:
            values = fields[name]
            if values.stride(1) == 0:  # a broadcast view: compute it for one step
                _normalize_into(values[:, :1], mean, deviation, out[:, :1]).nan_to_num_(nan=0.0)
                out[:, 1:] = out[:, :1]
            else:
                _normalize_into(values, mean, deviation, out).nan_to_num_(nan=0.0)


def _normalize_into(values: Tensor, mean: float, deviation: float, out: Tensor) -> Tensor:
    # made on the device: a copy from the host would wait until the device has done all earlier work
    shift = torch.full((), -mean / deviation, dtype=out.dtype, device=out.device)
    return _write_result(torch.add, shift, values, alpha=1 / deviation, out=out)


def _write_result(
    operation: Callable[..., Tensor], *arguments: Tensor, out: Tensor, **options: float
) -> Tensor:
    """Write the result of an operation into `out`, in one pass over memory."""
    if torch.compiler.is_compiling():  # which makes one pass of it, and takes no view as `out`
        return out.copy_(operation(*arguments, **options))
    return operation(*arguments, **options, out=out)
