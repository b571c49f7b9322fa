"""Windows of the cubes as compact tensors, for PyTorch's DataLoader."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from hephaestus_baselines.config.channels import ATMOSPHERE_FIELDS
from hephaestus_baselines.config.tasks import TASK_SPECS, Task
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.packed_batches import WindowPlace
from hephaestus_build.core.concurrency import make_array_cache
from hephaestus_build.core.era5_grid import ERA5_STEP
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.coverage import VOLCANIC
from hephaestus_build.dataset.tiling import TILE_SIZE, Tile

#: Bytes of decoded tiles that a process caches; the DEM of a frame of 2500 x 3000 pixels takes 31 MB.
_TILE_CACHE_BYTES = 128 << 20
_MASK = "deformation_mask"
_COARSE_VARIABLES = tuple(f"era5_{name}" for name in ATMOSPHERE_FIELDS)


class WindowDataset(Dataset[dict[str, torch.Tensor]]):
    """Map-style data set of the windows of `items`, read from the cubes on access.

    If an item has no tile, the draw's seed selects its window: uniformly in the frame for a negative item,
    unless the draw takes the window of a positive one. For a positive item a deforming pixel is drawn first,
    then a window that has it, uniformly among those.

    Parameters
    ----------
    items : sequence of DatasetItem
        Items, all with the same number of members.
    stores : mapping of frame id to pathlib.Path
        Each frame's pinned cube (``PreparedData.stores``).
    size : int
        Rows and columns of each window.
    atmosphere : bool
        Whether to read ERA5's fields.
    volcanic_only : bool
        Whether the deformation of earthquakes is no deformation.
    task : str
        What labels are of: deformation, or its type of activity or intensity.
    threads : int
        Images to decode in parallel if the data set is read in the main process; a DataLoader's worker uses
        one.

    Notes
    -----
    An item is a dictionary; T is the number of members, S the size, K the number of ERA5 grid points along
    one axis:

    ``phase`` float32 (T, S, S), rad, 0 = no data; ``coherence`` uint8 (T, S, S); ``dem`` float32 (S, S), m,
    NaN = none; ``mask`` uint8 (T, S, S), the deformation mask; ``atmosphere`` float32 (T, 2, 3, K, K), ERA5
    around the window at the primary and secondary date; ``rows``, ``columns`` float32 (S,), positions of
    the pixels on those K x K points, NaN outside the frame; ``inside`` bool (S, S), pixels that count in
    this window (its core); ``aspect`` float32, width of a pixel divided by its height in metres, at the
    middle of the window; ``label`` int64, whether any pixel of any step deforms, or the class of its
    kind, -1 if there is none that is known; ``weight`` float32, mean
    confidence of the annotators, 1 if unknown; ``index`` int64, position in `items`.
    """

    def __init__(
        self,
        items: Sequence[DatasetItem],
        stores: Mapping[str, Path],
        *,
        size: int = TILE_SIZE,
        atmosphere: bool = True,
        volcanic_only: bool = False,
        task: Task = "classification",
        threads: int = 2,
    ) -> None:
        self.items, self.size, self.atmosphere, self.threads = tuple(items), size, atmosphere, threads
        self.volcanic_only, self.task = volcanic_only, task
        self.stores = {frame: Path(path) for frame, path in stores.items()}
        self._reset_caches()
        # the same for all frames, so that their windows fit into one batch
        self._points = max(
            (self._coarse_points(self._open_cube(frame).grid) for frame in self.stores), default=3
        )

    def _reset_caches(self) -> None:
        self._tile_cache = make_array_cache(_TILE_CACHE_BYTES)
        self._cubes: dict[str, WindowReader] = {}
        self._epochs: dict[tuple[str, date], np.ndarray] = {}
        self._confidence: dict[str, np.ndarray] = {}
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Drop open files and threads, which cannot be pickled; each process opens its own."""
        kept = ("items", "size", "atmosphere", "volcanic_only", "task", "threads", "stores", "_points")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset_caches()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: SampleDraw | int) -> dict[str, torch.Tensor]:
        """Return the window of a draw; an integer index is a draw with seed 0.

        Raises
        ------
        HephaestusError
            If stored data is damaged; the message names the frame, the pair and the variable.
        """
        index = draw[0] if isinstance(draw, tuple) else int(draw)
        layout = self._layout_of(self.items[index])
        sample = {name: np.empty(shape, dtype) for name, (shape, dtype) in layout.items()}
        self.read_into(draw, sample)
        return {name: torch.from_numpy(values) for name, values in sample.items()}

    def layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return the shape and dtype of each field of a window."""
        return self._layout_of(self.items[0])

    def _layout_of(self, item: DatasetItem) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        steps, size, points = len(item.members), self.size, self._points
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            "phase": ((steps, size, size), np.float32),
            "coherence": ((steps, size, size), np.uint8),
            "mask": ((steps, size, size), np.uint8),
            "dem": ((size, size), np.float32),
            "rows": ((size,), np.float32),
            "columns": ((size,), np.float32),
            "inside": ((size, size), np.bool_),
            "aspect": ((), np.float32),
            "label": ((), np.int64),
            "weight": ((), np.float32),
            "index": ((), np.int64),
        }
        if self.atmosphere:
            fields["atmosphere"] = (steps, 2, len(ATMOSPHERE_FIELDS), points, points), np.float32
        return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in fields.items()}

    def read_into(self, draw: SampleDraw | int, out: Mapping[str, np.ndarray]) -> WindowPlace:
        """Write the window of a draw into arrays, and return its place.

        Parameters
        ----------
        draw : SampleDraw or int
            See :meth:`__getitem__`.
        out : mapping of str to numpy.ndarray
            An array for each field of :meth:`layout`; ``dem`` may be left out.

        Raises
        ------
        HephaestusError
            If stored data is damaged; the message names the frame, the pair and the variable.
        """
        drawn = SampleDraw(*draw) if isinstance(draw, tuple) else SampleDraw(int(draw), 0)
        index, item = drawn.item, self.items[drawn.item]
        cube = self._open_cube(item.frame)
        tile = self.tile_of(drawn)
        self._read_images(cube, item, tile, out)
        latitudes, longitudes = self._axes(cube)
        out["rows"][...], first_row = locate_coarse_pixels(
            -cube.grid.latitudes, -latitudes, tile.row, self.size, self._points
        )
        out["columns"][...], first_column = locate_coarse_pixels(
            cube.grid.longitudes, longitudes, tile.column, self.size, self._points
        )
        if self.atmosphere:
            days = [day for member in item.members for day in member.pair.dates]
            fields = np.stack([self._read_epoch(cube, day) for day in days])
            corner = fields[..., first_row:, first_column:]
            out["atmosphere"][...] = _pad_to(corner, self._points).reshape(out["atmosphere"].shape)
        if self.volcanic_only:
            out["mask"][out["mask"] != VOLCANIC] = 0
        out["inside"][...] = tile.inside
        out["aspect"][...] = pixel_aspect(cube.grid, tile)
        out["label"][...] = self._label_of(cube, item, tile, out["mask"])
        out["weight"][...] = self._confidence_weight(cube, item)
        out["index"][...] = index
        return WindowPlace(item.frame, tile.row, tile.column)

    def tile_of(self, draw: SampleDraw) -> Tile:
        """Return the window of a draw: that of its item, or the one that its seed selects."""
        item = self.items[draw.item]
        if item.tile is not None:
            return item.tile
        source = draw.item if draw.like < 0 else draw.like
        chance = np.random.default_rng((draw.seed, source))
        return self._draw_tile(self._open_cube(item.frame), self.items[source], chance)

    def read_label(self, draw: SampleDraw) -> int:
        """Return the label of a draw's window, without its images."""
        item, tile = self.items[draw.item], self.tile_of(draw)
        cube = self._open_cube(item.frame)
        mask = np.empty((len(item.members), self.size, self.size), np.uint8)
        for step, member in enumerate(item.members):
            cube.read(_MASK, member.pair, tile.row, tile.column, mask[step], keep=False)
        if self.volcanic_only:
            mask[mask != VOLCANIC] = 0
        return self._label_of(cube, item, tile, mask)

    def _label_of(self, cube: WindowReader, item: DatasetItem, tile: Tile, mask: np.ndarray) -> int:
        """Return whether a window deforms, or the class of its deforming pixels in all steps together."""
        spec = TASK_SPECS[self.task]
        if not spec.tells_kind:
            return int(mask.any())
        counts = np.zeros(256, np.int64)
        codes = np.empty((self.size, self.size), np.uint8)
        for pair, deforming in {member.pair: mask[step] for step, member in enumerate(item.members)}.items():
            if deforming.any():
                cube.read(spec.labels, pair, tile.row, tile.column, codes, keep=False)
                counts += np.bincount(codes[deforming > 0], minlength=256)
        return spec.class_of_codes({int(code): int(counts[code]) for code in np.flatnonzero(counts)})

    def is_simulated(self, frame: str) -> bool:
        """Return whether a frame's cube holds simulated data."""
        return bool(self._open_cube(frame).attributes.get("simulated"))

    def _read_images(
        self, cube: WindowReader, item: DatasetItem, tile: Tile, out: Mapping[str, np.ndarray]
    ) -> None:
        wanted: list[tuple[str, Pair | None, np.ndarray]] = []
        if "dem" in out:
            wanted.append(("dem", None, out["dem"]))
        # a short series repeats an interferogram: read it once
        first = {member.pair: step for step, member in reversed(list(enumerate(item.members)))}
        names = {"phase": "insar_difference", "coherence": "insar_coherence", "mask": _MASK}
        for name, variable in names.items():
            wanted += [(variable, pair, out[name][step]) for pair, step in first.items()]
        # tiles of one image follow each other, so caching pays; random windows rarely share an image
        keep = item.tile is not None
        self._map_parts(
            lambda part: cube.read(part[0], part[1], tile.row, tile.column, part[2], keep=keep), wanted
        )
        for step, member in enumerate(item.members):
            if first[member.pair] != step:
                for name in names:
                    out[name][step] = out[name][first[member.pair]]

    def _map_parts(self, work: Callable[[Any], object], parts: Sequence[Any]) -> None:
        """Map `work` over all parts, in threads unless this is a DataLoader worker."""
        queue = deque(sorted(parts, key=lambda part: -part[2].nbytes))

        def work_off() -> None:
            while queue:
                try:
                    part = queue.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    work(part)
                except BaseException:
                    queue.clear()  # the window is lost
                    raise

        if self.threads < 2 or get_worker_info() is not None:
            work_off()
            return
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            self._pool = os.getpid(), ThreadPoolExecutor(self.threads - 1, thread_name_prefix="windows")
        # one task a thread, and this thread works too: handing over each part would take a sixth of the time
        others = [self._pool[1].submit(work_off) for _ in range(self.threads - 1)]
        try:
            work_off()
        finally:
            wait(others)  # they write into the arrays of the window
        for other in others:
            other.result()

    def _open_cube(self, frame: str) -> WindowReader:
        if frame not in self._cubes:
            self._cubes[frame] = WindowReader(self.stores[frame], self._tile_cache)
        return self._cubes[frame]

    def _draw_tile(self, cube: WindowReader, item: DatasetItem, rng: np.random.Generator) -> Tile:
        pixel = None
        if item.positive:
            moving = [member.pair for member in item.members if member.positive]
            pair = moving[int(rng.integers(len(moving)))]
            pixel = _draw_deforming_pixel(cube, pair, rng, volcanic_only=self.volcanic_only)
        return draw_training_tile(cube.shape, self.size, rng, pixel)

    def _confidence_weight(self, cube: WindowReader, item: DatasetItem) -> float:
        if cube.frame not in self._confidence:
            self._confidence[cube.frame] = cube.read_table("confidence")
        known = self._confidence[cube.frame]
        values = [known[place] for sample in item.members if (place := cube.pair_position(sample.pair))]
        finite = [float(value) for value in values if np.isfinite(value)]
        return sum(finite) / len(finite) if finite else 1.0

    def _read_epoch(self, cube: WindowReader, day: date) -> np.ndarray:
        """Return the three ERA5 fields of a date; all dates of a frame together take half a megabyte."""
        key = cube.frame, day
        if key not in self._epochs:
            self._epochs[key] = cube.read_epoch(_COARSE_VARIABLES, day)
        return self._epochs[key]

    def _axes(self, cube: WindowReader) -> tuple[np.ndarray, np.ndarray]:
        return cube.read_coordinate("era5_latitude"), cube.read_coordinate("era5_longitude")

    def _coarse_points(self, grid: Grid) -> int:
        """Return the maximum number of ERA5 grid points, along one axis, that a window of `grid` needs."""
        pixels = min(self.size, max(grid.shape)) - 1
        return int(pixels * max(grid.dx, grid.dy) / ERA5_STEP) + 3


