"""One frame, from plan to publish.

The stages are plain functions over a :class:`~hephaestus_build.pipeline.build_state.Job`, so that the
command line and the flows run the same code: :func:`prepare`, :func:`build_dem`, then :func:`build_pairs`,
:func:`build_masks` and :func:`build_epochs` in batches of any size, then :func:`publish`. Every finished
unit is on disk before the next one begins; a killed build goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.concurrency import BackgroundTask, map_bounded
from hephaestus_build.core.era5_grid import EXPVER_PRELIMINARY, era5_area_around, parse_center_time
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import UnsafePathError
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.cube.granule_checks import ALIGNMENT_KINDS
from hephaestus_build.cube.granules import DateAxes, Granule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.migration import require_migrated
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.pipeline.build_state import Job, hours_since_1970, should_be_final
from hephaestus_build.pipeline.encoding import encode_atmosphere, encode_images, encode_masks
from hephaestus_build.pipeline.frame_grid import (
    DEM_KEY,
    grids_compatible,
    recorded_grid,
    select_reference_grid,
)
from hephaestus_build.pipeline.global_attributes import make_global_attributes
from hephaestus_build.pipeline.missing_products import find_missing_products
from hephaestus_build.pipeline.plan import BuildPlan, BuildRequest, drop_withdrawn_pairs, select_pairs
from hephaestus_build.pipeline.result import BuildResult, make_build_result
from hephaestus_build.pipeline.upstream_changes import (
    make_era5_hash_lookup,
    make_history_lookup,
    read_upstream_state,
    write_upstream_state,
)
from hephaestus_build.processing.alignment import align_to_grid
from hephaestus_build.processing.mask_rasterization import (
    PreviewGeometry,
    rasterize_annotation,
    resolve_preview_geometry,
)
from hephaestus_build.sources.annotations.archive import FLAGS, Annotation, find_annotations
from hephaestus_build.sources.era5.fields import Era5Fields, merge_fields
from hephaestus_build.sources.era5.selection import choose_era5_source
from hephaestus_build.sources.licsar.portal import FrameMetadata, LicsarPortal

log = logging.getLogger(__name__)
T = TypeVar("T")
#: One unit's worth of work, whichever thread takes it.
Step = Callable[[], None]

#: Interferograms that are looked at, at most, for the grid of a frame.
_MAX_PROBED_PAIRS = 3


def build(
    request: BuildRequest, settings: Settings, *, listener: ProgressListener | None = None, wait: bool = False
) -> BuildResult:
    """Build or extend the cube of one frame and publish it.

    Parameters
    ----------
    request : Request
        What to build.
    settings : Settings
        Where from and where to.
    listener : Listener, optional
        Who wants to know how far it is.
    wait : bool
        Whether to wait for another build of the same frame.

    Returns
    -------
    Result
        What is in the cube and what is owed.

    Raises
    ------
    HephaestusError
        If nothing can be built; what was published before stays as it was.
    """
    settings = settings.for_frame(request.frame)
    require_migrated(settings, request.frame)
    shelf = FrameStore(settings.cubes_dir, request.frame)
    with shelf.lock(wait=wait):
        job = prepare_build(request, settings, shelf, listener)
        store_dem = fetch_dem(job)
        # another archive, which may let us wait for hours: ask it at once, for all dates that may be needed
        hoped = missing_epochs(job, job.plan.pairs_to_fetch)
        atmosphere = BackgroundTask(lambda: fetch_atmosphere(job, hoped)) if hoped else None
        stages = (
            [store_dem],
            _pair_steps(job, job.plan.pairs_to_fetch),
            _mask_steps(job, annotated_pairs(job)),
            _sync_steps(job),
            _steps_at_hand(job, atmosphere),
        )
        _run_steps(job, chain.from_iterable(stages))
        if atmosphere is not None and (days := missing_epochs(job)):
            build_epochs(job, atmosphere.result(), days)
        return publish(job)


def prepare_build(
    request: BuildRequest,
    settings: Settings,
    shelf: FrameStore,
    listener: ProgressListener | None = None,
    *,
    contents: CubeInventory | None = None,
) -> Job:
    """Find out what there is, upstream and here, and what there is to do. Fetches no product.

    Parameters
    ----------
    request, settings, shelf, listener
        As :func:`build` takes them.
    contents : Contents, optional
        What the published cube is made of, where its own record is not to be trusted.
    """
    frame = request.frame
    settings = settings.for_frame(frame)
    settings.check_frame_available(frame)
    annotations = find_annotations(settings, frame, needed=request.pairs != "all").for_frame(frame)
    if request.pairs == "annotated" and not annotations:
        raise HephaestusError(
            f"{frame}: nobody has annotated this frame; build all its pairs with --pairs all"
        )
    portal = LicsarPortal(settings)
    listing = portal.listing(frame)
    modified = {item.pair: item.modified for item in listing.pairs}
    selection = select_pairs(request, modified, annotations)
    previous = shelf.published_generation()
    if contents is None and previous is not None:
        contents = previous.read_inventory()
    published = dict(contents.granules) if contents else {}
    staged = shelf.staging.read_granules()
    units = drop_withdrawn_pairs({**published, **staged}, modified, annotations)
    grid = recorded_grid(units)
    known = read_upstream_state(shelf)
    portal.prior_use = make_history_lookup(published, known)
    source = choose_era5_source(settings)
    source.set_expected_hashes(make_era5_hash_lookup(published))
    job = Job(
        request=request,
        settings=settings,
        shelf=shelf,
        portal=portal,
        source=source,
        metadata=_metadata(portal, frame, contents),
        plan=BuildPlan(request, selection, (), (), 0, grid, len(modified)),
        modified=modified,
        annotations=annotations,
        previous=previous,
        units=units,
        grid=grid,
        listener=listener or NullListener(),
        published=published,
        known=known,
        due=known.changed.keys() - staged.keys(),  # what an interrupted build has fetched is fetched
    )
    _check_simulated_apart(job)
    _replan(job)
    mark = ", simulated" if job.simulated else ""
    job.listener.note(f"{frame}: ERA5 from {job.source.description}{mark}")
    return job


def _check_simulated_apart(job: Job) -> None:
    """Refuse to put simulated data among the real cubes, or real data among the simulated ones.

    The id of a frame says that it is simulated where it can be nothing else; of all others the archive tells.
    """
    portal = f"{job.frame}: the archive at {redact_url(job.settings.licsar_url)}"
    if job.simulated and not job.settings.is_simulated:
        raise HephaestusError(
            f"{portal} says that its data of this frame is simulated; `hephaestus build {job.frame} "
            f"--simulated` builds it apart from the real cubes"
        )
    if job.settings.is_simulated and not job.simulated:
        raise HephaestusError(
            f"{portal} does not say that its data of this frame is simulated; `hephaestus build {job.frame}` "
            f"builds it among the real cubes"
        )


def plan(request: BuildRequest, settings: Settings) -> BuildPlan:
    """Return what a build of `request` will do and cost, from one listing."""
    settings = settings.for_frame(request.frame)
    shelf = FrameStore(settings.cubes_dir, request.frame)
    job = prepare_build(request, settings, shelf)
    dates = _dates(job.plan.selection.wanted)
    if job.grid is not None:
        dates = [day for day in dates if job.wants_hour(day)]
    hours = [job.hour(day) for day in dates]
    return replace(job.plan, era5_dates=tuple(dates), era5_request_count=job.source.count_requests(hours))


def _metadata(portal: LicsarPortal, frame: Frame, contents: CubeInventory | None) -> FrameMetadata:
    """Return the frame's metadata; what the cube needs of it is in the cube once there is one."""
    try:
        return portal.metadata(frame)
    except HephaestusError as error:
        if contents is None:
            raise
        log.warning("%s", error)
        attributes = contents.attributes
        fields = {"simulated": "true"} if attributes.get("simulated") else {}
        receipt = Receipt("metadata.txt", Outcome.UNREACHABLE, "", detail=str(error))
        return FrameMetadata(parse_center_time(attributes["center_time"]), fields, receipt)


