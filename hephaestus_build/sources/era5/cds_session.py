"""A requests session for the ``cdsapi`` client that talks to one origin only and bounds every response.

``cdsapi`` sends its key with every request, including requests to links in responses and to redirect
targets, and it reads responses without limits of size or time. This session refuses other origins and
applies both limits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.content_coding import decode_content
from hephaestus_build.download.deadline_adapter import DeadlineAdapter
from hephaestus_build.download.request_errors import RequestFailed
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.download.transport import StrictSession, stream_body

#: Bytes of a response; a job status has a few thousand.
MAX_RESPONSE_BYTES = 8 << 20
#: Deadline of a whole response, as a multiple of the timeout for silence.
TIMEOUTS_PER_RESPONSE = 5


class OtherOriginError(requests.exceptions.InvalidURL):
    """A request would have sent the key to another origin; nothing was sent."""


class SingleOriginSession(StrictSession):
    """A session that sends requests to a single origin.

    Parameters
    ----------
    address : HttpUrl
        The service. A login in it is sent in addition to the key.
    timeout : float
        Seconds that the service may be silent.
    limits : RequestLimits
        What each request waits for.
    """

    def __init__(self, address: HttpUrl, timeout: float, limits: RequestLimits) -> None:
        super().__init__(limits)
        if address.credentials:
            self.auth = HTTPBasicAuth(*(part.encode() for part in address.credentials))
        for scheme in ("http://", "https://"):
            self.mount(scheme, _SingleOriginAdapter(address, timeout, limits))

    def resolve_redirects(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Follow redirects as requests does; the adapter refuses those to another origin."""
        return requests.Session.resolve_redirects(self, *args, **options)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Keep the authorization header, since a redirect never leaves the origin."""


class _SingleOriginAdapter(DeadlineAdapter):
    """Transport adapter that refuses all origins but one and reads responses within limits."""

    def __init__(self, address: HttpUrl, timeout: float, limits: RequestLimits) -> None:
        super().__init__(limits)
        self._address = address
        self._timeout = timeout

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        try:
            wanted = HttpUrl.parse(request.url or "")
        except ValueError:
            raise OtherOriginError("an invalid address", request=request) from None
        if wanted.origin != self._address.origin:
            raise OtherOriginError(sanitize_text(wanted, 200), request=request)
        with self._limits.hold_place(request.url or ""):
            return self._exchange(request, *args, **options)

    def _exchange(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request and read its response."""
        response = super().send(request, *args, **options)
        body, deadline = bytearray(), time.monotonic() + TIMEOUTS_PER_RESPONSE * self._timeout
        try:
            for block in stream_body(response, self._timeout, deadline):
                body += block
                if len(body) > MAX_RESPONSE_BYTES:
                    raise requests.exceptions.InvalidJSONError(
                        f"more than {MAX_RESPONSE_BYTES} bytes", request=request
                    )
            content = decode_content(bytes(body), response.headers, MAX_RESPONSE_BYTES)
        except RequestFailed as failed:
            raise requests.exceptions.ConnectionError(failed.detail, request=request) from failed
        except ValueError as error:
            raise requests.exceptions.InvalidJSONError(str(error), request=request) from error
        finally:
            response.close()
        # the attributes in which requests stores a body; the encoding is fixed, not the server's choice
        response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
        response.encoding = "utf-8"
        return response
