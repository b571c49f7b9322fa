"""ERA5 from the Climate Data Store (CDS), through the unmodified ``cdsapi`` client.

``cdsapi`` submits requests and reads their status. This module decides how long to wait, stores the ids of
pending requests so that a later build can resume them, and downloads and checks the results.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import parse_url_setting, redact_url
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.credentials import CDS_KEY_HELP, CdsCredentials
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.sources.era5.cds_errors import MAX_TRIES, CdsError, classify_cds_error
from hephaestus_build.sources.era5.cds_job import CdsJob, hour_receipt
from hephaestus_build.sources.era5.cds_netcdf import CdsFields, InvalidCdsFileError, read_cds_netcdf
from hephaestus_build.sources.era5.cds_queue import QueuePlaces, RequestLocks
from hephaestus_build.sources.era5.cds_session import SingleOriginSession
from hephaestus_build.sources.era5.fields import (
    Era5Batch,
    Era5Fields,
    assemble_fields,
    group_into_batches,
    merge_fields,
)
from hephaestus_build.sources.era5.month_cache import CachedEra5Source, failed_fields
from hephaestus_build.sources.era5.netcdf_process import NetcdfProcess
from hephaestus_build.sources.era5.netcdf_reader import MAX_NETCDF_BYTES
from hephaestus_build.sources.era5.requests import (
    Era5Cost,
    Era5Request,
    frame_requests,
    requests_cost,
    tile_requests,
)
from hephaestus_build.sources.era5.tiles import era5_tile_around

log = logging.getLogger(__name__)

CDS_DATASET = "reanalysis-era5-single-levels"

_MAX_POLL_INTERVAL = 30.0
_NULL_HANDLER = logging.NullHandler()


class CdsEra5Source(CachedEra5Source):
    """Source of ERA5 fields that requests them from the CDS.

    Parameters
    ----------
    settings : Settings
        Cache folder, deadline, timeout and number of requests in the CDS's queue at once.
    credentials : CdsCredentials
        As returned by :func:`find_cds_credentials`.
    longest_pause : float, optional
        Longest pause in seconds between two status requests, and between two tries of a failed call. By
        default 30, or half the settings' timeout if that is shorter.

    Raises
    ------
    UsageError
        If the credentials are of the service that the CDS switched off in 2024.
    """

    def __init__(
        self, settings: Settings, credentials: CdsCredentials, *, longest_pause: float | None = None
    ) -> None:
        if credentials.is_legacy:
            raise UsageError(
                f"the CDS key or address in {credentials.found_in} is of the service that was switched off "
                f"in 2024; {CDS_KEY_HELP}"
            )
        super().__init__(
            settings, "cds", parse_url_setting(credentials.url, "CDSAPI_URL (or the url in ~/.cdsapirc)")
        )
        self._settings = settings
        self._credentials = credentials
        self._places = QueuePlaces(self.folder / "queue", settings.era5_requests)
        self._locks = RequestLocks(self.folder / "queue")
        self._by_tiles = settings.era5_area == "tile"
        self._max_poll_interval = longest_pause or min(_MAX_POLL_INTERVAL, settings.timeout / 2)

    @property
    def description(self) -> str:
        """Name of the source and where its key was found, for messages."""
        where = f"{self.address.netloc}, by tiles" if self._by_tiles else self.address.netloc
        return f"the Climate Data Store ({where}), with the key in {self._credentials.found_in}"

    def estimate(self, area: Era5Area, times: Iterable[datetime]) -> Era5Cost:
        """Return what `times` cost, as if nothing were cached."""
        place = self._area_to_ask(area)
        return requests_cost(self._plan_requests(place, group_into_batches(times)), place)

    def _area_to_ask(self, area: Era5Area) -> Era5Area:
        return era5_tile_around(area) if self._by_tiles else area

    def _plan_requests(self, place: Era5Area, wanted: Sequence[Era5Batch]) -> list[Era5Request]:
        limit = self._settings.era5_fields
        if self._by_tiles:
            return tile_requests(place, wanted, datetime.now(UTC).date(), limit)
        return frame_requests(wanted, limit)

    def _retrieve(
        self,
        frame: Frame,
        area: Era5Area,
        wanted: Sequence[Era5Batch],
        say: Callable[[str], None],
        *,
        only_final: bool,
    ) -> Iterator[Era5Fields]:
        queue = deque(
            CdsJob.plan(self.folder / "requests", area, request, wanted)
            for request in self._plan_requests(area, wanted)
        )
        waiting: list[CdsJob] = []
        with HttpClient(self._settings) as http, NetcdfProcess() as reader, ExitStack() as ends:
            try:
                api = self._connect(http)
                ends.callback(api.session.close)
                reader.start()
                session = _RequestContext(frame, area, api, http, reader, only_final)
                for job in queue:
                    ends.callback(job.release)
                yield from self._run_queue(session, queue, waiting, say)
            except CdsError as failure:
                # a fatal error concerns every request: submit no further ones
                for job in [*waiting, *queue]:
                    receipt = self._failure_receipt(frame, area, job, failure)
                    yield failed_fields(area, self.name, job.wanted_times, receipt)

    def _run_queue(
        self,
        session: _RequestContext,
        queue: deque[CdsJob],
        waiting: list[CdsJob],
        say: Callable[[str], None],
    ) -> Iterator[Era5Fields]:
        """Submit requests a few at a time and yield the fields of each as it ends.

        1. Yield the fields of requests that another process has cached meanwhile.
        2. Submit requests until `settings.connections_allowed` of them are pending, or there is no free place
           in the queue (`settings.era5_requests`, shared with other processes). Leave out those of which
           another process asks for the same area and month: it caches them.
        3. Poll each pending request; yield the fields of the ones that ended.
        4. If none ended, pause: 1 s at first, 1.5 times longer each time, up to the maximum. Any progress
           resets the pause, and a period of `settings.era5_deadline` seconds without progress is an error.
        """
        last_moved = time.monotonic()
        pause = first_pause = min(1.0, self._max_poll_interval)
        while queue or waiting:
            moved, elsewhere, has_place = False, 0, True
            for job in list(queue):
                if len(waiting) >= self._settings.connections_allowed or not has_place:
                    break
                if (lock := self._locks.try_take(*job.lock_name)) is None:
                    elsewhere += 1
                    continue
                job.lock = lock
                if (cached := self._find_cached(session, job)) is not None:
                    moved = True
                    queue.remove(job)
                    yield cached
                    job.is_final = True  # an id that an interrupted build has left is of no use any more
                    job.clean_up(session.http)
                elif (place := self._places.try_take()) is not None:
                    job.place = place
                    queue.remove(job)
                    waiting.append(job)
                    self._submit(session.api, job)
                    continue
                else:
                    has_place = False
                job.release()
            for job in list(waiting):
                fields = self._poll(session, job)
                if fields is not None:
                    waiting.remove(job)
                    job.leave_queue()
                    moved = True
                    yield fields
                    job.clean_up(session.http)  # the consumer has cached the fields by now
                    job.release()
                elif job.remote is None:
                    waiting.remove(job)
                    job.release()
                    queue.appendleft(job)
                    moved = True
            if moved:
                pause, last_moved = first_pause, time.monotonic()
            elif time.monotonic() - last_moved > self._settings.era5_deadline:
                where = "in" if waiting else "before"
                raise CdsError(
                    Outcome.UNREACHABLE,
                    f"still {where} the queue of the CDS after {self._settings.era5_deadline:g} s; build "
                    "again to resume waiting for the same request",
                    everything=True,
                )
            else:
                said = f"{count_of(len(waiting), 'request')}, {len(queue)} to be submitted"
                if not waiting and not has_place:
                    said += f"; other builds hold {count_of(self._places.count, 'place')} (era5_requests)"
                if elsewhere:
                    said += f"; other builds ask for {elsewhere} of these"
                say(f"in the queue of the CDS: {said}")
                time.sleep(pause)
                pause = min(1.5 * pause, self._max_poll_interval)

    def _find_cached(self, session: _RequestContext, job: CdsJob) -> Era5Fields | None:
        """Return what is needed of a request if all of it has been cached since it was looked for."""
        found = [self._find_kept(session.area, batch, only_final=session.only_final) for batch in job.wanted]
        if any(rest for _, rest in found):
            return None
        return merge_fields(session.area, self.name, [kept for kept, _ in found])

    def _connect(self, http: HttpClient) -> Any:
        """Return cdsapi's client, after a probe of the service: cdsapi itself would retry for minutes."""
        page = http.get_text(self.address.child("catalogue/v1/messages").url_with_secrets, max_bytes=1 << 20)
        if page.outcome is Outcome.UNREACHABLE:
            raise CdsError(
                Outcome.UNREACHABLE,
                f"the CDS at {self.address.netloc} cannot be reached ({page.detail}); check the "
                "network and CDSAPI_URL, then build again",
                everything=True,
            )
        import cdsapi

        for name in ("multiurl", "ecmwf", "cdsapi"):
            logger = logging.getLogger(name)
            # these loggers would print each retry with full addresses and unsanitized text of the server
            logger.addHandler(_NULL_HANDLER)
            logger.propagate = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cdsapi.Client(
                url=self.url,
                session=SingleOriginSession(
                    self.address, self._settings.timeout, RequestLimits(self._settings)
                ),
                key=self._credentials.key,
                verify=self._credentials.verify_tls,
                quiet=True,
                progress=False,
                timeout=self._settings.timeout,
                retry_max=MAX_TRIES,
                sleep_max=self._max_poll_interval,
                wait_until_complete=False,
                info_callback=_make_log_callback(logging.DEBUG),
                warning_callback=_make_log_callback(logging.INFO),
                error_callback=_make_log_callback(logging.INFO),
                debug_callback=_discard_message,  # cdsapi's debug output contains the API key
            )

    def _submit(self, api: Any, job: CdsJob) -> None:
        """Submit a request, or resume the same one if an earlier build submitted it."""
        try:
            if (known := job.read_request_id()) is not None:
                try:
                    job.remote, job.resumed = api.client.get_remote(known), True
                    return
                except requests.HTTPError as error:
                    if error.response is None or error.response.status_code != 404:
                        raise
            job.remote, job.resumed = api.retrieve(CDS_DATASET, job.inputs), False
        except Exception as error:  # cdsapi does not wrap the exceptions of its libraries
            job.error = self._classify_error(error)
            if job.error.fatal or job.error.outcome is Outcome.CORRUPT:
                raise job.error from error
        else:
            job.save_request_id()

    def _poll(self, session: _RequestContext, job: CdsJob) -> Era5Fields | None:
        """Return the fields of a job that has ended; None if it is pending or has to be submitted again."""
        if job.error is None:
            try:
                if job.remote.status in ("accepted", "running"):
                    return None
                results = job.remote.get_results()
                location, size = results.location, results.content_length
                checksum = str(results.asset.get("file:checksum", ""))
            except Exception as error:
                failure = self._classify_error(error)
                over = getattr(getattr(error, "response", None), "status_code", None) == 400
                if failure.fatal and not (over and job.resumed):
                    if over:  # a rejected request stays rejected: a later build submits a new one
                        job.delete_request_id()
                    raise failure from error
                if failure.outcome is Outcome.CORRUPT and job.use_retry():
                    return None
                if job.resumed:  # failed or expired since it was submitted: submit a new one
                    job.delete_request_id()
                    job.remote = None
                    return None
                job.error = failure
            else:
                return self._download_result(session, job, location, size, checksum)
        job.is_final = True
        receipt = self._failure_receipt(session.frame, session.area, job, job.error)
        return failed_fields(session.area, self.name, job.wanted_times, receipt)

    def _download_result(
        self, session: _RequestContext, job: CdsJob, location: str, size: int, checksum: str
    ) -> Era5Fields:
        """Download the result of a request, check it and return its fields."""
        area = session.area

        def read(path: Path) -> CdsFields:
            if (came := path.stat().st_size) != size:
                raise InvalidCdsFileError(f"{came} bytes arrived, the CDS announced {size}")
            with path.open("rb") as stream:
                md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if re.fullmatch("[0-9a-f]{32}", checksum) and md5 != checksum:
                raise InvalidCdsFileError("its checksum is not the one that the CDS announced")
            return read_cds_netcdf(path, area, job.request.times, session.reader)

        product = self._product_name(session.frame, area, job)
        receipt, answer = session.http.download(
            [location], job.netcdf_path, product=product, read=read, max_bytes=MAX_NETCDF_BYTES
        )
        notes = [f"CDS request {sanitize_text(job.remote.request_id, 80)}"]
        if self._by_tiles:
            notes.append(f"cropped from {area}")
        receipt = receipt.replace(notes=tuple(notes))
        # after a failed download the next build fetches the same result; after a wrong one it submits again
        job.is_final = receipt.outcome is not Outcome.UNREACHABLE
        if answer is None:
            receipt = receipt.replace(detail=f"the file from the CDS: {receipt.detail}")
            return failed_fields(area, self.name, job.wanted_times, receipt)
        receipt = receipt.with_notes(*answer.notes)
        receipts_by_hour = {moment: (hour_receipt(receipt, answer, moment),) for moment in job.request.times}
        return assemble_fields(area, self.name, answer.values, answer.expver, receipts_by_hour)

    def _product_name(self, frame: Frame, area: Era5Area, job: CdsJob) -> str:
        """Return the product of a request, for receipts: frames that share it record the same."""
        return f"{area if self._by_tiles else frame}.era5.{job.request.name}"

    def _failure_receipt(self, frame: Frame, area: Era5Area, job: CdsJob, failure: CdsError) -> Receipt:
        url = redact_url(job.remote.url) if job.remote is not None else self.url
        name = self._product_name(frame, area, job)
        return Receipt(name, failure.outcome, url, detail=failure.detail)

    def _classify_error(self, error: Exception) -> CdsError:
        failure = classify_cds_error(error, self._credentials)
        detail = failure.detail.replace(self._credentials.key, "(key)")
        return CdsError(failure.outcome, detail, failure.fatal)


@dataclass(frozen=True)
class _RequestContext:
    """Context that all requests of one call share."""

    frame: Frame
    area: Era5Area
    api: Any
    http: HttpClient
    reader: NetcdfProcess
    only_final: bool


def _make_log_callback(level: int) -> Callable[..., None]:
    """Return a callback that logs the CDS's messages at `level`."""

    def hear(message: object, *_: object, **__: object) -> None:
        log.log(level, "%s", sanitize_text(message))

    return hear


def _discard_message(*_: object, **__: object) -> None:
    """Ignore a message."""
