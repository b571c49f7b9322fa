"""Tests of the losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import toy_training  # noqa: F401 (one thread)
from hephaestus_baselines.models.losses import effective_gamma, focal_loss, weighted_mean


def test_focal_loss_of_known_probabilities() -> None:
    # softmax of (0, log 3) is (1/4, 3/4)
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    loss = focal_loss(logits, torch.tensor([1, 0]), 2.0)
    right, wrong = -(0.25**2) * math.log(0.75), -(0.75**2) * math.log(0.25)
    torch.testing.assert_close(loss, torch.tensor([right, wrong]))


@pytest.mark.parametrize("shape", [(6, 2), (3, 2, 4, 5)])
def test_without_gamma_it_is_the_cross_entropy(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.randint(0, 2, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(1))
    ours, reference = focal_loss(logits, target, 0), cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(ours, reference)
    assert effective_gamma("cross-entropy", 2.0) == 0
    assert effective_gamma("focal", 3.0) == 3


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_its_gradient_is_that_of_the_whole_formula(gamma: float) -> None:
    logit = torch.tensor(0.7, dtype=torch.float64)

    def value(z: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(z)
        return -((1 - p) ** gamma) * torch.log(p)

    step = 1e-4
    slope = (value(logit + step) - value(logit - step)) / (2 * step)
    pair = torch.tensor([[0.0, 0.7]], requires_grad=True)
    focal_loss(pair, torch.tensor([1]), gamma).sum().backward()
    assert pair.grad is not None
    assert float(pair.grad[0, 1]) == pytest.approx(float(slope), rel=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certainty_gives_finite_losses_and_gradients(gamma: float) -> None:
    logits = torch.tensor([[-80.0, 80.0], [80.0, -80.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([1, 1]), gamma)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert float(loss[1].detach()) == pytest.approx(160)


def test_half_precision_is_worked_in_full() -> None:
    logits = torch.tensor([[0.0, 9.0]], dtype=torch.float16)
    assert focal_loss(logits, torch.tensor([1]), 0).dtype == torch.float32
    assert float(focal_loss(logits, torch.tensor([1]), 0)) == pytest.approx(
        math.log1p(math.exp(-9)), rel=1e-3
    )


def test_the_mean_goes_by_weight() -> None:
    loss = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    assert float(weighted_mean(loss, torch.tensor([[1.0, 1.0], [2.0, 0.0]]))) == pytest.approx(9 / 4)
    # a weight for each sample holds for all of its pixels
    assert float(weighted_mean(loss, torch.tensor([[1.0], [0.0]]))) == pytest.approx(1.5)
    assert float(weighted_mean(loss, torch.zeros(2, 2))) == 0
