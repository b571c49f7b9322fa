"""Tests of augmentation: one draw for all steps and the mask, complex phase, and no data kept as no data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy_training  # noqa: F401 (one thread)
from hephaestus_baselines.config.channels import ATMOSPHERE_CHANNELS
from hephaestus_baselines.config.run_config import AUGMENTATIONS, Augmentation
from hephaestus_baselines.data.augmentation import (
    BatchTransforms,
    apply_transforms,
    augment_batch,
    draw_transforms,
)

SIZE = 24


def fields_like(batch: int = 4, steps: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return fields as `expand` makes them: what steps share is a view."""
    chance = torch.Generator().manual_seed(seed)
    shape = (batch, steps, SIZE, SIZE)
    phase = (torch.rand(shape, generator=chance) * 2 - 1) * 3.1
    phase[..., 5:8, 5:8] = 0
    fields = {
        "insar_difference": phase,
        "insar_coherence": torch.randint(1, 256, shape, generator=chance).float() * (phase != 0),
        "dem": torch.rand((batch, 1, SIZE, SIZE), generator=chance).mul(3000).expand(shape),
        "valid": phase != 0,
        "mask": (torch.rand(shape, generator=chance) < 0.2).to(torch.uint8),
        "inside": torch.ones((batch, 1, SIZE, SIZE), dtype=torch.bool).expand(shape),
    }
    for name in ATMOSPHERE_CHANNELS:
        own = steps if name.startswith("secondary") else 1
        values = torch.rand((batch, own, SIZE, SIZE), generator=chance) * 1e3 + 1e5
        values[..., -2:, :] = math.nan  # beyond the frame
        fields[name] = values.expand(shape)
    return fields


