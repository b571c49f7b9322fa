"""The error of a build that has no interferogram to publish: what failed, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.pipeline.interferogram_stage import select_all_pairs
from hephaestus_build.pipeline.missing_products import MissingProduct
from hephaestus_build.pipeline.stage import Build

#: Number of different reasons that the message quotes.
_QUOTED = 3


class NothingBuiltError(HephaestusError):
    """No interferogram could be had, so there is nothing to publish.

    Parameters
    ----------
    message : str
        One line.
    missing : sequence of MissingProduct
        The products that failed.
    """

    def __init__(self, message: str, missing: Sequence[MissingProduct] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


def nothing_built_error(build: Build, missing: Sequence[MissingProduct]) -> NothingBuiltError:
    """Return the error of a build without any interferogram.

    Parameters
    ----------
    build : Build
        The build.
    missing : sequence of MissingProduct
        The products that failed.
    """
    context, frame = build.context, build.context.frame
    if not select_all_pairs(build).wanted:
        why = ", ".join(f"{count} {reason}" for reason, count in context.selection.skipped.items())
        return NothingBuiltError(
            f"{frame}: none of {len(context.modified)} listed interferograms is wanted "
            f"({why or 'its listing is empty'}); `hephaestus plan {frame} --pairs all` shows all"
        )
    lacking = "no interferogram could be fetched"
    if build.ledger.grid is None:
        lacking = "its grid is unknown, since neither the DEM nor any interferogram could be fetched"
    reasons = summarize_reasons(missing) or "none is listed"
    return NothingBuiltError(f"{frame}: {lacking} ({reasons}); {_advice(frame, missing)}", missing)


def summarize_reasons(missing: Iterable[MissingProduct]) -> str:
    """Return why products are missing: each reason once, with the number of products, the commonest first.

    Examples
    --------
    >>> part = MissingProduct("pair/20200101_20200113", "phase.tif", Outcome.REFUSED, "HTTP 403", "phase")
    >>> summarize_reasons([part])
    '1 interferogram refused: HTTP 403'
    """
    groups: dict[tuple[Outcome, str], list[MissingProduct]] = {}
    for item in missing:
        groups.setdefault((item.outcome, item.detail), []).append(item)
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    texts = [f"{_count(items)} {outcome}: {detail}" for (outcome, detail), items in ranked[:_QUOTED]]
    if others := len(ranked) - len(texts):
        texts.append(f"{others} other reasons")
    return "; ".join(texts)


def _count(items: Sequence[MissingProduct]) -> str:
    dem = sum(item.part == "dem" for item in items)
    pairs = len({item.unit for item in items if item.part != "dem"})
    texts = ["the DEM"] if dem else []
    if pairs:
        texts.append(f"{pairs} interferogram{'' if pairs == 1 else 's'}")
    return " and ".join(texts)


def _advice(frame: Frame, missing: Sequence[MissingProduct]) -> str:
    """Return what to do about the commonest outcome."""
    outcomes = [item.outcome for item in missing]
    match max(outcomes, key=outcomes.count, default=Outcome.ABSENT):
        case Outcome.REFUSED:
            return (
                "check HEPHAESTUS_LICSAR_URL and whether you may read there, then run the same command again"
            )
        case Outcome.UNREACHABLE:
            return "check the network, then run the same command again"
        case Outcome.CORRUPT:
            return "see what that address answers, and run the same command again later"
    return f"`hephaestus plan {frame}` shows what the archive lists, run the same command again later"
