"""A simulated archive of thousands of small frames, and cubes of them that are copies of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.frames import Frame
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.manifest import encode_manifest
from hephaestus_build.operations.look_schedule import look_interval
from hephaestus_build.pipeline.kept.generation_summary import read_summary
from hephaestus_build.pipeline.kept.last_look import fingerprint_listing, keep_look, read_last_look
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.world.annotator import pack_annotations
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS, FrameSpec

#: Tracks that the frames are spread over; no satellite has them.
_TRACKS = range(176, 196)
_FIRST_DATE = date(2019, 3, 5)


def frame_ids(count: int) -> list[str]:
    """Return the ids of `count` simulated frames, all of one length."""
    return [f"{_TRACKS[number % len(_TRACKS)]}A_{number:05d}_131313" for number in range(count)]


@dataclass(frozen=True)
class ManyFrames:
    """An archive of many frames at one place.

    Attributes
    ----------
    count : int
        How many.
    epochs : int
        Acquisitions of each, in one series.
    annotated : int
        How many of them experts have annotated, the first ones.
    same_days : bool
        Whether all have the same acquisition days; else the frames' series begin on twelve different days.
    size : tuple of int
        Rows and columns.
    """

    count: int
    epochs: int
    annotated: int = 0
    same_days: bool = False
    size: tuple[int, int] = (40, 48)

    @property
    def ids(self) -> list[str]:
        """Ids of the frames."""
        return frame_ids(self.count)

    def open_archive(self) -> SimulatedArchive:
        """Return the archive, without any oddity."""
        places = [
            replace(FRAME_SPECS[0], id=name, day_offset=0 if self.same_days else number % 12, defects={})
            for number, name in enumerate(self.ids)
        ]
        options: dict[str, Any] = {"size": self.size, "epochs": self.epochs, "start": _FIRST_DATE}
        return _PartlyAnnotatedArchive(self.annotated, places=places, oddities=[], **options)


class _PartlyAnnotatedArchive(SimulatedArchive):
    """An archive whose first frames alone are annotated, as are 38 of LiCSAR's."""

    def __init__(self, annotated: int, *, places: Sequence[FrameSpec], **options: Any) -> None:
        super().__init__(places=places, **options)
        self._annotated = [place.id for place in places[:annotated]]

    def annotations(self) -> bytes:
        """Return the annotations of the annotated frames; of none, those of one that is in no listing."""
        if self._annotated:
            return pack_annotations(item for name in self._annotated for item in self.world.annotations(name))
        return SimulatedArchive(epochs=4, size=(40, 48), frames=[FRAME_SPECS[0].id]).annotations()


def copy_cube(archive: SimulatedArchive, cubes: Path, original: str, copies: Sequence[str]) -> None:
    """Write the records of a cube again for other frames, as if each had been built; the images are left out.

    Parameters
    ----------
    archive : SimulatedArchive
        The archive, which lists the same pairs for all.
    cubes : pathlib.Path
        Folder of the cubes.
    original : str
        Frame id of the cube, which has one generation and a last look.
    copies : sequence of str
        Other frame ids of the same length.
    """
    source = FrameStore(cubes, Frame(original))
    generation = source.published_generation()
    assert generation is not None
    contents = {name: (generation.store / name).read_bytes() for name in (PROVENANCE, "zarr.json")}
    manifest, look = generation.read_manifest(), read_last_look(source)
    assert look is not None
    for name in copies:
        store = cubes / ".generations" / name / generation.store.parent.name / f"{name}.zarr"
        store.mkdir(parents=True)
        listed = dict(manifest)
        for part, content in contents.items():
            changed = content.replace(original.encode(), name.encode())
            listed[part] = [hash_bytes(changed), len(changed)]
            (store / part).write_bytes(changed)
        (store / MANIFEST).write_bytes(encode_manifest(listed))
        for part in (MANIFEST, PROVENANCE):
            (store.parent / part).hardlink_to(store / part)
        frame = FrameStore(cubes, Frame(name))
        keep_look(frame, msgspec.structs.replace(look, listing=_fingerprint_shown(archive, name)))
        frame.published_link.symlink_to(store.relative_to(cubes))
        copied = frame.published_generation()
        assert copied is not None
        read_summary(frame, copied)  # kept, as at the end of a build


def _fingerprint_shown(archive: SimulatedArchive, frame: str) -> str:
    """Return the fingerprint of a frame's listing, as `watch` reads it."""
    times = {pair: archive.modified_time(frame, "interferograms", pair.name) for pair in archive.pairs(frame)}
    return fingerprint_listing({pair: f"{time:%Y-%m-%d %H:%M}" for pair, time in times.items()})


def spread_looks(cubes: Path, frames: Sequence[str], active: float, share: float, every: timedelta) -> None:
    """Date the last looks at frames as after months of rounds of ``watch``.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of the cubes.
    frames : sequence of str
        Frame ids.
    active : float
        Share of the frames that have had something new in the last six days; for the others, nothing has come
        for 30 days to 4 years (evenly on a scale of logarithms).
    share : float
        The setting ``quiet_share``.
    every : datetime.timedelta
        Time from one round to the next, the last of which began that long ago.
    """
    chance, now = np.random.default_rng(0), datetime.now(UTC)
    for number, name in enumerate(frames):
        days = chance.uniform(0, 6) if number < active * len(frames) else 30 * 48.7 ** chance.random()
        quiet = timedelta(days=float(days))
        rounds = max(1, -(-look_interval(quiet, share) * 0.9 // every))
        at = now - every * int(chance.integers(1, rounds + 1))
        store = FrameStore(cubes, Frame(name))
        look = read_last_look(store)
        assert look is not None
        keep_look(store, msgspec.structs.replace(look, at=at, news=at - quiet))
