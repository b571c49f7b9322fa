"""What upstream promises and a cube does not have yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hephaestus_build.core.accepted_absences import AcceptedAbsences, is_absence_accepted
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.granules import Granule, GranuleKey

# The receipts of a granule, in the order in which its products are fetched.
_PARTS = {"pair": ("phase", "coherence"), "dem": ("dem",), "epoch": ("era5",), "mask": ("preview",)}


@dataclass(frozen=True)
class MissingProduct:
    """Something that upstream promises and this cube does not have yet.

    Attributes
    ----------
    unit : str
        Such as ``pair/20160909_20160921`` or ``dem/dem``.
    product : str
        The product that failed.
    outcome : Outcome
        How it ended.
    detail : str
        Why, in words.
    part : str
        What it is of its granule: ``phase``, ``coherence``, ``dem``, ``era5`` or ``preview``.
    """

    unit: str
    product: str
    outcome: Outcome
    detail: str
    part: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "unit": self.unit,
            "product": self.product,
            "outcome": str(self.outcome),
            "detail": self.detail,
        }

    @property
    def acceptance_names(self) -> tuple[str, ...]:
        """The names under which the settings may accept its absence."""
        key = GranuleKey(self.unit)
        return (self.part, *(["interferogram"] if key.kind == "pair" else []), key.name)


def find_missing_products(granules: Mapping[str, Granule]) -> tuple[MissingProduct, ...]:
    """Return what is owed among `granules`, in order."""
    return tuple(
        MissingProduct(
            str(granule.key),
            sanitize_text(receipt.product),
            receipt.outcome,
            sanitize_text(receipt.detail),
            _PARTS[granule.kind][min(number, len(_PARTS[granule.kind]) - 1)],
        )
        for _, granule in sorted(granules.items())
        if granule.needs_retry
        for number, receipt in enumerate(granule.receipts)
        if not receipt.ok
    )


def partition_accepted(
    owed: Iterable[MissingProduct], frame: Frame, accept: AcceptedAbsences
) -> tuple[tuple[MissingProduct, ...], tuple[MissingProduct, ...]]:
    """Return what is owed, and apart from it the absences that the settings accept.

    Only what the archive says it does not have is accepted: a server that did not answer, or a file that
    cannot be read, may be mended.

    Parameters
    ----------
    owed : iterable of Owed
        All that a frame's cube lacks.
    frame : Frame
        Whose cube.
    accept : mapping
        The setting.
    """
    parts: tuple[list[MissingProduct], list[MissingProduct]] = ([], [])
    for item in owed:
        absent = item.outcome is Outcome.ABSENT
        parts[absent and is_absence_accepted(accept, frame, item.acceptance_names)].append(item)
    return tuple(parts[0]), tuple(parts[1])
