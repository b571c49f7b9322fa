"""Random changes to training samples, on the device, in physical units.

One draw holds for all steps of a sample and for its mask. Wrapped phase is handled as the complex number
that it is: averaged as an angle, +3.1 and -3.1 would give 0 instead of pi. What has no data spreads nowhere
and stays without. All changes of place are done at once, so that values are interpolated only once.

The probabilities and ranges are those of the paper's released configuration; the paper names the kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from hephaestus_baselines.config.run_config import Augmentation

AUGMENTATION_PROBABILITY: Mapping[str, float] = {"crop": 0.3, "flip": 0.3, "rotation": 0.6, "blur": 0.3}
#: Part of the window's area that a crop keeps, and its width over its height.
_CROP_AREA, _CROP_RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
#: Deviation of the blur, pixels.
_BLUR_SIGMA = (0.1, 2.0)
#: Beyond so many deviations the blur's weight is nothing.
_BLUR_TRUNCATION = 3.0
_PHASE, _COHERENCE = "insar_difference", "insar_coherence"
#: Of these the nearest pixel is taken.
_DISCRETE_FIELDS = ("valid", "mask", "inside")
#: Fields that have gaps of their own.
_VALIDITY_GROUP = {_PHASE: "phase", _COHERENCE: "coherence", "dem": "dem"}


@dataclass(frozen=True)
class BatchTransforms:
    """What is done to each sample of a batch.

    Attributes
    ----------
    affine : Tensor
        float32 (B, 2, 3): from where in the window (-1 to 1, x first) each place of the result comes.
    is_moved : Tensor
        bool (B,): whether that is anywhere else.
    blur_sigma : Tensor
        float32 (B,): deviation in pixels, 0 for none.
    """

    affine: Tensor
    is_moved: Tensor
    blur_sigma: Tensor


def draw_transforms(count: int, names: Sequence[Augmentation], generator: torch.Generator) -> BatchTransforms:
    """Draw what is done to `count` samples.

    Every kind takes the same numbers from the generator whether it is named or not: leaving one out does
    not change the others.
    """
    chance = torch.rand((count, 10), generator=generator, dtype=torch.float64)
    crop, left, top, area, ratio, across, down, turn, angle, soft = chance.unbind(1)
    crop = (crop < AUGMENTATION_PROBABILITY["crop"]) & ("crop" in names)
    across, down = ((flip < AUGMENTATION_PROBABILITY["flip"]) & ("flip" in names) for flip in (across, down))
    turn = (turn < AUGMENTATION_PROBABILITY["rotation"]) & ("rotation" in names)
    blurred = (soft < AUGMENTATION_PROBABILITY["blur"]) & ("blur" in names)

    kept = torch.where(crop, _CROP_AREA[0] + area * (_CROP_AREA[1] - _CROP_AREA[0]), 1.0)
    low, high = (math.log(value) for value in _CROP_RATIO)
    shape = torch.where(crop, (low + ratio * (high - low)).exp(), 1.0)
    width, height = (kept * shape).sqrt().clamp(max=1), (kept / shape).sqrt().clamp(max=1)
    x, y = (2 * left - 1) * (1 - width), (2 * top - 1) * (1 - height)
    width, height = torch.where(across, -width, width), torch.where(down, -height, height)
    radians = torch.where(turn, (2 * angle - 1) * math.pi, 0.0)
    cos, sin = radians.cos(), radians.sin()
    rows = [torch.stack([width * cos, -width * sin, x], 1), torch.stack([height * sin, height * cos, y], 1)]
    # where in its interval the draw fell, given that it fell there, is as good as another draw
    sigma = _BLUR_SIGMA[0] + soft / AUGMENTATION_PROBABILITY["blur"] * (_BLUR_SIGMA[1] - _BLUR_SIGMA[0])
    return BatchTransforms(
        torch.stack(rows, 1).float(), crop | across | down | turn, torch.where(blurred, sigma, 0.0).float()
    )


def augment_batch(
    fields: Mapping[str, Tensor], names: Sequence[Augmentation], generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the fields of a batch, changed at random.

    Parameters
    ----------
    fields : mapping of str to Tensor
        As :func:`hephaestus_baselines.data.batch_expansion.expand_batch` returns them, (B, T, S, S), and
        ``inside`` bool: which pixels count. Nothing of it is written to.
    names : sequence of str
        Kinds of changes, :data:`hephaestus_baselines.config.run_config.AUGMENTATIONS`.
    generator : torch.Generator
        On the CPU, so that all devices draw alike.
    """
    if not names:
        return dict(fields)
    with torch.no_grad():
        return apply_transforms(fields, draw_transforms(len(fields[_PHASE]), names, generator))


