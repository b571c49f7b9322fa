"""Networks of timm and segmentation-models-pytorch, built by name, with their ImageNet weights.

Both libraries adapt weights to more than three channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from hephaestus_baselines.config.architecture_catalog import MODELS, Architecture, find_architecture
from hephaestus_baselines.config.tasks import TASK_SPECS, Task
from hephaestus_build.core.errors import HephaestusError, UsageError

#: Number of outputs of a network that tells deformation from none.
CLASS_COUNT = 2
#: Prefixes of timm's classification layers.
_CLASSIFIER_PREFIXES = ("fc.", "head.", "classifier.")
#: Seconds to wait for the hub to answer; its own client retries for most of a minute.
_HUB_TIMEOUT = 5.0


class MultilookedModel(nn.Module):
    """Wrapper that multilooks the input of a network and interpolates its maps back to full resolution.

    Parameters
    ----------
    network : torch.nn.Module
        Takes (B, C, S / looks, S / looks).
    looks : int
        Rows and columns of the blocks of pixels that are averaged.
    """

    def __init__(self, network: nn.Module, looks: int) -> None:
        super().__init__()
        self.network, self.looks = network, looks

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K), or (B, 2, S, S), of images (B, C, S, S)."""
        logits: Tensor = self.network(avg_pool2d(images, self.looks))
        if logits.ndim == 2:
            return logits
        return interpolate(logits, scale_factor=self.looks, mode="bilinear", align_corners=False)


def build_model(
    name: str, task: Task, channels: int, weights: str = "none", *, size: int = 512, looks: int = 1
) -> nn.Module:
    """Build the model `name` for training.

    Parameters
    ----------
    name : str
        Key of :data:`MODELS`.
    task : str
        Task that the model must be for.
    channels : int
        Number of input channels.
    weights : str
        ``none``: random, from torch's global generator. ``imagenet``: from the hub, or its cache. Otherwise a
        folder with ``<tag>.safetensors``, or ``<tag>/model.safetensors`` as the hub names it, or such a file.
    size : int
        Rows and columns of the windows; a transformer learns a position for each patch.
    looks : int
        Blocks of `looks` by `looks` pixels are averaged before the network.

    Returns
    -------
    torch.nn.Module
        Maps (B, channels, size, size) to logits: (B, K) of the task's K classes, or (B, 2, size, size) for
        segmentation.

    Raises
    ------
    UsageError
        If the model is unknown or for the other task.
    HephaestusError
        If the weights are unavailable or do not fit the model.
    """
    model = find_architecture(name, task)
    path = None if weights == "none" else find_weights_file(model, weights)
    try:
        if model.model_class:
            built = _from_smp(model, channels, path)
        else:
            built = _from_timm(model, channels, len(TASK_SPECS[task].classes), path, size // looks)
        if path is not None:
            _check_weights_loaded(model, built, path)
        return built if looks == 1 else MultilookedModel(built, looks)
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
        if path is None:
            raise
        raise HephaestusError(
            f"the weights of {name} in {path} do not fit ({_one_line(error)}); "
            f"use those of {model.weights}, or train from scratch with --weights none"
        ) from error


def find_timm_network(name: str) -> Architecture:
    """Return the network of timm called `name`, with or without the tag of its weights.

    Raises
    ------
    UsageError
        If timm has none, or `name` is a key of :data:`MODELS` that is not from there.
    """
    import timm  # takes as long to import as torch itself

    model = MODELS.get(name) or Architecture(name, "classification", f"timm/{name}")
    if model.owner != "timm" or model.model_class or not timm.is_model(model.tag):
        raise UsageError(f"timm has no network {name!r}; `timm.list_models()` names those that it has")
    known = timm.get_pretrained_cfg(model.tag)
    if known is not None and known.hf_hub_id and name not in MODELS:
        return replace(model, weights=known.hf_hub_id)
    return model


def build_encoder(name: str, channels: int, weights: str = "none", *, size: int = 512) -> nn.Module:
    """Build a network without its classification layer: any of timm, or one of :data:`MODELS` from there.

    Parameters
    ----------
    name : str
        Name in timm, with or without the tag of its weights, or a key of :data:`MODELS`.
    channels : int
        Number of input channels.
    weights : str
        As of :func:`build_model`, or a ``.safetensors`` file.
    size : int
        Rows and columns of the images.

    Returns
    -------
    torch.nn.Module
        Maps (B, channels, size, size) to features (B, F); in eval mode.

    Raises
    ------
    UsageError
        If timm has no such network, or it cannot take such images.
    HephaestusError
        If the weights are unavailable or do not fit.
    """
    import timm

    model = find_timm_network(name)
    known = timm.get_pretrained_cfg(model.tag)
    path = None if weights == "none" else find_weights_file(model, weights)
    sized: dict[str, Any] = {"img_size": size} if known is not None and known.fixed_input_size else {}
    try:
        built = timm.create_model(
            name if name not in MODELS else model.tag,
            pretrained=path is not None,
            pretrained_cfg_overlay=_pretrained_overlay(path),
            num_classes=0,
            in_chans=channels,
            **sized,
        )
        if path is not None:
            _check_weights_loaded(model, built, path)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AssertionError, SafetensorError) as error:
        if path is None:
            raise UsageError(
                f"timm's {name} cannot be built for {channels} channels of {size} x {size} pixels "
                f"({_one_line(error)}); choose another encoder or size"
            ) from error
        raise HephaestusError(
            f"the weights of {name} in {path} do not fit ({_one_line(error)}); give those of this network, "
            "or take random ones with --weights none"
        ) from error
    return built.eval()


