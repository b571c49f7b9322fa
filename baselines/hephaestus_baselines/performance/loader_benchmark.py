"""Benchmark of the data loader: ``python -m hephaestus_baselines.performance.loader_benchmark``.

It is compared with the published reading pattern and with a WebDataset of exported tensors.

All rows read random series of 3 interferograms, with 9 channels in windows of 512 pixels, from a simulated
cube of real size in the page cache. Every round measures every row, so ratios compare the same machine
and time.
"""

from __future__ import annotations

import io
import resource
import shutil
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numcodecs
import numpy as np
import torch
import typer
import xarray as xr
import zarr
from torch.utils.data import DataLoader, Dataset, Subset

from hephaestus_baselines.config.channels import ATMOSPHERE_CHANNELS, InputChannels
from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.performance.loader_report import (
    BARE_PUBLISHED_READER,
    COMPACT_READER,
    EXPANDED_READER,
    ONE_PROCESS,
    PUBLISHED_READER,
    TWO_WORKERS,
    WEBDATASET_READER,
    render_loader_report,
    summarize_loader_runs,
)
from hephaestus_build.cli.console import err, print_notice
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.samples import Sample, make_series
from hephaestus_build.performance.cached_archive import BENCHMARK_FRAME, CachedArchive
from hephaestus_build.performance.process_timer import measure_task
from hephaestus_build.performance.result_files import result_header, write_results

WINDOW_SIZE, STEPS_PER_SERIES = 512, 3
LOADER_CHANNELS = ("insar_difference", "insar_coherence", "dem", *ATMOSPHERE_CHANNELS)
MASK_VARIABLE = "deformation_mask"
#: Settings of rows that use a DataLoader with workers.
LOADER_BATCH_SIZE, LOADER_WORKERS = 4, 2


class PublishedDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The published reading pattern on the published layout: Zarr format 2 with one chunk per image.

    Each sample opens the cube, selects a series, loads whole frames of all channels, stacks and crops them.
    As published, the whole mask is also binarized, scanned twice for invalid values and searched for
    deformation before the crop; with `bare`, these steps are skipped.
    """

    def __init__(
        self,
        store: Path,
        items: Sequence[DatasetItem],
        shape: tuple[int, int],
        *,
        bare: bool,
        size: int = WINDOW_SIZE,
    ) -> None:
        self.store, self.items, self.shape, self.skip_mask_checks = store, items, shape, bare
        self.size = size

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(index)
        item = self.items[index % len(self.items)]
        pairs = [sample.pair for sample in item.members]
        cube = xr.open_zarr(self.store)
        chosen = cube.sel(
            primary_date=np.datetime64(pairs[0].primary),
            secondary_date=[np.datetime64(pair.secondary) for pair in pairs],
        )
        frames = []
        for name in (*LOADER_CHANNELS, MASK_VARIABLE):
            values = chosen[name].to_numpy()
            if name == MASK_VARIABLE and not self.skip_mask_checks:
                values = _binarize_mask(values)
            image = torch.from_numpy(values).float()
            frames.append(image.expand(len(pairs), *image.shape) if image.ndim == 2 else image)
        stacked = torch.stack(frames, 1)
        if not self.skip_mask_checks:
            union = (stacked[:, -1] > 0).any(0)
            if union.any():
                torch.nonzero(union).aminmax(dim=0)
        size = self.size
        row, column = (int(rng.integers(extent - size + 1)) for extent in self.shape)
        crop = stacked[..., row : row + size, column : column + size]
        return crop[:, :-1].reshape(-1, size, size).clone(), crop[:, -1].long()


def _binarize_mask(mask: np.ndarray) -> np.ndarray:
    """Return the mask with a single class of deformation; scan its values twice, as published."""
    binary = np.where(mask == 2, 1, mask)
    known = torch.isin(torch.unique(torch.from_numpy(binary)), torch.tensor([0, 1]))
    if np.unique(binary).max(initial=0) > 1 or not known.all():
        raise ValueError("the mask has values other than 0 and 1")
    return binary


class NumberedWindows(Dataset[dict[str, torch.Tensor]]):
    """Randomly drawn windows; the index is the seed of the draw."""

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.windows[SampleDraw(index % len(self.windows), index)]


@dataclass(frozen=True)
class LoaderBenchmark:
    """Settings of a loader benchmark.

    Attributes
    ----------
    folder : pathlib.Path
        Working folder. The simulated archive in it is kept, all other files are removed.
    epochs : int
        Number of acquisitions in the simulated archive.
    rounds : int
        Number of times that each row is measured.
    samples : int
        Number of samples that a fast row reads in each round; slow rows read fewer.
    size : str or tuple of int
        Size of the simulated frame.
    on_progress : callable
        Called with a description of each step.
    """

    folder: Path
    epochs: int = 10
    rounds: int = 3
    samples: int = 120
    size: str | tuple[int, int] = "real"
    on_progress: Callable[[str], None] = lambda _: None

    def run(self) -> dict[str, Any]:
        """Prepare the input data, measure all rows, and return the result as JSON values."""
        scratch = self.folder / "loader"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self.on_progress("building the cube")
            store = build_benchmark_cube(self.folder, scratch, self.size, self.epochs)
            with open_pinned_cube(store, chunks=None) as cube:
                items, shape = make_series_items(cube), (cube.sizes["latitude"], cube.sizes["longitude"])
                self.on_progress("writing it in the published layout")
                layout = write_published_layout(cube, items, scratch / "v2.zarr")
            published, bare = (PublishedDataset(layout, items, shape, bare=flag) for flag in (False, True))
            windows = WindowDataset(items, {BENCHMARK_FRAME: store}, size=WINDOW_SIZE)
            self.on_progress("exporting tensors")
            shards = _export_shards(windows, max(8, self.samples // 5), scratch)
            runs = [
                run
                for turn in range(self.rounds)
                for run in self._measure_round(turn, published, bare, windows, shards)
            ]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        pairs = {sample.pair for item in items for sample in item.members}
        return {
            **result_header("loader", torch=torch.__version__),
            "world": {"rows": shape[0], "columns": shape[1], "pairs": len(pairs), "series": len(items)},
            "sample": {"steps": STEPS_PER_SERIES, "channels": len(LOADER_CHANNELS), "size": WINDOW_SIZE},
            **summarize_loader_runs(runs),
            "runs": runs,
        }

    def _measure_round(
        self,
        turn: int,
        published: PublishedDataset,
        bare: PublishedDataset,
        windows: WindowDataset,
        shards: Sequence[Path],
    ) -> Iterator[dict[str, Any]]:
        first, few = turn << 16, max(4, self.samples // 15)
        numbers = range(first, first + self.samples)
        stack = ChannelStack(
            InputChannels("both"), STEPS_PER_SERIES, dict.fromkeys(LOADER_CHANNELS, (0.5, 2.0))
        )
        tensors = _open_webdataset(shards)

        def expanded() -> Iterator[torch.Tensor]:
            for sample in map(NumberedWindows(windows).__getitem__, numbers):
                yield stack(expand_batch({name: value.unsqueeze(0) for name, value in sample.items()}))

        def row(name: str, readers: str, count: int, samples: Iterable[Any], skip: int = 0) -> dict[str, Any]:
            self.on_progress(f"round {turn + 1} of {self.rounds}: {name}, {readers}")
            return {"round": turn, "row": name, "readers": readers, **_measure_rate(samples, count, skip)}

        single = WindowDataset(windows.items, windows.stores, size=WINDOW_SIZE, threads=1)
        yield row(PUBLISHED_READER, ONE_PROCESS, few, (published[first + index] for index in range(few)))
        yield row(BARE_PUBLISHED_READER, ONE_PROCESS, few, (bare[first + index] for index in range(few)))
        yield row(
            WEBDATASET_READER, ONE_PROCESS, self.samples, islice(_repeat_forever(tensors), self.samples)
        )
        memory = _resident_memory()
        yield row(
            COMPACT_READER, ONE_PROCESS, self.samples, map(NumberedWindows(windows).__getitem__, numbers)
        )
        yield {"round": turn, "row": "growth of memory", "bytes": _resident_memory() - memory}
        yield row(
            f"{COMPACT_READER}, one thread",
            ONE_PROCESS,
            self.samples,
            map(NumberedWindows(single).__getitem__, numbers),
        )
        yield row(EXPANDED_READER, ONE_PROCESS, self.samples, expanded())

        def make_loader(data: Any, size: int, context: str = "fork", **options: Any) -> DataLoader[Any]:
            return DataLoader(
                data, batch_size=size, num_workers=LOADER_WORKERS, multiprocessing_context=context, **options
            )

        # workers of the published pattern have to be spawned: dask's threads do not survive a fork
        numbers = range(first, first + few + LOADER_WORKERS)
        yield row(
            PUBLISHED_READER,
            TWO_WORKERS,
            few,
            make_loader(Subset(published, numbers), 1, "spawn"),
            LOADER_WORKERS,
        )
        yield row(
            BARE_PUBLISHED_READER,
            TWO_WORKERS,
            few,
            make_loader(Subset(bare, numbers), 1, "spawn"),
            LOADER_WORKERS,
        )
        # the first batch of each worker is not measured: it includes the start of the workers
        numbers = range(first, first + 2 * self.samples + LOADER_WORKERS * LOADER_BATCH_SIZE)
        batches = islice(
            make_loader(_RepeatingDataset(tensors), LOADER_BATCH_SIZE), len(numbers) // LOADER_BATCH_SIZE
        )
        yield row(WEBDATASET_READER, TWO_WORKERS, 2 * self.samples, batches, LOADER_WORKERS)
        yield row(
            COMPACT_READER,
            TWO_WORKERS,
            2 * self.samples,
            make_loader(Subset(NumberedWindows(windows), numbers), LOADER_BATCH_SIZE),
            LOADER_WORKERS,
        )
        for context in ("spawn", "fork") if turn == 0 else ("fork",):
            start = time.perf_counter()
            data = WindowDataset(windows.items, windows.stores, size=WINDOW_SIZE)
            starting = iter(make_loader(Subset(NumberedWindows(data), numbers), LOADER_BATCH_SIZE, context))
            next(starting)
            yield {"round": turn, "row": f"first batch, {context}", "seconds": time.perf_counter() - start}
            del starting  # stops its workers


class _RepeatingDataset(torch.utils.data.IterableDataset[Any]):
    """The exported tensors, repeated forever."""

    def __init__(self, tensors: Iterable[Any]) -> None:
        self.tensors = tensors

    def __iter__(self) -> Iterator[Any]:
        return _repeat_forever(self.tensors)


def _repeat_forever(tensors: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from tensors


def _measure_rate(samples: Iterable[Any], count: int, skip: int = 0) -> dict[str, Any]:
    """Measure how fast `samples` are read: skip `skip` warm-up batches, time the other `count` samples."""
    reading = iter(samples)
    for _ in islice(reading, skip):
        pass
    start = time.perf_counter()
    for _ in reading:
        pass
    seconds = time.perf_counter() - start
    return {"samples": count, "seconds": seconds, "samples_per_second": count / seconds}


def _resident_memory() -> int:
    """Return the resident memory of this process, in bytes; its peak where there is no ``/proc``."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def build_benchmark_cube(folder: Path, scratch: Path, size: str | tuple[int, int], epochs: int) -> Path:
    """Build the cube of a simulated archive, which is kept in `folder`, in `scratch`; return its path."""
    world = CachedArchive.in_cache(folder / "worlds", size, epochs)
    content = world.ensure_files()
    with world.serve() as environment:
        built = measure_task(
            "hephaestus_build.performance.build_tasks:run_build",
            environment,
            frame=BENCHMARK_FRAME,
            data=str(scratch / "data"),
            cached=False,
            limit=len(content.pairs),
        )
    return Path(built.facts["path"])


