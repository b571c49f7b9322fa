"""A frozen network and the features that it gives of windows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.batch_expansion import ChannelStack
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.samplers import derive_seed
from hephaestus_baselines.models.architectures import MultilookedModel, build_encoder
from hephaestus_baselines.training.inference import TrainedModel, to_channels_last
from hephaestus_build.core.errors import UsageError

#: Levels of a network whose maps describe patches: pixels of the image for each of theirs.
_FINEST, _COARSEST = 4, 16
_LEVELS = 3
#: Fewest pixels of a patch's side, and most rows and columns of patches, which bound the memory of a bank.
_PATCH_PIXELS, _MAX_PATCH_ROWS = 8, 32


@dataclass(frozen=True)
class FrozenEncoder:
    """A network without classification layer, whose weights stay as they are.

    Attributes
    ----------
    network : torch.nn.Module
        In eval mode, on its device.
    stack : ChannelStack
        Makes its input of the fields of a batch.
    looks : int
        Rows and columns of the blocks of pixels that are averaged before.
    """

    network: nn.Module
    stack: ChannelStack
    looks: int = 1

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def hash_weights(self) -> str:
        """Return the SHA-256 of all weights, in hexadecimal: where they came from does not matter."""
        digest = hashlib.sha256()
        for name, values in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def pool(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Return the features of whole windows, float32 (B, F)."""
        features: Tensor = self.network(self._images(fields))
        return features.float().flatten(1)

    @torch.inference_mode()
    def patches(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Return the features of the patches of windows, float32 (B, rows, columns, F).

        The maps of up to three levels are brought to the finest of them by averaging or repetition.

        Raises
        ------
        UsageError
            If the network gives no maps.
        """
        network: Any = self.network
        if not hasattr(network, "forward_intermediates"):
            raise UsageError(
                f"timm's {type(network).__name__} gives no feature maps, which a memory bank needs; choose "
                "another encoder, such as resnet18.a1_in1k"
            )
        images = self._images(fields)
        maps = network.forward_intermediates(
            images, indices=_patch_levels(network), intermediates_only=True, output_fmt="NCHW"
        )
        finest = max(level.shape[-1] for level in maps)
        rows = min(_MAX_PATCH_ROWS, finest, images.shape[-1] // _PATCH_PIXELS)
        # a coarser map that is averaged over finer patches is repeated
        same = [adaptive_avg_pool2d(level.float(), rows) for level in maps]
        return torch.cat(same, 1).permute(0, 2, 3, 1)

    def _images(self, fields: Mapping[str, Tensor]) -> Tensor:
        images = self.stack(fields)
        return to_channels_last(avg_pool2d(images, self.looks) if self.looks > 1 else images)


def open_encoder(recipe: Recipe, prepared: PreparedData, device: torch.device) -> FrozenEncoder:
    """Return the frozen encoder of a run.

    Random weights follow from the run's seed.

    Raises
    ------
    UsageError
        If timm has no such network.
    HephaestusError
        If its weights are not there or do not fit.
    """
    channels = len(recipe.inputs.stacked_channels(recipe.steps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed))
        network = build_encoder(recipe.model, channels, recipe.weights, size=recipe.size // recipe.looks)
    network.requires_grad_(requires_grad=False)
    moments = channel_moments(prepared.statistics, recipe.inputs, recipe.statistics)
    return FrozenEncoder(
        network.to(memory_format=torch.channels_last).to(device),
        ChannelStack(recipe.inputs, recipe.steps, moments),
        recipe.looks,
    )


def encoder_of_trained(trained: TrainedModel) -> FrozenEncoder:
    """Return a trained model without its last layer: what it has learnt to see in whole windows."""
    network: Any = trained.model
    if isinstance(network, MultilookedModel):
        network = network.network
    return FrozenEncoder(
        _Penultimate(network),
        ChannelStack(trained.inputs, trained.recipe.steps, trained.moments),
        trained.recipe.looks,
    )


class _Penultimate(nn.Module):
    """The last features of a network of timm, or of a segmentation's encoder, averaged over the image."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if hasattr(self.network, "forward_head"):
            found: Tensor = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
            return found
        deepest: Tensor = self.network.encoder(images)[-1]
        return deepest.mean((-2, -1))


def _patch_levels(network: Any) -> list[int]:
    """Return the levels that describe patches: neither single pixels nor whole windows."""
    reductions = [level["reduction"] for level in network.feature_info]
    fitting = [place for place, step in enumerate(reductions) if _FINEST <= step <= _COARSEST]
    fitting = fitting or list(range(len(reductions)))
    if len(fitting) <= _LEVELS:
        return fitting
    # of many blocks with one resolution, those at equal steps
    return [fitting[(place + 1) * len(fitting) // _LEVELS - 1] for place in range(_LEVELS)]
