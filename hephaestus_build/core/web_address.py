r"""Web addresses, parsed as the library that requests them parses them, and shown without secrets.

Two parsers may disagree about the host: `http://a\.b.org/` is host `a` for one and `a\.b.org` for the other.
So a check by one says nothing about a request by the other. Here an address is normalised by ``requests``
first; what is checked, compared and shown is read from the very text that is requested.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from urllib3.util import parse_url

from hephaestus_build.core.errors import UsageError

#: Characters of an address; servers refuse longer ones.
MAX_URL_LENGTH = 8192
_PORTS = {"http": 80, "https": 443}
# they end or split an address for some parsers, and are no part of one
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")

#: Scheme, host and port: what a credential belongs to.
UrlOrigin = tuple[str, str, int]


@dataclass(frozen=True)
class HttpUrl:
    """An address of http or https.

    ``str(address)`` has neither user, password, query nor fragment: it may be shown and stored.

    Attributes
    ----------
    scheme : str
        ``http`` or ``https``.
    host : str
        In lower case, as it is looked up; an IPv6 address in brackets.
    port : int or None
        As written.
    path : str
        Quoted; begins with a slash.
    query : str or None
        It may hold a token or a signature, so it is never shown.
    login : tuple of str or None
        User and password.
    """

    scheme: str
    host: str
    port: int | None
    path: str
    query: str | None = field(default=None, repr=False)
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> HttpUrl:
        """Return the address that is requested for `text`; the fragment, which is never sent, is left out.

        Raises
        ------
        ValueError
            If `text` is no address of http or https that names a host.
        """
        text = text.strip(" ")
        if len(text) > MAX_URL_LENGTH or _FORBIDDEN.search(text) or text[:4].lower() != "http":
            raise ValueError("no address of http or https")
        prepared = requests.PreparedRequest()
        prepared.prepare_url(text, None)
        asked = prepared.url or ""
        parts, other = parse_url(asked), urlsplit(asked)
        host = parts.host or ""
        if parts.scheme not in _PORTS or not host or host.strip("[]") != other.hostname:
            raise ValueError("no address of http or https")
        user, password = unquote(other.username or ""), unquote(other.password or "")
        login = (user, password) if user or password else None
        return cls(parts.scheme, host, parts.port, parts.path or "/", parts.query, login)

    @property
    def origin(self) -> UrlOrigin:
        """Scheme, host and port, whether the port is written or not."""
        return self.scheme, self.host, self.port or _PORTS[self.scheme]

    @property
    def is_loopback(self) -> bool:
        """Whether it is of this machine by its very name."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def request_url(self) -> str:
        """The text that is requested; the login goes into a header. It holds the query: not to be shown."""
        return f"{self}?{self.query}" if self.query is not None else str(self)

    @property
    def url_with_secrets(self) -> str:
        """The address with all its secrets, for a client that takes texts: not to be shown."""
        if self.credentials is None:
            return self.request_url
        user, password = (quote(part, safe="") for part in self.credentials)
        return self.request_url.replace("://", f"://{user}:{password}@", 1)

    @property
    def netloc(self) -> str:
        """Host and port, as written."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"

    def join(self, reference: str) -> HttpUrl:
        """Return what `reference`, written by the server of this address, leads to.

        A login in it is a stranger's and left out; this address's own is not handed on either.

        Raises
        ------
        ValueError
            If that is no address of http or https.
        """
        if _FORBIDDEN.search(reference):
            raise ValueError("no address of http or https")
        return replace(HttpUrl.parse(urljoin(self.request_url, reference)), credentials=None)

    def child(self, path: str) -> HttpUrl:
        """Return the address of `path` below this one, with the same query and login."""
        return replace(self, path=f"{self.path.rstrip('/')}/{path}")

    def with_credentials_of(self, other: HttpUrl) -> HttpUrl:
        """Return this address with the login of `other` if both have one origin."""
        mine = other.credentials is not None and self.origin == other.origin
        return replace(self, credentials=other.credentials) if mine else self


def parse_url_setting(text: str, setting: str) -> HttpUrl:
    """Return the address that a setting holds.

    Raises
    ------
    UsageError
        If it is none; the message names the setting and not what it holds.
    """
    try:
        return HttpUrl.parse(text)
    except ValueError:
        raise UsageError(
            f"{setting} is no address: it must begin with http:// or https:// and name a host"
        ) from None


def redact_url(text: str) -> str:
    """Return an address without whatever may carry a credential: user, password, query and fragment.

    This is what every message, log, record and page shows of an address. What is none is not shown at all.
    """
    try:
        return str(HttpUrl.parse(text)) if text else ""
    except ValueError:
        return "(no address)"


def url_origin(text: str) -> UrlOrigin:
    """Return scheme, host and port of an address; empty if it is none."""
    try:
        return HttpUrl.parse(text).origin
    except ValueError:
        return "", "", 0
