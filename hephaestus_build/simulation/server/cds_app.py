"""Simulated Climate Data Store (CDS) that the unmodified ``cdsapi`` client can use.

Jobs, statuses, errors and netCDF files have the form of the present CDS, and so have the answers beside a
retrieval: authentication, catalogue, licences, constraints, costs and lists of jobs. The fields come from a
function given by the caller.
"""

from __future__ import annotations

import hashlib
import io
import threading
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np

from hephaestus_build.core.era5_grid import ERA5_STEP, ERA5_VARIABLE_NAMES, EXPVER_FINAL, EXPVER_PRELIMINARY
from hephaestus_build.simulation.server.cds_catalogue import DATASET as DATASET
from hephaestus_build.simulation.server.cds_catalogue import (
    LICENCE,
    UnknownParameterError,
    collection_document,
    constraints_document,
    find_valid_values,
    form_document,
    process_document,
)
from hephaestus_build.simulation.server.cds_inputs import asks_for_zip, parse_area, parse_hours, text_list
from hephaestus_build.simulation.server.cds_problems import (
    CdsProblemError,
    not_found,
    read_json,
)
from hephaestus_build.simulation.server.era5_netcdf import round_as_grib, write_cds_netcdf
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, json_response

#: ``fields(time, latitudes, longitudes)`` returns float32 of shape (3, latitudes, longitudes).
FieldProvider = Callable[[datetime, np.ndarray, np.ndarray], np.ndarray]

