"""Small HTTP responses, held in memory, and the decoding of their text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import requests
from requests.structures import CaseInsensitiveDict

from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.download.content_coding import content_codings
from hephaestus_build.download.validators import Validators, parse_content_length, parse_content_range

# Allowed codecs; others take quadratic time (punycode) or are not text codecs. As on the web, windows-1252
# replaces latin-1.
_CODECS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("ascii", "us-ascii", "iso-8859-1", "iso8859-1", "latin-1", "latin1"), "latin-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "windows-1252"),
}
_CHARSET = re.compile(r"""charset\s{0,9}=\s{0,9}["']?([A-Za-z0-9-]{1,40})""", re.IGNORECASE)
_MAX_CONTENT_TYPE = 1000  # characters of a Content-Type that are parsed
# Byte order marks, which name the codec whatever the server says; that of utf-16 begins that of utf-32.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Maximum number of headers kept, and maximum length of each; a server may send megabytes of them.
_KEPT_HEADERS, _MAX_HEADER = (
    ("Content-Length", "Content-Range", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Date"),
    256,
)


@dataclass(frozen=True)
class SmallResponse:
    """A small response, held in memory.

    Attributes
    ----------
    outcome : Outcome
        ``DOWNLOADED`` if `text` is the complete page.
    url : str
        Address of the response, after redirects and without credentials.
    status : int or None
        HTTP status of the last response; None if there was none.
    text : str
        The page; empty after a HEAD request.
    last_modified, etag : str or None
        Response headers, verbatim.
    detail : str
        Reason for an unsuccessful outcome, as one sanitized line.
    headers : mapping
        Response headers that describe the content, and its date, with case-insensitive names.
    """

    outcome: Outcome
    url: str
    status: int | None = None
    text: str = ""
    last_modified: str | None = None
    etag: str | None = None
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ok(self) -> bool:
        """Whether the complete page was received."""
        return self.outcome.ok

    @property
    def size(self) -> int | None:
        """Size of the file on the server, bytes; None if not stated."""
        if content_codings(self.headers):
            return None
        if self.status == 206 and (part := parse_content_range(self.headers)):
            return part.total
        return parse_content_length(self.headers)

    @property
    def is_web_page(self) -> bool:
        """Whether the server says that the content is HTML."""
        return "html" in self.headers.get("Content-Type", "").lower()


def decode_text(content: bytes, content_type: str | None) -> str:
    """Decode a text by its byte order mark, with the codec that the server names, if common, or as UTF-8."""
    for mark, codec in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(codec, errors="replace")
    match = _CHARSET.search((content_type or "")[:_MAX_CONTENT_TYPE])
    return content.decode(_CODECS.get(match[1].lower(), "utf-8") if match else "utf-8", errors="replace")


def describe_response(response: requests.Response) -> SmallResponse:
    """Return status, validators and headers of a response, without its content."""
    marks = Validators.from_headers(response.headers)
    headers = {name: value[:_MAX_HEADER] for name in _KEPT_HEADERS if (value := response.headers.get(name))}
    return SmallResponse(
        Outcome.DOWNLOADED,
        redact_url(response.request.url or ""),
        status=response.status_code,
        last_modified=marks.last_modified,
        etag=marks.etag,
        headers=MappingProxyType(CaseInsensitiveDict(headers)),
    )
