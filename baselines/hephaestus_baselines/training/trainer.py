"""Training one run with Lightning, and what it leaves: a checkpoint that says all that predicting needs.

Everything random follows from the recipe's seed, the epoch and the step: neither the number of workers, nor
what ran before in the process, nor a stop and a new start in between changes a number on the CPU.
"""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.augmentation import augment_batch
from hephaestus_baselines.data.batch_expansion import ChannelStack
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.samplers import (
    EpochBatchSampler,
    derive_seed,
    permute_labels,
    stratified_subset,
)
from hephaestus_baselines.evaluation.metrics import RankedScores, compute_rates, count_at_or_above
from hephaestus_baselines.evaluation.predictions import PredictionCollector, Predictions
from hephaestus_baselines.evaluation.result_schema import library_versions
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.models.losses import effective_gamma, focal_loss, weighted_mean
from hephaestus_baselines.training.checkpoints import (
    METADATA_KEY,
    CheckpointMetadata,
    DamagedCheckpointError,
    EpochMetrics,
    parse_checkpoint_metadata,
    read_checkpoint,
)
from hephaestus_baselines.training.history import (
    BEST_CHECKPOINT_FILE,
    is_training_complete,
    write_metrics,
    write_training_record,
)
from hephaestus_baselines.training.inference import (
    DEFAULT_BATCH_SIZE,
    collect_batch,
    describe_device,
    expand_on_device,
    logits_to_probability,
    make_collector,
    make_data_loader,
    make_window_dataset,
    resolve_device,
    to_channels_last,
)
from hephaestus_baselines.training.lightning_checkpoints import (
    LAST_CHECKPOINT_FILE,
    BestAndLastCheckpoint,
    HashedCheckpointIO,
)
from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import NullListener, ProgressListener

log = logging.getLogger(__name__)


#: Part of all steps in which the learning rate of a cosine schedule rises.
_WARMUP_SHARE = 0.05
#: What the best epoch has most of.
_SELECTION_METRIC = "choice"
#: What Lightning remarks that is meant so here.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",
    r".*does not have a deterministic implementation.*",
    r".*exists and is not empty.*",
    r".*number of training batches.*logging interval.*",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # of its own making, with torch 2.9 and later
)


def train_model(
    recipe: Recipe,
    prepared: PreparedData,
    folder: Path,
    *,
    device: str = "auto",
    listener: ProgressListener | None = None,
) -> Path:
    """Train, or go on from ``<folder>/last.ckpt``; return the best checkpoint, ``<folder>/best.ckpt``.

    Best is the epoch with the highest average precision (classification), or F1 over pixels at its best
    threshold (segmentation), on windows of the validation part. The folder also gets ``metrics.csv``, one
    row an epoch, and TensorBoard's log.

    Parameters
    ----------
    recipe : Recipe
    prepared : PreparedData
        For the recipe's split, series, size and tilings.
    folder : pathlib.Path
        Of this run alone.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    listener : ProgressListener, optional
        Told how far it is.

    Raises
    ------
    HephaestusError
        If weights are missing, or the folder holds another run.
    """
    target, listener = resolve_device(device), listener or NullListener()
    folder.mkdir(parents=True, exist_ok=True)
    if is_training_complete(folder, recipe.key):
        return folder / BEST_CHECKPOINT_FILE
    begun = _find_resume_checkpoint(recipe, prepared, folder, describe_device(target))
    with (
        _suppress_lightning_output(),
        torch.random.fork_rng(devices=[target] if target.type == "cuda" else []),
    ):
        torch.manual_seed(derive_seed(recipe.seed))
        learner = TrainingModule(recipe, prepared, folder, describe_device(target))
        trainer = lightning.Trainer(
            max_epochs=recipe.epochs,
            accelerator="gpu" if target.type == "cuda" else "cpu",
            devices=recipe.devices if recipe.devices > 1 or target.index is None else [target.index],
            # a process of its own for each device: the command itself must not be run again for them
            strategy="ddp_spawn" if recipe.devices > 1 else "auto",
            precision=recipe.precision,
            # some steps backwards of interpolation have no deterministic form on a GPU
            deterministic="warn" if target.type == "cuda" else True,
            logger=TensorBoardLogger(folder, name="tensorboard", version=""),
            callbacks=[_TrainingProgress(listener), BestAndLastCheckpoint(folder, _SELECTION_METRIC)],
            plugins=[HashedCheckpointIO()],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
            default_root_dir=folder,
        )
        with translate_os_errors(f"run {recipe.key}: training in {folder}"), _restore_keyboard_interrupt():
            trainer.fit(learner, ckpt_path=begun)
            if not (folder / BEST_CHECKPOINT_FILE).exists():
                raise HephaestusError(
                    f"{folder} has no {BEST_CHECKPOINT_FILE}: remove {LAST_CHECKPOINT_FILE} there and run "
                    "the same command again"
                )
            # what was written is read again: other processes may have trained, and disks may lie
            read_checkpoint(folder / BEST_CHECKPOINT_FILE)
            about: CheckpointMetadata = read_checkpoint(folder / LAST_CHECKPOINT_FILE)[METADATA_KEY]
            write_training_record(folder, recipe.key, [row.model_dump() for row in about.history])
    return folder / BEST_CHECKPOINT_FILE


