"""Status of all frames, read from their records without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from hephaestus_build.core.accepted_absences import AcceptedAbsences
from hephaestus_build.core.errors import HephaestusError, UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import list_names
from hephaestus_build.core.plain_text import count_of, sanitize_text, utc_text
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import cubes_dir_for, is_simulated_cube
from hephaestus_build.cube.schema_versions import is_later_schema
from hephaestus_build.cube.storage.frame_folder import GENERATIONS
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.migration import needs_migration
from hephaestus_build.operations.look_schedule import is_due, next_look, share_for
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.pipeline.kept.generation_summary import read_summary
from hephaestus_build.pipeline.kept.last_look import read_last_look
from hephaestus_build.pipeline.missing_products import (
    MissingProduct,
    find_missing_products,
    partition_accepted,
)
from hephaestus_build.pipeline.upstream_changes import read_upstream_state

#: Problem of a frame of which nothing is finished.
NOT_BUILT = "not built"


@dataclass(frozen=True, repr=False)
class FrameStatus:
    """Status of one frame's cube.

    Attributes
    ----------
    frame : str
        Its id.
    generation : int or None
        Number of the published generation; None without one.
    built : datetime or None
        Time of its publication, UTC.
    newest : datetime.date or None
        Secondary date of its newest interferogram.
    latency_days : int or None
        Days from that date to today.
    pairs, annotated : int
        Numbers of stored interferograms and of annotated pairs.
    absent : tuple of str
        Annotated pairs that the archive does not have.
    owed : tuple of MissingProduct
        Products that a later build must fetch.
    accepted : tuple of MissingProduct
        Absent products that the setting ``accept`` allows.
    preliminary : int
        Number of dates with preliminary ERA5 (ERA5T).
    stale : tuple of str
        Reasons why the cube is out of date.
    gone : tuple of str
        Stored pairs that the archive no longer lists; they are kept.
    bytes : int
        Size on disk; files shared by generations count once.
    unfinished : int
        Number of finished, unpublished granules of an interrupted or running build.
    problem : str
        Why the status cannot be read, if so.
    last_run : str
        Time of the last run, UTC, ISO 8601; empty without one.
    last_error : str
        Cause of its failure, if it failed.
    simulated : bool
        Whether the data is simulated.
    to_migrate : bool
        Whether an earlier version stored it elsewhere or in another schema; ``hephaestus migrate`` brings
        it over.
    schema : str
        Version of the schema that it was written with; empty if there is no cube.
    other_wording : bool
        Whether descriptions in its metadata are worded as another version did.
    last_look : datetime or None
        Time of the last build or look that ended well, UTC.
    next_look : datetime or None
        When ``watch`` looks at it again, UTC; None where its next round does.
    appeared : datetime or None
        When the newest product of the archive appeared, UTC, as of the last look.
    reached : datetime or None
        When a build first got all of it, UTC; None while it has not.
    newest_listed : datetime.date or None
        Secondary date of the newest pair that the archive listed.
    overdue : bool
        Whether there was no new pair for more than the setting ``overdue_days``.
    """

    frame: str
    generation: int | None = None
    built: datetime | None = None
    newest: date | None = None
    latency_days: int | None = None
    pairs: int = 0
    annotated: int = 0
    absent: tuple[str, ...] = ()
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
    schema: str = ""
    other_wording: bool = False
    last_look: datetime | None = None
    next_look: datetime | None = None
    appeared: datetime | None = None
    reached: datetime | None = None
    newest_listed: date | None = None
    overdue: bool = False

    def __repr__(self) -> str:
        state = self.problem or f"generation {self.generation}, {self.pairs} pairs, {len(self.owed)} owed"
        return f"<FrameStatus {self.frame}: {state}>"

    @property
    def has_failed(self) -> bool:
        """Whether no complete cube is published, or the last build failed.

        Owed and outdated products are no failure: the next build fetches them.
        """
        return bool(self.problem or self.last_error)

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        products = {name: [item.to_json() for item in getattr(self, name)] for name in ("owed", "accepted")}
        return {**asdict(self), **products, "last_run": self.last_run or None}


def frames_with_settings(
    settings: Settings, frames_of: Callable[[Settings], list[Frame]] | None = None
) -> list[tuple[Frame, Settings]]:
    """Return the frames of real and simulated cubes, each with the settings that apply to it.

    Parameters
    ----------
    settings : Settings
        Settings; those for simulated data exclude the real cubes.
    frames_of : callable, optional
        Returns the frames in the cubes' folder of some settings; :func:`list_started_frames` by default.
    """
    frames_of = frames_of or list_started_frames
    apart = settings.for_simulated()
    if not settings.is_simulated and apart.cubes_dir == settings.cubes_dir:  # that folder itself is named
        frames = sorted(frames_of(settings))
        stores = (settings.cubes_dir / f"{frame}.zarr" for frame in frames)
        kinds = map(is_simulated_cube, stores)
        return [
            (frame, apart if simulated else settings) for frame, simulated in zip(frames, kinds, strict=True)
        ]
    found = {(frame, settings.is_simulated): settings for frame in frames_of(settings)}
    found |= {(frame, True): apart for frame in frames_of(apart)}
    # earlier versions put simulated cubes among the real ones
    if settings.real_data_dir is not None:
        earlier = settings.model_copy(update={"data_dir": settings.real_data_dir})
        found |= {(frame, True): apart for frame in frames_of(earlier) if frame.is_simulated}
    kept = {key: home for key, home in found.items() if key[1] or not key[0].is_simulated}
    return [(frame, home) for (frame, _), home in sorted(kept.items(), key=lambda item: item[0])]


def list_started_frames(settings: Settings) -> list[Frame]:
    """Return the frames that have a cube or staged granules, sorted."""
    return [
        frame
        for frame in list_frames_on_disk(settings)
        if FrameStore(settings.cubes_dir, frame).has_content()
    ]


def list_frames_on_disk(settings: Settings) -> list[Frame]:
    """Return the frames that have a folder, even without any content, sorted."""
    shelves = settings.cubes_dir / GENERATIONS
    try:
        names = {*list_names(shelves)} if shelves.is_dir() else set()
    except OSError as error:
        raise HephaestusError(f"{shelves} cannot be read ({error.strerror}): make it readable") from error
    # a link that leads nowhere is a cube that was lost, and a plain folder may be a copy of one
    names |= {path.stem for path in settings.cubes_dir.glob("*.zarr")}
    frames = []
    for name in names:
        with suppress(UsageError):  # other files in the folder
            frames.append(Frame(name))
    return sorted(frames)


def read_frame_status(
    settings: Settings,
    frame: Frame,
    today: date | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
) -> FrameStatus:
    """Return the status of one frame.

    Parameters
    ----------
    settings : Settings
        Folders of the cubes.
    frame : Frame
        The frame.
    today : datetime.date, optional
        Date that latency is counted to; by default the current one, UTC.
    runs : mapping, optional
        Last runs by frame, if they have been read already.
    """
    settings = settings.for_frame(frame)
    last = (read_last_runs(settings.data_dir) if runs is None else runs).get(frame.id, {})
    tried: dict[str, Any] = {
        "to_migrate": settings.is_simulated and needs_migration(settings, frame),
        "last_run": utc_text(str(last.get("began", ""))),
        "last_error": sanitize_text(last.get("error", "")),
        "simulated": settings.is_simulated,
    }
    try:
        with wrap_unexpected_errors(frame):
            frame_store = FrameStore(cubes_dir_for(settings, frame), frame)
            tried |= _look_times(frame_store, settings)
            today = today or datetime.now(UTC).date()
            found = _read_frame_status(frame_store, today, settings.accept, tried)
            return replace(found, overdue=_is_overdue(found, today, settings))
    except HephaestusError as error:
        problem = str(error).removeprefix(f"{frame}: ")  # the caller shows the frame
        return FrameStatus(str(frame), problem=problem, **tried)


def days_without_pair(status: FrameStatus, today: date) -> int | None:
    """Return the days since the newest date that the archive lists of a frame, or that its cube has."""
    days = [day for day in (status.newest_listed, status.newest) if day is not None]
    return (today - max(days)).days if days else None


def describe_overdue(statuses: Sequence[FrameStatus], days: int, today: date) -> str:
    """Return one line about the frames that had no new pair for long; empty if there are none."""
    overdue = sorted((days_without_pair(item, today) or 0, item.frame) for item in statuses if item.overdue)
    if not overdue:
        return ""
    waited, frame = overdue[0]
    if len(overdue) == 1:
        return f"no new pair of {frame} for {waited} days (setting `overdue_days`: {days})"
    most, last = overdue[-1]
    return (
        f"no new pair for more than {count_of(days, 'day')} (setting `overdue_days`): "
        f"{count_of(len(overdue), 'frame')}, from {frame} ({count_of(waited, 'day')}) to {last} ({most} days)"
    )


def _is_overdue(status: FrameStatus, today: date, settings: Settings) -> bool:
    if status.simulated and "overdue_days" not in settings.model_fields_set:
        return False  # their worlds have ended
    waited = days_without_pair(status, today)
    return bool(settings.overdue_days) and waited is not None and waited > settings.overdue_days


def _look_times(frame_store: FrameStore, settings: Settings) -> dict[str, Any]:
    """Return what is known from the last look, and when the next one is unless in ``watch``'s next round."""
    look = read_last_look(frame_store)
    if look is None:
        return {}
    now, share = datetime.now(UTC), share_for(settings)
    return {
        "last_look": look.at.replace(microsecond=0),
        "appeared": look.news.replace(microsecond=0),
        "reached": look.reached and look.reached.replace(microsecond=0),
        "newest_listed": look.newest,
        "next_look": None if is_due(look, now, share) else next_look(look, share).replace(microsecond=0),
    }