CDS_PREFIX = "/api"
_CATALOGUE = f"{CDS_PREFIX}/catalogue/v1"
_ACCOUNT = f"{CDS_PREFIX}/profiles/v1/account"
_PROCESSES = f"{CDS_PREFIX}/retrieve/v1/processes"
_JOBS = f"{CDS_PREFIX}/retrieve/v1/jobs"
_RESULTS = "/cds-object-store"  # not below the API's path, as the real results are on another host
#: Days after which preliminary and final fields are released.
PRELIMINARY_LAG, FINAL_LAG = timedelta(days=5), timedelta(days=90)
_JOBS_PER_PAGE = 100
_CONTENT_TYPE = "application/netcdf"


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
    created : datetime.datetime
        Time of the request, UTC.
    """

    id: str
    inputs: dict[str, Any]
    poll_count: int = 0
    final_status: str = "successful"
    failure_reason: str = ""
    content: bytes = b""
    created: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))


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
    units : mapping of str to str
        Units stated of a variable, by its long name, in place of its own.
    stated_version : str
        Version (``expver``) stated of every hour; that of its date if empty.
    zipped : bool
        Deliver the netCDF file in a zip archive even where none was asked for, as the CDS sometimes does.
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
        Last date of final fields, and last date of any fields (the later ones are preliminary). None means
        the real lag: 90 and 5 days before today.
    jobs : dict of str to SimulatedCdsJob
        All jobs by id.
    """

    fields: FieldProvider
    key: str = "simulated-key"
    grib_packing: bool = True
    short_names: tuple[str, str, str] = ("tcwv", "sp", "vit")
    missing_variables: frozenset[str] = frozenset()
    units: Mapping[str, str] = field(default_factory=dict)
    stated_version: str = ""
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
        self.units, self.stated_version = {}, ""
        self.missing_variables, self.final_until, self.available_until = frozenset(), None, None
        self.licence_accepted, self.job_end, self.rate_limited, self.queue_polls = True, "successful", 0, 0

    @property
    def latest_date(self) -> date:
        """Last date with any fields."""
        return self.available_until or datetime.now(UTC).date() - PRELIMINARY_LAG

    @property
    def latest_final_date(self) -> date:
        """Last date with final fields."""
        return self.final_until or datetime.now(UTC).date() - FINAL_LAG

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
        except CdsProblemError as problem:
            return problem.response(request)

    def _route(self, request: HttpRequest) -> HttpResponse:
        with self._lock:
            if self.rate_limited > 0:
                self.rate_limited -= 1
                raise CdsProblemError(
                    429, "rate limit exceeded", "Rate limit exceeded. Please wait 1 seconds."
                )
        path, api = request.path, f"{request.base_url}{CDS_PREFIX}"
        if path.startswith(f"{_CATALOGUE}/"):  # public
            return self._catalogue(request, path.removeprefix(f"{_CATALOGUE}/"), api)
        if request.headers.get("private-token") != self.key:
            raise CdsProblemError(401, "authentication required", "authentication required")
        if path.startswith(f"{_ACCOUNT}/"):
            return self._account(request, path.removeprefix(f"{_ACCOUNT}/"))
        if path == _PROCESSES:
            return json_response({"processes": [process_document(api)], "links": []})
        if path.startswith(f"{_PROCESSES}/"):
            dataset, _, action = path.removeprefix(f"{_PROCESSES}/").partition("/")
            if dataset != DATASET:
                raise CdsProblemError(404, "process not found", f"dataset {dataset} not found")
            return self._process(request, action, api)
        if path == _JOBS:
            return self._list_jobs(request)
        if path == f"{_JOBS}/delete" and request.method == "POST":
            gone = [self._find_job(name) for name in read_json(request).get("job_ids", ())]
            return json_response({"jobs": [self._delete(job) for job in gone]})
        if path.startswith(f"{_JOBS}/"):
            name, _, action = path.removeprefix(f"{_JOBS}/").partition("/")
            job = self._find_job(name)
            if request.method == "DELETE":
                return json_response(self._delete(job))
            if not action:
                return self._status(request, job)
            if action == "results":
                return self._results(request, job)
            if action == "receipt":
                return json_response(
                    {
                        "request_uid": job.id,
                        "collection_id": DATASET,
                        "status": job.final_status,
                        "request": job.inputs,
                        "created_at": job.created.isoformat(),
                    }
                )
        raise not_found(request)

    def _catalogue(self, request: HttpRequest, page: str, api: str) -> HttpResponse:
        """Return a page of the catalogue, which needs no key."""
        collection = collection_document(api, self.latest_date)
        licences = [LICENCE] if request.query.get("scope", "all") in ("all", LICENCE["scope"]) else []
        match page.split("/"):
            case ["messages"]:
                return json_response({"messages": []})
            case ["vocabularies", "licences"]:
                return json_response({"licences": licences})
            case ["datasets" | "collections"]:
                words = request.query.get("q", "").lower().split()
                text = f"{DATASET} {collection['title']} {collection['description']}".lower()
                found = [collection] if all(word in text for word in words) else []
                return json_response({"type": "FeatureCollection", "collections": found, "links": []})
            case ["collections", name, *_] if name != DATASET:
                raise CdsProblemError(404, "dataset not found", f"dataset {name} not found")
            case ["collections", _]:
                return json_response(collection)
            case ["collections", _, "form.json"]:
                return json_response(form_document(self.latest_date))
            case ["collections", _, "constraints.json"]:
                return json_response(constraints_document(self.latest_date))
        raise not_found(request)

    def _account(self, request: HttpRequest, page: str) -> HttpResponse:
        """Return a page of the account: its identity, and the licences that it has accepted."""
        match request.method, page.split("/"):
            case "POST", ["verification", "pat"]:
                return json_response({"id": 1, "sub": "simulated", "role": "user"})
            case "GET", ["licences"]:
                wanted = request.query.get("scope", "all") in ("all", LICENCE["scope"])
                return json_response({"licences": [LICENCE] if self.licence_accepted and wanted else []})
            case "PUT", ["licences", name]:
                asked = {"id": name, "revision": read_json(request).get("revision")}
                if asked.items() <= LICENCE.items():
                    self.licence_accepted = True
                    return json_response(asked)
                raise CdsProblemError(404, "licence not found", f"licence {name} not found in this revision")
            case "POST", ["starred"]:
                return json_response([read_json(request).get("uid", DATASET)])
            case "DELETE", ["starred", _]:
                return json_response({})
        raise not_found(request)

    def _process(self, request: HttpRequest, action: str, api: str) -> HttpResponse:
        """Return an answer about the data set's process, or execute it."""
        if not action:
            return json_response(process_document(api))
        if request.method != "POST":
            raise not_found(request)
        if action == "execution":
            return self._submit(request)
        inputs = read_json(request).get("inputs") or {}
        if action == "constraints":
            try:
                return json_response(find_valid_values(inputs, self.latest_date))
            except UnknownParameterError as error:
                raise CdsProblemError(422, "invalid parameter", str(error)) from None
        if action == "costing":
            try:
                cost = len(parse_hours(inputs)) * len(text_list(inputs, "variable"))
            except (KeyError, TypeError, ValueError) as error:
                raise CdsProblemError(422, "invalid parameter", str(error)) from None
            fits = cost <= self.cost_limit
            return json_response(
                {"id": "size", "cost": cost, "limit": self.cost_limit, "request_is_valid": fits}
            )
        raise not_found(request)

    def _list_jobs(self, request: HttpRequest) -> HttpResponse:
        """Return a page of the account's jobs, the newest first unless asked otherwise."""
        asked = parse_qs(request.query_string)
        with self._lock:
            jobs = list(self.jobs.values())
        if request.query.get("sortby", "-created") == "-created":
            jobs.reverse()
        if wanted := asked.get("status"):
            jobs = [job for job in jobs if self._status_of(job) in wanted]
        size = max(1, int(request.query.get("limit", _JOBS_PER_PAGE)))
        start = max(0, int(request.query.get("cursor", 0)))
        links = [
            {
                "rel": rel,
                "type": "application/json",
                "href": f"{request.base_url}{_JOBS}?{urlencode({**asked, 'cursor': place}, doseq=True)}",
            }
            for rel, place in (("next", start + size), ("prev", start - size))
            if (place < len(jobs) if rel == "next" else start > 0)
        ]
        page = [
            self._job_document(request, job, self._status_of(job), "monitor")
            for job in jobs[start : start + size]
        ]
        return json_response({"jobs": page, "links": links, "metadata": {"totalCount": len(jobs)}})

    def _find_job(self, name: str) -> SimulatedCdsJob:
        job = self.jobs.get(name)
        if job is None:
            raise CdsProblemError(404, "job not found", f"job {name} not found")
        return job

    def _delete(self, job: SimulatedCdsJob) -> dict[str, Any]:
        with self._lock:
            self.jobs.pop(job.id, None)
        return {"jobID": job.id, "processID": DATASET, "type": "process", "status": "dismissed"}

    def _status_of(self, job: SimulatedCdsJob) -> str:
        if job.poll_count > self.queue_polls or not self.queue_polls:
            return job.final_status
        return "accepted" if job.poll_count <= 1 else "running"

    def _submit(self, request: HttpRequest) -> HttpResponse:
        try:
            inputs = read_json(request)["inputs"]
            times, bounds = parse_hours(inputs), parse_area(inputs)
            variables, zipped = text_list(inputs, "variable"), asks_for_zip(inputs)
        except (KeyError, TypeError, ValueError) as error:
            raise CdsProblemError(400, "invalid request", str(error)) from None
        if not self.licence_accepted:
            raise CdsProblemError(
                403,
                "required licences not accepted",
                "Not all the required licences have been accepted; please visit "
                f"{request.base_url}/datasets/{DATASET}?tab=download#manage-licences to accept the required "
                "licence(s).",
            )
        if len(times) * len(variables) > self.cost_limit:
            raise CdsProblemError(
                403, "cost limits exceeded", "Your request is too large, please reduce your selection."
            )
        job = SimulatedCdsJob(
            str(uuid.uuid4()), inputs, final_status=self.job_end, failure_reason=self.job_reason
        )
        here = [time for time in times if time.date() <= self.latest_date]
        if not here and job.final_status == "successful":
            job.final_status = "failed"
            job.failure_reason = (
                "MultiAdaptorNoDataError: None of the data you have requested is available yet, please "
                f"revise the period requested. The latest date available is: {self.latest_date}"
            )
        if job.final_status == "successful":
            job.content = self._make_netcdf(here, bounds, variables, zipped=zipped or self.zipped)
        with self._lock:
            self.jobs[job.id] = job
        answer = json_response(self._job_document(request, job, "accepted", "monitor"), 201)
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
        return json_response(info)

    def _results(self, request: HttpRequest, job: SimulatedCdsJob) -> HttpResponse:
        if job.poll_count <= self.queue_polls:
            raise CdsProblemError(404, "job results not ready", "results are not ready")
        if job.final_status in ("failed", "rejected"):
            raise CdsProblemError(
                400, f"The job has {job.final_status}", "see the traceback", job.failure_reason
            )
        if job.final_status != "successful":
            raise CdsProblemError(404, "results expired", "results expired")
        name = f"{job.id}.{'zip' if job.content.startswith(b'PK') else 'nc'}"
        value = {
            "type": _CONTENT_TYPE,
            "href": f"{request.base_url}{_RESULTS}/{name}",
            "file:checksum": hashlib.md5(job.content, usedforsecurity=False).hexdigest(),
            "file:size": len(job.content),
            "file:local_path": f"s3://cci2-prod-cache/{name}",
        }
        return json_response({"asset": {"value": value}})

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
            "created": job.created.isoformat(),
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
        self,
        times: list[datetime],
        bounds: tuple[float, float, float, float],
        variables: list[str],
        *,
        zipped: bool,
    ) -> bytes:
        north, west, south, east = bounds
        latitudes = np.arange(np.floor(north / ERA5_STEP), np.ceil(south / ERA5_STEP) - 1, -1) * ERA5_STEP
        longitudes = np.arange(np.ceil(west / ERA5_STEP), np.floor(east / ERA5_STEP) + 1) * ERA5_STEP
        values = np.stack([self.fields(time, latitudes, longitudes) for time in times])
        if self.grib_packing:
            values = round_as_grib(values)
        versions = [
            self.stated_version
            or (EXPVER_PRELIMINARY if time.date() > self.latest_final_date else EXPVER_FINAL)
            for time in times
        ]
        kept = {
            self.short_names[k]: k
            for k, name in enumerate(ERA5_VARIABLE_NAMES)
            if name in variables and name not in self.missing_variables
        }
        content = write_cds_netcdf(
            times, latitudes, longitudes, values, versions, kept, units=dict(self.units)
        )
        if not zipped:
            return content
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("data_stream-oper_stepType-instant.nc", content)
        return stream.getvalue()
