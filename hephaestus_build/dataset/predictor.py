"""Trained models as the builder sees them: a protocol, and the installed implementations of it.

The builder trains nothing and imports no deep-learning library. A package that can predict names, in the
entry-point group :data:`PREDICTOR_GROUP`, a function that opens one of its checkpoints as a
:class:`Predictor`; ``hephaestus_baselines`` does so under the name ``baselines``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.extras import Plugin, find_plugins, install_hint
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.reading.window_reader import WindowReader

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

    @property
    def provenance(self) -> Mapping[str, str | bool]:
        """What is recorded of the model in what is made with it, such as the hash of its checkpoint."""

    def predict(self, store: Path, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
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


class _CheckedPredictor:
    """A predictor of another package: whatever it raises is one line, and what it returns is checked."""

    def __init__(self, predictor: Predictor, plugin: Plugin) -> None:
        self._predictor, self._plugin = predictor, plugin
        self.name = str(predictor.name)
        self.pair_count = int(predictor.pair_count)
        self.trained_on_simulated = bool(predictor.trained_on_simulated)
        self.provenance = dict(predictor.provenance)

    def __repr__(self) -> str:
        return repr(self._predictor)

    def predict(self, store: Path, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the probability of deformation, see :class:`Predictor`."""
        try:
            probability = self._predictor.predict(store, pairs)
        except HephaestusError:
            raise
        except Exception as error:
            what = f"failed with {', '.join(map(str, pairs))} of {store.stem}"
            raise self._plugin.make_error(what, error) from error
        shape = WindowReader(store).shape
        if (
            not isinstance(probability, np.ndarray)
            or probability.dtype != np.float32
            or probability.shape != shape
        ):
            raise self._plugin.make_error(f"returned no float32 array of {shape[0]} x {shape[1]} pixels")
        if bool(((probability < 0) | (probability > 1)).any()):
            raise self._plugin.make_error("returned probabilities below 0 or above 1")
        return probability


def find_predictors() -> tuple[str, ...]:
    """Return the names of the installed implementations, sorted."""
    return tuple(sorted(find_plugins(PREDICTOR_GROUP)))


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
    plugins = find_plugins(PREDICTOR_GROUP)
    names = sorted(plugins)
    if not names:
        raise HephaestusError(f"no installed package can predict; {install_hint('baselines')}")
    if implementation is None and len(names) > 1:
        raise UsageError(f"several installed packages can predict: name one of {', '.join(names)}")
    chosen = implementation or names[0]
    if chosen not in plugins:
        raise UsageError(f"{sanitize_text(chosen)!r} predicts nothing here: choose {', '.join(names)}")
    plugin = plugins[chosen]
    opener: Any = plugin.load()
    try:
        return _CheckedPredictor(opener(checkpoint, device=device), plugin)
    except HephaestusError:
        raise
    except Exception as error:  # another package's code: whatever it raises, it is named
        raise plugin.make_error(f"cannot open {checkpoint}", error) from error
