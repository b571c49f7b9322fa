"""Metrics of ``watch`` in the text format of Prometheus, for the textfile collector of node_exporter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path

from hephaestus_build import __version__
from hephaestus_build.core.atomic_io import write_atomic
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.operations.status import FrameStatus

_MAX_BYTES = 16 << 20  # 2,000 frames have two megabytes
_MAX_TOTALS = 2000
# A counter or a last moment of an earlier file, which goes on.
_KEPT = re.compile(
    r'(hephaestus_(?:\w+_total|last_good_round_timestamp_seconds)(?:\{(?:[a-z]+="[\w.:\[\]-]*",?)+\})?) '
    r"([0-9]{1,15}(?:\.[0-9]{1,9})?)",
    re.ASCII,
)
_LAST_GOOD = "hephaestus_last_good_round_timestamp_seconds"

Labels = Mapping[str, str]
Number = int | float


@dataclass(frozen=True)
class RoundFacts:
    """One round of ``watch``.

    Attributes
    ----------
    began, ended : datetime.datetime
        UTC.
    runs : sequence of BuildRun
        The run of each frame that was looked at.
    left_out : int
        Number of frames that were not due.
    received_bytes : int
        Bytes of content that arrived.
    answers : Counter
        Answers of servers by host and status code.
    """

    began: datetime
    ended: datetime
    runs: Sequence[BuildRun]
    left_out: int
    received_bytes: int
    answers: Counter[tuple[str, str]]

    @property
    def outcomes(self) -> dict[str, int]:
        """Numbers of frames by what became of them, as in the summary of a round."""
        failed = [run for run in self.runs if run.result is None or run.error]
        built = sum(run.result is not None and run.result.published for run in self.runs if run not in failed)
        return {
            "built": built,
            "unchanged": len(self.runs) - len(failed) - built,
            "failed": len(failed),
            "left_out": self.left_out,
        }

    @property
    def is_good(self) -> bool:
        """Whether no frame failed; what is owed is no failure."""
        return not self.outcomes["failed"]


def write_metrics_file(path: Path, facts: RoundFacts, statuses: Sequence[FrameStatus]) -> None:
    """Replace the file of metrics; counters go on from the file that is there.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    try:
        before = read_bounded(path, _MAX_BYTES).decode(errors="replace")
    except (OSError, ValueError):  # none yet, or something else
        before = ""
    write_atomic(path, format_metrics(facts, statuses, parse_kept(before)).encode())


def parse_kept(text: str) -> dict[str, float]:
    """Return the counters, and the time of the last good round, of an earlier file by series."""
    found = (match for line in text.splitlines() if (match := _KEPT.fullmatch(line)))
    return {match[1]: float(match[2]) for match, _ in zip(found, range(_MAX_TOTALS), strict=False)}


def format_metrics(
    facts: RoundFacts, statuses: Sequence[FrameStatus], kept: Mapping[str, float] | None = None
) -> str:
    """Return the metrics after a round.

    Parameters
    ----------
    facts : RoundFacts
        The round.
    statuses : sequence of FrameStatus
        The status of each watched frame.
    kept : mapping, optional
        Counters to go on from, as of :func:`parse_kept`.
    """
    page = _Page(kept or {})
    page.gauge("build_info", "Version of hephaestus-build.", [({"version": __version__}, 1)])
    page.gauge("last_round_timestamp_seconds", "End of the last round.", [({}, facts.ended.timestamp())])
    page.gauge(
        "last_round_duration_seconds",
        "Duration of the last round.",
        [({}, (facts.ended - facts.began).total_seconds())],
    )
    page.gauge("last_round_good", "1 if no frame failed in the last round.", [({}, int(facts.is_good))])
    good = facts.ended.timestamp() if facts.is_good else (kept or {}).get(_LAST_GOOD)
    page.gauge(
        "last_good_round_timestamp_seconds",
        "End of the last round in which no frame failed.",
        [] if good is None else [({}, good)],
    )
    outcomes = facts.outcomes
    page.gauge(
        "last_round_frames",
        "Frames of the last round by what became of them.",
        [({"outcome": name}, count) for name, count in outcomes.items()],
    )
    page.counter("rounds_total", "Rounds.", [({"good": str(facts.is_good).lower()}, 1)])
    page.counter(
        "builds_total",
        "Frames looked at by what became of them.",
        [({"outcome": name}, count) for name, count in outcomes.items() if name != "left_out"],
    )
    page.counter("received_bytes_total", "Bytes of content received.", [({}, facts.received_bytes)])
    page.counter(
        "answers_total",
        "Answers of servers to requests by status code; none: no answer came.",
        [({"host": host, "code": code}, count) for (host, code), count in sorted(facts.answers.items())],
    )
    _add_frames(page, statuses, facts.ended)
    return page.text


