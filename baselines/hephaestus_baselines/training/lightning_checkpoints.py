"""Lightning's side of checkpoints: when they are written, and how they are read when a run goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from hephaestus_baselines.training.checkpoints import load_checkpoint_archive, write_checkpoint
from hephaestus_baselines.training.history import BEST_CHECKPOINT_FILE

LAST_CHECKPOINT_FILE = "last.ckpt"


class HashedCheckpointIO(CheckpointIO):
    """Writes sealed checkpoints, and reads only these, as tensors and plain values alone.

    Lightning's own way would run what a checkpoint holds with torch before 2.6.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint onto the CPU."""
        return load_checkpoint_archive(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class BestAndLastCheckpoint(Checkpoint):
    """Keeps the best epoch and the last one.

    It remembers the score alone. Lightning's own remembers paths: in a folder that was moved it forgets what
    was best, and in a copy it would touch the original.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.
    measure : str
        What the best epoch has most of, as the model logs it.
    """

    #: Under this name Lightning keeps what it remembers in a checkpoint, whatever the class is called.
    state_key = "Keeper"
    best_model_path = ""  # Lightning asks for it where devices train together

    def __init__(self, folder: Path, measure: str) -> None:
        self.folder, self.metric_name, self.best_score = folder, measure, -math.inf

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write what there is to keep; the best first: the last one then knows of it."""
        found = float(trainer.callback_metrics[self.metric_name])
        if found > self.best_score:
            self.best_score = found
            trainer.save_checkpoint(self.folder / BEST_CHECKPOINT_FILE, weights_only=True)
        trainer.save_checkpoint(self.folder / LAST_CHECKPOINT_FILE)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into the last checkpoint."""
        return {"best": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was best so far."""
        self.best_score = float(state_dict["best"])
