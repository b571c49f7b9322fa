"""The simulated world: its frames, atmosphere and annotations, and the ground truth used in tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.simulation.world.acquisition_schedule import acquisition_dates
from hephaestus_build.simulation.world.annotator import annotate_pair, outline_deformation
from hephaestus_build.simulation.world.frame_catalog import (
    FAULTY_ODDITIES,
    FRAME_SPECS,
    ODDITIES,
    ORDINARY_FRAME,
    FrameSpec,
)
from hephaestus_build.simulation.world.frame_files import FrameFiles
from hephaestus_build.simulation.world.frame_scene import FrameScene
from hephaestus_build.simulation.world.weather import OrographicHill, Weather

#: First ``uniqueID`` of simulated annotations, far above the published ones.
FIRST_ANNOTATION_ID = 900_000


class World:
    """A deterministic world: equal arguments give identical bytes, whatever the order of requests.

    Parameters
    ----------
    seed : int
        Random seed. The frames lie at the same places for every seed.
    size : str or tuple of int
        Size of the frames: ``small`` (a few hundred pixels a side, fast to compute), ``real``
        (2500 x 3000), or rows and columns.
    epochs : int
        Number of acquisitions of each frame.
    start : datetime.date, optional
        First date of an unbroken series, one acquisition every 12 days. For the default see
        :func:`hephaestus_build.simulation.world.acquisition_schedule.acquisition_dates`.
    frames : sequence of str, optional
        Ids of the frames to include; all by default.
    oddities : iterable of str, optional
        Irregularities to enable: keys of :data:`~hephaestus_build.simulation.world.frame_catalog.ODDITIES`,
        and of :data:`~hephaestus_build.simulation.world.frame_catalog.FAULTY_ODDITIES` (which affect the
        ordinary frame only). Default: all of the former, none of the latter.
    places : sequence of FrameSpec
        Descriptions of the frames.

    Raises
    ------
    UsageError
        If a frame, a size or an oddity is unknown.
    """

    def __init__(
        self,
        seed: int = 0,
        size: str | tuple[int, int] = "small",
        *,
        epochs: int = 14,
        start: date | None = None,
        frames: Sequence[str] | None = None,
        oddities: Iterable[str] | None = None,
        places: Sequence[FrameSpec] = FRAME_SPECS,
    ) -> None:
        self.seed = seed
        asked = frozenset(ODDITIES if oddities is None else oddities)
        if strange := asked - set(ODDITIES) - set(FAULTY_ODDITIES):
            raise UsageError(f"unknown oddity: {', '.join(sorted(strange))}; known: {', '.join(ODDITIES)}")
        known = {place.id: place for place in places}
        if unknown := set(frames or ()) - set(known):
            raise UsageError(
                f"the simulated archive has no frame {', '.join(sorted(unknown))}; it has {', '.join(known)}"
            )
        if isinstance(size, tuple):
            known = {name: replace(place, shapes={"asked": size}) for name, place in known.items()}
            size = "asked"
        elif any(size not in place.shapes for place in places):
            raise UsageError(f"unknown size: {size}; known: small, real")
        hills = (OrographicHill(place.longitude, place.latitude, 350) for place in places)
        self.weather = Weather(seed, tuple(dict.fromkeys(hills)))  # frames may share a place
        self._frame_files: dict[str, FrameFiles] = {}
        self._first_ids: dict[str, int] = {}
        for index, place in enumerate(known.values()):
            if frames is None or place.id in frames:
                days = acquisition_dates(epochs, start, place.day_offset)
                here = (asked & place.oddities) | (
                    asked & set(FAULTY_ODDITIES) if place.id == ORDINARY_FRAME else set()
                )
                self._frame_files[place.id] = FrameFiles(
                    FrameScene(place, self.weather, days, seed, size), here
                )
                self._first_ids[place.id] = FIRST_ANNOTATION_ID + 10_000 * index
        self._annotations: dict[str, list[dict[str, Any]]] = {}

    @property
    def frames(self) -> tuple[str, ...]:
        """Ids of the frames."""
        return tuple(self._frame_files)

    def has_frame(self, frame: str) -> bool:
        """Return whether `frame` is the id of one of them."""
        return frame in self._frame_files

    def frame_files(self, frame: Frame | str) -> FrameFiles:
        """Return the product files of a frame.

        Raises
        ------
        KeyError
            If the world has no such frame.
        """
        return self._frame_files[str(frame)]

    def scene(self, frame: Frame | str) -> FrameScene:
        """Return a frame's scene: grid, epochs, pairs and simulated fields."""
        return self.frame_files(frame).scene

    def pairs(self, frame: Frame | str) -> tuple[Pair, ...]:
        """Return all pairs of a frame that the portal lists, sorted."""
        return self.scene(frame).pairs

    def pair_with_oddity(self, frame: Frame | str, oddity: str) -> Pair | None:
        """Return the pair of a frame that `oddity` affects, or None."""
        return self.frame_files(frame).pair_with_oddity(oddity)

    # ground truth

    def era5_fields(
        self, time: datetime, latitudes: npt.NDArray[Any], longitudes: npt.NDArray[Any]
    ) -> npt.NDArray[np.float32]:
        """Return the ERA5 fields, float32 (3, n, m); see :meth:`Weather.era5_fields`."""
        return self.weather.era5_fields(time, latitudes, longitudes)

    def phase(self, frame: Frame | str, pair: Pair | str, revision: int = 0) -> npt.NDArray[np.float32]:
        """Return the wrapped phase on the frame's grid, float32.

        The pair's raster holds the same values, unless an oddity affects the pair.
        """
        return self.scene(frame).simulate_interferogram(_to_pair(pair), revision).phase

    def coherence(self, frame: Frame | str, pair: Pair | str, revision: int = 0) -> npt.NDArray[np.uint8]:
        """Return the coherence on the frame's grid, uint8."""
        return self.scene(frame).simulate_interferogram(_to_pair(pair), revision).coherence

    def height(self, frame: Frame | str) -> npt.NDArray[np.float32]:
        """Return the terrain heights, float32, metres; 0 is sea."""
        return self.scene(frame).height

    def displacement(self, frame: Frame | str, pair: Pair | str) -> npt.NDArray[np.float32]:
        """Return the true displacement towards the satellite, float32, metres."""
        return self.scene(frame).displacement(_to_pair(pair))

    def truth_polygons(self, frame: Frame | str, pair: Pair | str) -> list[tuple[str, npt.NDArray[Any]]]:
        """Return activity and outline of each visible deformation, strongest first.

        An outline has shape (n, 2): longitude and latitude in degrees, not closed. It is exact, without the
        rounding and projection of previews.
        """
        scene = self.scene(frame)
        return [
            (
                outline.source.activity,
                np.column_stack(
                    [
                        scene.grid.west + outline.columns * scene.grid.dx,
                        scene.grid.north - outline.rows * scene.grid.dy,
                    ]
                ),
            )
            for outline in outline_deformation(scene, _to_pair(pair))
        ]

    # annotations

    def annotations(self, frame: Frame | str) -> list[dict[str, Any]]:
        """Return a frame's annotations in the published format, sorted by primary and secondary date."""
        name = str(frame)
        if name not in self._annotations:
            self._annotations[name] = self._annotate(self.frame_files(name), self._first_ids[name])
        return self._annotations[name]

    @staticmethod
    def _annotate(frame_store: FrameFiles, number: int) -> list[dict[str, Any]]:
        pairs = set(frame_store.scene.pairs) - {frame_store.pair_with_oddity("unannotated")}
        if unlisted := frame_store.pair_with_oddity("unlisted"):
            pairs.add(unlisted)
        found: list[dict[str, Any]] = []
        deforming = 0
        for pair in sorted(pairs):
            quirk = {5: "fewer polygons", 8: "lone crowd"}.get(deforming % 23, "")
            annotation = annotate_pair(frame_store.scene, pair, number + len(found), quirk)
            deforming += bool(annotation["segmentation_mask"])
            found.append(annotation)
        return found


def _to_pair(pair: Pair | str) -> Pair:
    return pair if isinstance(pair, Pair) else Pair.parse(pair)
