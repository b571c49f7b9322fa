"""Tests of the report of the training benchmark: ratios, and the search for a batch that fills a card."""

from __future__ import annotations

from typing import Any

import pytest

from hephaestus_baselines.performance.training_report import (
    find_largest_batch,
    render_training_report,
    summarize_row,
)

ROW: dict[str, Any] = {
    "title": "ResNet-50", "series": False, "batch": 64, "precision": "bf16-mixed", "model": 900.0,
    "loader": 1200.0, "preparation": 3600.0, "whole": 830.0, "decoding": 1500.0, "published": 1.5,
}  # fmt: skip


def test_the_loop_is_compared_with_its_slowest_part_and_with_parts_in_line() -> None:
    row = summarize_row(ROW)
    assert row["ratio"] == pytest.approx(830 / 900)
    assert row["met"]
    assert row["in_line"] == pytest.approx(1 / (1 / 900 + 1 / 1200 + 1 / 3600))
    slow = summarize_row({**ROW, "loader": 400.0, "whole": 300.0})
    assert slow["ratio"] == pytest.approx(0.75)
    assert not slow["met"]


@pytest.mark.parametrize(("room", "found"), [(0, 0), (1, 1), (63, 32), (64, 64), (10_000, 256)])
def test_the_largest_batch_is_found_by_trying(room: int, found: int) -> None:
    tried = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= room

    assert find_largest_batch(fits, 256) == found
    assert max(tried) <= max(1, 2 * found)  # nothing far beyond the memory is tried


def test_the_page_says_what_was_measured_and_what_was_left_out() -> None:
    result = {
        "machine": {"cores": 2, "python": "3.13", "torch": "2.11"},
        "device": "CPU (x86_64), 1 threads",
        "data": {"rows": 300, "columns": 360, "size": 128, "readers": 1},
        "rows": [summarize_row(ROW), summarize_row({**ROW, "series": True, "whole": 300.0})],
        "left_out": ["UNet, series: out of memory"],
    }
    page = render_training_report(result)
    assert "simulated" in page
    assert "| ResNet-50 | single | 64, bf16-mixed | 900 | 1.2e+03 | 3.6e+03 | 830 | 0.92 |" in page
    assert "in 1 of 2 rows" in page
    assert "Left out: UNet, series: out of memory" in page
