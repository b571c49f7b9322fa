"""HTTP validators and lengths (ETag, Last-Modified, Content-Length, Content-Range), parsed from headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_ETAG = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_DATE = re.compile(r"[A-Za-z0-9 ,:+-]{1,64}")
# A weak tag, and the suffix that a server adds to the tag of a compressed response, name the same version.
_TAG_VARIANT = re.compile(r"""^W/|(?:--?|[;:])(?:gzip|deflate|df|br|zstd)(?="?$)""", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Validators(NamedTuple):
    """ETag and Last-Modified header of a file, which identify its version; None if missing or malformed.

    Attributes
    ----------
    etag, last_modified : str or None
        Headers verbatim: printable ASCII of bounded length. A date that is none, or that no file can have
        since it is not before that of the response, is left out.
    """

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Validators:
        """Return the validators in the headers of a response."""
        marks = cls.sanitize(headers.get("ETag"), headers.get("Last-Modified"))
        modified, now = parse_http_date(marks.last_modified), parse_http_date(headers.get("Date"))
        # a date of now is that of a page made for the request
        return marks._replace(last_modified=None) if modified and now and modified >= now else marks

    @classmethod
    def sanitize(cls, etag: str | None, last_modified: str | None) -> Validators:
        """Return the validators without malformed ones, which must not be stored or sent."""
        tag = (etag or "").strip()
        day = (last_modified or "").strip()
        return cls(tag if _ETAG.fullmatch(tag) else None, day if parse_http_date(day) else None)

    def differs_from(self, other: Validators) -> bool:
        """Return whether the validators, of one address, identify different versions of the file."""
        return self.tag_differs_from(other) or self.date_differs_from(other)

    def tag_differs_from(self, other: Validators) -> bool:
        """Return whether both have an ETag, and not that of one version."""
        here, there = (_TAG_VARIANT.sub("", marks.etag or "") for marks in (self, other))
        return bool(here and there and here != there)

    def date_differs_from(self, other: Validators) -> bool:
        """Return whether both have a date, and not the same, in whichever format."""
        here, there = (parse_http_date(marks.last_modified) for marks in (self, other))
        return here is not None and there is not None and here != there


def parse_http_date(text: str | None) -> datetime | None:
    """Parse a date of an HTTP header, in any of the formats in use; return None if missing or malformed."""
    plain = (text or "").strip()
    if not _DATE.fullmatch(plain):
        return None
    try:
        moment = parsedate_to_datetime(plain)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def parse_content_length(headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length of a response, bytes; None if missing, malformed or overruled by chunks."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    text = headers.get("Content-Length", "").strip()
    return int(text) if _DIGITS.fullmatch(text) else None


class ContentRange(NamedTuple):
    """Byte range of a response, and the size of the complete file, if stated."""

    start: int
    end: int
    total: int | None

    @property
    def is_whole(self) -> bool:
        """Whether the range is the complete file."""
        return self.start == 0 and self.end + 1 == self.total


def parse_content_range(headers: Mapping[str, str]) -> ContentRange | None:
    """Parse a Content-Range header; return None if missing or malformed."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        return None
    return ContentRange(int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3]))
