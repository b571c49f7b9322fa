"""Random augmentation of training samples, on the device and in physical units.

All steps of a sample and its mask get the same transforms. Wrapped phase is filtered as a complex number:
averaged as angles, +3.1 and -3.1 would give 0 instead of pi. Pixels without data stay without data and do
not affect their neighbours. All geometric transforms are combined, so that values are interpolated only once.

Crops, flips, rotations and blur are named in the paper; probabilities and ranges are from its released
configuration, except for the rotation: the range of its library and its reflected borders are the rotation
``published``. Two more follow from what an interferogram is: its phase is known up to a constant
(``phase-offset``), and with the two dates exchanged it is the same scene with the opposite sign
(``time-reversal``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from hephaestus_baselines.config.channels import ATMOSPHERE_FIELDS, DATE_ROLES
from hephaestus_baselines.config.run_config import Augmentation, RotationMode

AUGMENTATION_PROBABILITY: Mapping[str, float] = {
    "crop": 0.3, "flip": 0.3, "rotation": 0.6, "blur": 0.3,
    "phase-offset": 1.0, "time-reversal": 0.5,
}  # fmt: skip
#: Fraction of the window's area that a crop keeps, and its aspect ratio (width / height).
_CROP_AREA, _CROP_RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
#: Standard deviation of the Gaussian blur, in pixels.
_BLUR_SIGMA = (0.1, 2.0)
#: The blur's kernel is cut off at this many standard deviations.
_BLUR_TRUNCATION = 3.0
#: Largest rotation in radians.
_LARGEST_TURN: Mapping[RotationMode, float] = {
    "full": math.pi, "metric": math.pi, "published": math.pi / 2,
}  # fmt: skip
_PHASE, _COHERENCE = "insar_difference", "insar_coherence"
#: Fields that are resampled to the nearest pixel.
_DISCRETE_FIELDS = ("valid", "mask", "inside")
#: Fields that have their own no-data pixels.
_VALIDITY_GROUP = {_PHASE: "phase", _COHERENCE: "coherence", "dem": "dem"}


@dataclass(frozen=True)
class BatchTransforms:
    """Transforms of each sample of a batch.

    Attributes
    ----------
    affine : Tensor
        float32 (B, 2, 3): maps each position of the result to its source position in the window (-1 to 1,
        x first).
    is_moved : Tensor
        bool (B,): whether `affine` is anything but the identity.
    blur_sigma : Tensor
        float32 (B,): standard deviation in pixels, 0 for no blur.
    kept : Tensor or None
        float32 (B, 2, 2): centre and half extent (x first) of the part of the window that a crop keeps.
        Positions beyond it are reflected at its outermost pixels. None: positions beyond the window have no
        data.
    phase_offset : Tensor or None
        float32 (B, T): what is added to the phase of each interferogram, rad. None: nothing.
    is_reversed : Tensor or None
        bool (B,): whether the dates are exchanged. None: nowhere.
    """

    affine: Tensor
    is_moved: Tensor
    blur_sigma: Tensor
    kept: Tensor | None = None
    phase_offset: Tensor | None = None
    is_reversed: Tensor | None = None


def draw_transforms(
    count: int,
    names: Sequence[Augmentation],
    generator: torch.Generator,
    *,
    rotation: RotationMode = "full",
    aspect: Tensor | None = None,
    steps: int = 1,
) -> BatchTransforms:
    """Draw random transforms for `count` samples.

    Every kind consumes the same random numbers whether it is enabled or not, so that disabling one kind does
    not change the others.

    Parameters
    ----------
    count : int
        Number of samples.
    names : sequence of str
        Enabled kinds of transforms.
    generator : torch.Generator
        On the CPU.
    rotation : str
        ``full``: by any angle; corners have no data. ``metric``: the same on the ground, so that circles stay
        circles where pixels are not square. ``published``: by up to 90 degrees; corners are reflected
        (``BORDER_REFLECT_101`` of OpenCV: the outermost pixels are not repeated).
    aspect : Tensor, optional
        (B,): width of a pixel divided by its height, in metres, for ``metric``; 1 by default.
    steps : int
        Interferograms of a sample; each gets a phase offset of its own.
    """
    draws = torch.rand((count, 10), generator=generator, dtype=torch.float64)
    crop, left, top, area, ratio, across, down, turn, angle, soft = draws.unbind(1)
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
    kept_part = torch.stack([torch.stack([x, y], 1), torch.stack([width.abs(), height.abs()], 1)], 1).float()
    radians = torch.where(turn, (2 * angle - 1) * _LARGEST_TURN[rotation], 0.0)
    cos, sin = radians.cos(), radians.sin()
    flat = torch.ones_like(cos) if aspect is None or rotation != "metric" else aspect.cpu().double()
    rows = [
        torch.stack([width * cos, -width * sin / flat, x], 1),
        torch.stack([height * sin * flat, height * cos, y], 1),
    ]
    # given that the draw fell below the probability, its position in that interval is uniform: no second draw
    sigma = _BLUR_SIGMA[0] + soft / AUGMENTATION_PROBABILITY["blur"] * (_BLUR_SIGMA[1] - _BLUR_SIGMA[0])
    # drawn after all others, so that these are those of runs without them
    swap = torch.rand(count, generator=generator, dtype=torch.float64)
    constant = torch.rand((count, steps), generator=generator, dtype=torch.float64)
    return BatchTransforms(
        torch.stack(rows, 1).float(),
        crop | across | down | turn,
        torch.where(blurred, sigma, 0.0).float(),
        kept_part if rotation == "published" else None,
        ((2 * constant - 1) * math.pi).float() if "phase-offset" in names else None,
        swap < AUGMENTATION_PROBABILITY["time-reversal"] if "time-reversal" in names else None,
    )


def augment_batch(
    fields: Mapping[str, Tensor],
    names: Sequence[Augmentation],
    generator: torch.Generator,
    *,
    rotation: RotationMode = "full",
    aspect: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the fields of a batch, randomly augmented.

    Parameters
    ----------
    fields : mapping of str to Tensor
        As :func:`hephaestus_baselines.data.batch_expansion.expand_batch` returns them, (B, T, S, S), and
        ``inside`` bool: which pixels count. They are not modified.
    names : sequence of str
        Kinds of transforms, from :data:`hephaestus_baselines.config.run_config.AUGMENTATIONS`.
    generator : torch.Generator
        On the CPU, so that the draws do not depend on the device.
    rotation, aspect
        See :func:`draw_transforms`.
    """
    if not names:
        return dict(fields)
    with torch.no_grad():
        count, steps = fields[_PHASE].shape[:2]
        changes = draw_transforms(count, names, generator, rotation=rotation, aspect=aspect, steps=steps)
        return apply_transforms(fields, changes)