def count_trainable_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def find_weights_file(model: Architecture, weights: str) -> Path:
    """Return the file of a model's ImageNet weights from a folder or the hub's cache, or download it.

    Raises
    ------
    HephaestusError
        If the weights are not found. Without a network, this takes a few seconds at most.
    """
    advice = (
        f"name a folder that has {model.tag}.safetensors with --weights FOLDER, "
        "or train from scratch with --weights none"
    )
    if weights.endswith(".safetensors"):
        if not Path(weights).is_file():
            raise HephaestusError(f"there is no file {weights} with the weights of {model.title}; {advice}")
        return Path(weights)
    if weights != "imagenet":
        places = [Path(weights) / f"{model.tag}.safetensors", Path(weights) / model.tag / "model.safetensors"]
        for place in places:
            if place.is_file():
                return place
        raise HephaestusError(f"there is no {places[0]} with the weights of {model.title}; {advice}")
    name, revision = "model.safetensors", _weights_revision(model)
    if isinstance(cached := try_to_load_from_cache(model.weights, name, revision=revision), str):
        return Path(cached)
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        requests.head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
        return Path(hf_hub_download(model.weights, name, revision=revision))
    except (OSError, ValueError) as error:  # errors of the hub and of requests are OSErrors
        raise HephaestusError(
            f"the ImageNet weights of {model.title} ({model.weights}) cannot be fetched "
            f"({_one_line(error)}); {advice}"
        ) from error


def _from_timm(model: Architecture, channels: int, classes: int, path: Path | None, size: int) -> nn.Module:
    import timm  # takes as long to import as torch itself; plans and tables need only the names

    # positions of patches are the only parameters that depend on the size
    sized: dict[str, Any] = {"img_size": size} if model.tag.startswith("vit_") else {}
    return timm.create_model(
        model.tag,
        pretrained=path is not None,
        pretrained_cfg_overlay=_pretrained_overlay(path),
        num_classes=classes,
        in_chans=channels,
        **sized,
        **model.options,
    )


def _from_smp(model: Architecture, channels: int, path: Path | None) -> nn.Module:
    import segmentation_models_pytorch as smp

    make: Callable[..., nn.Module] = getattr(smp, model.model_class)
    options = {"in_channels": channels, "classes": CLASS_COUNT, **model.options}
    if model.owner == "timm":  # the prefix "tu-" selects timm's encoder
        tag, pretrained = f"tu-{model.tag}", None if path is None else True
        return make(
            tag, encoder_weights=pretrained, pretrained_cfg_overlay=_pretrained_overlay(path), **options
        )
    encoder = model.tag.partition(".")[0]
    network: Any = make(encoder, encoder_weights=None, **options)
    if path is not None:
        # as the library does, but from a file: load weights for three channels, then extend the channels
        depth = model.options.get("encoder_depth", 5)
        source = smp.encoders.get_encoder(encoder, in_channels=3, depth=depth, weights=None)
        source.load_state_dict(load_file(path))
        source.set_in_channels(channels, pretrained=True)
        network.encoder.load_state_dict(source.state_dict())
    return network


def _check_weights_loaded(model: Architecture, built: Any, path: Path) -> None:
    """Raise ValueError unless the file has all but the last layer; timm would leave missing layers random."""
    network = built.encoder if model.model_class else built
    if model.model_class and model.owner == "timm":
        network = network.model
    with safe_open(path, "pt") as file:
        held = set(file.keys())
    lacking = [
        name
        for name in network.state_dict()
        if name not in held
        and not name.startswith(_CLASSIFIER_PREFIXES)
        and not name.endswith("num_batches_tracked")
    ]
    if lacking:
        raise ValueError(f"{len(lacking)} arrays are missing, such as {lacking[0]}")


def _pretrained_overlay(path: Path | None) -> dict[str, Any] | None:
    # some tags have a custom loader for their authors' files; the hub's files need none
    return {"file": str(path), "custom_load": False} if path else None


def _weights_revision(model: Architecture) -> str | None:
    """Return the revision of the weights that the library pins."""
    if model.owner == "timm":
        return None
    import segmentation_models_pytorch as smp

    settings = smp.encoders.encoders[model.tag.partition(".")[0]]["pretrained_settings"]["imagenet"]
    return settings["revision"]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 160 else f"{text[:160]}..."
