"""ERA5 from the Climate Data Store, through the ``cdsapi`` client as it is released.

``cdsapi`` submits requests and asks for their status; how long to wait, what to keep of a request that
outlives the program, the download and its check are ours.
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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from hephaestus_build.core.era5_grid import VARIABLES, Area
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.plain_text import plain_text
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import configured, redacted
from hephaestus_build.download.cache import VanishedError, explained
from hephaestus_build.download.client import Client
from hephaestus_build.download.credentials import HELP, Credentials
from hephaestus_build.sources.era5.cds_errors import TRIES, TroubleError, understand
from hephaestus_build.sources.era5.cds_netcdf import Answer, WrongAnswerError, read_answer
from hephaestus_build.sources.era5.cds_session import KeySession
from hephaestus_build.sources.era5.fields import Batch, Fields, assemble, batches
from hephaestus_build.sources.era5.month_cache import KeptSource, failed, product_name
from hephaestus_build.sources.era5.netcdf_process import Reader
from hephaestus_build.sources.era5.netcdf_reader import LARGEST

log = logging.getLogger(__name__)

DATASET = "reanalysis-era5-single-levels"

_LONGEST_PAUSE = 30.0
_SILENCE = logging.NullHandler()


class Cds(KeptSource):
    """The CDS as a source of ERA5.

    Parameters
    ----------
    settings : Settings
        Cache, deadline, timeout and the number of requests in the queue at once.
    credentials : Credentials
        From :func:`find_credentials`.
    longest_pause : float, optional
        Seconds between two looks at a request's status, and between two tries of a call that failed. By
        default 30, and less where the settings' timeout is short.

    Raises
    ------
    UsageError
        If the credentials are those of the old service.
    """

    def __init__(
        self, settings: Settings, credentials: Credentials, *, longest_pause: float | None = None
    ) -> None:
        if credentials.outdated:
            raise UsageError(
                f"the CDS key or address in {credentials.where} is of the service that was switched off in "
                f"2024; {HELP}"
            )
        super().__init__(
            settings, "cds", configured(credentials.url, "CDSAPI_URL (or the url in ~/.cdsapirc)")
        )
        self._settings = settings
        self._credentials = credentials
        self._longest_pause = longest_pause or min(_LONGEST_PAUSE, settings.timeout / 2)

    @property
    def description(self) -> str:
        """Which source this is and why, in a few words."""
        return f"the Climate Data Store ({self.address.netloc}), with the key in {self._credentials.where}"

    def requests(self, times: Iterable[datetime]) -> int:
        """Return how many requests `times` take: one for each month and hour among them."""
        return len(batches(times))

    def _retrieve(
        self, frame: Frame, area: Area, wanted: Sequence[Batch], say: Callable[[str], None]
    ) -> Iterator[Fields]:
        queue = deque(_Job(batch, request(area, batch), self._note(area, batch)) for batch in wanted)
        waiting: list[_Job] = []
        with Client(self._settings) as http, Reader() as reader, ExitStack() as ends:
            try:
                api = self._connect(http)
                ends.callback(api.session.close)
                reader.start()
                session = _Session(frame, area, api, http, reader)
                yield from self._work(session, queue, waiting, say)
            except TroubleError as trouble:
                # what stands in the way of one request stands in the way of all: ask no further
                for job in [*waiting, *queue]:
                    yield failed(area, self.name, job.batch, self._receipt(frame, job, trouble))

    def _work(
        self, session: _Session, queue: deque[_Job], waiting: list[_Job], say: Callable[[str], None]
    ) -> Iterator[Fields]:
        """Keep a few requests in the CDS's queue until all have come out of it, or nothing moves any more."""
        last_moved = time.monotonic()
        pause = first_pause = min(1.0, self._longest_pause)
        while queue or waiting:
            while queue and len(waiting) < self._settings.connections:
                waiting.append(queue.popleft())
                self._submit(session.api, waiting[-1])
            moved = False
            for job in list(waiting):
                fields = self._look(session, job)
                if fields is not None:
                    waiting.remove(job)
                    moved = True
                    yield fields
                    job.settle(session.http)  # the fields are kept by now
                elif job.remote is None:
                    waiting.remove(job)
                    queue.appendleft(job)
                    moved = True
            if moved:
                pause, last_moved = first_pause, time.monotonic()
            elif time.monotonic() - last_moved > self._settings.era5_deadline:
                raise TroubleError(
                    Outcome.UNREACHABLE,
                    f"still in the queue of the CDS after {self._settings.era5_deadline:g} s; build again "
                    "and it is waited for where it stands",
                    everything=True,
                )
            else:
                say(f"{len(waiting)} requests wait in the queue of the CDS, {len(queue)} are to follow")
                time.sleep(pause)
                pause = min(1.5 * pause, self._longest_pause)

    def _connect(self, http: Client) -> Any:
        """Return cdsapi's client; find out first, in seconds rather than minutes, if nobody answers."""
        page = http.get_page(self.address.child("catalogue/v1/messages").whole, max_bytes=1 << 20)
        if page.outcome is Outcome.UNREACHABLE:
            raise TroubleError(
                Outcome.UNREACHABLE,
                f"the CDS at {self.address.netloc} cannot be reached ({page.detail}); check the "
                "network and CDSAPI_URL, then build again",
                everything=True,
            )
        import cdsapi

        for name in ("multiurl", "ecmwf", "cdsapi"):
            logger = logging.getLogger(name)
            # they would print a warning of every retry, with addresses and the server's words as they are
            logger.addHandler(_SILENCE)
            logger.propagate = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cdsapi.Client(
                url=self.url,
                session=KeySession(self.address, self._settings.timeout),
                key=self._credentials.key,
                verify=self._credentials.verify,
                quiet=True,
                progress=False,
                timeout=self._settings.timeout,
                retry_max=TRIES,
                sleep_max=self._longest_pause,
                wait_until_complete=False,
                info_callback=_logged(logging.DEBUG),
                warning_callback=_logged(logging.INFO),
                error_callback=_logged(logging.INFO),
                debug_callback=_ignore,  # it is told the key
            )

    def _submit(self, api: Any, job: _Job) -> None:
        """Hand in a request, or find the same one again that an earlier build handed in."""
        try:
            if (known := job.remembered()) is not None:
                try:
                    job.remote, job.resumed = api.client.get_remote(known), True
                    return
                except requests.HTTPError as error:
                    if error.response is None or error.response.status_code != 404:
                        raise
            job.remote, job.resumed = api.retrieve(DATASET, job.inputs), False
        except Exception as error:  # cdsapi lets through whatever its libraries raise
            job.trouble = self._understand(error)
            if job.trouble.everything or job.trouble.outcome is Outcome.CORRUPT:
                raise job.trouble from error
        else:
            job.remember()

    def _look(self, session: _Session, job: _Job) -> Fields | None:
        """Return what became of a job; None while it is under way, and if it is to be handed in again."""
        if job.trouble is None:
            try:
                if job.remote.status in ("accepted", "running"):
                    return None
                results = job.remote.get_results()
                location, size = results.location, results.content_length
                checksum = str(results.asset.get("file:checksum", ""))
            except Exception as error:
                trouble = self._understand(error)
                over = getattr(getattr(error, "response", None), "status_code", None) == 400
                if trouble.everything and not (over and job.resumed):
                    if over:  # what the CDS turned down stays so: a later build hands in a new one
                        job.forget()
                    raise trouble from error
                if trouble.outcome is Outcome.CORRUPT and job.forgive():
                    return None
                if job.resumed:  # it has failed or expired since: ask afresh
                    job.forget()
                    job.remote = None
                    return None
                job.trouble = trouble
            else:
                return self._collect(session, job, location, size, checksum)
        job.settled = True
        return failed(session.area, self.name, job.batch, self._receipt(session.frame, job, job.trouble))

    def _collect(self, session: _Session, job: _Job, location: str, size: int, checksum: str) -> Fields:
        """Download an answer, check it and return its fields."""
        area = session.area

        def read(path: Path) -> Answer:
            if (came := path.stat().st_size) != size:
                raise WrongAnswerError(f"{came} bytes came, the CDS announced {size}")
            with path.open("rb") as stream:
                md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if re.fullmatch("[0-9a-f]{32}", checksum) and md5 != checksum:
                raise WrongAnswerError("its checksum is not the one that the CDS announced")
            return read_answer(path, area, job.batch.times, session.reader)

        product = product_name(session.frame, job.batch)
        receipt, answer = session.http.download(
            [location], job.answer, product=product, read=read, max_bytes=LARGEST
        )
        receipt = receipt.but(notes=(f"CDS request {plain_text(job.remote.request_id, 80)}",))
        # an answer that only did not come through is fetched by the next build; a wrong one asked for anew
        job.settled = receipt.outcome is not Outcome.UNREACHABLE
        if answer is None:
            receipt = receipt.but(detail=f"the answer of the CDS: {receipt.detail}")
            return failed(area, self.name, job.batch, receipt)
        receipt = receipt.noting(*answer.notes)
        proofs = {moment: (_hour(receipt, answer, moment),) for moment in job.batch.times}
        return assemble(area, self.name, answer.values, answer.expver, proofs)

    def _note(self, area: Area, batch: Batch) -> Path:
        """Return where the id of the request for `batch` is kept while it is under way."""
        text = json.dumps(request(area, batch), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.folder / "requests" / str(area) / f"{batch.name}-{digest}.json"

    def _receipt(self, frame: Frame, job: _Job, trouble: TroubleError) -> Receipt:
        url = redacted(job.remote.url) if job.remote is not None else self.url
        return Receipt(product_name(frame, job.batch), trouble.outcome, url, detail=trouble.detail)

    def _understand(self, error: Exception) -> TroubleError:
        trouble = understand(error, self._credentials)
        detail = trouble.detail.replace(self._credentials.key, "(key)")
        return TroubleError(trouble.outcome, detail, trouble.everything)


@dataclass(frozen=True)
class _Session:
    """What the requests of one call have in common: whom they are for, and by what means they are made."""

    frame: Frame
    area: Area
    api: Any
    http: Client
    reader: Reader


@dataclass(eq=False)
class _Job:
    """One request, from the queue to its end.

    Attributes
    ----------
    batch : Batch
        The hours it is for.
    inputs : dict
        As handed in.
    note : Path
        Where its id is kept while it is under way.
    remote : object or None
        cdsapi's, once handed in.
    resumed : bool
        Whether an earlier build handed it in.
    trouble : TroubleError or None
        Why it will never have an answer.
    settled : bool
        Whether a later build should begin afresh.
    patience : int
        How many answers that make no sense are still forgiven.
    """

    batch: Batch
    inputs: dict[str, Any]
    note: Path
    remote: Any = None
    resumed: bool = False
    trouble: TroubleError | None = None
    settled: bool = False
    patience: int = 3

    @property
    def answer(self) -> Path:
        """Where its answer is kept for as long as its fields are not."""
        return self.note.with_suffix(".nc")

    def forgive(self) -> bool:
        """Whether to look again after an answer that makes no sense."""
        self.patience -= 1
        return self.patience >= 0

    def remembered(self) -> str | None:
        """Return the id of the same request, if an earlier build handed it in."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = parse_json(read_bounded(self.note, 1 << 20))
            if known["inputs"] == self.inputs:
                return str(known["id"])
        return None

    def remember(self) -> None:
        """Keep the id for a later build, should this one end first."""
        text = json.dumps({"id": self.remote.request_id, "inputs": self.inputs})
        with suppress(VanishedError), explained(self.note):
            self.note.parent.mkdir(parents=True, exist_ok=True)
            self.note.write_text(text, encoding="utf-8")

    def settle(self, http: Client) -> None:
        """Throw away what only a build that was cut off would need."""
        if self.settled:
            http.cache.forget(self.answer)
            self.forget()

    def forget(self) -> None:
        """Throw away the id."""
        with suppress(OSError):
            self.note.unlink(missing_ok=True)


def request(area: Area, batch: Batch) -> dict[str, Any]:
    """Return the request for exactly the hours of `batch`, in the CDS's words."""
    return {
        "product_type": ["reanalysis"],
        "variable": list(VARIABLES),
        "year": [f"{batch.year:04d}"],
        "month": [f"{batch.month:02d}"],
        "day": [f"{day:02d}" for day in batch.days],
        "time": [f"{batch.hour:02d}:00"],
        "data_format": "netcdf",
        "download_format": "unarchived",
        "area": list(area.bounds),
    }


def _hour(receipt: Receipt, answer: Answer, moment: datetime) -> Receipt:
    """Return the receipt of one hour of an answer, which may lack it."""
    if moment in answer.values:
        return receipt
    if reason := answer.troubles.get(moment):
        return receipt.but(outcome=Outcome.CORRUPT, detail=f"at {moment} {reason}")
    detail = f"the answer of the CDS does not hold {moment}: not released yet, or lost"
    return receipt.but(outcome=Outcome.ABSENT, detail=detail)


def _logged(level: int) -> Callable[..., None]:
    """Return what logs a message of the CDS."""

    def hear(message: object, *_: object, **__: object) -> None:
        log.log(level, "%s", plain_text(message))

    return hear


def _ignore(*_: object, **__: object) -> None:
    """Hear nothing."""