def apply_transforms(fields: Mapping[str, Tensor], changes: BatchTransforms) -> dict[str, Tensor]:
    """Apply `changes` to the fields; samples without a transform are returned bit for bit.

    A phase offset and an exchange of the dates come last: geometry and blur are the same with and without.
    """
    return transform_on_device(fields, place_transforms(changes, fields[_PHASE].device))


@dataclass(frozen=True)
class PlacedTransforms:
    """Transforms of a batch as tensors on its device; None where no sample has one of its kind.

    Attributes
    ----------
    moved, blurred : tuple of Tensor or None
        Positions of the samples to transform, int64 (N,), and the position of each sample of the batch among
        them, int64 (B,), -1 for a sample that stays as it is.
    affine, kept, sigma : Tensor or None
        Those of the samples to transform; see :class:`BatchTransforms`.
    is_reversed : Tensor or None
        bool (B, 1, 1, 1): whether the dates are exchanged.
    phase_offset : Tensor or None
        float32 (B, T, 1, 1), rad.
    """

    moved: tuple[Tensor, Tensor] | None = None
    affine: Tensor | None = None
    kept: Tensor | None = None
    blurred: tuple[Tensor, Tensor] | None = None
    sigma: Tensor | None = None
    is_reversed: Tensor | None = None
    phase_offset: Tensor | None = None


