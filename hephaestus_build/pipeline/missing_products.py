"""Missing products: what the archive should have and a cube does not hold yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hephaestus_build.core.accepted_absences import AcceptedAbsences, is_absence_accepted
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.granules import Granule, GranuleKey, OptionalGranule

# The receipts of a granule, in the order in which its products are fetched.
_PARTS = {"pair": ("phase", "coherence"), "dem": ("dem",), "epoch": ("era5",), "mask": ("preview",)}


@dataclass(frozen=True)
class MissingProduct:
    """A product that a cube needs and does not hold.

    Attributes
    ----------
    unit : str
        Key of its granule, such as ``pair/20160909_20160921`` or ``dem/dem``.
    product : str
        Name of the product.
    outcome : Outcome
        Outcome of the last request.
    detail : str
        Reason, in words.
    part : str
        Role of the product: ``phase``, ``coherence``, ``dem``, ``era5``, ``preview``, or the name of an
        optional variable.
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
        """Names under which the setting ``accept`` may allow its absence."""
        key = GranuleKey(self.unit)
        return (self.part, *(["interferogram"] if key.kind == "pair" else []), key.name.rpartition(".")[2])


def find_missing_products(granules: Mapping[str, Granule]) -> tuple[MissingProduct, ...]:
    """Return the missing products of `granules`, in the order of their keys."""
    return tuple(
        MissingProduct(
            str(granule.key),
            sanitize_text(receipt.product),
            receipt.outcome,
            sanitize_text(receipt.detail),
            _part(granule, number),
        )
        for _, granule in sorted(granules.items())
        if granule.needs_retry
        for number, receipt in enumerate(granule.receipts)
        if not receipt.ok
    )


def _part(granule: Granule, number: int) -> str:
    """Return the role of the product of a granule's receipt."""
    if isinstance(granule, OptionalGranule):
        return granule.variable
    parts = _PARTS[granule.kind]
    return parts[min(number, len(parts) - 1)]


def partition_accepted(
    owed: Iterable[MissingProduct], frame: Frame, accept: AcceptedAbsences
) -> tuple[tuple[MissingProduct, ...], tuple[MissingProduct, ...]]:
    """Split missing products into owed ones and those that the setting ``accept`` allows to be absent.

    Only a product that the archive says it does not have can be accepted: a silent server or an unreadable
    file may be fine the next time.

    Parameters
    ----------
    owed : iterable of MissingProduct
        All missing products of a cube.
    frame : Frame
        The frame of the cube.
    accept : mapping
        The setting ``accept``.
    """
    parts: tuple[list[MissingProduct], list[MissingProduct]] = ([], [])
    for item in owed:
        absent = item.outcome is Outcome.ABSENT
        parts[absent and is_absence_accepted(accept, frame, item.acceptance_names)].append(item)
    return tuple(parts[0]), tuple(parts[1])
