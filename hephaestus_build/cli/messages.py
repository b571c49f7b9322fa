"""Messages that several commands print."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

import typer

from hephaestus_build.cli.console import err, out, print_notice
from hephaestus_build.core.plain_text import count_of, format_bytes, format_duration
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.terminal import json_text
from hephaestus_build.download.traffic import TRAFFIC
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.pipeline.missing_products import MissingProduct


def print_owed_notices(frame: str, owed: Sequence[MissingProduct], *, simulated: bool = False) -> None:
    """Print the owed products of a frame, one line for each reason; `simulated` as for the commands in it."""
    reasons: dict[tuple[str, str, str], list[MissingProduct]] = {}
    for item in owed:
        sort = item.product.removeprefix(item.unit.partition("/")[2])
        reasons.setdefault((sort, item.outcome, item.detail), []).append(item)
    for (_, outcome, detail), items in reasons.items():
        first, more = items[0], f" and {len(items) - 1} more" if len(items) > 1 else ""
        what = f"{first.product} of {first.unit}{more}"
        lasting = ", `accept` in the settings makes it no news" if outcome == Outcome.ABSENT else ""
        print_notice(
            f"{frame}: owed: {what} ({outcome}: {detail}); `hephaestus build {frame}` tries again{lasting}",
            simulated=simulated,
        )


class BuildSummary:
    """What became of the frames of a command, what was downloaded for them, and how long it took.

    Attributes
    ----------
    runs : list of BuildRun
        The runs that were added.
    """

    def __init__(self) -> None:
        self._began, self._received = time.monotonic(), TRAFFIC.received_bytes
        self.runs: list[BuildRun] = []

    def add(self, run: BuildRun) -> None:
        """Count the run of a frame."""
        self.runs.append(run)

    def print(self, what: str = "", noun: str = "frame") -> None:
        """Print one line on standard error, which begins with `what` and the number of `noun`."""
        results = [run.result for run in self.runs if run.result is not None and not run.error]
        counts = {
            "built": sum(result.published for result in results),
            "unchanged": sum(not result.published for result in results),
            "failed": len(self.runs) - len(results),
        }
        said = [f"{count} {state}" for state, count in counts.items() if count or state != "unchanged"]
        owed = sum(bool(result.owed) for result in results)
        fetched = format_bytes(TRAFFIC.received_bytes - self._received)
        err.print(
            f"{what}{count_of(len(self.runs), noun)}: {', '.join(said)}, {owed} with something owed; "
            f"{fetched} fetched in {format_duration(time.monotonic() - self._began)}"
        )


def print_run(run: BuildRun, *, as_json: bool) -> None:
    """Print one line about a build, at once also in a pipe."""
    if as_json:
        typer.echo(json_text(run.to_json(), indent=None))
    elif run.result is None:
        print_notice(run.error, logging.ERROR)
    else:
        news = f"generation {run.result.generation}" if run.result.published else "nothing new"
        owed = f", {len(run.result.owed)} owed" if run.result.owed else ""
        owed += f", {len(run.result.accepted)} accepted as absent" if run.result.accepted else ""
        stored = count_of(run.result.pairs, "pair")
        out.print(f"{run.began:%Y-%m-%d %H:%M} {run.frame}: {news}, {stored}{owed}")
        if run.error:
            print_notice(run.error, logging.WARNING)
    sys.stdout.flush()
