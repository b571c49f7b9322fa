"""Errors of the simulated CDS, in its form."""

from __future__ import annotations

import json
import uuid
from typing import Any

from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, json_response


class CdsProblemError(Exception):
    """Error with the status and JSON document that the CDS sends."""

    def __init__(self, status: int, title: str, detail: str, traceback: str = "") -> None:
        super().__init__(title)
        self.status, self.title, self.detail, self.traceback = status, title, detail, traceback

    def response(self, request: HttpRequest) -> HttpResponse:
        """Return the error as the answer to a request."""
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
        answer = json_response(body, self.status)
        if self.status == 429:
            answer.headers["Retry-After"] = "1"
        return answer


def not_found(request: HttpRequest) -> CdsProblemError:
    """Return the error of an unknown path."""
    return CdsProblemError(404, "not found", f"no such resource: {request.path}")


def read_json(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object in the body of a request; a 400 problem if it is none."""
    try:
        value = json.loads(request.body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CdsProblemError(400, "invalid request", "the body is not a JSON object")
    return value
