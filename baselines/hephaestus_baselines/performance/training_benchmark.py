"""Benchmark of training: ``python -m hephaestus_baselines.performance.training_benchmark``.

Every row measures one model: alone on a batch that is on the device, its loader alone, the preparation of
batches alone, and the whole training loop, beside mere decoding of the same windows and a loop over the
published reading pattern. All data are simulated.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hephaestus_baselines.config.architecture_catalog import MODELS
from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Precision, Recipe, read_preset
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.packed_batches import PackedWindows, WindowsOfPart, return_batch
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.terrain import FrameTerrain
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.models.losses import focal_loss
from hephaestus_baselines.performance.loader_benchmark import (
    PublishedDataset,
    build_benchmark_cube,
    make_series_items,
    write_published_layout,
)
from hephaestus_baselines.performance.training_report import (
    find_largest_batch,
    render_training_report,
    summarize_row,
)
from hephaestus_baselines.training.batch_preparation import BatchPreparation
from hephaestus_baselines.training.inference import describe_device, make_data_loader, resolve_device
from hephaestus_baselines.training.reader_count import count_readers
from hephaestus_baselines.training.trainer import train_model
from hephaestus_build.cli.console import err, print_notice
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.channel_statistics import ChannelStatistics
from hephaestus_build.dataset.splits import Split
from hephaestus_build.dataset.tiling import Tile
from hephaestus_build.performance.cached_archive import BENCHMARK_FRAME
from hephaestus_build.performance.result_files import result_header, write_results

#: Batches of each reader that are not measured: the first ones include the start of the process.
_WARM_BATCHES = 2
#: Share of a card's memory that a batch may take; the rest is for batches prepared ahead.
_FILLED_SHARE = 0.8
_LARGEST_BATCH = 256
#: Fewest steps of an epoch of the whole loop, and of a measurement of the model.
_FEWEST_STEPS = 8


@dataclass(frozen=True)
class BenchmarkCase:
    """One row: a model, single or series, and how it is trained.

    Attributes
    ----------
    recipe : Recipe
    title : str
    fills_card : bool
        Whether the batch is the largest that fits a GPU; otherwise it is the recipe's.
    """

    recipe: Recipe
    title: str
    fills_card: bool = True


@dataclass(frozen=True)
class BenchmarkWindows:
    """The data of the benchmark.

    Attributes
    ----------
    store, layout : pathlib.Path
        The cube, and the same images in the published layout.
    shape : tuple of int
        Rows and columns of the frame.
    items : mapping of bool to tuple of DatasetItem
        Items of series (True) and of single interferograms.
    """

    store: Path
    layout: Path
    shape: tuple[int, int]
    items: dict[bool, tuple[DatasetItem, ...]]

    def repeat_items(self, recipe: Recipe, count: int) -> PreparedData:
        """Return data of a run whose epochs have `count` training windows."""
        known = self.items[recipe.series]
        training = tuple(known[number % len(known)] for number in range(count))
        tile = Tile(0, 0, recipe.size, (0, recipe.size, 0, recipe.size))
        held = tuple(DatasetItem(item.members, item.positive, tile) for item in known[:2])
        empty: dict[Any, Any] = {"train": (), "validation": (), "test": ()}
        split = Split(recipe.split, 1, "benchmark of training", (), empty)
        return PreparedData(
            split,
            {BENCHMARK_FRAME: self.store},
            {},
            ChannelStatistics(split.name, split.sha256, True),
            {"train": training, "validation": held, "test": held},
            is_simulated=True,
            shapes={BENCHMARK_FRAME: self.shape},
        )


class DecodedWindows(torch.utils.data.Dataset[int]):
    """The windows of a data set, decoded into the same memory again and handed to nobody."""

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows

    def __getitems__(self, order: WindowsOfPart) -> int:
        import numpy as np

        out = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.windows.layout().items()}
        for draw in order.draws:
            self.windows.read_into(draw, {name: array for name, array in out.items() if name != "dem"})
        return len(order.draws)


def count_decoded(decoded: int) -> int:
    """Return a number as it is: the ``collate_fn`` of :class:`DecodedWindows`."""
    return decoded


@dataclass(frozen=True)
class TrainingBenchmark:
    """Settings of a training benchmark.

    Attributes
    ----------
    folder : pathlib.Path
        Working folder. The simulated archive in it is kept, all other files are removed.
    device : torch.device
    cases : tuple of BenchmarkCase
    frame : tuple of int
        Rows and columns of the simulated frame.
    epochs : int
        Acquisitions of the simulated archive.
    seconds : float
        How long each measurement takes, about.
    readers : int or None
        Reader processes; None for as many as a run would choose.
    on_progress : callable
        Called with a description of each step.
    """

    folder: Path
    device: torch.device
    cases: tuple[BenchmarkCase, ...]
    frame: tuple[int, int] = (1100, 1300)
    epochs: int = 8
    seconds: float = 4.0
    readers: int | None = None
    on_progress: Callable[[str], None] = lambda _: None

    def run(self) -> dict[str, Any]:
        """Build the cube, measure all rows, and return the result as JSON values."""
        scratch = self.folder / "training"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self.on_progress("building the cube")
            windows = self._build_windows(scratch)
            rows, left_out = [], []
            shared: dict[tuple[Any, ...], dict[str, float]] = {}
            for case in self.cases:
                form = "series" if case.recipe.series else "single"
                try:
                    row = self._measure(case, windows, shared, scratch)
                except (torch.OutOfMemoryError, HephaestusError) as error:
                    left_out.append(f"{case.title}, {form}: {str(error).splitlines()[0]}")
                    continue
                rows.append(summarize_row(row))
            compiled = self._compare_compiled(windows) if self.device.type == "cuda" else {}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        recipe = self.cases[0].recipe
        return {
            **result_header("training", torch=torch.__version__),
            "device": describe_device(self.device),
            "data": {
                "rows": windows.shape[0],
                "columns": windows.shape[1],
                "size": recipe.size,
                "readers": max((row["readers"] for row in rows), default=0),
            },
            "rows": rows,
            "compiled_preparation": compiled,
            "left_out": left_out,
        }

    def _build_windows(self, scratch: Path) -> BenchmarkWindows:
        store = build_benchmark_cube(self.folder, scratch, self.frame, self.epochs)
        reader = WindowReader(store)
        with open_pinned_cube(store, chunks=None) as cube:
            series = make_series_items(cube)
            layout = write_published_layout(cube, series, scratch / "v2.zarr")
        members = sorted({sample for item in series for sample in item.members})
        deforming = {
            sample for sample in members if reader.read_union("deformation_mask", [sample.pair]).any()
        }
        return BenchmarkWindows(
            store,
            layout,
            reader.shape,
            {
                True: series,
                False: tuple(DatasetItem((sample,), sample in deforming) for sample in members),
            },
        )

    def _measure(
        self,
        case: BenchmarkCase,
        windows: BenchmarkWindows,
        shared: dict[tuple[Any, ...], dict[str, float]],
        scratch: Path,
    ) -> dict[str, Any]:
        recipe, form = case.recipe, "series" if case.recipe.series else "single"
        self.on_progress(f"{case.title}, {form}: model alone")
        if case.fills_card and self.device.type == "cuda":
            largest = min(_LARGEST_BATCH, (1 << 27) // (recipe.size**2 * recipe.steps))
            batch = find_largest_batch(lambda count: self._fits_card(recipe, count), largest)
            if not batch:
                raise HephaestusError("no batch fits the memory of the device")
            recipe = recipe.model_copy(update={"batch_size": batch})
        model_rate = self._measure_model(recipe)
        readers = self.readers if self.readers is not None else count_readers(recipe, self.device)
        recipe = recipe.model_copy(update={"workers": readers})
        key = recipe.series, recipe.samples_per_step, recipe.size
        if key not in shared:
            self.on_progress(
                f"{form}, batches of {recipe.samples_per_step}: loader, decoding and preparation alone"
            )
            shared[key] = self._measure_data(recipe, windows, readers)
        self.on_progress(f"{case.title}, {form}: whole loop")
        expected = min(model_rate, shared[key]["loader"])
        steps = max(_FEWEST_STEPS, round(self.seconds * expected / recipe.samples_per_step))
        prepared = windows.repeat_items(recipe, steps * recipe.samples_per_step)
        with tempfile.TemporaryDirectory(dir=scratch) as run:
            train_model(recipe, prepared, Path(run), device=str(self.device))
            with (Path(run) / "metrics.csv").open() as lines:
                whole = float(list(csv.DictReader(lines))[-1]["samples_per_second"])
        self.on_progress(f"{case.title}, {form}: published pattern")
        return {
            "title": case.title,
            "model_name": recipe.model,
            "series": recipe.series,
            "batch": recipe.samples_per_step,
            "precision": recipe.precision,
            "readers": readers,
            "model": model_rate,
            **shared[key],
            "whole": whole,
            "published": self._measure_published(recipe, windows),
        }

    def _make_step(self, recipe: Recipe, precision: Precision) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function that does an optimiser step on inputs and labels, and returns the loss."""
        channels = len(recipe.inputs.stacked_channels(recipe.steps))
        model: nn.Module = build_model(
            recipe.model, recipe.task, channels, "none", size=recipe.size, looks=recipe.looks
        )
        model = model.to(self.device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        half = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)

        def step(inputs: Tensor, label: Tensor) -> Tensor:
            optimizer.zero_grad()
            with torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None):
                logits = model(inputs)
            loss = focal_loss(logits, label, 0).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    def _make_resident_batch(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        channels, size = len(recipe.inputs.stacked_channels(recipe.steps)), recipe.size
        inputs = torch.randn(recipe.samples_per_step, channels, size, size, device=self.device)
        shape = (size, size) if recipe.task == "segmentation" else ()
        label = torch.zeros(recipe.samples_per_step, *shape, dtype=torch.long, device=self.device)
        return inputs.contiguous(memory_format=torch.channels_last), label

    def _fits_card(self, recipe: Recipe, batch: int) -> bool:
        recipe = recipe.model_copy(update={"batch_size": batch})
        if batch == 1:  # batch normalisation of one value has no variance
            return True
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            step, data = self._make_step(recipe, recipe.precision), self._make_resident_batch(recipe)
            for _ in range(2):
                step(*data)
            self._synchronize()
        except torch.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        return torch.cuda.max_memory_reserved(self.device) <= _FILLED_SHARE * total

    def _measure_model(self, recipe: Recipe) -> float:
        step, data = self._make_step(recipe, recipe.precision), self._make_resident_batch(recipe)
        return recipe.samples_per_step / self._time_calls(lambda: step(*data))

    def _measure_data(self, recipe: Recipe, windows: BenchmarkWindows, readers: int) -> dict[str, float]:
        """Return the rates of the loader, of mere decoding and of the preparation."""
        items = windows.items[recipe.series]
        data = WindowDataset(
            items,
            {BENCHMARK_FRAME: windows.store},
            size=recipe.size,
            threads=torch.get_num_threads(),
        )
        packed = PackedWindows({"train": data}, leave_out=("dem",))
        loader = make_data_loader(
            packed, readers, batch_sampler=_endless(recipe, len(items)), collate_fn=return_batch
        )
        decoded = make_data_loader(
            DecodedWindows(data),
            readers,
            batch_sampler=_endless(recipe, len(items)),
            collate_fn=count_decoded,
        )
        rates = {
            name: self._time_reading(source, recipe.samples_per_step, readers)
            for name, source in {"loader": loader, "decoding": decoded}.items()
        }
        preparation, batch = self._make_preparation(recipe, windows, packed)
        seconds = self._time_calls(lambda: preparation.prepare_training(batch, 1))
        return {**rates, "preparation": recipe.samples_per_step / seconds}

    def _make_preparation(
        self, recipe: Recipe, windows: BenchmarkWindows, packed: PackedWindows
    ) -> tuple[BatchPreparation, Any]:
        order = next(_endless(recipe, len(windows.items[recipe.series])))
        batch = packed.__getitems__(order)
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        moments = channel_moments(windows.repeat_items(recipe, 2).statistics, recipe.inputs)
        terrain = FrameTerrain({BENCHMARK_FRAME: windows.store}, self.device)
        return BatchPreparation(recipe, moments, [], terrain=terrain, device=self.device), batch

    def _compare_compiled(self, windows: BenchmarkWindows) -> dict[str, dict[str, float]]:
        """Return how long preparing a batch takes, in milliseconds, eager and compiled."""
        return {
            "series" if series else "single": self._compare_compiled_form(windows, series=series)
            for series in (False, True)
        }

    def _compare_compiled_form(self, windows: BenchmarkWindows, *, series: bool) -> dict[str, float]:
        recipe = next(case.recipe for case in self.cases if case.recipe.series is series)
        recipe = recipe.model_copy(update={"batch_size": 32 if series else 64})
        data = WindowDataset(windows.items[series], {BENCHMARK_FRAME: windows.store}, size=recipe.size)
        packed = PackedWindows({"train": data}, ("dem",))
        preparation, batch = self._make_preparation(recipe, windows, packed)
        steps = iter(range(1 << 30))
        eager = self._time_calls(lambda: preparation.prepare_training(batch, next(steps)))
        preparation.compile_inputs()
        for step in range(8):  # several graphs: with and without transforms of either kind
            preparation.prepare_training(batch, step)
        compiled = self._time_calls(lambda: preparation.prepare_training(batch, next(steps)))
        return {"eager": 1e3 * eager, "compiled": 1e3 * compiled}

    def _measure_published(self, recipe: Recipe, windows: BenchmarkWindows) -> float:
        """Return the rate of a loop over the published reading pattern: read, stack, copy, step, wait."""
        items = windows.items[recipe.series]
        published = PublishedDataset(windows.layout, items, windows.shape, bare=False, size=recipe.size)
        # it hands over the wrapped phase itself
        step = self._make_step(recipe.model_copy(update={"phase": "angle", "looks": 1}), "32-true")
        reading = iter(DataLoader(published, batch_size=2))

        def run() -> None:
            images, masks = next(reading)
            truth = masks.any(1)
            label = (truth if recipe.task == "segmentation" else truth.flatten(1).any(1)).long()
            step(images.to(self.device), label.to(self.device)).item()

        return 2 / self._time_calls(run, fewest=2)

    def _time_calls(self, work: Callable[[], object], fewest: int = _FEWEST_STEPS // 2) -> float:
        """Return the seconds that a call takes on the device, after two calls that are not measured."""
        for _ in range(2):
            work()
        self._synchronize()
        start, count = time.perf_counter(), 0
        while count < fewest or time.perf_counter() - start < self.seconds / 2:
            work()
            count += 1
            if count % 4 == 0:  # the host must not be seconds ahead of the device
                self._synchronize()
        self._synchronize()
        return (time.perf_counter() - start) / count

    def _time_reading(self, loader: DataLoader[Any], batch: int, readers: int) -> float:
        reading = iter(loader)
        try:
            for _ in range(_WARM_BATCHES * max(1, readers)):
                next(reading)
            start, count = time.perf_counter(), 0
            while count < _FEWEST_STEPS or time.perf_counter() - start < self.seconds:
                next(reading)
                count += 1
            return count * batch / (time.perf_counter() - start)
        finally:
            if readers:
                reading._shutdown_workers()  # type: ignore[attr-defined]

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _endless(recipe: Recipe, items: int) -> Iterator[WindowsOfPart]:
    number = 0
    while True:
        draws = range(number, number + recipe.samples_per_step)
        yield WindowsOfPart("train", [SampleDraw(draw * 7 % items, draw) for draw in draws])
        number += recipe.samples_per_step


def make_cases(device: torch.device, *, quick: bool, batch: int | None = None) -> tuple[BenchmarkCase, ...]:
    """Return the rows: every model of the preset ``paper`` (``small`` if `quick`), single and series.

    On a GPU the batch fills the card, with bf16, and a last row has the preset's own batch and precision.
    """
    preset = read_preset("small" if quick else "paper")
    on_gpu = device.type == "cuda"
    fields: dict[str, Any] = {
        "weights": "none", "epochs": 2, "balance": False, "negatives": "random", "validation_windows": 2,
        "batch_size": batch or (8 if quick else 2), "precision": "bf16-mixed" if on_gpu else "32-true",
        "augment": True,
    }  # fmt: skip
    recipes = {
        (recipe.model, recipe.series): recipe
        for recipe in preset.make_recipes(**fields)
        if recipe.seed == 0 and recipe.atmosphere == "both"
    }
    cases = [
        BenchmarkCase(recipe, MODELS[recipe.model].title, fills_card=batch is None)
        for recipe in recipes.values()
    ]
    if on_gpu and not quick:
        first = cases[0].recipe.model_copy(update={"batch_size": 2, "precision": "32-true"})
        cases.append(BenchmarkCase(first, f"{cases[0].title}, as in `paper`", fills_card=False))
    return tuple(cases)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def measure_training(
    quick: Annotated[bool, typer.Option("--quick", help="Tiny models on small windows, for a CPU.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[
        int | None,
        typer.Option(min=2, max=256, help="Samples a step. Default: what fills a GPU, else 2."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of a measurement.")] = 4.0,
    readers: Annotated[
        int | None, typer.Option(min=0, max=128, help="Reader processes. Default: by the machine.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of the model on a CPU. Default: all cores.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the simulated archive. Default: <data_dir>/bench.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of training.json and training.md.")] = Path("results"),
    as_json: bool = JSON_OPTION,
) -> None:
    """Benchmark training: the whole loop beside its parts, for every model of the paper's grid."""
    if threads is not None:
        torch.set_num_threads(threads)
    target = resolve_device(device)
    bench = TrainingBenchmark(
        folder if folder is not None else load_settings().data_dir / "bench",
        target,
        make_cases(target, quick=quick, batch=batch),
        frame=(300, 360) if quick else (1100, 1300),
        seconds=seconds,
        readers=readers,
        on_progress=lambda text: err.print(text),
    )
    result = bench.run()
    write_results(result, render_training_report(result), results, as_json=as_json)


if __name__ == "__main__":
    try:
        app()
    except HephaestusError as error:
        print_notice(str(error))
        sys.exit(error.exit_code)