def _replan(job: Job) -> None:
    """Settle which pairs are to be fetched, once the grid is known and when it has changed.

    What was stored on another grid, or in another schema, is fetched again even if the request leaves it
    out: a cube has one grid.
    """
    selection, inputs = job.plan.selection, job.inputs() if job.grid is not None else ""
    outdated = {
        unit.pair
        for unit in job.units.values()
        if unit.kind == "pair" and unit.is_complete and unit.inputs != inputs
    }
    listed = outdated & job.modified.keys()
    selection = replace(
        selection,
        wanted=tuple(sorted({*selection.wanted, *listed})),
        unlisted=tuple(sorted({*selection.unlisted, *(outdated - listed)})),
    )
    todo = tuple(pair for pair in selection.wanted if job.wants(pair))
    job.plan = replace(job.plan, selection=selection, pairs_to_fetch=todo, grid=job.grid)


def _dates(pairs: Collection[Pair]) -> list[date]:
    return sorted({day for pair in pairs for day in pair.dates})


def build_dem(job: Job) -> None:
    """Fetch the DEM, settle the frame's grid and store the DEM."""
    fetch_dem(job)()


def fetch_dem(job: Job) -> Callable[[], None]:
    """Fetch the DEM and settle the frame's grid: the DEM's, or that of the interferograms.

    Returns
    -------
    callable
        Stores the DEM, which may be done beside all that only needs the grid.
    """
    if job.grid is not None and DEM_KEY not in job.due and not job.stale(DEM_KEY, job.inputs()):
        return lambda: None
    job.listener.stage("DEM", 1)
    receipt, raster = job.portal.dem(job.frame)
    found = raster.grid if raster is not None else None
    if job.grid is None or not (found is None or job.grid.same_as(found)):
        known = [job.grid] if job.grid is not None else []
        job.grid = select_reference_grid(found, _probe_grids(job, found) or known)
        if found is not None and job.grid is not found:
            what = "it is of another place, or of other pixels, than the frame's interferograms"
            receipt, raster = receipt.replace(outcome=Outcome.CORRUPT, detail=what), None
    _replan(job)
    unit = Granule("dem", "dem", job.inputs(), receipts=(receipt,), facts={"grid": asdict(job.on_grid())})
    for line in job.disagreements():
        job.listener.note(f"{job.frame}: {line}; see that it is the frame you mean")

    def store() -> None:
        with translate_os_errors(f"{job.frame}: storing the DEM"):
            job.finish(unit, encode_images({"dem": raster.values}) if raster is not None else {})
        job.listener.advance("DEM")

    return store


