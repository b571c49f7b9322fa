"""COMET's LiCSAR portal: what a frame has, and each of its products in one named outcome.

The portal changed its shape in 2025: an interferogram was a folder of files and became a small page of
links to other hosts. Both shapes are read here, and one request a product is enough in either, because
what was found to work is remembered.
"""

from __future__ import annotations

import ipaddress
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from hephaestus_build.errors import HephaestusError, UnreachableError, UsageError
from hephaestus_build.frames import Frame, Pair
from hephaestus_build.registry import published_frames
from hephaestus_build.settings import Settings
from hephaestus_build.sources.fields import parse_center_time
from hephaestus_build.sources.http import Client, Page, Progress
from hephaestus_build.sources.links import ListedPair, read_links, read_listing
from hephaestus_build.sources.raster import Raster, read_coherence, read_height, read_phase
from hephaestus_build.sources.receipt import Outcome, Receipt

__all__ = ["ListedPair", "Listing", "Metadata", "Portal", "PreviewSize"]

T = TypeVar("T")

#: The archive of CEDA keeps a copy of the portal's files, later and not of every frame.
CEDA = "https://dap.ceda.ac.uk/neodc/comet/data/licsar_products/"
_HOSTS = (".jasmin.ac.uk", ".ceda.ac.uk")
# Bytes: a listing of 5,000 pairs has one million; uncompressed, the largest raster 106 million.
_PAGE_LIMIT, _RASTER_LIMIT = 16 << 20, 1 << 30
# Link files change when a product is added or moved: they are remembered for a while, and not all of them.
_LINKS_KEPT, _LINKS_SECONDS = 256, 600.0
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Listing:
    """The interferograms that the archive shows of a frame.

    Attributes
    ----------
    frame : Frame
        The frame.
    pairs : tuple of ListedPair
        Sorted; empty where the archive shows an empty folder.
    url : str
        The address that was asked.
    ignored : tuple of str
        Addresses on the page that are none of the frame's interferograms.
    """

    frame: Frame
    pairs: tuple[ListedPair, ...]
    url: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """What ``metadata.txt`` says of a frame.

    Attributes
    ----------
    center_time : datetime.timedelta
        Acquisition time of the frame's centre, after midnight UTC.
    fields : dict of str
        Every line of the file, by key; empty where the file could not be had.
    receipt : Receipt
        How the request for the file ended.
    """

    center_time: timedelta
    fields: Mapping[str, str]
    receipt: Receipt


@dataclass(frozen=True)
class PreviewSize:
    """Size and colour mode of a preview PNG: what tells how its polygons map to the grid.

    Attributes
    ----------
    width, height : int
        Pixels.
    mode : str
        ``P`` (palette), ``RGBA``, ``RGB``, ``L`` or ``LA``.
    """

    width: int
    height: int
    mode: str


