"""A cube as a comparison or an import reads it: image by image, north up, on one description of its grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.plain_files import is_real_folder
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import find_cube
from hephaestus_build.cube.inventory import MAX_GRID_PIXELS, MAX_TABLE_CELLS
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.tar_objects import find_tar_store
from hephaestus_build.cube.reading.zarr_v2 import is_zarr_v2, open_store_v2, open_zarr_v2

AXES = ("primary_date", "secondary_date")
#: Folder of an export as GeoTIFF.
_GEOTIFF_FOLDER = "interferograms"


@dataclass(frozen=True)
class ReadableCube:
    """A cube that is compared or imported.

    Attributes
    ----------
    label : str
        How messages name it.
    dataset : xarray.Dataset
        The opened cube.
    grid : Grid
        Its grid, from the coordinates of latitude and longitude.
    pairs : dict of Pair to tuple of int
        Positions on the two date axes of the pairs that it holds, in date order.
    is_south_up : bool
        Whether its first row is in the south; images are returned north up all the same.
    swapped : frozenset of Pair
        Pairs whose later date stands on the axis of primary dates.
    """

    label: str
    dataset: xr.Dataset
    grid: Grid
    pairs: dict[Pair, tuple[int, int]]
    is_south_up: bool = False
    swapped: frozenset[Pair] = frozenset()
    _days: dict[str, dict[Any, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, target: str, settings: Settings, listener: ProgressListener | None = None) -> ReadableCube:
        """Open a cube that is given by its frame, its volcano or its path, also one within a tar file.

        Raises
        ------
        HephaestusError
            If there is none, or it has no grid or no pairs of dates.
        UsageError
            If `target` is neither a path nor a frame.
        """
        path = Path(local_path("the cube", target))
        if is_zarr_v2(path):
            dataset = open_zarr_v2(path)
        elif (objects := find_tar_store(path, listener)) is not None:
            dataset, _ = open_store_v2(objects)
            if objects.path.name != path.name:  # a tar file of one cube
                target = f"{target}/{objects.root}"
        else:
            if is_real_folder(path / _GEOTIFF_FOLDER):
                raise UsageError(
                    f"{target} is an export as GeoTIFF, which has no tables to compare; "
                    f"`hephaestus export FRAME --to zarr2` makes one that is a cube"
                )
            dataset = open_pinned_cube(find_cube(target, settings), chunks=None)
        return cls.of_dataset(target, dataset)

    @classmethod
    def of_dataset(cls, label: str, dataset: xr.Dataset) -> ReadableCube:
        """Return an opened cube, which messages name `label`.

        Raises
        ------
        HephaestusError
            If it has no grid or no pairs of dates.
        """
        try:
            return cls._of_dataset(label, dataset)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise HephaestusError(
                f"{label} is not laid out like a cube of interferograms ({sanitize_text(error, 200)}); "
                f"docs/cube.md lists the names and dimensions"
            ) from error

    @classmethod
    def _of_dataset(cls, label: str, dataset: xr.Dataset) -> ReadableCube:
        latitudes, longitudes = (_coordinate(dataset, name) for name in ("latitude", "longitude"))
        is_south_up = bool(latitudes[0] < latitudes[-1])
        grid = _grid_of_centres(latitudes[::-1] if is_south_up else latitudes, longitudes)
        dates = [_coordinate(dataset, name).astype("datetime64[D]") for name in AXES]
        if "valid_date_pair" not in dataset:
            raise ValueError("it has no valid_date_pair")
        valid = np.asarray(dataset["valid_date_pair"].values)
        if valid.shape != (dates[0].size, dates[1].size) or valid.size > MAX_TABLE_CELLS:
            raise ValueError(f"valid_date_pair has the shape {valid.shape}")
        days = {
            axis: {day: index for index, day in enumerate(one.tolist())}
            for axis, one in zip(AXES, dates, strict=True)
        }
        pairs: dict[Pair, tuple[int, int]] = {}
        swapped: set[Pair] = set()
        for first, second in np.argwhere(valid == 1).tolist():
            day, other = dates[0][first].item(), dates[1][second].item()
            pair = Pair(min(day, other), max(day, other))
            if day > other and pair in pairs:
                continue
            pairs[pair] = (first, second)
            (swapped.add if day > other else swapped.discard)(pair)
        return cls(label, dataset, grid, dict(sorted(pairs.items())), is_south_up, frozenset(swapped), days)

    @property
    def frame(self) -> str:
        """Frame id, as the cube's attributes or its path say; empty if neither does."""
        stated = self.dataset.attrs.get("frame", Path(self.label).name.partition(".")[0])
        try:
            return Frame(stated).id if isinstance(stated, str) else ""
        except UsageError:  # as of an unpacked cube in a folder of another name
            return ""

    @property
    def is_simulated(self) -> bool:
        """Whether the cube says that it is simulated."""
        return bool(self.dataset.attrs.get("simulated", False))

    @cached_property
    def days(self) -> dict[str, set[Any]]:
        """Dates of each date axis that a pair of the cube has."""
        used = {axis: {places[index] for places in self.pairs.values()} for index, axis in enumerate(AXES)}
        return {
            axis: {day for day, place in self._days[axis].items() if place in used[axis]} for axis in AXES
        }

    def __contains__(self, name: object) -> bool:
        return name in self.dataset

    def pair_image(self, name: str, pair: Pair) -> npt.NDArray[Any]:
        """Return an image of a pair, north up, shape ``grid.shape``."""
        place = dict(zip(AXES, self.pairs[pair], strict=True))
        return self._image(self.dataset[name], place)

    def date_place(self, axis: str, day: Any) -> int | None:
        """Return the position of a date on one of :data:`AXES`; None if it has none."""
        return self._days[axis].get(day)

    def date_image(self, name: str, axis: str, day: Any) -> npt.NDArray[Any]:
        """Return an image of a date on one of :data:`AXES`, north up."""
        return self._image(self.dataset[name], {axis: self._days[axis][day]})

    def frame_image(self, name: str) -> npt.NDArray[Any]:
        """Return an image of the frame, north up."""
        return self._image(self.dataset[name], {})

    def table(self, name: str) -> npt.NDArray[Any]:
        """Return a table on the two date axes.

        Raises
        ------
        HephaestusError
            If it has other dimensions.
        """
        variable = self.dataset[name]
        if set(variable.dims) != set(AXES):
            raise self._odd(name, variable)
        return np.asarray(variable.transpose(*AXES).values)

    def _image(self, variable: xr.DataArray, place: dict[str, int]) -> npt.NDArray[Any]:
        wanted = {*place, "latitude", "longitude"}
        if set(variable.dims) != wanted:
            raise self._odd(str(variable.name), variable)
        values = np.asarray(variable.isel(place).transpose("latitude", "longitude").values)
        return values[::-1] if self.is_south_up else values

    def _odd(self, name: str, variable: xr.DataArray) -> HephaestusError:
        dims = ", ".join(sanitize_text(dim, 40) for dim in variable.dims)
        return HephaestusError(f"{self.label}: {name} has the dimensions {dims}; docs/cube.md lists a cube's")


