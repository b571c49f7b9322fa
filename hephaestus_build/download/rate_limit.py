"""How many requests an archive gets at once: few, and fewer after it complained."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Seconds that a Retry-After is honoured at most; the tries are few, so a longer one ends in "unreachable".
MAX_RETRY_AFTER = 60.0
# Part of a permit that each good answer gives back: a halved gate of four is whole again after 16.
_RECOVERY = 0.125
_MAX_DATE_LENGTH = 100  # characters


class AdaptiveLimiter:
    """Permits for requests, halved by each complaint and slowly grown back by good answers.

    Parameters
    ----------
    permits : int
        Requests at once while all is well.
    """

    def __init__(self, permits: int) -> None:
        self._max_permits = float(permits)
        self._permits = float(permits)
        self._in_flight = 0
        self._paused_until = 0.0
        self._changed = threading.Condition()

    @property
    def permits(self) -> int:
        """How many requests may run at once now."""
        return max(1, int(self._permits))

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Wait for a permit and hold it."""
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
        """Halve the permits; let nobody in for `pause` seconds."""
        with self._changed:
            self._permits = max(1.0, self._permits / 2)
            until = time.monotonic() + min(pause, MAX_RETRY_AFTER)
            self._paused_until = max(self._paused_until, until)

    def on_success(self) -> None:
        """Give a part of a permit back."""
        with self._changed:
            if self._permits < self._max_permits:
                self._permits = min(self._max_permits, self._permits + _RECOVERY)
                self._changed.notify_all()


def parse_retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for (a number or a date); 0 if it asks nothing."""
    if not value:
        return 0.0
    plain = value.strip()
    if plain.isascii() and plain.isdigit():
        return float(plain)  # of too many digits: infinity
    try:
        if len(plain) > _MAX_DATE_LENGTH:
            return 0.0
        moment = parsedate_to_datetime(plain)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
