"""ERA5 from the Climate Data Store (CDS), through the unmodified ``cdsapi`` client.

``cdsapi`` submits requests and reads their status. This module decides how long to wait, stores the ids of
pending requests so that a later build can resume them, and downloads and checks the results.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from hephaestus_build.core.atomic_io import make_folder
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import parse_url_setting, redact_url
from hephaestus_build.download.cache_files import VanishedError, translate_cache_errors
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.credentials import CDS_KEY_HELP, CdsCredentials
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.sources.era5.cds_errors import MAX_TRIES, CdsError, classify_cds_error
from hephaestus_build.sources.era5.cds_netcdf import CdsFields, InvalidCdsFileError, read_cds_netcdf
from hephaestus_build.sources.era5.cds_queue import QueuePlaces
from hephaestus_build.sources.era5.cds_session import SingleOriginSession
from hephaestus_build.sources.era5.fields import Era5Batch, Era5Fields, assemble_fields, group_into_batches
from hephaestus_build.sources.era5.month_cache import CachedEra5Source, era5_product_name, failed_fields
from hephaestus_build.sources.era5.netcdf_process import NetcdfProcess
from hephaestus_build.sources.era5.netcdf_reader import MAX_NETCDF_BYTES

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
                f"the CDS key or address in {credentials.found_in} is of the service that was switched "
                "off in "
                f"2024; {CDS_KEY_HELP}"
            )
        super().__init__(
            settings, "cds", parse_url_setting(credentials.url, "CDSAPI_URL (or the url in ~/.cdsapirc)")
        )
        self._settings = settings
        self._credentials = credentials
        self._places = QueuePlaces(self.folder / "queue", settings.era5_requests)
        self._max_poll_interval = longest_pause or min(_MAX_POLL_INTERVAL, settings.timeout / 2)

    @property
    def description(self) -> str:
        """Name of the source and where its key was found, for messages."""
        return f"the Climate Data Store ({self.address.netloc}), with the key in {self._credentials.found_in}"

    def count_requests(self, times: Iterable[datetime]) -> int:
        """Return the number of requests for `times`: one for each month and hour of the day."""
        return len(group_into_batches(times))

    def _retrieve(
        self, frame: Frame, area: Era5Area, wanted: Sequence[Era5Batch], say: Callable[[str], None]
    ) -> Iterator[Era5Fields]:
        queue = deque(
            _CdsJob(batch, build_cds_request(area, batch), self._request_file(area, batch))
            for batch in wanted
        )
        waiting: list[_CdsJob] = []
        with HttpClient(self._settings) as http, NetcdfProcess() as reader, ExitStack() as ends:
            try:
                api = self._connect(http)
                ends.callback(api.session.close)
                reader.start()
                session = _RequestContext(frame, area, api, http, reader)
                for job in queue:
                    ends.callback(job.leave_queue)
                yield from self._run_queue(session, queue, waiting, say)
            except CdsError as failure:
                # a fatal error concerns every request: submit no further ones
                for job in [*waiting, *queue]:
                    yield failed_fields(
                        area, self.name, job.batch, self._failure_receipt(frame, job, failure)
                    )

    def _run_queue(
        self,
        session: _RequestContext,
        queue: deque[_CdsJob],
        waiting: list[_CdsJob],
        say: Callable[[str], None],
    ) -> Iterator[Era5Fields]:
        """Submit requests a few at a time and yield the fields of each as it ends.

        1. Submit requests until `settings.connections_allowed` of them are pending, or there is no free place
           in the queue (`settings.era5_requests`, shared with other processes).
        2. Poll each pending request; yield the fields of the ones that ended.
        3. If none ended, pause: 1 s at first, 1.5 times longer each time, up to the maximum. Any progress
           resets the pause, and a period of `settings.era5_deadline` seconds without progress is an error.
        """
        last_moved = time.monotonic()
        pause = first_pause = min(1.0, self._max_poll_interval)
        while queue or waiting:
            while queue and len(waiting) < self._settings.connections_allowed:
                if (place := self._places.try_take()) is None:
                    break
                waiting.append(queue.popleft())
                waiting[-1].place = place
                self._submit(session.api, waiting[-1])
            moved = False
            for job in list(waiting):
                fields = self._poll(session, job)
                if fields is not None:
                    waiting.remove(job)
                    job.leave_queue()
                    moved = True
                    yield fields
                    job.clean_up(session.http)  # the consumer has cached the fields by now
                elif job.remote is None:
                    waiting.remove(job)
                    job.leave_queue()
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
                queued = count_of(len(waiting), "request")
                others = (
                    ""
                    if waiting
                    else f"; other builds hold {count_of(self._places.count, 'place')} (era5_requests)"
                )
                say(f"in the queue of the CDS: {queued}, {len(queue)} to be submitted{others}")
                time.sleep(pause)
                pause = min(1.5 * pause, self._max_poll_interval)

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

    def _submit(self, api: Any, job: _CdsJob) -> None:
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

    def _poll(self, session: _RequestContext, job: _CdsJob) -> Era5Fields | None:
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
        return failed_fields(
            session.area, self.name, job.batch, self._failure_receipt(session.frame, job, job.error)
        )

    def _download_result(
        self, session: _RequestContext, job: _CdsJob, location: str, size: int, checksum: str
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
            return read_cds_netcdf(path, area, job.batch.times, session.reader)

        product = era5_product_name(session.frame, job.batch)
        receipt, answer = session.http.download(
            [location], job.netcdf_path, product=product, read=read, max_bytes=MAX_NETCDF_BYTES
        )
        receipt = receipt.replace(notes=(f"CDS request {sanitize_text(job.remote.request_id, 80)}",))
        # after a failed download the next build fetches the same result; after a wrong one it submits again
        job.is_final = receipt.outcome is not Outcome.UNREACHABLE
        if answer is None:
            receipt = receipt.replace(detail=f"the file from the CDS: {receipt.detail}")
            return failed_fields(area, self.name, job.batch, receipt)
        receipt = receipt.with_notes(*answer.notes)
        receipts_by_hour = {moment: (_hour_receipt(receipt, answer, moment),) for moment in job.batch.times}
        return assemble_fields(area, self.name, answer.values, answer.expver, receipts_by_hour)

    def _request_file(self, area: Era5Area, batch: Era5Batch) -> Path:
        """Return the path where the id of the request for `batch` is stored while it is pending."""
        text = json.dumps(build_cds_request(area, batch), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.folder / "requests" / str(area) / f"{batch.name}-{digest}.json"

    def _failure_receipt(self, frame: Frame, job: _CdsJob, failure: CdsError) -> Receipt:
        url = redact_url(job.remote.url) if job.remote is not None else self.url
        return Receipt(era5_product_name(frame, job.batch), failure.outcome, url, detail=failure.detail)

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


@dataclass(eq=False)
class _CdsJob:
    """One request to the CDS and its state.

    Attributes
    ----------
    batch : Era5Batch
        The requested hours.
    inputs : dict
        The request as submitted.
    request_file : Path
        Where its id is stored while it is pending.
    remote : object or None
        cdsapi's handle, once submitted.
    resumed : bool
        Whether an earlier build submitted it.
    error : CdsError or None
        Why it has failed.
    is_final : bool
        Whether a later build should submit a new request.
    retries_left : int
        How many more unexpected responses are tolerated.
    place : ExitStack
        Its place in the queue, while it is pending.
    """

    batch: Era5Batch
    inputs: dict[str, Any]
    request_file: Path
    remote: Any = None
    resumed: bool = False
    error: CdsError | None = None
    is_final: bool = False
    retries_left: int = 3
    place: ExitStack = field(default_factory=ExitStack)

    @property
    def netcdf_path(self) -> Path:
        """Where its result is stored until the fields are cached."""
        return self.request_file.with_suffix(".nc")

    def leave_queue(self) -> None:
        """Free its place in the queue."""
        self.place.close()

    def use_retry(self) -> bool:
        """Use up one retry after an unexpected response; return whether there was one left."""
        self.retries_left -= 1
        return self.retries_left >= 0

    def read_request_id(self) -> str | None:
        """Return the stored id if an earlier build submitted the same request, else None."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = parse_json(read_bounded(self.request_file, 1 << 20))
            if known["inputs"] == self.inputs:
                return str(known["id"])
        return None

    def save_request_id(self) -> None:
        """Store the id, so that a later build can resume the request if this one is interrupted."""
        text = json.dumps({"id": self.remote.request_id, "inputs": self.inputs})
        with suppress(VanishedError), translate_cache_errors(self.request_file):
            make_folder(self.request_file.parent)
            self.request_file.write_text(text, encoding="utf-8")

    def clean_up(self, http: HttpClient) -> None:
        """Delete the result and the id unless a later build could resume the request."""
        if self.is_final:
            http.cache.discard(self.netcdf_path)
            self.delete_request_id()

    def delete_request_id(self) -> None:
        """Delete the stored id."""
        with suppress(OSError):
            self.request_file.unlink(missing_ok=True)


