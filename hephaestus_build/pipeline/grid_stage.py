"""First stage: the DEM, and with it the frame's reference grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from hephaestus_build.core.concurrency import BackgroundTask
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.granules import DEM_KEY, DemGranule, Granule, GranuleKey, InterferogramGranule
from hephaestus_build.pipeline.encoding import encode_images
from hephaestus_build.pipeline.frame_grid import grids_compatible, select_reference_grid
from hephaestus_build.pipeline.interferogram_stage import is_replaced_upstream, select_all_pairs
from hephaestus_build.pipeline.ledger import UNPLACED, FetchedRaster
from hephaestus_build.pipeline.missing_products import MissingProduct, find_missing_products
from hephaestus_build.pipeline.nothing_built import nothing_built_error
from hephaestus_build.pipeline.registry_check import compare_with_registry
from hephaestus_build.pipeline.stage import Build, Stage

#: Largest number of interferograms read to determine the grid of a frame.
_MAX_PROBED_PAIRS = 3


class GridStage(Stage):
    """Fetches the DEM, determines the frame's reference grid, and stores the DEM."""

    name = "DEM"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the DEM's key if the grid is unknown, or the DEM is owed, changed or on another grid."""
        ledger = build.ledger
        if only is not None and DEM_KEY not in only:
            return ()
        if ledger.grid is None or ledger.must_refetch(DEM_KEY) or ledger.needs(DEM_KEY, ledger.grid_inputs()):
            return (DEM_KEY,)
        return ()

    def begin(self, build: Build, keys: Sequence[GranuleKey]) -> None:
        """Fetch the DEM and determine the frame's grid, from it or from interferograms.

        Raises
        ------
        NothingBuiltError
            If no raster defines the grid; what failed is on record as owed.
        """
        if not keys:
            return
        super().begin(build, keys)
        context, ledger = build.context, build.ledger
        # both the DEM and an interferogram are needed: fetch them at the same time
        wanted = select_all_pairs(build).wanted[:1] if ledger.grid is None else ()
        tasks = {pair: BackgroundTask(partial(_fetch_phase, build, pair)) for pair in wanted}
        receipt, raster = context.interferograms.dem(context.frame)
        found, settled = raster.grid.in_first_turn() if raster is not None else None, ledger.grid
        if settled is None or not (found is None or settled.same_as(found)):
            known = [settled] if settled is not None else []
            grids, failed = _probe_grids(build, found, tasks)
            settled = select_reference_grid(found, grids or known)
            if settled is None:
                raise nothing_built_error(build, _record_failures(build, receipt, failed))
            if found is not None and settled is not found:
                what = "it is of another place, or of other pixels, than the frame's interferograms"
                receipt, raster = receipt.replace(outcome=Outcome.CORRUPT, detail=what), None
        ledger.settle_grid(settled)
        ledger.keep_dem((receipt, raster))
        for line in compare_with_registry(context.frame, context.metadata.center_time, ledger.require_grid()):
            context.listener.note(f"{context.frame}: {line}; see that it is the frame you mean")

    def run(self, build: Build, key: GranuleKey) -> None:
        """Store the DEM that :meth:`begin` has fetched."""
        ledger = build.ledger
        fetched = ledger.take_dem()
        assert fetched is not None, "GridStage.begin fetches it"
        receipt, raster = fetched
        granule = DemGranule.make(ledger.grid_inputs(), (receipt,), ledger.require_grid())
        ledger.record(granule, encode_images({"dem": raster.values}) if raster is not None else {})


def _fetch_phase(build: Build, pair: Pair) -> FetchedRaster:
    context = build.context
    return context.interferograms.phase(context.frame, pair, replaced=is_replaced_upstream(build, pair))


def _probe_grids(
    build: Build, dem: Grid | None, tasks: Mapping[Pair, BackgroundTask[FetchedRaster]]
) -> tuple[list[Grid], dict[Pair, Receipt]]:
    """Return grids of interferograms, and the receipts of those that could not be had.

    Interferograms are read up to the first that is compatible with the DEM's grid, at most three.

    Parameters
    ----------
    build : Build
        The build.
    dem : Grid or None
        Grid of the DEM.
    tasks : mapping of Pair to BackgroundTask
        Interferograms that are being fetched.
    """
    grids: list[Grid] = []
    failed: dict[Pair, Receipt] = {}
    wanted = select_all_pairs(build).wanted
    for few in _probing_steps(wanted if dem is None else wanted[:_MAX_PROBED_PAIRS], build):
        running = {
            pair: tasks.get(pair) or BackgroundTask(partial(_fetch_phase, build, pair)) for pair in few
        }
        for pair, task in running.items():
            receipt, raster = task.result()
            if raster is None:
                failed[pair] = receipt
                continue
            build.ledger.keep_phase(pair, (receipt, raster))
            if len(grids) < _MAX_PROBED_PAIRS:  # the same ones however many are fetched at once
                grids.append(raster.grid.in_first_turn())
            if dem is not None and grids_compatible(dem, raster.grid):
                return grids, failed
        if len(grids) == _MAX_PROBED_PAIRS:
            break
    return grids, failed


def _probing_steps(pairs: Sequence[Pair], build: Build) -> list[Sequence[Pair]]:
    """Return which pairs to fetch at once: the first ones singly, since they usually suffice, then more."""
    at_once = build.context.settings.connections_allowed
    singly = [pairs[index : index + 1] for index in range(min(_MAX_PROBED_PAIRS, len(pairs)))]
    return singly + [
        pairs[index : index + at_once] for index in range(_MAX_PROBED_PAIRS, len(pairs), at_once)
    ]


def _record_failures(
    build: Build, dem: Receipt, phases: Mapping[Pair, Receipt]
) -> tuple[MissingProduct, ...]:
    """Record as owed what was asked for in vain before the grid was known, and return it.

    Nothing complete is replaced.
    """
    ledger = build.ledger
    failed: list[Granule] = [DemGranule.make(UNPLACED, (dem,), None)]
    for pair, receipt in phases.items():
        modified = build.context.modified.get(pair)
        failed.append(InterferogramGranule.make(pair, UNPLACED, (receipt,), modified=modified))
    for granule in failed:
        before = ledger.get(granule.key)
        if before is None or not before.is_complete:
            ledger.record(granule, {})
    return find_missing_products({granule.key: granule for granule in failed})
