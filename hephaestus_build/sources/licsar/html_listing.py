"""Read the pages of LiCSAR's portals: directory listings of every make, and the newer link files.

Pages come from outside: an address counts only after it was checked, and what does not count is kept by
name so that it can be reported.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from hephaestus_build.core.frames import Pair
from hephaestus_build.sources.interferograms import ListedPair

_PAIR = re.compile(r"\d{8}_\d{8}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+/?")
_MODIFIED = re.compile(
    r"\b(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?|\d{1,2}-[A-Z][a-z]{2}-\d{4} \d\d:\d\d(?::\d\d)?)\b"
)
# each expression stops at the next angle bracket, so that no page takes longer than its length
_TITLE = re.compile(r"<(title|h1)(\s[^<>]*)?>\s*(index of|directory listing)", re.IGNORECASE)
# a parser of the whole page takes ten times as long, and a listing has thousands of rows
_COMMENT = re.compile(r"<!--.*?(?:-->|$)", re.DOTALL)
_ANCHOR = re.compile(r"<a(\s[^<>]*)>", re.IGNORECASE)
_HREF = re.compile(r"""\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_TEXT = re.compile(r"</a\s*>(.*)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_MAX_SHOWN = 120
_EDGE_CHARACTERS = 1000  # characters in which a page of HTML begins, or ends
#: Links of a page; the largest listing has some 5,000.
MAX_LINKS = 20_000
# Characters of an address, and of the text behind a link, that are looked at.
_MAX_ADDRESS, _MAX_FOLLOWING_TEXT = 2048, 500


@dataclass(frozen=True)
class Anchor:
    """One ``<a href>`` of a page.

    Attributes
    ----------
    href : str
        As written.
    following_text : str
        The text behind it, up to the next one.
    """

    href: str
    following_text: str


@dataclass(frozen=True)
class DirectoryListing:
    """What a directory listing holds.

    Attributes
    ----------
    pairs : tuple of ListedPair
        Sorted, each once.
    ignored : tuple of str
        Every other address on the page except those of the listing itself and its parents: shortened,
        control characters escaped.
    pairs_are_folders : bool
        Whether the pairs are folders (a slash behind the name), not link files.
    is_listing : bool
        Whether the page is a directory listing at all, and whole.
    """

    pairs: tuple[ListedPair, ...]
    ignored: tuple[str, ...]
    pairs_are_folders: bool
    is_listing: bool


def parse_anchors(page: str) -> list[Anchor]:
    """Return the links of a page, in order, however broken its HTML is.

    Raises
    ------
    ValueError
        If there are more than :data:`MAX_LINKS` anchors.
    """
    # text, attributes of an anchor, text up to the next one, and so on
    _, *parts = _ANCHOR.split(_COMMENT.sub("", page), maxsplit=MAX_LINKS + 1)
    if len(parts) > 2 * MAX_LINKS:
        raise ValueError(f"it has more than {MAX_LINKS} links")
    return [
        Anchor(
            _unescape(next(filter(None, href.groups()))).strip(), _following_text(text[:_MAX_FOLLOWING_TEXT])
        )
        for attributes, text in zip(parts[::2], parts[1::2], strict=True)
        if (href := _HREF.search(attributes)) and any(href.groups())
    ]


def _following_text(text: str) -> str:
    """Return what is to be read behind an anchor."""
    outside = _TEXT.search(text)
    return " ".join(_unescape(_TAG.sub(" ", outside[1])).split()) if outside else ""


def _unescape(text: str) -> str:
    """Return `text` with its entities resolved, if it is no longer than any that counts."""
    try:
        return html.unescape(text) if len(text) <= _MAX_ADDRESS else text[: _MAX_ADDRESS + 1]
    except ValueError:  # the number of a character has thousands of digits
        return text


def parse_listing(page: str, url: str, frame: str, trusted: Callable[[str], bool]) -> DirectoryListing:
    """Return the pairs that a directory listing shows.

    Parameters
    ----------
    page : str
        HTML of an index of any make, with folders or with link files.
    url : str
        Its address.
    frame : str
        The frame's id, which an address on another host must have in its path.
    trusted : callable
        Whether an absolute address leads to one of the archive's hosts.
    """
    here = urlsplit(url)
    folder = here.path.rstrip("/") + "/"
    found: dict[Pair, str | None] = {}
    ignored: list[str] = []
    slashes = 0
    above = folder.rstrip("/").rpartition("/")[0] + "/"
    parents = bool(_TITLE.search(page))
    try:
        found_here = parse_anchors(page)
    except ValueError:
        return DirectoryListing((), (), pairs_are_folders=False, is_listing=False)
    for anchor in found_here:
        try:
            target = _resolve_href(here, anchor.href)
        except ValueError:
            ignored.append(_printable_href(anchor.href))
            continue
        if target.netloc == here.netloc and folder.startswith(target.path.rstrip("/") + "/"):
            # the listing itself in another order, or a folder above it; a page of any kind may lead home
            parents |= target.path.rstrip("/") + "/" == above
            continue
        parent, name = target.path.rstrip("/").rpartition("/")[::2]
        within = target.netloc == here.netloc and parent + "/" == folder
        if (
            not _PAIR.fullmatch(name)
            or _has_parent_path(anchor.href)
            or not (within or (frame in unquote(parent).split("/")[-2:] and trusted(target.geturl())))
        ):
            ignored.append(_printable_href(anchor.href))
            continue
        try:
            pair = Pair.parse(name)
        except ValueError:
            ignored.append(_printable_href(anchor.href))
            continue
        slashes += target.path.endswith("/")
        modified = match[1] if (match := _MODIFIED.search(anchor.following_text)) else None
        found[pair] = found.get(pair) or modified
    pairs = tuple(ListedPair(pair, found[pair]) for pair in sorted(found))
    cut = "<html" in page[:_EDGE_CHARACTERS].lower() and "</html" not in page[-_EDGE_CHARACTERS:].lower()
    whole = (bool(pairs) or parents) and not cut
    return DirectoryListing(pairs, tuple(ignored), slashes * 2 >= max(1, len(found)), whole)


def parse_links(page: str, url: str, trusted: Callable[[str], bool]) -> dict[str, str]:
    """Return the files that a link file (or a folder's listing) leads to, by name.

    Parameters
    ----------
    page, url : str
        The page and its address.
    trusted : callable
        Whether an absolute address leads to one of the archive's hosts.

    Raises
    ------
    ValueError
        If the page has more links than any of an archive.
    """
    links: dict[str, str] = {}
    here = urlsplit(url)
    for anchor in parse_anchors(page):
        try:
            target = _resolve_href(here, anchor.href).geturl()
            path = urlsplit(target).path
        except ValueError:
            continue
        name = unquote(path.rpartition("/")[2])
        if name and "/" not in name and not _has_parent_path(anchor.href) and trusted(target):
            links.setdefault(name, target)
    return links


def _resolve_href(here: SplitResult, href: str) -> SplitResult:
    """Return the address that `href` means on the page `here`; ValueError if it means none."""
    if len(href) > _MAX_ADDRESS or "\\" in href:
        raise ValueError("no address")
    if _PLAIN_NAME.fullmatch(href) and here.path.endswith("/"):
        # nearly all of a listing's thousands are like this, and joining them by the book takes far longer
        return here._replace(path=here.path + href, query="", fragment="")
    target = urlsplit(urljoin(here.geturl(), href))
    if not target.netloc.isascii():  # no archive has such a host, and to translate one takes a millisecond
        raise ValueError("no address")
    return target


def _has_parent_path(href: str) -> bool:
    """Whether an address hides a way upwards."""
    plain = unquote(unquote(href)).replace("\\", "/")
    return ".." in plain.split("?")[0].split("/") or "%2f" in href.lower() or "\\" in href


def _printable_href(href: str) -> str:
    return href[:_MAX_SHOWN].encode("unicode_escape").decode("ascii")
