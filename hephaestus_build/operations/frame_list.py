"""The list of all frames of the archive, learnt from its tracks and kept in the data folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec

from hephaestus_build.core.atomic_io import translate_os_errors, write_json
from hephaestus_build.core.errors import HephaestusError, RefusedError, UnreachableError, UsageError
from hephaestus_build.core.frames import LAST_TRACK, Frame
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.sources.interferograms import InterferogramSource

log = logging.getLogger(__name__)

#: In the data folder.
FRAME_LIST = "frames.json"
#: A track is asked again no sooner than after this time.
LIST_AGE = timedelta(days=7)
#: So many tracks in a row without an answer, and no further one is asked.
MAX_SILENT_TRACKS = 3
_STAGE = "tracks"
_MAX_BYTES = 16 << 20  # two thousand frames take 50,000
_EMBEDDED = "embedded"


class TrackRecord(msgspec.Struct):
    """The frames of one track, as last listed.

    Attributes
    ----------
    asked : str
        When the archive was asked last and answered, UTC, ISO 8601.
    frames : list of str
        Ids.
    """

    asked: str
    frames: list[str]


class FrameListRecord(msgspec.Struct):
    """The file of the list.

    Attributes
    ----------
    archive : str
        Address of the archive.
    tracks : dict of str to TrackRecord
        Tracks by number.
    """

    archive: str
    tracks: dict[str, TrackRecord] = {}


@dataclass(frozen=True, repr=False)
class FrameList:
    """The frames that the archive has listed.

    Attributes
    ----------
    frames : tuple of Frame
        Sorted by id.
    updated : str
        When the archive last answered about a track, UTC, ISO 8601.
    """

    frames: tuple[Frame, ...]
    updated: str

    def __repr__(self) -> str:
        return f"<FrameList of {len(self.frames)} frames, {self.updated}>"


@dataclass(frozen=True)
class FrameListUpdate:
    """What an update of the list did.

    Attributes
    ----------
    frames : tuple of Frame
        Frames of the list now.
    added : tuple of Frame
        Those that were not in it before.
    asked, young : int
        Number of tracks that were asked, and of those that were not, since they were asked within a week.
    unchanged : dict of int to str
        Tracks whose earlier frames are kept although the archive lists none there now, and what it said.
    failed : dict of int to str
        Tracks that are still to be asked, and why.
    """

    frames: tuple[Frame, ...]
    added: tuple[Frame, ...]
    asked: int
    young: int
    unchanged: Mapping[int, str]
    failed: Mapping[int, str]

    @property
    def exit_code(self) -> int:
        """0 if every track is known, else 3."""
        return 3 if self.failed else 0


def read_frame_list(settings: Settings) -> FrameList | None:
    """Return the list in the data folder; None where there is none. No archive is asked.

    A list of simulated frames counts for their archive alone; ids of real ones hold everywhere.
    """
    record = _read_record(settings.data_dir)
    if record is None or (settings.is_simulated and record.archive != _archive_name(settings)):
        return None
    frames = _frames_of(record, settings)
    moments = [moment for track in record.tracks.values() if (moment := _parse_moment(track.asked))]
    updated = f"{max(moments):%Y-%m-%dT%H:%M:%SZ}" if moments else ""
    return FrameList(tuple(sorted(frames)), updated)


def update_frame_list(
    settings: Settings,
    source: InterferogramSource,
    *,
    force: bool = False,
    listener: ProgressListener | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FrameListUpdate:
    """Ask the archive for the frames of every track, one request each, and keep them.

    A track that answered within :data:`LIST_AGE` is not asked. The file is written after each answer, so that
    an update that was stopped goes on from there. Frames stay in the list if the archive lists none of their
    track any more.

    Parameters
    ----------
    settings : Settings
        Data folder, and which archive.
    source : InterferogramSource
        The archive.
    force : bool
        Whether to ask about tracks that answered within a week too.
    listener : ProgressListener, optional
        Receives progress.
    now : callable
        Returns the current time, UTC.

    Raises
    ------
    HephaestusError
        If the list is empty in the end, the archive refuses access, or the list cannot be written.
    """
    listener = listener or NullListener()
    archive = _archive_name(settings)
    record = _read_record(settings.data_dir)
    if record is None or record.archive != archive:
        record = FrameListRecord(archive)
    before = _frames_of(record, settings)
    tracks = source.tracks() if settings.is_simulated else range(1, LAST_TRACK + 1)
    due = [track for track in tracks if force or _is_due(record.tracks.get(str(track)), now())]
    unchanged: dict[int, str] = {}
    failed: dict[int, str] = {}
    silent = 0
    listener.stage(_STAGE, len(due))
    for track in due:
        if silent == MAX_SILENT_TRACKS:
            failed[track] = "not asked, since the archive does not answer"
            continue
        earlier = record.tracks.get(str(track))
        try:
            frames, said = [frame.id for frame in source.frames(track)], "it lists none"
            silent = 0
        except UnreachableError as error:
            failed[track], silent = str(error), silent + 1
            continue
        except RefusedError:
            raise
        except HephaestusError as error:
            frames, said, silent = [], str(error), 0
        finally:
            listener.advance(_STAGE)
        if not frames and earlier and earlier.frames:
            unchanged[track], frames = said, earlier.frames
        record.tracks[str(track)] = TrackRecord(now().isoformat(timespec="seconds"), frames)
        if frames:
            _write_record(settings.data_dir, record)
    found = _frames_of(record, settings)
    if not found:
        why = next(iter(failed.values()), f"none of {count_of(len(due), 'track')} lists a frame")
        raise HephaestusError(
            f"the list of frames is empty: {why}; asked {source.address}; check HEPHAESTUS_LICSAR_URL, "
            "or run `hephaestus frames --update` again later"
        )
    if due:
        _write_record(settings.data_dir, record)
    return FrameListUpdate(
        tuple(sorted(found)),
        tuple(sorted(found - before)),
        len(due) - sum(why.startswith("not asked") for why in failed.values()),
        len(tracks) - len(due),
        unchanged,
        failed,
    )


def newest_listed_day(source: InterferogramSource, frame: Frame) -> date | None:
    """Return the newest secondary date in the last kept listing of a frame; no archive is asked."""
    kept = source.kept_listing(frame)
    return max((pair.secondary for pair in kept.pairs), default=None) if kept else None


def _archive_name(settings: Settings) -> str:
    """Return the archive's address; that of the embedded one differs from run to run."""
    return _EMBEDDED if settings.is_archive_embedded else redact_url(settings.licsar_url)