def _add_frames(page: _Page, statuses: Sequence[FrameStatus], now: datetime) -> None:
    """Add what is said of each frame."""

    def of_each(values: Iterable[Number | None]) -> list[tuple[Labels, Number]]:
        known = zip(statuses, values, strict=True)
        return [(_labels(item), value) for item, value in known if value is not None]

    page.gauge("pairs", "Interferograms in the published cube.", of_each(item.pairs for item in statuses))
    page.gauge(
        "owed_products",
        "Products that a later build must get, by the outcome of the last request.",
        [
            ({**_labels(item), "outcome": outcome}, sum(owed.outcome is outcome for owed in item.owed))
            for item in statuses
            for outcome in Outcome
            if not outcome.ok
        ],
    )
    page.gauge(
        "newest_acquisition_timestamp_seconds",
        "Start of the secondary date of the newest interferogram in the cube.",
        of_each(_timestamp(item.newest) for item in statuses),
    )
    page.gauge(
        "latency_since_acquisition_seconds",
        "From that date to the end of the round.",
        of_each(_seconds(_timestamp(item.newest), now.timestamp()) for item in statuses),
    )
    page.gauge(
        "newest_appearance_timestamp_seconds",
        "When the archive's newest product of the frame appeared, as of the last look.",
        of_each(_timestamp(item.appeared) for item in statuses),
    )
    page.gauge(
        "latency_since_appearance_seconds",
        "From then until a build had it, or to the end of the round while none has.",
        of_each(
            _seconds(_timestamp(item.appeared), _timestamp(item.reached) or now.timestamp())
            for item in statuses
        ),
    )
    page.gauge(
        "overdue",
        "1 if there was no new pair for more than the setting overdue_days.",
        of_each(int(item.overdue) for item in statuses),
    )


def _timestamp(moment: date | None) -> float | None:
    """Return the seconds since 1970 of a moment, or of the beginning of a day, UTC."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time(), UTC)
    return moment.timestamp()


def _seconds(since: float | None, until: float) -> float | None:
    return None if since is None else max(0.0, until - since)


def _labels(status: FrameStatus) -> Labels:
    return {"frame": status.frame, "simulated": str(status.simulated).lower()}


class _Page:
    """Families of metrics, one after the other."""

    def __init__(self, kept: Mapping[str, float]) -> None:
        self._kept, self._lines = kept, list[str]()

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def gauge(self, name: str, what: str, samples: Iterable[tuple[Labels, Number]]) -> None:
        self._add(name, "gauge", what, {_series(name, labels): value for labels, value in samples})

    def counter(self, name: str, what: str, samples: Iterable[tuple[Labels, Number]]) -> None:
        """Add counters: what is new beside those that go on."""
        family = f"hephaestus_{name}"
        totals = {series: value for series, value in self._kept.items() if series.partition("{")[0] == family}
        for labels, value in samples:
            series = _series(name, labels)
            totals[series] = totals.get(series, 0) + value
        self._add(name, "counter", what, totals)

    def _add(self, name: str, kind: str, what: str, samples: Mapping[str, Number]) -> None:
        if samples:
            self._lines += [f"# HELP hephaestus_{name} {what}", f"# TYPE hephaestus_{name} {kind}"]
            self._lines += [f"{series} {_number(value)}" for series, value in samples.items()]


def _series(name: str, labels: Labels) -> str:
    escaped = (f'{key}="{re.sub(r"[^A-Za-z0-9_.:+-]", "_", value)}"' for key, value in labels.items())
    inside = ",".join(escaped)
    return f"hephaestus_{name}{{{inside}}}" if inside else f"hephaestus_{name}"


def _number(value: Number) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
