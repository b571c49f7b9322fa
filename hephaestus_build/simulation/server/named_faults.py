"""Faults by name, for ``hephaestus archive serve --fault`` and tests: where each occurs, and what it is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hephaestus_build.core.errors import UsageError
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.faults import Fault

#: Everything of the portal and its mirror, its listings, and its rasters.
_PORTAL, _LISTINGS, _RASTERS = r"^/(LiCSAR_|neodc)", r"/interferograms/$", r"\.tif$"
_BINARY = (b"II", b"MM", b"\x89PNG")
_LISTED_PAIR = re.compile(rb"(?:<tr>|<a )[^\n]*\d{8}_\d{8}[^\n]*\n")


@dataclass(frozen=True)
class NamedFault:
    """One fault of a server.

    Attributes
    ----------
    description : str
        What the server does.
    pattern : str
        Regular expression of the paths where it does so by default.
    make : callable
        Returns the fault; some count their responses, so each use takes one of its own.
    """

    description: str
    pattern: str
    make: Callable[[], Fault]


def empty_listing(page: bytes) -> bytes:
    """Return a listing without its interferograms: its title and the link to the parent folder."""
    return _LISTED_PAIR.sub(b"", page)


def _change_texts(change: Callable[[bytes], bytes]) -> Fault:
    # texts and pages alone; their dates stay, since the files are unchanged
    return Fault(encode=lambda content: content if content.startswith(_BINARY) else change(content))


NAMED_FAULTS: dict[str, NamedFault] = {
    "gzip": NamedFault("compresses everything with gzip, unasked", _PORTAL, faults.compress_body),
    "deflate": NamedFault(
        "compresses everything with deflate, unasked", _PORTAL, partial(faults.compress_body, "deflate")
    ),
    "brotli": NamedFault(
        "compresses everything with brotli, unasked", _PORTAL, partial(faults.compress_body, "br")
    ),
    "coding": NamedFault(
        "states a Content-Encoding that does not exist", _PORTAL, partial(faults.claim_encoding, "UTF-8")
    ),
    "charset": NamedFault(
        "states a charset that does not exist",
        r"(/|\.txt|baselines)$",
        partial(faults.claim_charset, "x-none"),
    ),
    "bom": NamedFault(
        "begins texts with a byte order mark",
        _PORTAL,
        lambda: _change_texts(lambda text: b"\xef\xbb\xbf" + text),
    ),
    "crlf": NamedFault(
        "ends lines as Windows does",
        _PORTAL,
        lambda: _change_texts(lambda text: text.replace(b"\n", b"\r\n")),
    ),
    "etags": NamedFault("is three servers with ETags of their own", _PORTAL, partial(faults.vary_etags, 3)),
    "weak-etags": NamedFault(
        "compresses, and makes ETags weak", _PORTAL, partial(faults.compress_body, weak=True)
    ),
    "no-date": NamedFault("states no Last-Modified", _PORTAL, partial(faults.claim_date, "")),
    "bad-date": NamedFault(
        "states a Last-Modified that is no date", _PORTAL, partial(faults.claim_date, "yesterday")
    ),
    "future-date": NamedFault(
        "states a Last-Modified in the future",
        _PORTAL,
        partial(faults.claim_date, "Fri, 31 Dec 2100 23:59:59 GMT"),
    ),
    "no-head": NamedFault("refuses HEAD with 405", _PORTAL, faults.refuse_head),
    "head-404": NamedFault("answers HEAD with 404", _PORTAL, partial(faults.refuse_head, 404)),
    "head-length-0": NamedFault(
        "answers HEAD with a length of 0", _PORTAL, partial(faults.head_without_length, "0")
    ),
    "http10": NamedFault("speaks HTTP/1.0", _PORTAL, faults.speak_http10),
    "chunked": NamedFault(
        "sends chunks, and a false length", _PORTAL, partial(faults.chunk_body, length="5")
    ),
    "bad-chunks": NamedFault("sends malformed chunks", _RASTERS, partial(faults.chunk_body, malformed=True)),
    "whole-range": NamedFault("answers 206 unasked, with everything", _PORTAL, faults.send_unasked_range),
    "no-ranges": NamedFault("ignores requests for ranges", _RASTERS, faults.refuse_ranges),
    "wrong-range": NamedFault("answers with another range than requested", _RASTERS, faults.shift_ranges),
    "cut": NamedFault("closes each connection after 20 kB", _RASTERS, partial(faults.cut_connection, 20_000)),
    "reset": NamedFault(
        "resets each connection after 20 kB", _RASTERS, partial(faults.reset_connection, 20_000)
    ),
    "stall": NamedFault("stops sending after 20 kB", _RASTERS, partial(faults.stall_body, 20_000)),
    "slow": NamedFault("sends 5 kB a second", _RASTERS, partial(faults.trickle_body, 5_000.0)),
    "truncated": NamedFault("has files that are cut by half", _RASTERS, faults.truncate_body),
    "zero-bytes": NamedFault("has files of zero bytes", _RASTERS, faults.empty_body),
    "html": NamedFault("answers everything with a page and 200", _PORTAL, faults.serve_html),
    "empty": NamedFault("answers everything with nothing and 200", _PORTAL, faults.empty_body),
    "busy": NamedFault("answers 503", _PORTAL, partial(faults.error_status, 503, retry_after=1)),
    "forbidden": NamedFault("answers 403", _PORTAL, partial(faults.error_status, 403)),
    "gone": NamedFault("answers 404", _PORTAL, partial(faults.error_status, 404)),
    "emptied-listing": NamedFault(
        "lists no interferograms", _LISTINGS, partial(faults.replace_body, empty_listing)
    ),
    "cut-listing": NamedFault("cuts the listing by half", _LISTINGS, faults.truncate_body),
    "landing-page": NamedFault(
        "redirects the listing to a landing page", _LISTINGS, partial(faults.redirect_to, "/")
    ),
}


def named_fault(text: str) -> tuple[str, Fault]:
    """Return the pattern of paths and the fault that ``NAME`` or ``NAME=PATTERN`` stands for.

    Raises
    ------
    UsageError
        If there is no such fault, or the pattern is not a regular expression.
    """
    name, given, pattern = text.partition("=")
    found = NAMED_FAULTS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, NAMED_FAULTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMED_FAULTS)}"
        raise UsageError(f"no such fault: {name}; {hint} (`hephaestus archive list` describes them)")
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--fault {name}: {pattern} is not a regular expression ({error})") from None
    return (pattern if given else found.pattern), found.make()
