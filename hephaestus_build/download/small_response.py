"""Small HTTP responses, held in memory, with limits on decompression and decoding."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import requests
from requests.structures import CaseInsensitiveDict

from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.download.validators import Validators, parse_content_length

# Allowed codecs; others take quadratic time (punycode) or are not text codecs. As on the web, windows-1252
# replaces latin-1.
_CODECS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("ascii", "us-ascii", "iso-8859-1", "iso8859-1", "latin-1", "latin1"), "latin-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "windows-1252"),
}
_CHARSET = re.compile(r"""charset\s{0,9}=\s{0,9}["']?([A-Za-z0-9-]{1,40})""", re.IGNORECASE)
_MAX_CONTENT_TYPE = 1000  # characters of a Content-Type that are parsed
_GZIP = ("gzip", "x-gzip")
# Maximum number of headers kept, and maximum length of each; a server may send megabytes of them.
_KEPT_HEADERS, _MAX_HEADER = ("Content-Length", "Content-Type", "Content-Encoding"), 256


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
        Response headers that describe the content, with case-insensitive names.
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
        return None if self.headers.get("Content-Encoding") else parse_content_length(self.headers)


def decode_content(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Undo a Content-Encoding.

    Requests ask for uncompressed pages, but some servers compress them anyway.

    Parameters
    ----------
    body : bytes
        Encoded body.
    encoding : str or None
        Content-Encoding header; a single gzip or deflate encoding is supported.
    limit : int
        Maximum size of the decoded content, bytes.

    Raises
    ------
    ValueError
        If the encoding is not supported, the body is damaged, or the content is larger than `limit`.
    """
    name = (encoding or "").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in (*_GZIP, "deflate"):
        raise ValueError("its compression is not supported")
    # the standard specifies deflate with a zlib header, but some servers omit it
    headless = name == "deflate" and not (len(body) > 1 and body[0] & 0x0F == 8 and body[:2] != b"\x1f\x8b")
    undo = zlib.decompressobj(-zlib.MAX_WBITS if headless else zlib.MAX_WBITS | 32)
    try:
        content = undo.decompress(body, limit + 1)
    except zlib.error:
        raise ValueError("its compressed data is damaged") from None
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit} bytes when decompressed")
    if not undo.eof:
        raise ValueError("its compressed data is truncated")
    return content


def decode_text(content: bytes, content_type: str | None) -> str:
    """Decode a page with the codec that the server names, if it is a common one, or as UTF-8."""
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
