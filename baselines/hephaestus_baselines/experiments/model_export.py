"""Export of a finished run as a folder that predicts anywhere."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.experiments.experiment_grid import RESULT_FILE
from hephaestus_baselines.training.exported_model import (
    CALIBRATION_FILE,
    CARD_FILE,
    MANIFEST_FILE,
    RECIPE_FILE,
    SCORES_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    calibration_of,
    describe_input_channels,
    encode_document,
    hash_model,
    make_manifest,
    read_verified_files,
)
from hephaestus_baselines.training.history import BEST_CHECKPOINT_FILE
from hephaestus_build.core.atomic_io import sync_folder, translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.exchange import exchange_names
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_files import is_real_folder, list_names, remove_folder
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.export.export_lock import exclusive_lock

if TYPE_CHECKING:
    from torch import Tensor

_MAX_RESULT_BYTES = 64 << 20
_LICENSE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,59}")


def export_model_folder(run: Path, target: Path, *, license_id: str = "mit") -> list[Path]:
    """Write a finished run as an exported model, at once; return its files.

    Parameters
    ----------
    run : pathlib.Path
        Folder of the run, with ``best.ckpt`` and ``result.json``, or its ``best.ckpt``.
    target : pathlib.Path
        Folder to write. An earlier exported model there is replaced, anything else is not.
    license_id : str
        Identifier of the licence of the weights, such as ``mit`` or ``cc-by-4.0``.

    Raises
    ------
    UsageError
        If there is no finished run, or `target` holds anything that no export wrote.
    HephaestusError
        If a file of the run is damaged, or another process is writing `target`.
    """
    if not _LICENSE_PATTERN.fullmatch(license_id):
        raise UsageError(
            f"--license {sanitize_text(license_id, 60)!r}: give an identifier such as mit or cc-by-4.0"
        )
    contents = make_model_files(run.parent if run.is_file() else run, license_id=license_id)
    with translate_os_errors(f"writing {target}", setting="--out"), exclusive_lock(target):
        _check_target(target)
        for name in list_names(target.parent):
            if re.fullmatch(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}", name):
                remove_folder(target.parent, name)  # of an export that was killed
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
        try:
            for name, content in contents.items():
                write_atomic(draft / name, content, durable=True)
            sync_folder(draft)
            _put_in_place(draft, target)
        finally:
            if is_real_folder(draft):
                remove_folder(draft.parent, draft.name)
    return [target / name for name in contents]


def make_model_files(run: Path, *, license_id: str) -> dict[str, bytes]:
    """Return the files of an exported model by name, the manifest last.

    Raises
    ------
    UsageError
        If the run is not finished.
    HephaestusError
        If a file of it is damaged, or they are not of one run.
    """
    from safetensors.torch import save as save_safetensors

    from hephaestus_baselines.reporting.model_card import render_model_card
    from hephaestus_baselines.training.checkpoints import METADATA_KEY, CheckpointMetadata, read_checkpoint
    from hephaestus_baselines.training.inference import load_trained_model

    checkpoint = run / BEST_CHECKPOINT_FILE
    for path in (checkpoint, run / RESULT_FILE):
        if not path.is_file():
            raise UsageError(
                f"there is no {path.name} in {run}: no finished run; `hephaestus benchmark run` finishes it"
            )
    result = RunResult.read(run / RESULT_FILE)
    trained = load_trained_model(checkpoint, "cpu")
    content = read_checkpoint(checkpoint)
    known: CheckpointMetadata = content[METADATA_KEY]
    if (known.recipe.key, known.split_sha256) != (result.key, result.split.sha256):
        raise HephaestusError(
            f"{checkpoint} and {RESULT_FILE} beside it are of different runs; run `hephaestus benchmark run` "
            "again"
        )
    about = ModelDescription(
        recipe=Recipe.model_validate(result.recipe),  # without the path of a folder of weights
        channels=describe_input_channels(known.recipe),
        normalisation=known.moments,
        simulated=known.simulated,
        split=result.split.name,
        split_sha256=known.split_sha256,
        generations=known.generations,
        versions=known.versions,
        epoch=trained.epoch,
        validation_score=trained.best_score,
        samples_per_second=trained.samples_per_second,
        checkpoint_sha256=hash_model(checkpoint),
    )
    calibration = calibration_of(result)
    card = render_model_card(about, calibration, result, license_id=license_id)
    contents = {
        WEIGHTS_FILE: save_safetensors(_copy_contiguous(content["state_dict"]), {"format": "pt"}),
        RECIPE_FILE: encode_document(about.model_dump(mode="json")),
        CALIBRATION_FILE: encode_document(calibration.model_dump(mode="json")),
        SCORES_FILE: read_bounded(run / RESULT_FILE, _MAX_RESULT_BYTES),
        CARD_FILE: card.encode(),
    }
    return {**contents, MANIFEST_FILE: make_manifest(contents)}


def _copy_contiguous(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return copies of a model's arrays in plain memory order, none of which shares memory with another."""
    import torch

    from hephaestus_baselines.training.inference import model_weights

    return {
        name: values.clone(memory_format=torch.contiguous_format)
        for name, values in model_weights(state).items()
    }


def _check_target(target: Path) -> None:
    """Raise UsageError unless `target` is free, an empty folder, or an exported model that nobody changed."""
    if not os.path.lexists(target):
        return
    if not is_real_folder(target):
        raise UsageError(f"{target} is a file or a link, which is not replaced; choose another --out")
    if not list_names(target):
        return
    try:
        read_verified_files(target)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{target} holds no unchanged exported model ({sanitize_text(error, 150)}), and "
            "is not replaced; choose another --out, or remove it"
        ) from error


def _put_in_place(draft: Path, target: Path) -> None:
    """Give a complete draft its name; what had it before gets the draft's name."""
    if not target.exists():
        draft.rename(target)
    elif not exchange_names(draft, target):
        aside = draft.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
        target.rename(aside)
        draft.rename(target)
        remove_folder(aside.parent, aside.name)
    sync_folder(target.parent)
