"""What a measurement comes to, as pure functions: medians, ratios within a round, targets, a page to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

ROWS = ("floor", "build", "build, downloads in the cache", "region")
FLOOR, BUILD, CACHED, REGION = ROWS

#: What is stored for every pair, for every date, and once for a frame.
_GROUPS: Mapping[str, Callable[[str], bool]] = {
    "phase": lambda name: name == "insar_difference",
    "coherence": lambda name: name == "insar_coherence",
    "masks": lambda name: name.endswith("_mask"),
    "atmosphere": lambda name: "_date_" in name or name.startswith("era5_"),
    "DEM": lambda name: name == "dem",
}


def summarize_build_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians by row, and ratios between rows of one round.

    Parameters
    ----------
    runs : sequence of mapping
        Each with ``round``, ``row``, ``seconds``, ``cpu``, ``elsewhere``, ``peak`` and ``facts``.

    Returns
    -------
    dict
        ``rows`` (one for each name), ``ratios`` (medians over the rounds), and ``disturbance``: how many
        cores everything else took while rows were measured that need nothing else (median).
    """
    rows = []
    for name in ROWS:
        of_row = [run for run in runs if run["row"] == name]
        facts = of_row[0]["facts"]
        pairs = facts["pairs"]
        row: dict[str, Any] = {
            "row": name,
            "pairs": pairs,
            "pairs_per_second": median(pairs / run["seconds"] for run in of_row),
            "cpu_seconds_per_pair": median(run["cpu"] / pairs for run in of_row),
            # the limit keeps its input in memory: it has no memory of its own to report
            "peak_bytes": None if name == FLOOR else median(run["peak"] for run in of_row),
        }
        if "bytes" in facts:
            row["bytes_per_pair"] = facts["bytes"] / pairs
            row["apparent_bytes_per_pair"] = facts["apparent_bytes"] / pairs
            row["bytes_per_pair_by_kind"] = bytes_by_kind(facts["bytes_by_variable"], pairs)
        rows.append(row)
    return {
        "rows": rows,
        "ratios": {
            "build_over_floor": _median_ratio(runs, "seconds", BUILD, FLOOR),
            "cached_build_over_floor": _median_ratio(runs, "seconds", CACHED, FLOOR),
            "region_over_build": _median_ratio(runs, "seconds", REGION, BUILD),
            "region_over_cached_build": _median_ratio(runs, "seconds", REGION, CACHED),
            "cpu_of_build_over_floor": _median_ratio(runs, "cpu", BUILD, FLOOR),
            "cpu_of_region_over_build": _median_ratio(runs, "cpu", REGION, BUILD),
        },
        # the build's own archive works in another process: that is no disturbance
        "disturbance": median(
            run["elsewhere"] / run["seconds"] for run in runs if run["row"] in (FLOOR, REGION)
        ),
    }


def _median_ratio(runs: Sequence[Mapping[str, Any]], what: str, upper: str, lower: str) -> float:
    """Return the median over the rounds of one row's number over another's."""
    numbers = {(run["round"], run["row"]): run[what] for run in runs}
    rounds = sorted({turn for turn, _ in numbers})
    return median(numbers[turn, upper] / numbers[turn, lower] for turn in rounds)


def bytes_by_kind(variables: Mapping[str, int], pairs: int) -> dict[str, float]:
    """Return the bytes a pair of each kind of content."""
    found = dict.fromkeys([*_GROUPS, "the rest"], 0.0)
    for name, size in variables.items():
        kind = next((kind for kind, holds in _GROUPS.items() if holds(name)), "the rest")
        found[kind] += size / pairs
    return found


