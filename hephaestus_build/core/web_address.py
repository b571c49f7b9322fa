r"""HTTP(S) addresses, parsed consistently with ``requests`` and displayed without secrets.

URL parsers may disagree about the host: in `http://a\.b.org/`, it is `a` for one and `a\.b.org` for another.
A check by one parser is therefore no protection for a request that uses another. Here, an address is first
normalized by ``requests``, and all checks, comparisons and displays use the text that is actually requested.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from urllib3.util import parse_url

from hephaestus_build.core.errors import UsageError

#: Maximum length of an address, characters; servers reject longer ones.
MAX_URL_LENGTH = 8192
_PORTS = {"http": 80, "https": 443}
# characters that are invalid in addresses, and end or split one for some parsers
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")

#: Scheme, host and port, for which a credential is valid.
UrlOrigin = tuple[str, str, int]


@dataclass(frozen=True)
class HttpUrl:
    """An HTTP(S) address.

    ``str(address)`` has no user, password, query or fragment, and is safe to display and store.

    Attributes
    ----------
    scheme : str
        ``http`` or ``https``.
    host : str
        Host name in lower case; an IPv6 address in brackets.
    port : int or None
        Port, if given explicitly.
    path : str
        Quoted path, which begins with a slash.
    query : str or None
        Query, which is never displayed, since it may contain a token or a signature.
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
        """Parse and normalize an address; the fragment is dropped, since it is never sent.

        Raises
        ------
        ValueError
            If `text` is not an HTTP(S) address with a host.
        """
        text = text.strip(" ")
        if len(text) > MAX_URL_LENGTH or _FORBIDDEN.search(text) or text[:4].lower() != "http":
            raise ValueError("not an http or https address")
        prepared = requests.PreparedRequest()
        prepared.prepare_url(text, None)
        asked = prepared.url or ""
        parts, other = parse_url(asked), urlsplit(asked)
        host = parts.host or ""
        if parts.scheme not in _PORTS or not host or host.strip("[]") != other.hostname:
            raise ValueError("not an http or https address")
        user, password = unquote(other.username or ""), unquote(other.password or "")
        login = (user, password) if user or password else None
        return cls(parts.scheme, host, parts.port, parts.path or "/", parts.query, login)

    @property
    def origin(self) -> UrlOrigin:
        """Scheme, host and port, with the scheme's default port if none is given."""
        return self.scheme, self.host, self.port or _PORTS[self.scheme]

    @property
    def is_loopback(self) -> bool:
        """Whether the host name itself denotes this machine."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def request_url(self) -> str:
        """The text to request, without login. Not for display, since it contains the query."""
        return f"{self}?{self.query}" if self.query is not None else str(self)

    @property
    def url_with_secrets(self) -> str:
        """The address with login and query, for clients that take strings. Not for display."""
        if self.credentials is None:
            return self.request_url
        user, password = (quote(part, safe="") for part in self.credentials)
        return self.request_url.replace("://", f"://{user}:{password}@", 1)

    @property
    def netloc(self) -> str:
        """Host, and port if given explicitly."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"

    def join(self, reference: str) -> HttpUrl:
        """Resolve `reference`, received from the server of this address, against this address.

        A login in the reference is dropped, and the login of this address is not passed on.

        Raises
        ------
        ValueError
            If the result is not an HTTP(S) address.
        """
        if _FORBIDDEN.search(reference):
            raise ValueError("not an http or https address")
        return replace(HttpUrl.parse(urljoin(self.request_url, reference)), credentials=None)

    def child(self, path: str) -> HttpUrl:
        """Return the address with `path` appended, and the same query and login."""
        return replace(self, path=f"{self.path.rstrip('/')}/{path}")

    def with_credentials_of(self, other: HttpUrl) -> HttpUrl:
        """Return this address with the login of `other` if both have the same origin."""
        mine = other.credentials is not None and self.origin == other.origin
        return replace(self, credentials=other.credentials) if mine else self


def parse_url_setting(text: str, setting: str) -> HttpUrl:
    """Parse the address in a setting.

    Raises
    ------
    UsageError
        If it is not an address; the message names the setting but does not repeat its value.
    """
    try:
        return HttpUrl.parse(text)
    except ValueError:
        raise UsageError(
            f"{setting} is not an address: it must begin with http:// or https:// and name a host"
        ) from None


def redact_url(text: str) -> str:
    """Return an address without user, password, query and fragment, which may contain credentials.

    All messages, logs, records and pages show addresses in this form. Text that is not an address is not
    shown at all.
    """
    try:
        return str(HttpUrl.parse(text)) if text else ""
    except ValueError:
        return "(no address)"


def url_origin(text: str) -> UrlOrigin:
    """Return scheme, host and port of an address; empty if it is not an address."""
    try:
        return HttpUrl.parse(text).origin
    except ValueError:
        return "", "", 0
