"""What upstream promises and a cube does not have yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hephaestus_build.cube.units import Unit
from hephaestus_build.plain_text import plain_text
from hephaestus_build.sources.receipt import Outcome


@dataclass(frozen=True)
class Owed:
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
    """

    unit: str
    product: str
    outcome: Outcome
    detail: str


def owed_of(units: Mapping[str, Unit]) -> tuple[Owed, ...]:
    """Return what is owed among `units`, in order."""
    return tuple(
        Owed(unit.key, plain_text(receipt.product), receipt.outcome, plain_text(receipt.detail))
        for _, unit in sorted(units.items())
        if unit.owed
        for receipt in unit.receipts
        if not receipt.ok
    )
