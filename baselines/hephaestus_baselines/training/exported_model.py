"""Exported models: a folder of plain files that holds all that prediction needs, and runs no code.

::

    model.safetensors   the weights
    recipe.json         architecture, channels and their normalisation, window, data of training
    calibration.json    thresholds, and the mapping that calibrates probabilities
    result.json         the scores of the run
    README.md           the model card
    manifest.json       size and hash of each of these

A folder may come from an untrusted source. It is used only if it holds exactly these plain files as the
manifest lists them, and only after the shapes of all weights were compared with the architecture that the
recipe names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hephaestus_baselines.config.channels import have_scale
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.validation_errors import first_mistake
from hephaestus_baselines.evaluation.result_schema import NullableFloat, RunResult, Threshold
from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.plain_text import sanitize_text

MODEL_FORMAT: Literal["hephaestus-model/1"] = "hephaestus-model/1"
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE, RECIPE_FILE, CALIBRATION_FILE = "model.safetensors", "recipe.json", "calibration.json"
SCORES_FILE, CARD_FILE = "result.json", "README.md"
#: Maximum bytes of each file.
MODEL_FILES: Mapping[str, int] = {
    WEIGHTS_FILE: 2 << 30,
    RECIPE_FILE: 1 << 20,
    CALIBRATION_FILE: 64 << 10,
    SCORES_FILE: 64 << 20,
    CARD_FILE: 1 << 20,
}
_MAX_MANIFEST_BYTES = 64 << 10
_MAX_ENTRIES = 100

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=1000)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _ModelPart(BaseModel):
    """Base of the documents in an exported model; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelDescription(_ModelPart):
    """What prediction needs besides the weights, and what the model was trained on (``recipe.json``).

    Attributes
    ----------
    format : str
    recipe : Recipe
        All settings of the run.
    channels : list of str
        Input channels in their order; those of a series are repeated for each interferogram.
    normalisation : dict of str to (mean, deviation)
        By channel of one interferogram: the model sees (value - mean) / deviation.
    simulated : bool
        Whether any frame of training is simulated.
    split, split_sha256 : str
        Name and hash of the split of training and scoring.
    generations : dict of frame id to str
        Generations of the cubes of training, and the hash of their content.
    versions : dict of str to str
        Versions of Python and the libraries of training.
    epoch : int
        The epoch of these weights, from 1.
    validation_score : float
        The score by which it was chosen.
    samples_per_second : float
        Training throughput.
    checkpoint_sha256 : str
        SHA-256 of the checkpoint that was exported.
    """

    format: Literal["hephaestus-model/1"] = MODEL_FORMAT
    recipe: Recipe
    channels: list[_Text] = Field(max_length=1000)
    normalisation: dict[_Text, tuple[_Finite, _Finite]] = Field(max_length=1000)
    simulated: bool
    split: _Text
    split_sha256: _Hash
    generations: dict[_Text, _Text] = Field(max_length=10_000)
    versions: dict[_Text, _Text] = Field(max_length=100)
    epoch: int = Field(ge=1)
    validation_score: NullableFloat
    samples_per_second: NullableFloat
    checkpoint_sha256: _Hash


class ModelCalibration(_ModelPart):
    """Thresholds and calibration of an exported model (``calibration.json``); all from validation.

    Attributes
    ----------
    thresholds : dict of str to Threshold
        By scoring unit: the probability from which deformation is predicted.
    slope, offset : float
        The calibrated probability of an interferogram is ``1 / (1 + exp(-(slope * logit + offset)))``.
    fitted_on : str
        ``validation``, or ``nothing`` if it had too few cases.
    """

    thresholds: dict[str, Threshold] = Field(max_length=10)
    slope: _Finite
    offset: _Finite
    fitted_on: Literal["validation", "nothing"]


class _FileRecord(_ModelPart):
    bytes: int = Field(ge=0)
    blake3: _Hash


class _Manifest(_ModelPart):
    format: Literal["hephaestus-model/1"]
    files: dict[str, _FileRecord] = Field(max_length=len(MODEL_FILES))


class ExportedModel(BaseModel):
    """A verified exported model, whose weights are not decoded yet.

    Attributes
    ----------
    description : ModelDescription
    calibration : ModelCalibration
    result : RunResult
        The scores of the run.
    weights : bytes
        Content of ``model.safetensors``, which
        :func:`~hephaestus_baselines.training.checkpoints.load_safetensors_weights` reads.
    """

    model_config = ConfigDict(frozen=True)

    description: ModelDescription
    calibration: ModelCalibration
    result: RunResult
    weights: bytes = Field(repr=False)


def make_manifest(contents: Mapping[str, bytes]) -> bytes:
    """Return the manifest of the files of an exported model, given by name, with a hash of its own."""
    files = {
        name: {"bytes": len(content), "blake3": hash_bytes(content)} for name, content in contents.items()
    }
    return add_json_hash(encode_document({"format": MODEL_FORMAT, "files": files}))


