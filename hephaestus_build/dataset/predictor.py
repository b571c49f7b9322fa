"""Trained models as the builder sees them: a protocol, and the installed implementations of it.

The builder trains nothing and imports no deep-learning library. A package that can predict names, in the
entry-point group :data:`PREDICTOR_GROUP`, a function that opens one of its checkpoints as a
:class:`Predictor`; ``hephaestus_baselines`` does so under the name ``baselines``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import sanitize_text

#: Entry points of functions that take a checkpoint's path and a device and return a :class:`Predictor`.
PREDICTOR_GROUP = "hephaestus_build.predictors"


class Predictor(Protocol):
    """A trained model of deformation in interferograms.

    Attributes
    ----------
    name : str
        Identifies the model and its weights in what is made with it.
    pair_count : int
        Number of interferograms that one prediction takes: 1, or the length of a time series.
    trained_on_simulated : bool
        Whether it was trained on simulated data.
    """

    name: str
    pair_count: int
    trained_on_simulated: bool

    def predict(self, store: Path, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the probability of deformation in each pixel of a frame.

        Parameters
        ----------
        store : pathlib.Path
            A generation's store of the frame's cube; it is only read.
        pairs : sequence of Pair
            :attr:`pair_count` stored interferograms, in order of dates.

        Returns
        -------
        numpy.ndarray
            float32, the shape of the frame's images; NaN where no interferogram has data.

        Raises
        ------
        HephaestusError
            If the cube lacks what the model takes.
        """


def find_predictors() -> tuple[str, ...]:
    """Return the names of the installed implementations, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=PREDICTOR_GROUP)}))


def open_predictor(checkpoint: Path, *, implementation: str | None = None, device: str = "auto") -> Predictor:
    """Open a trained model with one of the installed implementations.

    Parameters
    ----------
    checkpoint : pathlib.Path
        The file or folder that the implementation reads.
    implementation : str, optional
        One of :func:`find_predictors`; by default the only one that is installed.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    UsageError
        If there is no such implementation, or several and none is named.
    HephaestusError
        If none is installed, or the implementation or the checkpoint cannot be loaded.
    """
    names = find_predictors()
    if not names:
        raise HephaestusError(
            "no installed package can predict; `pip install 'hephaestus-build[baselines]'` installs one "
            "(in a checkout: `make benchmark`)"
        )
    if implementation is None and len(names) > 1:
        raise UsageError(f"several installed packages can predict: name one of {', '.join(names)}")
    chosen = implementation or names[0]
    if chosen not in names:
        raise UsageError(f"{sanitize_text(chosen)!r} predicts nothing here: choose {', '.join(names)}")
    (entry, *_) = entry_points(group=PREDICTOR_GROUP, name=chosen)
    try:
        opener = entry.load()
    except Exception as error:  # another package's code: whatever it raises, it is named
        raise HephaestusError(
            f"the predictor {chosen} ({entry.value}) cannot be loaded: {sanitize_text(error)}; reinstall the "
            f"package that provides it"
        ) from error
    predictor: Predictor = opener(checkpoint, device=device)
    return predictor