def evaluate_targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was aimed at, what was reached, and whether that is enough."""
    ratios, rows = result["ratios"], {row["row"]: row for row in result["rows"]}
    peaks = result["memory"]
    fewest, most = peaks[0]["pairs"], peaks[-1]["pairs"]
    growth = median(row["peak"] for row in peaks if row["pairs"] == most) / median(
        row["peak"] for row in peaks if row["pairs"] == fewest
    )
    stored = rows[BUILD]["bytes_per_pair"] / 1e6
    found = [
        ("time of the build over the limit's, at most", 1.5, ratios["build_over_floor"], False),
        ("the same with downloads in the cache", 1.5, ratios["cached_build_over_floor"], False),
        ("time of the region build over the build's, at least", 6.0, ratios["region_over_build"], True),
        ("MB stored for each pair, at most", 21.0, stored, False),
        (f"peak memory at {most} pairs over that at {fewest}, at most", 1.25, growth, False),
    ]
    return [
        {
            "what": what,
            "target": target,
            "reached": reached,
            "met": reached >= target if least else reached <= target,
        }
        for what, target, reached, least in found
    ]


def render_build_report(result: Mapping[str, Any]) -> str:
    """Return a result as a page."""
    world, machine = result["world"], result["machine"]
    rows = {row["row"]: row for row in result["rows"]}
    lines = [
        "# Building cubes, measured",
        "",
        (
            f"**Simulated data.** {world['pairs']} pairs of {world['dates']} dates, {world['rows']} x "
            f"{world['columns']} pixels, frame {world['frame']}. {machine['cores']} cores, "
            f"{machine['system']}, "
            f"Python {machine['python']}. {result['date']}. Medians; ratios are between rows of one round. "
            f"Everything else on the machine took {result['disturbance']:.2f} cores meanwhile."
        ),
        "",
        "| row | time over the limit's | CPU over the limit's | peak memory, MB | stored, MB a pair |",
        "|---|---|---|---|---|",
    ]
    limit = rows[FLOOR]["cpu_seconds_per_pair"]
    over = {
        BUILD: result["ratios"]["build_over_floor"],
        CACHED: result["ratios"]["cached_build_over_floor"],
        REGION: result["ratios"]["region_over_build"] * result["ratios"]["build_over_floor"],
        FLOOR: 1.0,
    }
    for name, row in rows.items():
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        stored = f"{row['bytes_per_pair'] / 1e6:.1f}" if "bytes_per_pair" in row else ""
        lines.append(
            f"| {name} | {over[name]:.2f} | {row['cpu_seconds_per_pair'] / limit:.2f} | {peak} | {stored} |"
        )
    kinds = rows[BUILD]["bytes_per_pair_by_kind"]
    parts = ", ".join(f"{kind} {size / 1e6:.2f}" for kind, size in kinds.items())
    lines += [
        "",
        (
            f"Stored, MB a pair, hard links once: {parts}. As file sizes add up: "
            f"{rows[BUILD]['apparent_bytes_per_pair'] / 1e6:.1f}."
        ),
        "",
        (
            f"The two cubes hold the same: images bit for bit: {result['same_content']['images_equal']} "
            f"({result['same_content']['pairs_compared']} pairs); fields differ by at most "
            f"{max(result['same_content']['largest_difference_in_steps'].values()):.2f} of a packing step."
        ),
        "",
        "| target | | reached | met |",
        "|---|---|---|---|",
    ]
    for item in evaluate_targets(result):
        met = "yes" if item["met"] else "no"
        lines.append(f"| {item['what']} | {item['target']:g} | {item['reached']:.2f} | {met} |")
    lines += ["", "| pairs in the build | peak memory, MB |", "|---|---|"]
    lines += [f"| {row['pairs']} | {row['peak'] / 1e6:.0f} |" for row in result["memory"]]
    lines += ["", *incremental_table_lines(result["adding"]), "", *_complexity_lines(world)]
    return "\n".join(lines) + "\n"


def incremental_table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of adding pairs, as times what one without a new date takes in the smallest cube."""
    lines = [
        (
            "| rasters | pairs in the cube | adding one, times that to the smallest | one that brings a date "
            "| nothing new | as a command |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = next(other for other in rows if other["rows"] == row["rows"])
        unit = _median_incremental(first, dates=False) or median(first["seconds"])
        times = [_median_incremental(row, dates=dates) for dates in (False, True)]
        cells = [f"{time / unit:.2f}" if time is not None else "" for time in (*times, row["nothing_new"])]
        command = median(row["commands"]) / median(first["commands"])
        shape = f"{row['rows']} x {row['columns']}"
        lines.append(f"| {' | '.join([shape, str(row['pairs']), *cells, f'{command:.2f}'])} |")
    return lines


def _median_incremental(row: Mapping[str, Any], *, dates: bool) -> float | None:
    """Return the median seconds of adding a pair that brings a date, or that brings none."""
    found = [time for time, new in zip(row["seconds"], row["dates"], strict=True) if bool(new) is dates]
    return median(found) if found else None


def _complexity_lines(world: Mapping[str, Any]) -> list[str]:
    found = {"simulated": world["hardness"], "real": world["hardness_of_real_rasters"]}
    lines = [
        "| rasters | no data | phase, bytes a valid pixel: file, cube | coherence: file, cube |",
        "|---|---|---|---|",
    ]
    for name, numbers in found.items():
        if numbers:
            lines.append(
                f"| {name} | {numbers['nodata']:.0%} | {numbers['phase_file']:.2f}, "
                f"{numbers['phase_stored']:.2f} | {numbers['coherence_file']:.2f}, "
                f"{numbers['coherence_stored']:.2f} |"
            )
    return lines
