"""State of the simulated archive: the published products, their revisions, and their files on disk."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.simulation.world.annotator import pack_annotations
from hephaestus_build.simulation.world.world import World

PortalLayout = Literal["directories", "links"]
ListingStyle = Literal["table", "pre"]

#: Largest number of products generated at once; one at real size takes about 300 MB of memory.
_MAX_MAKERS = 2
#: Files that a build reads for optional variables alone; they are generated apart from the others, when first
#: requested.
_SEPARATE_FILES = (
    ".geo.unw.tif",
    ".geo.E.tif",
    ".geo.N.tif",
    ".geo.U.tif",
    ".geo.landmask.tif",
    ".sltd.geo.tif",
)


class SimulatedArchive:
    """Products of a world, published as an archive that changes over time.

    Attributes may be changed while the archive is served.

    Parameters
    ----------
    world : World, optional
        World to publish; by default one is created from `options`.
    layout : str
        ``directories``: pairs and epochs are folders of files (the portal until 2025). ``links``: they are
        small pages with links to two other locations (the portal since).
    listing : str
        Style of Apache's folder listings, ``table`` or ``pre``.
    cache : Path, optional
        Folder for generated files, kept for later archives with the same arguments; by default a temporary
        folder that :meth:`close` removes.
    **options
        Arguments of :class:`~hephaestus_build.simulation.world.world.World`.

    Attributes
    ----------
    extra_links : dict of str to list of str
        Additional hrefs, such as hostile ones, that are written unescaped into a frame's listing of
        interferograms, or into the listing of a track, by its number.
    listed_frames : list of str
        Ids of frames that listings of tracks name too, and that have no files.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        layout: PortalLayout = "directories",
        listing: ListingStyle = "table",
        cache: Path | None = None,
        **options: Any,
    ) -> None:
        self.world = world if world is not None else World(**options)
        self._first_layout, self._first_listing = layout, listing
        self.reset()
        self._owns_folder = cache is None
        self.folder = Path(tempfile.mkdtemp(prefix="hephaestus-archive-")) if cache is None else cache
        self._lock = threading.RLock()
        self._locks: dict[Path, threading.Lock] = {}
        self._slots = threading.BoundedSemaphore(_MAX_MAKERS)
        self._annotations_archive: bytes | None = None

    def close(self) -> None:
        """Remove the generated files, unless a cache folder was given."""
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # changes over time

    def reset(self) -> None:
        """Undo every change since the archive was made: all is published, in its first revision and place."""
        self.layout: PortalLayout = self._first_layout
        self.listing: ListingStyle = self._first_listing
        self.public_root = "LiCSAR_products.public"
        self.mirror_root = "neodc/comet/data/licsar_products"
        self.extra_links: dict[str, list[str]] = {}
        self.listed_frames: list[str] = []
        self._until: date | None = None
        self._withdrawn: set[tuple[str, Pair]] = set()
        self._revisions: dict[tuple[str, Pair], int] = {}

    def publish_until(self, day: date | str | None) -> None:
        """Publish only pairs whose secondary is no later than `day`; None publishes all."""
        self._until = parse_day(day) if isinstance(day, str) else day

    def reprocess(self, frame: Frame | str, pair: Pair | str) -> int:
        """Replace the files of a pair with newer ones that differ in noise; return the new revision."""
        key = (str(frame), _to_pair(pair))
        with self._lock:
            self._revisions[key] = self._revisions.get(key, 0) + 1
            return self._revisions[key]

    def withdraw(self, frame: Frame | str, pair: Pair | str) -> None:
        """Remove a pair from the listing."""
        self._withdrawn.add((str(frame), _to_pair(pair)))

    def restore(self, frame: Frame | str, pair: Pair | str) -> None:
        """Add a withdrawn pair to the listing again."""
        self._withdrawn.discard((str(frame), _to_pair(pair)))

    def move_storage(self, name: str = "moved") -> None:
        """Move the files to other addresses: link pages point to the new ones, the old ones answer 404."""
        self.layout = "links"
        self.public_root = f"LiCSAR_products.{name}"
        self.mirror_root = f"neodc/comet/{name}/licsar_products"

    # present state

    def pairs(self, frame: Frame | str) -> tuple[Pair, ...]:
        """Return the published pairs of a frame, sorted."""
        return tuple(
            pair
            for pair in self.world.pairs(frame)
            if (self._until is None or pair.secondary <= self._until)
            and (str(frame), pair) not in self._withdrawn
        )

    def epochs(self, frame: Frame | str) -> tuple[date, ...]:
        """Return the published epochs of a frame, sorted."""
        return tuple(
            day for day in self.world.scene(frame).epochs if self._until is None or day <= self._until
        )

    def revision(self, frame: Frame | str, pair: Pair | str) -> int:
        """Return the number of times the files of a pair were replaced."""
        return self._revisions.get((str(frame), _to_pair(pair)), 0)

    def file_names(self, frame: str, kind: str, key: str = "") -> tuple[str, ...]:
        """Return the names of the files in one folder of a frame; empty if there is no such folder.

        Parameters
        ----------
        frame : str
            Frame id.
        kind : str
            ``metadata``, ``interferograms`` or ``epochs``.
        key : str
            The pair or epoch; empty for metadata.
        """
        frame_store = self.world.frame_files(frame)
        if kind == "metadata" and not key:
            return frame_store.metadata_files()
        with suppress(ValueError):
            if kind == "interferograms" and Pair.parse(key) in self.pairs(frame):
                return frame_store.pair_files(Pair.parse(key))
            if kind == "epochs" and parse_day(key) in self.epochs(frame):
                return frame_store.epoch_files(parse_day(key))
        return ()

    def modified_time(self, frame: str, kind: str, key: str = "") -> datetime:
        """Return the modification time of the files in a folder; for the arguments see :meth:`file_names`."""
        frame_store = self.world.frame_files(frame)
        if kind == "interferograms":
            return frame_store.modified_time(Pair.parse(key).secondary, self.revision(frame, key))
        return frame_store.modified_time(parse_day(key) if key else frame_store.scene.epochs[0])

    def product_path(self, frame: str, kind: str, key: str, name: str) -> Path | None:
        """Return the path of a product, generating the file if needed; None if there is no such product.

        Parameters
        ----------
        frame : str
            Frame id.
        kind : str
            ``metadata``, ``interferograms`` or ``epochs``.
        key : str
            The pair or epoch; empty for metadata.
        name : str
            Name of the file.
        """
        if not self.world.has_frame(frame) or name not in (names := self.file_names(frame, kind, key)):
            return None
        apart = name.endswith(_SEPARATE_FILES)
        group = [other for other in names if other.endswith(_SEPARATE_FILES) == apart]
        revision = self.revision(frame, key) if kind == "interferograms" else 0
        folder = self.folder / frame / kind / key / f"{revision}{'-apart' if apart else ''}"
        with self._lock:
            gate = self._locks.setdefault(folder, threading.Lock())
        with gate:
            if not folder.is_dir():
                with self._slots:
                    self._make_files(folder, frame, kind, key, revision, group)
        return folder / name

    def _make_files(
        self, folder: Path, frame: str, kind: str, key: str, revision: int, names: Iterable[str]
    ) -> None:
        """Generate files in a temporary folder, then rename it: a killed process leaves no partial folder."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        frame_store = self.world.frame_files(frame)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
        try:
            if kind == "metadata":
                frame_store.write_metadata(draft, names)
            elif kind == "epochs":
                frame_store.write_epoch(parse_day(key), draft, names)
            else:
                frame_store.write_pair(Pair.parse(key), draft, revision, names)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def annotations(self) -> bytes:
        """Return the annotation archive: a .tar.gz with one JSON file per annotated interferogram."""
        with self._lock:
            if self._annotations_archive is None:
                self._annotations_archive = pack_annotations(
                    annotation for frame in self.world.frames for annotation in self.world.annotations(frame)
                )
            return self._annotations_archive

    def make_all_files(self) -> None:
        """Generate every file that a build reads, so that none is generated while serving."""
        for frame in self.world.frames:
            self.product_path(frame, "metadata", "", "metadata.txt")
            for pair in self.pairs(frame):
                self.product_path(frame, "interferograms", pair.name, f"{pair}.geo.diff_pha.tif")
        self.annotations()


def _to_pair(pair: Pair | str) -> Pair:
    return pair if isinstance(pair, Pair) else Pair.parse(pair)
