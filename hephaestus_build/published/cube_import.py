"""Import of one published cube: the stages of a build, fed by the cube, and published in the same way.

Each finished granule is written to disk at once, so a killed import continues where it stopped, and a build
can go on from there too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from hephaestus_build.core.era5_grid import Era5Area, parse_center_time
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.provenance import PUBLISHED, Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.array_attributes import DEM_SOURCE
from hephaestus_build.cube.granules import (
    DemGranule,
    EpochGranule,
    Granule,
    InterferogramGranule,
    MaskGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.migration import require_migrated
from hephaestus_build.pipeline.context import BuildContext
from hephaestus_build.pipeline.global_attributes import complete_metadata
from hephaestus_build.pipeline.inquiry import require_current_schema
from hephaestus_build.pipeline.nothing_built import NothingBuiltError, summarize_reasons
from hephaestus_build.pipeline.plan import BuildRequest, PairSelection
from hephaestus_build.pipeline.prepare import (
    open_ledger,
    prepare_context,
    prepare_folder,
    recorded_listing,
)
from hephaestus_build.pipeline.publish import publish
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.pipeline.stage import Build, Stage, run_stage
from hephaestus_build.pipeline.stages import ATMOSPHERE, GRID, INTERFEROGRAMS, MASKS, OVERVIEWS
from hephaestus_build.pipeline.upstream_changes import read_upstream_state
from hephaestus_build.published.annotation_tables import AnnotationTables
from hephaestus_build.published.import_source import ImportSource
from hephaestus_build.published.import_stages import PublishedAtmosphereStage, PublishedMaskStage
from hephaestus_build.published.published_cube import PublishedCube
from hephaestus_build.sources.annotations.archive import find_annotations
from hephaestus_build.sources.era5.fields import Era5Fields
from hephaestus_build.sources.era5.requests import Era5Cost
from hephaestus_build.sources.interferograms import AcquisitionGeometry, FrameMetadata
from hephaestus_build.sources.selection import open_interferogram_source

#: Whose product is taken where both the published cube and the archive have one.
Preference = Literal["published", "archive"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportResult:
    """Result of an import.

    Attributes
    ----------
    built : BuildResult
        What is in the cube and what is owed.
    source : str
        Name of the folder or the tar file.
    imported : int
        Number of interferograms of the cube that come from a published one.
    remarks : tuple of str
        What is unusual about the published cube, and where it differs from the annotations.
    """

    built: BuildResult
    source: str
    imported: int
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "frame": str(self.built.frame),
            "exit_code": self.built.exit_code,
            "source": self.source,
            "imported": self.imported,
            "remarks": list(self.remarks),
            "result": self.built.to_json(),
        }


def import_cube(
    published: PublishedCube,
    settings: Settings,
    *,
    prefer: Preference = "published",
    listener: ProgressListener | None = None,
    wait: bool = False,
) -> ImportResult:
    """Make a cube of a published one, or extend the cube of its frame with it, and publish it.

    Parameters
    ----------
    published : PublishedCube
        The published cube.
    settings : Settings
        Folders, limits and, where it is preferred, the archive.
    prefer : str
        Whose product is taken where both have one. With ``published`` no archive is asked, and what an
        archive served before is replaced; with ``archive`` it is the other way round.
    listener : ProgressListener, optional
        Receives progress.
    wait : bool
        Whether to wait for a build of the same frame.

    Raises
    ------
    HephaestusError
        If nothing can be imported; the published cube of the frame stays unchanged.
    """
    frame = published.frame
    settings = settings.for_frame(frame)
    _check_simulated_apart(published, settings)
    require_migrated(settings, frame)
    store = FrameStore(settings.cubes_dir, frame)
    with store.lock(wait=wait):
        prepare_folder(store, listener)
        context = _prepare(published, settings, store, prefer, listener or NullListener())
        build = Build(context, open_ledger(context, replaced=_replacement_rule(published, context, prefer)))
        _check_same_grid(build, published)
        annotations = AnnotationTables(published, context.annotations)
        try:
            for stage in _stages(published, annotations, prefer):
                run_stage(build, stage)
            result = publish(build)
        except NothingBuiltError as error:
            raise HephaestusError(
                f"{frame}: no interferogram of {published.label} can be imported "
                f"({summarize_reasons(error.missing)}); nothing was imported, copy or unpack it again, or "
                f"`hephaestus build {frame}` fetches what the archive has"
            ) from error
    stored = map(build.ledger.interferogram, build.ledger.complete_pairs())
    imported = sum(granule is not None and granule.is_imported for granule in stored)
    return ImportResult(result, published.label, imported, (*published.remarks, *annotations.findings()))


def _stages(published: PublishedCube, annotations: AnnotationTables, prefer: Preference) -> list[Stage]:
    """Return the stages of an import, in order; what the archive's leave out, the published cube's add."""
    own: list[Stage] = [PublishedMaskStage(published, annotations), PublishedAtmosphereStage(published)]
    archive: list[Stage] = [MASKS, ATMOSPHERE] if prefer == "archive" else []
    return [GRID, INTERFEROGRAMS, *archive, *own, OVERVIEWS]


def _prepare(
    published: PublishedCube,
    settings: Settings,
    store: FrameStore,
    prefer: Preference,
    listener: ProgressListener,
) -> BuildContext:
    """Return the immutable state of an import; only an archive that is preferred is asked."""
    frame = published.frame
    selection = PairSelection(tuple(published.pairs), (), resolved_choice=PUBLISHED)
    if prefer == "archive":
        context = prepare_context(BuildRequest(frame, pairs="all"), settings, store, listener)
        source = ImportSource(published, context.interferograms, published.grid, context.modified.keys())
        modified = dict.fromkeys(published.pairs) | dict(context.modified)
        return replace(context, interferograms=source, modified=modified, selection=selection)
    previous = store.published_generation()
    contents = previous.read_inventory() if previous is not None else None
    if contents is not None:
        require_current_schema(frame, contents)
    metadata = _read_metadata(published)
    return BuildContext(
        request=BuildRequest(frame, pairs="all"),
        settings=settings,
        store=store,
        interferograms=ImportSource(published, open_interferogram_source(settings, frame), published.grid),
        era5=_PublishedEra5(published.label),
        metadata=metadata if contents is None else complete_metadata(metadata, contents),
        baselines=(Receipt("baselines", Outcome.ABSENT), None),
        modified=dict.fromkeys(published.pairs) | _recorded_pairs(contents),
        annotations=find_annotations(settings, frame, offline=True).for_frame(frame),
        selection=selection,
        previous=previous,
        inventory=contents,
        upstream=read_upstream_state(store),
        today=datetime.now(UTC).date(),
        listener=listener,
    )


def _recorded_pairs(contents: CubeInventory | None) -> dict[Pair, str | None]:
    """Return the pairs of a cube that an archive lists or has listed, those that are owed among them."""
    if contents is None:
        return {}
    owed = {
        granule.pair: granule.modified
        for granule in contents.granules.values()
        if isinstance(granule, InterferogramGranule) and not granule.is_unlisted
    }
    return owed | recorded_listing(contents)


def _replacement_rule(
    published: PublishedCube, context: BuildContext, prefer: Preference
) -> Callable[[Granule], bool]:
    """Return which complete granules of the frame's cube are made again, of the preferred origin."""
    pairs, listed = set(published.pairs), context.modified.keys()

    def from_archive(granule: Granule) -> bool:
        match granule:
            case InterferogramGranule():
                return granule.pair in pairs
            case MaskGranule():
                return published.has_masks and granule.pair in pairs
            case EpochGranule():
                return published.has_atmosphere and granule.day in published.days
            case DemGranule():
                return published.has_dem
        return False

    def from_published(granule: Granule) -> bool:
        match granule:
            case InterferogramGranule():
                return granule.pair in listed
            case MaskGranule():
                return granule.pair in context.annotations
        return isinstance(granule, EpochGranule | DemGranule)

    if prefer == "published":
        return lambda granule: not granule.is_imported and from_archive(granule)
    return lambda granule: granule.is_imported and from_published(granule)


