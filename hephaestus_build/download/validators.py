"""What a server's headers say of a file: its tag, date and size, as far as they can be kept and sent back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_ETAG = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_DATE = re.compile(r"[A-Za-z0-9 ,:+-]{1,64}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Validators(NamedTuple):
    """What tells one edition of a file from another; None where a header is missing or is none of its kind.

    Attributes
    ----------
    etag, last_modified : str or None
        As the server wrote them: printable ASCII of bounded length.
    """

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Validators:
        """Return what the headers of an answer say."""
        return cls.sanitize(headers.get("ETag"), headers.get("Last-Modified"))

    @classmethod
    def sanitize(cls, etag: str | None, last_modified: str | None) -> Validators:
        """Return the marks without those that no server would write: they are neither kept nor sent."""
        tag = (etag or "").strip()
        day = (last_modified or "").strip()
        return cls(tag if _ETAG.fullmatch(tag) else None, day if _DATE.fullmatch(day) else None)

    def differs_from(self, other: Validators) -> bool:
        """Whether both are of one address and of different editions."""
        return any(then and now and then != now for then, now in zip(self, other, strict=True))


def parse_content_length(headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length of an answer; None where there is none, or no number of bytes."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if _DIGITS.fullmatch(text) else None


class ContentRange(NamedTuple):
    """The part of a file that an answer holds, and the size of the whole, if it is said."""

    start: int
    total: int | None


def parse_content_range(headers: Mapping[str, str]) -> ContentRange | None:
    """Return what a Content-Range says; None where it is missing or makes no sense."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        return None
    return ContentRange(int(match[1]), None if match[3] == "*" else int(match[3]))
