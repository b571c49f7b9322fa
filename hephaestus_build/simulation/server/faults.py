"""What can go wrong on the way from an archive, on demand: rules that a loopback server obeys."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

MAINTENANCE_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body>Back soon.</body></html>\n"
)


@dataclass(frozen=True)
class Fault:
    """One way to answer badly. Every field left at its default changes nothing.

    Attributes
    ----------
    status : int or None
        Answer with this status and a short text instead of the content.
    headers : mapping
        Added to the answer; an empty value removes the header.
    body : bytes or callable or None
        Sent instead of the content; a callable gets the true content and returns what is sent.
    delay : float
        Seconds before the first byte.
    reset : bool
        Close the connection with a TCP reset, after `cut_after` bytes of the body if given, else at once.
    cut_after : int or None
        Close the connection after so many bytes of the body, though Content-Length promised all of it.
    stall_after : int or None
        After so many bytes of the body send nothing more and keep the connection, until the server stops.
    rate : float or None
        Bytes a second: the body trickles.
    length : int or None
        Content-Length to claim, whatever is sent.
    omit_length : bool
        Send no Content-Length; the end of the connection ends the body.
    ignore_ranges : bool
        Answer a Range request with 200 and everything.
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


def error_status(code: int, *, retry_after: str | int | None = None) -> Fault:
    """Answer with an error status, and `parse_retry_after` (seconds or an HTTP date) if given."""
    return Fault(status=code, headers={} if retry_after is None else {"Retry-After": str(retry_after)})


def reset_connection(after: int | None = None) -> Fault:
    """Reset the connection, at once or after some bytes of the body."""
    return Fault(reset=True, cut_after=after)


def stall_body(after: int = 0) -> Fault:
    """Fall silent after some bytes of the body, without closing, until the server stops."""
    return Fault(stall_after=after)


def trickle_body(rate: float) -> Fault:
    """Send the body at `rate` bytes a second."""
    return Fault(rate=rate)


def cut_connection(after: int) -> Fault:
    """Close after some bytes of the body, though the full Content-Length was promised."""
    return Fault(cut_after=after)


def claim_length(length: int) -> Fault:
    """Claim another Content-Length than the body has."""
    return Fault(length=length)


def empty_body() -> Fault:
    """Answer 200 with zero bytes."""
    return Fault(body=b"")


def serve_html() -> Fault:
    """Answer 200 with a web page in place of the content."""
    return Fault(body=MAINTENANCE_PAGE, headers={"Content-Type": "text/html; charset=utf-8"})


def replace_body(body: bytes | Callable[[bytes], bytes]) -> Fault:
    """Answer 200 with other bytes, or with what a function makes of the true ones."""
    return Fault(body=body)


def truncate_body(share: float = 0.5) -> Fault:
    """Answer 200 with the first part of the content and a matching length: a file cut at its source."""
    return Fault(body=lambda content: content[: int(len(content) * share)])


def delay_response(seconds: float) -> Fault:
    """Wait before answering, then answer well."""
    return Fault(delay=seconds)


def refuse_ranges() -> Fault:
    """Answer Range requests with 200 and everything, as some servers do."""
    return Fault(ignore_ranges=True, headers={"Accept-Ranges": ""})


@dataclass
class FaultRule:
    """A fault for some requests.

    Attributes
    ----------
    pattern : re.Pattern
        Searched in the percent-decoded path.
    fault : Fault
        How these are answered.
    times : int or None
        How often; None is for ever.
    skip : int
        How many matching requests are let by first.
    methods : frozenset of str
        Request methods it applies to; empty is all.
    hits : int
        How often it was applied so far.
    """

    pattern: re.Pattern[str]
    fault: Fault
    times: int | None = None
    skip: int = 0
    methods: frozenset[str] = frozenset()
    hits: int = 0


class FaultPlan:
    """Rules that decide which requests are answered badly; safe to change while the server runs."""

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
        """Add a rule behind the others and return it, so that its ``hits`` can be read.

        Parameters
        ----------
        pattern : str
            Regular expression searched in the path.
        fault : Fault
            How matching requests are answered.
        times : int, optional
            Apply it so often only.
        skip : int
            Let so many matching requests by first.
        methods : collection of str
            Such as ``{"GET"}``; all methods by default.
        """
        rule = FaultRule(re.compile(pattern), fault, times, skip, frozenset(methods))
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: FaultRule) -> None:
        """Take one rule out."""
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Take all rules out: everything is well again."""
        with self._lock:
            self._rules.clear()

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault of the first rule that still applies to this request, and count it."""
        with self._lock:
            for rule in self._rules:
                if (rule.methods and method not in rule.methods) or not rule.pattern.search(path):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.times is not None and rule.hits >= rule.times:
                    continue
                rule.hits += 1
                return rule.fault
        return None
