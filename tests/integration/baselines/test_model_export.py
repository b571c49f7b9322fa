"""Tests of exported models: they predict like their checkpoint, anywhere, and are not used if changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from hephaestus_baselines.experiments.model_export import export_model_folder
from hephaestus_baselines.mapping.predictor import open_checkpoint_predictor
from hephaestus_baselines.training.checkpoints import METADATA_KEY, load_safetensors_weights, read_checkpoint
from hephaestus_baselines.training.exported_model import (
    CARD_FILE,
    MANIFEST_FILE,
    MODEL_FILES,
    RECIPE_FILE,
    SCORES_FILE,
    WEIGHTS_FILE,
    encode_document,
    make_manifest,
    read_exported_model,
)
from hephaestus_baselines.training.inference import load_trained_model
from hephaestus_build import open_predictor
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from json_page import differences
from toy_benchmark import FRAME, hephaestus

PAIR = Pair.parse("20190106_20190118")


@pytest.fixture(scope="session")
def exported(runs, tmp_path_factory) -> dict[str, Path]:
    """Return an exported model of each task."""
    home = tmp_path_factory.mktemp("exported")
    for task, run in runs.items():
        export_model_folder(run, home / task)
    return {task: home / task for task in runs}


@pytest.fixture
def model(exported, tmp_path) -> Path:
    """Return a copy of an exported model, to be changed."""
    return Path(shutil.copytree(exported["classification"], tmp_path / "model"))


def reseal(model: Path) -> None:
    """Make the manifest fit what a model holds, as a forger would."""
    contents = {name: (model / name).read_bytes() for name in MODEL_FILES}
    (model / MANIFEST_FILE).write_bytes(make_manifest(contents))


def change_document(model: Path, name: str, change: Callable[[dict], object]) -> None:
    document = json.loads((model / name).read_bytes())
    change(document)
    (model / name).write_bytes(encode_document(document))


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_an_exported_model_predicts_bit_for_bit_like_its_checkpoint(task, runs, exported, home):
    cube = home / "cubes" / f"{FRAME}.zarr"
    before = open_checkpoint_predictor(runs[task] / "best.ckpt", device="cpu")
    after = open_predictor(exported[task], device="cpu")
    one, other = before.predict(cube, [PAIR]), after.predict(cube, [PAIR])
    assert np.isfinite(one).any()
    assert one.tobytes() == other.tobytes()
    assert (after.name, after.pair_count, after.trained_on_simulated) == (before.name, 1, True)
    first, second = (load_trained_model(path, "cpu") for path in (runs[task] / "best.ckpt", exported[task]))
    assert (first.recipe, first.moments, first.epoch) == (second.recipe, second.moments, second.epoch)
    assert first.best_score == second.best_score
    for name, values in first.model.state_dict().items():
        assert torch.equal(values, second.model.state_dict()[name])


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_an_exported_model_of_series_predicts_series_bit_for_bit(task, series_runs, home, tmp_path):
    cube, run = home / "cubes" / f"{FRAME}.zarr", series_runs[task]
    folder = tmp_path / "model"
    export_model_folder(run, folder)
    pairs = [Pair.parse(f"20190106_201901{day}") for day in (18, 18, 30)]
    before = open_checkpoint_predictor(run / "best.ckpt", device="cpu")
    after = open_predictor(folder, device="cpu")
    assert (after.name, after.pair_count) == (before.name, 3)
    one, other = before.predict(cube, pairs), after.predict(cube, pairs)
    assert np.isfinite(one).any()
    assert one.tobytes() == other.tobytes()
    with pytest.raises(UsageError, match="takes 3 pairs, not 1"):
        after.predict(cube, pairs[:1])
    about = json.loads((folder / RECIPE_FILE).read_text())
    # the channels of the three steps follow each other
    assert [name.partition("/")[0] for name in about["channels"]] == [
        step for step in "012" for _ in about["normalisation"]
    ]
    card = (folder / CARD_FILE).read_text()
    assert "three interferograms of one primary date" in card
    command = [
        "benchmark",
        "predict",
        cube,
        "--model",
        folder,
        "--to",
        tmp_path / "maps",
        "--since",
        "2020-02-01",
    ]
    assert hephaestus(*command, "--device", "cpu", "--json") == 0
    with xr.open_zarr(tmp_path / "maps" / f"{FRAME}.zarr") as maps:
        assert maps["deformation_probability"].notnull().any()
    change_document(folder, RECIPE_FILE, lambda document: document["recipe"].update(series=False))
    reseal(folder)
    with pytest.raises(HephaestusError, match=r"is not used: |does not fit the model"):
        open_predictor(folder, device="cpu").predict(cube, pairs[:1])


def test_an_exported_model_predicts_in_another_place_without_run_or_network(exported, home, tmp_path):
    """A process with another home and working folder, no results, and no socket that leaves it."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(exported["segmentation"], elsewhere / "model")
    shutil.copytree(home / "cubes" / f"{FRAME}.zarr", elsewhere / f"{FRAME}.zarr")  # follows the link
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise OSError('no network here')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from hephaestus_build.cli import run_console_script\n"
        "run_console_script()\n"
    )
    command = ["benchmark", "predict", f"{FRAME}.zarr", "--model", "model", "--to", "maps"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEPHAESTUS", "HF_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--device", "cpu", "--pairs", PAIR.name, "--json"],
        cwd=elsewhere,
        env=kept | {"HOME": str(elsewhere / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)["maps"]
    with xr.open_zarr(elsewhere / "maps" / f"{FRAME}.zarr") as maps:
        stored = maps["deformation_probability"][0].to_numpy()
        assert maps.attrs["learnt_from_simulated"]
    here = open_predictor(exported["segmentation"], device="cpu").predict(elsewhere / f"{FRAME}.zarr", [PAIR])
    np.testing.assert_array_equal(stored, np.round(here * 4096) / np.float32(4096))
    assert Path(elsewhere / made["geotiff"]).is_file()


def test_the_folder_says_what_the_model_is_and_how_well_it_does(exported, runs):
    folder = exported["segmentation"]
    assert {path.name for path in folder.iterdir()} == {MANIFEST_FILE, *MODEL_FILES}
    about = json.loads((folder / RECIPE_FILE).read_text())
    metadata = read_checkpoint(runs["segmentation"] / "best.ckpt")[METADATA_KEY]
    assert about["split_sha256"] == metadata.split_sha256
    assert about["generations"] == metadata.generations
    assert {name: tuple(values) for name, values in about["normalisation"].items()} == metadata.moments
    assert about["channels"] == [f"0/{name}" for name in metadata.moments]
    assert (folder / SCORES_FILE).read_bytes() == (runs["segmentation"] / "result.json").read_bytes()
    _, matter, card = (folder / CARD_FILE).read_text().split("---\n", 2)
    front = yaml.safe_load(matter)
    assert (front["license"], front["pipeline_tag"]) == ("mit", "image-segmentation")
    assert "simulated" in front["tags"]
    result = json.loads((runs["segmentation"] / "result.json").read_text())
    pixels = result["assessment"]["units"]["pixels"]
    (scored,) = front["model-index"][0]["results"]
    assert scored["metrics"][0]["value"] == round(pixels["test"]["values"]["f1"], 6)
    assert scored["dataset"]["revision"] == result["split"]["sha256"]
    assert "**SIMULATED.**" in card
    assert "## Intended use" in card
    persistence = pixels["controls"]["persistence"]
    assert f"| persistence | pixels | F1 | {persistence['test']['values']['f1']:.3f} |" in card
    gap = persistence["gaps"]["f1"]
    assert f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" in card
    assert f"{pixels['threshold']['value']:.4f}" in card


@pytest.mark.parametrize("name", [*MODEL_FILES, MANIFEST_FILE])
def test_a_bit_that_was_turned_in_any_file_is_enough(model, name):
    content = (model / name).read_bytes()
    # the ends, and some between
    for place in {0, 7, 8, len(content) // 2, len(content) - 2, len(content) - 1}:
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        (model / name).write_bytes(changed)
        with pytest.raises(HephaestusError, match=r"the exported model .* is not used: ") as said:
            read_exported_model(model)
        assert "\n" not in str(said.value)
        (model / name).write_bytes(content)
    read_exported_model(model)


def add_file(model: Path) -> None:
    (model / "setup.py").write_text("raise SystemExit")


def add_folder(model: Path) -> None:
    (model / ".git").mkdir()


def remove_file(model: Path) -> None:
    (model / CARD_FILE).unlink()


def lead_away(model: Path) -> None:
    (model / WEIGHTS_FILE).rename(model.parent / "weights")
    (model / WEIGHTS_FILE).symlink_to(model.parent / "weights")


def lead_manifest_away(model: Path) -> None:
    (model / MANIFEST_FILE).rename(model.parent / "manifest")
    (model / MANIFEST_FILE).symlink_to(model.parent / "manifest")


def put_pipe(model: Path) -> None:
    (model / CARD_FILE).unlink()
    os.mkfifo(model / CARD_FILE)


def grow_weights(model: Path) -> None:
    with (model / WEIGHTS_FILE).open("r+b") as stream:
        stream.truncate(1 << 40)  # takes no room on the disk


def grow_manifest(model: Path) -> None:
    with (model / MANIFEST_FILE).open("r+b") as stream:
        stream.truncate(1 << 40)


def name_place_outside(model: Path) -> None:
    sealed = parse_hashed_json((model / MANIFEST_FILE).read_bytes())
    sealed["files"]["../../etc/passwd"] = sealed["files"].pop(CARD_FILE)
    (model / MANIFEST_FILE).write_text(json.dumps(sealed))


def state_larger_size(model: Path) -> None:
    sealed = parse_hashed_json((model / MANIFEST_FILE).read_bytes())
    sealed["files"][CARD_FILE]["bytes"] += 1
    (model / MANIFEST_FILE).write_bytes(add_json_hash(encode_document(sealed)))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (add_file, "it holds 'setup.py', which was not exported"),
        (add_folder, "it holds '.git', which was not exported"),
        (remove_file, "README.md is missing"),
        (lead_away, "model.safetensors: it is a link"),
        (lead_manifest_away, "manifest.json: it is a link"),
        (put_pipe, "README.md: it is a pipe"),
        (grow_weights, "model.safetensors is larger than it was"),
        (grow_manifest, "it is larger than"),
        (name_place_outside, "it has no seal"),
        (state_larger_size, "README.md is not what was exported"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_added_removed_or_led_away_is_named_and_nothing_is_used(model, change, cause):
    change(model)
    with pytest.raises(HephaestusError) as said:
        load_trained_model(model, "cpu")
    assert cause in str(said.value)
    assert "\n" not in str(said.value)


def widen(document: dict) -> None:
    document["recipe"]["atmosphere"] = "both"


def enlarge(document: dict) -> None:
    document["recipe"]["size"] = 1 << 40


def rename_model(document: dict) -> None:
    document["recipe"]["model"] = "os.system"


def change_moments(document: dict) -> None:
    document["normalisation"]["dem"] = [0.0, 0.0]


def shrink_moments(document: dict) -> None:
    document["normalisation"]["dem"] = [0.0, 1e-300]


def make_endless(document: dict) -> None:
    document["normalisation"]["dem"] = [1e999, 1.0]


def call_real(document: dict) -> None:
    document["simulated"] = False


def add_field(document: dict) -> None:
    document["__reduce__"] = "code"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (widen, "of different runs"),
        (enlarge, "recipe.size"),
        (rename_model, "of different runs"),
        (change_moments, "a mean or deviation by which no channel can be normalised"),
        (shrink_moments, "a mean or deviation by which no channel can be normalised"),
        (make_endless, "normalisation.dem.0"),
        (call_real, "of different data"),
        (add_field, "__reduce__"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_recipe_that_was_changed_with_its_manifest_is_refused(model, change, cause):
    path = model / RECIPE_FILE
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    reseal(model)
    with pytest.raises(HephaestusError) as said:
        load_trained_model(model, "cpu")
    assert cause in str(said.value)
    assert "\n" not in str(said.value)


def header_of(content: bytes) -> dict:
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


def with_header(content: bytes, header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + content[8 + struct.unpack("<Q", content[:8])[0] :]


def transpose_array(content: bytes) -> bytes:
    header = header_of(content)
    name = next(name for name, about in header.items() if len(about.get("shape", ())) == 4)
    header[name]["shape"].reverse()
    return with_header(content, json.dumps(header).encode())


def rename_array(content: bytes) -> bytes:
    header = header_of(content)
    header["\x1b[31mevil"] = header.pop(next(name for name in header if name != "__metadata__"))
    return with_header(content, json.dumps(header).encode())


def overlap_arrays(content: bytes) -> bytes:
    header = header_of(content)
    one, other = [name for name, about in header.items() if about.get("shape") == [2, 16]] or [*header][1:3]
    header[one]["data_offsets"] = header[other]["data_offsets"]
    return with_header(content, json.dumps(header).encode())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda content: struct.pack("<Q", 1 << 62) + content[8:], "its list of weights is too long"),
        (lambda content: with_header(content, b"{" * (5 << 20)), "its list of weights is too long"),
        (lambda content: with_header(content, b"[" * 100_000), ""),
        (lambda content: content[:5], "its list of weights is too long, or cut off"),
        (lambda content: content[: len(content) // 2], "its weights cannot be read"),
        (lambda content: content + b"\0" * 100, "its weights cannot be read"),
        (transpose_array, "of the shape"),
        (rename_array, "is only in one of recipe and weights"),
        (overlap_arrays, ""),
    ],
    ids=range(9),
)
def test_weights_are_compared_with_the_recipe_before_they_are_decoded(model, change, cause):
    weights = model / WEIGHTS_FILE
    weights.write_bytes(change(weights.read_bytes()))
    reseal(model)
    with pytest.raises(HephaestusError) as said:
        load_trained_model(model, "cpu")
    assert cause in str(said.value)
    assert "\x1b" not in str(said.value)
    assert "\n" not in str(said.value)


def without_numbers(model: Path) -> None:
    weights = load_safetensors((model / WEIGHTS_FILE).read_bytes())
    name = next(name for name, values in weights.items() if values.is_floating_point())
    (model / WEIGHTS_FILE).write_bytes(
        save_safetensors({**weights, name: torch.full_like(weights[name], torch.nan)})
    )


def test_a_model_whose_answers_are_no_numbers_writes_no_map(model, home, tmp_path, capsys):
    """Such a map would say "no data" in each pixel, and stay."""
    without_numbers(model)
    reseal(model)
    cube = home / "cubes" / f"{FRAME}.zarr"
    command = ["benchmark", "predict", cube, "--model", model, "--pairs", PAIR, "--to", tmp_path / "maps"]
    assert hephaestus(*command, "--device", "cpu") == 1
    assert "the model returned invalid probabilities" in capsys.readouterr().err
    assert not [*(tmp_path / "maps").rglob("*.tif")]


def test_an_array_of_another_type_is_refused_before_memory_is_taken():
    model = torch.nn.Linear(2, 2)
    header = {
        "weight": {"dtype": "F32", "shape": [1 << 30, 1 << 30], "data_offsets": [0, 16]},
        "bias": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
    }
    content = json.dumps(header).encode()
    with pytest.raises(ValueError, match=r"weight is F32 of the shape"):
        load_safetensors_weights(model, struct.pack("<Q", len(content)) + content + bytes(24))


def test_an_export_replaces_its_own_and_nothing_else(runs, tmp_path):
    run, target = runs["classification"], tmp_path / "model"
    export_model_folder(run, target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    (tmp_path / ".model.0123456789ab").mkdir()  # of an export that was killed
    export_model_folder(run, target, license_id="cc-by-4.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert "license: cc-by-4.0" in (target / CARD_FILE).read_text()
    assert (target / WEIGHTS_FILE).read_bytes() == before[WEIGHTS_FILE]
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt.* is not replaced; choose another --out"):
        export_model_folder(run, target)
    assert (target / "notes.txt").read_text() == "mine"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for name in ("thesis", "link", "thesis/chapter.tex"):
        with pytest.raises(UsageError, match="is not replaced"):
            export_model_folder(run, tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "text"


def test_a_run_that_is_not_finished_and_a_licence_that_is_none_are_said(runs, tmp_path):
    with pytest.raises(UsageError, match=r"there is no best\.ckpt in .*: no finished run"):
        export_model_folder(tmp_path, tmp_path / "out")
    shutil.copy(runs["classification"] / "best.ckpt", tmp_path)
    with pytest.raises(UsageError, match=r"there is no result\.json in"):
        export_model_folder(tmp_path, tmp_path / "out")
    shutil.copy(runs["segmentation"] / "result.json", tmp_path)
    with pytest.raises(HephaestusError, match="are of different runs"):
        export_model_folder(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="give an identifier such as mit"):
        export_model_folder(runs["classification"], tmp_path / "out", license_id="mit\ntags: [evil]")
    assert not (tmp_path / "out").exists()


def test_the_commands_say_what_they_wrote_and_take_one_model_alone(runs, home, tmp_path, capsys):
    capsys.readouterr()
    run = runs["segmentation"]
    assert hephaestus("benchmark", "export-model", run, "--out", tmp_path / "model", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert differences("benchmark export-model", answer) == []
    assert answer["model"] == run.name
    assert answer["sha256"] == hashlib.sha256((tmp_path / "model" / MANIFEST_FILE).read_bytes()).hexdigest()
    predict = ["benchmark", "predict", home / "cubes" / f"{FRAME}.zarr"]
    for options, said in (
        ([], "name one model"),
        (["--checkpoint", run / "best.ckpt", "--model", tmp_path / "model"], "name one model"),
        (["--model", run / "best.ckpt"], "there is no such folder"),
        (["--checkpoint", tmp_path / "model"], "--model takes that of an exported model"),
        (["--model", run], "is a folder without manifest.json"),
    ):
        assert hephaestus(*predict, *options) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "model" / CARD_FILE).write_text("another model")
    assert hephaestus(*predict, "--model", tmp_path / "model") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "README.md is not what was exported" in line
