"""Failures of requests: what became of a product, the reason in words, and whether to try again."""

from __future__ import annotations

import socket
import ssl
from typing import Literal

import requests
import urllib3

from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.download.network_environment import (
    advise_on_authorities,
    describe_ca_fault,
    find_proxy_variable,
    is_socks_proxy,
)

#: Timeout for connections, seconds: reachable hosts accept them quickly, and others should fail quickly.
CONNECT_TIMEOUT = 15.0
RetryPolicy = Literal["never", "content", "passing"]


class RequestFailed(Exception):  # noqa: N818 (an outcome, not an error of the program)
    """A failed request.

    Attributes
    ----------
    outcome : Outcome
        Outcome for the receipt.
    detail : str
        Reason, as one sanitized line, which may quote the server.
    url : str
        Address of the failed request, without credentials; empty if unknown.
    status : int or None
        HTTP status, if there was a response.
    retry_policy : str
        Retry policy: ``never``; ``content`` for one retry after wrong content; ``passing`` for several
        retries of temporary failures.
    """

    def __init__(
        self,
        outcome: Outcome,
        detail: str,
        url: str = "",
        *,
        status: int | None = None,
        retry_policy: RetryPolicy = "never",
    ) -> None:
        self.outcome = outcome
        self.detail = sanitize_text(detail)
        super().__init__(self.detail)
        self.url = url
        self.status = status
        self.retry_policy = retry_policy


def classify_transport_error(error: Exception, url: str, timeout: float) -> RequestFailed:
    """Convert a library's exception to a :class:`RequestFailed` with a readable reason.

    Parameters
    ----------
    error : Exception
        Exception of requests, urllib3 or the standard library.
    url : str
        Requested address, redacted.
    timeout : float
        Seconds without a byte after which the request was aborted.
    """
    chain: list[BaseException] = [error]
    for link in chain:
        found = [link.__cause__, link.__context__, *link.args, getattr(link, "reason", None)]
        chain += [item for item in found if isinstance(item, BaseException) and item not in chain]

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    proxy = find_proxy_variable(url)
    if fault := _describe_local_fault(chain, url, proxy):
        return RequestFailed(Outcome.UNREACHABLE, fault, url)
    if isinstance(error, ValueError):
        return RequestFailed(Outcome.UNREACHABLE, f"{url[:200]!r} is not a valid address")
    if among(urllib3.exceptions.IncompleteRead):
        return RequestFailed(
            Outcome.CORRUPT,
            "cut: the connection closed before the end of the file",
            url,
            retry_policy="passing",
        )
    reasons: list[tuple[tuple[type[BaseException], ...], str]] = [
        ((urllib3.exceptions.NameResolutionError, socket.gaierror), "its host's name cannot be resolved"),
        ((ConnectionRefusedError,), "its host refuses connections"),
        (
            (urllib3.exceptions.ConnectTimeoutError,),
            f"no connection within {min(timeout, CONNECT_TIMEOUT):g} s",
        ),
        ((urllib3.exceptions.TimeoutError, TimeoutError), f"stalled: no byte for {timeout:g} s"),
        ((ssl.SSLCertVerificationError,), _describe_certificate_fault(chain)),
        ((urllib3.exceptions.SSLError,), "no secure (TLS) connection could be made"),
        ((ConnectionError, urllib3.exceptions.ProtocolError), "the connection was reset"),
    ]
    words = next((words for kinds, words in reasons if among(*kinds)), f"no answer ({type(error).__name__})")
    if proxy and among(urllib3.exceptions.ProxyError, requests.exceptions.ProxyError):
        refusal = next((str(link) for link in chain if str(link).startswith("Tunnel connection failed")), "")
        words = f"the proxy in {proxy} is of no use ({refusal or words}): {_proxy_advice(proxy)}"
    elif proxy:
        words = f"{words} (through the proxy in {proxy})"
    return RequestFailed(Outcome.UNREACHABLE, words, url, retry_policy="passing")


def _describe_local_fault(chain: list[BaseException], url: str, proxy: str) -> str:
    """Return what in the environment prevents every request; empty if the fault is elsewhere."""
    kinds = (requests.exceptions.InvalidSchema, requests.exceptions.InvalidProxyURL)
    unknown = (urllib3.exceptions.LocationValueError, AssertionError, *kinds)
    if proxy and any(isinstance(link, unknown) for link in chain):
        if is_socks_proxy(url):
            install = f"`pip install PySocks`, or {_proxy_advice(proxy)}"
            return f"{proxy} names a SOCKS proxy, for which the package PySocks is missing: {install}"
        return f"the proxy in {proxy} is not a valid address: {_proxy_advice(proxy)}"
    if url.startswith("https:") and any(isinstance(link, OSError) for link in chain):
        return describe_ca_fault()
    return ""


def _proxy_advice(proxy: str) -> str:
    return f"correct or unset {proxy}, or name the archive's host in NO_PROXY"


def _describe_certificate_fault(chain: list[BaseException]) -> str:
    reasons = (link.verify_message for link in chain if isinstance(link, ssl.SSLCertVerificationError))
    reason = next(filter(None, reasons), "unknown reason")
    return f"its certificate is not trusted ({reason}); {advise_on_authorities()}"
