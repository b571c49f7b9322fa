"""Tests of damaged, moved and untrusted checkpoints: reported, or read correctly."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuzzing import Reader, fuzz
from hephaestus_baselines.training.checkpoints import (
    METADATA_KEY,
    parse_checkpoint_metadata,
    read_checkpoint,
    write_checkpoint,
)
from hephaestus_baselines.training.history import TRAINING_RECORD_FILE, verified_training_file
from hephaestus_baselines.training.inference import load_trained_model
from hephaestus_baselines.training.trainer import train_model
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.progress import NullListener
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.predictor import find_predictors, open_predictor
from toy_benchmark import FRAME, toy_cubes
from toy_training import ToyWindows, toy_prepared, toy_recipe


class StoppedError(RuntimeError):
    """Raised to stop a run in these tests."""


class StopAt(NullListener):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def stage(self, name: str, total: int) -> None:
        if f"epoch {self.epoch}/" in name:
            raise StoppedError


RECIPE = toy_recipe(epochs=4)


@pytest.fixture(autouse=True)
def no_cubes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run without interruption, and one stopped before its fourth epoch."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)
        train_model(RECIPE, toy_prepared(), folder / "whole", device="cpu")
        with pytest.raises(StoppedError):
            train_model(RECIPE, toy_prepared(), folder / "cut", device="cpu", listener=StopAt(4))
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as lines:
        return [
            {name: value for name, value in row.items() if "second" not in name}
            for row in csv.DictReader(lines)
        ]


def same(one: Path, other: Path) -> bool:
    first, second = (read_checkpoint(path)["state_dict"] for path in (one, other))
    return all(torch.equal(first[name], values) for name, values in second.items())


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_every_flipped_bit_is_found(name: str, runs: Path, tmp_path: Path) -> None:
    content = (runs / "cut" / name).read_bytes()
    source = random.Random(5)
    path = tmp_path / name
    for _ in range(200):
        flipped = bytearray(content)
        flipped[source.randrange(len(content))] ^= 1 << source.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(HephaestusError, match=r"cannot be read .*restore it from a copy"):
            read_checkpoint(path)
    path.write_bytes(content)  # outside its run folder
    assert read_checkpoint(path)[METADATA_KEY].recipe == RECIPE


def test_a_moved_run_goes_on_with_the_numbers_of_one_that_never_was(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = shutil.copytree(runs / "cut", tmp_path / "moved")
    before = {path.name: path.read_bytes() for path in (runs / "cut").glob("*.ckpt")}
    train_model(RECIPE, toy_prepared(), moved, device="cpu")
    assert metrics(moved) == metrics(runs / "whole")
    assert same(moved / "best.ckpt", runs / "whole" / "best.ckpt")
    assert {path.name: path.read_bytes() for path in (runs / "cut").glob("*.ckpt")} == before
    assert caplog.text == ""


class Eager(torch.utils.data.DataLoader[Any]):
    """Loader that requests its first batches when iteration starts, as one with workers does."""

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return itertools.chain(list(itertools.islice(batches, 2)), batches)


def test_a_run_whose_workers_read_ahead_goes_on_with_its_own_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hephaestus_baselines.training.trainer.make_data_loader",
        lambda windows, _, **options: Eager(windows, **options),
    )
    prepared = toy_prepared()
    recipe = toy_recipe(epochs=2)
    train_model(recipe, prepared, tmp_path / "whole", device="cpu")
    with pytest.raises(StoppedError):
        train_model(recipe, prepared, tmp_path / "cut", device="cpu", listener=StopAt(2))
    train_model(recipe, prepared, tmp_path / "cut", device="cpu")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_with_workers_goes_on_with_the_numbers_of_one_without(tmp_path: Path) -> None:
    prepared = toy_prepared()
    train_model(toy_recipe(epochs=2), prepared, tmp_path / "whole", device="cpu")
    recipe = toy_recipe(epochs=2, workers=2)
    with pytest.raises(StoppedError):
        train_model(recipe, prepared, tmp_path / "cut", device="cpu", listener=StopAt(2))
    train_model(recipe, prepared, tmp_path / "cut", device="cpu")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_no_place_of_this_machine_is_in_a_checkpoint(runs: Path) -> None:
    for path in (runs / "cut").glob("*.ckpt"):
        content = path.read_bytes()
        assert str(runs).encode() not in content
        assert os.fsencode(Path.home()) + b"/" not in content


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_run_with_a_damaged_checkpoint_says_so_and_begins_again(
    name: str, runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(runs / "cut", tmp_path / "run")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    train_model(RECIPE, toy_prepared(), folder, device="cpu")
    (line,) = caplog.messages
    assert f"{name} cannot be read (it is damaged" in line
    assert "begins again with its first epoch" in line
    assert (folder / f"{name}.unused").read_bytes() == content
    assert metrics(folder) == metrics(runs / "whole")
    assert same(folder / "best.ckpt", runs / "whole" / "best.ckpt")


def test_a_run_that_goes_on_elsewhere_says_that_its_numbers_may_differ(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(runs / "cut", tmp_path / "run")
    known = read_checkpoint(folder / "last.ckpt")[METADATA_KEY].versions
    name = "hephaestus_baselines.training.trainer.library_versions"
    monkeypatch.setattr(name, lambda: {**known, "torch": "9.9"})
    train_model(RECIPE, toy_prepared(), folder, device="cpu")
    (line,) = caplog.messages
    assert f"torch {known['torch']} (now 9.9)" in line
    assert "may differ" in line


def test_a_run_on_other_cubes_begins_again(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(runs / "cut", tmp_path / "run")
    prepared = toy_prepared()
    prepared.generations["198A_00210_131313"] = "2:other"  # type: ignore[index]
    train_model(RECIPE, prepared, folder, device="cpu")
    assert "was trained on other cubes" in caplog.text
    assert len(metrics(folder)) == 4


def test_what_is_trained_is_not_trained_again_without_the_last_checkpoint(runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "whole", tmp_path / "run")
    (folder / "last.ckpt").unlink()
    best = train_model(RECIPE, toy_prepared(), folder, device="cpu", listener=StopAt(1))
    assert best == folder / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-1])
    with pytest.raises(StoppedError):
        train_model(RECIPE, toy_prepared(), folder, device="cpu", listener=StopAt(1))


@pytest.mark.parametrize("name", ["metrics.csv", "best.ckpt", TRAINING_RECORD_FILE])
def test_files_of_a_complete_training_are_checked_by_its_record(
    name: str, runs: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(runs / "whole", tmp_path / "run")
    asked = name if name != TRAINING_RECORD_FILE else "metrics.csv"
    assert verified_training_file(folder, asked) == folder / asked
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(HephaestusError, match=rf"{asked} is damaged .*`hephaestus benchmark run` again"):
        verified_training_file(folder, asked)


def test_one_without_a_seal_is_read_on_request_if_its_checksums_are_right(runs: Path, tmp_path: Path) -> None:
    content = (runs / "whole" / "best.ckpt").read_bytes()
    end = content.rindex(b"hephaestus blake3:")
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(content[: end - 2] + b"\0\0")
    with pytest.raises(HephaestusError, match=r"it has no seal.*--unsealed"):
        load_trained_model(bare)
    assert load_trained_model(bare, "cpu", unsealed=True).recipe == RECIPE
    damaged = bytearray(bare.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    bare.write_bytes(damaged)
    with pytest.raises(HephaestusError, match=r"the checksum of .* is wrong"):
        load_trained_model(bare, "cpu", unsealed=True)


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_no_code_is_run_neither_to_predict_nor_to_go_on(runs: Path, tmp_path: Path) -> None:
    content = torch.load(runs / "cut" / "last.ckpt", weights_only=True)
    folder = shutil.copytree(runs / "cut", tmp_path / "run")
    write_checkpoint({**content, "callbacks": Runs(tmp_path / "ran")}, folder / "last.ckpt")
    with pytest.raises(HephaestusError, match="cannot be read"):
        load_trained_model(folder / "last.ckpt")
    train_model(RECIPE, toy_prepared(), folder, device="cpu", listener=NullListener())
    (folder / "legacy.ckpt").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(HephaestusError, match="cannot be read"):
        load_trained_model(folder / "legacy.ckpt", unsealed=True)
    assert not (tmp_path / "ran").exists()


def repacked(content: bytes, change: Any, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a checkpoint with changed members and a recomputed hash."""
    from hephaestus_build.core.embedded_hash import add_zip_hash

    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w", method) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)), method)
        change("", target)
    return bytes(add_zip_hash(stream))


