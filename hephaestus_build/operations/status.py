"""How the cubes stand, all frames at a glance, read from their own records without any network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from hephaestus_build.core.accepted_absences import AcceptedAbsences
from hephaestus_build.core.era5_grid import EXPVER_PRELIMINARY
from hephaestus_build.core.errors import HephaestusError, UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import list_names
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import cubes_dir_for
from hephaestus_build.cube.granules import EpochGranule, InterferogramGranule, MaskGranule
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.frame_folder import GENERATIONS
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.migration import needs_migration
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.pipeline.missing_products import (
    MissingProduct,
    find_missing_products,
    partition_accepted,
)
from hephaestus_build.pipeline.upstream_changes import UpstreamState, read_upstream_state


@dataclass(frozen=True, repr=False)
class FrameStatus:
    """How one frame's cube stands.

    Attributes
    ----------
    frame : str
        Its id.
    generation : int or None
        Of the published cube; None where nothing is published.
    built : datetime or None
        When it was published, UTC.
    newest : datetime.date or None
        Secondary date of the newest interferogram in it.
    latency_days : int or None
        From that date to today.
    pairs, annotated, absent : int
        Interferograms stored, annotations, and annotated pairs that upstream does not have.
    owed : tuple of MissingProduct
        What a later build must still get.
    accepted : tuple of MissingProduct
        What would be owed, but for the setting ``accept``: the archive does not have it.
    preliminary : int
        Dates whose ERA5 fields are preliminary (ERA5T).
    stale : tuple of str
        Why the cube is behind, in words.
    gone : tuple of str
        Pairs that are in the cube and no longer in the archive's listing; they stay.
    bytes : int
        On disk, what generations share counted once.
    unfinished : int
        Units that a build has finished and not published, because it was cut off or is at work.
    problem : str
        Why nothing can be said, if so.
    last_run : str
        When it was last built or tried, UTC, ISO 8601; empty where no run is on record.
    last_error : str
        Why that failed, if it did.
    simulated : bool
        Whether the data is simulated.
    to_migrate : bool
        Whether it stands where an earlier version put it: ``hephaestus migrate`` moves it.
    """

    frame: str
    generation: int | None = None
    built: datetime | None = None
    newest: date | None = None
    latency_days: int | None = None
    pairs: int = 0
    annotated: int = 0
    absent: int = 0
    owed: tuple[MissingProduct, ...] = ()
    preliminary: int = 0
    stale: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    bytes: int = 0
    unfinished: int = 0
    problem: str = ""
    last_run: str = ""
    last_error: str = ""
    simulated: bool = False
    accepted: tuple[MissingProduct, ...] = ()
    to_migrate: bool = False

    def __repr__(self) -> str:
        state = self.problem or f"generation {self.generation}, {self.pairs} pairs, {len(self.owed)} owed"
        return f"<FrameStatus {self.frame}: {state}>"

    @property
    def has_failed(self) -> bool:
        """Whether something is wrong: no whole cube is published, or the last build failed.

        What is owed or stale is work for the next build.
        """
        return bool(self.problem or self.last_error)

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        products = {name: [item.to_json() for item in getattr(self, name)] for name in ("owed", "accepted")}
        return json.loads(json.dumps({**asdict(self), **products}, default=str))


def frames_with_settings(
    settings: Settings, frames_of: Callable[[Settings], list[Frame]] | None = None
) -> list[tuple[Frame, Settings]]:
    """Return the frames of the real cubes and of the simulated ones, each with the settings that hold for it.

    Parameters
    ----------
    settings : Settings
        Those of the simulated leave out the real cubes.
    frames_of : callable, optional
        Returns the frames in the cubes' folder of some settings; :func:`list_started_frames` by default.
    """
    frames_of = frames_of or list_started_frames
    apart = settings.for_simulated()
    found = {(frame, settings.is_simulated): settings for frame in frames_of(settings)}
    found |= {(frame, True): apart for frame in frames_of(apart)}
    # earlier versions put simulated cubes among the real ones
    if settings.real_data_dir is not None:
        earlier = settings.model_copy(update={"data_dir": settings.real_data_dir})
        found |= {(frame, True): apart for frame in frames_of(earlier) if frame.is_simulated}
    kept = {key: home for key, home in found.items() if key[1] or not key[0].is_simulated}
    return [(frame, home) for (frame, _), home in sorted(kept.items(), key=lambda item: item[0])]


def list_started_frames(settings: Settings) -> list[Frame]:
    """Return the frames that have a cube, or the beginnings of one, in order."""
    return [
        frame
        for frame in list_frames_on_disk(settings)
        if FrameStore(settings.cubes_dir, frame).has_content()
    ]


def list_frames_on_disk(settings: Settings) -> list[Frame]:
    """Return the frames that a build was asked for, in vain or not, in order."""
    shelves = settings.cubes_dir / GENERATIONS
    try:
        names = {*list_names(shelves)} if shelves.is_dir() else set()
    except OSError as error:
        raise HephaestusError(f"{shelves} cannot be read ({error.strerror}): make it readable") from error
    # a link that leads nowhere is a cube that was lost
    names |= {path.stem for path in settings.cubes_dir.glob("*.zarr") if path.is_symlink()}
    frames = []
    for name in names:
        with suppress(UsageError):  # what else somebody put there is none of ours
            frames.append(Frame(name))
    return sorted(frames)


def read_frame_status(
    settings: Settings,
    frame: Frame,
    today: date | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
) -> FrameStatus:
    """Return how the cube of `frame` stands.

    Parameters
    ----------
    settings : Settings
        Where the cubes are.
    frame : Frame
        Which.
    today : datetime.date, optional
        What latency is counted to.
    runs : mapping, optional
        The last run of each frame, if that is at hand already.
    """
    settings = settings.for_frame(frame)
    last = (read_last_runs(settings.data_dir) if runs is None else runs).get(frame.id, {})
    tried: dict[str, Any] = {
        "to_migrate": settings.is_simulated and needs_migration(settings, frame),
        "last_run": sanitize_text(last.get("began", "")),
        "last_error": sanitize_text(last.get("error", "")),
        "simulated": settings.is_simulated,
    }
    try:
        with wrap_unexpected_errors(frame):
            frame_store = FrameStore(cubes_dir_for(settings, frame), frame)
            return _read_frame_status(frame_store, today or datetime.now(UTC).date(), settings.accept, tried)
    except HephaestusError as error:
        problem = str(error).removeprefix(f"{frame}: ")  # whoever shows it names the frame
        return FrameStatus(str(frame), problem=problem, **tried)


def _read_frame_status(
    frame_store: FrameStore, today: date, accept: AcceptedAbsences, tried: Mapping[str, Any]
) -> FrameStatus:
    frame = frame_store.frame
    begun = frame_store.staging.read_granules(check=False)
    current = frame_store.published_generation()
    if current is None:
        problem = f"not published; {len(begun)} granules are finished" if begun else "not built"
        owed, accepted = partition_accepted(find_missing_products(begun), frame, accept)
        return FrameStatus(
            str(frame), owed=owed, accepted=accepted, unfinished=len(begun), problem=problem, **tried
        )
    contents = current.read_inventory()
    manifest = current.read_manifest()
    granules, known = contents.granules, read_upstream_state(frame_store)
    interferograms = [granule for granule in granules.values() if isinstance(granule, InterferogramGranule)]
    pairs = [granule.pair for granule in interferograms if granule.is_complete]
    newest = max((pair.secondary for pair in pairs), default=None)
    epochs = [
        granule for granule in granules.values() if isinstance(granule, EpochGranule) and granule.is_complete
    ]
    owed, accepted = partition_accepted(find_missing_products(granules), frame, accept)
    # a simulated cube among the real ones is one of an earlier version
    simulated = bool(contents.attributes.get("simulated"))
    misplaced = simulated and not tried["simulated"]
    return FrameStatus(
        frame=str(frame),
        generation=current.number,
        built=datetime.fromtimestamp(frame_store.publication_time(current.number), UTC),
        newest=newest,
        latency_days=(today - newest).days if newest else None,
        pairs=len(pairs),
        annotated=sum(isinstance(granule, MaskGranule) for granule in granules.values()),
        absent=sum(not granule.is_complete and not granule.needs_retry for granule in interferograms),
        owed=owed,
        accepted=accepted,
        preliminary=sum(granule.era5_expver == EXPVER_PRELIMINARY for granule in epochs),
        stale=tuple(_stale_reasons(known, contents.attributes)),
        gone=known.gone,
        bytes=sum(dict(manifest.values()).values()),
        unfinished=len(begun),
        **{
            **tried,
            "simulated": tried["simulated"] or simulated,
            "to_migrate": tried["to_migrate"] or misplaced,
        },
    )


def _stale_reasons(known: UpstreamState, attributes: Mapping[str, Any]) -> Sequence[str]:
    reasons = []
    if attributes.get("schema_version", cube_schema().version) != cube_schema().version:
        written = sanitize_text(attributes["schema_version"], 20)
        reasons.append(f"written by schema {written}, now {cube_schema().version}")
    if known.changed:
        reasons.append(f"{len(known.changed)} granules changed upstream")
    return reasons
