"""First question of a build: what the archive lists of a frame, beside what is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_files import is_real_folder
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.schema_versions import describe_other_schema
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.pipeline.kept.last_look import (
    fingerprint_listing,
    fingerprint_question,
    keep_look,
    read_last_look,
)
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.result import BuildResult, result_of_inventory
from hephaestus_build.pipeline.upstream_changes import (
    UpstreamState,
    make_history_lookup,
    read_upstream_state,
)
from hephaestus_build.sources.annotations.archive import find_annotations
from hephaestus_build.sources.annotations.record import Annotation
from hephaestus_build.sources.era5.selection import choose_era5_source
from hephaestus_build.sources.interferograms import InterferogramSource, ProductHistory
from hephaestus_build.sources.selection import open_interferogram_source


@dataclass(frozen=True)
class Inquiry:
    """What is known of a frame once its listing has been read, with one request.

    Attributes
    ----------
    request, settings, store, annotations, previous, inventory, upstream, modified
        As in :class:`~hephaestus_build.pipeline.context.BuildContext`.
    source : InterferogramSource
        The source that gave the listing.
    """

    request: BuildRequest
    settings: Settings
    store: FrameStore
    annotations: Mapping[Pair, Annotation]
    previous: Generation | None
    inventory: CubeInventory | None
    upstream: UpstreamState
    source: InterferogramSource
    modified: Mapping[Pair, str | None]

    def unchanged_result(self) -> BuildResult | None:
        """Return the result of a build that has nothing to do, as the listing tells; None where it may have.

        That is so if the last build of the same request left nothing to ask for, and the listing and the
        published generation are those of then.
        """
        look = read_last_look(self.store)
        if look is None or not look.settled or self.inventory is None or self.previous is None:
            return None
        asked = fingerprint_question(self.request, self.settings, self.annotations)
        same = (
            (look.asked, look.listing, look.generation)
            == (asked, fingerprint_listing(self.modified), self.previous.number)
            and not self.upstream.changed
            and not is_real_folder(self.store.staging.folder)
        )
        if not same:
            return None
        reached = look.reached or look.at  # an earlier version did not keep it
        newest = max((pair.secondary for pair in self.modified), default=None)
        look = msgspec.structs.replace(look, at=datetime.now(UTC), reached=reached, newest=newest)
        keep_look(self.store, look)
        return result_of_inventory(
            self.store, self.previous.number, self.inventory, self.modified, choose_era5_source(self.settings)
        )


def ask_listing(
    request: BuildRequest,
    settings: Settings,
    store: FrameStore,
    *,
    contents: CubeInventory | None = None,
    afresh: bool = False,
) -> Inquiry:
    """Ask the archive for the listing of a frame, and for nothing else; see :func:`prepare_context`."""
    frame = request.frame
    settings = settings.for_frame(frame)
    settings.check_frame_available(frame)
    annotations = find_annotations(settings, frame, needed=request.pairs != "all").for_frame(frame)
    if request.pairs == "annotated" and not annotations:
        raise HephaestusError(
            f"{frame}: no pair of this frame is annotated; build all its pairs with --pairs all"
        )
    previous = None if afresh else store.published_generation()
    if contents is None and previous is not None:
        contents = previous.read_inventory()
    if contents is not None:
        require_current_schema(frame, contents)
    upstream = read_upstream_state(store)
    history = ProductHistory(make_history_lookup(contents.granules if contents else {}, upstream))
    source = open_interferogram_source(settings, frame, history)
    modified = {item.pair: item.modified for item in source.listing(frame).pairs}
    return Inquiry(request, settings, store, annotations, previous, contents, upstream, source, modified)


def require_current_schema(frame: Frame, contents: CubeInventory) -> None:
    """Check that a published cube has the schema of this version, so that it can be extended or repaired.

    Raises
    ------
    HephaestusError
        If it was written with another schema.
    """
    if contents.is_outdated:
        raise HephaestusError(
            f"{frame}: {describe_other_schema(str(frame), contents.schema_version)}, then run the same "
            f"command again"
        )