def test_an_archive_that_inflates_or_holds_anything_else_is_refused(runs: Path, tmp_path: Path) -> None:
    content = (runs / "whole" / "best.ckpt").read_bytes()
    path = tmp_path / "best.ckpt"
    path.write_bytes(repacked(content, lambda name, data: data))
    assert load_trained_model(path, "cpu").recipe == RECIPE
    path.write_bytes(repacked(content, lambda name, data: data, zipfile.ZIP_DEFLATED))
    with pytest.raises(HephaestusError, match="no archive of a checkpoint"):
        load_trained_model(path)

    def further(name: str, data: Any) -> Any:
        if not name:
            data.writestr("archive/code/__torch__.py", "import os")
        return data

    path.write_bytes(repacked(content, further))
    with pytest.raises(HephaestusError, match=r"no part of a checkpoint|no archive"):
        load_trained_model(path)


def changed(runs: Path, **about: Any) -> dict[str, Any]:
    content = torch.load(runs / "whole" / "best.ckpt", weights_only=True)
    return {**content, METADATA_KEY: {**content[METADATA_KEY], **about}}


def test_what_a_stranger_says_of_a_model_is_bounded(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    recipe = RECIPE.model_dump()
    deep: Any = "x"
    wide: Any = "x"
    for _ in range(60):
        deep, wide = [deep], [wide, wide]
    strange: list[dict[str, Any]] = [
        {"recipe": {**recipe, "size": 10**9}},
        {"recipe": {**recipe, "batch_size": 10**12}},
        {"recipe": {**recipe, "model": "../../x"}},
        {"recipe": {**recipe, "model": "no-such-model"}},
        {"recipe": {**recipe, "looks": 8}},
        {"recipe": deep},
        {"recipe": wide},
        {"moments": {}},
        {"moments": {"dem": (0.0,)}},
        {"history": []},
        {"history": [{"epoch": 2**70}]},
        {"split_sha256": "x" * 10**6},
        {"simulated": torch.zeros(3)},
        {"further": 1},
    ]
    for about in strange:
        write_checkpoint(changed(runs, **about), path)
        with pytest.raises(HephaestusError) as seen:
            load_trained_model(path, "cpu")
        assert "\n" not in str(seen.value)
        assert len(str(seen.value)) < 1500


def test_weights_of_another_shape_type_or_number_are_refused(runs: Path, tmp_path: Path) -> None:
    content = torch.load(runs / "whole" / "best.ckpt", weights_only=True)
    name, values = next(iter(content["state_dict"].items()))
    path = tmp_path / "best.ckpt"
    for strange in (
        torch.zeros(1).expand(10**6, 10**6),
        values.double(),
        values.to_sparse(),
        values[:0],
        [1, 2],
        torch.empty(values.shape, device="meta"),
    ):
        write_checkpoint({**content, "state_dict": {**content["state_dict"], name: strange}}, path)
        with pytest.raises(HephaestusError, match=r"does not fit|cannot be read"):
            load_trained_model(path, "cpu")
    less = {key: value for key, value in content["state_dict"].items() if key != name}
    write_checkpoint({**content, "state_dict": less}, path)
    with pytest.raises(HephaestusError, match="is only in one of model and checkpoint"):
        load_trained_model(path, "cpu")


@pytest.mark.parametrize("moments", [(0.0, 0.0), (0.0, 1e-300), (1e300, 1.0), (float("nan"), 1.0)])
def test_a_mean_or_deviation_that_normalises_nothing_is_refused(
    moments: tuple[float, float], runs: Path, tmp_path: Path
) -> None:
    content = torch.load(runs / "whole" / "best.ckpt", weights_only=True)
    known = content[METADATA_KEY]
    changed = {**known, "moments": {**known["moments"], "dem": moments}}
    write_checkpoint({**content, METADATA_KEY: changed}, tmp_path / "best.ckpt")
    with pytest.raises(HephaestusError, match="by which no channel can be normalised"):
        load_trained_model(tmp_path / "best.ckpt", "cpu")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.ckpt")
    with pytest.raises(HephaestusError, match="not a regular file"):
        read_checkpoint(tmp_path / "best.ckpt")


def test_plain_values_are_counted_as_often_as_they_repeat() -> None:
    row: Any = [0] * 1000
    for value in ([row] * 1000, {"a": {1: 2**65}}, object()):
        with pytest.raises(ValueError):
            parse_checkpoint_metadata(value)


def test_mutated_checkpoints_are_read_or_refused(runs: Path, tmp_path: Path) -> None:
    sample = (runs / "whole" / "best.ckpt").read_bytes()
    errors = ("hephaestus_build.core.errors:HephaestusError",)
    with Reader("checkpoint_reader:read_model", errors=errors, memory=2 << 30) as reader:
        fuzz(reader, [sample], tmp_path, suffix=".ckpt")


def test_the_builder_finds_a_checkpoint_as_a_predictor(runs: Path, tmp_path: Path) -> None:
    assert "baselines" in find_predictors()
    checkpoint = runs / "whole" / "best.ckpt"
    predictor = open_predictor(checkpoint, implementation="baselines", device="cpu")
    assert (predictor.name, predictor.pair_count) == (RECIPE.key, RECIPE.steps)
    assert predictor.trained_on_simulated is True
    assert predictor.provenance == {
        "model": RECIPE.key,
        "task": RECIPE.task,
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "learnt_from_simulated": True,
    }
    cube = toy_cubes(tmp_path) / f"{FRAME}.zarr"
    with open_pinned_cube(cube, chunks=None) as data:
        ((row, column), *_) = np.argwhere(data.valid_date_pair.to_numpy())
        image = data.insar_difference.isel(primary_date=row, secondary_date=column)
        days = image.primary_date.to_numpy(), image.secondary_date.to_numpy()
        pair = Pair(*(day.astype("datetime64[D]").item() for day in days))
        phase = image.to_numpy()
    probability = predictor.predict(cube, [pair] * predictor.pair_count)
    assert (probability.dtype, probability.shape) == (np.float32, phase.shape)
    np.testing.assert_array_equal(np.isnan(probability), phase == 0)
    assert ((probability >= 0) & (probability <= 1) | np.isnan(probability)).all()
    with pytest.raises(UsageError, match=f"takes {predictor.pair_count} pairs, not 0"):
        predictor.predict(cube, [])
    with pytest.raises(UsageError, match="there is no checkpoint at"):
        open_predictor(tmp_path / "none.ckpt", device="cpu")
