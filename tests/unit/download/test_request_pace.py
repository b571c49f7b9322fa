"""Tests of the pace of requests: at most the set rate over any 10 seconds, whoever asks."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.download.request_pace import (
    RATE_WINDOW,
    ProcessPace,
    RequestLimits,
    TurnQueue,
    spacing_of,
)

PORTAL = "https://portal.example.org/products/"
LOOPBACK = "http://127.0.0.1:8000/"


def most_in_a_window(times: list[float]) -> int:
    return max(sum(first <= other <= first + RATE_WINDOW for other in times) for first in times)


@given(st.integers(1, 400), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_window_of_ten_seconds_has_more_requests_than_the_rate_says(in_a_window, pauses):
    rate = in_a_window / RATE_WINDOW
    turns, now, begun = TurnQueue(), 100.0, []
    for pause in pauses:
        now += pause
        begun.append(now + turns.reserve("portal", rate, now))
    assert most_in_a_window(begun) <= in_a_window
    assert begun == sorted(begun)


def test_all_but_one_of_the_requests_of_a_window_are_used():
    turns = TurnQueue()
    begun = [turns.reserve("portal", 4.0, 0.0) for _ in range(400)]
    assert begun[-1] == pytest.approx(399 * spacing_of(4.0))
    assert begun[-1] / 399 < 1.03 / 4.0


def test_archives_do_not_wait_for_each_other_and_nothing_accumulates():
    turns = TurnQueue()
    assert turns.reserve("portal", 1.0, 0.0) == 0
    assert turns.reserve("store", 1.0, 0.0) == 0
    assert turns.reserve("portal", 1.0, 500.0) == 0
    assert turns.reserve("portal", 1.0, 500.0) == pytest.approx(spacing_of(1.0))


def test_threads_of_a_process_share_the_pace():
    slept: list[float] = []
    pace = ProcessPace(clock=lambda: 0.0, sleep=slept.append)
    threads = [threading.Thread(target=pace.wait_turn, args=("portal", 2.0)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == pytest.approx([turn * spacing_of(2.0) for turn in range(1, 9)])


@pytest.mark.parametrize(
    ("given_settings", "url", "rate"),
    [
        ({}, PORTAL, 4.0),
        ({}, LOOPBACK, None),
        ({}, "http://localhost:8000/", None),
        ({"requests_per_second": 4.0}, LOOPBACK, 4.0),
        ({"requests_per_second": 0.5}, PORTAL, 0.5),
        ({"share": "1/20"}, PORTAL, 0.2),
        ({"share": "3/4", "requests_per_second": 8.0}, LOOPBACK, 6.0),
        ({}, "no address", None),
    ],
)
def test_the_rate_is_that_of_the_settings(given_settings, url, rate):
    assert RequestLimits(Settings(**given_settings)).rate_of(url) == rate


@pytest.mark.parametrize(
    ("connections", "share", "allowed"),
    [(4, "1", 4), (4, "1/2", 2), (4, "1/20", 1), (16, "1/3", 5), (1, "1/2", 1)],
)
def test_a_share_of_the_connections_is_never_none_of_them(connections, share, allowed):
    assert Settings(connections=connections, share=share).connections_allowed == allowed


def test_twenty_shares_are_one_pace():
    rate = RequestLimits(Settings(share="1/20")).rate_of(PORTAL)
    begun = []
    for machine in range(20):
        turns = TurnQueue()
        begun += [turns.reserve("portal", rate, machine / 7) + machine / 7 for _ in range(8)]
    assert most_in_a_window(begun) <= 4 * RATE_WINDOW


@pytest.mark.parametrize(
    "share", ["0", "0/3", "3/2", "2", "-1/2", "1/0", "1/20/3", "half", "1e-3", "1 / 20", ""]
)
def test_a_share_is_a_part_of_one(monkeypatch, share):
    monkeypatch.setenv("HEPHAESTUS_SHARE", share)
    with pytest.raises(UsageError, match=r"setting share: .*a part of one, such as 1/20"):
        load_settings()


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "1001", "fast"])
def test_a_rate_is_a_number_above_zero(monkeypatch, rate):
    monkeypatch.setenv("HEPHAESTUS_REQUESTS_PER_SECOND", rate)
    with pytest.raises(UsageError, match="requests_per_second"):
        load_settings()
