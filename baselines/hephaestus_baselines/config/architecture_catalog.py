"""Model architectures by name: the paper's eight, two that fit its names but not its sizes, and small ones.

All are from timm and segmentation-models-pytorch. A timm tag names the training data of the weights; all
weights here are from ImageNet-1k alone. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_baselines.config.tasks import TASK_SPECS, DetectionTask, Task
from hephaestus_build.core.errors import UsageError


@dataclass(frozen=True)
class Architecture:
    """Description of one model architecture.

    Attributes
    ----------
    title : str
        Name in tables.
    task : str
        ``classification`` or ``segmentation``: one answer a window, or one a pixel.
    weights : str
        The repository of its ImageNet-1k weights on the hub, ``<owner>/<tag>``.
    model_class : str
        Name of a class of segmentation-models-pytorch; empty for timm.
    options : mapping
        Keyword arguments for the library.
    published_parameters : tuple of float or None
        Trainable parameters in the paper's Tables 6 and 7, in millions: for a single interferogram with
        atmosphere (9 channels), and for a series (27 channels).
    note : str
        Why the number here differs from the published one.
    """

    title: str
    task: DetectionTask
    weights: str
    model_class: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    published_parameters: tuple[float, float] | None = None
    note: str = ""

    @property
    def owner(self) -> str:
        """The owner of the weights' repository."""
        return self.weights.partition("/")[0]

    @property
    def tag(self) -> str:
        """Name of the weights: ``<network>.<training data>``."""
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
    "convnext-base": Architecture(
        "ConvNeXt-Base", "classification", "timm/convnext_base.fb_in1k", published_parameters=(87.6, 87.6)
    ),
    "vit-small": Architecture(
        "ViT",
        "classification",
        "timm/vit_small_patch16_224.augreg_in1k",
        published_parameters=(22.3, 24.0),
        note="positions are learnt for the window's 32 x 32 patches; in the paper for 14 x 14, interpolated",
    ),
    "deeplabv3plus": Architecture(
        "DeepLabV3+",
        "segmentation",
        "smp-hub/resnet50.imagenet",
        "DeepLabV3Plus",
        published_parameters=(26.7, 26.8),
    ),
    "unet": Architecture(
        "U-Net", "segmentation", "smp-hub/resnet50.imagenet", "Unet", published_parameters=(32.5, 32.6)
    ),
    "segformer": Architecture(
        "SegFormer",
        "segmentation",
        "smp-hub/resnet50.imagenet",
        "Segformer",
        published_parameters=(24.9, 24.9),
    ),
    # networks that go by the names in the paper, but not by its numbers of parameters
    "convnext-small": Architecture(
        "ConvNeXt-Small",
        "classification",
        "timm/convnext_small.fb_in1k",
        published_parameters=(87.6, 87.6),
        note="the paper says ConvNeXt; its number is that of ConvNeXt-Base, this one has 49.5 million",
    ),
    "deeplabv3": Architecture(
        "DeepLabV3",
        "segmentation",
        "smp-hub/resnet50.imagenet",
        "DeepLabV3",
        published_parameters=(26.7, 26.8),
        note="the paper says DeepLabv3; its number is that of DeepLabV3+, this one has 39.7 million",
    ),
    # small models for CPUs
    "resnet-18": Architecture("ResNet-18", "classification", "timm/resnet18.a1_in1k"),
    "resnet-tiny": Architecture("ResNet (tiny)", "classification", "timm/test_resnet.r160_in1k"),
    "unet-small": Architecture(
        "U-Net (ResNet-18)",
        "segmentation",
        "smp-hub/resnet18.imagenet",
        "Unet",
        {"encoder_depth": 4, "decoder_channels": (128, 64, 32, 16)},
    ),
    "unet-tiny": Architecture(
        "U-Net (tiny)",
        "segmentation",
        "timm/test_resnet.r160_in1k",
        "Unet",
        {"decoder_channels": (64, 48, 32, 16, 8)},
    ),
    # twice as fast as the U-Net: its last layers have a quarter of the resolution. The deepest map is so
    # small that the usual dilation rates would reach only padding around the centre pixel
    "deeplabv3plus-tiny": Architecture(
        "DeepLabV3+ (tiny)",
        "segmentation",
        "timm/test_resnet.r160_in1k",
        "DeepLabV3Plus",
        {"decoder_channels": 32, "decoder_atrous_rates": (1, 2, 3)},
    ),
}


def find_architecture(name: str, task: Task) -> Architecture:
    """Return the architecture called `name`, to be trained for a task.

    Raises
    ------
    UsageError
        If there is none, or it is for the other kind of task.
    """
    if name not in MODELS:
        raise UsageError(f"there is no model {name!r}; known are {', '.join(MODELS)}")
    model, kind = MODELS[name], TASK_SPECS[task].network
    if model.task != kind:
        fitting = ", ".join(known for known, other in MODELS.items() if other.task == kind)
        raise UsageError(f"{name} is for {model.task}, not {task}; choose {fitting}")
    return model
