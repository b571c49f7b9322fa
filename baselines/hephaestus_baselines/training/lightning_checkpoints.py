"""Lightning plugins for checkpoints: when they are written, and how a resumed run reads them."""

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
    """Write checkpoints with a content hash; read only such, and only tensors and plain values.

    With torch before 2.6, Lightning's default would execute code in a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint atomically."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint onto the CPU."""
        return load_checkpoint_archive(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class BestAndLastCheckpoint(Checkpoint):
    """Save the checkpoints of the best and of the last epoch.

    Its state is the best score only. Lightning's own callback stores paths: in a moved folder it forgets the
    best epoch, and in a copied one it would modify the original.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the run.
    metric_name : str
        Name of the logged metric that is highest in the best epoch.
    """

    #: Key of this callback's state in checkpoints. If it changes, older checkpoints cannot be resumed.
    state_key = "Keeper"
    best_model_path = ""  # Lightning reads it when several devices train together

    def __init__(self, folder: Path, metric_name: str) -> None:
        self.folder, self.metric_name, self.best_score = folder, metric_name, -math.inf

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the best checkpoint if the score improved, then the last, which stores the best score."""
        found = float(trainer.callback_metrics[self.metric_name])
        if found > self.best_score:
            self.best_score = found
            trainer.save_checkpoint(self.folder / BEST_CHECKPOINT_FILE, weights_only=True)
        trainer.save_checkpoint(self.folder / LAST_CHECKPOINT_FILE)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, to be stored in the last checkpoint."""
        return {"best": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score."""
        self.best_score = float(state_dict["best"])
