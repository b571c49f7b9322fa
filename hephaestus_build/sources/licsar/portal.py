"""Client of COMET's LiCSAR portal (Lazecký et al. 2020): a frame's listing, metadata and products.

Until 2025 the portal served each interferogram as a folder of files; now it serves a small page of links to
other hosts. Both layouts are supported. The location that worked is remembered for each frame, so that one
request per product is enough in either.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.errors import HephaestusError, RefusedError, UnreachableError, UsageError
from hephaestus_build.core.frames import FRAME_ID_HELP, Frame, Pair
from hephaestus_build.core.gdal import check_gdal
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl, redact_url
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.download_task import ByteProgress
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.sources.interferograms import (
    EpochBaselines,
    FrameMetadata,
    InterferogramListing,
    KeptListing,
    PhaseConvention,
    PreviewSize,
    ProductHistory,
    ProductPlace,
    Raster,
    SourceCredit,
)
from hephaestus_build.sources.licsar.archive_addresses import ArchiveAddresses
from hephaestus_build.sources.licsar.geotiff import read_coherence, read_height, read_phase
from hephaestus_build.sources.licsar.html_listing import parse_anchors, parse_listing
from hephaestus_build.sources.licsar.kept_records import (
    BASELINES_PRODUCT,
    archive_cache_folder,
    keep_baselines,
    keep_listing,
    read_kept_baselines,
    read_kept_listing,
)
from hephaestus_build.sources.licsar.optional_products import optional_product
from hephaestus_build.sources.licsar.preview_file import PNG_SIGNATURE, read_preview
from hephaestus_build.sources.licsar.product_search import MAX_PAGE_BYTES, ProductSearch
from hephaestus_build.sources.licsar.text_files import (
    MAX_TEXT_FILE_BYTES,
    describe_frame,
    read_baselines,
    read_metadata,
)
from hephaestus_build.sources.licsar.tiff_directory import MAX_BYTES

log = logging.getLogger(__name__)
T = TypeVar("T")

# Name of a track's folder, and frames of a track: the fullest ones have some thirty.
_TRACK, _MAX_TRACK_FRAMES = re.compile(r"[1-9][0-9]{0,2}"), 500
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class LicsarPortal:
    """Thread-safe client of the LiCSAR portal or a copy of it.

    Parameters
    ----------
    settings : Settings
        ``licsar_url`` and ``licsar_mirror_url``, the cache, and how to ask.
    history : ProductHistory, optional
        What earlier builds know of its products.

    Raises
    ------
    UsageError
        If an address in the settings is invalid.
    """

    credit = SourceCredit(
        source="LiCSAR",
        institution="COMET",
        license="Open Government Licence v3",
        acknowledgement="LiCSAR contains modified Copernicus Sentinel data analysed by COMET.",
        processor="LiCSAR",
        phase=PhaseConvention(
            "away",
            "LiCSBAS, which reads LiCSAR's products, takes an interferogram as the phase of the later "
            "date relative to the earlier one and multiplies it by -wavelength / (4 pi) for displacement "
            "towards the satellite (github.com/yumorishita/LiCSBAS, issues 44 and 294)",
        ),
    )

    def __init__(
        self,
        settings: Settings,
        *,
        history: ProductHistory = ProductHistory(),  # noqa: B008 -- immutable
    ) -> None:
        self._addresses = ArchiveAddresses(settings)
        self.client = HttpClient(settings, follow=self._addresses.is_trusted_url)
        self.search = ProductSearch(self._addresses, self.client)
        self._folder = archive_cache_folder(settings)
        self._takes_simulated = settings.is_simulated
        self._center_times = settings.center_time
        self._history = history
        self.address = redact_url(settings.licsar_url)

    def close(self) -> None:
        """Close all connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tracks(self) -> tuple[int, ...]:
        """Return the relative orbits that the archive lists, sorted; one request.

        Raises
        ------
        HephaestusError
            If the archive does not answer with a listing.
        """
        names = self._listed_names(self._addresses.base, "the tracks")
        return tuple(sorted({int(name) for name in names if _TRACK.fullmatch(name)}))

    def frames(self, track: int) -> tuple[Frame, ...]:
        """Return the frames that the archive has on a relative orbit, sorted; one request.

        Raises
        ------
        HephaestusError
            If the archive has no such track or does not answer with a listing; an UnreachableError if it does
            not answer at all, a RefusedError if it refuses access.
        """
        found: set[Frame] = set()
        for name in self._listed_names(self._addresses.base.child(f"{track}/"), f"track {track}"):
            with suppress(UsageError):
                found.add(Frame(name))
        frames = tuple(sorted(frame for frame in found if frame.track == track))
        if len(frames) > _MAX_TRACK_FRAMES:
            raise HephaestusError(
                f"track {track}: the LiCSAR archive lists {len(frames)} frames, and a track has some dozens; "
                "none is taken; check HEPHAESTUS_LICSAR_URL"
            )
        return frames

    def _listed_names(self, folder: HttpUrl, what: str) -> list[str]:
        """Return the last parts of the addresses that a folder's listing links to."""
        page = self.client.get_text(folder.url_with_secrets, max_bytes=MAX_PAGE_BYTES)
        detail = f"{page.outcome}: {page.detail}"
        if page.ok:
            try:
                return [anchor.href.rstrip("/").rpartition("/")[2] for anchor in parse_anchors(page.text)]
            except ValueError as error:
                detail = str(error)
        message = (
            f"{what}: the LiCSAR archive does not list its frames ({detail}; asked {page.url}); "
            "check HEPHAESTUS_LICSAR_URL, or run the same command again later"
        )
        if page.outcome is Outcome.REFUSED:
            raise RefusedError(message, page.status)
        raise (UnreachableError if page.outcome is Outcome.UNREACHABLE else HephaestusError)(message)

    def listing(self, frame: Frame) -> InterferogramListing:
        """Return the interferograms that the archive lists for `frame`, usually with one request.

        The listing is stored in the cache, where it can be read offline.

        Raises
        ------
        HephaestusError
            If the frame is absent or the archive does not answer with a listing; an UnreachableError if it
            does not answer at all, a RefusedError if it refuses access.
        """
        # the portal requires the trailing slash here
        folders = {"links": self._addresses.base.child(f"{frame.track}/{frame}/interferograms/")}
        if self._addresses.mirror:
            folders["mirror"] = self._addresses.mirror.child(f"{frame.track:02d}/{frame}/")
        pages: list[SmallResponse] = []
        for place, folder in folders.items():
            page = self.client.get_text(folder.url_with_secrets, max_bytes=MAX_PAGE_BYTES)
            if page.ok and page.url != str(folder) and f"/{frame}/" not in f"{page.url}/":
                detail = f"redirected to {page.url}"
                page = replace(page, outcome=Outcome.CORRUPT, url=str(folder), detail=detail)
            if page.ok:
                entries = parse_listing(page.text, page.url, frame.id, self._addresses.is_trusted_url)
                if entries.is_listing:
                    if entries.pairs:
                        direct = place == "links" and entries.pairs_are_folders
                        self.search.note_location(frame, "direct" if direct else place)
                    pairs = {item.pair: item.modified for item in entries.pairs}
                    keep_listing(self._folder / frame.id, pairs, page.url)
                    return InterferogramListing(frame, entries.pairs, page.url, entries.ignored)
                detail = "the page is not a directory listing"
                if entries.other_frame:
                    detail = f"the page is the listing of {entries.other_frame}"
                page = replace(page, outcome=Outcome.CORRUPT, detail=detail)
            pages.append(page)
            if page.outcome is not Outcome.ABSENT:  # the mirror's listing is older: not used during an outage
                break
        if pages[0].outcome is Outcome.REFUSED:
            raise RefusedError(_listing_error(frame, pages[0]), pages[0].status)
        silent = pages[0].outcome is Outcome.UNREACHABLE
        raise (UnreachableError if silent else HephaestusError)(_listing_error(frame, pages[0]))

    def metadata(self, frame: Frame) -> FrameMetadata:
        """Return the metadata of `frame`.

        The centre time is that of the settings, else of the file, else of the registry of published frames.
        If none of them states it, the metadata say why.
        """
        receipt, fields = self._download_product(
            frame, None, "metadata.txt", read_metadata, max_bytes=MAX_TEXT_FILE_BYTES
        )
        fields = fields or {}
        text = next((value for key, value in fields.items() if key.lower() == "center_time"), "")
        if not text:  # the cached file may be cut: download all of it next time
            self.client.cache.discard(self._folder / frame.id / "metadata.txt")
        if own := self._center_times.get(frame.id):
            receipt = receipt.with_notes("center_time is from the settings")
            return describe_frame(frame, parse_center_time(own), fields, receipt)
        reason = "" if receipt.ok else receipt.detail
        if text:
            try:
                return describe_frame(frame, parse_center_time(text), fields, receipt)
            except ValueError as error:
                reason = str(error)
        if known := published_frames().get(frame.id):
            receipt = receipt.with_notes("center_time is from the registry of frames")
            return describe_frame(frame, parse_center_time(known.center_time), fields, receipt)
        outcome = receipt.outcome
        if receipt.ok:
            outcome = Outcome.CORRUPT if text else Outcome.ABSENT
        state = "does not state it" if receipt.ok else f"is {receipt.outcome}"
        unknown = Receipt(
            "center_time",
            outcome,
            receipt.url,
            detail=f"the acquisition time is unknown: metadata.txt {state} "
            f"({reason or 'it has no center_time'}; asked {receipt.url}); if you know it, set "
            f'center_time: {{{frame}: "18:41:07"}} (UTC) in the settings',
        )
        return replace(describe_frame(frame, None, fields, receipt), unknown_time=unknown)

    def baselines(self, frame: Frame) -> tuple[Receipt, EpochBaselines | None]:
        """Return the perpendicular baselines of `frame`; many frames have none."""
        return self._download_product(
            frame, None, BASELINES_PRODUCT, read_baselines, max_bytes=MAX_TEXT_FILE_BYTES
        )

    def fetch_baselines(self, frame: Frame, path: Path) -> tuple[Receipt, EpochBaselines | None]:
        """Fetch the perpendicular baselines of `frame`, store them beside its cube, and return them.

        If they are absent or cannot be fetched, an earlier file stays, and no error is raised.

        Parameters
        ----------
        frame : Frame
            The frame.
        path : pathlib.Path
            File to write. If its folder does not exist, the baselines are only in the cache.
        """
        try:
            receipt, baselines = self.baselines(frame)
        except HephaestusError as error:
            log.debug("%s", error)
            return Receipt(BASELINES_PRODUCT, Outcome.UNREACHABLE, "", detail=sanitize_text(error)), None
        if baselines is not None and baselines.is_simulated and not self._takes_simulated:
            log.debug("%s: its baselines are simulated: not kept among real ones", frame)
            return receipt.replace(outcome=Outcome.CORRUPT, detail="it is marked as simulated"), None
        if baselines is not None:
            keep_baselines(path, baselines, receipt)
        else:
            log.debug("%s: no baselines: %s %s", frame, receipt.outcome, receipt.detail)
        return receipt, baselines

    def kept_listing(self, frame: Frame) -> KeptListing | None:
        """Return the last listing that was read, without asking the archive; None where none is kept."""
        return read_kept_listing(self._folder / frame.id)

    def kept_baselines(self, frame: Frame, path: Path) -> EpochBaselines | None:
        """Return the baselines kept in `path` beside the cube, else those in the cache, else None."""
        return read_kept_baselines(path, self._folder / frame.id)

    def dem(self, frame: Frame, *, progress: ByteProgress | None = None) -> tuple[Receipt, Raster | None]:
        """Return the heights of `frame`: float32, metres, NaN for no data."""
        name = f"{frame}.geo.hgt.tif"
        return self._download_raster(frame, None, name, read_height, progress)

    def phase(
        self, frame: Frame, pair: Pair, *, replaced: bool = False, progress: ByteProgress | None = None
    ) -> tuple[Receipt, Raster | None]:
        """Return the filtered wrapped phase of `pair`: float32, rad, exactly 0 for no data.

        Parameters
        ----------
        frame, pair : Frame, Pair
            The interferogram.
        replaced : bool
            Whether the archive is known to have replaced the files of the pair.
        progress : callable, optional
            Called with the number of bytes that have just arrived.
        """
        return self._download_raster(frame, pair, f"{pair}.geo.diff_pha.tif", read_phase, progress, replaced)

    def coherence(
        self, frame: Frame, pair: Pair, *, replaced: bool = False, progress: ByteProgress | None = None
    ) -> tuple[Receipt, Raster | None]:
        """Return the coherence of `pair`: uint8, 255 for 1, 0 for no data; see :meth:`phase`."""
        return self._download_raster(frame, pair, f"{pair}.geo.cc.tif", read_coherence, progress, replaced)

    def preview(self, frame: Frame, pair: Pair) -> tuple[Receipt, PreviewSize | None]:
        """Return size and colour mode of the preview of `pair`."""
        name = f"{pair}.geo.diff.png"
        return self._download_product(frame, pair, name, read_preview, (PNG_SIGNATURE,), max_bytes=64 << 20)

    def optional_raster(
        self,
        frame: Frame,
        variable: str,
        place: ProductPlace,
        *,
        replaced: bool = False,
        progress: ByteProgress | None = None,
    ) -> tuple[Receipt, Raster | None]:
        """Return the raster of an optional variable, as ``schemas/cube.json`` describes its values.

        Parameters
        ----------
        frame : Frame
            The frame.
        variable : str
            Name of the optional variable, such as ``unwrapped_phase``.
        place : Pair, datetime.date or None
            The pair or the acquisition date; None for a variable of the frame.
        replaced, progress
            See :meth:`phase`.
        """
        name, read = optional_product(frame, variable, place)
        return self._download_raster(frame, place, name, read, progress, replaced)

    def probe_product(self, frame: Frame, place: ProductPlace, name: str, url: str = "") -> SmallResponse:
        """Return the archive's present headers of a product, at whichever location, without its content.

        Parameters
        ----------
        frame, place : Frame, and Pair, datetime.date or None
            Frame of the product, and its pair or date; None for products of the frame.
        name : str
            Name of the product.
        url : str
            Address of an earlier download. It is tried first if it belongs to the archive's hosts; others
            are not requested, since records are not trusted, nor are other ports of this machine: a simulated
            archive has another one each time.
        """
        if self._addresses.is_trusted_url(url) and not self._addresses.is_other_port(url):
            page = self._head_of_file(self._addresses.file_url(url))
            if page.outcome is not Outcome.ABSENT:  # if absent, it may have moved: try the other locations
                return page
        pages: list[SmallResponse] = []
        for url in self.search.candidates(frame, place, name):
            page = self._head_of_file(url)
            if page.ok:
                return page
            pages.append(page)
        # the product is absent only if it is absent at every location
        silent = (page for page in pages if page.outcome is not Outcome.ABSENT)
        return next(silent, SmallResponse(Outcome.ABSENT, pages[-1].url if pages else "", detail="nowhere"))

    def _head_of_file(self, url: str) -> SmallResponse:
        """Return the headers of a product; ``CORRUPT`` if a page or nothing came in its place."""
        page = self.client.head(url)
        if page.ok and (page.is_web_page or page.size == 0):
            detail = "a web page came in its place" if page.is_web_page else "zero bytes"
            return replace(page, outcome=Outcome.CORRUPT, detail=detail)
        return page

    def _download_raster(
        self,
        frame: Frame,
        place: ProductPlace,
        name: str,
        read: Callable[[Path], Raster],
        progress: ByteProgress | None,
        replaced: bool = False,
    ) -> tuple[Receipt, Raster | None]:
        check_gdal()  # before the download of a raster that GDAL could not decode
        receipt, raster = self._download_product(
            frame,
            place,
            name,
            read,
            _TIFF_SIGNATURES,
            max_bytes=MAX_BYTES,
            progress=progress,
            replaced=replaced,
        )
        if raster is not None and raster.notes:
            receipt = receipt.with_notes(*raster.notes)
        return receipt, raster

    def _download_product(
        self,
        frame: Frame,
        place: ProductPlace,
        name: str,
        read: Callable[[Path], T],
        magic: tuple[bytes, ...] = (),
        *,
        max_bytes: int,
        progress: ByteProgress | None = None,
        replaced: bool = False,
    ) -> tuple[Receipt, T | None]:
        """Download a product of a pair, a date or the frame, and remember the location that worked.

        Parameters
        ----------
        frame, place : Frame, and Pair, datetime.date or None
            Frame of the product, and its pair or date; None for products of the frame.
        name : str
            Name of the product, and of its file in the cache.
        read : callable
            Parses and checks the downloaded file; ValueError if it is corrupt.
        magic : tuple of bytes
            Allowed first bytes of the file; any if empty.
        max_bytes : int
            Size limit of the file.
        progress : callable, optional
            Called with the number of bytes that have just arrived.
        replaced : bool
            Whether the archive is known to have replaced the file.
        """
        trail = self.search.candidates(frame, place, name)
        receipt, content = self.client.download(
            trail,
            self._folder / frame.id / name,
            product=name,
            read=read,
            has_signature=(lambda first: first.startswith(magic)) if magic else None,
            max_bytes=max_bytes,
            # the archive replaces files in place: a cached copy must be revalidated
            revalidate=True,
            revalidate_by_date=not replaced,
            accepted_hashes=self._history.accepted_hashes,
            prior_use=self._history.prior_use(place, name),
            progress=progress,
        )
        if receipt.outcome is Outcome.ABSENT and (page := trail.page):
            if page.ok:
                receipt = receipt.replace(url=page.url, detail="not among the files there")
            elif page.outcome is not Outcome.ABSENT:
                # not at any guessed location, and the page of links could not be read: not known to be absent
                receipt = receipt.replace(outcome=page.outcome, url=page.url, detail=page.detail)
        elif (
            receipt.outcome is Outcome.DOWNLOADED
            and isinstance(place, Pair)
            and trail.location in ("direct", "links")
        ):
            self.search.note_location(frame, trail.location)
        return receipt, content


def _listing_error(frame: Frame, page: SmallResponse) -> str:
    """Return one line that says why there is no listing, and what to do."""
    asked = f"asked {page.url}"
    match page.outcome:
        case Outcome.ABSENT:
            other = "unset HEPHAESTUS_LICSAR_URL for the embedded archive, or " if frame.is_simulated else ""
            return (
                f"{frame}: the LiCSAR archive has no such frame ({page.detail}; {asked}); check its id "
                f"({FRAME_ID_HELP}), or {other}set HEPHAESTUS_LICSAR_URL to an archive that has it"
            )
        case Outcome.REFUSED:
            return (
                f"{frame}: the LiCSAR archive refuses its listing ({page.detail}; {asked}); check "
                "HEPHAESTUS_LICSAR_URL and whether you may read there"
            )
        case Outcome.CORRUPT:
            return (
                f"{frame}: the LiCSAR archive's listing cannot be read ({page.detail}; {asked}); "
                "check HEPHAESTUS_LICSAR_URL, or run the same command again later"
            )
    return (
        f"{frame}: the LiCSAR archive gives no listing ({page.detail}; {asked}); check the network and "
        "HEPHAESTUS_LICSAR_URL, then run the same command again"
    )
