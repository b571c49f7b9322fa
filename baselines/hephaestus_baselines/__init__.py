"""Baseline models for the cubes: training, scoring and prediction.

The public names for training your own models can be imported from here; each is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hephaestus_build.core.machine.home import provide_matplotlib_folder

if TYPE_CHECKING:
    from hephaestus_baselines.config.channels import InputChannels, channel_moments
    from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch
    from hephaestus_baselines.data.preparation import prepare_data
    from hephaestus_baselines.data.samplers import EpochBatchSampler
    from hephaestus_baselines.data.window_dataset import WindowDataset
    from hephaestus_baselines.interop.cube_datamodule import HephaestusDataModule
    from hephaestus_baselines.interop.cube_dataset import HephaestusDataset
    from hephaestus_baselines.reporting.sample_plot import plot_sample

provide_matplotlib_folder()  # before a module of this package imports matplotlib

#: Module of each public name.
_MODULES = {
    "EpochBatchSampler": "hephaestus_baselines.data.samplers",
    "HephaestusDataModule": "hephaestus_baselines.interop.cube_datamodule",
    "HephaestusDataset": "hephaestus_baselines.interop.cube_dataset",
    "InputChannels": "hephaestus_baselines.config.channels",
    "ChannelStack": "hephaestus_baselines.data.batch_expansion",
    "WindowDataset": "hephaestus_baselines.data.window_dataset",
    "channel_moments": "hephaestus_baselines.config.channels",
    "expand_batch": "hephaestus_baselines.data.batch_expansion",
    "plot_sample": "hephaestus_baselines.reporting.sample_plot",
    "prepare_data": "hephaestus_baselines.data.preparation",
}

__all__ = [
    "ChannelStack",
    "EpochBatchSampler",
    "HephaestusDataModule",
    "HephaestusDataset",
    "InputChannels",
    "WindowDataset",
    "channel_moments",
    "expand_batch",
    "plot_sample",
    "prepare_data",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(_MODULES[name]), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "Any", "annotations", "import_module"})
