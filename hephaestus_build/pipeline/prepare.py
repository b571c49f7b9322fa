"""Preparation of a build: the listing, annotations and published cube, before any product is fetched."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, date, datetime

from hephaestus_build.core.configuration.setting_values import NO_OPTIONAL_VARIABLES
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.manners import probe_filesystem
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import (
    Granule,
    GranuleKey,
    InterferogramGranule,
    MaskGranule,
    OptionalGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.adoption import adopt_copy
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.pipeline.context import BuildContext
from hephaestus_build.pipeline.frame_cost import TYPICAL_ERA5_AREA, expected_era5_area
from hephaestus_build.pipeline.frame_grid import recorded_grid
from hephaestus_build.pipeline.global_attributes import complete_metadata
from hephaestus_build.pipeline.inquiry import Inquiry, ask_listing
from hephaestus_build.pipeline.interferogram_stage import select_all_pairs
from hephaestus_build.pipeline.ledger import Ledger
from hephaestus_build.pipeline.missing_products import find_missing_products
from hephaestus_build.pipeline.optional_stage import optional_keys
from hephaestus_build.pipeline.plan import (
    BuildPlan,
    BuildRequest,
    PairSelection,
    drop_withdrawn_pairs,
    select_pairs,
)
from hephaestus_build.pipeline.stage import Build
from hephaestus_build.pipeline.stages import ATMOSPHERE, INTERFEROGRAMS, OPTIONAL
from hephaestus_build.pipeline.upstream_changes import (
    find_era5_form,
    make_era5_hash_lookup,
    make_history_lookup,
    read_upstream_state,
)
from hephaestus_build.sources.annotations.archive import find_annotations
from hephaestus_build.sources.era5.requests import Era5Cost
from hephaestus_build.sources.era5.selection import Era5Source, choose_era5_source
from hephaestus_build.sources.interferograms import FrameMetadata, InterferogramSource, ProductHistory
from hephaestus_build.sources.selection import open_interferogram_source

log = logging.getLogger(__name__)


def prepare_folder(store: FrameStore, listener: ProgressListener | None = None) -> None:
    """Check, before anything is downloaded, that a cube can be published; call it with the frame locked.

    A cube that was copied to the published name without its generations is adopted, so that the build
    continues from it.

    Raises
    ------
    HephaestusError
        If the file system cannot hold cubes, or the published name belongs to something else.
    """
    probe_filesystem(store.published_link.parent).require_usable(store.frame)
    adopt_copy(store, listener=listener)


def prepare_build(
    request: BuildRequest, settings: Settings, store: FrameStore, listener: ProgressListener | None = None
) -> Build:
    """Gather the state of the archive, the annotations and the cube. Fetches no product.

    Parameters
    ----------
    request : BuildRequest
        What to build.
    settings : Settings
        Archives, folders and limits.
    store : FrameStore
        Folder of the frame's generations.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If the frame cannot be built: the archive does not list it, annotated pairs are asked for and it has
        none, or simulated and real data would be mixed.
    """
    return open_build(ask_listing(request, settings, store), listener)


def open_build(inquiry: Inquiry, listener: ProgressListener | None = None) -> Build:
    """Return a build of what an inquiry has found; asks for the rest of what is needed before any product."""
    context = _complete_context(inquiry, listener)
    return Build(context, open_ledger(context))


def prepare_context(
    request: BuildRequest,
    settings: Settings,
    store: FrameStore,
    listener: ProgressListener | None = None,
    *,
    contents: CubeInventory | None = None,
    afresh: bool = False,
) -> BuildContext:
    """Return the immutable state of a build.

    Parameters
    ----------
    request, settings, store, listener
        See :func:`prepare_build`.
    contents : CubeInventory, optional
        What the published cube is made of, where its own record cannot be trusted.
    afresh : bool
        Whether to build as if there were no published cube, whose record is lost.
    """
    return _complete_context(
        ask_listing(request, settings, store, contents=contents, afresh=afresh), listener
    )


def _complete_context(inquiry: Inquiry, listener: ProgressListener | None) -> BuildContext:
    """Return the state of a build: what an inquiry has found, with the frame's metadata and baselines."""
    request, settings, store = inquiry.request, inquiry.settings, inquiry.store
    frame, source, contents = request.frame, inquiry.source, inquiry.inventory
    modified, annotations = inquiry.modified, inquiry.annotations
    selection = select_pairs(request, modified, annotations)
    log.info("%s: the archive lists %d pairs, %d are wanted", frame, len(modified), len(selection.wanted))
    context = BuildContext(
        request=request,
        settings=settings,
        store=store,
        interferograms=source,
        era5=_open_era5_source(settings, store, contents),
        metadata=_find_metadata(source, frame, contents),
        baselines=(Receipt("baselines", Outcome.ABSENT), None),
        modified=modified,
        annotations=annotations,
        selection=selection,
        previous=inquiry.previous,
        inventory=contents,
        upstream=inquiry.upstream,
        today=datetime.now(UTC).date(),
        listener=listener or NullListener(),
    )
    _check_simulated_apart(context)
    context = replace(context, baselines=source.fetch_baselines(frame, store.baselines_file))
    _note_era5_source(context)
    return context


