"""Tests of `watch` over frames with nothing new: one request for the listing, rarely where it is quiet."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest

from archives import ALL, FRAME, copied, frame_store_of, settings_for
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.progress import NullListener
from hephaestus_build.operations.batch import build_frames, watch
from hephaestus_build.operations.look_schedule import (
    LONGEST_INTERVAL,
    is_due,
    look_interval,
    next_look,
    plan_round,
    share_for,
)
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.pipeline.kept.last_look import LastLook, keep_look, latest_news, read_last_look
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.simulation.server.faults import error_status

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def settings(upstream, whole_cube, tmp_path):
    """Settings of a cube to which a build has nothing to add; the archive's log is empty."""
    settings = settings_for(copied(whole_cube, tmp_path / "data"))
    (run,) = build_frames([ALL], settings)
    assert run.exit_code == 0
    assert not run.result.published
    upstream.clear_log()
    return settings


def look_once(settings, request=ALL):
    (run,) = watch([request], settings, interval=1, rounds=1)
    assert run.error == ""
    return run.result


def asked_paths(archive):
    return [entry.path for entry in archive.log]


def test_a_look_at_a_frame_with_nothing_new_is_one_request(upstream, settings):
    (whole,) = build_frames([ALL], settings)
    upstream.clear_log()
    assert look_once(settings) == whole.result
    (path,) = asked_paths(upstream)
    assert path.endswith(f"/{FRAME}/interferograms/")


def test_a_build_that_is_asked_for_asks_for_everything(upstream, settings):
    list(build_frames([ALL], settings))
    assert any(path.endswith("metadata.txt") for path in asked_paths(upstream))


def test_a_look_keeps_when_a_build_first_had_the_news(upstream, settings):
    store = frame_store_of(settings)
    before = read_last_look(store)
    assert before.reached is not None
    assert before.newest == max(pair.secondary for pair in upstream.archive.pairs(FRAME))
    look_once(settings)
    list(build_frames([ALL], settings))
    assert read_last_look(store).reached == before.reached
    keep_look(store, msgspec.structs.replace(before, reached=None, newest=None))  # as an earlier version
    look_once(settings)
    after = read_last_look(store)
    assert (after.reached, after.newest) == (before.at, before.newest)


def test_what_is_new_is_built_and_the_listing_asked_once(upstream, settings):
    upstream.archive.reprocess(FRAME, upstream.archive.pairs(FRAME)[2])
    assert look_once(settings).published
    listings = [path for path in asked_paths(upstream) if path.endswith("/interferograms/")]
    assert len(listings) == 1
    upstream.clear_log()
    assert not look_once(settings).published
    assert len(upstream.log) == 1


@pytest.mark.parametrize(
    "request_of_round",
    [replace(ALL, pairs="annotated"), replace(ALL, limit=3), replace(ALL, variables=("unwrapped_phase",))],
)
def test_another_request_is_a_build(upstream, settings, request_of_round):
    look_once(settings, request_of_round)
    assert len(upstream.log) > 1


def test_another_setting_is_a_build(upstream, settings):
    look_once(settings.model_copy(update={"overview_factor": 4}))
    assert frame_store_of(settings).published_generation().number == 2


def test_what_is_owed_is_asked_for_in_every_round(upstream, tmp_path):
    settings = settings_for(tmp_path / "data")
    upstream.faults.add(r"geo\.hgt\.tif", error_status(503))
    assert look_once(settings).owed
    look = read_last_look(frame_store_of(settings))
    assert (look.settled, look.pressing) == (False, True)
    upstream.faults.clear()
    assert not look_once(settings).owed
    assert read_last_look(frame_store_of(settings)).settled


def test_an_interrupted_build_is_gone_on_with(upstream, settings):
    frame_store_of(settings).staging.folder.mkdir()
    look_once(settings)
    assert len(upstream.log) > 1


def test_what_verify_found_changed_is_fetched(upstream, settings):
    pair = upstream.archive.pairs(FRAME)[1]
    upstream.archive.reprocess(FRAME, pair)
    changes = check_upstream(FRAME, settings, NullListener())
    assert changes
    upstream.clear_log()
    assert look_once(settings).published


def test_a_round_after_an_outage_says_why_and_looks_again(upstream, settings):
    upstream.faults.add(r"/interferograms/", error_status(503))
    (run,) = watch([ALL], settings, interval=1, rounds=1)
    assert "gives no listing" in run.error
    upstream.faults.clear()
    assert look_once(settings).pairs == 7


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"at": "x"}', b" " * 100_000])
def test_a_look_that_cannot_be_read_is_none(upstream, settings, content):
    frame_store_of(settings).look_file.write_bytes(content)
    assert read_last_look(frame_store_of(settings)) is None
    look_once(settings)
    assert len(upstream.log) > 1
    assert read_last_look(frame_store_of(settings)) is not None


