"""Training of one run with Lightning; the result is a checkpoint with all that prediction needs.

All randomness is derived from the recipe's seed, the epoch and the step. On the CPU, results do not depend on
the number of workers, on earlier work in the process, or on interruptions.
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
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.data.dataset_items import count_draws
from hephaestus_baselines.data.packed_batches import PackedBatch, PackedWindows, return_batch
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.samplers import (
    EpochBatchSampler,
    RunSchedule,
    derive_seed,
    permute_labels,
    stratified_subset,
)
from hephaestus_baselines.data.task_items import item_classes, select_task_items
from hephaestus_baselines.data.terrain import FrameTerrain, fits_device
from hephaestus_baselines.evaluation.kind_metrics import rate_kinds
from hephaestus_baselines.evaluation.metrics import (
    RankedScores,
    cases_by_unit,
    compute_rates,
    count_at_or_above,
)
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import library_versions
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.models.losses import effective_gamma, focal_loss, weighted_mean
from hephaestus_baselines.training.batch_collector import BatchCollector
from hephaestus_baselines.training.batch_preparation import BatchPreparation
from hephaestus_baselines.training.batch_size import resolve_precision, settle_batch_size
from hephaestus_baselines.training.checkpoints import (
    METADATA_KEY,
    CheckpointMetadata,
    DamagedCheckpointError,
    EpochMetrics,
    load_weights,
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
    describe_device,
    logits_to_probability,
    make_collector,
    make_data_loader,
    make_window_dataset,
    resolve_device,
    translate_reader_errors,
)
from hephaestus_baselines.training.lightning_checkpoints import (
    LAST_CHECKPOINT_FILE,
    BestAndLastCheckpoint,
    HashedCheckpointIO,
)
from hephaestus_baselines.training.output_calibration import (
    calibrate_output,
    fit_output,
    sampling_weights,
)
from hephaestus_baselines.training.prefetch import BatchStream, PartOfStream, make_preparation_stream
from hephaestus_baselines.training.pretraining import ensure_pretrained, read_pretrained_weights
from hephaestus_baselines.training.reader_count import count_readers
from hephaestus_baselines.training.schedule import cosine_schedule
from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import NullListener, ProgressListener

log = logging.getLogger(__name__)


#: Logged metric that is highest in the best epoch.
_SELECTION_METRIC = "choice"
#: Lightning warnings that are expected here.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",
    r".*does not have a deterministic implementation.*",
    r".*exists and is not empty.*",
    r".*number of training batches.*logging interval.*",
    r"The `srun` command is available.*",  # a run is one process also where there is Slurm
    r"Guards may run slower.*",  # torch's compiler, on Python 3.13.0
    r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # raised by Lightning itself, with torch 2.9+
)


def train_model(
    recipe: Recipe,
    prepared: PreparedData,
    folder: Path,
    *,
    device: str = "auto",
    listener: ProgressListener | None = None,
) -> Path:
    """Train a model, or resume from ``<folder>/last.ckpt``; return the path of ``<folder>/best.ckpt``.

    The best epoch has the highest average precision (classification), F1 over pixels at its best threshold
    (segmentation), or macro F1 (activity, intensity), on windows of the validation part. The folder also
    gets ``metrics.csv``, one row per epoch, and TensorBoard's log.

    Parameters
    ----------
    recipe : Recipe
    prepared : PreparedData
        Data prepared for the recipe's split, series, size and tilings.
    folder : pathlib.Path
        Folder of this run.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If pretrained weights are missing, the folder belongs to another run, or there is nothing to learn
        from.
    """
    _check_labels(recipe, prepared)
    target, listener = resolve_device(device), listener or NullListener()
    folder.mkdir(parents=True, exist_ok=True)
    if is_training_complete(folder, recipe.key):
        return folder / BEST_CHECKPOINT_FILE
    described = describe_run_device(recipe, target)
    checkpoint = _find_resume_checkpoint(recipe, prepared, folder, described)
    recipe = settle_batch_size(recipe, folder, _count_draws(recipe, prepared), target)
    with (
        _suppress_lightning_output(),
        torch.random.fork_rng(devices=[target] if target.type == "cuda" else []),
    ):
        readers, pretrained = count_readers(recipe, target), None
        # for what comes before Lightning, which sets the same
        torch.use_deterministic_algorithms(True, warn_only=target.type == "cuda")
        if recipe.weights == "simulated" and checkpoint is None:
            moments = channel_moments(prepared.statistics, recipe.inputs, recipe.statistics)
            with translate_reader_errors(f"run {recipe.key}", readers):
                pretrained = ensure_pretrained(recipe, moments, folder, target, listener)
        torch.manual_seed(derive_seed(recipe.seed))
        module = TrainingModule(recipe, prepared, folder, described, readers)
        if pretrained is not None:
            load_weights(module.model, read_pretrained_weights(pretrained))
        trainer = lightning.Trainer(
            max_epochs=recipe.epochs,
            accelerator="gpu" if target.type == "cuda" else "cpu",
            devices=recipe.devices if recipe.devices > 1 or target.index is None else [target.index],
            # spawn one process per device: plain ddp would run the command itself again
            strategy="ddp_spawn" if recipe.devices > 1 else "auto",
            precision=resolve_precision(recipe, target),
            # some backward passes of interpolation have no deterministic implementation on a GPU
            deterministic="warn" if target.type == "cuda" else True,
            logger=TensorBoardLogger(folder, name="tensorboard", version=""),
            callbacks=[_TrainingProgress(listener), BestAndLastCheckpoint(folder, _SELECTION_METRIC)],
            # in a job of Slurm Lightning would take each task for a process of one training
            plugins=[HashedCheckpointIO(), LightningEnvironment()],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
            default_root_dir=folder,
        )
        with (
            translate_reader_errors(f"run {recipe.key}", readers),
            translate_os_errors(f"run {recipe.key}: training in {folder}", setting="--results"),
            _restore_keyboard_interrupt(),
        ):
            try:
                trainer.fit(module, ckpt_path=checkpoint)
            finally:
                module.close()
            if not (folder / BEST_CHECKPOINT_FILE).exists():
                raise HephaestusError(
                    f"{folder} has no {BEST_CHECKPOINT_FILE}: remove {LAST_CHECKPOINT_FILE} there and run "
                    "the same command again"
                )
            # verify the files: other processes may have written them, and disks can fail silently
            read_checkpoint(folder / BEST_CHECKPOINT_FILE)
            metadata: CheckpointMetadata = read_checkpoint(folder / LAST_CHECKPOINT_FILE)[METADATA_KEY]
            write_training_record(folder, recipe.key, [row.model_dump() for row in metadata.history])
    return folder / BEST_CHECKPOINT_FILE


def describe_run_device(recipe: Recipe, device: torch.device) -> str:
    """Return a readable description of a device, with the precision where the recipe leaves it open."""
    chosen = f", {resolve_precision(recipe, device)}" if recipe.precision == "auto" else ""
    return f"{describe_device(device)}{chosen}"


def _check_labels(recipe: Recipe, prepared: PreparedData) -> None:
    """Raise HephaestusError if the training part teaches no difference."""
    flags = {item.positive for item in prepared.items["train"]}
    if len(flags) < 2 and not recipe.spec.tells_kind:
        shown = "shows" if False in flags else "is without"
        raise HephaestusError(
            f"no interferogram of the train part of {prepared.split.name} {shown} deformation, so there is "
            "nothing to learn; build further frames or dates with `hephaestus build`, or choose another split"
        )


def _count_draws(recipe: Recipe, prepared: PreparedData) -> int:
    """Return the number of samples of an epoch on each device."""
    if recipe.spec.tells_kind:
        return len(select_task_items(recipe.task, prepared, "train")) // recipe.devices
    flags = [item.positive for item in prepared.items["train"]]
    return count_draws(sum(flags), len(flags), balance=recipe.balance) // recipe.devices


def _find_resume_checkpoint(recipe: Recipe, prepared: PreparedData, folder: Path, device: str) -> Path | None:
    """Return the checkpoint to resume from; None if there is none, or it is unusable (the cause is logged).

    Raises
    ------
    HephaestusError
        If the folder belongs to another run.
    """
    last, best = folder / LAST_CHECKPOINT_FILE, folder / BEST_CHECKPOINT_FILE
    if not last.exists():
        return None
    try:
        metadata: CheckpointMetadata = read_checkpoint(last)[METADATA_KEY]
        if metadata.recipe.key != recipe.key:
            raise HephaestusError(
                f"{folder} holds the run {metadata.recipe.key}, not {recipe.key}; choose another folder or "
                "remove it"
            )
        if (metadata.split_sha256, metadata.generations) != (
            prepared.split.sha256,
            dict(prepared.generations),
        ):
            raise DamagedCheckpointError(f"{last} was trained on other cubes or another split")
        known: CheckpointMetadata = read_checkpoint(best)[METADATA_KEY] if best.exists() else metadata
        if not best.exists() or known.recipe.key != recipe.key:
            raise DamagedCheckpointError(f"there is no {BEST_CHECKPOINT_FILE} of this run beside {last}")
    except DamagedCheckpointError as error:
        # both together: the best of a new training must never be paired with the last of an old one
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
        for name, was in metadata.versions.items()
        if now.get(name) != was
    ]
    if changed:
        log.warning(
            "run %s: resumes after epoch %d, which was trained with %s: its numbers may differ slightly from "
            "those of an uninterrupted run",
            recipe.key, len(metadata.history), ", ".join(changed),
        )  # fmt: skip
    return last


class TrainingModule(lightning.LightningModule):
    """Lightning module: the model with its data, loss and validation metric.

    Parameters
    ----------
    recipe : Recipe
    prepared : PreparedData
    folder : pathlib.Path
        Folder for ``metrics.csv``.
    device : str
        Readable description of the device.
    readers : int
        Number of reader processes.
    """

    history: list[dict[str, Any]]

    def __init__(
        self, recipe: Recipe, prepared: PreparedData, folder: Path, device: str, readers: int = 0
    ) -> None:
        super().__init__()
        self.recipe, self.prepared, self.folder, self.readers = recipe, prepared, folder, readers
        self.versions = {**library_versions(), "device": device}
        self.moments = channel_moments(prepared.statistics, recipe.inputs, recipe.statistics)
        channels = len(recipe.inputs.stacked_channels(recipe.steps))
        weights = recipe.weights if recipe.is_pretrained else "none"
        model = build_model(
            recipe.model, recipe.task, channels, weights, size=recipe.size, looks=recipe.looks
        )
        self.model = model.to(memory_format=torch.channels_last)
        self.history = []
        flags = [item.positive for item in prepared.items["train"]]
        # for segmentation, masks are shuffled within each batch instead
        permute = recipe.shuffle_labels and recipe.task == "classification"
        self.train_labels = permute_labels(flags, recipe.seed) if permute else flags
        self._frames = [item.frame for item in prepared.items["train"]]
        self._classes = None
        if recipe.spec.tells_kind:
            select_task_items(recipe.task, prepared, "train")  # or there is nothing to learn from
            self._classes = item_classes(recipe.task, prepared, prepared.items["train"])
        known = select_task_items(recipe.task, prepared, "validation")
        shows = [item.pixels > 0 for item in known]
        chosen = stratified_subset(shows, recipe.validation_windows)
        self.validation_items = tuple(known[index] for index in chosen)
        self._validation_weights = sampling_weights(shows, chosen)
        self._calibration: tuple[float, float] | None = None
        self._sums: dict[str, Tensor | float] = {}
        self._collector: BatchCollector | None = None
        self._epoch_start = 0.0
        self._stream: BatchStream[dict[str, Any]] | None = None
        self._next_step: int | None = None

    def train_dataloader(self) -> PartOfStream[dict[str, Any]]:
        """Return the prepared batches of training windows, which are drawn again in each epoch."""
        return PartOfStream(self._open_stream(), len(self._schedule.training))

    def val_dataloader(self) -> PartOfStream[dict[str, Any]]:
        """Return the prepared batches of validation windows, the same in each epoch and on each device."""
        return PartOfStream(self._open_stream(), len(self._schedule.validation))

    def close(self) -> None:
        """End the reader processes."""
        if self._stream is not None:
            self._stream.close()

    def _open_stream(self) -> BatchStream[dict[str, Any]]:
        """Return the stream of all batches of the run, which training and validation share."""
        if self._stream is None:
            recipe, prepared = self.recipe, self.prepared
            training = EpochBatchSampler(
                self.train_labels,
                recipe.seed,
                recipe.samples_per_step,
                balance=recipe.balance,
                frames=self._frames if recipe.negatives == "matched" else None,
                classes=self._classes,
                rank=self.global_rank,
                devices=self.trainer.world_size,
            )
            self._schedule = RunSchedule(
                training,
                len(self.validation_items),
                max(DEFAULT_BATCH_SIZE, recipe.samples_per_step),
                lambda: len(self.history),
                recipe.epochs,
            )
            device = self.trainer.strategy.root_device
            terrain = FrameTerrain(prepared.stores, device) if fits_device(prepared.shapes, device) else None
            items = {"train": prepared.items["train"], "validation": self.validation_items}
            windows = PackedWindows(
                {part: make_window_dataset(recipe, members, prepared) for part, members in items.items()},
                leave_out=() if terrain is None else ("dem",),
            )
            loader = make_data_loader(
                windows, self.readers, batch_sampler=self._schedule, collate_fn=return_batch
            )
            self._preparation = BatchPreparation(
                recipe,
                self.moments,
                self.train_labels,
                terrain=terrain,
                device=device,
                rank=self.global_rank,
                steps=recipe.epochs * len(training),
            )
            self._stream = BatchStream(loader, self._prepare, lambda: make_preparation_stream(device))
        return self._stream

    def _prepare(self, batch: PackedBatch) -> dict[str, Any]:
        """Prepare the next batch of the run, which may be steps ahead of the one that is trained on."""
        if batch.part == "validation":
            return self._preparation.prepare_validation(batch)
        if self._next_step is None:
            self._next_step = len(self.history) * len(self._schedule.training)
        step, self._next_step = self._next_step, self._next_step + 1
        return self._preparation.prepare_training(batch, step)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return the batch, which is on the device and prepared already."""
        return batch

    def configure_optimizers(self) -> Any:
        """Return AdamW and its learning-rate schedule."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        if recipe.schedule == "fixed":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_schedule(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Reset the sums of an epoch."""
        self._sums = {"loss": 0.0, "samples": 0.0}
        self._epoch_start = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the model's own randomness (dropout), so that a resumed run draws the same numbers."""
        torch.manual_seed(self._derive_step_seed(2))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch; Lightning clears the gradients before each step."""
        loss = self._loss(self.model(batch["inputs"]), batch)
        count = len(batch["label"])
        # no .item(), which would wait for the device
        self._sums["loss"] += loss.detach() * count
        self._sums["samples"] += count
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start to collect predictions."""
        self._training_seconds = time.perf_counter() - self._epoch_start
        self._collector = BatchCollector(
            make_collector(self.recipe, "validation", self.validation_items, self.prepared)
        )
        self._sums |= {"validation": 0.0, "windows": 0.0}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect the predictions of a batch; the host does not wait for them."""
        assert self._collector is not None
        logits = self.model(batch["inputs"])
        count = len(batch["label"])
        self._sums["validation"] += self._loss(logits, batch).detach() * count
        self._sums["windows"] += count
        host = batch["batch"]
        probability = logits_to_probability(logits, self.recipe.task)
        self._collector.add(host["index"], host["label"], batch["fields"], probability)

    def on_validation_epoch_end(self) -> None:
        """Add the epoch to the history and log its metrics."""
        assert self._collector is not None
        sums = {name: float(value) for name, value in self._sums.items()}
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        found = self._collector.finish()
        if self.recipe.calibrated:
            self._calibration = fit_output(found, self._validation_weights)
        score = compute_selection_score(found)
        row = {
            "epoch": self.current_epoch + 1,
            "step": self.global_step,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "train_loss": sums["loss"] / sums["samples"],
            "validation_loss": sums["validation"] / sums["windows"],
            "validation_score": 0.0 if math.isnan(score) else score,
            "seconds": round(time.perf_counter() - self._epoch_start, 3),
            "samples_per_second": round(
                sums["samples"] * self.trainer.world_size / max(self._training_seconds, 1e-9), 3
            ),
        }
        self.history.append(row)
        names = ("train_loss", "validation_loss", "validation_score", "learning_rate")
        logged = {name: row[name] for name in names}
        logged[_SELECTION_METRIC] = self._rate_epoch(row, score)
        self.log_dict(logged, sync_dist=self.trainer.world_size > 1)
        if self.trainer.is_global_zero:
            write_metrics(self.history, self.folder)

    def _rate_epoch(self, row: Mapping[str, Any], score: float) -> float:
        """Return what is highest in the epoch that is kept; of scores that are undefined, the last epoch."""
        if self.recipe.shuffle_labels:  # a control run: true labels must not select the epoch
            return float(row["epoch"])
        if self.recipe.choice == "loss":
            return float(-row["validation_loss"])
        if not math.isnan(score):
            return score
        if row["epoch"] == 1 and self.trainer.is_global_zero:
            log.warning(
                "run %s: the windows that choose the epoch show no deformation where there is data, so the "
                "last epoch is kept; choose more of them (--set validation_windows=N) or another split",
                self.recipe.key,
            )
        return float(row["epoch"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metadata as plain values, so that reading it executes no code."""
        # a checkpoint to go on from keeps the weights as they are
        if self._calibration is not None and "optimizer_states" not in checkpoint:
            checkpoint["state_dict"] = calibrate_output(
                self.model, checkpoint["state_dict"], *self._calibration, prefix="model."
            )
        checkpoint[METADATA_KEY] = CheckpointMetadata(
            recipe=self.recipe.model_copy(update={"weights": self.recipe.portable_weights}),
            moments=self.moments,
            simulated=self.prepared.is_simulated,
            split_sha256=self.prepared.split.sha256,
            generations=dict(self.prepared.generations),
            versions=self.versions,
            history=[EpochMetrics(**row) for row in self.history],
            calibration=self._calibration,
        ).model_dump()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = [
            row.model_dump() for row in parse_checkpoint_metadata(checkpoint[METADATA_KEY]).history
        ]

    def _loss(self, logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
        recipe = self.recipe
        loss = focal_loss(
            logits,
            batch["label"],
            effective_gamma(recipe.loss, recipe.focal_gamma),
            alpha=recipe.focal_alpha if recipe.loss == "focal" else None,
            detached=recipe.focal_detached,
        )
        return weighted_mean(loss, batch["weight"])

    def _derive_step_seed(self, purpose: int) -> int:
        return derive_seed(self.recipe.seed, self.global_step, self.global_rank, purpose)


def compute_selection_score(validation: Predictions) -> float:
    """Return the score that selects the epoch: average precision, or F1 over pixels at its best threshold.

    Of kinds of deformation it is macro F1. The score is NaN if it is undefined because the windows show no
    deformation.
    """
    if TASK_SPECS[validation.source.task].tells_kind:
        score = rate_kinds(validation)
    elif validation.pixels is None:
        items = cases_by_unit(validation, "items")
        score = float(RankedScores(items.label, items.probability).compute_areas()["average_precision"])
    else:
        quiet, deforming = (count_at_or_above(counts) for counts in validation.pixels["data"].sum(axis=0))
        score = float(compute_rates(deforming, quiet, deforming[0] - deforming)["f1"].max())
    return score if math.isfinite(score) else math.nan


class _TrainingProgress(Callback):
    """Report training progress to a listener."""

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
    """Raise KeyboardInterrupt for Ctrl-C: Lightning would exit the process and disable the signal handler."""
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
    """Suppress Lightning's expected warnings, and restore process-wide torch settings afterwards."""
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
            # takes a sixth of the time, and protects only against reading uninitialised memory
            memory.fill_uninitialized_memory = False
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