def draw_training_tile(
    shape: tuple[int, int], size: int, rng: np.random.Generator, pixel: tuple[int, int] | None = None
) -> Tile:
    """Draw a random window of a frame, which includes the pixel `pixel` if given.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frame. If it is smaller than the window, the window begins at its corner.
    size : int
        Rows and columns of the window.
    rng : numpy.random.Generator
        Random generator.
    pixel : tuple of int, optional
        Row and column of a pixel.
    """
    starts = []
    for axis, extent in enumerate(shape):
        low, high = 0, max(0, extent - size)
        if pixel is not None:
            low, high = max(low, pixel[axis] - size + 1), min(high, pixel[axis])
        starts.append(int(rng.integers(low, high + 1)))
    row, column = starts
    core = row, min(row + size, shape[0]), column, min(column + size, shape[1])
    return Tile(row, column, size, core)


def _draw_deforming_pixel(
    cube: WindowReader, pair: Pair, rng: np.random.Generator, *, volcanic_only: bool = False
) -> tuple[int, int] | None:
    """Draw a random deforming pixel of an interferogram; return None if its mask has none."""
    strips = [
        (column, values.shape[1], found)
        for column, values in cube.iter_strips(_MASK, pair)
        if (found := np.flatnonzero(values == VOLCANIC if volcanic_only else values)).size
    ]
    total = sum(found.size for *_, found in strips)
    if not total:
        return None
    chosen = int(rng.integers(total))
    for column, width, found in strips:
        if chosen < found.size:
            row, along = divmod(int(found[chosen]), width)
            return row, column + along
        chosen -= found.size
    raise AssertionError("one of them was chosen")


