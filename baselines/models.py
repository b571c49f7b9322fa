"""The architectures by name: the paper's eight, the two that its parameter counts really are, small ones.

Signatures; the bodies follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from baselines.recipe import Task


@dataclass(frozen=True)
class Architecture:
    """One model.

    Attributes
    ----------
    name, title : str
        In recipes, and in tables.
    task : str
    weights : str
        Tag of the ImageNet-1k weights.
    paper : tuple of float or None
        Trainable parameters in the paper's Tables 6 and 7, millions: of a single interferogram with
        atmosphere (9 channels), of a series (27).
    note : str
        Why ours differ.
    """

    name: str
    title: str
    task: Task
    build: Callable[..., nn.Module]
    weights: str
    paper: tuple[float, float] | None = None
    note: str = ""


MODELS: Mapping[str, Architecture] = {}


def build_model(name: str, task: Task, channels: int, weights: str = "none", *, size: int = 512) -> nn.Module:
    """Return a model that maps (B, channels, size, size) to logits (B, 2) or (B, 2, size, size)."""
    raise NotImplementedError


def trainable(model: nn.Module) -> int:
    """Return how many parameters training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
