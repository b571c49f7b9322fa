"""Small answers of a server: decompressed and decoded within bounds, whatever their headers say."""

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

# others cost quadratic time (punycode) or are no codecs of text; the web's windows-1252 includes latin-1
_CODECS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("ascii", "us-ascii", "iso-8859-1", "iso8859-1", "latin-1", "latin1"), "latin-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "windows-1252"),
}
_CHARSET = re.compile(r"""charset\s{0,9}=\s{0,9}["']?([A-Za-z0-9-]{1,40})""", re.IGNORECASE)
_MAX_CONTENT_TYPE = 1000  # characters of a Content-Type that are looked at
_GZIP = ("gzip", "x-gzip")
# Headers that are kept of an answer, and characters of each; a server may send megabytes of them.
_KEPT_HEADERS, _MAX_HEADER = ("Content-Length", "Content-Type", "Content-Encoding"), 256


@dataclass(frozen=True)
class SmallResponse:
    """A small answer, held in memory.

    Attributes
    ----------
    outcome : Outcome
        ``DOWNLOADED`` where `text` is the whole page.
    url : str
        The address that answered, after redirects, without credentials.
    status : int or None
        Of the last answer, None without one.
    text : str
        The page; empty after a HEAD request.
    last_modified, etag : str or None
        As the server wrote them.
    detail : str
        Why, where the outcome is not good: one harmless line.
    headers : mapping
        Those of the answer that describe its content, names in any case.
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
        """Whether the page is here, whole."""
        return self.outcome.ok

    @property
    def size(self) -> int | None:
        """Bytes of the file there, where the server says so."""
        return None if self.headers.get("Content-Encoding") else parse_content_length(self.headers)


def decode_content(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Undo a Content-Encoding.

    Pages are asked for as they are; some servers compress them all the same.

    Parameters
    ----------
    body : bytes
        As sent.
    encoding : str or None
        The Content-Encoding header; one layer of gzip or deflate is undone.
    limit : int
        Bytes that the content may have.

    Raises
    ------
    ValueError
        If the encoding is another one, the body is damaged, or the content is larger than `limit`.
    """
    name = (encoding or "").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in (*_GZIP, "deflate"):
        raise ValueError("it is compressed in a way that was not asked for")
    # deflate comes with a header, as the standard says, or without, as some servers do it
    headless = name == "deflate" and not (len(body) > 1 and body[0] & 0x0F == 8 and body[:2] != b"\x1f\x8b")
    undo = zlib.decompressobj(-zlib.MAX_WBITS if headless else zlib.MAX_WBITS | 32)
    try:
        content = undo.decompress(body, limit + 1)
    except zlib.error:
        raise ValueError("its compression is damaged") from None
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit} bytes when decompressed")
    if not undo.eof:
        raise ValueError("its compression is cut")
    return content


def decode_text(content: bytes, content_type: str | None) -> str:
    """Return the text of a page; the server chooses among a few codecs of the web, else it is UTF-8."""
    match = _CHARSET.search((content_type or "")[:_MAX_CONTENT_TYPE])
    return content.decode(_CODECS.get(match[1].lower(), "utf-8") if match else "utf-8", errors="replace")


def describe_response(response: requests.Response) -> SmallResponse:
    """Return what an answer says beside its content."""
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