def prepare_repair_context(
    frame: Frame,
    settings: Settings,
    store: FrameStore,
    listener: ProgressListener | None,
    contents: CubeInventory,
    broken: Collection[GranuleKey],
) -> BuildContext:
    """Return the immutable state of a repair, for which no archive is asked.

    What a build learns from the archive's listing and metadata is taken from the cube's record. Products of
    the damaged granules are taken from the cache if it has those that the cube was made of.

    Parameters
    ----------
    frame, settings, store, listener
        See :func:`prepare_build`.
    contents : CubeInventory
        What the published cube is made of; its own record may be damaged.
    broken : collection of GranuleKey
        Keys of the damaged granules.
    """
    settings = settings.for_frame(frame)
    settings.check_frame_available(frame)
    upstream = read_upstream_state(store)
    receipts = (receipt for key in broken for receipt in contents.granules[key].receipts)
    history = ProductHistory(
        make_history_lookup(contents.granules, upstream),
        frozenset(receipt.digest for receipt in receipts if receipt.digest),
    )
    source = open_interferogram_source(settings, frame, history)
    drawn = any(key.kind == "mask" for key in broken)
    context = BuildContext(
        request=BuildRequest(frame, pairs="all"),
        settings=settings,
        store=store,
        interferograms=source,
        era5=_open_era5_source(settings, store, contents),
        metadata=complete_metadata(_recorded_metadata(contents), contents),
        baselines=(Receipt("baselines", Outcome.ABSENT), None),
        modified=recorded_listing(contents),
        annotations=find_annotations(settings, frame).for_frame(frame) if drawn else {},
        selection=PairSelection((), ()),  # only the damaged granules
        previous=store.published_generation(),
        inventory=contents,
        upstream=upstream,
        today=datetime.now(UTC).date(),
        listener=listener or NullListener(),
    )
    _check_simulated_apart(context)
    if any(key.kind == "epoch" for key in broken):
        _note_era5_source(context)
    return context


def _open_era5_source(settings: Settings, store: FrameStore, contents: CubeInventory | None) -> Era5Source:
    """Return the source of the atmosphere, which knows the values that a published cube was made of.

    A cube keeps the form of its requests to the CDS (`era5_area`), so that its values do not depend on when
    the setting was changed.
    """
    published = contents.granules if contents else {}
    form = find_era5_form(published, contents.grid) if contents else None
    if form is None:
        begun = store.staging.read_granules(check=False)
        form = find_era5_form(begun, contents.grid if contents else recorded_grid(begun))
    if form is not None and form != settings.era5_area:
        log.info(
            "%s: the cube was begun with era5_area: %s and keeps it; a new cube takes %s",
            store.frame,
            form,
            settings.era5_area,
        )
        settings = settings.model_copy(update={"era5_area": form})
    era5 = choose_era5_source(settings)
    era5.set_expected_hashes(make_era5_hash_lookup(published))
    return era5


def _note_era5_source(context: BuildContext) -> None:
    mark = ", simulated" if context.is_simulated else ""
    context.listener.note(f"{context.frame}: ERA5 from {context.era5.description}{mark}")


def recorded_listing(contents: CubeInventory) -> dict[Pair, str | None]:
    """Return the listed pairs of a cube, and when each was last modified, as its granules state."""
    listed: dict[Pair, str | None] = {}
    for granule in contents.granules.values():
        if (isinstance(granule, InterferogramGranule) and granule.is_complete) or (
            isinstance(granule, MaskGranule) and granule.projection is not None and granule.was_listed
        ):
            listed.setdefault(granule.pair, granule.modified)
    return listed


