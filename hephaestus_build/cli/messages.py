"""Messages that several commands print."""

from __future__ import annotations

from collections.abc import Sequence

from hephaestus_build.cli.console import print_notice
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.pipeline.missing_products import MissingProduct


def print_owed_notices(frame: str, owed: Sequence[MissingProduct]) -> None:
    """Print the owed products of a frame, one line for each reason."""
    reasons: dict[tuple[str, str, str], list[MissingProduct]] = {}
    for item in owed:
        sort = item.product.removeprefix(item.unit.partition("/")[2])
        reasons.setdefault((sort, item.outcome, item.detail), []).append(item)
    for (_, outcome, detail), items in reasons.items():
        first, more = items[0], f" and {len(items) - 1} more" if len(items) > 1 else ""
        what = f"{first.product} of {first.unit}{more}"
        lasting = ", `accept` in the settings makes it no news" if outcome == Outcome.ABSENT else ""
        print_notice(
            f"{frame}: owed: {what} ({outcome}: {detail}); `hephaestus build {frame}` tries again{lasting}"
        )
