"""One build of one frame, from the lock to the published generation.

Each finished granule is written to disk at once, so a killed build continues where it stopped. Flows and
`repair` run the same :data:`~hephaestus_build.pipeline.stages.STAGES` one after the other; here they overlap
where possible.
"""

from __future__ import annotations

from functools import partial

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.concurrency import BackgroundTask
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.migration import require_migrated
from hephaestus_build.pipeline.atmosphere_stage import epoch_keys
from hephaestus_build.pipeline.inquiry import ask_listing
from hephaestus_build.pipeline.kept.last_look import keep_look, look_after_build
from hephaestus_build.pipeline.plan import BuildPlan, BuildRequest
from hephaestus_build.pipeline.prepare import (
    make_plan,
    open_build,
    prepare_build,
    prepare_folder,
)
from hephaestus_build.pipeline.publish import publish
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.pipeline.stage import Build, open_stage_pool, run_stage, submit_items
from hephaestus_build.pipeline.stages import ATMOSPHERE, GRID, INTERFEROGRAMS, MASKS, OPTIONAL, OVERVIEWS


def plan(request: BuildRequest, settings: Settings) -> BuildPlan:
    """Return what a build of `request` would fetch and store; asks for one listing."""
    settings = settings.for_frame(request.frame)
    return make_plan(prepare_build(request, settings, FrameStore(settings.cubes_dir, request.frame)))


def build(
    request: BuildRequest,
    settings: Settings,
    *,
    listener: ProgressListener | None = None,
    wait: bool = False,
    only_news: bool = False,
) -> BuildResult:
    """Build or extend the cube of one frame and publish it.

    Parameters
    ----------
    request : BuildRequest
        What to build.
    settings : Settings
        Archives, folders and limits.
    listener : ProgressListener, optional
        Receives progress.
    wait : bool
        Whether to wait for another build of the same frame.
    only_news : bool
        Whether to ask for nothing but the listing if it is the one of the last build of the same request, and
        that left nothing to ask for.

    Returns
    -------
    BuildResult
        What is in the cube and what is owed.

    Raises
    ------
    HephaestusError
        If nothing can be built; the published cube stays unchanged.
    """
    settings = settings.for_frame(request.frame)
    require_migrated(settings, request.frame)
    store = FrameStore(settings.cubes_dir, request.frame)
    with store.lock(wait=wait):
        prepare_folder(store, listener)
        inquiry = ask_listing(request, settings, store)
        if only_news and (unchanged := inquiry.unchanged_result()) is not None:
            return unchanged
        build = open_build(inquiry, listener)
        make_granules(build)
        result = publish(build)
        keep_look(store, look_after_build(build, result))
        return result


def make_granules(build: Build) -> None:
    """Run all stages; ERA5 is fetched in the background and stored once its dates are certain."""
    dem = GRID.items(build)
    GRID.begin(build, dem)  # sets the frame's grid, which everything else needs; the DEM is stored below
    pairs = INTERFEROGRAMS.items(build)
    new_pairs = [key for key in pairs if build.ledger.get(key) is None]
    # the CDS may queue a request for hours: ask at once, for all dates that may be needed
    candidates = ATMOSPHERE.items(build, only=epoch_keys(build, coming=[key.pair for key in pairs]))
    era5 = BackgroundTask(partial(ATMOSPHERE.begin, build, candidates)) if candidates else None

    with open_stage_pool(build) as pool:
        submit_items(pool, build, GRID, dem)
        INTERFEROGRAMS.begin(build, pairs)
        submit_items(pool, build, INTERFEROGRAMS, pairs)
        masks = MASKS.items(build)
        MASKS.begin(build, masks)
        submit_items(pool, build, MASKS, masks)
        pool.submit(partial(_sync, build, build.staged()))
        # ERA5 that has arrived is stored while the last pairs are made; if one of them fails, dates that
        # only it needs are not published. Otherwise errors of the pairs are raised without waiting for ERA5.
        if era5 is not None and era5.is_done:
            era5.result()
            unmade = [key.pair for key in new_pairs if build.ledger.get(key) is None]
            early = ATMOSPHERE.items(build, only=epoch_keys(build, coming=unmade))
            submit_items(pool, build, ATMOSPHERE, early)

    # all pairs are finished, so the optional variables and the remaining dates are certain
    if OPTIONAL.items(build):
        run_stage(build, OPTIONAL)
    if era5 is not None and (late := ATMOSPHERE.items(build)):
        era5.result()
        with open_stage_pool(build) as pool:
            submit_items(pool, build, ATMOSPHERE, late)
    run_stage(build, OVERVIEWS)  # made of what is stored by now


def _sync(build: Build, staged: list[Granule]) -> None:
    """Flush granules to disk early, so that publishing waits for fewer."""
    with translate_os_errors(f"{build.context.frame}: storing what is finished"):
        build.context.store.staging.sync(staged)
