"""Publication: finished granules become a new generation of the cube."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_files import UnsafePathError
from hephaestus_build.cube.granules import (
    EpochGranule,
    Granule,
    GranuleKey,
    MaskGranule,
    OptionalGranule,
    PairGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.overview_parts import find_orphans
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.pipeline.context import BuildContext
from hephaestus_build.pipeline.global_attributes import make_global_attributes
from hephaestus_build.pipeline.kept.generation_summary import keep_summary
from hephaestus_build.pipeline.missing_products import MissingProduct, find_missing_products
from hephaestus_build.pipeline.nothing_built import nothing_built_error
from hephaestus_build.pipeline.result import BuildResult, make_build_result
from hephaestus_build.pipeline.stage import Build
from hephaestus_build.pipeline.upstream_changes import (
    UpstreamState,
    find_gone_pairs,
    write_upstream_state,
)

log = logging.getLogger(__name__)


def publish(build: Build) -> BuildResult:
    """Publish the finished granules as a new generation, if they differ from the published one.

    Raises
    ------
    NothingBuiltError
        If no interferogram is stored; the published cube stays unchanged.
    HephaestusError
        If the disk fails; the published cube stays unchanged.
    """
    context, ledger = build.context, build.ledger
    if not ledger.complete_pairs():
        raise nothing_built_error(build, _owed_images(ledger.snapshot()))
    _drop_unused_granules(build)
    # before publication, so that a build that is killed in between does not fetch changed products twice
    write_upstream_state(context.store, _upstream_state(build))
    granules, staged = ledger.snapshot(), build.staged()
    published = _differs(build, granules, staged)
    if published:
        contents = _next_inventory(build, granules)
        with (
            translate_os_errors(f"{context.frame}: publishing the cube"),
            context.store.new_generation() as draft,
        ):
            context.store.staging.sync(staged)
            with _explain_missing_chunks(context):
                write_cube_store(draft, contents, context.object_paths)
    context.store.staging.discard()
    current = context.store.published_generation()
    assert current is not None
    if published:
        with suppress(HephaestusError):  # it may be damaged since: what reads the cube says so
            keep_summary(context.store, current)
        log.info("%s: published generation %d", context.frame, current.number)
    return make_build_result(build, current.number, published=published)


def _satellites(context: BuildContext, dates: Iterable[date]) -> dict[str, str]:
    """Return the satellite of each acquisition for which the source knows it, by date."""
    if context.is_simulated:
        return {}
    known = {day: context.metadata.satellite(day) for day in dates}
    return {f"{day:%Y%m%d}": satellite for day, satellite in known.items() if satellite}


def _drop_unused_granules(build: Build) -> None:
    """Drop what no stored pair needs, and masks and optional variables on another grid."""
    ledger, frame = build.ledger, build.context.frame
    ledger.drop(find_orphans(ledger.snapshot(), ledger.require_grid()))
    granules, inputs = ledger.snapshot(), ledger.grid_inputs()
    dates = {
        day for granule in granules.values() if isinstance(granule, PairGranule) for day in granule.pair.dates
    }
    pairs = set(ledger.complete_pairs())
    unused = []
    for key, granule in granules.items():
        if isinstance(granule, EpochGranule) and (granule.inputs != inputs or granule.day not in dates):
            unused.append(key)
        elif isinstance(granule, OptionalGranule):
            place = granule.place
            stored = place in pairs if isinstance(place, Pair) else place is None or place in dates
            if granule.inputs != inputs or not stored:
                unused.append(key)
        elif isinstance(granule, MaskGranule) and granule.grid_inputs != inputs:
            if not build.context.annotations:
                raise HephaestusError(
                    f"{frame}: its masks must be drawn again, on another grid or in another schema, and "
                    f"no annotations are available; set HEPHAESTUS_ANNOTATIONS and run the same command again"
                )
            unused.append(key)
    ledger.drop(unused)


def _upstream_state(build: Build) -> UpstreamState:
    """Return the known differences between the archive and the cube at the end of the build."""
    before, ledger = build.context.upstream, build.ledger
    changed = {key: why for key, why in before.changed.items() if ledger.must_refetch(key)}
    for item in find_missing_products(ledger.failed()):
        changed[item.unit] = f"{item.product}: {item.outcome}, {item.detail}"
    granules = ledger.snapshot()
    gone = find_gone_pairs(granules, build.context.modified)
    here = granules.keys() - set(map(GranuleKey.of_pair, gone))
    changed = {key: why for key, why in changed.items() if key in here and granules[key].is_complete}
    return UpstreamState(before.checked, changed, tuple(pair.name for pair in gone))


def _next_inventory(build: Build, granules: Mapping[str, Granule]) -> CubeInventory:
    """Return the inventory of the generation that will be published."""
    context, grid = build.context, build.ledger.require_grid()
    attributes, listed = make_global_attributes(build), {*context.modified, *context.annotations}
    try:
        if context.inventory is None:
            contents = CubeInventory.new(grid, granules, attributes, listed)
        else:
            history = context.store.history()
            contents = context.inventory.succeed(grid, granules, attributes, listed, history)
        return replace(contents, satellites=_satellites(context, contents.axes.epochs))
    except ValueError as error:
        raise HephaestusError(
            f"{context.frame}: {error}, whose readers could take the new images for theirs; once nobody "
            f"reads them, `hephaestus gc {context.frame} --keep 1 --older-than 0` removes them, then run the "
            f"same command again"
        ) from error


def _differs(build: Build, granules: Mapping[str, Granule], staged: list[Granule]) -> bool:
    """Return whether the finished granules differ from the published ones, or a cube lacks an attribute."""
    context = build.context
    if context.inventory is None or granules.keys() != context.published.keys():
        return True
    if make_global_attributes(build).keys() - context.inventory.attributes.keys():
        return True
    return any(granule.identity != context.published[granule.key].identity for granule in staged)


@contextmanager
def _explain_missing_chunks(context: BuildContext) -> Iterator[None]:
    """Turn a missing object of the published cube into an error that names `repair`."""
    try:
        yield
    except (FileNotFoundError, UnsafePathError) as error:
        store = str(context.previous.store) if context.previous is not None else None
        if store is None or not str(error.filename).startswith(f"{store}/"):
            raise
        what = "missing" if isinstance(error, FileNotFoundError) else "no plain file"
        frame = context.frame
        raise HephaestusError(
            f"{frame}: {str(error.filename).removeprefix(f'{store}/')} is {what} in the published cube; "
            f"`hephaestus repair {frame}` rebuilds it, then run the same command again"
        ) from error


def _owed_images(granules: Mapping[str, Granule]) -> list[MissingProduct]:
    """Return the missing products among DEM and interferograms."""
    return [item for item in find_missing_products(granules) if GranuleKey(item.unit).kind in ("dem", "pair")]