def _find_resume_checkpoint(recipe: Recipe, prepared: PreparedData, folder: Path, device: str) -> Path | None:
    """Return the checkpoint that a run goes on from; None, and why is said, if it has to begin.

    Raises
    ------
    HephaestusError
        If the folder holds another run.
    """
    last, best = folder / LAST_CHECKPOINT_FILE, folder / BEST_CHECKPOINT_FILE
    if not last.exists():
        return None
    try:
        about: CheckpointMetadata = read_checkpoint(last)[METADATA_KEY]
        if about.recipe.key != recipe.key:
            raise HephaestusError(
                f"{folder} holds the run {about.recipe.key}, not {recipe.key}; choose another folder or "
                "remove it"
            )
        if (about.split_sha256, about.generations) != (prepared.split.sha256, dict(prepared.generations)):
            raise DamagedCheckpointError(f"{last} learnt from other cubes or another split")
        known: CheckpointMetadata = read_checkpoint(best)[METADATA_KEY] if best.exists() else about
        if not best.exists() or known.recipe.key != recipe.key:
            raise DamagedCheckpointError(f"there is no {BEST_CHECKPOINT_FILE} of this run beside {last}")
    except DamagedCheckpointError as error:
        # together: the best of a new start must never stand beside the last of an old one
        for path in (last, best):
            if path.exists():
                path.replace(path.with_name(f"{path.name}.unused"))
        why = str(error).partition("; ")[0]
        log.warning(
            "run %s: %s; the run begins again with its first epoch, and its checkpoints are kept in %s as "
            "*.unused",
            recipe.key, why, folder,
        )  # fmt: skip
        return None
    now = {**library_versions(), "device": device}
    changed = [
        f"{name} {was} (now {now.get(name, 'absent')})"
        for name, was in about.versions.items()
        if now.get(name) != was
    ]
    if changed:
        log.warning(
            "run %s: goes on after epoch %d, which was trained with %s: its numbers may differ a little from "
            "those of a run that was never stopped",
            recipe.key, len(about.history), ", ".join(changed),
        )  # fmt: skip
    return last