def make_series_items(cube: xr.Dataset) -> tuple[DatasetItem, ...]:
    """Return the series of all stored pairs by the paper's rule; windows may lie anywhere in the frame."""
    flags = cube["valid_date_pair"].transpose("primary_date", "secondary_date").to_numpy()
    days = [cube[name].to_numpy().astype("datetime64[D]") for name in ("primary_date", "secondary_date")]
    pairs = [
        Pair(*(axis[place].astype(date) for axis, place in zip(days, places, strict=True)))
        for places in np.argwhere(flags)
    ]
    samples = [Sample(Frame(BENCHMARK_FRAME), pair, False) for pair in pairs]
    return tuple(
        DatasetItem(series.members, False) for series in make_series(samples, length=STEPS_PER_SERIES)
    )


def write_published_layout(cube: xr.Dataset, items: Sequence[DatasetItem], path: Path) -> Path:
    """Write the benchmarked part of `cube` in the published layout: Zarr format 2, one chunk per image."""
    group = zarr.create_group(path, zarr_format=2)
    image = cube["dem"].shape
    for name in ("primary_date", "secondary_date", "latitude", "longitude"):
        values = cube[name].to_numpy()
        stamps = values.dtype.kind == "M"
        plain = values.astype("datetime64[D]").astype("int64") if stamps else values
        array = group.create_array(name, shape=plain.shape, dtype=plain.dtype, chunks=plain.shape)
        array[...] = plain
        array.attrs["_ARRAY_DIMENSIONS"] = [name]
        if stamps:
            array.attrs["units"] = "days since 1970-01-01"
    wanted = {sample.pair for item in items for sample in item.members}
    for name in (*LOADER_CHANNELS, MASK_VARIABLE):
        source = cube[name]
        dtype = "uint8" if name in ("insar_coherence", MASK_VARIABLE) else "float32"
        leading = len(source.shape) - 2
        array = group.create_array(
            name,
            shape=source.shape,
            dtype=dtype,
            chunks=(1,) * leading + image,
            compressors=numcodecs.Blosc(),  # default of Zarr format 2: lz4, level 5, shuffle
            fill_value=None if dtype == "uint8" else np.nan,
        )
        array.attrs["_ARRAY_DIMENSIONS"] = [str(dim) for dim in source.dims]
        if leading == 2:
            for pair in wanted:
                place = tuple(
                    int(np.flatnonzero(cube[axis].to_numpy() == np.datetime64(day))[0])
                    for axis, day in zip(source.dims[:2], pair.dates, strict=True)
                )
                array[place] = source[place].to_numpy()
        elif leading:
            for index in range(source.shape[0]):
                array[index] = source[index].to_numpy()
        else:
            array[...] = source.to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)
    return path


