"""The cube that every reader opens, and what it must find there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from archives import FRAME
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from reader_availability import find_program, import_reader
from stored_arrays import StoredArray, digest, list_stored_arrays

#: A page, and all that it asks for, says or gets wrong.
Seen = tuple[Any, list[str]]
Opener = Callable[..., Seen]


@dataclass(frozen=True)
class OpenedCube:
    """A cube with its values as zarr-python reads them.

    Attributes
    ----------
    link : pathlib.Path
        The published path, which a user types.
    arrays : list of StoredArray
        As the store's metadata lists them.
    values : dict
        Values by path.
    """

    link: Path
    arrays: list[StoredArray]
    values: dict[str, np.ndarray[Any, Any]] = field(repr=False)

    @property
    def store(self) -> Path:
        """Folder of the generation."""
        return self.link.resolve()

    @property
    def numeric(self) -> list[StoredArray]:
        """All arrays but texts."""
        return [array for array in self.arrays if not array.is_text]

    @property
    def texts(self) -> list[StoredArray]:
        """Arrays of strings."""
        return [array for array in self.arrays if array.is_text]

    def digests(self, arrays: list[StoredArray]) -> dict[str, str]:
        """Return the checksums by path."""
        return {array.path: digest(self.values[array.path]) for array in arrays}

    def slot(self, *, stored: bool) -> tuple[int, int]:
        """Return the positions on the date axes of a pair that is stored, or of one that is not."""
        found = np.argwhere(self.values["valid_date_pair"] == stored)
        return int(found[0][0]), int(found[0][1])

    def series(self, **names: str) -> xr.Dataset:
        """Return the phase of one primary date along `time`, for programs that know one axis of dates.

        Parameters
        ----------
        **names : str
            Further dimensions to be renamed.
        """
        phase = open_pinned_cube(self.link)[["insar_difference"]]  # without attributes that netCDF refuses
        series = phase.isel(primary_date=self.slot(stored=True)[0], drop=True)
        return series.rename(secondary_date="time", **names).drop_attrs(deep=False).drop_encoding()


@pytest.fixture(scope="session")
def cube(whole_cube: Path) -> OpenedCube:
    """A cube of the simulated archive: built, published, with pairs, masks and atmosphere."""
    link = whole_cube / "simulated" / "cubes" / f"{FRAME.id}.zarr"
    arrays = list_stored_arrays(link.resolve())
    group = zarr.open_group(link, mode="r")
    found: dict[str, Any] = {array.path: group[array.path] for array in arrays}
    opened = OpenedCube(link, arrays, {path: np.asarray(array[...]) for path, array in found.items()})
    _check_that_it_shows_everything(opened)
    return opened


def _check_that_it_shows_everything(cube: OpenedCube) -> None:
    """A matrix over an empty cube would prove nothing."""
    assert {"insar_difference", "insar_coherence", "dem", "caption"} <= {array.path for array in cube.arrays}
    for stored in (True, False):
        assert cube.values["insar_difference"][cube.slot(stored=stored)].any() == stored
    assert cube.values["deformation_mask"].any()
    assert np.isfinite(cube.values["primary_date_surface_pressure"]).any()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    sync_api = import_reader("playwright.sync_api")
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opener]:
    """Open an address; return the page and a list of all that it asks for, says or gets wrong."""
    contexts = []

    def open_page(address: str, width: int = 1280, **options: Any) -> Seen:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page, heard = context.new_page(), []
        page.on("request", lambda asked: heard.append(asked.url))
        page.on("requestfailed", lambda asked: heard.append(f"failed: {asked.url}"))
        page.on("console", lambda said: heard.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.goto(address)
        return page, heard

    yield open_page
    for context in contexts:
        context.close()