def apply_transforms(fields: Mapping[str, Tensor], changes: BatchTransforms) -> dict[str, Tensor]:
    """Return the fields after `changes`; samples that are not changed keep every bit."""
    device = fields[_PHASE].device
    result = dict(fields)
    if changes.is_moved.any():
        chosen = changes.is_moved.nonzero().squeeze(1).to(device)
        _transform_selected(
            result, chosen, lambda part: _warp(part, changes.affine[changes.is_moved].to(device))
        )
    if (changes.blur_sigma > 0).any():
        chosen = (changes.blur_sigma > 0).nonzero().squeeze(1).to(device)
        _transform_selected(
            result, chosen, lambda part: _blur(part, changes.blur_sigma[changes.blur_sigma > 0].to(device))
        )
    return result


def _transform_selected(
    fields: dict[str, Tensor], chosen: Tensor, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """Put the changed samples in the place of those `chosen`, in new tensors."""
    steps = fields[_PHASE].shape[1]
    # what all steps share is a view that repeats one of them: it is changed once
    shared = {name for name, values in fields.items() if steps > 1 and values.stride(1) == 0}
    changed = change(
        {name: (values[:, :1] if name in shared else values)[chosen] for name, values in fields.items()}
    )
    for name, values in changed.items():
        old = fields[name][:, :1] if name in shared else fields[name]
        new = old.index_copy(0, chosen, values.to(old.dtype))
        fields[name] = new.expand_as(fields[name]) if name in shared else new


def _warp(fields: dict[str, Tensor], place: Tensor) -> dict[str, Tensor]:
    size = fields[_PHASE].shape[-2:]
    grid = affine_grid(place, [len(place), 1, *size], align_corners=False)

    def sampled(mode: str) -> Callable[[Tensor], Tensor]:
        return lambda planes: grid_sample(planes, grid, mode, "zeros", align_corners=False)

    nearest = sampled("nearest")
    discrete = {name: nearest(fields[name].float()) for name in _DISCRETE_FIELDS if name in fields}
    return {**_filter_continuous(fields, sampled("bilinear"), nearest), **discrete}


def _blur(fields: dict[str, Tensor], sigma: Tensor) -> dict[str, Tensor]:
    reach = math.ceil(_BLUR_TRUNCATION * _BLUR_SIGMA[1])
    away = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.exp(-(away**2) / (2 * sigma[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)

    def blurred(planes: Tensor) -> Tensor:
        # each sample is a group of its own, its planes are the batch
        planes, count = planes.transpose(0, 1), len(planes)
        planes = conv2d(planes, kernel[:, None, None, :], padding=(0, reach), groups=count)
        planes = conv2d(planes, kernel[:, None, :, None], padding=(reach, 0), groups=count)
        return planes.transpose(0, 1)

    return _filter_continuous(fields, blurred, lambda planes: planes)


def _filter_continuous(
    fields: dict[str, Tensor], linear: Callable[[Tensor], Tensor], nearest: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Put the continuous fields through a linear map of planes, as means over what holds data.

    Whether the result holds data is decided by the map `nearest`.
    """
    planes: dict[str, Tensor] = {}
    for name, values in fields.items():
        if name in _DISCRETE_FIELDS:
            continue
        known = f"where {_VALIDITY_GROUP.get(name, 'atmosphere')}"
        # the fields of the atmosphere end together, at the edge of the frame
        if known not in planes:
            planes[known] = _valid_pixels(name, fields).float()
        for part, component in _phasor_components(name, values).items():
            planes[part] = torch.where(planes[known] > 0, component, 0.0)
    counts = [part.shape[1] for part in planes.values()]
    parts = linear(torch.cat(list(planes.values()), 1)).split(counts, 1)
    mean = dict(zip(planes, parts, strict=True))
    result = {}
    for name in fields:
        if name in _DISCRETE_FIELDS:
            continue
        known = f"where {_VALIDITY_GROUP.get(name, 'atmosphere')}"
        kept = (nearest(planes[known]) > 0.5) & (mean[known] > 0)
        if name == _PHASE:  # the length of the phasor says how much its pixels agree, its angle is the phase
            result[name] = torch.where(kept, torch.atan2(mean["sine"], mean["cosine"]), 0.0)
        else:
            nothing = 0.0 if name == _COHERENCE else math.nan
            result[name] = torch.where(kept, mean[name] / mean[known].clamp(min=1e-6), nothing)
    return result


def _valid_pixels(name: str, fields: Mapping[str, Tensor]) -> Tensor:
    if name == _PHASE:
        return fields["valid"]
    return fields[name] != 0 if name == _COHERENCE else fields[name].isfinite()


def _phasor_components(name: str, values: Tensor) -> dict[str, Tensor]:
    return {"cosine": values.cos(), "sine": values.sin()} if name == _PHASE else {name: values}