class TrainingModule(lightning.LightningModule):
    """What Lightning trains: the model with its data, loss and measure.

    Parameters
    ----------
    recipe : Recipe
    prepared : PreparedData
    folder : pathlib.Path
        Where ``metrics.csv`` goes.
    device : str
        What it is trained on, in words.
    """

    history: list[dict[str, Any]]

    def __init__(self, recipe: Recipe, prepared: PreparedData, folder: Path, device: str) -> None:
        super().__init__()
        self.recipe, self.prepared, self.folder = recipe, prepared, folder
        self.versions = {**library_versions(), "device": device}
        self.moments = channel_moments(prepared.statistics, recipe.inputs, recipe.statistics)
        channels = len(recipe.inputs.stacked_channels(recipe.steps))
        model = build_model(
            recipe.model, recipe.task, channels, recipe.weights, size=recipe.size, looks=recipe.looks
        )
        self.model = model.to(memory_format=torch.channels_last)
        self.channel_stack = ChannelStack(recipe.inputs, recipe.steps, self.moments)
        self.history = []
        flags = [item.positive for item in prepared.items["train"]]
        # of a segmentation the masks are dealt out, batch by batch
        dealing = recipe.shuffle_labels and recipe.task == "classification"
        self.train_labels = permute_labels(flags, recipe.seed) if dealing else flags
        known = prepared.items["validation"]
        chosen = stratified_subset([item.positive for item in known], recipe.validation_windows)
        self.validation_items = tuple(known[index] for index in chosen)
        self._sums: dict[str, Tensor | float] = {}
        self._collector: PredictionCollector | None = None
        self._epoch_start = 0.0

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the training windows, drawn anew each epoch."""
        batches = EpochBatchSampler(
            self.train_labels,
            self.recipe.seed,
            self.recipe.batch_size,
            balance=self.recipe.balance,
            rank=self.global_rank,
            devices=self.trainer.world_size,
        )
        # workers begin to read before Lightning says which epoch it goes on with
        progress = self.trainer.fit_loop.epoch_progress.current
        batches.set_epoch(progress.processed)  # type: ignore[attr-defined]
        windows = make_window_dataset(self.recipe, self.prepared.items["train"], self.prepared)
        return make_data_loader(windows, self.recipe.workers, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the validation windows that epochs are compared on: the same each time, on each device."""
        windows = make_window_dataset(self.recipe, self.validation_items, self.prepared)
        return make_data_loader(
            windows, self.recipe.workers, batch_size=max(DEFAULT_BATCH_SIZE, self.recipe.batch_size)
        )

    def configure_optimizers(self) -> Any:
        """Return AdamW and the schedule of its learning rate."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        if recipe.schedule == "fixed":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_schedule(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Any]:
        """Make of compact windows, on the device, what the model and the loss need.

        Here and not in the step, whose arithmetic may be of mixed precision.
        """
        fields = expand_on_device(batch, self.device)
        label = batch["label"]
        training = self.trainer.training
        with torch.no_grad():
            if training:
                generator = torch.Generator().manual_seed(self._derive_step_seed(1))
                if self.recipe.shuffle_labels:
                    label = self._shuffle_labels(batch, fields, generator)
                fields = augment_batch(fields, self.recipe.augmentations, generator)
                if not self.recipe.shuffle_labels:
                    # what a crop cut off is no longer there to be found
                    label = (fields["mask"] > 0).flatten(1).any(1).long()
            inputs = to_channels_last(self.channel_stack(fields))
            weight = batch["weight"] if self.recipe.confidence_weights else torch.ones_like(batch["weight"])
            if self.recipe.task == "segmentation":
                label = (fields["mask"] > 0).any(1).long()
                weight = weight.view(-1, 1, 1) * fields["inside"][:, 0]
        return {"inputs": inputs, "label": label, "weight": weight, "fields": fields, "batch": batch}

    def on_train_epoch_start(self) -> None:
        """Begin to count."""
        self._sums = {"loss": 0.0, "samples": 0.0}
        self._epoch_start = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what the model itself draws (dropout), so that a resumed run draws the same."""
        torch.manual_seed(self._derive_step_seed(2))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch; Lightning clears the gradients before each step."""
        loss = self._loss(self.model(batch["inputs"]), batch)
        count = len(batch["label"])
        # no .item(): the device is not waited for
        self._sums["loss"] += loss.detach() * count
        self._sums["samples"] += count
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to collect."""
        self._training_seconds = time.perf_counter() - self._epoch_start
        self._collector = make_collector(self.recipe, "validation", self.validation_items, self.prepared)
        self._sums |= {"validation": 0.0, "windows": 0.0}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect the answers to a batch."""
        assert self._collector is not None
        logits = self.model(batch["inputs"])
        count = len(batch["label"])
        self._sums["validation"] += self._loss(logits, batch).detach() * count
        self._sums["windows"] += count
        collect_batch(self._collector, batch["batch"], batch["fields"], logits_to_probability(logits))

    def on_validation_epoch_end(self) -> None:
        """Add an epoch to the history."""
        assert self._collector is not None
        sums = {name: float(value) for name, value in self._sums.items()}
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        row = {
            "epoch": self.current_epoch + 1,
            "step": self.global_step,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "train_loss": sums["loss"] / sums["samples"],
            "validation_loss": sums["validation"] / sums["windows"],
            "validation_score": compute_selection_score(self._collector.finish()),
            "seconds": round(time.perf_counter() - self._epoch_start, 3),
            "samples_per_second": round(
                sums["samples"] * self.trainer.world_size / max(self._training_seconds, 1e-9), 3
            ),
        }
        self.history.append(row)
        names = ("train_loss", "validation_loss", "validation_score", "learning_rate")
        said = {name: row[name] for name in names}
        # true labels must not choose among the epochs of a control: its last is kept
        said[_SELECTION_METRIC] = (
            float(row["epoch"]) if self.recipe.shuffle_labels else row["validation_score"]
        )
        self.log_dict(said, sync_dist=self.trainer.world_size > 1)
        if self.trainer.is_global_zero:
            write_metrics(self.history, self.folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that predicting needs, as plain values: nothing has to be executed to read it."""
        # the folder of first weights is of this machine, and nobody needs it
        first = "none" if self.recipe.weights == "none" else "imagenet"
        checkpoint[METADATA_KEY] = CheckpointMetadata(
            recipe=self.recipe.model_copy(update={"weights": first}),
            moments=self.moments,
            simulated=self.prepared.is_simulated,
            split_sha256=self.prepared.split.sha256,
            generations=dict(self.prepared.generations),
            versions=self.versions,
            history=[EpochMetrics(**row) for row in self.history],
        ).model_dump()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the history."""
        self.history = [
            row.model_dump() for row in parse_checkpoint_metadata(checkpoint[METADATA_KEY]).history
        ]

    def _loss(self, logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
        gamma = effective_gamma(self.recipe.loss, self.recipe.focal_gamma)
        return weighted_mean(focal_loss(logits, batch["label"], gamma), batch["weight"])

    def _derive_step_seed(self, purpose: int) -> int:
        return derive_seed(self.recipe.seed, self.global_step, self.global_rank, purpose)

    def _shuffle_labels(
        self, batch: Mapping[str, Tensor], fields: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Return labels, and put masks into `fields`, that have nothing to do with the windows."""
        if self.recipe.task == "classification":
            return torch.tensor(
                [self.train_labels[index] for index in batch["index"].tolist()], device=self.device
            ).long()
        mask = fields["mask"]
        order = torch.randperm(len(mask), generator=generator).to(mask.device)
        # elsewhere too: where a volcano lies in its frame says where others saw it deform
        down, along = torch.randint(mask.shape[-1], (2,), generator=generator).tolist()
        fields["mask"] = mask[order].roll((down, along), (-2, -1))
        return batch["label"]


