"""All that changes while a build runs, behind one lock."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

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

#: How the request for a raster ended, and the raster if it came.
FetchedRaster = tuple[Receipt, Raster | None]


class Ledger:
    """What a build has finished so far, and what it has learned on the way; safe to use from many threads.

    Every finished granule is on disk, in the frame's staging folder, before it is in the ledger; a build that
    is killed goes on from there.

    Parameters
    ----------
    store : FrameStore
        Where the cube stands.
    granules : mapping of str to Granule
        Those of the published cube and of interrupted builds, by key.
    grid : Grid, optional
        The frame's grid, where it is known already.
    refetch : collection of str
        Keys of granules that are fetched again although they are whole, because the archive has changed them.
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

    # granules

    def get(self, key: str) -> Granule | None:
        """Return a finished granule, or None where there is none."""
        with self._lock:
            return self._granules.get(key)

    def interferogram(self, pair: Pair) -> InterferogramGranule | None:
        """Return the finished interferogram of a pair, or None where there is none."""
        granule = self.get(GranuleKey.of_pair(pair))
        return granule if isinstance(granule, InterferogramGranule) else None

    def latest(self, key: str) -> Granule | None:
        """Return the last attempt at a granule, which may have failed while an earlier one is stored."""
        with self._lock:
            return self._failed.get(key) or self._granules.get(key)

    def snapshot(self) -> dict[str, Granule]:
        """Return all finished granules by key, as they are now."""
        with self._lock:
            return dict(self._granules)

    def failed(self) -> dict[str, Granule]:
        """Return the attempts to fetch whole granules again that failed: what was stored before stays."""
        with self._lock:
            return dict(self._failed)

    def complete_pairs(self) -> list[Pair]:
        """Return the pairs whose interferogram is stored whole."""
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
        """Return whether a granule is fetched again although it is whole."""
        with self._lock:
            return key in self._refetch

    def record(self, granule: Granule, contents: Mapping[str, bytes]) -> None:
        """Store a finished granule, so that it need never be made again.

        What was stored of it before stays when nothing came of the attempt.

        Parameters
        ----------
        granule : Granule
            Without its objects.
        contents : mapping of str to bytes
            Its encoded objects by variable.

        Raises
        ------
        HephaestusError
            If the disk refuses it.
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
            stored = self._store.staging.add(granule, contents)  # the disk is not waited for under the lock
        with self._lock:
            self._granules[key] = stored
            self._failed.pop(key, None)
            if stored.is_complete:
                self._refetch.discard(key)

    def drop(self, keys: Collection[str]) -> None:
        """Forget granules: they are made again, or are no part of the cube any more."""
        with self._lock:
            for key in keys:
                self._granules.pop(key, None)

    # the frame's grid

    @property
    def grid(self) -> Grid | None:
        """The frame's grid, or None where no raster has been read yet that could tell."""
        return self._grid

    def require_grid(self) -> Grid:
        """Return the frame's grid.

        Raises
        ------
        HephaestusError
            If no raster has been read yet that could tell.
        """
        if self._grid is None:
            frame = self._store.frame
            raise HephaestusError(
                f"{frame}: neither the DEM nor any interferogram could be read, so its grid is unknown; "
                f"`hephaestus plan {frame}` shows what the portal has, try again later"
            )
        return self._grid

    def grid_inputs(self) -> str:
        """Return the fingerprint of what depends on the grid alone."""
        return fingerprint_grid(self.require_grid())

    def settle_grid(self, grid: Grid | None) -> None:
        """Settle the frame's grid, on which all granules must lie; None where nothing tells it."""
        with self._lock:
            self._grid = grid
            self._outdated |= self._find_outdated()

    @property
    def outdated(self) -> frozenset[Pair]:
        """Pairs that were stored on another grid, or in another schema: they are fetched again."""
        return self._outdated

    def _find_outdated(self) -> frozenset[Pair]:
        inputs = fingerprint_grid(self._grid) if self._grid is not None else ""
        return frozenset(
            granule.pair
            for granule in self._granules.values()
            if isinstance(granule, InterferogramGranule) and granule.is_complete and granule.inputs != inputs
        )

    # what was fetched for granules that are made later

    def keep_dem(self, fetched: FetchedRaster) -> None:
        """Keep the elevation model until it is stored."""
        with self._lock:
            self._dem = fetched

    def take_dem(self) -> FetchedRaster | None:
        """Return the elevation model that was kept, once."""
        with self._lock:
            fetched, self._dem = self._dem, None
            return fetched

    def keep_phase(self, pair: Pair, fetched: FetchedRaster) -> None:
        """Keep a phase that was fetched to settle the grid."""
        with self._lock:
            self._phases[pair] = fetched

    def take_phase(self, pair: Pair) -> FetchedRaster | None:
        """Return the phase of `pair` that was kept, once."""
        with self._lock:
            return self._phases.pop(pair, None)

    def keep_era5(self, fields: Era5Fields) -> None:
        """Keep the fields of ERA5 that acquisition dates are made from."""
        with self._lock:
            self._era5 = fields

    @property
    def era5(self) -> Era5Fields:
        """The fields of ERA5 that were kept last."""
        assert self._era5 is not None, "AtmosphereStage.begin fetches them"
        return self._era5


def keys_of_kind(keys: Collection[GranuleKey], kind: str) -> list[GranuleKey]:
    """Return those of `keys` that name granules of a kind."""
    return [key for key in keys if key.kind == kind]