class Portal:
    """The LiCSAR portal, or a copy of it; safe to use from several threads.

    Parameters
    ----------
    settings : Settings
        ``licsar_url`` and ``licsar_mirror_url``, the cache, and how to ask.
    client : Client, optional
        By default one of its own, which follows redirects to the archive's hosts only.

    Attributes
    ----------
    proven : frozenset of str
        SHA-256 of products that count, if the cache has them, although the archive has lost them.

    Raises
    ------
    UsageError
        If an address in the settings is none.
    """

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        self._base = _folder(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
        real = _host(self._base).endswith(_HOSTS)
        mirror = settings.licsar_mirror_url or (CEDA if real else None)
        self._mirror = _folder(mirror, "HEPHAESTUS_LICSAR_MIRROR_URL") if mirror else None
        self.client = client if client is not None else Client(settings, follow=self.trusts)
        # what came from one archive is never taken for another's
        self._folder = settings.downloads_dir / "licsar" / _host(self._base).replace(":", "_")
        self._works: dict[Frame, str] = {}  # the place where a frame's products were found
        self._pages = _Pages()
        self.proven: frozenset[str] = frozenset()

    def close(self) -> None:
        """Close all connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trusts(self, url: str) -> bool:
        """Whether an address that the archive names is one of its own hosts'."""
        host = _host(url)
        if not url.startswith(("http://", "https://")) or not host:
            return False
        known = {_host(self._base), _host(self._mirror or "")}
        return host in known or host.endswith(_HOSTS) or (_loopback(host) and _loopback(_host(self._base)))

    def listing(self, frame: Frame) -> Listing:
        """Return the interferograms that the archive shows of `frame`: one request.

        Raises
        ------
        HephaestusError
            If the frame is absent or the archive does not answer with a listing; an UnreachableError if it
            does not answer at all.
        """
        urls = [f"{self._base}{frame.track}/{frame}/interferograms/"]  # it wants the slash here
        if self._mirror:
            urls.append(f"{self._mirror}{frame.track:02d}/{frame}/")
        pages: list[Page] = []
        for url in urls:
            page = self.client.get_page(url, max_bytes=_PAGE_LIMIT)
            if page.ok:
                entries = read_listing(page.text, page.url, frame.id, self.trusts)
                if entries.is_listing:
                    if entries.pairs:
                        here = "direct" if entries.folders else "links"
                        self._works[frame] = here if url.startswith(self._base) else "mirror"
                    return Listing(frame, entries.pairs, page.url, entries.ignored)
                page = replace(page, outcome=Outcome.CORRUPT, detail="a page that is no directory listing")
            pages.append(page)
            if page.outcome is not Outcome.ABSENT:  # a mirror's older listing is no answer to a silence
                break
        silent = pages[0].outcome is Outcome.UNREACHABLE
        raise (UnreachableError if silent else HephaestusError)(_no_listing(frame, pages[0]))

    def metadata(self, frame: Frame) -> Metadata:
        """Return the metadata of `frame`.

        Its centre time comes from the registry of the published frames where the file lacks it.

        Raises
        ------
        HephaestusError
            If neither the archive nor the registry knows the centre time.
        """
        receipt, fields = self._product(frame, None, "metadata.txt", _read_metadata, max_bytes=1 << 20)
        fields = fields or {}
        reason = receipt.detail or "it has no center_time"
        if "center_time" not in fields:  # it may have been cut: fetch it whole next time
            self.client.cache.forget(self._folder / frame.id / "metadata.txt")
        if text := fields.get("center_time"):
            try:
                return Metadata(parse_center_time(text), fields, receipt)
            except ValueError as error:
                reason = str(error)
        if known := published_frames().get(frame.id):
            receipt = receipt.noting("center_time is from the registry of frames")
            return Metadata(parse_center_time(known.center_time), fields, receipt)
        state = "does not tell" if receipt.ok else f"is {receipt.outcome}"
        raise HephaestusError(
            f"{frame}: its acquisition time is not known: metadata.txt {state} ({reason}; asked "
            f"{receipt.url}); run the same command again later"
        )

    def dem(self, frame: Frame, *, progress: Progress | None = None) -> tuple[Receipt, Raster | None]:
        """Return the heights of `frame`, float32, metres, NaN where there is none."""
        name = f"{frame}.geo.hgt.tif"
        return self._raster(frame, None, name, read_height, progress)

    def phase(
        self, frame: Frame, pair: Pair, *, replaced: bool = False, progress: Progress | None = None
    ) -> tuple[Receipt, Raster | None]:
        """Return the filtered wrapped phase of `pair`, float32, rad, exact 0 where there is none.

        Parameters
        ----------
        frame, pair : Frame, Pair
            Which.
        replaced : bool
            Whether the archive is known to have replaced the files of the pair.
        progress : callable, optional
            Called with the number of bytes that have just arrived.
        """
        return self._raster(frame, pair, f"{pair}.geo.diff_pha.tif", read_phase, progress, replaced)

    def coherence(
        self, frame: Frame, pair: Pair, *, replaced: bool = False, progress: Progress | None = None
    ) -> tuple[Receipt, Raster | None]:
        """Return the coherence of `pair`, uint8, 255 for 1, 0 where there is none; see :meth:`phase`."""
        return self._raster(frame, pair, f"{pair}.geo.cc.tif", read_coherence, progress, replaced)

    def preview(self, frame: Frame, pair: Pair) -> tuple[Receipt, PreviewSize | None]:
        """Return size and mode of the preview that an expert would see of `pair`."""
        name = f"{pair}.geo.diff.png"
        return self._product(frame, pair, name, _read_preview, (_PNG,), max_bytes=64 << 20)

    def ask(self, frame: Frame, pair: Pair | None, name: str) -> Page:
        """Return what the archive says of a product now, wherever it is, without its content."""
        pages: list[Page] = []
        for url in _Trail(lambda trail: self._places(frame, pair, name, trail)):
            page = self.client.head(url)
            if page.ok:
                return page
            pages.append(page)
        # absent only if every address says so
        silent = (page for page in pages if page.outcome is not Outcome.ABSENT)
        return next(silent, Page(Outcome.ABSENT, pages[-1].url if pages else "", detail="nowhere"))

    def _raster(
        self,
        frame: Frame,
        pair: Pair | None,
        name: str,
        read: Callable[[Path], Raster],
        progress: Progress | None,
        replaced: bool = False,
    ) -> tuple[Receipt, Raster | None]:
        receipt, raster = self._product(
            frame, pair, name, read, _TIFF, max_bytes=_RASTER_LIMIT, progress=progress, replaced=replaced
        )
        if raster is not None and raster.notes:
            receipt = receipt.noting(*raster.notes)
        return receipt, raster

    def _product(
        self,
        frame: Frame,
        pair: Pair | None,
        name: str,
        read: Callable[[Path], T],
        magic: tuple[bytes, ...] = (b"",),
        *,
        max_bytes: int,
        progress: Progress | None = None,
        replaced: bool = False,
    ) -> tuple[Receipt, T | None]:
        """Bring a product of a pair, or of the whole frame, and remember where it was found."""
        trail = _Trail(lambda trail: self._places(frame, pair, name, trail))
        receipt, content = self.client.download(
            trail,
            self._folder / frame.id / name,
            product=name,
            read=read,
            looks_like=lambda first: first.startswith(magic),
            max_bytes=max_bytes,
            # files are replaced in place: a copy that is here already counts if upstream says the same
            revalidate=True,
            by_date=not replaced,
            proven=self.proven,
            progress=progress,
        )
        if receipt.outcome is Outcome.ABSENT and (page := trail.page):
            if page.ok:
                receipt = receipt.but(url=page.url, detail="not among the files there")
            elif page.outcome is not Outcome.ABSENT:
                # no file where it could be guessed, and the page that knows could not be read
                receipt = receipt.but(outcome=page.outcome, url=page.url, detail=page.detail)
        elif receipt.outcome is Outcome.DOWNLOADED and pair and trail.place in ("direct", "links"):
            self._works[frame] = trail.place
        return receipt, content

    def _places(self, frame: Frame, pair: Pair | None, name: str, trail: _Trail) -> Iterator[str]:
        """Yield where a product may be, likeliest first; each place is found out when it is its turn."""
        inside = f"{frame}/interferograms/{pair}/{name}" if pair else f"{frame}/metadata/{name}"
        known = self._works.get(frame)
        for place in sorted(("direct", "links", "public", "mirror"), key=lambda place: place != known):
            trail.place = place
            if place == "direct" and not trail.conclusive:
                yield f"{self._base}{frame.track}/{inside}"
            elif place == "links" and pair:
                trail.page, links = self.links(frame, pair)
                trail.conclusive = bool(links)  # then there is nothing to guess
                if name in links:
                    yield links[name]
                    self._pages.forget((frame, pair))  # it failed there: look again next time
            elif place == "public" and self._base.endswith("/LiCSAR_products/"):
                # the portal's twin, where its link files of 2025 lead
                yield f"{self._base[:-1]}.public/{frame.track}/{inside}"
            elif place == "mirror" and self._mirror:
                # interferograms lie directly under the frame there
                yield f"{self._mirror}{frame.track:02d}/{inside.replace('/interferograms/', '/')}"

    def links(self, frame: Frame, pair: Pair) -> tuple[Page, Mapping[str, str]]:
        """Return the page of a pair's links, and where they lead by file name."""
        # without a slash at the end: with one, the new portal knows no such page
        url = f"{self._base}{frame.track}/{frame}/interferograms/{pair}"

        def fetch() -> tuple[Page, Mapping[str, str]]:
            page = self.client.get_page(url, max_bytes=_PAGE_LIMIT)
            found = read_links(page.text, page.url, self.trusts) if page.ok else {}
            return page, {name: self._reachable(link) for name, link in found.items()}

        return self._pages.get((frame, pair), fetch)

    def _reachable(self, link: str) -> str:
        """Return where the bytes of a link are: on CEDA's file server, and with the portal's password."""
        parts = urlsplit(link)
        if parts.hostname == "data.ceda.ac.uk":  # a catalogue that shows pages; files are next door
            parts = parts._replace(scheme="https", netloc="dap.ceda.ac.uk")
        base = urlsplit(self._base)
        if parts.netloc == base.netloc.rpartition("@")[2]:
            parts = parts._replace(netloc=base.netloc)
        return urlunsplit(parts._replace(fragment=""))


@dataclass
class _Trail:
    """The places of one product, and what was learnt on the way to it."""

    places: Callable[[_Trail], Iterator[str]]
    place: str = ""  #: the kind of the address given out last
    conclusive: bool = False  #: whether a page of links was read that has the pair's files
    page: Page | None = None  #: the page of links, if it was asked for

    def __iter__(self) -> Iterator[str]:
        self.conclusive, self.page = False, None
        seen: set[str] = set()
        for url in self.places(self):
            if url not in seen:
                seen.add(url)
                yield url


class _Pages:
    """Pages of links, each asked for once by all threads and remembered for a while."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Frame, Pair], tuple[float, Page, Mapping[str, str]]] = OrderedDict()
        self._asking: dict[tuple[Frame, Pair], threading.Lock] = {}
        self._guard = threading.Lock()

    def get(
        self, key: tuple[Frame, Pair], fetch: Callable[[], tuple[Page, Mapping[str, str]]]
    ) -> tuple[Page, Mapping[str, str]]:
        """Return the page of `key`, fetched if it is not remembered."""
        with self._guard:
            lock = self._asking.setdefault(key, threading.Lock())
        with lock:
            since, page, links = self._kept.get(key, (0.0, None, {}))
            if page is None or time.monotonic() - since > _LINKS_SECONDS:
                page, links = fetch()
                with self._guard:
                    if page.ok or page.outcome is Outcome.ABSENT:
                        self._kept[key] = time.monotonic(), page, links
                    while len(self._kept) > _LINKS_KEPT:
                        self._asking.pop(self._kept.popitem(last=False)[0], None)
        return page, links

    def forget(self, key: tuple[Frame, Pair]) -> None:
        """Ask again next time."""
        with self._guard:
            self._kept.pop(key, None)


def _no_listing(frame: Frame, page: Page) -> str:
    """Say in one line why there is no listing, and what to do."""
    asked = f"asked {page.url}"
    match page.outcome:
        case Outcome.ABSENT:
            other = "unset HEPHAESTUS_LICSAR_URL for the embedded archive, or " if frame.simulated else ""
            return (
                f"{frame}: the LiCSAR archive has no such frame ({page.detail}; {asked}); check its id, or "
                f"{other}set HEPHAESTUS_LICSAR_URL to an archive that has it"
            )
        case Outcome.REFUSED:
            return (
                f"{frame}: the LiCSAR archive refuses its listing ({page.detail}; {asked}); check "
                "HEPHAESTUS_LICSAR_URL and whether you may read there"
            )
        case Outcome.CORRUPT:
            return (
                f"{frame}: the LiCSAR archive answers its listing with nonsense ({page.detail}; {asked}); "
                "check HEPHAESTUS_LICSAR_URL, or run the same command again later"
            )
    return (
        f"{frame}: the LiCSAR archive gives no listing ({page.detail}; {asked}); check the network and "
        "HEPHAESTUS_LICSAR_URL, then run the same command again"
    )


def _read_metadata(path: Path) -> dict[str, str]:
    """Return ``key=value`` lines; ValueError if there is none."""
    text = path.read_text(encoding="utf-8", errors="replace")
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    fields = {key: value for key, value in fields.items() if key and value and key.isidentifier()}
    if not fields:
        raise ValueError("it has no line of the form key=value")
    return fields


def _read_preview(path: Path) -> PreviewSize:
    """Return what the header of a PNG says; ValueError if the file is not a whole one."""
    data = path.read_bytes()
    if not data.startswith(_PNG) or len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("it is no PNG")
    if b"IEND" not in data[-12:]:
        raise ValueError("the PNG is cut")
    width, height, _, colour = struct.unpack(">IIBB", data[16:26])
    modes = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
    if colour not in modes or not (0 < width <= 20_000 and 0 < height <= 20_000):
        raise ValueError("the PNG's header makes no sense")
    return PreviewSize(width, height, modes[colour])


def _folder(url: str, setting: str) -> str:
    """Return `url` with one slash at its end."""
    if not url.startswith(("http://", "https://")) or not _host(url):
        raise UsageError(f"{setting} is no address: it must begin with http:// or https:// and name a host")
    return url.rstrip("/") + "/"


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
