"""Published scores (Tables 3 and 4 of the paper) and run times (Tables 6 and 7).

Keys are this package's names of the models. The paper's counts of the data (Tables 1 and 2) are in
:mod:`hephaestus_build.dataset.published_counts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hephaestus_baselines.config.tasks import DETECTION_TASKS, DetectionTask

#: Titles of the paper's models in tables. Two are more exact than the paper's: its DeepLabv3 and ConvNeXt are
#: DeepLabV3+ and ConvNeXt-Base by their numbers of parameters and, for the first, by the released code.
MODEL_TITLES: Mapping[str, str] = {
    "resnet-50": "ResNet-50",
    "mobilenetv3-large": "MobileNetV3",
    "efficientnetv2-small": "EfficientNetV2",
    "convnext-base": "ConvNeXt-Base",
    "vit-small": "ViT",
    "deeplabv3plus": "DeepLabV3+",
    "unet": "UNet",
    "segformer": "SegFormer",
}
#: Columns of the paper's tables, by task.
PAPER_COLUMNS: Mapping[DetectionTask, tuple[str, ...]] = {
    "classification": ("precision", "recall", "f1", "auroc"),
    "segmentation": ("precision", "recall", "f1", "iou"),
}
#: Hours of 90 epochs on one RTX 3090 Ti: (single interferograms, series).
PUBLISHED_RUNTIME_HOURS: Mapping[str, tuple[float, float]] = {
    "resnet-50": (2.2, 2.7),
    "mobilenetv3-large": (1.7, 2.0),
    "efficientnetv2-small": (2.6, 2.7),
    "convnext-base": (4.9, 5.4),
    "vit-small": (2.5, 3.2),
    "deeplabv3plus": (2.3, 2.9),
    "unet": (2.3, 3.0),
    "segformer": (1.6, 3.7),
}


class PublishedSize(NamedTuple):
    """Trainable parameters of a model in Tables 6 and 7.

    Attributes
    ----------
    parameters : tuple of float or None
        Millions, with atmosphere: of a single interferogram and of a series; None if the paper has no such
        model.
    note : str
        Why the number here differs.
    """

    parameters: tuple[float, float] | None = None
    note: str = ""


class PublishedScore(NamedTuple):
    """Mean and standard deviation over three seeds, per cent."""

    mean: float
    deviation: float


#: Mean and deviation of each column. Row order: single without and with atmosphere, series without and with.
_TABLE_3 = {
    "resnet-50": (
        (83.63, 2.94, 68.5, 3.05, 75.29, 2.74, 96.99, 0.39),
        (87.53, 3.7, 64.37, 1.64, 74.18, 2.32, 96.26, 0.88),
        (67.79, 2.11, 60.0, 0.36, 63.64, 0.89, 92.68, 1.84),
        (68.65, 0.85, 59.41, 3.27, 63.66, 2.08, 88.0, 2.33),
    ),
    "mobilenetv3-large": (
        (95.03, 1.17, 64.77, 0.88, 77.02, 0.37, 92.06, 2.61),
        (89.56, 0.54, 69.02, 1.79, 78.06, 1.13, 91.99, 2.32),
        (64.08, 1.38, 63.56, 3.82, 63.79, 2.54, 89.39, 1.16),
        (63.51, 4.46, 65.48, 5.88, 64.29, 3.71, 89.29, 1.06),
    ),
    "efficientnetv2-small": (
        (76.28, 3.74, 44.66, 2.71, 56.18, 1.08, 74.98, 4.13),
        (82.28, 3.55, 49.44, 4.22, 61.61, 3.1, 83.25, 5.02),
        (68.58, 2.94, 49.04, 7.26, 56.88, 5.36, 82.22, 3.5),
        (64.23, 9.07, 56.0, 2.97, 59.42, 4.2, 82.63, 1.54),
    ),
    "convnext-base": (
        (93.04, 1.85, 69.09, 2.01, 79.25, 0.69, 90.01, 3.88),
        (93.58, 0.3, 68.76, 1.89, 79.26, 1.33, 90.29, 1.75),
        (73.19, 2.02, 68.89, 15.12, 70.36, 8.63, 91.65, 5.01),
        (75.88, 7.14, 57.48, 2.55, 65.36, 4.3, 78.24, 3.18),
    ),
    "vit-small": (
        (85.16, 11.21, 55.8, 10.03, 67.3, 10.51, 87.58, 5.02),
        (90.75, 1.51, 59.27, 7.47, 71.45, 5.45, 88.6, 3.0),
        (80.52, 5.61, 53.48, 4.62, 63.92, 1.69, 91.21, 3.26),
        (71.19, 2.74, 61.63, 13.4, 65.54, 8.5, 89.2, 3.42),
    ),
}
_TABLE_4 = {
    "deeplabv3plus": (
        (81.41, 1.42, 63.74, 0.52, 71.49, 0.30, 55.63, 0.37),
        (81.64, 1.77, 60.82, 2.61, 69.65, 1.48, 53.46, 1.75),
        (75.68, 2.15, 54.66, 1.54, 63.42, 0.25, 46.44, 0.27),
        (74.64, 2.48, 46.67, 2.15, 57.39, 1.84, 40.27, 1.82),
    ),
    "unet": (
        (82.43, 0.64, 61.25, 1.27, 70.27, 0.63, 54.17, 0.75),
        (81.70, 0.41, 53.71, 1.89, 64.80, 1.48, 47.95, 1.62),
        (74.57, 3.10, 58.57, 2.39, 65.50, 0.35, 48.7, 0.39),
        (70.28, 4.56, 44.18, 1.64, 54.19, 2.03, 37.2, 1.92),
    ),
    "segformer": (
        (80.87, 1.74, 61.32, 1.96, 69.70, 0.70, 53.50, 0.82),
        (83.13, 2.30, 55.71, 0.98, 66.68, 0.22, 50.01, 0.25),
        (79.22, 0.55, 57.87, 1.46, 66.87, 0.77, 50.23, 0.87),
        (77.14, 0.10, 47.88, 2.73, 59.05, 2.10, 41.92, 2.12),
    ),
}


def _iter_published_rows() -> Iterator[
    tuple[tuple[DetectionTask, str, bool, bool], dict[str, PublishedScore]]
]:
    for task, table in zip(DETECTION_TASKS, (_TABLE_3, _TABLE_4), strict=True):
        for model, lines in table.items():
            for place, line in enumerate(lines):
                pairs = zip(line[::2], line[1::2], strict=True)
                figures = dict(
                    zip(PAPER_COLUMNS[task], (PublishedScore(*pair) for pair in pairs), strict=True)
                )
                yield (task, model, place >= 2, place % 2 == 1), figures


#: Task, model, series, atmosphere: the figures of the row.
PUBLISHED_SCORES: Mapping[tuple[DetectionTask, str, bool, bool], Mapping[str, PublishedScore]] = dict(
    _iter_published_rows()
)