def _probe_grids(job: Job, dem: Grid | None) -> list[Grid]:
    """Return the grids of interferograms: of one that bears the DEM out, or of three."""
    seen: list[Grid] = []
    wanted = job.plan.selection.wanted
    for pair in wanted if dem is None else wanted[:_MAX_PROBED_PAIRS]:
        receipt, raster = job.portal.phase(job.frame, pair, replaced=job.replaced(pair))
        if raster is not None:
            job.seen[pair] = receipt, raster
            seen.append(raster.grid)
            agreed = dem is not None and grids_compatible(dem, raster.grid)
            if agreed or len(seen) == _MAX_PROBED_PAIRS:
                break
    return seen


def build_pairs(job: Job, pairs: Sequence[Pair]) -> None:
    """Fetch, align, encode and store interferograms; what fails is recorded and owed."""
    _run_steps(job, _pair_steps(job, pairs))


def _pair_steps(job: Job, pairs: Sequence[Pair]) -> Iterator[Step]:
    inputs = job.inputs()
    for pair in job.plan.selection.unlisted:
        before = job.units.get(f"pair/{pair}")
        if before is not None and before.inputs == inputs and not before.needs_retry:
            continue  # known to be absent, or stored while it was listed
        absent = Receipt(pair.name, Outcome.ABSENT, "", detail="not in the portal's listing")
        job.finish(Granule("pair", pair.name, inputs, receipts=(absent,), facts={"unlisted": True}), {})
    yield from _steps(job, "interferograms", pairs, _build_pair)