def _export_shards(windows: WindowDataset, count: int, folder: Path) -> list[Path]:
    """Write shards of full float32 tensors (image, mask and label), as the published code does."""
    shards = [folder / f"shard-{number}.tar" for number in range(LOADER_WORKERS)]
    inputs = InputChannels("both")
    stack = ChannelStack(inputs, STEPS_PER_SERIES, dict.fromkeys(inputs.channels, (0.0, 1.0)))
    for number, shard in enumerate(shards):
        with tarfile.open(shard, "w") as tar:
            for index in range(number, count, LOADER_WORKERS):
                sample = windows[SampleDraw(index % len(windows), index)]
                image = stack(expand_batch({name: value.unsqueeze(0) for name, value in sample.items()}))[0]
                parts = {"image": image, "mask": sample["mask"].long(), "label": sample["label"]}
                for name, value in parts.items():
                    buffer = io.BytesIO()
                    torch.save(value, buffer)
                    entry = tarfile.TarInfo(f"{index:06d}.{name}.pth")
                    entry.size = buffer.tell()
                    buffer.seek(0)
                    tar.addfile(entry, buffer)
    return shards


def _open_webdataset(shards: Sequence[Path]) -> Iterable[Any]:
    try:
        import webdataset
    except ImportError as error:
        raise HephaestusError(
            "the loader benchmark needs the package webdataset, which is not installed: "
            "`python -m pip install webdataset`"
        ) from error
    urls = [str(shard) for shard in shards]
    tensors = webdataset.WebDataset(urls, shardshuffle=False).decode()
    return tensors.to_tuple("image.pth", "mask.pth", "label.pth")


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def measure_loader(
    rounds: Annotated[int, typer.Option(min=1, help="Number of times that each row is measured.")] = 3,
    samples: Annotated[int, typer.Option(min=40, help="Samples that a fast row reads in each round.")] = 120,
    epochs: Annotated[int, typer.Option(min=4, help="Acquisitions of the simulated archive.")] = 10,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the simulated archive. Default: <data_dir>/bench.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of loader.json and loader.md.")] = Path("results"),
    as_json: bool = JSON_OPTION,
) -> None:
    """Benchmark the data loader against the published reading pattern and a WebDataset of tensors."""
    home = folder if folder is not None else load_settings().data_dir / "bench"
    bench = LoaderBenchmark(home, epochs, rounds, samples, on_progress=lambda text: err.print(text))
    result = bench.run()
    write_results(result, render_loader_report(result), results, as_json=as_json)


if __name__ == "__main__":
    try:
        app()
    except HephaestusError as error:
        print_notice(str(error))
        sys.exit(error.exit_code)