def place_transforms(changes: BatchTransforms, device: torch.device) -> PlacedTransforms:
    """Copy `changes` to a device, without waiting for it."""
    moved, blurred = changes.is_moved, changes.blur_sigma > 0
    placed: dict[str, Tensor | tuple[Tensor, Tensor] | None] = {}
    if moved.any():
        placed["moved"] = _place_choice(moved, device)
        placed["affine"] = copy_to_device(changes.affine[moved], device)
        placed["kept"] = None if changes.kept is None else copy_to_device(changes.kept[moved], device)
    if blurred.any():
        placed["blurred"] = _place_choice(blurred, device)
        placed["sigma"] = copy_to_device(changes.blur_sigma[blurred], device)
    if changes.is_reversed is not None and changes.is_reversed.any():
        placed["is_reversed"] = copy_to_device(changes.is_reversed[:, None, None, None], device)
    if changes.phase_offset is not None:
        placed["phase_offset"] = copy_to_device(changes.phase_offset[:, :, None, None], device)
    return PlacedTransforms(**placed)  # type: ignore[arg-type]


def _place_choice(flags: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    order = torch.where(flags, flags.cumsum(0) - 1, -1)
    return copy_to_device(flags.nonzero().squeeze(1), device), copy_to_device(order, device)


def copy_to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor of the host to a device; the host does not wait for earlier work of a GPU."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def transform_on_device(fields: Mapping[str, Tensor], placed: PlacedTransforms) -> dict[str, Tensor]:
    """Apply transforms to the fields of a batch; the values of no tensor are needed on the host."""
    result = dict(fields)
    if placed.moved is not None:
        affine, kept = placed.affine, placed.kept
        assert affine is not None
        _transform_selected(result, placed.moved, lambda part: _warp(part, affine, kept))
    if placed.blurred is not None:
        sigma = placed.sigma
        assert sigma is not None
        _transform_selected(result, placed.blurred, lambda part: _blur(part, sigma))
    if placed.is_reversed is not None:
        _exchange_dates(result, placed.is_reversed)
    if placed.phase_offset is not None:
        shifted = result[_PHASE] + placed.phase_offset
        wrapped = shifted - 2 * math.pi * torch.round(shifted / (2 * math.pi))
        result[_PHASE] = torch.where(result["valid"].bool(), wrapped, 0.0)
    return result


def _exchange_dates(fields: dict[str, Tensor], chosen: Tensor) -> None:
    """Exchange primary and secondary date of samples: the phase changes its sign, the labels stay."""
    fields[_PHASE] = torch.where(chosen & fields["valid"].bool(), -fields[_PHASE], fields[_PHASE])
    for name in ATMOSPHERE_FIELDS:
        first, second = (f"{role}_date_{name}" for role in DATE_ROLES)
        if first in fields:
            fields[first], fields[second] = (
                torch.where(chosen, fields[second], fields[first]),
                torch.where(chosen, fields[first], fields[second]),
            )


def _transform_selected(
    fields: dict[str, Tensor],
    choice: tuple[Tensor, Tensor],
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    """Return copies of the fields in which the chosen samples are transformed."""
    chosen, order = choice
    steps = fields[_PHASE].shape[1]
    is_changed, source = (order >= 0).view(-1, 1, 1, 1), order.clamp(min=0)
    # a field shared by all steps is a broadcast view: transform it once
    shared = {name for name, values in fields.items() if steps > 1 and values.stride(1) == 0}
    changed = change(
        {name: (values[:, :1] if name in shared else values)[chosen] for name, values in fields.items()}
    )
    for name, values in changed.items():
        old = fields[name][:, :1] if name in shared else fields[name]
        # index_copy would be slow where deterministic algorithms are asked for
        new = torch.where(is_changed, values.to(old.dtype)[source], old)
        fields[name] = new.expand_as(fields[name]) if name in shared else new


def _warp(fields: dict[str, Tensor], place: Tensor, kept: Tensor | None) -> dict[str, Tensor]:
    size = fields[_PHASE].shape[-2:]
    grid = affine_grid(place, [len(place), 1, *size], align_corners=False)
    if kept is not None:
        grid = _reflect(grid, *kept[:, :, None, None].unbind(1))

    def sampled(mode: str) -> Callable[[Tensor], Tensor]:
        return lambda planes: grid_sample(planes, grid, mode, "zeros", align_corners=False)

    nearest = sampled("nearest")
    discrete = {name: nearest(fields[name].float()) for name in _DISCRETE_FIELDS if name in fields}
    return {**_filter_continuous(fields, sampled("bilinear"), nearest), **discrete}


def _reflect(grid: Tensor, centre: Tensor, half: Tensor) -> Tensor:
    """Reflect positions, (B, H, W, 2), at the outermost of as many pixels as the grid has.

    For example, four pixels a b c d continue as ... c b | a b c d | c b ...
    """
    columns_and_rows = copy_to_device(torch.tensor(grid.shape[2:0:-1]), grid.device)
    outermost = half * (1 - 1 / columns_and_rows)
    # a triangle wave with the period 4: 0 at the centre, 1 and -1 at the outermost pixels
    wave = ((grid - centre) / outermost + 1).remainder(4)
    return centre + outermost * (1 - (wave - 2).abs())


def _blur(fields: dict[str, Tensor], sigma: Tensor) -> dict[str, Tensor]:
    reach = math.ceil(_BLUR_TRUNCATION * _BLUR_SIGMA[1])
    away = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.exp(-(away**2) / (2 * sigma[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)

    def blurred(planes: Tensor) -> Tensor:
        # grouped convolution: one group per sample, its planes as the batch
        planes, count = planes.transpose(0, 1), len(planes)
        planes = conv2d(planes, kernel[:, None, None, :], padding=(0, reach), groups=count)
        planes = conv2d(planes, kernel[:, None, :, None], padding=(reach, 0), groups=count)
        return planes.transpose(0, 1)

    return _filter_continuous(fields, blurred, lambda planes: planes)


def _filter_continuous(
    fields: dict[str, Tensor], linear: Callable[[Tensor], Tensor], nearest: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Apply a linear filter to the continuous fields, as weighted means over pixels with data.

    The map `nearest` decides which pixels of the result have data.
    """
    planes: dict[str, Tensor] = {}
    for name, values in fields.items():
        if name in _DISCRETE_FIELDS:
            continue
        known = f"where {_VALIDITY_GROUP.get(name, 'atmosphere')}"
        # all atmosphere fields end at the edge of the frame, so they share one validity mask
        if known not in planes:
            planes[known] = _valid_pixels(name, fields).float()
        for part, component in _phasor_components(name, values).items():
            planes[part] = torch.where(planes[known] > 0, component, 0.0)
    counts = [part.shape[1] for part in planes.values()]
    parts = linear(torch.cat(list(planes.values()), 1)).split(counts, 1)
    mean = dict(zip(planes, parts, strict=True))
    # once for all fields that share their pixels without data
    kept = {
        known: (nearest(planes[known]) > 0.5) & (mean[known] > 0)
        for known in planes
        if known.startswith("where ")
    }
    weights = {known: mean[known].clamp(min=1e-6) for known in kept}
    result = {}
    for name in fields:
        if name in _DISCRETE_FIELDS:
            continue
        known = f"where {_VALIDITY_GROUP.get(name, 'atmosphere')}"
        if name == _PHASE:  # the mean phasor's angle is the phase; its length is only the pixels' agreement
            result[name] = torch.where(kept[known], torch.atan2(mean["sine"], mean["cosine"]), 0.0)
        else:
            nothing = 0.0 if name == _COHERENCE else math.nan
            result[name] = torch.where(kept[known], mean[name] / weights[known], nothing)
    return result


def _valid_pixels(name: str, fields: Mapping[str, Tensor]) -> Tensor:
    if name == _PHASE:
        return fields["valid"]
    return fields[name] != 0 if name == _COHERENCE else fields[name].isfinite()


def _phasor_components(name: str, values: Tensor) -> dict[str, Tensor]:
    return {"cosine": values.cos(), "sine": values.sin()} if name == _PHASE else {name: values}
