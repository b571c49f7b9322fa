"""The life of one build of one frame, top to bottom.

Every finished granule is on disk before the next one begins; a killed build goes on from there. The flow and
a repair go through the same :data:`~hephaestus_build.pipeline.stages.STAGES`, one after the other; here they
overlap where they may.
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
from hephaestus_build.pipeline.plan import BuildPlan, BuildRequest
from hephaestus_build.pipeline.prepare import make_plan, prepare_build
from hephaestus_build.pipeline.publish import publish
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.pipeline.stage import Build, open_stage_pool, submit_items
from hephaestus_build.pipeline.stages import ATMOSPHERE, GRID, INTERFEROGRAMS, MASKS


def plan(request: BuildRequest, settings: Settings) -> BuildPlan:
    """Return what a build of `request` will do and cost, from one listing."""
    settings = settings.for_frame(request.frame)
    return make_plan(prepare_build(request, settings, FrameStore(settings.cubes_dir, request.frame)))


def build(
    request: BuildRequest, settings: Settings, *, listener: ProgressListener | None = None, wait: bool = False
) -> BuildResult:
    """Build or extend the cube of one frame and publish it.

    Parameters
    ----------
    request : BuildRequest
        What to build.
    settings : Settings
        Where from and where to.
    listener : ProgressListener, optional
        What is told how far the build is.
    wait : bool
        Whether to wait for another build of the same frame.

    Returns
    -------
    BuildResult
        What is in the cube and what is owed.

    Raises
    ------
    HephaestusError
        If nothing can be built; what was published before stays as it was.
    """
    settings = settings.for_frame(request.frame)
    require_migrated(settings, request.frame)
    store = FrameStore(settings.cubes_dir, request.frame)
    with store.lock(wait=wait):
        build = prepare_build(request, settings, store, listener)
        make_granules(build)
        return publish(build)


def make_granules(build: Build) -> None:
    """Go through all stages: the atmosphere is fetched beside them, and stored when its dates are certain."""
    dem = GRID.items(build)
    GRID.begin(build, dem)  # settles the frame's grid, which all else needs; the DEM is stored below
    pairs = INTERFEROGRAMS.items(build)
    new_pairs = [key for key in pairs if build.ledger.get(key) is None]
    # another archive, which may let us wait for hours: ask it at once, for all dates that may be needed
    hoped = ATMOSPHERE.items(build, only=epoch_keys(build, coming=[key.pair for key in pairs]))
    era5 = BackgroundTask(partial(ATMOSPHERE.begin, build, hoped)) if hoped else None

    with open_stage_pool(build) as pool:
        submit_items(pool, build, GRID, dem)
        INTERFEROGRAMS.begin(build, pairs)
        submit_items(pool, build, INTERFEROGRAMS, pairs)
        masks = MASKS.items(build)
        MASKS.begin(build, masks)
        submit_items(pool, build, MASKS, masks)
        pool.submit(partial(_sync, build, build.staged()))
        # while the last pairs are made. One of them may still fail: what is then stored for its dates alone
        # is not published. If ERA5 has not come, errors of the pairs are not to be told hours later.
        if era5 is not None and era5.is_done:
            era5.result()
            unmade = [key.pair for key in new_pairs if build.ledger.get(key) is None]
            early = ATMOSPHERE.items(build, only=epoch_keys(build, coming=unmade))
            submit_items(pool, build, ATMOSPHERE, early)

    # all pairs are made: the dates that are still missing are certain
    if era5 is not None and (late := ATMOSPHERE.items(build)):
        era5.result()
        with open_stage_pool(build) as pool:
            submit_items(pool, build, ATMOSPHERE, late)


def _sync(build: Build, staged: list[Granule]) -> None:
    """Put granules on the disk, which writes them meanwhile; publishing waits for the rest."""
    with translate_os_errors(f"{build.context.frame}: storing what is finished"):
        build.context.store.staging.sync(staged)
