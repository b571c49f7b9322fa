"""The LiCSAR portal on loopback, in both layouts that users have met.

``directories`` (until 2025): every folder is listed and every file lies where its name says.
``links`` (since): pairs and epochs are small files without a slash, served as plain text, whose
single-quoted links lead to two other places: pictures and the newest rasters in the portal's public folder,
all other rasters in the CEDA archive. ``metadata/`` is a folder in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from hephaestus_build.core.frames import Frame
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.server.http_server import Request, Response

ROOT = "LiCSAR_products"
#: So many of a frame's newest pairs have not reached the CEDA archive yet.
LAG = 3
_KINDS = ("epochs", "interferograms", "metadata")
_HTML = "text/html;charset=UTF-8"
_TYPES = {".tif": "image/tiff", ".png": "image/png"}
_BEGINNING = datetime(2019, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Entry:
    """One row of a listing; a folder has no size."""

    name: str
    modified: datetime
    size: int | None = None


@dataclass(frozen=True)
class LinkPage:
    """The small file that stands for a pair or an epoch in the newer layout."""

    text: str
    modified: datetime


Node = list[Entry] | LinkPage | Path | None


class PortalApp:
    """The portal as an app of a :class:`~hephaestus_build.simulation.server.http_server.LoopbackServer`.

    Parameters
    ----------
    archive : SimulatedArchive
        What it shows, in the layout that it has at the time of asking.
    """

    def __init__(self, archive: SimulatedArchive) -> None:
        self.archive = archive

    def __call__(self, request: Request) -> Response | None:
        """Answer one request; None if there is no such page."""
        if request.method != "GET":
            return None
        for root, find in (
            (self.archive.public, self._public),
            (self.archive.mirror, self._mirror),
            (ROOT, self._main),
        ):
            if request.path == f"/{root}" or request.path.startswith(f"/{root}/"):
                rest = request.path[len(root) + 2 :]
                node = find([part for part in rest.split("/") if part], request.base)
                return self._answer(node, request)
        return None

    def _answer(self, node: Node, request: Request) -> Response | None:
        """Turn what lies at a path into an answer, as strict about the slash at its end as Apache is."""
        slash = request.path.endswith("/")
        if isinstance(node, list):
            if not slash:
                address = f"{request.base}{quote(request.path)}/"
                return Response(301, b"", {"Location": address, "Content-Type": _HTML})
            *_, frame, kind = ["", "", *request.path.rstrip("/").split("/")]
            extra = self.archive.extra_links.get(frame, []) if kind == "interferograms" else []
            page = listing(request.path, node, self.archive.listing, extra)
            return Response(200, page.encode(), {"Content-Type": _HTML})
        if node is None or slash:
            return None
        if isinstance(node, Path):
            return Response(body=node, headers={"Content-Type": _TYPES.get(node.suffix, "text/plain")})
        written = format_datetime(node.modified, usegmt=True)
        return Response(200, node.text.encode(), {"Content-Type": "text/plain", "Last-Modified": written})

    # what lies where

    def _main(self, parts: list[str], base: str) -> Node:
        tracks = {name: str(Frame(name).track) for name in self.archive.world.frames}
        match parts:
            case []:
                return _folders(sorted(set(tracks.values())))
            case [track]:
                return _folders(name for name in tracks if tracks[name] == track) or None
            case [track, name, *rest] if tracks.get(name) == track:
                return self._frame(name, rest, base)
        return None

    def _frame(self, frame: str, rest: list[str], base: str) -> Node:
        archive = self.archive
        match rest:
            case []:
                return _folders(_KINDS)
            case ["metadata"]:
                return self._listed(frame, "metadata", "")
            case ["metadata", name]:
                return archive.file(frame, "metadata", "", name)
            case ["interferograms" | "epochs" as kind]:
                return [self._row(frame, kind, key, base) for key in self._keys(frame, kind)]
            case ["interferograms" | "epochs" as kind, key, *name] if key in self._keys(frame, kind):
                if archive.layout == "links":
                    return None if name else self.link_page(frame, kind, key, base)
                if len(name) == 1:
                    return archive.file(frame, kind, key, name[0])
                return None if name else self._listed(frame, kind, key)
        return None

    def _keys(self, frame: str, kind: str) -> list[str]:
        if kind == "epochs":
            return [f"{day:%Y%m%d}" for day in self.archive.epochs(frame)]
        return [pair.name for pair in self.archive.pairs(frame)]

    def _row(self, frame: str, kind: str, key: str, base: str) -> Entry:
        modified = self.archive.modified(frame, kind, key)
        size = len(self.link_page(frame, kind, key, base).text) if self.archive.layout == "links" else None
        return Entry(key, modified, size)

    def _listed(self, frame: str, kind: str, key: str) -> list[Entry]:
        modified = self.archive.modified(frame, kind, key)
        found = []
        for name in self.archive.files(frame, kind, key):
            path = self.archive.file(frame, kind, key, name)
            found.append(Entry(name, modified, path.stat().st_size if path else 0))
        return found

    def link_page(self, frame: str, kind: str, key: str, base: str) -> LinkPage:
        """Return a pair's or epoch's link file: one line a product, pictures first."""
        track, folder = Frame(frame).track, f"{kind}/{key}"
        # both places are this server; the other name of its host makes them two, as in life
        public = f"{base}/{self.archive.public}/{track}/{frame}/{folder}"
        inside = key if kind == "interferograms" else folder
        mirror = f"{_alias(base)}/{self.archive.mirror}/{track:02d}/{frame}/{inside}"
        places = {
            name: mirror if mirrored(self.archive, frame, kind, key, name) else public
            for name in self.archive.files(frame, kind, key)
        }
        lines = [f"<a href='{place}/{name}'>{name}</a><br />\n" for name, place in places.items()]
        return LinkPage("".join(lines), self.archive.modified(frame, kind, key))

    def _public(self, parts: list[str], base: str) -> Node:
        match parts:
            case [track, frame, "interferograms" | "epochs" as kind, key, name]:
                apart = self.archive.layout == "links" and self._known(frame, track)
                if apart and not mirrored(self.archive, frame, kind, key, name):
                    return self.archive.file(frame, kind, key, name)
        return None

    def _mirror(self, parts: list[str], base: str) -> Node:
        match parts:
            case [track, frame, "metadata", name]:
                place = ("metadata", "", name)
            case [track, frame, "epochs", key, name]:
                place = ("epochs", key, name)
            case [track, frame, key, name]:
                place = ("interferograms", key, name)
            case _:
                return None
        if self._known(frame, track) and mirrored(self.archive, frame, *place):
            return self.archive.file(frame, *place)
        return None

    def _known(self, frame: str, track: str) -> bool:
        return frame in self.archive.world.frames and track == f"{Frame(frame).track:02d}"


def mirrored(archive: SimulatedArchive, frame: str, kind: str, key: str, name: str) -> bool:
    """Whether a file lies in the CEDA archive: rasters do, the newest pairs' not yet."""
    if kind == "metadata":
        return not name.endswith("-poly.txt")
    newest = {pair.name for pair in archive.pairs(frame)[-LAG:]} if kind == "interferograms" else set()
    return name.endswith(".tif") and key not in newest


