"""A finished run as a submission: a file that scores as the run does, to the last digit.

Classifications are rewritten from the stored predictions. Of segmentations the run keeps histograms alone, so
the model predicts again, and the maps of whole interferograms are written beside the file.
"""

from __future__ import annotations

import re
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.run_config import Recipe, read_recipe
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS, Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.submissions.probability_maps import map_key
from hephaestus_baselines.submissions.scored_samples import (
    SCORED_PARTS,
    describe_samples,
    list_samples,
    sample_name,
)
from hephaestus_baselines.submissions.submission_file import (
    SampleKey,
    SubmissionHeader,
    write_submission,
)
from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_files import list_names, remove_folder
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.splits import SplitPart

_RESULT_FILE, _RECIPE_FILE, _CHECKPOINT = "result.json", "recipe.yaml", "best.ckpt"
_MAPS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,80}")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a grid.

    Attributes
    ----------
    folder : pathlib.Path
    recipe : Recipe
    result : RunResult
    """

    folder: Path
    recipe: Recipe
    result: RunResult

    @classmethod
    def open(cls, folder: Path) -> FinishedRun:
        """Open the folder of a run.

        Raises
        ------
        UsageError
            If there is no finished run.
        HephaestusError
            If a file of it is damaged.
        """
        if not (folder / _RESULT_FILE).is_file():
            raise UsageError(
                f"there is no {_RESULT_FILE} in {folder}: no finished run; `hephaestus benchmark run` "
                "finishes it"
            )
        result = RunResult.read(folder / _RESULT_FILE)
        recipe = read_recipe(folder / _RECIPE_FILE)
        if recipe.key != result.key:
            raise HephaestusError(
                f"{_RECIPE_FILE} and {_RESULT_FILE} in {folder} are of different runs; run "
                "`hephaestus benchmark run` again"
            )
        return cls(folder, recipe, result)

    @property
    def statistics_folder(self) -> Path | None:
        """The grid's results, where the statistics are; None if its data is not normalised by them here."""
        again = self.recipe.task == "segmentation" and self.recipe.method != "trained"
        return self.folder.absolute().parents[1] if again else None

    def read_predictions(self, part: SplitPart) -> Predictions:
        """Return the stored predictions of a part."""
        return Predictions.read(self.folder / f"{part}.npz")


@dataclass(frozen=True)
class RunSubmission:
    """A submission that was written.

    Attributes
    ----------
    header : SubmissionHeader
    samples : int
    differing : int
        Windows whose maps, predicted again, are not those of the run, as on another device.
    """

    header: SubmissionHeader
    samples: int
    differing: int


def write_run_submission(
    run: FinishedRun,
    prepared: PreparedData,
    target: Path,
    *,
    model: str = "",
    device: str = "auto",
    listener: ProgressListener | None = None,
) -> RunSubmission:
    """Write a finished run as a submission, and the maps of a segmentation beside it.

    Parameters
    ----------
    run : FinishedRun
    prepared : PreparedData
        The data of its recipe.
    target : pathlib.Path
        File to write.
    model : str
        Name of the model in tables; by default the run's.
    device : str
        Device on which a segmentation predicts again.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If the cubes are not those of the run, or a file of it is damaged.
    """
    recipe = run.recipe
    stored = {part: run.read_predictions(part) for part in SCORED_PARTS}
    wanted = list_samples(prepared, "window")
    answers = {
        SampleKey(row.frame, sample_name(row), *(row.tile or (-1, -1))[:2]): float(value)
        for found in stored.values()
        for row, value in zip(found.rows, found.probability, strict=True)
    }
    split = prepared.split.sha256
    if answers.keys() != wanted.keys() or any(found.source.sha256 != split for found in stored.values()):
        raise HephaestusError(
            f"{run.folder} was scored on other samples than these cubes have; give the cubes of the run "
            "(--cubes, or --simulated)"
        )
    name = model or run.result.key
    if recipe.task == "classification":
        header = describe_samples(recipe, prepared, "window", model=name)
        write_submission(target, header, [(key, part, answers[key]) for key, part in wanted.items()])
        return RunSubmission(header, len(wanted), 0)
    maps = f"{target.stem if _MAPS_NAME.fullmatch(target.stem) else 'submission'}-maps.npz"
    differing = 0
    with _open_map_writer(target.parent / maps, prepared) as writer:
        for part, found in _predict_again(run, prepared, device, writer, listener or NullListener()).items():
            assert found.pixels is not None
            known = stored[part].pixels
            assert known is not None
            equal = np.logical_and.reduce([(found.pixels[name] == known[name]).all((1, 2)) for name in known])
            differing += int(np.count_nonzero(~equal))
    header = describe_samples(recipe, prepared, "window", model=name, maps=maps)
    interferograms = list_samples(prepared, "interferogram")
    write_submission(target, header, [(key, part, None) for key, part in interferograms.items()])
    return RunSubmission(header, len(interferograms), differing)