def look(quiet_days: float, ago_days: float, **options) -> LastLook:
    at = NOW - timedelta(days=ago_days)
    facts = {"asked": "", "listing": "", "generation": 1, "settled": True, "pressing": False, **options}
    return LastLook(at=at, news=at - timedelta(days=quiet_days), **facts)


def test_the_interval_grows_with_the_quiet_and_has_an_end():
    intervals = [look_interval(timedelta(days=days), 0.1) for days in (-3, 0, 1, 12, 100, 139, 141, 4000)]
    assert all(before <= after for before, after in pairwise(intervals))
    assert intervals[:2] == [timedelta(0)] * 2
    assert intervals[-2:] == [LONGEST_INTERVAL] * 2
    assert look_interval(timedelta(days=4000), 0) == timedelta(0)


def test_a_frame_is_due_when_its_interval_is_over_or_nearly():
    assert not is_due(look(60, 5), NOW, 0.1)
    assert is_due(look(60, 5.5), NOW, 0.1)
    assert next_look(look(60, 5), 0.1) == NOW + timedelta(days=1)
    assert is_due(look(60, 0.01), NOW, 0)
    assert is_due(look(60, 1, pressing=True), NOW, 0.1)
    assert is_due(None, NOW, 0.1)
    assert is_due(look(60, -1), NOW, 0.1)  # from a clock that was ahead


def test_news_are_the_latest_moment_of_a_listing():
    first, second = Pair.parse("20200101_20200113"), Pair.parse("20200101_20200125")
    assert latest_news({first: "2026-01-02 03:04", second: None}) == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert latest_news({first: "02-Jan-2026 03:04", second: None}).year == 2026
    assert latest_news({first: None, second: "sometime"}) == datetime(2020, 1, 25, tzinfo=UTC)
    assert latest_news({}) is None


def test_an_archive_on_this_machine_is_asked_in_every_round_unless_set(upstream, settings):
    assert share_for(settings) == 0
    assert plan_round([ALL], settings).due == (ALL,)
    rarely = settings.model_copy(update={"quiet_share": 0.1})
    assert rarely.model_fields_set >= {"quiet_share"}
    coming = plan_round([ALL, replace(ALL, frame=Frame("201D_02400_131313"))], rarely)
    assert [item.frame.id for item in coming.due] == ["201D_02400_131313"]  # never looked at
    ((moment, frame),) = coming.later
    assert frame == FRAME
    assert timedelta(days=13) < moment - datetime.now(UTC) <= LONGEST_INTERVAL
    assert plan_round([ALL], rarely, moment).due == (ALL,)
    row = read_frame_status(rarely, FRAME)
    assert row.next_look == moment.replace(microsecond=0)
    assert row.last_look <= datetime.now(UTC)


def test_a_watched_folder_says_what_it_leaves_out_and_when_it_looks(
    upstream, settings, hephaestus, monkeypatch
):
    data = ["--data-dir", str(settings.data_dir.parent)]
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    monkeypatch.setenv("HEPHAESTUS_QUIET_SHARE", "0.1")
    code, out, err = hephaestus("watch", "--once", *data)
    assert (code, out) == (0, "")
    assert f"1 frame left out of this round, since nothing new has come for long: the first, {FRAME}" in err
    assert asked_paths(upstream) == []
    assert f"next look at {FRAME} on 20" in hephaestus("status", *data)[1]
    (row,) = json.loads(hephaestus("status", "--json", *data)[1])["frames"]
    assert row["next_look"] > row["last_look"]
    code, out, err = hephaestus("watch", "--once", FRAME.id, *data)
    assert (code, len(upstream.log)) == (0, 1)
    assert "nothing new, 7 pairs" in out
    monkeypatch.setenv("HEPHAESTUS_QUIET_SHARE", "0")
    assert "nothing new, 7 pairs" in hephaestus("watch", "--once", *data)[1]
    assert json.loads(hephaestus("status", "--json", *data)[1])["frames"][0]["next_look"] is None


def test_a_look_keeps_its_news_while_nothing_comes(upstream, settings):
    store = frame_store_of(settings)
    before = read_last_look(store)
    assert before.news.year < 2026  # when the simulated archive's newest pair appeared
    old = msgspec.structs.replace(before, at=before.at - timedelta(days=3))
    store.look_file.write_bytes(msgspec.json.encode(old))
    look_once(settings)
    after = read_last_look(store)
    assert after.news == before.news
    assert after.at > old.at
