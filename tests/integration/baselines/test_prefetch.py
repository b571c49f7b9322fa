"""Tests of batches that are read and prepared ahead: their order, and the values of before."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

import toy_cube
from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.augmentation import augment_batch
from hephaestus_baselines.data.batch_expansion import ChannelStack
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.packed_batches import PackedWindows, WindowsOfPart, pack_samples, return_batch
from hephaestus_baselines.data.samplers import EpochBatchSampler, RunSchedule, derive_seed
from hephaestus_baselines.data.terrain import FrameTerrain, fits_device
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.training.batch_preparation import BatchPreparation, compile_with_fallback
from hephaestus_baselines.training.inference import expand_on_device, to_channels_last
from hephaestus_baselines.training.prefetch import (
    BatchStream,
    CudaPreparationStream,
    PartOfStream,
    prepare_ahead,
)
from hephaestus_baselines.training.reader_count import choose_reader_count, count_readers
from hephaestus_baselines.training.trainer import train_model
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.progress import NullListener
from hephaestus_build.dataset.samples import Sample
from toy_training import ToyWindows, toy_items, toy_prepared, toy_recipe

CPU = torch.device("cpu")
SIZE = 64
FRAME, SMALL = Frame(toy_cube.FRAME), Frame("199A_00210_131313")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


class RecordingStream:
    """Stream that runs work when it is received, and records the order of what is asked of it."""

    def __init__(self, record: list[str]) -> None:
        self.record = record

    def begin(self, work: Callable[[], Any]) -> Any:
        value = work()
        self.record.append(f"begin {value}")
        return value

    def receive(self, started: Any) -> Any:
        self.record.append(f"receive {started}")
        return started


class ThreadStream:
    """Stream whose work runs in a thread, beside the steps, as on a second stream of a GPU."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)

    def begin(self, work: Callable[[], Any]) -> Future[Any]:
        return self.thread.submit(work)

    def receive(self, started: Future[Any]) -> Any:
        return started.result(timeout=60)


def test_each_batch_is_begun_before_the_step_of_the_one_before() -> None:
    record: list[str] = []
    for batch in prepare_ahead(range(3), lambda batch: batch, RecordingStream(record)):
        record.append(f"step {batch}")  # noqa: PERF401
    assert record == [
        "begin 0", "begin 1", "receive 0", "step 0", "begin 2", "receive 1", "step 1", "receive 2", "step 2",
    ]  # fmt: skip


def test_without_a_stream_each_batch_is_prepared_after_the_step_before() -> None:
    record: list[str] = []

    def prepare(batch: int) -> int:
        record.append(f"prepare {batch}")
        return batch

    for batch in prepare_ahead(range(2), prepare, None):
        record.append(f"step {batch}")  # noqa: PERF401
    assert record == ["prepare 0", "step 0", "prepare 1", "step 1"]


def test_preparation_runs_beside_the_step() -> None:
    """The step of a batch ends only once the next is prepared: serial work would never come to that."""
    prepared = [threading.Event() for _ in range(4)]

    def prepare(batch: int) -> int:
        prepared[batch].set()
        return batch

    for batch in prepare_ahead(range(4), prepare, ThreadStream()):
        assert batch == 3 or prepared[batch + 1].wait(10)


def test_the_first_batches_of_the_next_part_are_begun_before_the_last_step_of_one() -> None:
    record: list[str] = []
    opened: list[int] = []

    def batches() -> Iterator[str]:
        opened.append(1)
        yield from ("train 0", "train 1", "validation 0", "train 2", "train 3", "validation 1")

    class Loader:
        def __iter__(self) -> Iterator[str]:
            return batches()

    stream = BatchStream(Loader(), lambda batch: batch, lambda: RecordingStream(record))
    training, validation = PartOfStream(stream, 2), PartOfStream(stream, 1)
    for part in (training, validation, training, validation):
        assert len(list(iter(part))) == len(part)
        record.append("end")
    assert opened == [1]  # readers are started once
    ends = [place for place, what in enumerate(record) if what == "end"]
    assert record.index("begin validation 0") < record.index("receive train 1")
    assert record.index("begin train 2") < ends[1]
    stream.close()