def _build_pair(job: Job, pair: Pair) -> None:
    grid = job.on_grid()
    replaced = job.replaced(pair)
    receipts: list[Receipt] = []
    planes: dict[str, np.ndarray] = {}
    kinds: list[str] = []
    facts: dict[str, Any] = {"modified": job.modified.get(pair)}
    for name, fetch in (("insar_difference", job.portal.phase), ("insar_coherence", job.portal.coherence)):
        seen = job.seen.pop(pair, None) if name == "insar_difference" else None
        receipt, raster = seen or fetch(job.frame, pair, replaced=replaced)
        if raster is not None:
            try:
                values, alignment = align_to_grid(raster.values, raster.grid, grid)
                if alignment.kind != "identical" and not values.any():
                    raise ValueError("there is no data of it within the frame's grid")
            except ValueError as error:  # it lies elsewhere: not a raster of this frame
                receipt = receipt.replace(outcome=Outcome.CORRUPT, detail=str(error))
                facts["elsewhere"] = True
            else:
                planes[name] = values
                kinds.append(alignment.kind)
                receipt = receipt.with_notes(alignment.note) if alignment.note else receipt
        receipts.append(receipt)
        if not receipt.ok:
            break  # half a pair is no pair; the other half is fetched together with this one
    if len(planes) == 2:
        facts["alignment"] = max(kinds, key=ALIGNMENT_KINDS.index)
        valid = np.count_nonzero(planes["insar_difference"] != 0)  # of floats alone it takes thrice the time
        facts["valid_fraction"] = round(valid / grid.size, 6)
    unit = Granule("pair", pair.name, job.inputs(), receipts=tuple(receipts), facts=facts)
    with translate_os_errors(f"{job.frame}: storing {pair}"):
        job.finish(unit, encode_images(planes) if unit.is_complete else {})


def build_masks(job: Job, pairs: Sequence[Pair]) -> None:
    """Draw the masks of annotated pairs and store them with what the expert wrote."""
    _run_steps(job, _mask_steps(job, pairs))


def _mask_steps(job: Job, pairs: Sequence[Pair]) -> Iterator[Step]:
    yield from _steps(job, "annotations", [pair for pair in pairs if job.wants_mask(pair)], _build_mask)


def annotated_pairs(job: Job) -> list[Pair]:
    """Return the pairs of this build that an expert looked at, listed upstream or not."""
    drawn = (unit.pair for unit in job.units.values() if unit.kind == "mask")
    chosen = {*job.plan.selection.wanted, *job.plan.selection.unlisted, *drawn}
    return sorted(pair for pair in chosen if pair in job.annotations)


def _build_mask(job: Job, pair: Pair) -> None:
    annotation = job.annotations[pair]
    grid = job.on_grid()
    facts: dict[str, Any] = {"annotation": _annotation_facts(annotation), "grid": job.inputs()}
    shards: dict[str, bytes] = {}
    receipts: tuple[Receipt, ...] = ()
    if annotation.polygons:
        geometry, receipts = _preview_geometry(job, pair, grid)
        shards = encode_masks(rasterize_annotation(annotation, geometry, grid))
        facts |= {"preview": asdict(geometry), "listed": pair in job.modified}
        facts["modified"] = job.modified.get(pair)
    unit = Granule("mask", pair.name, job.mask_inputs(annotation), receipts=receipts, facts=facts)
    with translate_os_errors(f"{job.frame}: storing the masks of {pair}"):
        job.finish(unit, shards)


def _preview_geometry(job: Job, pair: Pair, grid: Grid) -> tuple[PreviewGeometry, tuple[Receipt, ...]]:
    """Return how the preview that the expert saw maps to the grid: from the preview, or by default.

    A preview that there is and that could not be had is owed: until then the masks follow the default.
    """
    if pair not in job.modified:
        return resolve_preview_geometry(job.frame, grid, None), ()
    receipt, size = job.portal.preview(job.frame, pair)
    needed = () if receipt.outcome is Outcome.ABSENT else (receipt,)
    return resolve_preview_geometry(job.frame, grid, size), needed


