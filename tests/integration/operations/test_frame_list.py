"""Tests of the list of all frames: learnt from the archive's tracks, kept, and used by searches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import json_page
from hephaestus_build.core.errors import HephaestusError, RefusedError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.operations.frame_list import (
    FRAME_LIST,
    LIST_AGE,
    MAX_SILENT_TRACKS,
    FrameListUpdate,
    read_frame_list,
    update_frame_list,
)
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import Fault
from hephaestus_build.sources.licsar.portal import LicsarPortal

Command = Callable[..., tuple[int, str, str]]
ETNA = "124D_05291_081406"
UNPUBLISHED = ["124D_05650_131313", "044A_05309_131313", "001D_12500_101010"]
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def listing(upstream: ArchiveServer) -> Iterator[ArchiveServer]:
    """The small archive, whose tracks list real-looking frames too; they are gone afterwards."""
    upstream.archive.listed_frames = [ETNA, *UNPUBLISHED]
    yield upstream
    upstream.reset()


@pytest.fixture
def settings(tmp_path: Path, listing: ArchiveServer) -> Settings:
    return load_settings(data_dir=tmp_path / "data", timeout=5, retries=0)


def update(settings: Settings, *, now: datetime = NOW, force: bool = False) -> FrameListUpdate:
    with LicsarPortal(settings) as portal:
        return update_frame_list(settings, portal, now=lambda: now, force=force)


def tracks_asked(server: ArchiveServer) -> list[str]:
    found = [entry.path.rstrip("/").rpartition("/")[2] for entry in server.log]
    server.clear_log()
    return found


def test_every_track_is_asked_once_a_week_and_the_list_is_kept(
    settings: Settings, listing: ArchiveServer
) -> None:
    first = update(settings)
    assert [frame.id for frame in first.frames] == sorted([ETNA, *UNPUBLISHED])
    assert first.added == first.frames
    assert first.exit_code == 0
    assert tracks_asked(listing) == [str(track) for track in range(1, 176)]

    listing.archive.listed_frames.append("044A_05508_131313")
    again = update(settings, now=NOW + LIST_AGE - timedelta(seconds=1))
    assert (again.asked, again.young, again.added) == (0, 175, ())
    assert tracks_asked(listing) == []
    later = update(settings, now=NOW + LIST_AGE)
    assert [frame.id for frame in later.added] == ["044A_05508_131313"]
    assert len(tracks_asked(listing)) == 175
    assert update(settings, now=NOW + LIST_AGE, force=True).asked == 175
    kept = read_frame_list(settings)
    assert kept is not None
    assert kept.frames == later.frames
    assert kept.updated == "2026-12-04T12:00:00Z"


def test_a_clock_that_was_set_back_does_not_keep_a_list_for_years(settings: Settings) -> None:
    update(settings, now=NOW + timedelta(days=3650))
    assert update(settings).asked == 175


def test_an_update_that_was_stopped_goes_on_where_it_was(
    settings: Settings, listing: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LicsarPortal.frames

    def stopped(self: LicsarPortal, track: int) -> tuple[Frame, ...]:
        if track == 100:
            raise KeyboardInterrupt
        return whole(self, track)

    monkeypatch.setattr(LicsarPortal, "frames", stopped)
    with pytest.raises(KeyboardInterrupt):
        update(settings)
    monkeypatch.undo()
    tracks_asked(listing)
    update(settings)
    asked = tracks_asked(listing)
    # what was learnt after the last track with frames was not written down yet
    assert asked == [str(track) for track in range(45, 176)]


def test_an_archive_that_falls_silent_is_left_alone_and_what_is_known_stays(
    settings: Settings, listing: ArchiveServer
) -> None:
    listing.faults.add(r"/LiCSAR_products/(4[5-9]|[5-9]\d|1\d\d)/", Fault(status=503))
    done = update(settings)
    assert [frame.id for frame in done.frames] == ["001D_12500_101010", "044A_05309_131313"]
    assert done.exit_code == 3
    assert len(done.failed) == 175 - 44
    assert len(tracks_asked(listing)) == 44 + MAX_SILENT_TRACKS
    listing.faults.clear()
    again = update(settings)
    assert again.exit_code == 0
    assert again.asked == 175 - 44  # only those that are still to be asked
    assert {frame.id for frame in again.added} == {ETNA, "124D_05650_131313"}


def test_tracks_that_are_lost_or_emptied_upstream_keep_their_frames(
    settings: Settings, listing: ArchiveServer
) -> None:
    before = update(settings)
    listing.archive.listed_frames = ["001D_12500_101010"]
    after = update(settings, now=NOW + LIST_AGE)
    assert after.frames == before.frames
    assert set(after.unchanged) == {44, 124}


def test_a_hostile_listing_adds_nothing_but_frames_of_its_track(
    settings: Settings, listing: ArchiveServer
) -> None:
    hostile = [
        "../../../etc/passwd",
        "198A_00210_131313",
        "045A_05309_131313",
        "\x1b[2J",
        "044A_%2e%2e_131313",
    ]
    listing.archive.extra_links["44"] = hostile
    found = update(settings).frames
    assert [frame.id for frame in found if frame.track == 44] == ["044A_05309_131313"]
    assert not any(frame.is_simulated or frame.track == 45 for frame in found)


@pytest.mark.parametrize("count", [501, 25_000])
def test_a_track_with_more_frames_than_any_has_is_not_taken(
    count: int, settings: Settings, listing: ArchiveServer
) -> None:
    listing.archive.extra_links["44"] = [f"044A_{number:05d}_131313" for number in range(5000, 5000 + count)]
    done = update(settings)
    assert not [frame for frame in done.frames if frame.track == 44]
    assert ETNA in [frame.id for frame in done.frames]


def test_an_archive_without_any_frame_or_without_access_is_an_error(
    settings: Settings, listing: ArchiveServer
) -> None:
    listing.archive.listed_frames = []
    with pytest.raises(HephaestusError, match=r"none of 175 tracks lists a frame; .* HEPHAESTUS_LICSAR_URL"):
        update(settings)
    assert read_frame_list(settings) is None
    listing.portal.login = ("me", "secret")
    tracks_asked(listing)
    with pytest.raises(RefusedError):
        update(settings)
    assert len(tracks_asked(listing)) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"archive": 3}', b"[" * 10_000, b"\xff\xfe"])
def test_a_damaged_list_is_no_list(damage: bytes, settings: Settings) -> None:
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / FRAME_LIST).write_bytes(damage)
    assert read_frame_list(settings) is None
    assert update(settings).asked == 175


def test_the_command_learns_and_searches_offline(
    hephaestus: Command, tmp_path: Path, listing: ArchiveServer
) -> None:
    data = ["--data-dir", str(tmp_path)]
    code, _, err = hephaestus("frames", "--update", *data)
    assert code == 0
    assert "4 frames known" in err
    assert "175 tracks asked" in err
    tracks_asked(listing)
    code, out, _ = hephaestus("frames", "--json", *data)
    found = json.loads(out)
    assert not json_page.differences("frames", found)
    assert {item["frame"] for item in found["frames"]} == {*published_frames(), *UNPUBLISHED}
    assert sum(item["published"] for item in found["frames"]) == 38
    # where a frame lies follows from track, direction and latitude: Sentinel-1 sees Etna on track 44 too
    code, out, _ = hephaestus("frames", "--near", "37.75,15.0", "--json", *data)
    assert [item["frame"] for item in json.loads(out)["frames"]] == ["044A_05309_131313", ETNA]
    code, out, _ = hephaestus("frames", "etna", "--json", *data)
    assert [item["found_inside"] for item in json.loads(out)["frames"]] == [[], ["Etna"]]
    code, out, _ = hephaestus("frames", "--published", "--json", *data)
    assert len(json.loads(out)["frames"]) == 38
    code, out, _ = hephaestus("frames", "044A", "--csv", *data)
    assert out.splitlines()[1].startswith("044A_05309_131313,ascending,36.91,")
    assert tracks_asked(listing) == []


def test_the_latency_of_a_frame_is_known_once_its_listing_was_read(
    hephaestus: Command, tmp_path: Path, upstream: ArchiveServer
) -> None:
    data = ["--simulated", "--data-dir", str(tmp_path)]
    assert hephaestus("frames", "--update", *data)[0] == 0
    frame = upstream.archive.world.frames[0]
    [known] = json.loads(hephaestus("frames", "--json", *data)[1])["frames"]
    assert (known["frame"], known["newest"], known["latency_days"]) == (frame, None, None)
    assert hephaestus("plan", frame, *data)[0] == 0
    [known] = json.loads(hephaestus("frames", "--json", *data)[1])["frames"]
    newest = max(pair.secondary for pair in upstream.archive.pairs(frame))
    assert known["newest"] == newest.isoformat()
    assert known["latency_days"] == (datetime.now(UTC).date() - newest).days


def test_the_list_of_the_embedded_archive_is_found_by_the_next_command(
    hephaestus: Command, tmp_path: Path
) -> None:
    data = ["--simulated", "--data-dir", str(tmp_path)]
    code, _, err = hephaestus("frames", "--update", *data)
    assert (code, "3 of them new; 3 tracks asked" in err, "add --update" in err) == (0, True, False)
    assert len(json.loads(hephaestus("frames", "--json", *data)[1])["frames"]) == 3
    assert "0 tracks asked, 3 not, since" in hephaestus("frames", "--update", *data)[2]


def test_all_takes_the_list_and_says_so(
    hephaestus: Command, tmp_path: Path, listing: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    def note(requests: list[object], *_: object, **__: object) -> Iterator[None]:
        handed.extend(str(request.frame) for request in requests)  # type: ignore[attr-defined]
        return iter(())

    monkeypatch.setattr("hephaestus_build.cli.build.build_frames", note)
    data = ["--data-dir", str(tmp_path)]
    assert hephaestus("frames", "--update", *data)[0] == 0
    code, _, err = hephaestus("build", "--all", *data)
    assert code == 0
    assert set(handed) == {*published_frames(), *UNPUBLISHED}
    assert "41 frames, as listed on" in err
    handed.clear()
    assert hephaestus("build", "--published", *data)[0] == 0
    assert set(handed) == set(published_frames())


def test_a_file_of_frames_is_read_with_comments_and_faults_name_its_line(
    hephaestus: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    def note(requests: list[object], *_: object, **__: object) -> Iterator[None]:
        handed.extend(str(request.frame) for request in requests)  # type: ignore[attr-defined]
        return iter(())

    monkeypatch.setattr("hephaestus_build.cli.build.build_frames", note)
    names = tmp_path / "frames.txt"
    build = ["build", "--data-dir", str(tmp_path), "--frames-file", str(names)]
    names.write_text(f"\ufeff# volcanoes of mine\n\n etna   # by name\n{ETNA}\n044a_05309_131313\n")
    assert hephaestus(*build)[0] == 0
    assert handed == [ETNA, "044A_05309_131313"]
    for content, fault in (
        ("etna\nenta\n", "line 2: 'enta' is not a frame id"),
        ("# nothing\n", "names no frame"),
        ("\0\0", "null characters"),
    ):
        names.write_text(content)
        code, _, err = hephaestus(*build)
        assert code == 2
        assert fault in err
    code, _, err = hephaestus(*build, "--all")
    assert code == 2
    assert "give one of: frames, --all, --published, --frames-file" in err
    names.unlink()
    assert "cannot be read (No such file" in hephaestus(*build)[2]