def locate_coarse_pixels(
    pixels: np.ndarray, axis: np.ndarray, start: int, size: int, points: int
) -> tuple[np.ndarray, int]:
    """Return the positions of a window's pixels on `points` points of a coarse axis, and the first point.

    Parameters
    ----------
    pixels, axis : numpy.ndarray
        Ascending coordinates of the frame's pixels and of the coarse points.
    start, size : int
        First pixel of the window and number of its pixels.
    points : int
        Number of coarse points of the window.

    Returns
    -------
    positions : numpy.ndarray
        float32 (size,), in coarse points from `first`; NaN outside the frame.
    first : int
        Index of the first coarse point.
    """
    exact = np.interp(pixels[start : start + size], axis, np.arange(axis.size))
    first = max(0, min(int(exact[0]), axis.size - points))
    positions = np.full(size, np.nan, np.float32)
    positions[: exact.size] = exact - first
    return positions, first


def pixel_aspect(grid: Grid, tile: Tile) -> float:
    """Return the width of a pixel divided by its height, in metres, at the middle of a window."""
    latitude = grid.north - (tile.row + tile.size / 2) * grid.dy
    return grid.dx * math.cos(math.radians(latitude)) / grid.dy


def _pad_to(fields: np.ndarray, points: int) -> np.ndarray:
    """Return the first `points` rows and columns; if there are fewer, repeat the last ones."""
    fields = fields[..., :points, :points]
    missing = [points - extent for extent in fields.shape[-2:]]
    if any(missing):
        edges = [(0, 0)] * (fields.ndim - 2) + [(0, extent) for extent in missing]
        fields = np.pad(fields, edges, mode="edge")
    return np.ascontiguousarray(fields)
