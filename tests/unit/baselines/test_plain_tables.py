"""Tests that tables of a grid lose nothing but Markdown's marks on a terminal."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")

from hephaestus_baselines.reporting.aggregate_tables import make_result_tables
from hephaestus_baselines.reporting.plain_tables import PlainTable, plain_tables
from toy_results import result


def test_every_figure_interval_and_control_is_in_the_plain_tables() -> None:
    text = make_result_tables(
        [result(seed=0), result(seed=1, skill=0.9)], {}, allow_unseen=True
    ).to_markdown()
    parts = list(plain_tables(text))
    tables = [part for part in parts if isinstance(part, PlainTable)]
    plain = "\n".join(
        part if isinstance(part, str) else "\n".join(" ".join(row) for row in (part.columns, *part.rows))
        for part in parts
    )
    assert tables
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert re.findall(r"\d+\.\d+", text)
    assert sorted(re.findall(r"\d+\.\d+", plain)) == sorted(re.findall(r"\d+\.\d+", text))
    assert any(row[0].startswith("Single-timestep: control: ") for table in tables for row in table.rows)
    assert "F1, 95 %" in plain
    assert "above the best control" in plain
    assert not re.search(r"\*\*|<u>|\\[|*_]", plain)
    assert "the best score has a * and the second a +" in plain
