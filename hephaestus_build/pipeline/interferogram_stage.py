"""Stage of the interferograms: phase and coherence of every pair, on the frame's grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.granule_checks import ALIGNMENT_KINDS
from hephaestus_build.cube.granules import GranuleKey, InterferogramGranule
from hephaestus_build.pipeline.encoding import decimate_pair, encode_images
from hephaestus_build.pipeline.ledger import keys_of_kind
from hephaestus_build.pipeline.plan import PairSelection, needs_fetching
from hephaestus_build.pipeline.stage import Build, Stage
from hephaestus_build.processing.alignment import align_to_grid


class InterferogramStage(Stage):
    """Fetches, aligns, encodes and stores interferograms; a failed one is recorded as owed."""

    name = "interferograms"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the pairs to fetch: new, owed, changed upstream, or on another grid."""
        keys = (
            map(GranuleKey.of_pair, select_all_pairs(build).wanted)
            if only is None
            else keys_of_kind(only, "pair")
        )
        return [key for key in keys if _must_fetch(build, key)]

    def begin(self, build: Build, keys: Sequence[GranuleKey]) -> None:
        """Record annotated pairs that the archive does not list as absent.

        Raises
        ------
        HephaestusError
            If the listing lacks most of the cube, and what it lacks would be lost with the present grid.
        """
        inputs = build.ledger.grid_inputs()
        lacking = build.context.retraction
        if lacking and build.ledger.outdated - build.context.modified.keys():
            raise HephaestusError(
                f"{build.context.frame}: its grid has changed, and its interferograms must be fetched again, "
                f"but the archive's listing {lacking}; run the same command again later"
            )
        for pair in () if lacking else select_all_pairs(build).unlisted:
            before = build.ledger.interferogram(pair)
            if before is not None and before.inputs == inputs and not before.needs_retry:
                continue  # recorded as absent before, or stored while it was listed
            absent = Receipt(pair.name, Outcome.ABSENT, "", detail="not in the archive's listing")
            build.ledger.record(InterferogramGranule.make_unlisted(pair, inputs, absent), {})
        super().begin(build, keys)

    def run(self, build: Build, key: GranuleKey) -> None:
        """Fetch phase and coherence of a pair, align them to the frame's grid, and store them."""
        context, ledger = build.context, build.ledger
        pair, grid = key.pair, ledger.require_grid()
        replaced = is_replaced_upstream(build, pair)
        receipts: list[Receipt] = []
        planes: dict[str, np.ndarray] = {}
        kinds: list[str] = []
        elsewhere = False
        for name, fetch in (
            ("insar_difference", context.interferograms.phase),
            ("insar_coherence", context.interferograms.coherence),
        ):
            kept = ledger.take_phase(pair) if name == "insar_difference" else None
            receipt, raster = kept or fetch(context.frame, pair, replaced=replaced)
            if raster is not None:
                try:
                    values, alignment = align_to_grid(raster.values, raster.grid, grid)
                    if alignment.kind != "identical" and not values.any():
                        raise ValueError("there is no data of it within the frame's grid")
                except ValueError as error:  # a raster of another place
                    receipt = receipt.replace(outcome=Outcome.CORRUPT, detail=str(error))
                    elsewhere = True
                else:
                    planes[name] = values
                    kinds.append(alignment.kind)
                    receipt = receipt.with_notes(alignment.note) if alignment.note else receipt
            receipts.append(receipt)
            if not receipt.ok:
                break  # both or none: the other product is fetched together with this one
        coverage = None
        if len(planes) == 2:
            valid = np.count_nonzero(
                planes["insar_difference"] != 0
            )  # of floats alone it takes thrice the time
            coverage = max(kinds, key=ALIGNMENT_KINDS.index), round(valid / grid.size, 6)
        granule = InterferogramGranule.make(
            pair,
            ledger.grid_inputs(),
            tuple(receipts),
            modified=context.modified.get(pair),
            elsewhere=elsewhere,
            coverage=coverage,
        )
        ledger.record(granule, encode_images(planes) if granule.is_complete else {})
        if granule.is_complete:  # so that the overview is drawn without reading the pair again
            phase, coherence = ([(0, planes[name])] for name in ("insar_difference", "insar_coherence"))
            factor = context.settings.overview_factor
            ledger.keep_small_images(pair, decimate_pair(grid, factor, phase=phase, coherence=coherence))


def select_all_pairs(build: Build) -> PairSelection:
    """Return the pairs of the request, and those stored on another grid or in another schema version.

    The latter are fetched again even if the request excludes them: a cube has one grid.
    """
    selection, outdated = build.context.selection, build.ledger.outdated
    listed = outdated & build.context.modified.keys()
    return replace(
        selection,
        wanted=tuple(sorted({*selection.wanted, *listed})),
        unlisted=tuple(sorted({*selection.unlisted, *(outdated - listed)})),
    )


def is_replaced_upstream(build: Build, pair: Pair) -> bool:
    """Return whether the archive is known to have replaced the files of a stored pair."""
    before = build.ledger.interferogram(pair)
    stored = before is not None and before.is_complete
    return build.ledger.must_refetch(GranuleKey.of_pair(pair)) or (
        stored and needs_fetching(before, build.context.modified.get(pair))
    )


def _must_fetch(build: Build, key: GranuleKey) -> bool:
    ledger, pair = build.ledger, key.pair
    if ledger.must_refetch(key) or needs_fetching(
        ledger.interferogram(pair), build.context.modified.get(pair)
    ):
        return True
    return ledger.grid is not None and ledger.needs(key, ledger.grid_inputs())