def _annotation_facts(annotation: Annotation) -> dict[str, Any]:
    """Return what the expert wrote, by the name of the cube's variable."""
    names = (*FLAGS, "phase", "confidence", "caption", "unique_id")
    return {name: getattr(annotation, name) for name in names}


def missing_epochs(job: Job, coming: Sequence[Pair] = ()) -> list[date]:
    """Return the dates of stored and `coming` pairs whose atmosphere is missing, or may be final by now."""
    units = list(job.units.values())  # other threads may be adding to them
    pairs = [unit.pair for unit in units if unit.kind == "pair" and unit.is_complete]
    return [day for day in _dates([*pairs, *coming]) if job.wants_hour(day)]


def fetch_atmosphere(job: Job, days: Sequence[date]) -> Era5Fields:
    """Fetch ERA5 at some acquisition dates; what cannot be had is in the fields' proofs.

    Hours that are kept in their preliminary version are asked for again once they should be final.
    """
    job.listener.stage("ERA5 hours", len(days))
    area = era5_area_around(job.on_grid())
    parts = []
    for final in (False, True):
        hours = [job.hour(day) for day in days if should_be_final(day) is final]
        if hours:
            heard = _Steps(job.listener, "ERA5 hours")
            parts.append(job.source.fetch(job.frame, area, hours, heard, refresh_preliminary=final))
    return merge_fields(area, job.source.name, parts)


class _Steps:
    """Tells a listener of progress that is given in totals."""

    def __init__(self, listener: ProgressListener, stage: str) -> None:
        self._listener, self._stage, self._before = listener, stage, 0

    def __call__(self, settled: int, total: int, message: str) -> None:
        self._listener.advance(self._stage, settled - self._before)
        self._before = settled


def build_epochs(job: Job, fields: Era5Fields, days: Sequence[date]) -> None:
    """Interpolate, encode and store ERA5 at dates that were asked for; what is not there is owed."""
    _run_steps(job, _epoch_steps(job, fields, days))


def _epoch_steps(job: Job, fields: Era5Fields, days: Sequence[date]) -> Iterator[Step]:
    yield from _steps(job, "atmosphere", days, partial(_build_epoch, fields=fields))


def _steps_at_hand(job: Job, atmosphere: BackgroundTask[Era5Fields] | None) -> Iterator[Step]:
    """Yield the steps of the atmosphere while the last pairs are in hand, if it has come by now.

    If not, those pairs are finished first: what goes wrong with them is not to be said hours later. A pair in
    hand may still come to nothing; what was then stored for its dates alone is not published.
    """
    if atmosphere is not None and atmosphere.is_done:
        in_hand = [pair for pair in job.plan.pairs_to_fetch if f"pair/{pair}" not in job.units]
        yield from _epoch_steps(job, atmosphere.result(), missing_epochs(job, in_hand))


def _build_epoch(job: Job, day: date, fields: Era5Fields) -> None:
    hour = job.hour(day)
    receipts = fields.receipts_by_hour[hour]
    facts: dict[str, Any] = {}
    contents: dict[str, bytes] = {}
    if hour in fields.time_index:
        receipts = tuple(receipt for receipt in receipts if receipt.ok)
        facts = {
            "era5_time": hours_since_1970(hour),
            "era5_expver": fields.expver[fields.time_index[hour]],
            "source": fields.source,
        }
        before = job.units.get(f"epoch/{day:%Y%m%d}")
        same = before is not None and before.is_complete and before.inputs == job.inputs()
        if (
            before is not None
            and same
            and before.facts == facts == {**facts, "era5_expver": EXPVER_PRELIMINARY}
        ):
            return  # asked for again, and the source has nothing newer
        contents = encode_atmosphere(fields.fields_at(hour), fields.latitude, fields.longitude, job.on_grid())
    with translate_os_errors(f"{job.frame}: storing the atmosphere of {day}"):
        job.finish(Granule("epoch", f"{day:%Y%m%d}", job.inputs(), receipts=receipts, facts=facts), contents)