def moved(matrix: list[list[float]], batch: int = 1, blur: float = 0.0) -> BatchTransforms:
    place = torch.tensor(matrix).expand(batch, 2, 3)
    still = place[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    return BatchTransforms(place, torch.full((batch,), not still), torch.full((batch,), blur))


STILL = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
FLIP = [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("matrix", "expected"), [(FLIP, lambda x: x.flip(-1)), (QUARTER, lambda x: x.rot90(1, (-2, -1)))]
)
def test_flips_and_quarter_turns_move_every_field_alike(matrix: list[list[float]], expected: object) -> None:
    fields = fields_like(1)
    result = apply_transforms(fields, moved(matrix))
    for name, values in fields.items():
        # the grid of places is float32: a hundred thousandth of a pixel
        wrong = result[name].float() - expected(values).float()  # type: ignore[operator]
        assert torch.equal(wrong.isnan(), expected(values).isnan()), name  # type: ignore[operator]
        assert wrong.nan_to_num().abs().max() <= 1e-5 * values.float().nan_to_num().abs().max(), name


def test_a_ramp_of_phase_stays_a_ramp_across_the_jump() -> None:
    # a fringe every 8 pixels: as plain numbers, means of +3 and -3 would be 0 at every jump
    ramp = (torch.arange(SIZE) * 2 * math.pi / 8 + 0.3).expand(1, 1, SIZE, SIZE)
    wrapped = torch.atan2(ramp.sin(), ramp.cos())
    fields = {**fields_like(1, 1), "insar_difference": wrapped, "valid": wrapped != 0}
    half = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    result = apply_transforms(fields, moved(half))["insar_difference"][0, 0]
    # where each pixel of the enlarged middle comes from
    source = (torch.arange(SIZE) + 0.5) / 2 + SIZE / 4 - 0.5
    expected = source * 2 * math.pi / 8 + 0.3
    wrong = torch.atan2((result - expected).sin(), (result - expected).cos()).abs()
    assert wrong.max() < 0.1


def test_blurring_agrees_with_the_mean_of_phasors() -> None:
    fields = fields_like(1, 1)
    fields["insar_difference"] = torch.full((1, 1, SIZE, SIZE), 3.1)
    fields["insar_difference"][..., ::2] = -3.1  # 0.083 apart, across the jump
    fields["valid"] = torch.ones_like(fields["valid"])
    result = apply_transforms(fields, moved(STILL, blur=2.0))["insar_difference"]
    inner = result[..., 8:-8, 8:-8].abs()
    assert inner.min() > 3.1
    assert inner.max() <= math.pi + 1e-6


def test_what_has_no_data_spreads_nowhere_and_stays() -> None:
    fields = fields_like(2, 1)
    fields["insar_difference"] = torch.where(fields["valid"], 1.5, 0.0)
    fields["dem"] = fields["dem"].clone()
    fields["dem"][..., 10:12, 10:12] = math.nan
    for changes in (moved(STILL, 2, blur=1.5), moved([[0.8, 0.3, 0.0], [-0.3, 0.8, 0.0]], 2)):
        result = apply_transforms(fields, changes)
        phase, valid = result["insar_difference"], result["valid"]
        torch.testing.assert_close(phase[valid], torch.full_like(phase[valid], 1.5))
        assert (phase[~valid] == 0).all()
        assert (~valid).any()
        assert result["dem"].isnan().any()
        known = result["dem"][result["dem"].isfinite()]
        assert known.min() >= fields["dem"].nan_to_num(1e9).min() - 1e-2
        pressure = result["primary_date_surface_pressure"]
        assert pressure[pressure.isfinite()].min() > 9.9e4


def test_turned_corners_do_not_count() -> None:
    result = apply_transforms(
        fields_like(1), moved([[math.cos(0.6), -math.sin(0.6), 0], [math.sin(0.6), math.cos(0.6), 0]])
    )
    for name in ("inside", "valid", "mask", "insar_coherence"):
        assert not result[name][..., 0, 0].any(), name
    assert result["dem"][..., 0, 0].isnan().all()
    assert result["inside"][..., SIZE // 2, SIZE // 2].all()


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sets(st.sampled_from(AUGMENTATIONS), min_size=1))
def test_steps_and_mask_move_together(seed: int, names: set[Augmentation]) -> None:
    fields = fields_like(4)
    for name in ("insar_difference", "valid", "mask", "insar_coherence"):
        fields[name] = fields[name][:, :1].repeat(1, 3, 1, 1)
    # where the mask is says what the nearest value is
    fields["mask"] = fields["valid"].to(torch.uint8)
    result = augment_batch(fields, tuple(names), torch.Generator().manual_seed(seed))
    for name, values in result.items():
        for step in (1, 2):
            if not name.startswith("secondary"):
                assert torch.equal(values[:, step].nan_to_num(-1), values[:, 0].nan_to_num(-1)), name
        assert values.shape == fields[name].shape
        assert values.dtype == fields[name].dtype
    assert torch.equal(result["mask"] > 0, result["valid"])


def test_the_same_generator_gives_the_same_and_nothing_is_written_to() -> None:
    fields = fields_like()
    before = {name: values.clone() for name, values in fields.items()}
    one, two = (augment_batch(fields, AUGMENTATIONS, torch.Generator().manual_seed(3)) for _ in range(2))
    for name, values in fields.items():
        assert torch.equal(values.nan_to_num(-1), before[name].nan_to_num(-1))
        assert torch.equal(one[name].nan_to_num(-1), two[name].nan_to_num(-1))
    assert not torch.equal(one["insar_difference"], fields["insar_difference"])


def test_samples_that_are_not_changed_keep_every_bit() -> None:
    fields = fields_like(2)
    changes = BatchTransforms(torch.tensor([FLIP, STILL]), torch.tensor([True, False]), torch.zeros(2))
    result = apply_transforms(fields, changes)
    for name, values in fields.items():
        assert torch.equal(result[name][1].nan_to_num(-1), values[1].nan_to_num(-1)), name
    assert torch.equal(result["mask"][0], fields["mask"][0].flip(-1))


def test_kinds_do_not_change_each_other() -> None:
    flips, both = (
        draw_transforms(500, names, torch.Generator().manual_seed(1))
        for names in (("flip",), ("flip", "blur"))
    )
    assert torch.equal(flips.affine, both.affine)
    assert not flips.blur_sigma.any()
    assert 0.25 < (both.blur_sigma > 0).float().mean() < 0.35
    blurred = both.blur_sigma[both.blur_sigma > 0]
    assert blurred.min() >= 0.1
    assert blurred.max() <= 2.0


def test_crops_lie_in_the_window() -> None:
    place = draw_transforms(500, ("crop", "flip"), torch.Generator().manual_seed(2)).affine
    reach = place[:, :, :2].abs().sum(2) + place[:, :, 2].abs()
    assert reach.max() <= 1 + 1e-6
    area = (place[:, 0, 0] * place[:, 1, 1]).abs()
    assert 0.15 < area.min() < 0.4
    assert 0.2 < (area < 1).float().mean() < 0.4


WHOLE = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])


