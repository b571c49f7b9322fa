"""A session for the unmodified ``cdsapi`` client: the key goes to one origin, answers are bounded.

The client sends its key with every request, also to the links that answers name, and follows redirects
with it; and it reads each answer whole, however long that is and takes. A session refuses and bounds both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from hephaestus_build.core.plain_text import plain_text
from hephaestus_build.core.web_address import Address
from hephaestus_build.download.small_response import content_of
from hephaestus_build.download.transport import Adapter, Failed, Session, arriving

#: Bytes of an answer; those about one request have a few thousand.
LIMIT = 8 << 20
#: An answer takes at most so many times the time that a server may be silent.
PATIENCE = 5


class OtherOriginError(requests.exceptions.InvalidURL):
    """A request would carry the key to another origin than its own; nothing was sent."""


class KeySession(Session):
    """A session that asks a single origin.

    Parameters
    ----------
    address : Address
        Of the service; its login, if it has one, is sent beside the key.
    timeout : float
        Seconds that the service may be silent.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__()
        if address.login:
            self.auth = HTTPBasicAuth(*(part.encode() for part in address.login))
        for scheme in ("http://", "https://"):
            self.mount(scheme, _OneOrigin(address, timeout))

    def resolve_redirects(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Follow redirects as every session does; one to another origin is refused by the adapter."""
        return requests.Session.resolve_redirects(self, *args, **options)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Keep the headers: the origin stays the same."""


class _OneOrigin(Adapter):
    """Refuses requests to all origins but one, and reads answers whole within bounds."""

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__()
        self._address = address
        self._timeout = timeout

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        try:
            wanted = Address.parse(request.url or "")
        except ValueError:
            raise OtherOriginError("what is no address", request=request) from None
        if wanted.origin != self._address.origin:
            raise OtherOriginError(plain_text(wanted, 200), request=request)
        response = super().send(request, *args, **options)
        body, deadline = bytearray(), time.monotonic() + PATIENCE * self._timeout
        try:
            for block in arriving(response, self._timeout, deadline):
                body += block
                if len(body) > LIMIT:
                    raise requests.exceptions.InvalidJSONError(f"more than {LIMIT} bytes", request=request)
            content = content_of(bytes(body), response.headers.get("Content-Encoding"), LIMIT)
        except Failed as failed:
            raise requests.exceptions.ConnectionError(failed.detail, request=request) from failed
        except ValueError as error:
            raise requests.exceptions.InvalidJSONError(str(error), request=request) from error
        finally:
            response.close()
        # where requests keeps what it has read itself; the codec is not for the server to choose
        response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
        response.encoding = "utf-8"
        return response
