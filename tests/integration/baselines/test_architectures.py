"""Tests of the architectures: sizes compared with the paper's, and origin of the pretrained weights."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import toy_training  # noqa: F401 (one thread)
from hephaestus_baselines.config.architecture_catalog import MODELS
from hephaestus_baselines.config.run_config import preset_names, read_preset
from hephaestus_baselines.models.architectures import build_model, count_trainable_parameters
from hephaestus_build.core.errors import HephaestusError, UsageError

SMALL = [name for name, model in MODELS.items() if model.published_parameters is None]
PAPER = [name for name, model in MODELS.items() if model.published_parameters is not None]


def resnet_50(channels: int) -> int:
    """Parameters of a ResNet-50 without its last layer; more channels widen its first convolution."""
    return 23_508_032 + (channels - 3) * 64 * 7**2


def vit_small(channels: int, patches: int) -> int:
    """Parameters of a ViT-S/16 with two classes: one learnt position for each patch and the class token."""
    width, hidden, depth = 384, 4 * 384, 12
    embedding = channels * 16**2 * width + width
    positions = (patches + 1) * width + width  # and the class token itself
    attention = 2 * width + width * 3 * width + 3 * width + width * width + width
    perceptron = 2 * width + width * hidden + hidden + hidden * width + width
    return embedding + positions + depth * (attention + perceptron) + 2 * width + 2 * width + 2


def deeplabv3(channels: int) -> int:
    """Parameters of a DeepLabV3 with two classes on a ResNet-50; batch norms instead of biases."""
    deep, wide = 2048, 256

    def convolution(inside: int, size: int) -> int:
        return inside * wide * size**2 + 2 * wide

    pyramid = 2 * convolution(deep, 1) + 3 * convolution(deep, 3) + convolution(5 * wide, 1)
    return resnet_50(channels) + pyramid + convolution(wide, 3) + 2 * wide + 2


#: What the layers of a model add up to, for its number of channels.
EXPECTED: dict[str, Callable[[int], int]] = {
    "resnet-50": lambda channels: resnet_50(channels) + 2 * 2048 + 2,
    "convnext-small": {9: 49_465_442, 27: 49_493_090}.__getitem__,  # counted once
    "vit-small": lambda channels: vit_small(channels, patches=32 * 32),
    "deeplabv3": deeplabv3,
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_have_the_shape_of_the_task(name: str) -> None:
    task = MODELS[name].task
    model = build_model(name, task, 9, size=64).eval()
    with torch.inference_mode():
        logits = model(torch.zeros(2, 9, 64, 64))
    assert logits.shape == ((2, 2) if task == "classification" else (2, 2, 64, 64))


@pytest.mark.parametrize("name", SMALL)
def test_looks_are_averaged_before_the_network_and_undone_after_it(name: str) -> None:
    task = MODELS[name].task
    torch.manual_seed(0)
    plain = build_model(name, task, 3, size=64).eval()
    torch.manual_seed(0)
    looked = build_model(name, task, 3, size=128, looks=2).eval()
    assert count_trainable_parameters(looked) == count_trainable_parameters(plain)
    coarse = torch.rand(2, 3, 64, 64)
    noise = torch.rand(2, 3, 64, 64)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    fine[..., ::2, ::2] += noise  # of no mean
    fine[..., 1::2, 1::2] -= noise
    with torch.inference_mode():
        expected, result = plain(coarse), looked(fine)
    if task == "segmentation":
        expected = torch.nn.functional.interpolate(expected, (128, 128), mode="bilinear")
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_parameters_are_the_papers_where_nothing_is_said_against_it(name: str) -> None:
    model = MODELS[name]
    assert model.published_parameters is not None
    for channels, millions in zip((9, 27), model.published_parameters, strict=True):
        built = build_model(name, model.task, channels)
        count = count_trainable_parameters(built)
        agrees = round(count / 1e6, 1) == millions
        assert agrees == (not model.note), f"{name}: {count / 1e6:.2f} beside the paper's {millions}"
        if name in EXPECTED:
            assert count == EXPECTED[name](channels)
        if name == "vit-small":  # the positions of its note are all that differs
            assert round(vit_small(channels, patches=14 * 14) / 1e6, 1) == millions
    with torch.inference_mode():
        size = 512 if name.startswith("vit") else 64
        logits = built.eval()(torch.zeros(1, 27, size, size))
    assert logits.shape[:2] == (1, 2)


def test_only_what_is_trained_counts() -> None:
    model = build_model("resnet-tiny", "classification", 3)
    count = count_trainable_parameters(model)
    first = next(model.parameters())
    first.requires_grad_(False)
    assert count_trainable_parameters(model) == count - first.numel()


def test_unknown_models_and_wrong_tasks_are_said() -> None:
    with pytest.raises(UsageError, match="known are resnet-50"):
        build_model("resnet-51", "classification", 3)
    with pytest.raises(UsageError, match=r"resnet-18 is for classification, not segmentation; .*unet"):
        build_model("resnet-18", "segmentation", 3)


def folder_of(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """Write weights of three channels as the hub has them; return them."""
    model = MODELS[name]
    if model.owner == "timm":
        import timm  # here: every process imports this file to know its tests

        source: Any = timm.create_model(model.tag.partition(".")[0], num_classes=1000)
    else:
        from segmentation_models_pytorch.encoders import get_encoder

        source = get_encoder(model.tag.partition(".")[0], weights=None)
    values = {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in source.state_dict().items()
    }
    save_file(values, folder / f"{model.tag}.safetensors")
    return values


@pytest.mark.parametrize(
    "name", ["resnet-tiny", "unet-tiny", "unet-small", pytest.param("vit-small", marks=pytest.mark.slow)]
)
def test_weights_of_a_folder_are_taken_and_spread_over_more_channels(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    values = folder_of(name, tmp_path)
    built = build_model(name, model.task, 9, str(tmp_path), size=64)
    state = {
        key.removeprefix("encoder.").removeprefix("model."): value
        for key, value in built.state_dict().items()
    }
    # deep inside they are what the folder held
    inner = next(
        key
        for key, value in reversed(values.items())
        if value.ndim > 1 and value.shape == getattr(state.get(key), "shape", None) and "head" not in key
    )
    assert torch.equal(state[inner], values[inner])
    # the first layer sees three channels three times, at a third of the strength
    first = next(key for key, value in values.items() if value.ndim == 4 and value.shape[1] == 3)
    torch.testing.assert_close(state[first], values[first].repeat(1, 3, 1, 1) / 3)


@pytest.mark.parametrize("name", ["resnet-tiny", "unet-small"])
@pytest.mark.parametrize("form", ["file", "as the hub's command writes it"])
def test_weights_of_a_file_are_taken_as_those_of_a_folder(name: str, form: str, tmp_path: Path) -> None:
    model = MODELS[name]
    folder_of(name, tmp_path)
    whole = build_model(name, model.task, 9, str(tmp_path), size=64).state_dict()
    kept = tmp_path / f"{model.tag}.safetensors"
    if form == "file":
        weights = str(kept.rename(tmp_path / "own.safetensors"))
    else:
        (tmp_path / model.tag).mkdir()
        kept.rename(tmp_path / model.tag / "model.safetensors")
        weights = str(tmp_path)
    found = build_model(name, model.task, 9, weights, size=64).state_dict()
    # the last layers are not in the file
    same = [key for key, values in found.items() if torch.equal(values, whole[key])]
    assert len(same) > 0.75 * len(found)
    first = next(key for key, values in found.items() if values.ndim == 4)
    assert first in same


def test_weights_that_do_not_fit_are_said_in_one_line(tmp_path: Path) -> None:
    for name in ("resnet-tiny", "unet-small"):
        save_file({"conv1.weight": torch.zeros(3)}, tmp_path / f"{MODELS[name].tag}.safetensors")
        with pytest.raises(HephaestusError, match=r"do not fit .*--weights none") as caught:
            build_model(name, MODELS[name].task, 9, str(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        HephaestusError, match=r"no .*resnet50.a1_in1k.safetensors .*--weights none"
    ) as caught:
        build_model("resnet-50", "classification", 9, str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet-50", "unet"])
@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_missing_weights_are_said_at_once(
    name: str, offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:  # no server at this address
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(
            HephaestusError, match=r"cannot be fetched .*--weights FOLDER.*--weights none"
        ) as caught:
            build_model(name, MODELS[name].task, 9, "imagenet")
    assert "\n" not in str(caught.value)
    assert MODELS[name].tag in str(caught.value)


@pytest.mark.parametrize("name", ["resnet-tiny", "unet-tiny"])
def test_weights_in_the_hubs_cache_need_no_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = folder_of(name, tmp_path)
    kept = tmp_path / f"{MODELS[name].tag}.safetensors"
    monkeypatch.setattr(
        "hephaestus_baselines.models.architectures.try_to_load_from_cache", lambda *args, **options: str(kept)
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    state = build_model(name, MODELS[name].task, 3, "imagenet").state_dict()
    assert any(torch.equal(value, values["conv1.0.weight"]) for value in state.values() if value.ndim == 4)


def test_the_seed_decides_on_the_first_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_model("resnet-tiny", "classification", 3).state_dict())
    first, again, other = (
        torch.cat([value.flatten().float() for value in state.values()]) for state in states
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_preset_names_models_that_there_are() -> None:
    for name in preset_names():
        for run in read_preset(name).make_recipes():
            if run.method != "trained":
                assert run.model in timm.list_models(pretrained=True)
                continue
            assert MODELS[run.model].task == run.spec.network
