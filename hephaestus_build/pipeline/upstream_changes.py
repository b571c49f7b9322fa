"""Differences between the archive and a stored cube: the record of them, and the check that finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hephaestus_build.core.atomic_io import translate_os_errors, write_json
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.provenance import Outcome, PriorUse, Receipt
from hephaestus_build.core.settings import Era5Form, Settings
from hephaestus_build.cube.discovery import cubes_dir_for
from hephaestus_build.cube.granules import (
    DEM_KEY,
    DemGranule,
    EpochGranule,
    Granule,
    GranuleKey,
    InterferogramGranule,
    OptionalGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.download.revalidation import GONE_UPSTREAM, describe_difference, differs_by_tag_alone
from hephaestus_build.sources.era5.tiles import era5_tile_around
from hephaestus_build.sources.interferograms import ProductPlace
from hephaestus_build.sources.selection import open_interferogram_source

log = logging.getLogger(__name__)

_FILE = "upstream.json"
_BYTES = 16 << 20  # at most


@dataclass(frozen=True)
class UpstreamState:
    """Known differences between the archive and a published cube.

    Stored beside the generations, since it changes without a new one.

    Attributes
    ----------
    checked : str
        Time of the last check of every product, UTC, ISO 8601; empty if there was none.
    changed : dict of str to str
        Granules whose products have changed since they were fetched, and how; the next build fetches them.
    gone : tuple of str
        Stored pairs that the archive no longer lists; they are kept.
    """

    checked: str = ""
    changed: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()


def read_upstream_state(frame_store: FrameStore) -> UpstreamState:
    """Return the recorded differences of a frame; none if the record is missing or unreadable."""
    try:
        value = parse_json(read_plain_file(frame_store.root, _FILE, _BYTES))
        changed = {sanitize_text(key): sanitize_text(what) for key, what in value["changed"].items()}
        gone = tuple(map(sanitize_text, value["gone"]))
        return UpstreamState(sanitize_text(value["checked"]), changed, gone)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return UpstreamState()


def write_upstream_state(frame_store: FrameStore, known: UpstreamState) -> None:
    """Record the differences of a frame, if they have changed."""
    if known != read_upstream_state(frame_store):
        with translate_os_errors(f"{frame_store.frame}: recording what changed upstream"):
            write_json(frame_store.root / _FILE, asdict(known))


@dataclass(frozen=True)
class UpstreamChange:
    """A product that the archive has changed or removed, or that could not be checked.

    Attributes
    ----------
    unit : str
        Key of its granule.
    product : str
        Name of the product.
    what : str
        The change, in words.
    certain : bool
        False if the archive gave no answer.
    """

    unit: str
    product: str
    what: str
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.product}: {self.what}"

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return asdict(self)


def make_history_lookup(
    granules: Mapping[str, Granule], known: UpstreamState
) -> Callable[[ProductPlace, str], PriorUse]:
    """Return a function from a product's pair or date and its name to its earlier use in the cube."""
    try:
        checked = datetime.fromisoformat(known.checked).timestamp()
    except (ValueError, OverflowError):
        checked = 0.0

    optional = {
        receipt.product: key
        for key, granule in granules.items()
        if isinstance(granule, OptionalGranule) and not granule.metres  # the file of baselines grows
        for receipt in granule.receipts
    }

    def prior_use(place: ProductPlace, name: str) -> PriorUse:
        own = (
            (GranuleKey.of_pair(place), GranuleKey.of_mask(place)) if isinstance(place, Pair) else (DEM_KEY,)
        )
        for key in (*own, *([optional[name]] if name in optional else [])):
            for receipt in granules[key].receipts if key in granules else ():
                if receipt.product == name:
                    # what was gone is the same when it is back, unless another date or length says otherwise
                    doubted = checked if GONE_UPSTREAM not in known.changed.get(key, GONE_UPSTREAM) else 0.0
                    return PriorUse(receipt if receipt.ok else None, doubted)
        return PriorUse()

    return prior_use


def make_era5_hash_lookup(granules: Mapping[str, Granule]) -> Callable[[datetime], str | None]:
    """Return a function from an hour to the hash of the ERA5 values that the cube was made from."""
    hash_by_time = {
        datetime(1970, 1, 1) + timedelta(hours=granule.era5_time): granule.receipts[0].values
        for granule in granules.values()
        if isinstance(granule, EpochGranule) and granule.is_complete and granule.receipts
        if granule.era5_time is not None
    }
    return hash_by_time.get


def find_era5_form(granules: Mapping[str, Granule], grid: Grid | None) -> Era5Form | None:
    """Return which area the CDS was asked for when a cube's atmosphere was made; None where it was not asked.

    Parameters
    ----------
    granules : mapping of str to Granule
        Granules of the cube.
    grid : Grid or None
        The frame's grid.
    """
    asked = {
        (granule.receipts[0].values or " ").split(" ")[1]  # source, area, version and hash
        for granule in granules.values()
        if isinstance(granule, EpochGranule) and granule.is_complete and granule.receipts
        if granule.source == "cds"
    }
    if grid is None or not asked:
        return None
    area = era5_area_around(grid)
    tile = era5_tile_around(area)
    return "tile" if tile != area and str(tile) in asked else "frame"