def compute_selection_score(validation: Predictions) -> float:
    """Return what epochs are compared by: average precision, or the F1 over pixels at its best threshold.

    0 where it is undefined, because validation has no deformation.
    """
    if validation.pixels is None:
        score = float(
            RankedScores(validation.label, validation.probability).compute_areas()["average_precision"]
        )
    else:
        quiet, deforming = (count_at_or_above(counts) for counts in validation.pixels["data"].sum(axis=0))
        score = float(compute_rates(deforming, quiet, deforming[0] - deforming)["f1"].max())
    return score if math.isfinite(score) else 0.0


def cosine_schedule(step: int, steps: int) -> float:
    """Return the part of the learning rate at a step: up in the first twentieth, then down to 0."""
    rise = max(1.0, _WARMUP_SHARE * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, steps - rise))))


class _TrainingProgress(Callback):
    """Tells a listener how far the training is."""

    def __init__(self, listener: ProgressListener) -> None:
        self._listener = listener

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._stage = f"{pl_module.recipe.model}: epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if trainer.is_global_zero:
            self._listener.stage(self._stage, trainer.num_training_batches)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.is_global_zero:
            self._listener.advance(self._stage)


@contextmanager
def _restore_keyboard_interrupt() -> Iterator[None]:
    """Hand Ctrl-C on to whoever called: Lightning ends the process and hears no further one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from ended
        raise


@contextmanager
def _suppress_lightning_output() -> Iterator[None]:
    """Keep Lightning's remarks about what is meant so, and its settings for the whole process, in here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message)
            # a sixth of the time, against reading memory that nobody wrote: nothing here does
            memory.fill_uninitialized_memory = False
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