def test_a_schedule_has_the_batches_of_each_epoch_in_turn() -> None:
    flags = [True, False] * 6

    def sampler(epoch: int = 0) -> EpochBatchSampler:
        return EpochBatchSampler(flags, 3, 4, epoch=lambda: epoch)

    for first in (0, 1, 2):
        made = list(RunSchedule(sampler(), 5, 2, lambda first=first: first, 3))  # type: ignore[misc]
        wanted = []
        for epoch in range(first, 3):
            wanted += [WindowsOfPart("train", draws) for draws in sampler(epoch)]
            wanted += [WindowsOfPart("validation", part) for part in ([0, 1], [2, 3], [4])]
        assert made == wanted


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two cubes, one of them smaller than a window."""
    folder = tmp_path_factory.mktemp("cubes")
    grids = {FRAME.id: toy_cube.grid(150, 160), SMALL.id: toy_cube.grid(50, 60)}
    return {frame: toy_cube.toy_cube(folder, grid, frame=frame).resolve() for frame, grid in grids.items()}


@pytest.fixture(scope="module")
def windows(stores: dict[str, Path]) -> WindowDataset:
    pairs = [Pair.parse(name) for name in toy_cube.PAIRS]
    items = [
        DatasetItem(tuple(Sample(frame, pairs[index], True) for index in (0, 0, 1)), True)
        for frame in (FRAME, SMALL)
    ]
    return WindowDataset(items, stores, size=SIZE)


DRAWS = [SampleDraw(index, seed) for seed in range(3) for index in (0, 1)]
RECIPE = Recipe(
    task="segmentation", model="unet-tiny", series=True, atmosphere="both", size=SIZE, weights="none", seed=5
)
MOMENTS = channel_moments(toy_prepared().statistics, RECIPE.inputs)


def prepare_as_before(samples: list[dict[str, Tensor]], step: int, recipe: Recipe) -> dict[str, Tensor]:
    """Prepare a batch as it was done before batches were packed: collate, expand, augment, stack."""
    batch = default_collate(samples)
    fields = expand_on_device(batch, CPU)
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, step, 0, 1))
    fields = augment_batch(fields, recipe.augmentations, generator, rotation=recipe.rotation)
    inputs = to_channels_last(ChannelStack(recipe.inputs, recipe.steps, MOMENTS)(fields))
    weight = torch.ones_like(batch["weight"])
    label = (fields["mask"] > 0).flatten(1).any(1).long()
    if recipe.task == "segmentation":
        label = (fields["mask"] > 0).any(1).long()
        weight = weight.view(-1, 1, 1) * fields["inside"][:, 0]
    return {"inputs": inputs, "label": label, "weight": weight}


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_prepared_batch_has_the_values_of_before(
    task: Any, windows: WindowDataset, stores: dict[str, Path]
) -> None:
    recipe = RECIPE.model_copy(update={"task": task})
    samples = [windows[draw] for draw in DRAWS]
    terrain = FrameTerrain(stores, CPU)
    light = PackedWindows({"train": windows}, leave_out=("dem",)).__getitems__(WindowsOfPart("train", DRAWS))
    whole = PackedWindows({"train": windows}).__getitems__(WindowsOfPart("train", DRAWS))
    plain = pack_samples("train", samples)
    preparation = BatchPreparation(recipe, MOMENTS, [], terrain=terrain, device=CPU)
    for step in (0, 9):
        wanted = prepare_as_before(samples, step, recipe)
        for batch in (light, whole, plain):
            made = preparation.prepare_training(batch, step)
            for name, values in wanted.items():
                assert made[name].dtype == values.dtype
                assert made[name].stride() == values.stride()
                torch.testing.assert_close(made[name], values, rtol=0, atol=0, msg=name)


def test_what_travels_is_compact(windows: WindowDataset) -> None:
    """Phase as stored, coherence in bytes, masks in bits, no DEM: under half of the collated tensors."""
    batch = PackedWindows({"train": windows}, ("dem",)).__getitems__(WindowsOfPart("train", DRAWS))
    collated = default_collate([windows[draw] for draw in DRAWS])
    pixels = len(DRAWS) * SIZE**2
    assert batch.slots["mask"].shape == (6, 3, SIZE, SIZE // 8)
    small = sum(values.nbytes for name, values in collated.items() if values[0].numel() < SIZE**2)
    assert batch.buffer.nbytes <= pixels * (3 * 4 + 3 + 3 / 8 + 1 / 8) + small + 64 * len(batch.slots)
    assert "dem" not in batch.slots
    assert len(batch) == len(DRAWS)
    for name, values in batch.unpack(CPU).items():
        expected = collated[name] if name != "mask" else collated[name] != 0
        torch.testing.assert_close(values, expected.to(values.dtype), rtol=0, atol=0, equal_nan=True)


def test_terrain_is_cut_as_it_is_read(windows: WindowDataset, stores: dict[str, Path]) -> None:
    places = [windows.read_into(draw, make_arrays(windows)) for draw in DRAWS]
    assert {place.frame for place in places} == {FRAME.id, SMALL.id}
    cut = FrameTerrain(stores, CPU).cut(places, SIZE)
    for heights, draw in zip(cut, DRAWS, strict=True):
        np.testing.assert_array_equal(heights, windows[draw]["dem"])
    assert cut.isnan().any()


def make_arrays(windows: WindowDataset) -> dict[str, np.ndarray]:
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in windows.layout().items()}


def test_terrain_stays_on_a_device_only_where_there_is_room() -> None:
    assert fits_device({"a": (2500, 3000)}, CPU)
    assert not fits_device({str(number): (2500, 3000) for number in range(60)}, CPU)
    assert fits_device({str(number): (2500, 3000) for number in range(60)}, torch.device("cuda"))
    assert not fits_device({}, CPU)


def test_batches_of_a_reader_process_lie_in_shared_memory_and_are_the_same(windows: WindowDataset) -> None:
    order = [WindowsOfPart("train", DRAWS[:2]), WindowsOfPart("train", DRAWS[2:4])]
    packed = PackedWindows({"train": windows})
    loader = DataLoader(
        packed, batch_sampler=order, num_workers=1, collate_fn=return_batch,
        multiprocessing_context="fork",
    )  # type: ignore[arg-type] # fmt: skip
    for batch, draws in zip(loader, order, strict=True):
        assert batch.buffer.is_shared()
        alone = packed.__getitems__(draws)
        for name, values in batch.unpack(CPU).items():
            torch.testing.assert_close(
                values, alone.unpack(CPU)[name], rtol=0, atol=0, equal_nan=True, msg=name
            )


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_run_has_the_same_numbers_with_batches_prepared_ahead(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)
    recipe = toy_recipe(task=task, epochs=2)
    train_model(recipe, toy_prepared(), tmp_path / "plain", device="cpu")
    monkeypatch.setattr(
        "hephaestus_baselines.training.trainer.make_preparation_stream", lambda _: ThreadStream()
    )
    train_model(recipe, toy_prepared(), tmp_path / "ahead", device="cpu")
    with pytest.raises(KeyboardInterrupt):  # while the next batches of the epoch are prepared
        train_model(recipe, toy_prepared(), tmp_path / "cut", device="cpu", listener=StopInSecondEpoch())
    train_model(recipe, toy_prepared(), tmp_path / "cut", device="cpu")
    one, *others = (
        torch.load(tmp_path / place / "last.ckpt", weights_only=True)["state_dict"]
        for place in ("plain", "ahead", "cut")
    )
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)
    columns = [
        [line.rsplit(",", 2)[0] for line in (tmp_path / place / "metrics.csv").read_text().splitlines()]
        for place in ("plain", "ahead", "cut")
    ]
    assert columns[0] == columns[1] == columns[2]


class StopInSecondEpoch(NullListener):
    """Listener that stops a run as Ctrl-C does, after the first step of its second epoch."""

    def advance(self, name: str, steps: int = 1) -> None:
        if "epoch 2/" in name:
            raise KeyboardInterrupt


class StoppingListener(NullListener):
    """Listener that stops a run as Ctrl-C does, in the middle of its first epoch."""

    def advance(self, name: str, amount: int = 1) -> None:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_readers_end_with_the_run_and_with_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)
    recipe = toy_recipe(epochs=2, workers=2)
    with pytest.raises(KeyboardInterrupt):
        train_model(recipe, toy_prepared(), tmp_path, device="cpu", listener=StoppingListener())
    assert multiprocessing.active_children() == []
    train_model(recipe, toy_prepared(), tmp_path, device="cpu")
    assert multiprocessing.active_children() == []
    alone = tmp_path / "alone"
    train_model(recipe.model_copy(update={"workers": 0}), toy_prepared(), alone, device="cpu")
    one, two = (
        torch.load(place / "last.ckpt", weights_only=True)["state_dict"] for place in (tmp_path, alone)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def toy_batch(recipe: Recipe, prepared: Any) -> Any:
    toy = ToyWindows(toy_items(8), {}, size=recipe.size, atmosphere=recipe.atmosphere != "none", threads=1)
    return pack_samples("train", [toy[SampleDraw(index, 1)] for index in range(8)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # of torch on Python 3.13.0
def test_the_preparation_is_one_graph_for_a_compiler(caplog: pytest.LogCaptureFixture) -> None:
    """No graph is broken by a value that is needed on the host, whatever is drawn; no code is generated."""
    recipe = toy_recipe(atmosphere="both")
    prepared = toy_prepared()
    moments = channel_moments(prepared.statistics, recipe.inputs)
    eager = BatchPreparation(recipe, moments, [], device=CPU)
    compiled = BatchPreparation(recipe, moments, [], device=CPU)
    compiled._make_inputs = compile_with_fallback(compiled._expand_and_stack, backend="eager", fullgraph=True)
    batch = toy_batch(recipe, prepared)
    for step in range(2):
        one, two = (preparation.prepare_training(batch, step) for preparation in (eager, compiled))
        for name, values in one.items():
            torch.testing.assert_close(two[name], values, rtol=1e-6, atol=1e-6, msg=name)
    assert "without compiling" not in caplog.text


def test_a_compiler_that_fails_is_said_in_one_line_and_nothing_else_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def backend(*_: Any) -> Any:
        raise RuntimeError("no compiler\nhere")

    called = compile_with_fallback(lambda values: values + 1, backend=backend)
    with caplog.at_level(logging.WARNING):
        assert [float(called(torch.tensor(1.0))) for _ in range(2)] == [2, 2]
    assert len(caplog.records) == 1
    assert "without compiling" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


@needs_gpu
def test_a_gpu_prepares_ahead_with_the_values_of_one_stream() -> None:
    device = torch.device("cuda")
    recipe = toy_recipe(atmosphere="both", batch_size=8)
    prepared = toy_prepared()
    moments = channel_moments(prepared.statistics, recipe.inputs)
    preparation = BatchPreparation(recipe, moments, [], device=device)
    batch = toy_batch(recipe, prepared).pin_memory()
    plain = [preparation.prepare_training(batch, step)["inputs"].clone() for step in range(8)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ahead = []
        stream = CudaPreparationStream(device)
        for made in prepare_ahead(range(8), lambda step: preparation.prepare_training(batch, step), stream):
            torch.ones(2048, 2048, device=device) @ torch.ones(2048, 2048, device=device)
            ahead.append(made["inputs"].clone())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(one, two) for one, two in zip(plain, ahead, strict=True))


def test_readers_are_chosen_by_the_machine_and_never_change_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(task="classification", model="resnet-50", size=512, batch_size=64)
    assert recipe.workers == "auto"
    assert recipe.key == recipe.model_copy(update={"workers": 3}).key
    assert count_readers(recipe.model_copy(update={"workers": 3}), CPU) == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr("hephaestus_baselines.training.reader_count._free_shared_memory", lambda: None)
    assert count_readers(recipe, torch.device("cuda")) == 14
    assert count_readers(recipe, CPU) == 4
    # what Docker gives a container by default has no room for batches in shared memory
    monkeypatch.setattr("hephaestus_baselines.training.reader_count._free_shared_memory", lambda: 64 << 20)
    assert count_readers(recipe, torch.device("cuda")) == 0
    assert count_readers(recipe.model_copy(update={"batch_size": 2}), torch.device("cuda")) == 1
    assert choose_reader_count(2, "cpu", None, 1) == 0


def test_readers_have_room_for_the_batches_that_travel(windows: WindowDataset) -> None:
    """The size that the number of readers is chosen by is that of a batch, or more."""
    batch = PackedWindows({"train": windows}).__getitems__(WindowsOfPart("train", DRAWS))
    assert batch.buffer.nbytes <= len(DRAWS) * SIZE**2 * (3 * 6 + 5)
