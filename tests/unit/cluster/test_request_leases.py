"""Tests of the turns of a cluster's requests: as many leases, kept for as long as the rate needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.cluster.connection import parse_local_workers
from hephaestus_build.cluster.request_leases import turns_of
from hephaestus_build.core.errors import UsageError
from hephaestus_build.download.request_pace import RATE_WINDOW


@given(st.integers(1, 1000), st.lists(st.floats(0, 3), min_size=1, max_size=300))
def test_no_window_of_ten_seconds_has_more_requests_than_the_rate_says(in_a_window, pauses):
    rate = in_a_window / RATE_WINDOW
    turns, seconds = turns_of(rate)
    free, now, begun = [0.0] * turns, 0.0, []
    for pause in pauses:
        now = max(now + pause / rate, min(free))
        free[free.index(min(free))] = now + seconds
        begun.append(now)
    most = max(sum(first <= other <= first + RATE_WINDOW for other in begun) for first in begun)
    assert most <= in_a_window


@given(st.floats(0.1, 1000))
def test_nearly_all_requests_that_the_rate_allows_are_used(rate):
    turns, seconds = turns_of(rate)
    assert rate * 0.4 <= turns / seconds <= rate
    if rate >= 4:
        assert turns / seconds >= rate * 0.75


@pytest.mark.parametrize(
    "address",
    ["", "4", "local", "local:0", "local:-1", "local:99999", "http://10.0.0.7:8786", "tcp://", "file:///x",
     "tcp://user:secret@10.0.0.7:8786", "tcp://10.0.0.7:8786/../..", "tcp://a b:1"],
)  # fmt: skip
def test_what_is_no_address_of_a_cluster_is_refused(address):
    with pytest.raises(UsageError, match=r"--cluster .* is no cluster: .*local:4"):
        parse_local_workers(address)


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:8786", "tls://node1.example.org", "tcp://[::1]:8786"])
def test_addresses_of_schedulers(address):
    assert parse_local_workers(address) is None
