"""The architectures by name: the paper's eight, the two that its parameter counts really are, small ones.

All come from timm and segmentation-models-pytorch, which also adapt ImageNet weights to more than three
channels. A tag of timm names the data that weights come from: all here are of ImageNet-1k alone, as in the
paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import segmentation_models_pytorch as smp
import timm
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from hephaestus_baselines.config.run_config import Task
from hephaestus_build.core.errors import HephaestusError, UsageError

#: No deformation, deformation.
CLASS_COUNT = 2
#: How timm calls the layers that give the classes.
_CLASSIFIER_PREFIXES = ("fc.", "head.", "classifier.")
#: Seconds after which a hub that does not answer is not to be had; its own client tries for most of a minute.
_HUB_TIMEOUT = 5.0


@dataclass(frozen=True)
class Architecture:
    """One model.

    Attributes
    ----------
    title : str
        In tables.
    task : str
    weights : str
        The repository of its ImageNet-1k weights on the hub, ``<owner>/<tag>``.
    model_class : callable or None
        Of segmentation-models-pytorch; None for timm.
    options : mapping
        For the library.
    published_parameters : tuple of float or None
        Trainable parameters in the paper's Tables 6 and 7, millions: of a single interferogram with
        atmosphere (9 channels), and of a series (27).
    note : str
        Why ours has another number.
    """

    title: str
    task: Task
    weights: str
    model_class: Callable[..., nn.Module] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    published_parameters: tuple[float, float] | None = None
    note: str = ""

    @property
    def owner(self) -> str:
        """Whose repository the weights are in."""
        return self.weights.partition("/")[0]

    @property
    def tag(self) -> str:
        """Name of the weights: the library's name of the network, a dot, what it was trained on."""
        return self.weights.partition("/")[2]


MODELS: Mapping[str, Architecture] = {
    "resnet-50": Architecture(
        "ResNet-50", "classification", "timm/resnet50.a1_in1k", published_parameters=(23.5, 23.6)
    ),
    "mobilenetv3-large": Architecture(
        "MobileNetV3", "classification", "timm/mobilenetv3_large_100.ra_in1k", published_parameters=(4.2, 4.2)
    ),
    "efficientnetv2-small": Architecture(
        "EfficientNetV2", "classification", "timm/tf_efficientnetv2_s.in1k", published_parameters=(20.2, 20.2)
    ),
    "convnext-small": Architecture(
        "ConvNeXt",
        "classification",
        "timm/convnext_small.fb_in1k",
        published_parameters=(87.6, 87.6),
        note="the paper's number is that of ConvNeXt-Base; this is ConvNeXt-Small, as it says",
    ),
    "vit-small": Architecture(
        "ViT",
        "classification",
        "timm/vit_small_patch16_224.augreg_in1k",
        published_parameters=(22.3, 24.0),
        note="positions are learnt for the window's 32 x 32 patches; the paper's for 14 x 14, stretched",
    ),
    "deeplabv3": Architecture(
        "DeepLabV3",
        "segmentation",
        "smp-hub/resnet50.imagenet",
        smp.DeepLabV3,
        published_parameters=(26.7, 26.8),
        note="the paper's number is that of DeepLabV3+; this is DeepLabV3, as it says",
    ),
    "unet": Architecture(
        "U-Net", "segmentation", "smp-hub/resnet50.imagenet", smp.Unet, published_parameters=(32.5, 32.6)
    ),
    "segformer": Architecture(
        "SegFormer",
        "segmentation",
        "smp-hub/resnet50.imagenet",
        smp.Segformer,
        published_parameters=(24.9, 24.9),
    ),
    # what the paper's numbers of parameters belong to
    "convnext-base": Architecture(
        "ConvNeXt-Base", "classification", "timm/convnext_base.fb_in1k", published_parameters=(87.6, 87.6)
    ),
    "deeplabv3plus": Architecture(
        "DeepLabV3+",
        "segmentation",
        "smp-hub/resnet50.imagenet",
        smp.DeepLabV3Plus,
        published_parameters=(26.7, 26.8),
    ),
    # for processors without a GPU
    "resnet-18": Architecture("ResNet-18", "classification", "timm/resnet18.a1_in1k"),
    "resnet-tiny": Architecture("ResNet (tiny)", "classification", "timm/test_resnet.r160_in1k"),
    "unet-small": Architecture(
        "U-Net (ResNet-18)",
        "segmentation",
        "smp-hub/resnet18.imagenet",
        smp.Unet,
        {"encoder_depth": 4, "decoder_channels": (128, 64, 32, 16)},
    ),
    "unet-tiny": Architecture(
        "U-Net (tiny)",
        "segmentation",
        "timm/test_resnet.r160_in1k",
        smp.Unet,
        {"decoder_channels": (64, 48, 32, 16, 8)},
    ),
    # half the time of the U-Net: its last layers are at a quarter of the resolution; of the few pixels of its
    # deepest map, the rates that are usual would reach none but the one in the middle
    "deeplabv3plus-tiny": Architecture(
        "DeepLabV3+ (tiny)",
        "segmentation",
        "timm/test_resnet.r160_in1k",
        smp.DeepLabV3Plus,
        {"decoder_channels": 32, "decoder_atrous_rates": (1, 2, 3)},
    ),
}


