"""Result of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hephaestus_build.core.errors import HephaestusError, MissingProductsError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.granule_checks import ALIGNMENT_KINDS
from hephaestus_build.cube.granules import Granule, InterferogramGranule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.context import BuildContext
from hephaestus_build.pipeline.missing_products import (
    MissingProduct,
    find_missing_products,
    partition_accepted,
)
from hephaestus_build.pipeline.stage import Build
from hephaestus_build.pipeline.upstream_changes import find_gone_pairs
from hephaestus_build.sources.era5.selection import Era5Source


@dataclass(frozen=True, repr=False)
class BuildResult:
    """Result of a build.

    Attributes
    ----------
    frame : Frame
        The frame.
    path : pathlib.Path
        Path of the published cube.
    generation : int
        Number of its generation.
    published : bool
        Whether this build published it; false if nothing was new.
    pairs, epochs, masks : int
        Numbers of complete interferograms, epochs and masks in the cube.
    absent : tuple of Pair
        Annotated pairs that the archive does not list.
    gone : tuple of Pair
        Stored pairs that the archive no longer lists; they are kept.
    aligned : dict of str to int
        Number of pairs by kind of alignment to the frame's grid.
    owed : tuple of MissingProduct
        Products that a later build must fetch: missing ones, and changed ones whose earlier content is
        stored.
    accepted : tuple of MissingProduct
        Absent products that the setting ``accept`` allows to be missing.
    retraction : str
        What is wrong with a listing that lacks most of the cube, one line; empty otherwise.
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
    retraction: str = ""

    def __repr__(self) -> str:
        owed = f", {len(self.owed)} owed" if self.owed else ""
        return f"<BuildResult {self.frame}: generation {self.generation}, {self.pairs} pairs{owed}>"

    @property
    def exit_code(self) -> int:
        """0 if nothing is owed, else 3; 1 if the listing lacks most of the cube."""
        if self.retraction:
            return HephaestusError.exit_code
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
    """Return the result of a build.

    Parameters
    ----------
    build : Build
        The finished build.
    generation : int
        Number of the published generation.
    published : bool
        Whether `build` published it.
    """
    context, granules = build.context, build.ledger.snapshot()
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
        **_counts(granules),
        owed=owed,
        accepted=accepted,
        era5=context.era5.name,
        simulated=context.is_simulated,
        gone=find_gone_pairs(granules, context.modified),
        retraction=_retraction_message(context),
    )


def result_of_inventory(
    store: FrameStore,
    generation: int,
    contents: CubeInventory,
    listed: Collection[Pair],
    era5: Era5Source,
) -> BuildResult:
    """Return the result of a build that finds a whole cube and nothing new.

    Parameters
    ----------
    store : FrameStore
        Folder of the frame's generations.
    generation : int
        Number of the published one.
    contents : CubeInventory
        What it is made of.
    listed : collection of Pair
        Pairs that the archive lists.
    era5 : Era5Source
        Source of the atmosphere.
    """
    return BuildResult(
        frame=store.frame,
        path=store.published_link,
        generation=generation,
        published=False,
        **_counts(contents.granules),
        owed=(),
        era5=era5.name,
        simulated=store.frame.is_simulated or bool(contents.attributes.get("simulated")),
        gone=find_gone_pairs(contents.granules, listed),
    )


def _counts(granules: Mapping[str, Granule]) -> dict[str, Any]:
    """Return the attributes of a result that are counted in the granules of a cube."""
    complete = Counter(granule.kind for granule in granules.values() if granule.is_complete)
    pairs = [granule for granule in granules.values() if isinstance(granule, InterferogramGranule)]
    aligned = Counter(granule.alignment for granule in pairs if granule.is_complete)
    return {
        "pairs": complete["pair"],
        "epochs": complete["epoch"],
        "masks": complete["mask"],
        "absent": tuple(granule.pair for granule in pairs if granule.is_unlisted),
        "aligned": {kind: aligned[kind] for kind in ALIGNMENT_KINDS if aligned[kind]},
    }


def _retraction_message(context: BuildContext) -> str:
    if not (lacking := context.retraction):
        return ""
    return (
        f"{context.frame}: the listing of {context.interferograms.address} {lacking}, which stay in it; run "
        "the same command again later, and check HEPHAESTUS_LICSAR_URL"
    )
