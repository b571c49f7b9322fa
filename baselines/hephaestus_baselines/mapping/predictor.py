"""Adapter from checkpoints to the predictor interface of :mod:`hephaestus_build.dataset.predictor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.mapping.predict_frame import describe_model, predict_pairs
from hephaestus_baselines.training.exported_model import require_model
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube

if TYPE_CHECKING:
    from hephaestus_baselines.training.inference import TrainedModel


class CheckpointPredictor:
    """A trained model of this package; see :class:`hephaestus_build.dataset.predictor.Predictor`.

    Parameters
    ----------
    trained : TrainedModel
        The model, with its run's configuration and channel statistics.
    checkpoint : pathlib.Path
        The file or folder from which the model was read.
    """

    def __init__(self, trained: TrainedModel, checkpoint: Path) -> None:
        self._trained = trained
        self.name = trained.recipe.key
        self.pair_count = trained.recipe.steps
        self.trained_on_simulated = trained.trained_on_simulated
        self.provenance = describe_model(trained, checkpoint)

    def __repr__(self) -> str:
        return f"<CheckpointPredictor {self.name}: {self._trained.recipe.model}>"

    def predict(self, store: Path, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Return the probability of deformation in each pixel, float32; NaN where there is no data.

        Parameters
        ----------
        store : pathlib.Path
            The frame's cube; opened pinned to its generation.
        pairs : sequence of Pair
            :attr:`pair_count` stored interferograms.

        Raises
        ------
        UsageError
            If the number of pairs is not :attr:`pair_count`.
        """
        if len(pairs) != self.pair_count:
            raise UsageError(f"the model {self.name} takes {self.pair_count} pairs, not {len(pairs)}")
        with open_pinned_cube(store, chunks=None) as cube:
            return predict_pairs(self._trained, cube, pairs)[0]


def open_checkpoint_predictor(checkpoint: Path, *, device: str = "auto") -> CheckpointPredictor:
    """Open the checkpoint of a run as a predictor.

    Parameters
    ----------
    checkpoint : pathlib.Path
        ``best.ckpt`` of a run, or the folder of an exported model; either is verified before it is used.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    HephaestusError
        If the extra ``baselines`` is not installed, or the checkpoint is missing or unreadable.
    """
    check_extra("baselines", "a prediction")
    from hephaestus_baselines.training.inference import load_deformation_model

    return CheckpointPredictor(load_deformation_model(require_model(checkpoint), device=device), checkpoint)