def _is_due(track: TrackRecord | None, now: datetime) -> bool:
    """Return whether a track is to be asked: it never was, or long ago, or the clock has been set back."""
    asked = _parse_moment(track.asked) if track else None
    return asked is None or not timedelta(0) <= now - asked < LIST_AGE


def _parse_moment(text: str) -> datetime | None:
    with suppress(ValueError):
        moment = datetime.fromisoformat(text[:40])
        return moment.astimezone(UTC) if moment.tzinfo else None
    return None


def _frames_of(record: FrameListRecord, settings: Settings) -> set[Frame]:
    found: set[Frame] = set()
    for track in record.tracks.values():
        for name in track.frames:
            with suppress(UsageError):  # the file is no more trusted than the archive
                found.add(Frame(name))
    return {frame for frame in found if settings.is_simulated or not frame.is_simulated}


def _read_record(folder: Path) -> FrameListRecord | None:
    try:
        return msgspec.json.decode(read_plain_file(folder, FRAME_LIST, _MAX_BYTES), type=FrameListRecord)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning(
            "%s is not read (%s); `hephaestus frames --update` writes it again",
            folder / FRAME_LIST,
            sanitize_text(error, 200),
        )
        return None


def _write_record(folder: Path, record: FrameListRecord) -> None:
    with translate_os_errors(f"writing the list of frames {folder / FRAME_LIST}"):
        write_json(folder / FRAME_LIST, record)
