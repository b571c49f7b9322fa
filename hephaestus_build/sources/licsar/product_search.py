"""Search for a product of the portal, which has had several layouts: its possible addresses, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date

from cachetools import TTLCache

from hephaestus_build.core.concurrency import SharedCache
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.sources.interferograms import ProductPlace
from hephaestus_build.sources.licsar.archive_addresses import ArchiveAddresses, product_folder
from hephaestus_build.sources.licsar.html_listing import parse_links

#: Bytes of an HTML page; a listing of 5,000 pairs has one million.
MAX_PAGE_BYTES = 4 << 20
# Number of remembered link pages, and seconds: a page changes when a product is added or moved.
_MAX_CACHED_LINKS, _LINKS_TTL = 256, 600.0


@dataclass
class CandidateUrls:
    """Possible addresses of one product, without repeats, and the state of the search."""

    candidates: Callable[[CandidateUrls], Iterator[str]]
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


class ProductSearch:
    """Thread-safe search for products, which remembers the kind of location that worked for each frame.

    Parameters
    ----------
    addresses : ArchiveAddresses
        The portal and its mirror.
    client : HttpClient
        Asks for pages of links.
    """

    def __init__(self, addresses: ArchiveAddresses, client: HttpClient) -> None:
        self._addresses, self._client = addresses, client
        self._working_location: dict[Frame, str] = {}
        self._link_pages: SharedCache[tuple[Frame, Pair | date], tuple[SmallResponse, Mapping[str, str]]] = (
            SharedCache(TTLCache(_MAX_CACHED_LINKS, _LINKS_TTL))
        )

    def note_location(self, frame: Frame, location: str) -> None:
        """Remember the kind of location that worked last for a frame."""
        self._working_location[frame] = location

    def candidates(self, frame: Frame, place: ProductPlace, name: str) -> CandidateUrls:
        """Return the possible addresses of a product."""
        return CandidateUrls(lambda trail: self._candidate_urls(frame, place, name, trail))

    def _candidate_urls(
        self, frame: Frame, place: ProductPlace, name: str, trail: CandidateUrls
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
        inside = f"{product_folder(frame, place)}/{name}"
        known = self._working_location.get(frame)
        for location in sorted(("direct", "links", "public", "mirror"), key=lambda kind: kind != known):
            trail.location = location
            if location == "direct" and not trail.has_links:
                yield self._addresses.base.child(f"{frame.track}/{inside}").url_with_secrets
            elif location == "links" and place:
                trail.page, links = self.fetch_links(frame, place)
                trail.has_links = bool(links)
                if name in links:
                    yield links[name]
                    self._link_pages.discard((frame, place))  # the link failed: it may be stale
            elif location == "public" and (path := self._addresses.base.path.rstrip("/")).endswith(
                "/LiCSAR_products"
            ):
                # the folder that the portal's links have led to since 2025
                yield (
                    replace(self._addresses.base, path=f"{path}.public")
                    .child(f"{frame.track}/{inside}")
                    .url_with_secrets
                )
            elif location == "mirror" and self._addresses.mirror:
                # the mirror has no level `interferograms`
                inside = inside.replace("/interferograms/", "/")
                yield self._addresses.mirror.child(f"{frame.track:02d}/{inside}").url_with_secrets

    def fetch_links(self, frame: Frame, place: Pair | date) -> tuple[SmallResponse, Mapping[str, str]]:
        """Return the page of links of a pair or a date, and its links by file name."""
        # no trailing slash: with one, the present portal answers 404
        url = self._addresses.base.child(f"{frame.track}/{product_folder(frame, place)}").url_with_secrets

        def fetch() -> tuple[SmallResponse, Mapping[str, str]]:
            page = self._client.get_text(url, max_bytes=MAX_PAGE_BYTES)
            found: Mapping[str, str] = {}
            try:
                found = parse_links(page.text, page.url, self._addresses.is_trusted_url) if page.ok else {}
            except ValueError as error:
                page = replace(page, outcome=Outcome.CORRUPT, detail=f"not a page of links: {error}")
            # drop the text, which may have megabytes: hundreds of pages are remembered
            return replace(page, text=""), {
                name: self._addresses.file_url(link) for name, link in found.items()
            }

        return self._link_pages.get_or_compute(
            (frame, place), fetch, keep=lambda found: found[0].ok or found[0].outcome is Outcome.ABSENT
        )
