"""Tests of the loader report: ratios within rounds, and targets that can be missed."""

from __future__ import annotations

from typing import Any

import pytest

from hephaestus_baselines.performance.loader_report import (
    BARE_PUBLISHED_READER,
    COMPACT_READER,
    EXPANDED_READER,
    ONE_PROCESS,
    PUBLISHED_READER,
    TWO_WORKERS,
    WEBDATASET_READER,
    render_loader_report,
    summarize_loader_runs,
)

ROWS = {
    (PUBLISHED_READER, ONE_PROCESS): 0.25,
    (BARE_PUBLISHED_READER, ONE_PROCESS): 0.5,
    (WEBDATASET_READER, ONE_PROCESS): 20.0,
    (COMPACT_READER, ONE_PROCESS): 75.0,
    (EXPANDED_READER, ONE_PROCESS): 25.0,
    (PUBLISHED_READER, TWO_WORKERS): 0.5,
    (BARE_PUBLISHED_READER, TWO_WORKERS): 1.0,
    (WEBDATASET_READER, TWO_WORKERS): 20.0,
    (COMPACT_READER, TWO_WORKERS): 100.0,
}


def runs(speeds: tuple[float, ...] = (1.0, 0.5, 2.0)) -> list[dict[str, Any]]:
    """Return rounds of varying machine speed, with constant ratios."""
    rows: list[dict[str, Any]] = []
    for turn, speed in enumerate(speeds):
        rows += [
            {"round": turn, "row": row, "readers": readers, "samples_per_second": rate * speed}
            for (row, readers), rate in ROWS.items()
        ]
        rows.append({"round": turn, "row": "first batch, fork", "seconds": 1.0 + turn})
        rows.append({"round": turn, "row": "growth of memory", "bytes": 0})
    return [*rows, {"round": 0, "row": "first batch, spawn", "seconds": 5.0}]


def test_ratios_are_of_one_round_and_targets_are_judged_by_them() -> None:
    result = summarize_loader_runs(runs())
    rows = {(row["row"], row["readers"]): row for row in result["rows"]}
    assert rows[COMPACT_READER, ONE_PROCESS]["samples_per_second"] == 75
    assert rows[COMPACT_READER, ONE_PROCESS]["times_published"] == pytest.approx(300)
    assert rows[COMPACT_READER, ONE_PROCESS]["times_published_bare"] == pytest.approx(150)
    assert rows[EXPANDED_READER, ONE_PROCESS]["times_webdataset"] == pytest.approx(1.25)
    met = {item["target"]: item["met"] for item in result["targets"]}
    assert met[f"{COMPACT_READER}, {ONE_PROCESS}: times the {PUBLISHED_READER}, at least"]
    assert not met[f"{EXPANDED_READER}, {ONE_PROCESS}: times the {WEBDATASET_READER}, at least"]
    assert not met["first batch of two forked workers, seconds, less than"]  # 2.0 is not less


def test_the_page_says_that_the_data_is_simulated_and_what_was_missed() -> None:
    page = render_loader_report(
        {
            **summarize_loader_runs(runs()),
            "world": {"rows": 2500, "columns": 3000, "pairs": 24, "series": 9},
            "sample": {"size": 512},
            "machine": {"cores": 2, "python": "3.11", "torch": "2.4"},
        }
    )
    assert "simulated" in page.splitlines()[0]
    assert "| 1.3 | 1.25 | **no** |" in page