def _alias(base: str) -> str:
    """Return the same address by the host's other name."""
    return base.replace("//127.0.0.1", "//localhost")


def _folders(names: Iterable[str]) -> list[Entry]:
    return [Entry(name, _BEGINNING) for name in names]


def listing(path: str, entries: Iterable[Entry], style: str, extra: Iterable[str] = ()) -> str:
    """Return a folder's page as Apache writes it.

    Parameters
    ----------
    path : str
        Of the folder, with a slash at its end.
    entries : iterable of Entry
        Its content.
    style : str
        ``table`` or ``pre``.
    extra : iterable of str
        Further hrefs, written as they are.
    """
    parent = quote(path.rstrip("/").rpartition("/")[0]) + "/"
    rows = [
        (
            quote(entry.name) + ("" if entry.size is not None else "/"),
            escape(entry.name) + ("" if entry.size is not None else "/"),
            entry.modified,
            "-" if entry.size is None else _readable(entry.size),
        )
        for entry in entries
    ]
    rows += [(href, href, _BEGINNING, "-") for href in extra]
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
        f'<tr><td valign="top">&nbsp;</td><td><a href="{parent}">Parent Directory</a></td>'
        '<td>&nbsp;</td><td align="right">  - </td><td>&nbsp;</td></tr>\n',
    ]
    lines += [
        f'<tr><td valign="top">&nbsp;</td><td><a href="{href}">{name}</a></td>'
        f'<td align="right">{modified:%Y-%m-%d %H:%M}  </td>'
        f'<td align="right">{size} </td><td>&nbsp;</td></tr>\n'
        for href, name, modified, size in rows
    ]
    return f"{head}{''.join(lines)}</table>\n</body></html>\n"


def _readable(size: int) -> str:
    """Return a size as Apache writes it: 512, 1.3K, 24M."""
    value, unit = float(size), ""
    for unit in ("", "K", "M", "G"):
        if value < 1000 or unit == "G":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit and value < 10 else f"{value:.0f}{unit}"
