"""A published cube as a source of interferograms, with the archive before it where that is preferred."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.published.published_cube import PublishedCube
from hephaestus_build.sources.interferograms import (
    EpochBaselines,
    FrameMetadata,
    InterferogramListing,
    InterferogramSource,
    KeptListing,
    PreviewSize,
    ProductPlace,
    Raster,
)

_Fetched = tuple[Receipt, Raster | None]


class ImportSource(InterferogramSource):
    """The interferograms and the DEM of a published cube; everything else is the archive's.

    Parameters
    ----------
    published : PublishedCube
        The published cube.
    archive : InterferogramSource
        The archive of its frame.
    grid : Grid
        Grid on which the published images are said to lie.
    listed : collection of Pair, optional
        Pairs, and the DEM with them, that are asked of the archive first. The published product is taken
        where the archive has no whole one. By default nothing is asked.
    """

    def __init__(
        self,
        published: PublishedCube,
        archive: InterferogramSource,
        grid: Grid,
        listed: Collection[Pair] | None = None,
    ) -> None:
        self._published, self._archive, self._grid, self._listed = published, archive, grid, listed
        self.credit = archive.credit
        self.address = archive.address if listed is not None else published.label
        self._lock = threading.Lock()
        self._coherences: dict[Pair, _Fetched] = {}

    def dem(self, frame: Frame) -> _Fetched:
        """Return the heights of `frame`; see :class:`InterferogramSource`."""
        if self._listed is not None:
            receipt, raster = self._archive.dem(frame)
            if raster is not None:
                return receipt, raster
        receipt, values = self._published.dem()
        return receipt, None if values is None else Raster(values, self._grid)

    def phase(self, frame: Frame, pair: Pair, *, replaced: bool = False) -> _Fetched:
        """Return the phase of `pair`, from where its coherence comes too."""
        if self._listed is not None and pair in self._listed:
            phase = self._archive.phase(frame, pair, replaced=replaced)
            if phase[1] is not None:
                coherence = self._archive.coherence(frame, pair, replaced=replaced)
                if coherence[1] is not None:
                    with self._lock:
                        self._coherences[pair] = coherence
                    return phase
        receipt, values = self._published.phase(pair)
        return receipt, None if values is None else Raster(values, self._grid)

    def coherence(self, frame: Frame, pair: Pair, *, replaced: bool = False) -> _Fetched:
        """Return the coherence of `pair`, from where its phase was taken."""
        with self._lock:
            kept = self._coherences.pop(pair, None)
        if kept is not None:
            return kept
        receipt, values = self._published.coherence(pair)
        return receipt, None if values is None else Raster(values, self._grid)

    # what only the archive has

    def tracks(self) -> tuple[int, ...]:
        """Return the relative orbits of the archive."""
        return self._archive.tracks()

    def frames(self, track: int) -> tuple[Frame, ...]:
        """Return the frames of the archive on a relative orbit."""
        return self._archive.frames(track)

    def listing(self, frame: Frame) -> InterferogramListing:
        """Return the archive's listing of `frame`."""
        return self._archive.listing(frame)

    def metadata(self, frame: Frame) -> FrameMetadata:
        """Return the archive's metadata of `frame`."""
        return self._archive.metadata(frame)

    def preview(self, frame: Frame, pair: Pair) -> tuple[Receipt, PreviewSize | None]:
        """Return size and colour mode of the archive's preview of `pair`."""
        return self._archive.preview(frame, pair)

    def optional_raster(
        self, frame: Frame, variable: str, place: ProductPlace, *, replaced: bool = False
    ) -> _Fetched:
        """Return the archive's raster of an optional variable."""
        return self._archive.optional_raster(frame, variable, place, replaced=replaced)

    def probe_product(self, frame: Frame, place: ProductPlace, name: str, url: str = "") -> SmallResponse:
        """Return the archive's present headers of a product."""
        return self._archive.probe_product(frame, place, name, url)

    def fetch_baselines(self, frame: Frame, path: Path) -> tuple[Receipt, EpochBaselines | None]:
        """Fetch the archive's perpendicular baselines of `frame`."""
        return self._archive.fetch_baselines(frame, path)

    def kept_listing(self, frame: Frame) -> KeptListing | None:
        """Return the last listing of the archive that was read."""
        return self._archive.kept_listing(frame)

    def kept_baselines(self, frame: Frame, path: Path) -> EpochBaselines | None:
        """Return the archive's baselines that are kept."""
        return self._archive.kept_baselines(frame, path)

    def close(self) -> None:
        """Close the connections to the archive."""
        self._archive.close()
