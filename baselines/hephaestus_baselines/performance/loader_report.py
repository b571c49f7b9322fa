"""Summary of a loader benchmark as medians, ratios and targets, and its Markdown report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

PUBLISHED_READER, WEBDATASET_READER = "published pattern", "WebDataset of tensors"
#: The published pattern without its checks of whole masks.
BARE_PUBLISHED_READER = "published pattern, bare"
COMPACT_READER, EXPANDED_READER = "compact", "expanded on the CPU"
ONE_PROCESS, TWO_WORKERS = "one process", "two workers"
#: Minimum speedup over (the published pattern, the WebDataset), by (row, readers).
SPEEDUP_TARGETS: Mapping[tuple[str, str], tuple[float, float]] = {
    (COMPACT_READER, ONE_PROCESS): (200, 3),
    (EXPANDED_READER, ONE_PROCESS): (80, 1.3),
    (COMPACT_READER, TWO_WORKERS): (130, 3),
}
MAX_FIRST_BATCH_SECONDS = 2.0


def summarize_loader_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median rate of each row, median ratios within rounds, and whether targets are met.

    Parameters
    ----------
    runs : sequence of mapping
        Measurements of all rows in all rounds, as collected by :meth:`LoaderBenchmark.run`.
    """
    rates: dict[tuple[str, str], dict[int, float]] = {}
    for run in runs:
        if "readers" in run:
            rates.setdefault((run["row"], run["readers"]), {})[run["round"]] = run["samples_per_second"]
    rows = []
    for (name, readers), of_row in rates.items():
        times = {
            base: median(rate / rates[base, readers][turn] for turn, rate in of_row.items())
            for base in (PUBLISHED_READER, BARE_PUBLISHED_READER, WEBDATASET_READER)
        }
        rows.append(
            {
                "row": name,
                "readers": readers,
                "samples_per_second": median(of_row.values()),
                "times_published": times[PUBLISHED_READER],
                "times_published_bare": times[BARE_PUBLISHED_READER],
                "times_webdataset": times[WEBDATASET_READER],
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
        for (name, readers), limits in SPEEDUP_TARGETS.items()
        for base, key, limit in zip(
            (PUBLISHED_READER, WEBDATASET_READER),
            ("times_published", "times_webdataset"),
            limits,
            strict=True,
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
            "limit": MAX_FIRST_BATCH_SECONDS,
            "reached": first,
            "met": first < MAX_FIRST_BATCH_SECONDS,
        }
    )
    return {"rows": rows, "targets": targets, "others": others}


def render_loader_report(result: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    world, machine = result["world"], result["machine"]
    lines = [
        "# Benchmark of the data loader (simulated data)",
        "",
        (
            f"Series of 3, 9 channels, windows of {result['sample']['size']} pixels; {world['pairs']} pairs "
            f"of {world['rows']} x {world['columns']} pixels, {world['series']} series; {machine['cores']} "
            f"cores, Python {machine['python']}, torch {machine['torch']}; all files in the page cache."
        ),
        "",
        "| readers | row | times the published pattern | times the bare one | times the WebDataset |",
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
        (
            "First batch of spawned workers, which repeat all imports: "
            f"{others['first batch, spawn']:.1f} s. "
            f"Growth of memory over the compact row: {others['growth of memory'] / 1e6:.1f} MB."
        ),
    ]
    return "\n".join(lines) + "\n"
