"""Parser of the LiCSAR portal's HTML pages: directory listings of several web servers, and link pages.

Pages are untrusted: a link is used only after its address was checked, and other links are returned
separately, so that they can be reported.
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
# every expression stops at the next angle bracket, so that matching takes linear time on any page
_TITLE = re.compile(r"<(?:title|h1)(?:\s[^<>]*)?>\s*(?:index of|directory listing)([^<>]*)", re.IGNORECASE)
_FRAME_ID = re.compile(r"\b[0-9]{1,3}[AD]_[0-9A-Z_]{1,40}\b")
# a full HTML parser takes ten times as long, and a listing has thousands of rows
_COMMENT = re.compile(r"<!--.*?(?:-->|$)", re.DOTALL)
_ANCHOR = re.compile(r"<a(\s[^<>]*)>", re.IGNORECASE)
_HREF = re.compile(r"""\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_TEXT = re.compile(r"</a\s*>(.*)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_MAX_SHOWN = 120
_EDGE_CHARACTERS = 1000  # characters at either end of a page in which its html tags are looked for
#: Largest number of links on a page; the largest listing has some 5,000.
MAX_LINKS = 20_000
# Characters of an address, and of the text after a link, that are examined.
_MAX_ADDRESS, _MAX_FOLLOWING_TEXT = 2048, 500


@dataclass(frozen=True)
class Anchor:
    """One ``<a href>`` of a page.

    Attributes
    ----------
    href : str
        The address, with entities resolved.
    following_text : str
        The text between this anchor and the next one.
    """

    href: str
    following_text: str


@dataclass(frozen=True)
class DirectoryListing:
    """Content of a directory listing.

    Attributes
    ----------
    pairs : tuple of ListedPair
        Sorted, without repeats.
    ignored : tuple of str
        All other links on the page, except those to the listing itself and its parent folders; shortened,
        control characters escaped.
    pairs_are_folders : bool
        Whether the pairs are folders (with a trailing slash) rather than link pages.
    is_listing : bool
        Whether the page is a complete directory listing.
    other_frame : str
        Frame that the page's title names instead of the wanted one; empty otherwise.
    """

    pairs: tuple[ListedPair, ...]
    ignored: tuple[str, ...]
    pairs_are_folders: bool
    is_listing: bool
    other_frame: str = ""


def parse_anchors(page: str) -> list[Anchor]:
    """Return the links of a page, in order; invalid HTML is tolerated.

    Raises
    ------
    ValueError
        If there are more than :data:`MAX_LINKS` anchors.
    """
    # the split alternates: text, attributes of an anchor, text up to the next anchor, ...
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
    """Return the visible text after the closing tag of an anchor."""
    outside = _TEXT.search(text)
    return " ".join(_unescape(_TAG.sub(" ", outside[1])).split()) if outside else ""


def _unescape(text: str) -> str:
    """Return `text` with entities resolved; text that is too long is only cut."""
    try:
        return html.unescape(text) if len(text) <= _MAX_ADDRESS else text[: _MAX_ADDRESS + 1]
    except ValueError:  # a character reference with thousands of digits
        return text


def parse_listing(page: str, url: str, frame: str, trusted: Callable[[str], bool]) -> DirectoryListing:
    """Parse the pairs of a directory listing.

    1. Resolve each link against the page's address.
    2. Skip links to the page itself or to parent folders.
    3. Accept a link whose last part is a pair's name, if it lies in the page's folder, or on a trusted host
       in a folder of the frame. For example, ``20160909_20160921/`` is accepted, and ``../other/`` is not.
    4. Collect all other links in `ignored`.

    The page counts as a listing if it has a pair, a link to the parent folder or the title of an index, its
    HTML is not cut off, and its title does not name another frame.

    Parameters
    ----------
    page : str
        HTML of a directory index by any web server, with folders or link pages.
    url : str
        Address of the page.
    frame : str
        Frame id, which must be in the path of links to other hosts.
    trusted : callable
        Returns whether an absolute address belongs to one of the archive's hosts.
    """
    here = urlsplit(url)
    folder = here.path.rstrip("/") + "/"
    found: dict[Pair, str | None] = {}
    ignored: list[str] = []
    slashes = 0
    above = folder.rstrip("/").rpartition("/")[0] + "/"
    title = _TITLE.search(page)
    named = _FRAME_ID.findall(title[1][:_MAX_ADDRESS]) if title else []
    other = named[-1] if named and frame not in named else ""
    parents = title is not None
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
            # the listing itself sorted differently, or a folder above; only a link to the parent folder is
            # evidence of a listing, since any page may link to the home page
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
    whole = (bool(pairs) or parents) and not cut and not other
    return DirectoryListing(pairs, tuple(ignored), slashes * 2 >= max(1, len(found)), whole, other)


def parse_links(page: str, url: str, trusted: Callable[[str], bool]) -> dict[str, str]:
    """Parse the files that a page of links (or a folder's listing) links to.

    Parameters
    ----------
    page, url : str
        The page and its address.
    trusted : callable
        Returns whether an absolute address belongs to one of the archive's hosts.

    Returns
    -------
    dict of str to str
        Absolute addresses by file name.

    Raises
    ------
    ValueError
        If the page has more than :data:`MAX_LINKS` links.
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
    """Return `href` resolved against the page `here`; ValueError if it is not a valid address."""
    if len(href) > _MAX_ADDRESS or "\\" in href:
        raise ValueError("no address")
    if _PLAIN_NAME.fullmatch(href) and here.path.endswith("/"):
        # fast path for nearly all of a listing's thousands of links: urljoin is much slower
        return here._replace(path=here.path + href, query="", fragment="")
    target = urlsplit(urljoin(here.geturl(), href))
    if not target.netloc.isascii():  # no archive has an internationalized name, and encoding one is slow
        raise ValueError("no address")
    return target


def _has_parent_path(href: str) -> bool:
    """Return whether an address has ``..`` in its path, plain or percent-encoded, or an encoded slash."""
    plain = unquote(unquote(href)).replace("\\", "/")
    return ".." in plain.split("?")[0].split("/") or "%2f" in href.lower() or "\\" in href


def _printable_href(href: str) -> str:
    return href[:_MAX_SHOWN].encode("unicode_escape").decode("ascii")
