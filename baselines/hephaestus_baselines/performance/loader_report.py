"""What a measurement of reading comes to, as pure functions: medians, ratios, targets, a page to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

PUBLISHED, WEBDATASET = "published pattern", "WebDataset of tensors"
#: Without the looks at whole masks that the published reader takes.
BARE = "published pattern, bare"
COMPACT, EXPANDED = "compact", "expanded on the CPU"
ONE, TWO = "one process", "two workers"
#: (row, readers): at least so many times (the published pattern, the WebDataset).
TARGETS: Mapping[tuple[str, str], tuple[float, float]] = {
    (COMPACT, ONE): (200, 3),
    (EXPANDED, ONE): (80, 1.3),
    (COMPACT, TWO): (130, 3),
}
FIRST_BATCH = 2.0


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians by row, ratios within rounds, and which targets were met. Pure.

    Parameters
    ----------
    runs : sequence of mapping
        Rows of rounds, as :meth:`Bench.run` collects them.
    """
    rates: dict[tuple[str, str], dict[int, float]] = {}
    for run in runs:
        if "readers" in run:
            rates.setdefault((run["row"], run["readers"]), {})[run["round"]] = run["samples_per_second"]
    rows = []
    for (name, readers), of_row in rates.items():
        times = {
            base: median(rate / rates[base, readers][turn] for turn, rate in of_row.items())
            for base in (PUBLISHED, BARE, WEBDATASET)
        }
        rows.append(
            {
                "row": name,
                "readers": readers,
                "samples_per_second": median(of_row.values()),
                "times_published": times[PUBLISHED],
                "times_published_bare": times[BARE],
                "times_webdataset": times[WEBDATASET],
            }
        )
    found: dict[tuple[Any, Any], Mapping[str, Any]] = {(row["row"], row["readers"]): row for row in rows}
    targets = [
        {
            "target": f"{name}, {readers}: times the {base}, at least",
            "limit": limit,
            "reached": (reached := float(found[name, readers][key])),
            "met": reached >= limit,
        }
        for (name, readers), limits in TARGETS.items()
        for base, key, limit in zip(
            (PUBLISHED, WEBDATASET), ("times_published", "times_webdataset"), limits, strict=True
        )
    ]
    others = {
        name: median(run[key] for run in runs if run["row"] == name)
        for name, key in {
            "first batch, fork": "seconds", "first batch, spawn": "seconds", "growth of memory": "bytes",
        }.items()
    }  # fmt: skip
    first = others["first batch, fork"]
    targets.append(
        {
            "target": "first batch of two forked workers, seconds, less than",
            "limit": FIRST_BATCH,
            "reached": first,
            "met": first < FIRST_BATCH,
        }
    )
    return {"rows": rows, "targets": targets, "others": others}


def markdown(result: Mapping[str, Any]) -> str:
    """Return a page to read. Pure."""
    world, machine = result["world"], result["machine"]
    lines = [
        "# Reading samples, measured (simulated data)",
        "",
        f"Series of 3, 9 channels, windows of {result['sample']['size']} pixels; {world['pairs']} pairs of "
        f"{world['rows']} x {world['columns']} pixels, {world['series']} series; "
        f"{machine['cores']} cores, Python {machine['python']}, torch {machine['torch']}; "
        "all files in the page cache.",
        "",
        "| readers | row | times the published pattern | times it bare | times the WebDataset |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['readers']} | {row['row']} | "
        f"{row['times_published']:.3g} | {row['times_published_bare']:.3g} | {row['times_webdataset']:.3g} |"
        for row in result["rows"]
    ]
    lines += ["", "| target | | reached | met |", "|---|---:|---:|---|"]
    lines += [
        f"| {item['target']} | {item['limit']:g} | {item['reached']:.3g} | "
        f"{'yes' if item['met'] else '**no**'} |"
        for item in result["targets"]
    ]
    others = result["others"]
    lines += [
        "",
        "First batch of spawned workers, which import everything anew: "
        f"{others['first batch, spawn']:.1f} s. "
        f"Growth of memory over the compact row: {others['growth of memory'] / 1e6:.1f} MB.",
    ]
    return "\n".join(lines) + "\n"