def publish(job: Job) -> BuildResult:
    """Publish what is finished as a new generation, if it differs from the published one."""
    if not any(unit.kind == "pair" and unit.is_complete for unit in job.units.values()):
        raise HephaestusError(_nothing_built_message(job))
    _drop_unused_granules(job)
    # before what is fetched is published: a build that is killed then must not fetch it again
    write_upstream_state(job.shelf, job.learnt())
    published = job.changed
    if published:
        contents = CubeInventory(job.on_grid(), job.units, make_global_attributes(job))
        with translate_os_errors(f"{job.frame}: publishing the cube"), job.shelf.new_generation() as store:
            job.shelf.staging.sync(job.staged)
            with _explain_missing_chunks(job):
                write_cube_store(store, contents, job.origin)
    job.shelf.staging.discard()
    current = job.shelf.published_generation()
    assert current is not None
    return make_build_result(job, current.number, published=published)


@contextmanager
def _explain_missing_chunks(job: Job) -> Iterator[None]:
    """Say what to do where an object of the published cube, which is to be linked, is not there."""
    try:
        yield
    except (FileNotFoundError, UnsafePathError) as error:
        store = str(job.previous.store) if job.previous is not None else None
        if store is None or not str(error.filename).startswith(f"{store}/"):
            raise
        what = "missing" if isinstance(error, FileNotFoundError) else "no plain file"
        raise HephaestusError(
            f"{job.frame}: {str(error.filename).removeprefix(f'{store}/')} is {what} in the published cube; "
            f"`hephaestus repair {job.frame}` rebuilds it, then run the same command again"
        ) from error


def _sync_steps(job: Job) -> Iterator[Step]:
    """Yield one step, which puts the units that are staged by now on the disk.

    The disk writes them while the processor works on; publishing then waits for the rest alone.
    """
    staged = job.staged

    def sync() -> None:
        with translate_os_errors(f"{job.frame}: storing what is finished"):
            job.shelf.staging.sync(staged)

    yield sync


def _drop_unused_granules(job: Job) -> None:
    """Take out what no pair needs any more, and what was drawn on another grid for a withdrawn annotation."""
    inputs = job.inputs()
    dates = set(DateAxes.from_granules(job.units.values()).epochs)
    for key, unit in list(job.units.items()):
        if unit.kind == "epoch" and (unit.inputs != inputs or parse_day(unit.name) not in dates):
            del job.units[key]
        elif unit.kind == "mask" and unit.facts["grid"] != inputs:
            if not job.annotations:
                raise HephaestusError(
                    f"{job.frame}: its masks must be drawn again, on another grid or in another schema, and "
                    f"no annotations are at hand; set HEPHAESTUS_ANNOTATIONS and run the same command again"
                )
            del job.units[key]


def _nothing_built_message(job: Job) -> str:
    owed = find_missing_products(job.units)
    if not job.plan.selection.wanted:
        why = ", ".join(f"{count} {reason}" for reason, count in job.plan.selection.skipped.items())
        return (
            f"{job.frame}: of {job.plan.listed_count} interferograms upstream none is wanted "
            f"({why or 'its listing is empty'}); `hephaestus plan {job.frame} --pairs all` shows all"
        )
    reason = f"{owed[0].product} is {owed[0].outcome}: {owed[0].detail}" if owed else "none is listed"
    return f"{job.frame}: not one interferogram could be had ({reason}); run the same command again later"


def _steps(job: Job, stage: str, items: Sequence[T], work: Callable[[Job, T], object]) -> Iterator[Step]:
    """Yield the steps of a stage, which begins when the first of them is taken."""
    job.listener.stage(stage, len(items))

    def step(item: T) -> None:
        work(job, item)
        job.listener.advance(stage)

    for item in items:
        yield partial(step, item)


def _run_steps(job: Job, steps: Iterable[Step]) -> None:
    """Take steps in their order, as many at a time as the settings allow."""
    for _ in map_bounded(
        lambda step: step(), steps, max(job.settings.worker_count, job.settings.connections)
    ):
        pass