def _check_simulated_apart(published: PublishedCube, settings: Settings) -> None:
    """Refuse to store simulated data among real cubes, or real data among simulated ones."""
    frame = published.frame
    if published.is_simulated and not settings.is_simulated:
        raise HephaestusError(
            f"{frame}: {published.cube.label} says that its data is simulated; add --simulated to import it "
            f"apart from the real cubes"
        )
    if settings.is_simulated and not published.is_simulated:
        raise HephaestusError(
            f"{frame}: {published.cube.label} does not say that its data is simulated; import it without "
            f"--simulated"
        )


def _check_same_grid(build: Build, published: PublishedCube) -> None:
    """Check that the published images lie on the grid of the frame's cube.

    Raises
    ------
    HephaestusError
        If they do not.
    """
    mine, theirs = build.ledger.grid, published.grid
    if mine is None or mine.same_as(theirs):
        return
    frame = build.context.frame
    turned = theirs.in_turn_of(mine)
    east, south = (turned.west - mine.west) / mine.dx, (mine.north - turned.north) / mine.dy
    raise HephaestusError(
        f"{frame}: {published.cube.label} lies on another grid than the cube here: {theirs.width} x "
        f"{theirs.height} pixels, {east:.4g} columns and {south:.4g} rows off, in place of {mine.width} x "
        f"{mine.height}; nothing was imported, another --data-dir keeps both"
    )


def _read_metadata(published: PublishedCube) -> FrameMetadata:
    """Return the metadata of a frame as the attributes of its published cube state them."""
    attributes = published.attributes

    def number(name: str) -> float | None:
        value = attributes.get(name)
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if known and value is not None else None

    look = attributes.get("look_direction")
    heights = attributes.get(DEM_SOURCE)
    return FrameMetadata(
        _read_center_time(attributes),
        {"simulated": "true"} if published.is_simulated else {},
        Receipt("metadata.txt", Outcome.ABSENT, detail=f"{published.label} was imported without an archive"),
        AcquisitionGeometry(
            number("radar_wavelength_m"),
            number("platform_heading_deg"),
            number("incidence_angle_deg"),
            "right" if look == "right" else "left" if look == "left" else None,
        ),
        sanitize_text(heights, 100) if isinstance(heights, str) else "",
    )


def _read_center_time(attributes: Mapping[str, Any]) -> timedelta | None:
    try:
        return parse_center_time(sanitize_text(attributes["center_time"], 100))
    except (KeyError, ValueError):
        return None


@dataclass
class _PublishedEra5:
    """Stands for the source of ERA5 in an import that asks none."""

    label: str
    name: str = PUBLISHED
    url: str = ""

    @property
    def description(self) -> str:
        return f"the published cube {self.label}"

    def estimate(self, area: Any, times: Any) -> Era5Cost:
        return Era5Cost(0, 0)

    def set_expected_hashes(self, expected_hash: Any) -> None:
        pass

    def fetch(
        self,
        frame: Frame,
        area: Era5Area,
        times: Sequence[datetime],
        progress: Any = None,
        *,
        refresh_preliminary: bool = False,
    ) -> Era5Fields:
        raise NotImplementedError("an import stores the fields that the published cube has")
