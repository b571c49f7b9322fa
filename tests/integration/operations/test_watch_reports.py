"""Tests of what `watch` tells the outside: metrics for Prometheus, heartbeats, overdue frames."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from archives import FRAME, copied
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.settings import load_settings
from hephaestus_build.core.terminal import stop_logging_to_file
from hephaestus_build.doctor.configuration import settings_with_origins
from hephaestus_build.download.traffic import TrafficCounter
from hephaestus_build.operations.heartbeat import send_heartbeat
from hephaestus_build.operations.status import FrameStatus, describe_overdue, read_frame_status
from hephaestus_build.operations.watch_metrics import RoundFacts, format_metrics, parse_kept
from hephaestus_build.simulation.server import faults

parse = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SECRET = "0b5c9d3a-secret"

Call = Callable[..., tuple[int, str, str]]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    """Return the samples of a page, read by Prometheus's own client."""
    return {
        (sample.name.removeprefix("hephaestus_"), frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value_of(samples: Samples, name: str, **labels: str) -> float:
    """Return the one sample of a name that has these labels, possibly among others."""
    (found,) = (
        value for (each, its), value in samples.items() if each == name and set(labels.items()) <= its
    )
    return found


@pytest.fixture
def hephaestus(
    upstream: object, whole_cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hephaestus: Call
) -> Iterator[Call]:
    """Run a command on a copy of a whole cube."""
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(copied(whole_cube, tmp_path / "data")))
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    yield hephaestus
    stop_logging_to_file()


@pytest.fixture
def pulse() -> Iterator[ThreadingHTTPServer]:
    """A service that takes heartbeats, and the paths that it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)  # type: ignore[attr-defined]
            self.send_response(server.status)  # type: ignore[attr-defined]
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.paths, server.status = [], 200  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"


def test_metrics_of_a_watch_are_read_by_prometheus_and_counters_go_on(
    hephaestus: Call, upstream, tmp_path: Path
) -> None:
    file = tmp_path / "hephaestus.prom"
    words = ("watch", str(FRAME), "--once", "--metrics", str(file))
    assert hephaestus(*words)[0] in (0, 3)
    first = samples_of(file.read_text())
    assert value_of(first, "pairs", frame=str(FRAME)) == 7
    assert value_of(first, "last_round_good") == 1
    assert value_of(first, "last_round_frames", outcome="unchanged") == 1
    listed = sum(entry.status == 200 for entry in upstream.log)
    assert value_of(first, "answers_total", host="127.0.0.1", code="200") >= listed > 0
    owed = {dict(labels)["outcome"] for (name, labels) in first if name == "owed_products"}
    assert owed == {"absent", "refused", "unreachable", "corrupt"}
    appeared = value_of(first, "newest_appearance_timestamp_seconds", frame=str(FRAME))
    assert (
        0 <= value_of(first, "latency_since_appearance_seconds") <= datetime.now(UTC).timestamp() - appeared
    )
    assert value_of(first, "latency_since_acquisition_seconds") > 0

    upstream.faults.add(r"/interferograms/", faults.error_status(403))
    assert hephaestus(*words)[0] == 1
    second = samples_of(file.read_text())
    assert value_of(second, "last_round_good") == 0
    good = "last_good_round_timestamp_seconds"
    assert value_of(second, good) == pytest.approx(value_of(first, good), abs=0.01)
    assert (
        value_of(second, "rounds_total", good="true") == value_of(second, "rounds_total", good="false") == 1
    )
    assert value_of(second, "answers_total", code="403") > 0
    assert value_of(second, "answers_total", code="200") >= value_of(first, "answers_total", code="200")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".toml"].count("hephaestus.prom") == 1
    assert file.stat().st_mode & 0o044 == 0o044  # the exporter is another user


@pytest.mark.parametrize("name", ["missing/x.prom", "."])
def test_a_file_of_metrics_that_cannot_be_is_wrong_usage(hephaestus: Call, tmp_path: Path, name: str) -> None:
    code, _, err = hephaestus("watch", str(FRAME), "--once", "--metrics", str(tmp_path / name))
    assert code == 2
    assert "--metrics" in err


@pytest.mark.parametrize(
    "text",
    ["", "\0" * 1000, 'hephaestus_answers_total{host="a\\"b"} 1', "hephaestus_x_total NaN", "other_total 5"],
)
def test_a_file_of_something_else_adds_nothing(text: str) -> None:
    assert parse_kept(text) == {}


def test_counters_are_added_and_labels_cannot_break_the_page() -> None:
    answers = Counter({('host\n"}', "200"): 2})
    facts = RoundFacts(NOW - timedelta(seconds=90), NOW, (), 3, 1000, answers)
    status = FrameStatus("124D_04854_171313", newest=date(2026, 11, 20), appeared=NOW - timedelta(days=2))
    text = format_metrics(facts, [status], {"hephaestus_received_bytes_total": 500.0})
    samples = samples_of(text)
    assert value_of(samples, "received_bytes_total") == 1500
    assert value_of(samples, "last_round_duration_seconds") == 90
    assert value_of(samples, "last_round_frames", outcome="left_out") == 3
    assert value_of(samples, "latency_since_acquisition_seconds") == 7.5 * 86400
    assert value_of(samples, "latency_since_appearance_seconds") == 2 * 86400  # no build has it yet
    assert parse_kept(text)["hephaestus_received_bytes_total"] == 1500


def test_the_hosts_that_are_counted_are_bounded() -> None:
    traffic = TrafficCounter()
    for number in range(1000):
        traffic.add_answer(f"http://host{number}.invalid/", 200)
    traffic.add_answer("nonsense", None)
    assert len(traffic.answers) < 50
    assert sum(traffic.answers.values()) == 1001


def test_a_heartbeat_follows_a_good_round_alone_and_its_address_is_never_shown(
    hephaestus: Call, upstream, pulse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEPHAESTUS_HEARTBEAT_URL", address_of(pulse))
    log = tmp_path / "watch.log"
    words = ("watch", str(FRAME), "--once", "-v", "--log-file", str(log))
    said = hephaestus(*words)
    assert pulse.paths == [f"/{SECRET}"]
    pulse.status = 500
    refused = hephaestus(*words)
    assert refused[0] == said[0]
    assert "heartbeat was not taken by 127.0.0.1 (HTTP 500)" in refused[2]
    upstream.faults.add(r"/interferograms/", faults.error_status(403))
    assert hephaestus(*words)[0] == 1
    assert len(pulse.paths) == 2
    shown = log.read_text() + "".join(text for _, *texts in (said, refused) for text in texts)
    assert SECRET not in shown
    assert SECRET not in repr(load_settings())


def test_a_heartbeat_that_nobody_takes_is_one_line(pulse, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(heartbeat_url=address_of(pulse))
    assert send_heartbeat(settings) == ""
    pulse.server_close()
    pulse.shutdown()
    with caplog.at_level(logging.DEBUG):
        fault = send_heartbeat(settings)
    assert "127.0.0.1" in fault
    assert SECRET not in fault + caplog.text


def test_the_address_of_a_heartbeat_is_checked_and_hidden() -> None:
    with pytest.raises(UsageError, match="heartbeat_url") as raised:
        load_settings(heartbeat_url=f"ftp://{SECRET}")
    assert SECRET not in str(raised.value)
    settings = load_settings(heartbeat_url=f"https://hc.invalid/{SECRET}")
    shown = settings_with_origins(settings, {"heartbeat_url": "file"})
    assert shown["heartbeat_url"]["value"] == "https://hc.invalid/..."


def status_of(frame: str, **facts: object) -> FrameStatus:
    return FrameStatus(frame, **facts)  # type: ignore[arg-type]


def test_overdue_counts_from_the_newest_listed_date_and_not_for_simulated_frames(
    whole_cube: Path, tmp_path: Path, upstream
) -> None:
    data = copied(whole_cube, tmp_path / "data")
    today = date(2021, 6, 1)
    silent = read_frame_status(load_settings(data_dir=data), FRAME, today)
    assert silent.simulated
    assert not silent.overdue
    told = read_frame_status(load_settings(data_dir=data, overdue_days=18), FRAME, today)
    assert told.overdue
    assert not read_frame_status(load_settings(data_dir=data, overdue_days=0), FRAME, today).overdue
    waited = (today - (told.newest_listed or told.newest)).days
    assert f"no new pair of {FRAME} for {waited} days" in describe_overdue([told], 18, today)
    recent = status_of("124D_04854_171313", newest=date(2019, 1, 1), newest_listed=date(2021, 5, 20))
    assert describe_overdue([recent], 18, today) == ""
    several = describe_overdue(
        [
            status_of("124D_04854_171313", newest=date(2021, 5, 1), overdue=True),
            status_of("084A_05009_131313", newest=date(2021, 4, 1), overdue=True),
        ],
        18,
        today,
    )
    assert "2 frames, from 124D_04854_171313 (31 days) to 084A_05009_131313 (61 days)" in several


def test_status_and_watch_say_what_is_overdue(hephaestus: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPHAESTUS_OVERDUE_DAYS", "18")
    for words in (("status", str(FRAME)), ("watch", str(FRAME), "--once")):
        assert f"no new pair of {FRAME} for " in hephaestus(*words)[2]