def encode_document(value: Any) -> bytes:
    """Return a JSON document as people read it, UTF-8."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_exported_model(folder: Path) -> ExportedModel:
    """Read and verify an exported model; nothing in it is executed.

    Parameters
    ----------
    folder : pathlib.Path
        The folder, whose own path is trusted.

    Raises
    ------
    HephaestusError
        If it is no exported model; if a file is missing, changed (even by one bit), too large, a link or
        not listed; or if its documents contradict each other.
    """
    try:
        contents = read_verified_files(folder)
        model = ExportedModel(
            description=ModelDescription.model_validate(
                parse_json(contents[RECIPE_FILE], limit=MODEL_FILES[RECIPE_FILE])
            ),
            calibration=ModelCalibration.model_validate(
                parse_json(contents[CALIBRATION_FILE], limit=MODEL_FILES[CALIBRATION_FILE])
            ),
            result=RunResult.model_validate(parse_hashed_json(contents[SCORES_FILE])),
            weights=contents[WEIGHTS_FILE],
        )
        model.result.check_complete()
        _check_consistency(model)
        return model
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from error


def read_verified_files(folder: Path) -> dict[str, bytes]:
    """Return the content of the files of an exported model, by name, after comparing them with the manifest.

    Raises
    ------
    OSError, ValueError
        If a file is missing, changed, too large, no plain file, or not listed.
    """
    if not folder.is_dir():
        raise ValueError("there is no such folder")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            content = read_plain_file(descriptor, MANIFEST_FILE, _MAX_MANIFEST_BYTES)
        except FileNotFoundError:
            raise ValueError(f"it holds no {MANIFEST_FILE}, so it is no exported model") from None
        listed = _Manifest.model_validate(parse_hashed_json(content)).files
        if listed.keys() != MODEL_FILES.keys():
            raise ValueError(f"{MANIFEST_FILE} does not list exactly {', '.join(MODEL_FILES)}")
        _check_listing(descriptor)
        contents = {}
        for name, limit in MODEL_FILES.items():
            try:
                contents[name] = read_plain_file(descriptor, name, min(limit, listed[name].bytes))
            except FileNotFoundError:
                raise ValueError(f"{name} is missing") from None
            except ValueError:
                raise ValueError(f"{name} is larger than it was when the model was exported") from None
            known = listed[name]
            if (len(contents[name]), hash_bytes(contents[name])) != (known.bytes, known.blake3):
                raise ValueError(f"{name} is not what was exported: it was changed or is damaged")
        return contents
    finally:
        os.close(descriptor)


def describe_input_channels(recipe: Recipe) -> list[str]:
    """Return the input channels of a recipe in their order."""
    return list(recipe.inputs.stacked_channels(recipe.steps))


def hash_model(path: Path) -> str:
    """Return the SHA-256 that identifies a model: of its checkpoint, or of an exported model's manifest."""
    content = (
        read_plain_file(path, MANIFEST_FILE, _MAX_MANIFEST_BYTES) if path.is_dir() else path.read_bytes()
    )
    return hashlib.sha256(content).hexdigest()


def require_model(path: Path) -> Path:
    """Return `path` if it is a file or an exported model's folder.

    Raises
    ------
    UsageError
        If there is neither.
    """
    if path.is_dir() and not (path / MANIFEST_FILE).exists():
        raise UsageError(
            f"{path} is a folder without {MANIFEST_FILE}, so no exported model; `hephaestus benchmark "
            "export-model RUN --out DIR` makes one of a run"
        )
    if not path.exists():
        raise UsageError(
            f"there is no checkpoint at {path}; `hephaestus benchmark run` writes best.ckpt for each run"
        )
    return path


def _check_listing(descriptor: int) -> None:
    """Raise ValueError if a folder holds anything besides the files of an exported model."""
    with os.scandir(descriptor) as entries:
        for number, entry in enumerate(entries):
            if number >= _MAX_ENTRIES or entry.name not in {MANIFEST_FILE, *MODEL_FILES}:
                raise ValueError(f"it holds {sanitize_text(entry.name, 60)!r}, which was not exported")


def _check_consistency(model: ExportedModel) -> None:
    """Raise ValueError if recipe, calibration and scores are not of one run."""
    about, result = model.description, model.result
    recipe = about.recipe
    if not Recipe.model_validate(result.recipe).key == result.key == recipe.key:
        raise ValueError(f"{RECIPE_FILE} and {SCORES_FILE} are of different runs")
    if (about.split, about.split_sha256) != (result.split.name, result.split.sha256) or (
        about.simulated != result.simulated
    ):
        raise ValueError(f"{RECIPE_FILE} and {SCORES_FILE} are of different data")
    if about.channels != describe_input_channels(recipe) or (
        about.normalisation.keys() != set(recipe.inputs.channels)
    ):
        raise ValueError(f"the channels in {RECIPE_FILE} are not those of its settings")
    if not have_scale(about.normalisation):
        raise ValueError(f"{RECIPE_FILE} has a mean or deviation by which no channel can be normalised")
    if model.calibration != calibration_of(result):
        raise ValueError(f"{CALIBRATION_FILE} and {SCORES_FILE} are of different runs")


def calibration_of(result: RunResult) -> ModelCalibration:
    """Return thresholds and calibration of a run, all of which come from validation."""
    found = result.assessment.calibration
    return ModelCalibration(
        thresholds={unit: scores.threshold for unit, scores in result.assessment.units.items()},
        slope=found.slope,
        offset=found.offset,
        fitted_on=found.fitted_on,
    )


def _unusable(folder: Path, error: Exception) -> HephaestusError:
    cause = first_mistake(error, 300)
    if isinstance(error, OSError):
        cause = sanitize_text(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), 300)
    return HephaestusError(
        f"the exported model {folder} is not used: {cause}; take it again from where it "
        "came, or export the run again"
    )
