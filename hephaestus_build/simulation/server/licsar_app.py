"""Simulated LiCSAR portal, in both layouts that the real one has had.

- ``directories`` (until 2025): pairs and epochs are folders, and every file is in its folder.
- ``links`` (since 2025): pairs and epochs are small files (no trailing slash), served as plain text, with
  single-quoted links to two other locations: previews and the newest rasters in the portal's public folder,
  all other rasters in the CEDA archive.

``metadata/`` is a folder in both.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from hephaestus_build.core.frames import Frame
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse

PORTAL_ROOT = "LiCSAR_products"
#: Number of a frame's newest pairs that are not in the CEDA archive yet.
MIRROR_LAG_PAIRS = 3
_KINDS = ("epochs", "interferograms", "metadata")
_HTML = "text/html;charset=UTF-8"
_TYPES = {".tif": "image/tiff", ".png": "image/png"}
_FOLDER_TIME = datetime(2019, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ListingEntry:
    """One row of a listing. `size` is in bytes; None for a folder."""

    name: str
    modified: datetime
    size: int | None = None


@dataclass(frozen=True)
class LinkPage:
    """The file of links of a pair or an epoch in the ``links`` layout."""

    text: str
    modified: datetime


PortalNode = list[ListingEntry] | LinkPage | Path | None


class LicsarApp:
    """The portal as an app of a :class:`~hephaestus_build.simulation.server.http_server.LoopbackServer`.

    Parameters
    ----------
    archive : SimulatedArchive
        Archive to serve, in its layout at the time of each request.

    Attributes
    ----------
    login : tuple of str or None
        User and password that every request must bring; may be changed while it serves.
    """

    def __init__(self, archive: SimulatedArchive) -> None:
        self.archive = archive
        self.login: tuple[str, str] | None = None

    def __call__(self, request: HttpRequest) -> HttpResponse | None:
        """Return the response to a request, or None if there is no such page."""
        if request.method != "GET":
            return None
        for root, find in (
            (self.archive.public_root, self._find_public),
            (self.archive.mirror_root, self._find_mirror),
            (PORTAL_ROOT, self._find_main),
        ):
            if request.path == f"/{root}" or request.path.startswith(f"/{root}/"):
                if self.login is not None and not _brings_login(request, self.login):
                    wanted = {"WWW-Authenticate": 'Basic realm="simulated"', "Content-Type": _HTML}
                    return HttpResponse(401, b"<html><title>401 Unauthorized</title></html>\n", wanted)
                rest = request.path[len(root) + 2 :]
                node = find([part for part in rest.split("/") if part], request.base_url)
                return self._answer(node, request)
        return None

    def reset(self) -> None:
        """Ask for no login."""
        self.login = None

    def _answer(self, node: PortalNode, request: HttpRequest) -> HttpResponse | None:
        """Return the response for a node; trailing slashes are handled as Apache does."""
        slash = request.path.endswith("/")
        if isinstance(node, list):
            if not slash:
                address = f"{request.base_url}{quote(request.path)}/"
                return HttpResponse(301, b"", {"Location": address, "Content-Type": _HTML})
            *_, frame, kind = ["", "", *request.path.rstrip("/").split("/")]
            key = frame if kind == "interferograms" else kind if kind.isdecimal() else ""
            extra = self.archive.extra_links.get(key, [])
            page = render_listing(request.path, node, self.archive.listing, extra)
            return HttpResponse(200, page.encode(), {"Content-Type": _HTML})
        if node is None or slash:
            return None
        if isinstance(node, Path):
            return HttpResponse(body=node, headers={"Content-Type": _TYPES.get(node.suffix, "text/plain")})
        written = format_datetime(node.modified, usegmt=True)
        return HttpResponse(200, node.text.encode(), {"Content-Type": "text/plain", "Last-Modified": written})

    # contents of the three locations

    def _find_main(self, parts: list[str], base: str) -> PortalNode:
        frames = dict.fromkeys((*self.archive.world.frames, *self.archive.listed_frames))
        match parts:
            case []:
                return _folder_entries(sorted(set(map(_track_of, frames))))
            case [track]:
                return _folder_entries(name for name in frames if _track_of(name) == track) or None
            case [track, name, *rest] if self.archive.world.has_frame(name) and _track_of(name) == track:
                return self._find_in_frame(name, rest, base)
        return None

    def _find_in_frame(self, frame: str, rest: list[str], base: str) -> PortalNode:
        archive = self.archive
        match rest:
            case []:
                return _folder_entries(_KINDS)
            case ["metadata"]:
                return self._file_entries(frame, "metadata", "")
            case ["metadata", name]:
                return archive.product_path(frame, "metadata", "", name)
            case ["interferograms" | "epochs" as kind]:
                return [self._folder_entry(frame, kind, key, base) for key in self._folder_keys(frame, kind)]
            case ["interferograms" | "epochs" as kind, key, *name] if key in self._folder_keys(frame, kind):
                if archive.layout == "links":
                    return None if name else self.link_page(frame, kind, key, base)
                if len(name) == 1:
                    return archive.product_path(frame, kind, key, name[0])
                return None if name else self._file_entries(frame, kind, key)
        return None

    def _folder_keys(self, frame: str, kind: str) -> list[str]:
        if kind == "epochs":
            return [f"{day:%Y%m%d}" for day in self.archive.epochs(frame)]
        return [pair.name for pair in self.archive.pairs(frame)]

    def _folder_entry(self, frame: str, kind: str, key: str, base: str) -> ListingEntry:
        modified = self.archive.modified_time(frame, kind, key)
        size = len(self.link_page(frame, kind, key, base).text) if self.archive.layout == "links" else None
        return ListingEntry(key, modified, size)

    def _file_entries(self, frame: str, kind: str, key: str) -> list[ListingEntry]:
        modified = self.archive.modified_time(frame, kind, key)
        found = []
        for name in self.archive.file_names(frame, kind, key):
            path = self.archive.product_path(frame, kind, key, name)
            found.append(ListingEntry(name, modified, path.stat().st_size if path else 0))
        return found

    def link_page(self, frame: str, kind: str, key: str, base: str) -> LinkPage:
        """Return the page of links of a pair or epoch: one line per product, previews first.

        Parameters
        ----------
        frame : str
            Frame id.
        kind : str
            ``interferograms`` or ``epochs``.
        key : str
            The pair or epoch.
        base : str
            Address of the server, without a trailing slash.
        """
        track, folder = Frame(frame).track, f"{kind}/{key}"
        # both locations are on this server; two names of the host make them two hosts, as on the real portal
        public = f"{base}/{self.archive.public_root}/{track}/{frame}/{folder}"
        inside = key if kind == "interferograms" else folder
        mirror = f"{_alias_host(base)}/{self.archive.mirror_root}/{track:02d}/{frame}/{inside}"
        places = {
            name: mirror if is_mirrored(self.archive, frame, kind, key, name) else public
            for name in self.archive.file_names(frame, kind, key)
        }
        lines = [f"<a href='{place}/{name}'>{name}</a><br />\n" for name, place in places.items()]
        return LinkPage("".join(lines), self.archive.modified_time(frame, kind, key))

    def _find_public(self, parts: list[str], base: str) -> PortalNode:
        match parts:
            case [track, frame, "interferograms" | "epochs" as kind, key, name]:
                apart = self.archive.layout == "links" and self._has_frame(frame, track)
                if apart and not is_mirrored(self.archive, frame, kind, key, name):
                    return self.archive.product_path(frame, kind, key, name)
        return None

    def _find_mirror(self, parts: list[str], base: str) -> PortalNode:
        match parts:
            case [track, frame, "metadata", name]:
                place = ("metadata", "", name)
            case [track, frame, "epochs", key, name]:
                place = ("epochs", key, name)
            case [track, frame, key, name]:
                place = ("interferograms", key, name)
            case _:
                return None
        if self._has_frame(frame, track) and is_mirrored(self.archive, frame, *place):
            return self.archive.product_path(frame, *place)
        return None

    def _has_frame(self, frame: str, track: str) -> bool:
        return self.archive.world.has_frame(frame) and track == f"{Frame(frame).track:02d}"


@cache
def _track_of(frame: str) -> str:
    return str(Frame(frame).track)


def is_mirrored(archive: SimulatedArchive, frame: str, kind: str, key: str, name: str) -> bool:
    """Return whether a file is in the CEDA archive: rasters are, except those of the newest pairs.

    Parameters
    ----------
    archive : SimulatedArchive
        The archive.
    frame : str
        Frame id.
    kind, key : str
        Folder of the file, see :meth:`SimulatedArchive.file_names`.
    name : str
        Name of the file.
    """
    if kind == "metadata":
        return not name.endswith("-poly.txt")
    newest = (
        {pair.name for pair in archive.pairs(frame)[-MIRROR_LAG_PAIRS:]}
        if kind == "interferograms"
        else set()
    )
    return name.endswith(".tif") and key not in newest


def _alias_host(base: str) -> str:
    """Return the same address with the host's other name, ``localhost``."""
    return base.replace("//127.0.0.1", "//localhost")


