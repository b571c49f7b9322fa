"""Tests that the data loader returns the content of the cube, whichever reader is used."""

from __future__ import annotations

import itertools
import pickle
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import toy_cube
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.window_dataset import WindowDataset, draw_training_tile
from hephaestus_baselines.reporting.sample_plot import plot_sample
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.tiling import Tile, tile_whole_frame

SIZE = 96
FRAME = Frame(toy_cube.FRAME)
OTHER = Frame("199A_00210_131313")
SHAPE = (560, 620)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two cubes: one of four tiles, and one that is smaller than a window."""
    folder = tmp_path_factory.mktemp("cubes")
    return {
        FRAME.id: toy_cube.toy_cube(folder, toy_cube.grid(*SHAPE)).resolve(),
        OTHER.id: toy_cube.toy_cube(folder, toy_cube.grid(60, 70), frame=OTHER.id).resolve(),
    }


@pytest.fixture(scope="module")
def plain(stores: dict[str, Path]) -> dict[str, xr.Dataset]:
    return {frame: open_pinned_cube(store, chunks=None) for frame, store in stores.items()}


def sample(name: str, frame: Frame = FRAME) -> Sample:
    return Sample(frame, Pair.parse(name), name in toy_cube.MOVING)


def series(frame: Frame = FRAME, tile: Tile | None = None) -> DatasetItem:
    """Return a series of the first primary date, which has two interferograms; one of them is repeated."""
    members = tuple(sample(toy_cube.PAIRS[index], frame) for index in (0, 0, 1))
    return DatasetItem(members, True, tile)


def singles(frame: Frame = FRAME) -> list[DatasetItem]:
    return [DatasetItem((sample(name, frame),), name in toy_cube.MOVING) for name in toy_cube.PAIRS]


def of_pair(cube: xr.Dataset, variable: str, pair: Pair) -> np.ndarray:
    days = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
    return cube[variable].sel(days).to_numpy()


@pytest.mark.parametrize("frame", [FRAME, OTHER], ids=["large frame", "frame smaller than the window"])
def test_a_series_holds_what_xarray_reads(
    stores: dict[str, Path], plain: dict[str, xr.Dataset], frame: Frame
) -> None:
    shape = tuple(plain[frame.id].sizes[name] for name in ("latitude", "longitude"))
    cube = plain[frame.id]
    for tile in tile_whole_frame(shape, SIZE).tiles[::7]:  # type: ignore[arg-type]
        item = series(frame, tile)
        read = WindowDataset([item], stores, size=SIZE)[0]
        for step, member in enumerate(item.members):
            for name, variable in {
                "phase": "insar_difference", "coherence": "insar_coherence", "mask": "deformation_mask",
            }.items():  # fmt: skip
                image = of_pair(cube, variable, member.pair)
                np.testing.assert_array_equal(read[name][step].numpy(), tile.read(image))
                assert read[name].numpy().dtype == image.dtype
        np.testing.assert_array_equal(read["dem"].numpy(), tile.read(cube["dem"].to_numpy(), np.nan))
        assert read["label"] == int(read["mask"].any())
        rows, columns = np.nonzero(read["inside"].numpy())
        assert (rows.min() + tile.row, rows.max() + 1 + tile.row) == tile.core[:2]
        assert (columns.min() + tile.column, columns.max() + 1 + tile.column) == tile.core[2:]


def test_cores_of_a_whole_frame_count_each_pixel_once(stores: dict[str, Path]) -> None:
    tiles = tile_whole_frame(SHAPE, SIZE).tiles
    data = WindowDataset(
        [DatasetItem((sample(toy_cube.PAIRS[0]),), False, tile) for tile in tiles], stores, size=SIZE
    )
    assert sum(int(data[index]["inside"].sum()) for index in range(len(data))) == SHAPE[0] * SHAPE[1]


def test_a_draw_replays_and_another_seed_differs(stores: dict[str, Path]) -> None:
    data = WindowDataset([series()], stores, size=SIZE)
    one, again, other = data[SampleDraw(0, 3)], data[SampleDraw(0, 3)], data[SampleDraw(0, 4)]
    assert all(torch.equal(one[name].nan_to_num(), again[name].nan_to_num()) for name in one)
    assert not torch.equal(one["phase"], other["phase"])


def test_drawn_windows_of_positives_hold_deformation(stores: dict[str, Path]) -> None:
    data = WindowDataset(singles(), stores, size=32, atmosphere=False)
    for index, item in enumerate(data.items):
        for seed in range(8):
            assert bool(data[SampleDraw(index, seed)]["label"]) is item.positive


def test_confidence_is_the_mean_of_the_experts_and_one_where_nobody_looked(stores: dict[str, Path]) -> None:
    unseen = DatasetItem((sample(toy_cube.PAIRS[-1]),), False)
    data = WindowDataset([series(), unseen], stores, size=SIZE)
    assert data[0]["weight"] == pytest.approx(0.8)
    assert data[1]["weight"] == 1


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(1, 200), st.integers(0, 1000), st.data()
)
def test_a_drawn_window_lies_in_the_frame_and_holds_the_marked_pixel(
    shape: tuple[int, int], size: int, seed: int, data: st.DataObject
) -> None:
    marked = tuple(data.draw(st.integers(0, extent - 1)) for extent in shape)
    tile = draw_training_tile(shape, size, np.random.default_rng(seed), marked)  # type: ignore[arg-type]
    for start, pixel, extent in zip((tile.row, tile.column), marked, shape, strict=True):
        assert start <= pixel < start + size
        assert 0 <= start <= max(0, extent - size)


def digest(batches: DataLoader[dict[str, torch.Tensor]]) -> list[float]:
    return [
        float(batch[name].nan_to_num().double().sum())
        for batch in batches
        for name in ("phase", "coherence", "dem", "mask", "atmosphere", "rows", "columns", "index")
    ]


def alone_and_with_workers(stores: dict[str, Path], context: str) -> tuple[list[float], list[float]]:
    """Read with one process, then with two more, which must not wait for threads of the first."""
    data = WindowDataset([series(), series(OTHER)], stores, size=SIZE)
    draws = [SampleDraw(index, seed) for index, seed in itertools.product((0, 1), range(4))]
    options: dict[str, Any] = {"batch_size": 2, "sampler": draws}
    alone = digest(DataLoader(data, **options))
    return alone, digest(
        DataLoader(data, num_workers=2, multiprocessing_context=context, timeout=240, **options)
    )


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_what_one_process_reads(stores: dict[str, Path], context: str) -> None:
    # in a separate process: forking after Prefect has run is not safe
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        alone, together = fresh.submit(alone_and_with_workers, stores, context).result()
    assert together == alone


def test_a_pickled_data_set_reads_on_and_takes_no_decoded_pixels_along(stores: dict[str, Path]) -> None:
    data = WindowDataset([series()], stores, size=SIZE)
    before = len(pickle.dumps(data))
    _ = data[0]
    content = pickle.dumps(data)
    assert len(content) == before
    assert torch.equal(pickle.loads(content)[SampleDraw(0, 5)]["phase"], data[SampleDraw(0, 5)]["phase"])


def test_a_sample_is_drawn_step_by_step(stores: dict[str, Path]) -> None:
    data = WindowDataset([series(tile=tile_whole_frame(SHAPE, SIZE).tiles[0])], stores, size=SIZE)
    figure = plot_sample(data, 0)
    seen = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    assert all(f"{name}: phase" in seen for name in data.items[0].pairs)
    assert "water vapour change" in seen
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    phase = data[0]["phase"][0].numpy()
    np.testing.assert_array_equal(shown, np.where(phase == 0, np.nan, phase))
    assert len(figure.axes) == 3 * 5 + 1  # and the colour bar of the phase
    without = WindowDataset([series()], stores, size=SIZE, atmosphere=False)
    assert len(plot_sample(without, SampleDraw(0, 1)).axes) == 3 * 4 + 1


def test_memory_does_not_grow_over_an_epoch(stores: dict[str, Path]) -> None:
    data = WindowDataset([*singles(), *singles(OTHER)], stores, size=SIZE)
    for seed in range(8):
        for index in range(len(data)):
            data[SampleDraw(index, seed)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    for seed in range(8, 48):
        for index in range(len(data)):
            data[SampleDraw(index, seed)]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 4 * 1024  # kB; 400 windows hold 100 MB
    if files:
        assert len(list(Path("/proc/self/fd").iterdir())) <= files


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_the_images_of_a_window(stores: dict[str, Path], threads: int) -> None:
    draws = [SampleDraw(0, seed) for seed in range(20)]
    one = WindowDataset([series()], stores, size=SIZE, threads=1)
    many = WindowDataset([series()], stores, size=SIZE, threads=threads)
    for draw in draws:
        first, second = one[draw], many[draw]
        for name, values in first.items():
            np.testing.assert_array_equal(values.numpy(), second[name].numpy(), err_msg=name)


@pytest.mark.parametrize("threads", [2, 3])
def test_nothing_is_written_into_a_window_after_an_error(
    stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    data = WindowDataset([series()], stores, size=SIZE, threads=threads)
    reader = type(data._open_cube(FRAME.id))
    running: list[str] = []
    read = reader.read

    def slow(self: Any, variable: str, *args: Any, **options: Any) -> Any:
        if variable == "dem":
            raise HephaestusError("damaged")
        running.append(variable)
        time.sleep(0.05)
        values = read(self, variable, *args, **options)
        running.remove(variable)
        return values

    monkeypatch.setattr(reader, "read", slow)
    with pytest.raises(HephaestusError, match="damaged"):
        data[SampleDraw(0, 1)]
    assert not running


def test_damage_is_named_through_the_loader(stores: dict[str, Path], tmp_path: Path) -> None:
    store = toy_cube.toy_cube(tmp_path).resolve()
    for path in (store / "insar_coherence").glob("c.*"):
        content = path.read_bytes()
        path.chmod(0o644)
        path.unlink()
        path.write_bytes(content[:-7])
    data = WindowDataset(singles(), {FRAME.id: store}, size=32)
    with pytest.raises(HephaestusError, match=f"{toy_cube.PAIRS[2]}.*insar_coherence.*hephaestus repair"):
        data[2]


def test_a_reader_keeps_the_generation_that_it_pinned(tmp_path: Path) -> None:
    link = toy_cube.toy_cube(tmp_path)
    data = WindowDataset(singles(), {FRAME.id: link.resolve()}, size=32, atmosphere=False)
    first = data[SampleDraw(0, 1)]["phase"]
    grown = toy_cube.toy_cube(tmp_path, toy_cube.grid(64, 64), pairs=toy_cube.PAIRS[:2])
    assert grown.resolve() != next(iter(data.stores.values()))
    again = WindowDataset(singles(), data.stores, size=32, atmosphere=False)[SampleDraw(0, 1)]["phase"]
    assert torch.equal(first, again)


def test_owed_atmosphere_is_nan(stores: dict[str, Path]) -> None:
    data = WindowDataset([series()], stores, size=SIZE)
    cube = data._open_cube(FRAME.id)
    assert np.isnan(data._read_epoch(cube, date(1999, 1, 1))).all()
