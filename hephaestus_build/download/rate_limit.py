"""Limits on concurrent requests to an archive, which are lowered when it is overloaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from hephaestus_build.download.validators import parse_http_date

#: Maximum pause for a Retry-After header, seconds.
MAX_RETRY_AFTER = 60.0
# Permits restored by each successful response: a limit halved from 4 to 2 is restored after 16.
_RECOVERY = 0.125


class AdaptiveLimiter:
    """Limiter of concurrent requests, halved by each HTTP 429 or 5xx and slowly restored by successes.

    Parameters
    ----------
    permits : int
        Maximum number of concurrent requests.
    """

    def __init__(self, permits: int) -> None:
        self._max_permits = float(permits)
        self._permits = float(permits)
        self._in_flight = 0
        self._paused_until = 0.0
        self._changed = threading.Condition()

    @property
    def permits(self) -> int:
        """Current number of concurrent requests allowed."""
        return max(1, int(self._permits))

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Wait for a permit and hold it during the block."""
        with self._changed:
            while (pause := self._paused_until - time.monotonic()) > 0 or self._in_flight >= self.permits:
                self._changed.wait(pause if pause > 0 else None)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def on_throttle(self, pause: float = 0.0) -> None:
        """Halve the number of permits, and start no request for `pause` seconds."""
        with self._changed:
            self._permits = max(1.0, self._permits / 2)
            until = time.monotonic() + min(pause, MAX_RETRY_AFTER)
            self._paused_until = max(self._paused_until, until)

    def on_success(self) -> None:
        """Restore a fraction of a permit."""
        with self._changed:
            if self._permits < self._max_permits:
                self._permits = min(self._max_permits, self._permits + _RECOVERY)
                self._changed.notify_all()


def parse_retry_after(value: str | None) -> float:
    """Parse a Retry-After header (a number or a date) into seconds; 0 if missing or malformed."""
    if not value:
        return 0.0
    plain = value.strip()
    if plain.isascii() and plain.isdigit():
        return float(plain)  # infinity for too many digits
    moment = parse_http_date(plain)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment else 0.0