def test_the_published_rotation_reflects_the_image_into_the_corners() -> None:
    """Against a bilinear rotation of the image that NumPy has continued by reflection."""
    fields = fields_like(1, 1)
    cos, sin = math.cos(0.6), math.sin(0.6)
    turned = moved([[cos, -sin, 0], [sin, cos, 0]])
    result = apply_transforms(
        fields, BatchTransforms(turned.affine, turned.is_moved, turned.blur_sigma, WHOLE)
    )
    assert result["inside"].all()
    assert result["dem"].isfinite().all()
    assert result["valid"][..., 0, 0].all()
    wide = np.pad(fields["dem"][0, 0].numpy(), SIZE, mode="reflect")  # the outermost pixel is not repeated
    middle = (SIZE - 1) / 2
    rows, columns = np.indices((SIZE, SIZE)) - middle
    y, x = cos * rows + sin * columns + middle + SIZE, cos * columns - sin * rows + middle + SIZE
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - top, x - left
    expected = (
        wide[top, left] * (1 - down) * (1 - right)
        + wide[top, left + 1] * (1 - down) * right
        + wide[top + 1, left] * down * (1 - right)
        + wide[top + 1, left + 1] * down * right
    )
    np.testing.assert_allclose(result["dem"][0, 0].numpy(), expected, rtol=1e-3, atol=0.5)


