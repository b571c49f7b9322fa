"""A sign of life after each good round of ``watch``, for a service that notices when it stays away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.request_errors import classify_transport_error
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.download.transport import StrictSession

log = logging.getLogger(__name__)

# Seconds; a round waits for it.
_TIMEOUT = 10.0


def send_heartbeat(settings: Settings) -> str:
    """Ask for the address of the setting ``heartbeat_url``, if there is one.

    The address is a secret, since anyone who knows it can send the heartbeat: only its host is ever shown.
    Redirects are not followed, and the body of the answer is not read.

    Returns
    -------
    str
        What went wrong, one line; empty if nothing did. It is no error: the round was good.
    """
    if settings.heartbeat_url is None:
        return ""
    host = HttpUrl.parse(settings.heartbeat_url).host
    try:
        with (
            _silent_libraries(),
            StrictSession(RequestLimits(settings)) as session,
            session.get(settings.heartbeat_url, timeout=_TIMEOUT, stream=True) as response,
        ):
            fault = "" if response.ok else f"HTTP {response.status_code}"
    except (requests.RequestException, OSError) as error:
        fault = classify_transport_error(error, f"https://{host}", _TIMEOUT).detail
    if fault:
        return f"the heartbeat was not taken by {host} ({fault}); check HEPHAESTUS_HEARTBEAT_URL"
    log.info("heartbeat sent to %s", host)
    return ""


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Drop what urllib3 logs in this thread during the block, since it quotes the path of the address."""
    thread = threading.get_ident()

    def is_of_other_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    loggers = [logging.getLogger(f"urllib3.{name}") for name in ("connectionpool", "connection", "response")]
    for logger in loggers:
        logger.addFilter(is_of_other_thread)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_of_other_thread)
