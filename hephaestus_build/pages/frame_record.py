"""What is recorded of a frame: its cube's inventory, its pairs, the last kept listing; nobody is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import utc_text
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import cubes_dir_for, find_cube, is_simulated_cube, settings_for_cube
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.operations.pair_table import KnownPairs, read_known_pairs
from hephaestus_build.pipeline.upstream_changes import UpstreamState, read_upstream_state


@dataclass(frozen=True)
class FrameRecord:
    """What is recorded of a frame.

    Attributes
    ----------
    known : KnownPairs
        Its pairs. While nothing is published, the granules are those that are finished.
    contents : CubeInventory or None
        Inventory of the published cube.
    built : str
        When it was published, UTC, ISO 8601; empty if it is not.
    simulated : bool
        Whether its data is simulated.
    upstream : UpstreamState
        What is known to differ in the archive.
    data_dir : pathlib.Path
        The data folder of the frame, with ``predictions`` and ``pages``.
    """

    known: KnownPairs
    contents: CubeInventory | None
    built: str
    simulated: bool
    upstream: UpstreamState
    data_dir: Path

    @property
    def frame(self) -> Frame:
        """The frame."""
        return self.known.frame

    @property
    def store(self) -> Path | None:
        """The pinned store of the cube; None while nothing is published."""
        return self.known.generation.store if self.known.generation is not None else None


def read_frame_record(target: str | Path, settings: Settings) -> FrameRecord:
    """Return what is recorded of a frame.

    Parameters
    ----------
    target : str or pathlib.Path
        Path of a cube, frame id, or name of a volcano that exactly one frame lists. A frame needs no cube:
        what its builds have fetched, and what they owe, is recorded too.
    settings : Settings
        Folders of cubes and cache.

    Raises
    ------
    HephaestusError
        If nothing is known of the frame, or its record is damaged.
    UsageError
        If `target` is neither a path nor a frame.
    """
    path = Path(target)
    if (path / "zarr.json").is_file() and not _is_own(path, settings):
        return _read_copy(path, settings)
    frame = _own_frame(path, settings) or frame_named(str(target))
    here = settings.for_frame(frame)
    frame_store = FrameStore(cubes_dir_for(here, frame), frame)
    try:
        known = read_known_pairs(frame, settings)
    except HephaestusError:
        if not (begun := frame_store.staging.read_granules(check=False)):
            raise
        known = KnownPairs(frame, begun, None, (), {}, None, here.pairs, here.accept)
    if known.generation is None:
        granules = frame_store.staging.read_granules(check=False)
        return FrameRecord(
            replace(known, granules=granules), None, "", here.is_simulated, UpstreamState(), here.data_dir
        )
    return FrameRecord(
        known,
        known.generation.read_inventory(),
        _utc(frame_store.publication_time(known.generation.number)),
        here.is_simulated or is_simulated_cube(known.generation.store),
        read_upstream_state(frame_store),
        here.data_dir,
    )


def _is_own(path: Path, settings: Settings) -> bool:
    """Return whether a path is that of a cube in the data folder."""
    return _own_frame(path, settings) is not None


def _own_frame(path: Path, settings: Settings) -> Frame | None:
    try:
        frame = Frame(path.name.removesuffix(".zarr"))
        own = find_cube(frame, settings)
    except HephaestusError:
        return None
    except UsageError:
        return None
    return frame if path.suffix == ".zarr" and path.absolute() == own.absolute() else None


def _read_copy(path: Path, settings: Settings) -> FrameRecord:
    """Return the record of a cube outside the data folder: all that is known of it stands in it."""
    generation = Generation.from_path(path)
    contents = generation.read_inventory()
    frame = Frame(str(contents.attributes.get("frame", path.stem)))
    known = KnownPairs(frame, contents.granules, None, (), {}, None, "all", settings.accept, generation)
    built = _utc((generation.store / MANIFEST).stat().st_mtime)
    return FrameRecord(
        known,
        contents,
        built,
        is_simulated_cube(generation.store),
        UpstreamState(),
        settings_for_cube(generation.store, settings).data_dir,
    )


def _utc(seconds: float) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))