def _predict_again(
    run: FinishedRun, prepared: PreparedData, device: str, writer: MapWriter, listener: ProgressListener
) -> dict[SplitPart, Predictions]:
    """Return the predictions of a segmentation, whose maps are handed to `writer`."""
    from hephaestus_baselines.probes.anomaly_scores import score_anomalies
    from hephaestus_baselines.probes.frozen_encoder import open_encoder
    from hephaestus_baselines.training.inference import load_trained_model, resolve_device
    from hephaestus_baselines.training.prediction import predict_items

    if run.recipe.method != "trained":
        encoder = open_encoder(run.recipe, prepared, resolve_device(device))
        return score_anomalies(run.recipe, prepared, encoder, listener, on_map=writer.add)
    trained = load_trained_model(run.folder / _CHECKPOINT, device)
    return {
        part: predict_items(
            trained, prepared.items[part], prepared, part=part, listener=listener, on_map=writer.add
        )
        for part in SCORED_PARTS
    }


class MapWriter:
    """Puts the maps of whole interferograms together of windows, and packs them into an ``.npz``.

    Values are rounded down to steps of 1/512, which float16 holds and scores are made of. The maps of one
    frame are open at a time, as files.

    Parameters
    ----------
    archive : zipfile.ZipFile
    folder : pathlib.Path
        For the maps of the frame that is being written.
    prepared : PreparedData
    """

    def __init__(self, archive: zipfile.ZipFile, folder: Path, prepared: PreparedData) -> None:
        self._archive, self._folder, self._shapes = archive, folder, prepared.shapes
        self._frame = ""
        self._open: dict[str, Path] = {}

    def add(self, items: Sequence[DatasetItem], values: npt.NDArray[np.float32]) -> None:
        """Add the probabilities of windows, shape (B, S, S)."""
        for item, window in zip(items, values, strict=True):
            if item.frame != self._frame:
                self.pack()
                self._frame = item.frame
            assert item.tile is not None
            name, shape = map_key(item.frame, sample_name(item)), self._shapes[item.frame]
            is_new = name not in self._open
            path = self._open.setdefault(name, self._folder / f"{len(self._open)}.npy")
            whole: Any = np.lib.format.open_memmap(path, "w+" if is_new else "r+", "f2", shape)
            steps = np.floor(window * np.float32(PROBABILITY_BINS)) / np.float32(PROBABILITY_BINS)
            item.tile.write(steps.astype("f2"), whole)

    def pack(self) -> None:
        """Pack the maps of the frame that is finished."""
        for name, path in self._open.items():
            self._archive.write(path, f"{name}.npy")
            path.unlink()
        self._open = {}


@contextmanager
def _open_map_writer(target: Path, prepared: PreparedData) -> Iterator[MapWriter]:
    """Open a writer of maps, which take their name `target` when all are there."""
    with translate_os_errors(f"writing {target}", setting="--out"):
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in list_names(target.parent):
            if re.fullmatch(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}", name):
                remove_folder(target.parent, name)  # of a command that was killed
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
        draft.mkdir()
        try:
            with zipfile.ZipFile(
                draft / "maps.npz", "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
            ) as archive:
                writer = MapWriter(archive, draft, prepared)
                yield writer
                writer.pack()
            (draft / "maps.npz").replace(target)
        finally:
            remove_folder(draft.parent, draft.name)
