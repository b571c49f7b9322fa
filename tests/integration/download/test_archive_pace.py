"""Tests of the pace of requests as the archive sees it: nothing is asked faster than the settings say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from archives import ALL, FRAME, settings_for
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.request_pace import RequestLimits, spacing_of
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.http_server import (
    HttpRequest,
    HttpResponse,
    LoopbackServer,
    RequestLogEntry,
)
from hephaestus_build.sources.era5.cds_session import SingleOriginSession

RATE = 25.0
#: Seconds by which a request may arrive later than it began, on a busy machine.
DELAY = 0.3
#: Seconds that an answer takes.
PAUSE = 0.06


def check_pace(log: list[RequestLogEntry], rate: float = RATE) -> None:
    begun = sorted(entry.started for entry in log)
    assert len(begun) > 10
    for first, time in enumerate(begun):
        for last in range(first + 1, len(begun)):
            assert begun[last] - time >= (last - first) * spacing_of(rate) - DELAY


def app(request: HttpRequest) -> HttpResponse:
    if request.path == "/moved":
        return HttpResponse(302, b"", {"Location": f"{request.base_url}/page"})
    return HttpResponse(200, b"{}", {"Content-Type": "application/json"})


def test_pages_headers_redirects_and_the_cds_share_one_pace(tmp_path):
    settings = Settings(cache_dir=tmp_path, requests_per_second=RATE, connections=8)
    with LoopbackServer([app]) as server, HttpClient(settings) as client, HttpClient(settings) as other:
        session = SingleOriginSession(HttpUrl.parse(server.base_url), 5, RequestLimits(settings))
        asks = [
            lambda: client.get_text(f"{server.base_url}/moved"),
            lambda: other.get_text(f"{server.base_url}/page"),
            lambda: client.head(f"{server.base_url}/page"),
            lambda: session.get(f"{server.base_url}/job"),
        ]
        with ThreadPoolExecutor(12) as pool:
            for answer in pool.map(lambda ask: ask(), asks * 6):
                assert answer.ok
        session.close()
        assert len(server.log) == 30
        check_pace(server.log)


def most_at_once(log: list[RequestLogEntry]) -> int:
    """Return how many requests to the portal were answered at one time at most.

    Each is answered for :data:`PAUSE` seconds. A response has ended for its client before the server has
    written that down.
    """
    begun = [entry.started for entry in log if entry.path.startswith("/LiCSAR")]
    return max(sum(other <= moment < other + PAUSE for other in begun) for moment in begun)


def test_a_build_keeps_the_pace_and_the_places(upstream, tmp_path):
    upstream.faults.add("", faults.delay_response(PAUSE))
    settings = settings_for(tmp_path, connections=2, requests_per_second=RATE, workers=8)
    runs = list(build_frames([ALL], settings))
    assert [run.exit_code for run in runs] == [0]
    check_pace(upstream.log)
    assert most_at_once(upstream.log) <= 2


def test_frames_at_once_are_no_more_than_connections(upstream, tmp_path):
    upstream.faults.add("", faults.delay_response(PAUSE))
    settings = settings_for(tmp_path, connections=1, workers=8)
    other = replace(ALL, frame=Frame("124D_04854_171313"))
    list(build_frames([ALL, other], settings, at_a_time=8))
    assert most_at_once(upstream.log) == 1


def test_plan_says_what_the_pace_means(upstream, tmp_path, hephaestus, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path))
    code, said, _ = hephaestus("plan", FRAME.id, "--pairs", "all")
    assert code == 0
    assert "21 requests to the portal, 4 at once; unlimited per second on this machine" in said
    monkeypatch.setenv("HEPHAESTUS_REQUESTS_PER_SECOND", "4")
    monkeypatch.setenv("HEPHAESTUS_SHARE", "1/20")
    code, said, _ = hephaestus("plan", FRAME.id, "--pairs", "all")
    assert "21 requests to the portal, 1 at once, 0.2 a second: 2 min 38 s or more" in said
