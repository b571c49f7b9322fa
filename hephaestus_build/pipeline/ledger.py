"""Mutable state of a build, behind one lock."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.cube.fingerprints import fingerprint_grid
from hephaestus_build.cube.granules import Granule, GranuleKey, InterferogramGranule
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.sources.era5.fields import Era5Fields
from hephaestus_build.sources.interferograms import Raster

#: Receipt of a request for a raster, and the raster if it was successful.
FetchedRaster = tuple[Receipt, Raster | None]
#: Inputs of granules that failed before the frame's grid was known.
UNPLACED = ""
#: Bytes of decimated images kept at once: those of 270 pairs of 2500 x 3000 pixels at every eighth pixel.
_MAX_SMALL_BYTES = 64 << 20


class Ledger:
    """Finished granules, the frame's grid, and products fetched for later use; safe for use by many threads.

    A finished granule is written to the staging area before it enters the ledger, so that a killed build
    continues from there.

    Parameters
    ----------
    store : FrameStore
        Folder of the frame's generations.
    granules : mapping of str to Granule
        Granules of the published cube and of interrupted builds, by key.
    grid : Grid, optional
        The frame's grid, if it is known already.
    refetch : collection of str
        Keys of complete granules that are fetched again because the archive has changed them.
    """

    def __init__(
        self,
        store: FrameStore,
        granules: Mapping[str, Granule],
        *,
        grid: Grid | None = None,
        refetch: Collection[str] = (),
    ) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._granules = dict(granules)
        self._grid = grid
        self._refetch = set(refetch)
        self._failed: dict[str, Granule] = {}
        self._outdated = self._find_outdated()
        self._dem: FetchedRaster | None = None
        self._phases: dict[Pair, FetchedRaster] = {}
        self._era5: Era5Fields | None = None
        self._small_images: dict[Pair, dict[str, npt.NDArray[np.uint8]]] = {}
        self._small_bytes = 0

    # granules

    def get(self, key: str) -> Granule | None:
        """Return a finished granule, or None."""
        with self._lock:
            return self._granules.get(key)

    def interferogram(self, pair: Pair) -> InterferogramGranule | None:
        """Return the finished interferogram of a pair, or None."""
        granule = self.get(GranuleKey.of_pair(pair))
        return granule if isinstance(granule, InterferogramGranule) else None

    def latest(self, key: str) -> Granule | None:
        """Return the last attempt at a granule, which may have failed while an earlier one is stored."""
        with self._lock:
            return self._failed.get(key) or self._granules.get(key)

    def snapshot(self) -> dict[str, Granule]:
        """Return a copy of all finished granules, by key."""
        with self._lock:
            return dict(self._granules)

    def failed(self) -> dict[str, Granule]:
        """Return failed attempts to fetch complete granules again; the stored ones are kept."""
        with self._lock:
            return dict(self._failed)

    def complete_pairs(self) -> list[Pair]:
        """Return the pairs with a complete interferogram."""
        return [
            granule.pair
            for granule in self.snapshot().values()
            if isinstance(granule, InterferogramGranule) and granule.is_complete
        ]

    def needs(self, key: str, inputs: str) -> bool:
        """Return whether a granule is missing, incomplete, or made from other inputs."""
        granule = self.get(key)
        return granule is None or not granule.is_complete or granule.inputs != inputs

    def must_refetch(self, key: str) -> bool:
        """Return whether a complete granule is fetched again."""
        with self._lock:
            return key in self._refetch

    def record(self, granule: Granule, contents: Mapping[str, bytes]) -> None:
        """Store a finished granule; it is not made again.

        An incomplete granule does not replace a complete one made from the same inputs.

        Parameters
        ----------
        granule : Granule
            The granule, without its objects.
        contents : mapping of str to bytes
            Encoded objects, by variable.

        Raises
        ------
        HephaestusError
            If it cannot be written.
        """
        key = granule.key
        with self._lock:
            before = self._granules.get(key)
            if (
                not granule.is_complete
                and before is not None
                and before.is_complete
                and before.inputs == granule.inputs
            ):
                self._failed[key] = granule
                return
        with translate_os_errors(f"{self._store.frame}: storing {key}"):
            stored = self._store.staging.add(granule, contents)  # written without holding the lock
        with self._lock:
            self._granules[key] = stored
            self._failed.pop(key, None)
            if stored.is_complete:
                self._refetch.discard(key)

    def drop(self, keys: Collection[str]) -> None:
        """Remove granules: they are made again, or no longer belong to the cube."""
        with self._lock:
            for key in keys:
                self._granules.pop(key, None)

    # the frame's grid

    @property
    def grid(self) -> Grid | None:
        """The frame's grid; None until a raster has been read that defines it."""
        return self._grid

    def require_grid(self) -> Grid:
        """Return the frame's grid.

        Raises
        ------
        HephaestusError
            If no raster has been read yet that defines it.
        """
        if self._grid is None:
            frame = self._store.frame
            raise HephaestusError(
                f"{frame}: neither the DEM nor any interferogram could be read, so its grid is unknown; "
                f"`hephaestus plan {frame}` shows what the archive has, try again later"
            )
        return self._grid

    def grid_inputs(self) -> str:
        """Return the fingerprint of inputs that depend on the grid alone."""
        return fingerprint_grid(self.require_grid())

    def settle_grid(self, grid: Grid | None) -> None:
        """Set the frame's grid, on which all granules must lie; None if it is still unknown."""
        with self._lock:
            self._grid = grid
            if grid is not None:
                inputs = fingerprint_grid(grid)
                for key, granule in self._granules.items():
                    if granule.inputs == UNPLACED:
                        self._granules[key] = msgspec.structs.replace(granule, inputs=inputs)
            self._outdated |= self._find_outdated()

    @property
    def outdated(self) -> frozenset[Pair]:
        """Pairs stored on another grid or in another schema version; they are fetched again."""
        return self._outdated

    def _find_outdated(self) -> frozenset[Pair]:
        inputs = fingerprint_grid(self._grid) if self._grid is not None else ""
        return frozenset(
            granule.pair
            for granule in self._granules.values()
            if isinstance(granule, InterferogramGranule) and granule.is_complete and granule.inputs != inputs
        )

    # products fetched early, for granules that are made later

    def keep_dem(self, fetched: FetchedRaster) -> None:
        """Keep the DEM until it is stored."""
        with self._lock:
            self._dem = fetched

    def take_dem(self) -> FetchedRaster | None:
        """Return and remove the kept DEM."""
        with self._lock:
            fetched, self._dem = self._dem, None
            return fetched

    def keep_phase(self, pair: Pair, fetched: FetchedRaster) -> None:
        """Keep a phase raster that was fetched to determine the grid."""
        with self._lock:
            self._phases[pair] = fetched

    def take_phase(self, pair: Pair) -> FetchedRaster | None:
        """Return and remove the kept phase raster of `pair`."""
        with self._lock:
            return self._phases.pop(pair, None)

    def keep_small_images(self, pair: Pair, images: dict[str, npt.NDArray[np.uint8]]) -> None:
        """Keep the decimated images of a stored pair for its overview, as far as memory allows."""
        size = sum(image.nbytes for image in images.values())
        self.take_small_images(pair)
        with self._lock:
            if self._small_bytes + size <= _MAX_SMALL_BYTES:
                self._small_images[pair] = images
                self._small_bytes += size

    def take_small_images(self, pair: Pair) -> dict[str, npt.NDArray[np.uint8]] | None:
        """Return and remove the kept images of `pair`."""
        with self._lock:
            images = self._small_images.pop(pair, None)
            self._small_bytes -= sum(image.nbytes for image in (images or {}).values())
            return images

    def keep_era5(self, fields: Era5Fields) -> None:
        """Keep the ERA5 fields from which the epochs are interpolated."""
        with self._lock:
            self._era5 = fields

    @property
    def era5(self) -> Era5Fields:
        """The ERA5 fields that were kept last."""
        assert self._era5 is not None, "AtmosphereStage.begin fetches them"
        return self._era5


def keys_of_kind(keys: Collection[GranuleKey], kind: str) -> list[GranuleKey]:
    """Return the keys of granules of one kind."""
    return [key for key in keys if key.kind == kind]