def open_ledger(
    context: BuildContext,
    *,
    grid: Grid | None = None,
    replaced: Callable[[Granule], bool] = lambda granule: False,
) -> Ledger:
    """Return a ledger with the published granules and those of interrupted builds.

    Parameters
    ----------
    context : BuildContext
        Immutable state of the build.
    grid : Grid, optional
        The frame's grid; by default the recorded one, unless later granules contradict it.
    replaced : callable, optional
        Returns whether a complete granule is made again; the present one stays if that fails.
    """
    staged = context.store.staging.read_granules()
    granules = drop_withdrawn_pairs({**context.published, **staged}, context.modified, context.annotations)
    if NO_OPTIONAL_VARIABLES in context.request.variables:
        granules = {key: item for key, item in granules.items() if not isinstance(item, OptionalGranule)}
    return Ledger(
        context.store,
        granules,
        grid=grid or recorded_grid(granules),
        # an interrupted build has fetched the others
        refetch=(context.upstream.changed.keys() - staged.keys())
        | {key for key, granule in granules.items() if granule.is_complete and replaced(granule)},
    )


def make_plan(build: Build) -> BuildPlan:
    """Return what a build would fetch and store, and what the file system of the cubes lacks for that."""
    context = build.context
    selection = select_all_pairs(build)
    days = sorted({day for pair in selection.wanted for day in pair.dates})
    missing = ATMOSPHERE.items(build, only=list(map(GranuleKey.of_epoch, days)))
    dates = tuple(key.day for key in missing)
    optional = OPTIONAL.items(build, only=optional_keys(build, coming=selection.wanted))
    pairs = INTERFEROGRAMS.items(build)
    granules = build.ledger.snapshot()
    owed = {key for key, granule in granules.items() if granule.needs_retry}
    return BuildPlan(
        request=context.request,
        selection=selection,
        pairs_to_fetch=tuple(key.pair for key in pairs),
        era5_dates=dates,
        era5_cost=_estimate_era5(build, dates),
        era5_problem=_atmosphere_problem(context),
        grid=build.ledger.grid,
        listed_count=len(context.modified),
        optional_products=dict(Counter(key.variable for key in optional)),
        manners=probe_filesystem(context.store.published_link.parent),
        connections=context.settings.connections_allowed,
        requests_per_second=RequestLimits(context.settings).rate_of(context.settings.licsar_url),
        is_published=context.previous is not None,
        new_count=sum(key not in owed for key in (*pairs, *optional)),
        owed_count=len(find_missing_products(granules)),
    )


def _estimate_era5(build: Build, dates: Collection[date]) -> Era5Cost:
    context, grid = build.context, build.ledger.grid
    area = expected_era5_area(context.frame) if grid is None else era5_area_around(grid)
    hours = filter(None, map(context.era5_hour, dates))
    return context.era5.estimate(area or TYPICAL_ERA5_AREA, hours)


def _find_metadata(
    source: InterferogramSource, frame: Frame, contents: CubeInventory | None
) -> FrameMetadata:
    """Return the frame's metadata: from the archive, else from the published cube."""
    try:
        metadata = source.metadata(frame)
    except HephaestusError as error:
        if contents is None:
            raise
        log.warning("%s", error)
        metadata = _recorded_metadata(contents, str(error))
    if contents is not None and not (metadata.receipt.ok and metadata.center_time is not None):
        metadata = complete_metadata(metadata, contents)
    return metadata


def _atmosphere_problem(context: BuildContext) -> str:
    unknown = context.metadata.unknown_time
    return unknown.detail if unknown is not None and context.metadata.center_time is None else ""


def _recorded_metadata(contents: CubeInventory, why: str = "") -> FrameMetadata:
    """Return the frame's metadata without what only the archive states.

    Parameters
    ----------
    contents : CubeInventory
        What the published cube is made of.
    why : str
        Why the archive's metadata is not used.
    """
    fields = {"simulated": "true"} if contents.attributes.get("simulated") else {}
    return FrameMetadata(None, fields, Receipt("metadata.txt", Outcome.UNREACHABLE, "", detail=why))


def _check_simulated_apart(context: BuildContext) -> None:
    """Refuse to store simulated data among real cubes, or real data among simulated ones.

    Ids with a track that no satellite flies are simulated; for other ids the archive says so.
    """
    frame, settings = context.frame, context.settings
    archive = f"{frame}: the archive at {context.interferograms.address}"
    if context.is_simulated and not settings.is_simulated:
        raise HephaestusError(
            f"{archive} says that its data of this frame is simulated; `hephaestus build {frame} "
            f"--simulated` builds it apart from the real cubes"
        )
    if settings.is_simulated and not context.is_simulated:
        raise HephaestusError(
            f"{archive} does not say that its data of this frame is simulated; leave out --simulated, and "
            f"it is built among the real cubes"
        )