def _read_frame_status(
    frame_store: FrameStore, today: date, accept: AcceptedAbsences, tried: Mapping[str, Any]
) -> FrameStatus:
    frame = frame_store.frame
    begun = frame_store.staging.read_granules(check=False)
    current = frame_store.published_generation()
    if current is None:
        finished = sum(not granule.needs_retry for granule in begun.values())
        problem = f"not published; {count_of(finished, 'granule')} finished" if finished else NOT_BUILT
        if number := frame_store.unpublished_number():
            problem = (
                f"generation {number} is complete but not published; `hephaestus repair {frame}` publishes it"
            )
        owed, accepted = partition_accepted(find_missing_products(begun), frame, accept)
        return FrameStatus(
            str(frame), owed=owed, accepted=accepted, unfinished=len(begun), problem=problem, **tried
        )
    summary, known = read_summary(frame_store, current), read_upstream_state(frame_store)
    newest = summary.newest_day
    owed, accepted = partition_accepted(summary.missing, frame, accept)
    # a simulated cube among the real ones is one of an earlier version
    misplaced = summary.simulated and not tried["simulated"]
    outdated = summary.outdated and not is_later_schema(summary.schema)
    return FrameStatus(
        frame=str(frame),
        generation=current.number,
        built=datetime.fromtimestamp(frame_store.publication_time(current.number), UTC),
        newest=newest,
        latency_days=(today - newest).days if newest else None,
        pairs=summary.pairs,
        annotated=summary.annotated,
        absent=summary.absent,
        owed=owed,
        accepted=accepted,
        preliminary=summary.preliminary,
        stale=(f"{count_of(len(known.changed), 'granule')} changed upstream",) if known.changed else (),
        schema=summary.schema,
        gone=known.gone,
        bytes=summary.bytes,
        unfinished=len(begun),
        other_wording=summary.reworded,
        **{
            **tried,
            "simulated": tried["simulated"] or summary.simulated,
            "to_migrate": tried["to_migrate"] or misplaced or outdated or summary.reworded,
        },
    )
