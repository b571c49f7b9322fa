"""Simulated Climate Data Store (CDS) that the unmodified ``cdsapi`` client can use.

Jobs, statuses, errors and netCDF files have the form of the present CDS. The fields come from a function
given by the caller.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import product
from typing import Any

import numpy as np

from hephaestus_build.core.era5_grid import ERA5_STEP, ERA5_VARIABLE_NAMES, EXPVER_FINAL, EXPVER_PRELIMINARY
from hephaestus_build.simulation.server.era5_netcdf import round_as_grib, write_cds_netcdf
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse

#: ``fields(time, latitudes, longitudes)`` returns float32 of shape (3, latitudes, longitudes).
FieldProvider = Callable[[datetime, np.ndarray, np.ndarray], np.ndarray]

DATASET = "reanalysis-era5-single-levels"
CDS_PREFIX = "/api"
_PROCESSES = f"{CDS_PREFIX}/retrieve/v1/processes"
_JOBS = f"{CDS_PREFIX}/retrieve/v1/jobs"
_RESULTS = "/cds-object-store"  # not below the API's path, as the real results are on another host


@dataclass
class SimulatedCdsJob:
    """One accepted request.

    Attributes
    ----------
    id : str
        Job id, as reported to the client.
    inputs : dict
        The request as sent.
    poll_count : int
        Number of times its status was requested.
    final_status : str
        Status that it ends with: ``successful``, ``failed``, ``rejected`` or ``dismissed``.
    failure_reason : str
        Text of the traceback of a failed job.
    content : bytes
        The resulting file; empty until there is one.
    """

    id: str
    inputs: dict[str, Any]
    poll_count: int = 0
    final_status: str = "successful"
    failure_reason: str = ""
    content: bytes = b""


@dataclass
class CdsApp:
    """The CDS as an app of a :class:`~hephaestus_build.simulation.server.http_server.LoopbackServer`.

    Every attribute may be changed while it serves.

    Attributes
    ----------
    fields : callable
        Function that returns the ERA5 fields of one hour; see `FieldProvider`.
    key : str
        The only API key that is accepted.
    grib_packing : bool
        Round values as GRIB's 16-bit packing does.
    short_names : tuple of str
        NetCDF names of the three variables; ecCodes before 2.38 named the last one ``p54.162``.
    missing_variables : frozenset of str
        Variables (by long name) left out of every file.
    zipped : bool
        Deliver the netCDF file in a zip archive, as the CDS sometimes does.
    queue_polls : int
        Number of status requests for which a job is still waiting.
    licence_accepted : bool
        Whether the account has accepted the licence.
    cost_limit : int
        Largest number of fields per request.
    job_end, job_reason : str
        Final status of every new job (``successful``, ``failed``, ``rejected`` or ``dismissed``), and the
        reason if it fails.
    rate_limited : int
        Number of requests, from now on, that are answered 429.
    final_until, available_until : datetime.date or None
        Last date of final fields, and last date of any fields (the later ones are preliminary); None means
        no limit.
    jobs : dict of str to SimulatedCdsJob
        All jobs by id.
    """

    fields: FieldProvider
    key: str = "simulated-key"
    grib_packing: bool = True
    short_names: tuple[str, str, str] = ("tcwv", "sp", "vit")
    missing_variables: frozenset[str] = frozenset()
    zipped: bool = False
    queue_polls: int = 0
    licence_accepted: bool = True
    cost_limit: int = 1200
    job_end: str = "successful"
    job_reason: str = "mars - ERROR - Expected 3, got 0."
    rate_limited: int = 0
    final_until: date | None = None
    available_until: date | None = None
    jobs: dict[str, SimulatedCdsJob] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def reset(self) -> None:
        """Let the service work at once, with every variable and day; jobs so far are kept."""
        self.missing_variables, self.final_until, self.available_until = frozenset(), None, None
        self.licence_accepted, self.job_end, self.rate_limited, self.queue_polls = True, "successful", 0, 0

    def __call__(self, request: HttpRequest) -> HttpResponse | None:
        """Return the response to a request, or None if the path is not the CDS's."""
        path = request.path
        if path.startswith(f"{_RESULTS}/"):
            job = self.jobs.get(path.removeprefix(f"{_RESULTS}/").rpartition(".")[0])
            return (
                None
                if job is None or not job.content
                else HttpResponse(200, job.content, {"Content-Type": _CONTENT_TYPE})
            )
        if path != CDS_PREFIX and not path.startswith(f"{CDS_PREFIX}/"):
            return None
        try:
            return self._route(request)
        except _CdsProblemError as problem:
            return problem.response(request)

    def _route(self, request: HttpRequest) -> HttpResponse:
        with self._lock:
            if self.rate_limited > 0:
                self.rate_limited -= 1
                raise _CdsProblemError(
                    429, "rate limit exceeded", "Rate limit exceeded. Please wait 1 seconds."
                )
        if request.path == f"{CDS_PREFIX}/catalogue/v1/messages":
            return _json({"messages": []})
        if request.headers.get("private-token") != self.key:
            raise _CdsProblemError(401, "authentication required", "authentication required")
        if request.path.startswith(f"{_PROCESSES}/"):
            dataset, _, action = request.path.removeprefix(f"{_PROCESSES}/").partition("/")
            if dataset != DATASET:
                raise _CdsProblemError(404, "process not found", f"dataset {dataset} not found")
            if not action:
                return _json({"id": dataset, "title": "ERA5 hourly data on single levels, simulated"})
            if action == "execution" and request.method == "POST":
                return self._submit(request)
        if request.path.startswith(f"{_JOBS}/"):
            name, _, action = request.path.removeprefix(f"{_JOBS}/").partition("/")
            job = self.jobs.get(name)
            if job is None:
                raise _CdsProblemError(404, "job not found", f"job {name} not found")
            if request.method == "DELETE":
                del self.jobs[name]
                return _json({"jobID": name, "status": "dismissed"})
            if not action:
                return self._status(request, job)
            if action == "results":
                return self._results(request, job)
        raise _CdsProblemError(404, "not found", f"no such resource: {request.path}")

    def _submit(self, request: HttpRequest) -> HttpResponse:
        try:
            inputs = json.loads(request.body)["inputs"]
            times, bounds = _parse_hours(inputs), _parse_area(inputs)
            variables = _text_list(inputs, "variable")
        except (KeyError, TypeError, ValueError) as error:
            raise _CdsProblemError(400, "invalid request", str(error)) from None
        if not self.licence_accepted:
            raise _CdsProblemError(
                403,
                "required licences not accepted",
                "Not all the required licences have been accepted; please visit "
                f"{request.base_url}/datasets/{DATASET}?tab=download#manage-licences to accept the required "
                "licence(s).",
            )
        if len(times) * len(variables) > self.cost_limit:
            raise _CdsProblemError(
                403, "cost limits exceeded", "Your request is too large, please reduce your selection."
            )
        job = SimulatedCdsJob(
            str(uuid.uuid4()), inputs, final_status=self.job_end, failure_reason=self.job_reason
        )
        here = [time for time in times if self.available_until is None or time.date() <= self.available_until]
        if not here and job.final_status == "successful":
            job.final_status = "failed"
            job.failure_reason = (
                "MultiAdaptorNoDataError: None of the data you have requested is available yet, please "
                f"revise the period requested. The latest date available is: {self.available_until}"
            )
        if job.final_status == "successful":
            job.content = self._make_netcdf(here, bounds, variables)
        with self._lock:
            self.jobs[job.id] = job
        answer = _json(self._job_document(request, job, "accepted", "monitor"), 201)
        answer.headers["Location"] = f"{request.base_url}{_JOBS}/{job.id}"
        return answer

    def _status(self, request: HttpRequest, job: SimulatedCdsJob) -> HttpResponse:
        with self._lock:
            if request.query:  # the client's last request before it asks for the results has no query
                job.poll_count += 1
            waiting = job.poll_count <= self.queue_polls
            first = job.poll_count <= 1
        status = ("accepted" if first else "running") if waiting else job.final_status
        info = self._job_document(request, job, status, "self")
        if status == "successful":
            href = f"{request.base_url}{_JOBS}/{job.id}/results"
            info["links"].append({"href": href, "rel": "results", "type": "application/json"})
        return _json(info)

    def _results(self, request: HttpRequest, job: SimulatedCdsJob) -> HttpResponse:
        if job.poll_count <= self.queue_polls:
            raise _CdsProblemError(404, "job results not ready", "results are not ready")
        if job.final_status in ("failed", "rejected"):
            raise _CdsProblemError(
                400, f"The job has {job.final_status}", "see the traceback", job.failure_reason
            )
        if job.final_status != "successful":
            raise _CdsProblemError(404, "results expired", "results expired")
        name = f"{job.id}.{'zip' if job.content.startswith(b'PK') else 'nc'}"
        value = {
            "type": _CONTENT_TYPE,
            "href": f"{request.base_url}{_RESULTS}/{name}",
            "file:checksum": hashlib.md5(job.content, usedforsecurity=False).hexdigest(),
            "file:size": len(job.content),
            "file:local_path": f"s3://cci2-prod-cache/{name}",
        }
        return _json({"asset": {"value": value}})

    def _job_document(
        self, request: HttpRequest, job: SimulatedCdsJob, status: str, rel: str
    ) -> dict[str, Any]:
        now = datetime.now(UTC).replace(tzinfo=None)
        link = {"href": f"{request.base_url}{_JOBS}/{job.id}", "rel": rel, "type": "application/json"}
        return {
            "processID": DATASET,
            "type": "process",
            "jobID": job.id,
            "status": status,
            "created": now.isoformat(),
            "updated": now.isoformat(),
            "links": [link],
            "metadata": {
                "origin": "api",
                "request": {"ids": job.inputs},
                "log": [[now.isoformat(), f"The job is {status}"]],
                "datasetMetadata": {"messages": []},
            },
        }

    def _make_netcdf(
        self, times: list[datetime], bounds: tuple[float, float, float, float], variables: list[str]
    ) -> bytes:
        north, west, south, east = bounds
        latitudes = np.arange(np.floor(north / ERA5_STEP), np.ceil(south / ERA5_STEP) - 1, -1) * ERA5_STEP
        longitudes = np.arange(np.ceil(west / ERA5_STEP), np.floor(east / ERA5_STEP) + 1) * ERA5_STEP
        values = np.stack([self.fields(time, latitudes, longitudes) for time in times])
        if self.grib_packing:
            values = round_as_grib(values)
        versions = [
            EXPVER_PRELIMINARY
            if self.final_until is not None and time.date() > self.final_until
            else EXPVER_FINAL
            for time in times
        ]
        kept = {
            self.short_names[k]: k
            for k, name in enumerate(ERA5_VARIABLE_NAMES)
            if name in variables and name not in self.missing_variables
        }
        content = write_cds_netcdf(times, latitudes, longitudes, values, versions, kept)
        if not self.zipped:
            return content
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("data_stream-oper_stepType-instant.nc", content)
        return stream.getvalue()


