"""Faults for a loopback server to inject: errors, resets, stalls, wrong content, and rules for when."""

from __future__ import annotations

import gzip
import itertools
import re
import threading
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

MAINTENANCE_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body>Back soon.</body></html>\n"
)


@dataclass(frozen=True)
class Fault:
    """One faulty behaviour of the server. Fields at their defaults change nothing.

    Attributes
    ----------
    status : int or None
        Respond with this status and a short text instead of the content.
    headers : mapping
        Headers added to the response; an empty value removes the header.
    body : bytes or callable or None
        Content sent instead of the true one, or a function from the true content to the one sent.
    delay : float
        Seconds to wait before the first byte.
    reset : bool
        Close the connection with a TCP reset, after `cut_after` bytes of the body if given, else at once.
    cut_after : int or None
        Close the connection after this many bytes of the body, although Content-Length states the full size.
    stall_after : int or None
        Stop sending after this many bytes of the body but keep the connection open until the server stops.
    rate : float or None
        Limit the body to this many bytes per second.
    length : int or None
        Value of Content-Length, whatever is sent.
    omit_length : bool
        Send no Content-Length; the end of the connection ends the body.
    ignore_ranges : bool
        Respond to a Range request with 200 and the full body.
    range_shift : int
        Start the range of a 206 response this many bytes late.
    unasked_range : bool
        Respond with 206 and the whole content as its range to a request without Range.
    encode : callable or None
        Content coding of the body, which leaves ETag and Last-Modified of the file as they are.
    etag : callable or None
        Function from the file's ETag to the one of this response, which conditional requests are compared
        with.
    http10 : bool
        Respond as an HTTP/1.0 server: no ranges, and the connection is closed after the body.
    chunked : bool
        Send the body in chunks, without Content-Length.
    bad_chunks : bool
        Send a chunk size that is no number after the first chunk.
    methods : frozenset of str
        Request methods that are affected; empty means all.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[bytes], bytes] | None = None
    delay: float = 0.0
    reset: bool = False
    cut_after: int | None = None
    stall_after: int | None = None
    rate: float | None = None
    length: int | None = None
    omit_length: bool = False
    ignore_ranges: bool = False
    range_shift: int = 0
    unasked_range: bool = False
    encode: Callable[[bytes], bytes] | None = None
    etag: Callable[[str], str] | None = None
    http10: bool = False
    chunked: bool = False
    bad_chunks: bool = False
    methods: frozenset[str] = frozenset()


def error_status(code: int, *, retry_after: str | int | None = None) -> Fault:
    """Return a fault with an error status and, if given, Retry-After in seconds or as an HTTP date."""
    return Fault(status=code, headers={} if retry_after is None else {"Retry-After": str(retry_after)})


def reset_connection(after: int | None = None) -> Fault:
    """Return a fault that resets the connection, at once or after `after` bytes of the body."""
    return Fault(reset=True, cut_after=after)


def stall_body(after: int = 0) -> Fault:
    """Return a fault that stops sending after `after` bytes of the body without closing the connection."""
    return Fault(stall_after=after)


def trickle_body(rate: float) -> Fault:
    """Return a fault that sends the body at `rate` bytes per second."""
    return Fault(rate=rate)


def cut_connection(after: int) -> Fault:
    """Return a fault that closes the connection after `after` bytes, despite a larger Content-Length."""
    return Fault(cut_after=after)


def claim_length(length: int) -> Fault:
    """Return a fault that states a Content-Length other than the size of the body."""
    return Fault(length=length)


def empty_body() -> Fault:
    """Return a fault that responds with 200 and zero bytes."""
    return Fault(body=b"")


def serve_html() -> Fault:
    """Return a fault that responds with 200 and a web page instead of the content."""
    return Fault(body=MAINTENANCE_PAGE, headers={"Content-Type": "text/html; charset=utf-8"})


def replace_body(body: bytes | Callable[[bytes], bytes]) -> Fault:
    """Return a fault that responds with 200 and other bytes, or with a function of the true ones."""
    return Fault(body=body)


def truncate_body(share: float = 0.5) -> Fault:
    """Return a fault that responds with the first part of the content and a matching Content-Length.

    This is a file that is truncated on the server itself.
    """
    return Fault(body=lambda content: content[: int(len(content) * share)])


def delay_response(seconds: float) -> Fault:
    """Return a fault that waits before an otherwise correct response."""
    return Fault(delay=seconds)


def refuse_ranges() -> Fault:
    """Return a fault that responds to Range requests with 200 and the full body, as some servers do."""
    return Fault(ignore_ranges=True, headers={"Accept-Ranges": ""})


def _raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


_ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, 1, mtime=0),
    "x-gzip": lambda content: gzip.compress(content, 1, mtime=0),
    "deflate": zlib.compress,
    "raw deflate": _raw_deflate,
    "gzip, gzip": lambda content: gzip.compress(gzip.compress(content, 1, mtime=0), 1, mtime=0),
    # neither codec is in the standard library; a client that names the encoding never decodes it
    "br": lambda content: b"\x0b\x02\x80" + content,
    "zstd": lambda content: b"\x28\xb5\x2f\xfd" + content,
}


def compress_body(encoding: str = "gzip", *, weak: bool = False) -> Fault:
    """Return a fault that compresses the body although the client did not ask for it.

    Parameters
    ----------
    encoding : str
        ``gzip``, ``x-gzip``, ``deflate``, ``raw deflate`` (without its header), ``gzip, gzip``, ``br`` or
        ``zstd``.
    weak : bool
        Whether the ETag becomes a weak one (nginx) rather than one with a suffix (Apache).
    """
    name = encoding.removeprefix("raw ")

    def mark(tag: str) -> str:
        return f"W/{tag}" if weak else f'{tag[:-1]}-{name.partition(",")[0]}"'

    return Fault(encode=_ENCODERS[encoding], etag=mark, headers={"Content-Encoding": name})


def claim_encoding(encoding: str) -> Fault:
    """Return a fault that states a Content-Encoding although the body is not encoded."""
    return Fault(headers={"Content-Encoding": encoding})


def claim_charset(charset: str) -> Fault:
    """Return a fault that states a charset, such as one that does not exist."""
    return Fault(headers={"Content-Type": f"text/html; charset={charset}"})


def claim_date(last_modified: str) -> Fault:
    """Return a fault that states another Last-Modified; an empty one is left out."""
    return Fault(headers={"Last-Modified": last_modified})


def claim_clock(date: str) -> Fault:
    """Return a fault that states another time of the server in the header ``Date``."""
    return Fault(headers={"date": date})


def refuse_head(code: int = 405) -> Fault:
    """Return a fault that refuses HEAD requests with an error status and answers all others."""
    return Fault(status=code, methods=frozenset({"HEAD"}))


def head_without_length(length: str = "") -> Fault:
    """Return a fault that answers HEAD without Content-Length, or with a false one such as 0."""
    return Fault(headers={"Content-Length": length}, methods=frozenset({"HEAD"}))


def vary_etags(servers: int = 2) -> Fault:
    """Return a fault that gives each response the ETag of another server behind one address.

    As Apache's do, each server's ETag begins with the number of the file on its own disk.
    """
    turns = itertools.cycle(range(1, servers + 1))
    return Fault(etag=lambda tag: f'"{next(turns):x}a7-{tag.strip(chr(34))}"')


def shift_ranges(by: int = 100) -> Fault:
    """Return a fault that answers a Range request with another part than requested."""
    return Fault(range_shift=by)


def send_unasked_range() -> Fault:
    """Return a fault that responds with 206 and everything to a request for everything."""
    return Fault(unasked_range=True)


def speak_http10() -> Fault:
    """Return a fault that responds as an HTTP/1.0 server."""
    return Fault(http10=True)


def chunk_body(*, malformed: bool = False, length: str = "") -> Fault:
    """Return a fault that sends the body in chunks, malformed ones or with a false Content-Length if told."""
    return Fault(chunked=True, bad_chunks=malformed, headers={"Content-Length": length})


def redirect_to(location: str, *, code: int = 302) -> Fault:
    """Return a fault that redirects to another address, such as a landing page."""
    return Fault(status=code, headers={"Location": location})


@dataclass
class FaultRule:
    """Rule that applies a fault to matching requests.

    Attributes
    ----------
    pattern : re.Pattern
        Regular expression, searched in the percent-decoded path.
    fault : Fault
        Fault to inject.
    times : int or None
        Number of times to apply it; None means always.
    skip : int
        Number of matching requests to let pass first.
    methods : frozenset of str
        Request methods that it applies to; empty means those of the fault.
    hits : int
        Number of times it was applied so far.
    """

    pattern: re.Pattern[str]
    fault: Fault
    times: int | None = None
    skip: int = 0
    methods: frozenset[str] = frozenset()
    hits: int = 0


class FaultPlan:
    """List of fault rules; thread-safe, so it may be changed while the server runs."""

    def __init__(self) -> None:
        self._rules: list[FaultRule] = []
        self._lock = threading.Lock()

    def add(
        self,
        pattern: str,
        fault: Fault,
        *,
        times: int | None = None,
        skip: int = 0,
        methods: Collection[str] = (),
    ) -> FaultRule:
        """Append a rule and return it.

        Parameters
        ----------
        pattern : str
            Regular expression, searched in the percent-decoded path.
        fault : Fault
            Fault to inject.
        times : int, optional
            Number of times to apply it; always by default.
        skip : int
            Number of matching requests to let pass first.
        methods : collection of str
            Request methods that it applies to, such as ``{"GET"}``; those of the fault by default.

        Returns
        -------
        FaultRule
            The rule, whose ``hits`` counts its applications.
        """
        rule = FaultRule(re.compile(pattern), fault, times, skip, frozenset(methods))
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: FaultRule) -> None:
        """Remove one rule."""
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules.clear()

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault of the first rule that applies to a request, and count it; else None."""
        with self._lock:
            for rule in self._rules:
                methods = rule.methods or rule.fault.methods
                if (methods and method not in methods) or not rule.pattern.search(path):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.times is not None and rule.hits >= rule.times:
                    continue
                rule.hits += 1
                return rule.fault
        return None