def find_gone_pairs(granules: Mapping[str, Granule], listed: Collection[Pair]) -> tuple[Pair, ...]:
    """Return the stored pairs that are no longer in the archive's listing, imported ones left out."""
    stored = (
        granule.pair
        for granule in granules.values()
        if isinstance(granule, InterferogramGranule) and granule.is_complete and not granule.is_imported
    )
    return tuple(sorted(pair for pair in stored if pair not in listed))


def describe_retraction(granules: Mapping[str, Granule], listed: Collection[Pair]) -> str:
    """Return how much of a cube a listing lacks, in words; empty if it lacks no more than half.

    An archive withdraws single pairs. A listing that lacks most of a cube is rather one that was emptied or
    replaced by mistake, so nothing is concluded from it. Pairs that were imported from a published cube do
    not count: the archive may have lost them long ago.
    """
    recorded = [
        granule.pair
        for granule in granules.values()
        if isinstance(granule, InterferogramGranule)
        if not (granule.is_unlisted or granule.is_imported)
    ]
    lacking = sum(pair not in listed for pair in recorded)
    if 2 * lacking <= len(recorded):
        return ""
    return f"lacks {lacking} of {len(recorded)} interferograms of the cube"


def iter_interferogram_products(contents: CubeInventory) -> Iterable[tuple[GranuleKey, Receipt]]:
    """Yield (granule's key, receipt) for every product of the interferogram source that is in the cube.

    Without the file of baselines, which grows with each acquisition and is fetched by each build.
    """
    for _, granule in sorted(contents.granules.items()):
        if isinstance(granule, OptionalGranule) and granule.metres:
            continue
        if isinstance(granule, InterferogramGranule | DemGranule | OptionalGranule):
            yield from ((granule.key, receipt) for receipt in granule.receipts if receipt.ok and receipt.url)


def _place(key: GranuleKey) -> ProductPlace:
    """Return what the products of a granule belong to: a pair, a date or the frame."""
    return key.place if key.kind == "optional" else None if key == DEM_KEY else key.pair


def check_upstream(frame: Frame, settings: Settings, listener: ProgressListener) -> list[UpstreamChange]:
    """Check every product of a cube against the archive, without fetching any.

    Changes are recorded: ``status`` shows them and the next build fetches them.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    settings = settings.for_frame(frame)
    frame_store = FrameStore(cubes_dir_for(settings, frame), frame)
    current = frame_store.published_generation()
    if current is None:
        raise HephaestusError(f"{frame}: there is no cube to compare; `hephaestus build {frame}` builds it")
    changes = compare_with_archive(frame, current.read_inventory(), settings, listener)
    known = read_upstream_state(frame_store)
    silent = {change.unit for change in changes if not change.certain}
    changed = {key: what for key, what in known.changed.items() if key in silent}
    certain = sorted(
        (change for change in changes if change.certain), key=lambda change: GONE_UPSTREAM not in change.what
    )
    changed |= {change.unit: str(change) for change in certain}  # of a granule's products, one that differs
    checked = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_upstream_state(frame_store, UpstreamState(checked, changed, known.gone))
    except HephaestusError as error:  # the changes are returned even if they cannot be recorded
        log.warning("%s", error)
    return changes


def compare_with_archive(
    frame: Frame, contents: CubeInventory, settings: Settings, listener: ProgressListener
) -> list[UpstreamChange]:
    """Ask the archive for every product of a cube, without fetching any, and return the differences, sorted.

    Raises
    ------
    HephaestusError
        If no archive that may have the frame is set.
    """
    settings = settings.for_frame(frame)
    settings.check_frame_available(frame)
    products = list(iter_interferogram_products(contents))
    changes: list[UpstreamChange] = []
    with closing(open_interferogram_source(settings, frame)) as source:

        def ask(item: tuple[GranuleKey, Receipt]) -> None:
            key, receipt = item
            asked = frame, _place(key), receipt.product, receipt.url
            page = source.probe_product(*asked)
            if not page.ok and page.outcome is not Outcome.ABSENT:
                what = f"upstream cannot be asked ({page.outcome}: {page.detail})"
                changes.append(UpstreamChange(key, receipt.product, what, certain=False))
            elif differs_by_tag_alone(receipt, page) and page.etag != source.probe_product(*asked).etag:
                return  # several servers behind one address, each with tags of its own
            elif what := describe_difference(receipt, page):
                changes.append(UpstreamChange(key, receipt.product, what))

        listener.stage(f"{frame}: products asked", len(products))
        for _ in map_bounded(ask, products, settings.connections_allowed):
            listener.advance(f"{frame}: products asked")
    return sorted(changes, key=lambda change: (change.unit, change.product))