_CONTENT_TYPE = "application/netcdf"


class _CdsProblemError(Exception):
    """Error with the status and JSON document that the CDS sends."""

    def __init__(self, status: int, title: str, detail: str, traceback: str = "") -> None:
        super().__init__(title)
        self.status, self.title, self.detail, self.traceback = status, title, detail, traceback

    def response(self, request: HttpRequest) -> HttpResponse:
        body = {
            "type": self.title,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": f"{request.base_url}{request.path}",
            "trace_id": uuid.uuid4().hex,
        }
        if self.traceback:
            body["traceback"] = self.traceback
        answer = _json(body, self.status)
        if self.status == 429:
            answer.headers["Retry-After"] = "1"
        return answer


def _json(value: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _text_list(inputs: dict[str, Any], name: str) -> list[str]:
    """Return a value of a request as a list of strings; a single value is a list of one."""
    value = inputs[name]
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _parse_hours(inputs: dict[str, Any]) -> list[datetime]:
    """Return the hours that a request selects: the product of its lists, less dates that do not exist.

    Raises
    ------
    ValueError
        If the request is invalid or selects nothing.
    """
    if unknown := set(_text_list(inputs, "variable")) - set(ERA5_VARIABLE_NAMES):
        raise ValueError(f"variable not available: {', '.join(sorted(unknown))}")
    if _text_list(inputs, "product_type") != ["reanalysis"]:
        raise ValueError("product_type must be reanalysis")
    if inputs.get("data_format", inputs.get("format")) != "netcdf":
        raise ValueError("data_format must be netcdf here")
    found = set()
    for year, month, day, hour in product(
        *(_text_list(inputs, name) for name in ("year", "month", "day", "time"))
    ):
        moment = datetime.strptime(hour, "%H:%M")
        if moment.minute:
            raise ValueError(f"time not available: {hour}")
        try:
            found.add(datetime(int(year), int(month), int(day), moment.hour))
        except ValueError as error:
            if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
                raise ValueError(f"no such day: {year}-{month}-{day}") from error
    if not found:
        raise ValueError("the request selects nothing")
    return sorted(found)


def _parse_area(inputs: dict[str, Any]) -> tuple[float, float, float, float]:
    north, west, south, east = (float(edge) for edge in inputs.get("area", (90, -180, -90, 179.75)))
    if east < west and -180 <= east < west <= 360:  # MARS goes eastwards from west, around the globe
        east += 360
    if not (-90 <= south <= north <= 90 and west <= east):
        raise ValueError(f"area must be North, West, South, East, got {[north, west, south, east]}")
    return north, west, south, east
