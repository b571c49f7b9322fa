"""What ``hephaestus splits`` prints: counts, coverage, and audits."""

from __future__ import annotations

from typing import Any

from hephaestus_build.cli.console import err, out, print_table
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.dataset.coverage import Coverage, CoverageCounts
from hephaestus_build.dataset.split_leakage import SplitAudit
from hephaestus_build.dataset.splits import PARTS


def print_counts(counts: dict[str, Any], published: Any) -> None:
    """Print the counts of a split, beside those of the paper if they are given."""
    columns = [(kind, sign) for kind in ("single", "series") for sign in ("positive", "negative")]
    numbers = [f"{kind} {sign}" for kind, sign in columns]
    rows = []
    for part in (*PARTS, "sum"):
        row = [part]
        for kind, sign in columns:
            count = counts[part][kind][sign]
            paper = published[part][kind][sign] if published else count
            row.append(str(count) if count == paper else f"{count} (paper {paper})")
        rows.append(row)
    print_table(("part", *numbers), rows, numbers=numbers)


def print_coverage(found: Coverage, mark: str) -> None:
    """Print how much of the deformation the windows of a tiling show; `mark` stands in the first line."""
    mark += "; simulated" if found.split.is_simulated else ""
    out.print(
        f"{found.split.name}  {found.split.sha256[:12]}  {found.tiling} windows of {found.size} pixels{mark}"
    )
    numbers = ("positives", "seen", "share", "touched", "pixels", "uncertain", "events seen")
    rows: list[list[str]] = []
    totals = set()
    for part in PARTS:
        coverage = found.parts[part]
        totals.add(len(rows))
        rows.append([part, *_coverage_cells(coverage.total)])
        rows += [[f"  {region}", *_coverage_cells(counts)] for region, counts in coverage.regions.items()]
    print_table(("part", *numbers), rows, numbers=numbers, styles=dict.fromkeys(totals, "bold"))
    unknown = {name for part in found.parts.values() for name, c in part.frames.items() if c.unknown}
    if unknown:
        err.print(
            f"not counted: positives of {', '.join(sorted(unknown))}, whose grid the annotations do not "
            f"imply; name their cubes with --cubes"
        )


def _coverage_cells(counts: CoverageCounts) -> list[str]:
    share = "" if not counts.positives else f"{counts.share_seen:.0%}"
    pixels = "" if not counts.pixels else f"{counts.pixels_inside / counts.pixels:.1%}"
    events = f"{len(counts.events_seen)} of {len(counts.events)}" if counts.events else ""
    seen = [str(counts.positives), str(counts.seen), share, str(counts.touched), pixels]
    return [*seen, str(counts.uncertain), events]


def print_audit(result: SplitAudit) -> None:
    """Print the promises of a split, what leaks, and what weighs too much."""
    kept = ", ".join(f"{name} {'kept' if good else 'BROKEN'}" for name, good in result.promises.items())
    simulated = "  (simulated frames are among them)" if result.simulated else ""
    out.print(f"\n{result.split}  {result.sha256[:12]}  promises: {kept or 'nothing'}{simulated}")
    if result.unchecked:
        out.print(f"  not checked: {', '.join(result.unchecked)}; name the annotations with --archive")
    single = {part: counts["single"] for part, counts in result.counts.items()}
    out.print("  " + "; ".join(f"{p} {c['positive']}/{c['negative']}" for p, c in single.items()))
    for leak in result.leaks:
        where = " and ".join(leak.parts)
        text = f"{leak.shared} {leak.kind} in both {where}"
        if leak.kind == "boundaries":
            text = f"{leak.shared} pairs of {where} reach beyond its window"
        elif leak.kind == "places":
            text = f"{leak.shared} interferograms of {leak.parts[1]} deform where {leak.parts[0]} does"
        out.print(f"  {text}: {leak.samples} samples, {leak.positives} positive")
        out.print(f"    most: {'; '.join(leak.examples[:3])}")
    for weight in result.weights:
        text = f"  {weight.part}: positives in {count_of(len(weight.frames), 'frame')} "
        text += f"of {count_of(len(weight.regions), 'region')}"
        if weight.dominant:
            shares = {**weight.regions, **weight.frames}
            text += "; dominated by " + ", ".join(
                f"{name} ({shares[name] / weight.positives:.0%})" for name in weight.dominant
            )
        if weight.new:
            text += f"; none of {', '.join(weight.new)} has a positive in train"
        out.print(text)
    for item in result.repeats:
        out.print(
            f"  {item.part}: {item.repeating} of {item.series} series hold an interferogram twice, "
            f"{item.overlapping} share one with another series"
        )
