"""The three parts of a split as a Lightning data module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from hephaestus_baselines.data.preparation import PreparedData, prepare_data
from hephaestus_baselines.data.samplers import EpochBatchSampler
from hephaestus_baselines.interop.cube_dataset import HephaestusDataset, TorchSample
from hephaestus_baselines.training.inference import make_data_loader


class HephaestusDataModule(LightningDataModule):
    """Loaders of the training, validation and test windows of cubes, for any Lightning module.

    It has the interface of torchgeo's ``NonGeoDataModule``, which it does not import, so torchgeo's trainers
    take it. Training draws all positives and as many negatives in each epoch
    (:class:`~hephaestus_baselines.data.samplers.EpochBatchSampler`). On several devices each process draws
    its own share; give ``use_distributed_sampler=False`` to the trainer then.

    Parameters
    ----------
    root : str or pathlib.Path
        Folder of published cubes.
    batch_size : int
        Samples of a batch.
    num_workers : int
        Reader processes of each loader.
    rule : str
        Name of the split (``hephaestus splits list``).
    seed : int
        Seed of the training windows.
    balance, matched : bool
        Whether training has as many negatives as positives, and whether negatives take the windows of
        positives of the same frame.
    transforms : callable, optional
        Takes a training sample and returns it changed.
    prepared : PreparedData, optional
        Data that are prepared already; `root`, `rule` and `choices` are not used then.
    **choices
        Further arguments of :class:`~hephaestus_baselines.interop.cube_dataset.HephaestusDataset` and of
        :func:`~hephaestus_baselines.data.preparation.prepare_data`.
    """

    def __init__(
        self,
        root: str | Path = "data/cubes",
        batch_size: int = 8,
        num_workers: int = 0,
        *,
        rule: str = "strict-temporal",
        seed: int = 0,
        balance: bool = True,
        matched: bool = True,
        transforms: Callable[[TorchSample], TorchSample] | None = None,
        prepared: PreparedData | None = None,
        **choices: Any,
    ) -> None:
        super().__init__()
        self.root, self.rule, self.seed, self.choices = Path(root).expanduser(), rule, seed, choices
        self.batch_size, self.num_workers = batch_size, num_workers
        self.balance, self.matched, self.transforms = balance, matched, transforms
        self._prepared = prepared

    def setup(self, stage: str = "") -> None:
        """Read what the cubes hold, once, and make the three data sets."""
        chosen = dict(self.choices)
        shown = {"inputs": chosen.pop("inputs", None)}
        if self._prepared is None:
            self._prepared = prepare_data(self.root, split=self.rule, **chosen)
        shown |= {"prepared": self._prepared, "volcanic_only": chosen.get("volcanic_only", False)}
        self.train_dataset = HephaestusDataset(split="train", transforms=self.transforms, **shown)
        self.val_dataset = HephaestusDataset(split="val", **shown)
        self.test_dataset = self.predict_dataset = HephaestusDataset(split="test", **shown)

    def train_dataloader(self) -> DataLoader[TorchSample]:
        """Return the loader of training windows, which are drawn again in each epoch."""
        trainer, items = self.trainer, self.train_dataset.windows.items
        batches = EpochBatchSampler(
            [item.positive for item in items],
            self.seed,
            self.batch_size,
            balance=self.balance,
            frames=[item.frame for item in items] if self.matched else None,
            rank=trainer.global_rank if trainer else 0,
            devices=trainer.world_size if trainer else 1,
            epoch=lambda: trainer.current_epoch if trainer else 0,
        )
        return make_data_loader(self.train_dataset, self.num_workers, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[TorchSample]:
        """Return the loader of validation windows, which tile whole frames."""
        return make_data_loader(self.val_dataset, self.num_workers, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[TorchSample]:
        """Return the loader of test windows, which tile whole frames."""
        return make_data_loader(self.test_dataset, self.num_workers, batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader[TorchSample]:
        """Return the loader of test windows."""
        return self.test_dataloader()

    def plot(self, *args: Any, **kwargs: Any) -> Figure | None:
        """Draw a sample of the validation part, as torchgeo's trainers ask."""
        return self.val_dataset.plot(*args, **kwargs)
