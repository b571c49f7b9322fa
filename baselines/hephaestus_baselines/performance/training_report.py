"""Summary of a training benchmark: what the loop reaches of its slowest part, and its Markdown report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Part of the slower of model and loader that the whole loop shall reach.
LOOP_TARGET = 0.9
#: Rates of a row, samples per second.
PART_RATES = ("model", "loader", "preparation")


def summarize_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what follows from its rates.

    Parameters
    ----------
    row : mapping
        Rates in samples per second: ``model`` alone on resident data, ``loader`` alone, ``preparation``
        alone and ``whole``, the training loop in its second epoch.

    Returns
    -------
    dict
        With ``ratio``, the whole loop over the slower of model and loader; ``in_line``, the rate of a loop
        that does one part after the other; and ``met``, whether the ratio reaches :data:`LOOP_TARGET`.
    """
    ratio = row["whole"] / min(row["model"], row["loader"])
    in_line = 1 / sum(1 / row[name] for name in PART_RATES)
    return {**row, "ratio": ratio, "in_line": in_line, "met": ratio >= LOOP_TARGET}


def find_largest_batch(fits: Callable[[int], bool], largest: int) -> int:
    """Return the largest power of two, at most `largest`, for which `fits` is true; 0 for none.

    Sizes are tried upwards from 1, and none after the first that does not fit.
    """
    found, size = 0, 1
    while size <= largest and fits(size):
        found, size = size, 2 * size
    return found


def render_training_report(result: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    machine, data = result["machine"], result["data"]
    lines = [
        f"# Benchmark of training ({result['device']}, simulated data)",
        "",
        (
            f"Windows of {data['size']} pixels of a frame of {data['rows']} x {data['columns']}, 9 channels "
            f"an interferogram, series of 3; {machine['cores']} cores, {data['readers']} reader processes, "
            f"Python {machine['python']}, torch {machine['torch']}; files in the page cache. Samples a "
            "second; *loop* is the project's training in its second epoch, *ratio* what it reaches of the "
            "slower of model and loader, *in line* what a loop would reach that does one part after the "
            "other. *Published* is a loop over the published reading pattern, with batches of 2, 32 bit and "
            "no reader processes."
        ),
        "",
        (
            "| model | form | batch, precision | model alone | loader alone | preparation alone | loop "
            "| ratio | in line | decoding alone | published |"
        ),
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        rates = [row[name] for name in ("model", "loader", "preparation", "whole")]
        lines.append(
            f"| {row['title']} | {'series' if row['series'] else 'single'} | {row['batch']}, "
            f"{row['precision']} | {' | '.join(f'{rate:.3g}' for rate in rates)} | {row['ratio']:.2f} "
            f"| {row['in_line']:.3g} | {row['decoding']:.3g} | {row['published']:.3g} |"
        )
    compiled = result.get("compiled_preparation") or {}
    if compiled:
        each = ", ".join(
            f"{form} {values['eager']:.1f} ms eager, {values['compiled']:.1f} ms compiled"
            for form, values in compiled.items()
        )
        lines += ["", f"Preparation of a batch, compiled: {each}."]
    for left in result["left_out"]:
        lines += ["", f"Left out: {left}"]
    met = sum(row["met"] for row in result["rows"])
    count = len(result["rows"])
    lines += [
        "",
        f"The loop reaches {LOOP_TARGET} of the slower of model and loader in {met} of {count} rows.",
    ]
    return "\n".join(lines) + "\n"
