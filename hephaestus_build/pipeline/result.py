"""How a build ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hephaestus_build.core.errors import MissingProductsError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.granule_checks import ALIGNMENT_KINDS
from hephaestus_build.cube.granules import InterferogramGranule
from hephaestus_build.pipeline.missing_products import (
    MissingProduct,
    find_missing_products,
    partition_accepted,
)
from hephaestus_build.pipeline.stage import Build
from hephaestus_build.pipeline.upstream_changes import find_gone_pairs


@dataclass(frozen=True, repr=False)
class BuildResult:
    """How a build ended.

    Attributes
    ----------
    frame : Frame
        Whose cube.
    path : pathlib.Path
        The published cube.
    generation : int
        Its number.
    published : bool
        Whether this build published it; false where there was nothing new.
    pairs, epochs, masks : int
        How many of each are in the cube whole.
    absent : tuple of Pair
        Annotated pairs that the portal does not have.
    gone : tuple of Pair
        Pairs that are in the cube and no longer in the portal's listing; they stay.
    aligned : dict of str to int
        How many pairs were brought to the frame's grid, by how.
    owed : tuple of Owed
        What a later build must still get: products that the cube lacks, and changed ones of which it holds
        the earlier content.
    accepted : tuple of Owed
        What would be owed, but for the setting ``accept``: the archive does not have it.
    era5 : str
        The source of the atmosphere.
    simulated : bool
        Whether the data is simulated.
    """

    frame: Frame
    path: Path
    generation: int
    published: bool
    pairs: int
    epochs: int
    masks: int
    absent: tuple[Pair, ...]
    aligned: dict[str, int]
    owed: tuple[MissingProduct, ...]
    era5: str
    simulated: bool
    gone: tuple[Pair, ...] = ()
    accepted: tuple[MissingProduct, ...] = ()

    def __repr__(self) -> str:
        owed = f", {len(self.owed)} owed" if self.owed else ""
        return f"<BuildResult {self.frame}: generation {self.generation}, {self.pairs} pairs{owed}>"

    @property
    def exit_code(self) -> int:
        """0 when all is there, 3 when something is owed."""
        return MissingProductsError.exit_code if self.owed else 0

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            **asdict(self),
            "frame": str(self.frame),
            "path": str(self.path),
            "absent": [pair.name for pair in self.absent],
            "gone": [pair.name for pair in self.gone],
            "owed": [item.to_json() for item in self.owed],
            "accepted": [item.to_json() for item in self.accepted],
            "exit_code": self.exit_code,
        }


def make_build_result(build: Build, generation: int, *, published: bool) -> BuildResult:
    """Return how `build` ended.

    Parameters
    ----------
    build : Build
        At its end.
    generation : int
        Of the cube that is published now.
    published : bool
        Whether `build` published it.
    """
    context, granules = build.context, build.ledger.snapshot()
    complete = Counter(granule.kind for granule in granules.values() if granule.is_complete)
    pairs = [granule for granule in granules.values() if isinstance(granule, InterferogramGranule)]
    aligned = Counter(granule.alignment for granule in pairs if granule.is_complete)
    owed, accepted = partition_accepted(
        find_missing_products(granules) + find_missing_products(build.ledger.failed()),
        context.frame,
        context.settings.accept,
    )
    return BuildResult(
        frame=context.frame,
        path=context.store.published_link,
        generation=generation,
        published=published,
        pairs=complete["pair"],
        epochs=complete["epoch"],
        masks=complete["mask"],
        absent=tuple(granule.pair for granule in pairs if granule.is_unlisted),
        aligned={kind: aligned[kind] for kind in ALIGNMENT_KINDS if aligned[kind]},
        owed=owed,
        accepted=accepted,
        era5=context.era5.name,
        simulated=context.is_simulated,
        gone=find_gone_pairs(granules, context.modified),
    )
