"""Client of COMET's LiCSAR portal (Lazecký et al. 2020): a frame's listing, metadata and products.

Until 2025 the portal served each interferogram as a folder of files; now it serves a small page of links to
other hosts. Both layouts are supported. The location that worked is remembered for each frame, so that one
request per product is enough in either.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from cachetools import TTLCache

from hephaestus_build.core.concurrency import SharedCache
from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.errors import HephaestusError, RefusedError, UnreachableError, UsageError
from hephaestus_build.core.frames import FRAME_ID_HELP, Frame, Pair
from hephaestus_build.core.gdal import check_gdal
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting, redact_url
from hephaestus_build.download.client import ByteProgress, HttpClient
from hephaestus_build.download.small_response import SmallResponse, decode_text
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
from hephaestus_build.sources.licsar.acquisition import parse_geometry
from hephaestus_build.sources.licsar.baselines_file import parse_baselines
from hephaestus_build.sources.licsar.geotiff import read_coherence, read_height, read_phase
from hephaestus_build.sources.licsar.html_listing import parse_anchors, parse_links, parse_listing
from hephaestus_build.sources.licsar.kept_records import (
    BASELINES_PRODUCT,
    archive_cache_folder,
    keep_baselines,
    keep_listing,
    read_kept_baselines,
    read_kept_listing,
)
from hephaestus_build.sources.licsar.optional_products import optional_product
from hephaestus_build.sources.licsar.satellites import sentinel1_satellite
from hephaestus_build.sources.licsar.tiff_directory import MAX_BYTES

log = logging.getLogger(__name__)
T = TypeVar("T")

#: CEDA's copy of the portal's files, which lags behind and lacks some frames.
CEDA_URL = "https://dap.ceda.ac.uk/neodc/comet/data/licsar_products/"
_TRUSTED_HOSTS = (".jasmin.ac.uk", ".ceda.ac.uk")
# Bytes of an HTML page and of a text file; a listing of 5,000 pairs has one million.
_MAX_PAGE_BYTES, _MAX_TEXT_BYTES = 4 << 20, 1 << 20
# Lines of metadata.txt (the real ones have twenty) and characters of a value.
_MAX_FIELDS, _MAX_VALUE = 200, 200
# Number of remembered link pages, and seconds: a page changes when a product is added or moved.
_MAX_CACHED_LINKS, _LINKS_TTL = 256, 600.0
# Name of a track's folder, and frames of a track: the fullest ones have some thirty.
_TRACK, _MAX_TRACK_FRAMES = re.compile(r"[1-9][0-9]{0,2}"), 500
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
        self._base = parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
        mirror = settings.licsar_mirror_url or (
            CEDA_URL if self._base.host.endswith(_TRUSTED_HOSTS) else None
        )
        self._mirror = parse_url_setting(mirror, "HEPHAESTUS_LICSAR_MIRROR_URL") if mirror else None
        self.client = HttpClient(settings, follow=self.is_trusted_url)
        self._folder = archive_cache_folder(settings)
        self._takes_simulated = settings.is_simulated
        self._center_times = settings.center_time
        self._working_location: dict[Frame, str] = {}  # kind of location that worked last for each frame
        self._link_pages: SharedCache[tuple[Frame, Pair | date], tuple[SmallResponse, Mapping[str, str]]] = (
            SharedCache(TTLCache(_MAX_CACHED_LINKS, _LINKS_TTL))
        )
        self._history = history
        self.address = redact_url(settings.licsar_url)

    def close(self) -> None:
        """Close all connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_trusted_url(self, url: str) -> bool:
        """Return whether an address belongs to one of the archive's hosts."""
        try:
            address = HttpUrl.parse(url)
        except ValueError:
            return False
        near = address.is_loopback and self._base.is_loopback
        known = {base.host for base in (self._base, self._mirror) if base}
        return address.host in known or address.host.endswith(_TRUSTED_HOSTS) or near

    def _is_other_port(self, url: str) -> bool:
        """Return whether an address is of this machine, but not of the server that the settings name."""
        address = HttpUrl.parse(url)
        return address.is_loopback and address.origin != self._base.origin

    def tracks(self) -> tuple[int, ...]:
        """Return the relative orbits that the archive lists, sorted; one request.

        Raises
        ------
        HephaestusError
            If the archive does not answer with a listing.
        """
        names = self._listed_names(self._base, "the tracks")
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
        for name in self._listed_names(self._base.child(f"{track}/"), f"track {track}"):
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
        page = self.client.get_text(folder.url_with_secrets, max_bytes=_MAX_PAGE_BYTES)
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
        folders = {"links": self._base.child(f"{frame.track}/{frame}/interferograms/")}
        if self._mirror:
            folders["mirror"] = self._mirror.child(f"{frame.track:02d}/{frame}/")
        pages: list[SmallResponse] = []
        for place, folder in folders.items():
            page = self.client.get_text(folder.url_with_secrets, max_bytes=_MAX_PAGE_BYTES)
            if page.ok and page.url != str(folder) and f"/{frame}/" not in f"{page.url}/":
                detail = f"redirected to {page.url}"
                page = replace(page, outcome=Outcome.CORRUPT, url=str(folder), detail=detail)
            if page.ok:
                entries = parse_listing(page.text, page.url, frame.id, self.is_trusted_url)
                if entries.is_listing:
                    if entries.pairs:
                        direct = place == "links" and entries.pairs_are_folders
                        self._working_location[frame] = "direct" if direct else place
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
            frame, None, "metadata.txt", _read_metadata, max_bytes=_MAX_TEXT_BYTES
        )
        fields = fields or {}
        text = next((value for key, value in fields.items() if key.lower() == "center_time"), "")
        if not text:  # the cached file may be cut: download all of it next time
            self.client.cache.discard(self._folder / frame.id / "metadata.txt")
        if own := self._center_times.get(frame.id):
            receipt = receipt.with_notes("center_time is from the settings")
            return _describe_frame(frame, parse_center_time(own), fields, receipt)
        reason = "" if receipt.ok else receipt.detail
        if text:
            try:
                return _describe_frame(frame, parse_center_time(text), fields, receipt)
            except ValueError as error:
                reason = str(error)
        if known := published_frames().get(frame.id):
            receipt = receipt.with_notes("center_time is from the registry of frames")
            return _describe_frame(frame, parse_center_time(known.center_time), fields, receipt)
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
        return replace(_describe_frame(frame, None, fields, receipt), unknown_time=unknown)

    def baselines(self, frame: Frame) -> tuple[Receipt, EpochBaselines | None]:
        """Return the perpendicular baselines of `frame`; many frames have none."""
        return self._download_product(
            frame, None, BASELINES_PRODUCT, _read_baselines, max_bytes=_MAX_TEXT_BYTES
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
        return self._download_product(frame, pair, name, _read_preview, (_PNG_SIGNATURE,), max_bytes=64 << 20)

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
        if self.is_trusted_url(url) and not self._is_other_port(url):
            page = self._head_of_file(self._file_url(url))
            if page.outcome is not Outcome.ABSENT:  # if absent, it may have moved: try the other locations
                return page
        pages: list[SmallResponse] = []
        for url in _CandidateUrls(lambda trail: self._candidate_urls(frame, place, name, trail)):
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
        trail = _CandidateUrls(lambda trail: self._candidate_urls(frame, place, name, trail))
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
            self._working_location[frame] = trail.location
        return receipt, content

    def _candidate_urls(
        self, frame: Frame, place: ProductPlace, name: str, trail: _CandidateUrls
    ) -> Iterator[str]:
        """Yield the possible addresses of a product, the most likely first.

        The kinds of location are tried in this order, but the kind that worked last for the frame goes first:

        1. ``direct``: a file in the folder of the pair or the date (the layout until 2025), or in the frame's
           metadata folder.
        2. ``links``: the address on the pair's or the date's page of links (the present layout). If the page
           has links, no direct address is guessed.
        3. ``public``: the folder ``LiCSAR_products.public`` beside ``LiCSAR_products``.
        4. ``mirror``: the copy at CEDA.

        The generator is lazy: the page of links is requested only when its turn comes.
        """
        inside = f"{_product_folder(frame, place)}/{name}"
        known = self._working_location.get(frame)
        for location in sorted(("direct", "links", "public", "mirror"), key=lambda kind: kind != known):
            trail.location = location
            if location == "direct" and not trail.has_links:
                yield self._base.child(f"{frame.track}/{inside}").url_with_secrets
            elif location == "links" and place:
                trail.page, links = self.fetch_links(frame, place)
                trail.has_links = bool(links)
                if name in links:
                    yield links[name]
                    self._link_pages.discard((frame, place))  # the link failed: it may be stale
            elif location == "public" and (path := self._base.path.rstrip("/")).endswith("/LiCSAR_products"):
                # the folder that the portal's links have led to since 2025
                yield (
                    replace(self._base, path=f"{path}.public")
                    .child(f"{frame.track}/{inside}")
                    .url_with_secrets
                )
            elif location == "mirror" and self._mirror:
                # the mirror has no level `interferograms`
                inside = inside.replace("/interferograms/", "/")
                yield self._mirror.child(f"{frame.track:02d}/{inside}").url_with_secrets

    def fetch_links(self, frame: Frame, place: Pair | date) -> tuple[SmallResponse, Mapping[str, str]]:
        """Return the page of links of a pair or a date, and its links by file name."""
        # no trailing slash: with one, the present portal answers 404
        url = self._base.child(f"{frame.track}/{_product_folder(frame, place)}").url_with_secrets

        def fetch() -> tuple[SmallResponse, Mapping[str, str]]:
            page = self.client.get_text(url, max_bytes=_MAX_PAGE_BYTES)
            found: Mapping[str, str] = {}
            try:
                found = parse_links(page.text, page.url, self.is_trusted_url) if page.ok else {}
            except ValueError as error:
                page = replace(page, outcome=Outcome.CORRUPT, detail=f"not a page of links: {error}")
            # drop the text, which may have megabytes: hundreds of pages are remembered
            return replace(page, text=""), {name: self._file_url(link) for name, link in found.items()}

        return self._link_pages.get_or_compute(
            (frame, place), fetch, keep=lambda found: found[0].ok or found[0].outcome is Outcome.ABSENT
        )

    def _file_url(self, link: str) -> str:
        """Return the download address of a link: on CEDA's file server if need be, with credentials."""
        address = replace(HttpUrl.parse(link), credentials=None)
        if address.host == "data.ceda.ac.uk":  # serves HTML pages; dap.ceda.ac.uk serves the files
            address = replace(address, scheme="https", host="dap.ceda.ac.uk", port=None)
        for base in filter(None, (self._base, self._mirror)):
            address = address.with_credentials_of(base)
        return address.url_with_secrets


@dataclass
class _CandidateUrls:
    """Possible addresses of one product, without repeats, and the state of the search."""

    candidates: Callable[[_CandidateUrls], Iterator[str]]
    location: str = ""  #: kind of the address yielded last
    has_links: bool = False  #: whether the pair's page of links was read and has links
    page: SmallResponse | None = None  #: the page of links, if it was requested

    def __iter__(self) -> Iterator[str]:
        self.has_links, self.page = False, None
        seen: set[str] = set()
        for url in self.candidates(self):
            if url not in seen:
                seen.add(url)
                yield url


def _product_folder(frame: Frame, place: ProductPlace) -> str:
    """Return the folder of a pair, a date or the frame's metadata, below the folder of the track."""
    if place is None:
        return f"{frame}/metadata"
    return f"{frame}/interferograms/{place}" if isinstance(place, Pair) else f"{frame}/epochs/{place:%Y%m%d}"


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


def _read_metadata(path: Path) -> dict[str, str]:
    """Return the ``key=value`` lines, values without control characters; ValueError if there are none."""
    text = decode_text(read_bounded(path, _MAX_TEXT_BYTES), None)
    lines = (line.partition("=") for line in text.splitlines())
    fields = {key.strip(): sanitize_text(value, _MAX_VALUE) for key, _, value in lines if len(key) < 100}
    fields = {key: value for key, value in fields.items() if value and key.isascii() and key.isidentifier()}
    if not fields:
        raise ValueError("it has no line of the form key=value")
    if len(fields) > _MAX_FIELDS:
        raise ValueError(f"it has more than {_MAX_FIELDS} lines")
    return fields


def _describe_frame(
    frame: Frame, center_time: timedelta | None, fields: Mapping[str, str], receipt: Receipt
) -> FrameMetadata:
    return FrameMetadata(
        center_time,
        fields,
        receipt,
        parse_geometry(fields),
        fields.get("applied_DEM", ""),
        partial(sentinel1_satellite, frame.track, center_time),
    )


def _read_baselines(path: Path) -> EpochBaselines:
    return parse_baselines(decode_text(read_bounded(path, _MAX_TEXT_BYTES), None))


def _read_preview(path: Path) -> PreviewSize:
    """Return size and colour mode from the header of a PNG; ValueError if it is cut or damaged."""
    with path.open("rb") as stream:  # nothing in the file is decompressed
        head = stream.read(33)
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 12))
        tail = stream.read(12)
    if not head.startswith(_PNG_SIGNATURE) or len(head) < 33 or head[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("it is not a PNG")
    if b"IEND" not in tail:
        raise ValueError("the PNG is cut")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    modes = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
    sides = 0 < width <= 20_000 and 0 < height <= 20_000
    if colour not in modes or depth not in (1, 2, 4, 8, 16) or not sides:
        raise ValueError("the PNG's header is invalid")
    if zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        raise ValueError("the PNG's header is damaged")
    return PreviewSize(width, height, modes[colour])