def test_a_crop_that_is_turned_reflects_itself_and_not_its_surroundings() -> None:
    fields = fields_like(1, 1)
    fields["dem"] = torch.full((1, 1, SIZE, SIZE), 1.0)
    fields["dem"][..., SIZE // 2 :] = 1000.0  # beyond the crop, the left half
    cos, sin = math.cos(0.7), math.sin(0.7)
    crop = moved([[0.5 * cos, -0.5 * sin, -0.5], [sin, cos, 0]])
    left = torch.tensor([[[-0.5, 0.0], [0.5, 1.0]]])
    result = apply_transforms(fields, BatchTransforms(crop.affine, crop.is_moved, crop.blur_sigma, left))
    near_the_edge = 999 * 0.5  # the outermost pixel of the enlarged crop lies between the halves
    assert result["dem"].max() <= 1 + near_the_edge
    assert (result["dem"] == 1).float().mean() > 0.8
    assert apply_transforms(fields, crop)["dem"].nan_to_num(0).max() == 1000


def test_the_published_rotation_turns_by_a_quarter_at_most() -> None:
    full, published = (
        draw_transforms(500, ("rotation",), torch.Generator().manual_seed(4), rotation=mode)
        for mode in ("full", "published")
    )
    assert full.kept is None
    assert published.kept is not None
    angles = [torch.atan2(one.affine[:, 1, 0], one.affine[:, 0, 0]) for one in (full, published)]
    torch.testing.assert_close(angles[0] / 2, angles[1], atol=1e-5, rtol=0)
    assert math.radians(85) < angles[1].abs().max() <= math.pi / 2
    # crops are as they are without it
    kept = draw_transforms(500, ("crop", "flip"), torch.Generator().manual_seed(2), rotation="published").kept
    assert kept is not None
    reach = kept[:, 0].abs() + kept[:, 1]
    assert reach.max() <= 1 + 1e-6
    assert 0.15 < kept[:, 1].prod(1).min() < 0.4


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_the_published_rotation_leaves_every_pixel_in_the_frame(seed: int) -> None:
    fields = fields_like(4)
    result = augment_batch(fields, AUGMENTATIONS, torch.Generator().manual_seed(seed), rotation="published")
    assert result["inside"].all()
    assert result["dem"].isfinite().all()
    assert torch.equal(result["insar_difference"] != 0, result["valid"])


def test_nothing_named_changes_nothing() -> None:
    fields = fields_like()
    result = augment_batch(fields, (), torch.Generator().manual_seed(1))
    assert all(result[name] is values for name, values in fields.items())


def test_a_constant_is_added_to_the_phase_of_each_interferogram_before_it_is_wrapped() -> None:
    fields = fields_like(6)
    result = augment_batch(fields, ("phase-offset",), torch.Generator().manual_seed(5))
    phase, before = result["insar_difference"], fields["insar_difference"]
    added = torch.atan2((phase - before).sin(), (phase - before).cos())
    constants = []
    for sample in range(6):
        for step in range(3):
            here = added[sample, step][fields["valid"][sample, step]]
            assert (here - here[0]).sin().abs().max() < 1e-5  # one constant for the whole image
            constants.append(float(here[0]))
    assert len({round(value, 3) for value in constants}) == 18
    assert phase.abs().max() <= math.pi + 1e-6
    assert not phase[~fields["valid"]].any()  # no data stays no data
    for name in fields.keys() - {"insar_difference"}:
        assert torch.equal(result[name].nan_to_num(-1), fields[name].nan_to_num(-1)), name
    # what the model sees is turned by the constant: sine and cosine of one angle
    assert torch.allclose(
        phase.sin()[0, 0][fields["valid"][0, 0]],
        (before[0, 0] + constants[0]).sin()[fields["valid"][0, 0]],
        atol=1e-5,
    )


def test_exchanged_dates_turn_the_phase_around_and_keep_the_labels() -> None:
    fields = fields_like(40)
    result = augment_batch(fields, ("time-reversal",), torch.Generator().manual_seed(5))
    turned = torch.tensor(
        [not torch.equal(result["insar_difference"][i], fields["insar_difference"][i]) for i in range(40)]
    )
    assert 8 < turned.sum() < 32
    assert torch.equal(result["insar_difference"][turned], -fields["insar_difference"][turned])
    for name in ("surface_pressure", "total_column_water_vapour"):
        first, second = f"primary_date_{name}", f"secondary_date_{name}"
        for one, other in ((first, second), (second, first)):
            assert torch.equal(result[one][turned].nan_to_num(-1), fields[other][turned].nan_to_num(-1))
            assert torch.equal(result[one][~turned].nan_to_num(-1), fields[one][~turned].nan_to_num(-1))
    for name in ("mask", "valid", "insar_coherence", "dem", "inside"):
        assert torch.equal(result[name], fields[name]), name
    # so the difference of the atmosphere changes its sign as the phase does
    name = "total_column_water_vapour"
    change, before = (one[f"secondary_date_{name}"] - one[f"primary_date_{name}"] for one in (result, fields))
    assert torch.equal(change[turned].nan_to_num(-1), -(before[turned].nan_to_num(1)))


@pytest.mark.parametrize("aspect", [1.0, 0.44])
def test_a_rotation_in_metres_keeps_circles_circles(aspect: float) -> None:
    """A disk on the ground is an ellipse of pixels at high latitude, and stays the same ellipse."""
    size = 129
    down, across = torch.meshgrid(*[torch.arange(size) - size // 2] * 2, indexing="ij")
    disk = ((across * aspect) ** 2 + down**2 < 20**2).to(torch.uint8)
    # a bar along one axis tells whether it was turned at all
    bar = (disk.bool() & (down.abs() < 4)).to(torch.uint8)
    shape = (8, 1, size, size)
    fields = {
        "insar_difference": torch.full(shape, 0.5),
        "insar_coherence": torch.full(shape, 100.0),
        "dem": torch.ones(shape),
        "valid": torch.ones(shape, dtype=torch.bool),
        "inside": torch.ones(shape, dtype=torch.bool),
        "mask": disk.expand(shape),
    }
    options = {"aspect": torch.full((8,), aspect), "rotation": "metric"}
    turned, bars = (
        augment_batch({**fields, "mask": mask.expand(shape)}, ("rotation",),
                      torch.Generator().manual_seed(3), **options)["mask"]
        for mask in (disk, bar)
    )  # fmt: skip
    assert (turned != disk).float().mean() < 0.003  # the edge of the disk alone
    assert (bars != bar).flatten(1).any(1).sum() >= 3
    if aspect != 1:  # in pixels it becomes another figure
        plain = augment_batch(fields, ("rotation",), torch.Generator().manual_seed(3), rotation="full")
        assert (plain["mask"] != disk).float().mean() > 0.01


def test_augmentations_beyond_the_papers_leave_its_draws_as_they_are() -> None:
    fields = fields_like(4)
    one, more = (
        draw_transforms(4, names, torch.Generator().manual_seed(1), steps=3)
        for names in (AUGMENTATIONS, (*AUGMENTATIONS, "phase-offset", "time-reversal"))
    )
    assert torch.equal(one.affine, more.affine)
    assert torch.equal(one.blur_sigma, more.blur_sigma)
    assert one.phase_offset is None
    assert one.is_reversed is None
    assert augment_batch(fields, (), torch.Generator())["insar_difference"] is fields["insar_difference"]
