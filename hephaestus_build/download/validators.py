"""HTTP validators and lengths (ETag, Last-Modified, Content-Length, Content-Range), parsed from headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_ETAG = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_DATE = re.compile(r"[A-Za-z0-9 ,:+-]{1,64}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Validators(NamedTuple):
    """ETag and Last-Modified header of a file, which identify its version; None if missing or malformed.

    Attributes
    ----------
    etag, last_modified : str or None
        Headers verbatim: printable ASCII of bounded length.
    """

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Validators:
        """Return the validators in the headers of a response."""
        return cls.sanitize(headers.get("ETag"), headers.get("Last-Modified"))

    @classmethod
    def sanitize(cls, etag: str | None, last_modified: str | None) -> Validators:
        """Return the validators without malformed ones, which must not be stored or sent."""
        tag = (etag or "").strip()
        day = (last_modified or "").strip()
        return cls(tag if _ETAG.fullmatch(tag) else None, day if _DATE.fullmatch(day) else None)

    def differs_from(self, other: Validators) -> bool:
        """Return whether the validators, of one address, identify different versions of the file."""
        return any(then and now and then != now for then, now in zip(self, other, strict=True))


def parse_content_length(headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length of a response, bytes; None if missing or malformed."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if _DIGITS.fullmatch(text) else None


class ContentRange(NamedTuple):
    """Byte range of a response, and the size of the complete file, if stated."""

    start: int
    total: int | None


def parse_content_range(headers: Mapping[str, str]) -> ContentRange | None:
    """Parse a Content-Range header; return None if missing or malformed."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        return None
    return ContentRange(int(match[1]), None if match[3] == "*" else int(match[3]))
