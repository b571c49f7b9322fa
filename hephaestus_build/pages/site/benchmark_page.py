"""The benchmark's table as a page of the site, from the file that ``benchmark score --to`` writes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.pages.markup import Markup, fill_template, tag
from hephaestus_build.pages.site.index_page import SiteTotals
from hephaestus_build.pages.site.page_parts import (
    ICON,
    page_policy,
    render_credits,
    simulated_badge,
    site_style,
)

_TABLE = "leaderboard.csv"
_MAX_BYTES, _MOST_ROWS, _MOST_COLUMNS = 16 << 20, 2000, 60


def read_leaderboard(folder: Path) -> list[list[str]]:
    """Return the rows of ``leaderboard.csv``, the heads first.

    Raises
    ------
    HephaestusError
        If it is missing or no such table.
    """
    path = folder / _TABLE
    advice = f"`hephaestus benchmark score FILE... --to {folder}` writes it"
    try:
        text = read_plain_file(folder, _TABLE, _MAX_BYTES).decode("utf-8")
        rows = list(csv.reader(text.splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise HephaestusError(f"{path} cannot be read ({sanitize_text(reason, 200)}); {advice}") from error
    if not rows or len(rows) > _MOST_ROWS or any(len(row) > _MOST_COLUMNS for row in rows):
        raise HephaestusError(f"{path} is no table of the benchmark; {advice}")
    return [[sanitize_text(cell, 300) for cell in row] for row in rows]


def render_benchmark_page(rows: Sequence[Sequence[str]], totals: SiteTotals) -> str:
    """Return the table as a page, in HTML."""
    style, (heads, *body) = site_style(), rows
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", head.replace("_", " ")) for head in heads))),
        tag("tbody", *(tag("tr", *(tag("td", _short(cell)) for cell in row)) for row in body)),
    )
    return fill_template(
        "site_page.html",
        policy=page_policy(style),
        title=f"Benchmark{' (SIMULATED)' if totals.simulated else ''}",
        icon=ICON,
        style=Markup(style),
        up="index.html",
        kicker="Models that find deformation",
        heading="Benchmark",
        badge=simulated_badge(simulated=totals.simulated),
        place=count_of(len(body), "entry", "entries"),
        figure=Markup(""),
        content=tag("section", tag("div", table, class_="rows", tabindex="0"), class_="card"),
        credits=render_credits(simulated=totals.simulated),
        version=totals.version,
    )


def _short(cell: str) -> str:
    """Return a number with the digits that a table has room for."""
    try:
        return cell if len(cell) < 7 else f"{float(cell):.4g}"
    except ValueError:
        return cell