def _coordinate(dataset: xr.Dataset, name: str) -> npt.NDArray[Any]:
    """Return a coordinate of one dimension.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in dataset.coords or dataset[name].dims != (name,) or not dataset.sizes[name]:
        raise ValueError(f"it has no coordinate {name}")
    return np.asarray(dataset[name].values)


def _grid_of_centres(latitudes: npt.NDArray[Any], longitudes: npt.NDArray[Any]) -> Grid:
    """Return the grid of pixel centres, which must be evenly spaced.

    Raises
    ------
    ValueError
        If they are not, or there are fewer than two or too many.
    """
    height, width = latitudes.size, longitudes.size
    if min(height, width) < 2 or height * width > MAX_GRID_PIXELS:
        raise ValueError(f"its grid has {height} x {width} pixels")
    dx, dy = float(np.ptp(longitudes)) / (width - 1), float(np.ptp(latitudes)) / (height - 1)
    even = [np.diff(longitudes.astype("f8")) / dx, -np.diff(latitudes.astype("f8")) / dy]
    if not all(np.isfinite(steps).all() and np.abs(steps - 1).max() < 0.05 for steps in even):
        raise ValueError("its coordinates are not evenly spaced")
    return Grid(
        width, height, float(longitudes[0]) - dx / 2, float(latitudes[0]) + dy / 2, dx, dy
    ).in_first_turn()