def build_cds_request(area: Era5Area, batch: Era5Batch) -> dict[str, Any]:
    """Return the inputs of a CDS request for exactly the hours of `batch`.

    The keys are those of the CDS dataset *ERA5 hourly data on single levels*. The CDS combines days and times
    freely, so a request for several days and one time of day returns no hour that was not requested.
    """
    return {
        "product_type": ["reanalysis"],
        "variable": list(ERA5_VARIABLE_NAMES),
        "year": [f"{batch.year:04d}"],
        "month": [f"{batch.month:02d}"],
        "day": [f"{day:02d}" for day in batch.days],
        "time": [f"{batch.hour:02d}:00"],
        "data_format": "netcdf",
        "download_format": "unarchived",
        "area": list(area.cds_bounds),
    }


def _hour_receipt(receipt: Receipt, answer: CdsFields, moment: datetime) -> Receipt:
    """Return the receipt of one hour of a result, which may lack that hour."""
    if moment in answer.values:
        return receipt
    if reason := answer.rejected_hours.get(moment):
        return receipt.replace(outcome=Outcome.CORRUPT, detail=f"at {moment} {reason}")
    detail = f"the file from the CDS lacks {moment}: not released yet, or lost; build again later"
    return receipt.replace(outcome=Outcome.ABSENT, detail=detail)


def _make_log_callback(level: int) -> Callable[..., None]:
    """Return a callback that logs the CDS's messages at `level`."""

    def hear(message: object, *_: object, **__: object) -> None:
        log.log(level, "%s", sanitize_text(message))

    return hear


def _discard_message(*_: object, **__: object) -> None:
    """Ignore a message."""