def _folder_entries(names: Iterable[str]) -> list[ListingEntry]:
    return [ListingEntry(name, _FOLDER_TIME) for name in names]


def _brings_login(request: HttpRequest, login: tuple[str, str]) -> bool:
    known = b64encode(":".join(login).encode()).decode()
    return request.headers.get("authorization") == f"Basic {known}"


def render_listing(path: str, entries: Iterable[ListingEntry], style: str, extra: Iterable[str] = ()) -> str:
    """Return a folder's listing as an HTML page in the style of Apache.

    Parameters
    ----------
    path : str
        Path of the folder, with a trailing slash.
    entries : iterable of ListingEntry
        Content of the folder.
    style : str
        ``table`` or ``pre``.
    extra : iterable of str
        Additional hrefs, written unescaped.
    """
    parent = quote(path.rstrip("/").rpartition("/")[0]) + "/"
    rows = [
        (
            quote(entry.name) + ("" if entry.size is not None else "/"),
            escape(entry.name) + ("" if entry.size is not None else "/"),
            entry.modified,
            "-" if entry.size is None else _format_size(entry.size),
        )
        for entry in entries
    ]
    rows += [(href, href, _FOLDER_TIME, "-") for href in extra]
    title = f"Index of {escape(path.rstrip('/') or '/')}"
    head = (
        '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">\n'
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n<h1>{title}</h1>\n"
    )
    columns = (("N", "Name"), ("M", "Last modified"), ("S", "Size"), ("D", "Description"))
    if style == "pre":
        sort = " ".join(
            f'<a href="?C={key};O={"D" if key == "N" else "A"}">{name}</a>' for key, name in columns
        )
        lines = [
            f'<pre>      {sort}<hr>      <a href="{parent}">Parent Directory</a>                    -   \n'
        ]
        lines += [
            f'      <a href="{href}">{name}</a> {modified:%Y-%m-%d %H:%M}  {size:>4}  \n'
            for href, name, modified, size in rows
        ]
        return f"{head}{''.join(lines)}<hr></pre>\n</body></html>\n"
    sort = "".join(
        f'<th><a href="?C={key};O={"D" if key == "N" else "A"}">{name}</a></th>' for key, name in columns
    )
    lines = [
        f'  <table>\n   <tr><th valign="top">&nbsp;</th>{sort}</tr>\n',
        (
            f'<tr><td valign="top">&nbsp;</td><td><a href="{parent}">Parent Directory</a></td>'
            '<td>&nbsp;</td><td align="right">  - </td><td>&nbsp;</td></tr>\n'
        ),
    ]
    lines += [
        f'<tr><td valign="top">&nbsp;</td><td><a href="{href}">{name}</a></td>'
        f'<td align="right">{modified:%Y-%m-%d %H:%M}  </td>'
        f'<td align="right">{size} </td><td>&nbsp;</td></tr>\n'
        for href, name, modified, size in rows
    ]
    return f"{head}{''.join(lines)}</table>\n</body></html>\n"


def _format_size(size: int) -> str:
    """Return a size in Apache's format: 512, 1.3K, 24M."""
    value, unit = float(size), ""
    for unit in ("", "K", "M", "G"):
        if value < 1000 or unit == "G":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit and value < 10 else f"{value:.0f}{unit}"