class MultilookedModel(nn.Module):
    """A network that sees means of blocks of pixels, and whose maps are brought back to every pixel.

    Parameters
    ----------
    network : torch.nn.Module
        Takes (B, C, S / looks, S / looks).
    looks : int
        Rows and columns of a block.
    """

    def __init__(self, network: nn.Module, looks: int) -> None:
        super().__init__()
        self.network, self.looks = network, looks

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 2), or (B, 2, S, S), of images (B, C, S, S)."""
        logits: Tensor = self.network(avg_pool2d(images, self.looks))
        if logits.ndim == 2:
            return logits
        return interpolate(logits, scale_factor=self.looks, mode="bilinear", align_corners=False)


def build_model(
    name: str, task: Task, channels: int, weights: str = "none", *, size: int = 512, looks: int = 1
) -> nn.Module:
    """Return the model `name`, ready to train.

    Parameters
    ----------
    name : str
        Of :data:`MODELS`.
    task : str
        Which it must be for.
    channels : int
        Of its input.
    weights : str
        ``none``: at random, from torch's global generator. ``imagenet``: from the hub, or its cache. Else a
        folder that holds ``<tag>.safetensors``, or ``<tag>/model.safetensors`` as the hub names it.
    size : int
        Rows and columns of its windows; a transformer learns a position for each patch.
    looks : int
        Pixels a side that are averaged into one before it.

    Returns
    -------
    torch.nn.Module
        Maps (B, channels, size, size) to logits: (B, 2), or (B, 2, size, size) of a segmentation.

    Raises
    ------
    UsageError
        If there is no such model, or it is for the other task.
    HephaestusError
        If the weights are not to be had, or do not fit.
    """
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}; known are {', '.join(MODELS)}")
    model = MODELS[name]
    if model.task != task:
        fitting = ", ".join(known for known, other in MODELS.items() if other.task == task)
        raise UsageError(f"{name} is for {model.task}, not {task}; for that there are {fitting}")
    path = None if weights == "none" else find_weights_file(model, weights)
    try:
        if model.model_class:
            built = _from_smp(model, channels, path)
        else:
            built = _from_timm(model, channels, path, size // looks)
        if path is not None:
            _check_weights_loaded(model, built, path)
        return built if looks == 1 else MultilookedModel(built, looks)
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
        if path is None:
            raise
        raise HephaestusError(
            f"the weights of {name} in {path} do not fit ({_one_line(error)}); "
            f"they must be those of {model.weights}, or train from scratch with --weights none"
        ) from error


def count_trainable_parameters(model: nn.Module) -> int:
    """Return how many parameters training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def find_weights_file(model: Architecture, weights: str) -> Path:
    """Return the file of a model's ImageNet weights: in a folder, in the hub's cache, or fetched now.

    Raises
    ------
    HephaestusError
        If they are in none of these; within seconds, also without a network.
    """
    advice = (
        f"give a folder that holds {model.tag}.safetensors with --weights FOLDER, "
        "or train from scratch with --weights none"
    )
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
    except (OSError, ValueError) as error:  # the hub's errors and those of requests are kinds of OSError
        raise HephaestusError(
            f"the ImageNet weights of {model.title} ({model.weights}) cannot be fetched "
            f"({_one_line(error)}); {advice}"
        ) from error


def _from_timm(model: Architecture, channels: int, path: Path | None, size: int) -> nn.Module:
    # positions of patches are the only parameters that depend on the size
    sized: dict[str, Any] = {"img_size": size} if model.tag.startswith("vit_") else {}
    return timm.create_model(
        model.tag,
        pretrained=path is not None,
        pretrained_cfg_overlay=_pretrained_overlay(path),
        num_classes=CLASS_COUNT,
        in_chans=channels,
        **sized,
        **model.options,
    )


def _from_smp(model: Architecture, channels: int, path: Path | None) -> nn.Module:
    assert model.model_class is not None
    options = {"in_channels": channels, "classes": CLASS_COUNT, **model.options}
    if model.owner == "timm":  # "tu-" asks timm for the encoder
        tag, pretrained = f"tu-{model.tag}", None if path is None else True
        return model.model_class(
            tag, encoder_weights=pretrained, pretrained_cfg_overlay=_pretrained_overlay(path), **options
        )
    encoder = model.tag.partition(".")[0]
    network: Any = model.model_class(encoder, encoder_weights=None, **options)
    if path is not None:
        # the library's own way, but from a file: weights of three channels, then more channels
        depth = model.options.get("encoder_depth", 5)
        source = smp.encoders.get_encoder(encoder, in_channels=3, depth=depth, weights=None)
        source.load_state_dict(load_file(path))
        source.set_in_channels(channels, pretrained=True)
        network.encoder.load_state_dict(source.state_dict())
    return network


def _check_weights_loaded(model: Architecture, built: Any, path: Path) -> None:
    """Raise ValueError unless the file had all but the last layer: timm leaves at random what it lacks."""
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
    # some tags have a loader of their own for their authors' files; the hub's files need none
    return {"file": str(path), "custom_load": False} if path else None


def _weights_revision(model: Architecture) -> str | None:
    """Return the version of the weights that the library was released with."""
    if model.owner == "timm":
        return None
    settings = smp.encoders.encoders[model.tag.partition(".")[0]]["pretrained_settings"]["imagenet"]
    return settings["revision"]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 160 else f"{text[:160]}..."
