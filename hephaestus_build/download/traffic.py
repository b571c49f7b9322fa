"""What this process has exchanged with servers so far: bytes of content, and answers by status code."""

from __future__ import annotations

import threading
from collections import Counter

from hephaestus_build.core.web_address import HttpUrl

#: In place of a status code: no answer came.
NO_ANSWER = "none"
# Hosts that are counted by name; redirects may lead to any number of them.
_MOST_HOSTS = 32
_OTHER = "other"


class TrafficCounter:
    """Counts over all archives and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._hosts: set[str] = set()
        self.received_bytes = 0

    @property
    def answers(self) -> Counter[tuple[str, str]]:
        """Numbers of answers by host and status code; of requests without one as :data:`NO_ANSWER`."""
        with self._lock:
            return Counter(self._answers)

    def add_bytes(self, count: int) -> None:
        """Count bytes of content that arrived."""
        with self._lock:
            self.received_bytes += count

    def add_answer(self, url: str, status: int | None) -> None:
        """Count the answer to a request, or that there was none."""
        try:
            host = HttpUrl.parse(url).host
        except ValueError:
            host = _OTHER
        code = NO_ANSWER if status is None else str(status) if 100 <= status <= 599 else _OTHER
        with self._lock:
            if host not in self._hosts and len(self._hosts) >= _MOST_HOSTS:
                host = _OTHER
            self._hosts.add(host)
            self._answers[host, code] += 1


#: The counts of this process.
TRAFFIC = TrafficCounter()
