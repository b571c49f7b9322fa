"""HTTP client for one archive, with bounded concurrency, retries and resumable downloads.

Each request ends in an :class:`~hephaestus_build.core.provenance.Outcome`. A download is accepted only after
its content was read successfully. If the connection breaks, the received part is kept and resumed later. The
connections themselves, with their overall deadlines, are in ``transport.py``.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import requests

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import format_bytes
from hephaestus_build.core.provenance import Digest, Outcome, PriorUse, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import UrlOrigin, redact_url, url_origin
from hephaestus_build.download.cache import DownloadCache, is_of
from hephaestus_build.download.cache_files import VanishedError
from hephaestus_build.download.content_coding import (
    ContentDecoder,
    UnsupportedCodingError,
    content_codings,
    decode_content,
)
from hephaestus_build.download.download_task import (
    SIGNATURE_BYTES,
    ByteProgress,
    DownloadTask,
    check_signature,
    prepare_part,
)
from hephaestus_build.download.network_environment import find_proxy_variable
from hephaestus_build.download.partial import BusyError, PartialDownload
from hephaestus_build.download.rate_limit import AdaptiveLimiter, parse_retry_after
from hephaestus_build.download.request_errors import RequestFailed, RetryPolicy
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.download.revalidation import (
    conditional_headers,
    is_altered_copy,
    is_current_copy,
)
from hephaestus_build.download.small_response import SmallResponse, decode_text, describe_response
from hephaestus_build.download.transport import Transport
from hephaestus_build.download.validators import parse_content_range

log = logging.getLogger(__name__)

T = TypeVar("T")
NO_PRIOR_USE = PriorUse()

#: Maximum duration of a download, in multiples of the stall timeout (one hour by default); after that, its
#: part is kept for the next run. At 9 kB/s, the slowest rate reported by users, the largest phase raster
#: completes.
TIMEOUTS_PER_DOWNLOAD = 60
# Number of consecutive failures of a host after which requests are not retried, until one succeeds.
_GIVE_UP_AFTER = 8
_MAX_RETRY_DELAY = 30.0


class HttpClient:
    """Thread-safe client for one archive, with bounded concurrency, retries and deadlines.

    Parameters
    ----------
    settings : Settings
        Provides ``connections``, ``requests_per_second``, ``share``, ``retries``, ``timeout`` and the cache's
        folder and limit.
    session_headers : mapping, optional
        Headers of every request to the requested host; not sent to redirect targets on other hosts.
    follow : callable, optional
        Returns whether to follow a redirect to an address; by default, all http and https redirects are
        followed.

    Attributes
    ----------
    cache : DownloadCache
        Cache of the downloads.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        session_headers: Mapping[str, str] = MappingProxyType({}),
        follow: Callable[[str], bool] | None = None,
    ) -> None:
        self.cache = DownloadCache(settings.downloads_dir, settings.cache_limit_gb * 1e9)
        self._settings = settings
        self._limiter = AdaptiveLimiter(settings.connections_allowed)
        self._limits = RequestLimits(settings)
        self._transport = Transport(settings.timeout, session_headers, follow, self._limits)
        self._failures_by_origin: dict[UrlOrigin, int] = {}
        self._origins_without_head: set[UrlOrigin] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def permits(self) -> int:
        """Current number of concurrent requests allowed."""
        return self._limiter.permits

    def get_text(self, url: str, *, max_bytes: int = 64 << 20) -> SmallResponse:
        """Request the page at `url`. Failures are reported as outcomes, not raised."""

        def attempt() -> SmallResponse:
            with self._permit(url), closing(self._send_checked("GET", url)) as response:
                body = bytearray()
                for block in self._transport.stream_body(response, self._new_deadline()):
                    body += block
                    if len(body) > max_bytes:
                        raise RequestFailed(Outcome.CORRUPT, f"the page is larger than {max_bytes} bytes")
            try:
                content = decode_content(bytes(body), response.headers, max_bytes)
            except ValueError as error:
                raise RequestFailed(Outcome.CORRUPT, f"the page cannot be read: {error}") from error
            return replace(
                describe_response(response), text=decode_text(content, response.headers.get("Content-Type"))
            )

        return self._retry_small(url, attempt)

    def head(self, url: str) -> SmallResponse:
        """Request the headers of `url`. Failures are reported as outcomes, not raised.

        Where HEAD fails or does not state the length, GET is used, and its body left unread. For the rest of
        the session it is used at once on that host.
        """
        origin = url_origin(url)
        if origin not in self._origins_without_head:
            try:
                answer = self._request_headers("HEAD", url)
                if answer.size or content_codings(answer.headers):
                    return answer
            except RequestFailed as failed:
                if failed.status is None and failed.retry_policy == "never":  # such as a refused redirect
                    return _failed_response(failed, url)
        answer = self._retry_small(url, partial(self._request_headers, "GET", url))
        if answer.ok:
            self._origins_without_head.add(origin)
        return answer

    def _request_headers(self, method: str, url: str) -> SmallResponse:
        with self._permit(url), closing(self._send_checked(method, url)) as response:
            return describe_response(response)

    def download(
        self,
        urls: Iterable[str],
        target: Path,
        *,
        product: str,
        read: Callable[[Path], T],
        known_receipt: Receipt | None = None,
        has_signature: Callable[[bytes], bool] | None = None,
        revalidate: bool = False,
        revalidate_by_date: bool = True,
        accepted_hashes: Collection[Digest] = (),
        prior_use: PriorUse = NO_PRIOR_USE,
        max_bytes: int = 2 << 30,
        progress: ByteProgress | None = None,
    ) -> tuple[Receipt, T | None]:
        """Download a product into the cache, and return its receipt and content.

        Parameters
        ----------
        urls : iterable of str
            Addresses to try in order. They are consumed lazily, so that later ones are determined only when
            needed; iterated again if the cache is removed meanwhile.
        target : Path
            Path of the product in the cache.
        product : str
            Name of the product, for the receipt.
        read : callable
            Reads the complete file at a path and returns its content; raises ValueError if it is not the
            product. Called before the file gets its final name.
        known_receipt : Receipt, optional
            Receipt of an earlier download, for a conditional request (with `revalidate`).
        has_signature : callable, optional
            Returns whether the first bytes (up to 512) can be those of the product.
        revalidate : bool
            Send a request even if the cache has an intact copy. If the file has not changed, the outcome is
            ``UNCHANGED``, and the content is None if `known_receipt` was given, since the caller has it.
        revalidate_by_date : bool
            Whether to use If-Modified-Since for a copy without an ETag. Many servers answer "not modified"
            if a file was replaced by one with an older date.
        accepted_hashes : collection of Digest
            Digests of contents that are taken from the cache without asking the archive.
        prior_use : PriorUse, optional
            First use of the product. A cached copy with the same validators but another hash is discarded.
            If the archive was found to have a different file since, the copy that was used and older parts
            are downloaded again, unconditionally.
        max_bytes : int
            Maximum size of the product, bytes; larger responses are rejected.
        progress : callable, optional
            Callback that receives the number of newly arrived bytes.

        Returns
        -------
        receipt : Receipt
            Receipt with the outcome. ``UNCHANGED`` without `revalidate` means that the cache had a copy.
        content : object or None
            Return value of `read`.

        Raises
        ------
        HephaestusError
            If the disk is full or read-only, or permission is denied.
        """
        job = DownloadTask(
            target,
            product,
            read,
            has_signature,
            max_bytes,
            progress,
            revalidate_by_date,
            accepted_hashes,
            prior_use,
        )
        began = time.monotonic()
        with self.cache.pin(target):
            for _ in range(3):
                with suppress(VanishedError):
                    result = self._download(urls, job, known_receipt, revalidate)
                    _log_receipt(result[0], time.monotonic() - began)
                    return result
        raise HephaestusError(
            f"{product}: the download cache {target.parent} is removed while it is in use, by another "
            "program or a build on another machine; set HEPHAESTUS_CACHE_DIR to a folder that stays, then "
            "run the same command again"
        )

    def _download(
        self, urls: Iterable[str], job: DownloadTask[T], known_receipt: Receipt | None, revalidate: bool
    ) -> tuple[Receipt, T | None]:
        cached = None if revalidate and known_receipt else self._read_cached(job)
        if cached and (
            cached[0].digest in job.accepted_hashes or not (revalidate or job.prior_use.replaced_since)
        ):
            return cached
        job.known_copy, job.content = (
            (known_receipt, None) if revalidate and known_receipt else cached or (None, None)
        )
        job.conditional = job.known_copy is not None and is_current_copy(job.known_copy, job.prior_use)
        try:
            with PartialDownload.acquire(job.target, TIMEOUTS_PER_DOWNLOAD * self._settings.timeout) as part:
                if not (job.known_copy or known_receipt) and (cached := self._read_cached(job)):
                    part.remove()  # another process has just completed the download
                    return cached
                try:
                    return self._try_urls(urls, job, part)
                except (HephaestusError, VanishedError):
                    part.remove()
                    raise
                finally:
                    part.release()
        except BusyError as error:
            return Receipt(job.product, Outcome.UNREACHABLE, "", detail=str(error)), None

    def _read_cached(self, job: DownloadTask[T]) -> tuple[Receipt, T] | None:
        if receipt := self.cache.verified_receipt(job.target, job.product, job.max_bytes):
            receipt = job.as_recorded(receipt, job.target)
            if job.prior_use.receipt and is_altered_copy(receipt, job.prior_use.receipt):
                if not job.warned:
                    log.warning(
                        "%s in the cache is not what it was when first used: downloading again", job.product
                    )
                job.warned = True
                return None
            try:
                return receipt.replace(outcome=Outcome.UNCHANGED), job.content_at(job.target)
            except ValueError:  # written by another, less strict version
                self.cache.discard(job.target)
        return None

    def _try_urls(
        self, urls: Iterable[str], job: DownloadTask[T], part: PartialDownload
    ) -> tuple[Receipt, T | None]:
        """Download from the first address that has the product, or return the most relevant failure."""
        failures: list[Receipt] = []
        for url in urls:
            try:
                return self._retry(url, partial(self._fetch_once, url, job, part))
            except RequestFailed as failed:
                receipt = Receipt(job.product, failed.outcome, failed.url or redact_url(url))
                failures.append(receipt.replace(detail=failed.detail))
        if not failures:
            return Receipt(job.product, Outcome.ABSENT, "", detail="no address is known for it"), None
        # absent only if every address says so, since one that did not answer may have the product
        return next((f for f in failures if f.outcome is not Outcome.ABSENT), failures[-1]), None

    def _fetch_once(self, url: str, job: DownloadTask[T], part: PartialDownload) -> tuple[Receipt, T | None]:
        """Try once to download the product from `url`; raise RequestFailed on failure."""
        if job.prior_use.replaced_since and part.started_at <= job.prior_use.replaced_since:
            part.restart()
        offset, if_range = part.resume(redact_url(url), job.max_bytes)
        headers = {}
        if offset and if_range:
            headers = {"Range": f"bytes={offset}-", "If-Range": if_range}
        elif job.known_copy and job.conditional:
            headers = conditional_headers(job.known_copy, redact_url(url), by_date=job.revalidate_by_date)
        with self._permit(url), closing(self._send_checked("GET", url, headers)) as response:
            answer = describe_response(response)
            if job.known_copy and job.confirms(answer):
                return job.known_copy.replace(
                    outcome=Outcome.UNCHANGED, detail="", url=answer.url
                ), job.content
            if response.status_code == 304 and job.known_copy:
                job.conditional = False
            else:
                expected = prepare_part(response, part, offset, job)
                self._receive_body(response, part, job, expected)
        if response.status_code == 304:  # "not modified" with another size or validator than the copy's
            return self._fetch_once(url, job, part)
        part.flush()
        try:
            content = job.content_at(part.path)
        except ValueError as error:
            part.flush()  # VanishedError if the file is gone, so that the content is not blamed
            part.restart()
            raise RequestFailed(Outcome.CORRUPT, str(error), answer.url, retry_policy="content") from error
        receipt = Receipt(
            job.product,
            Outcome.DOWNLOADED,
            answer.url,
            size=part.size,
            blake3=part.digest.value,
            last_modified=answer.last_modified,
            etag=answer.etag,
            fetched=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        unchanged = job.known_copy is not None and is_of(job.known_copy, part.path, part.digest)
        recorded = job.as_recorded(receipt, part.path)
        part.publish(job.target, receipt)
        self.cache.record_growth(part.size)
        return recorded.replace(outcome=Outcome.UNCHANGED) if unchanged else recorded, content

    def _receive_body(
        self,
        response: requests.Response,
        part: PartialDownload,
        job: DownloadTask[T],
        expected: int | None,
    ) -> None:
        first: bytes | None = None if part.size else b""
        offset, received = part.size, 0
        job.deadline = job.deadline or self._new_deadline()
        decoder = ContentDecoder(response.headers, job.max_bytes, job.has_signature)

        def store(content: Iterable[bytes]) -> None:
            nonlocal first
            for block in content:
                part.write(block)
                if part.size > job.max_bytes:
                    part.restart()
                    raise RequestFailed(Outcome.CORRUPT, f"more than {job.max_bytes} bytes received")
                if first is not None:
                    first += block
                    if len(first) >= SIGNATURE_BYTES:
                        check_signature(first, part, job)
                        first = None

        try:
            for block in self._transport.stream_body(response, job.deadline):
                received += len(block)
                if job.progress:
                    job.progress(len(block))
                store(decoder.decode(block))
            if expected is not None and received != expected:
                raise RequestFailed(
                    Outcome.CORRUPT,
                    f"cut: {offset + received} of {offset + expected} bytes received",
                    retry_policy="passing",
                )
            store(decoder.finish())
        except ValueError as error:
            unsupported = isinstance(error, UnsupportedCodingError)
            policy: RetryPolicy = "never" if unsupported else "content"
            raise RequestFailed(Outcome.CORRUPT, str(error), retry_policy=policy) from error
        if first is not None:
            check_signature(first, part, job)

    @contextmanager
    def _permit(self, url: str) -> Iterator[None]:
        """Wait until a request may be sent, and hold its place until its response has ended."""
        with self._limiter.permit(), self._limits.hold_place(url):
            yield

    def _send_checked(
        self, method: str, url: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> requests.Response:
        """Return a response with status 200, 206, 304 or 416; raise RequestFailed for all others.

        206 for the complete file is accepted without a request for a range.
        """
        response = self._transport.send(method, url, headers)
        status = response.status_code
        span = parse_content_range(response.headers) if status == 206 else None
        if status == 200 or (headers and status in (304, 416)) or (status == 206 and "Range" in headers):
            self._limiter.on_success()
            return response
        if span and span.is_whole:
            return response
        response.close()
        where = redact_url(response.request.url or url)
        if status == 206:
            detail = "cut: the archive sent a part that was not requested"
            raise RequestFailed(Outcome.CORRUPT, detail, where, status=status, retry_policy="passing")
        detail = f"HTTP {status} {response.reason or ''}".strip()
        if status in (404, 410):
            self._limiter.on_success()
            raise RequestFailed(Outcome.ABSENT, detail, where, status=status)
        if status in (401, 403, 407, 451):
            if status == 407 and (proxy := find_proxy_variable(url)):
                detail = f"the proxy in {proxy} wants a login: {detail}"
            raise RequestFailed(Outcome.REFUSED, detail, where, status=status)
        if status == 429 or status >= 500:
            self._limiter.on_throttle(parse_retry_after(response.headers.get("Retry-After")))
        passing = status in (408, 425, 429) or status >= 500
        raise RequestFailed(
            Outcome.UNREACHABLE, detail, where, status=status, retry_policy="passing" if passing else "never"
        )

    def _retry(self, url: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` with retries and growing pauses; raise RequestFailed after the last one."""
        host = url_origin(url)
        left = {"never": 0, "content": min(1, self._settings.retries), "passing": self._settings.retries}
        if self._failures_by_origin.get(host, 0) >= _GIVE_UP_AFTER:
            left["passing"] = 0
        # the initial pause is proportional to the timeout: 1 s by default
        pause = self._settings.timeout / 60
        while True:
            try:
                result = attempt()
            except RequestFailed as failed:
                left[failed.retry_policy] -= 1
                if left[failed.retry_policy] < 0:
                    self._record_delivery(host, delivered=failed.outcome is not Outcome.UNREACHABLE)
                    raise
            else:
                self._record_delivery(host, delivered=True)
                return result
            time.sleep(min(pause, _MAX_RETRY_DELAY) * random.uniform(0.5, 1.0))
            pause *= 2

    def _record_delivery(self, host: UrlOrigin, *, delivered: bool) -> None:
        with self._lock:
            self._failures_by_origin[host] = 0 if delivered else self._failures_by_origin.get(host, 0) + 1

    def _retry_small(self, url: str, attempt: Callable[[], SmallResponse]) -> SmallResponse:
        try:
            return self._retry(url, attempt)
        except RequestFailed as failed:
            return _failed_response(failed, url)

    def _new_deadline(self) -> float:
        return time.monotonic() + TIMEOUTS_PER_DOWNLOAD * self._settings.timeout


def _failed_response(failed: RequestFailed, url: str) -> SmallResponse:
    where = failed.url or redact_url(url)
    return SmallResponse(failed.outcome, where, status=failed.status, detail=failed.detail)


def _log_receipt(receipt: Receipt, seconds: float) -> None:
    """Log what became of a product, where it was asked for or came from."""
    size = f", {format_bytes(receipt.size)}" if receipt.size is not None else ""
    detail = f" ({receipt.detail})" if receipt.detail else ""
    log.debug(
        "%s: %s%s%s in %.1f s, %s", receipt.product, receipt.outcome, size, detail, seconds, receipt.url
    )
