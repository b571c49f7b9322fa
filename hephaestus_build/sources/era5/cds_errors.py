"""Errors of the CDS, classified by outcome and described for the user."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import requests

from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.download.credentials import CdsCredentials
from hephaestus_build.sources.era5.cds_session import OtherOriginError

#: Tries of one call to the CDS; cdsapi's own limit is 500, 120 s apart.
MAX_TRIES = 5
_MAX_DETAIL = 300  # characters of the CDS's own text in a message


class CdsError(Exception):
    """A CDS request failed.

    Parameters
    ----------
    outcome : Outcome
        Kind of failure, for the receipt.
    detail : str
        Cause and next step.
    everything : bool
        Whether every further request would fail in the same way.
    """

    def __init__(self, outcome: Outcome, detail: str, everything: bool) -> None:
        super().__init__(detail)
        self.outcome, self.detail, self.fatal = outcome, detail, everything


def classify_cds_error(error: Exception, credentials: CdsCredentials) -> CdsError:
    """Return the CdsError that describes an exception raised by cdsapi or its libraries."""
    response = error.response if isinstance(error, requests.HTTPError) else None
    if isinstance(error, OtherOriginError):
        detail = f"the CDS refers to {error}, a host that the key is not sent to; check CDSAPI_URL"
        return CdsError(Outcome.REFUSED, detail, everything=True)
    if response is None:
        if type(error).__name__ == "ProcessingFailedError":  # dismissed or deleted by its owner
            detail = f"the CDS dropped the request: {sanitize_text(error, _MAX_DETAIL)}; build again"
            return CdsError(Outcome.UNREACHABLE, detail, everything=False)
        if isinstance(error, requests.exceptions.InvalidJSONError) or not isinstance(error, OSError):
            # such as HTML with status 200, a job status without its links, or an unknown job status
            detail = f"the CDS returned an unexpected response ({type(error).__name__}); check CDSAPI_URL"
            return CdsError(Outcome.CORRUPT, detail, everything=False)
        detail = f"no answer from the CDS in {MAX_TRIES} tries ({type(error).__name__}); build again later"
        return CdsError(Outcome.UNREACHABLE, detail, everything=True)
    status = response.status_code
    body: dict[str, Any] = {}
    with suppress(ValueError):
        parsed = parse_json(response.content, limit=8 << 20)
        body = parsed if isinstance(parsed, dict) else {}
    title, detail = (
        sanitize_text(body.get("title", ""), 100),
        sanitize_text(body.get("detail", ""), _MAX_DETAIL),
    )
    last_line = str(body.get("traceback", "")).strip().rpartition("\n")[2]
    reason = sanitize_text(last_line, _MAX_DETAIL) or detail or title or sanitize_text(response.reason, 100)
    if status == 401:
        profile = redact_url(credentials.url).removesuffix("/api") + "/profile"
        return CdsError(
            Outcome.REFUSED,
            f"the CDS does not accept the key in {credentials.found_in}: copy the one on {profile}",
            everything=True,
        )
    if status == 403 and "licence" in f"{title} {detail}".lower():
        return CdsError(Outcome.REFUSED, detail or title, everything=True)
    if status in (403, 422) or (status == 400 and not title.startswith("The job")):
        smaller = "; set era5_fields to fewer fields a request" if "cost limit" in title else ""
        return CdsError(Outcome.REFUSED, f"the CDS refuses the request: {reason}{smaller}", everything=False)
    if status == 404:
        return CdsError(Outcome.ABSENT, f"the CDS does not have it: {reason}", everything=False)
    if status == 400 and re.search("available yet|no data|latest date available", reason, re.IGNORECASE):
        return CdsError(Outcome.ABSENT, f"not released yet: {reason}", everything=False)
    if status == 400:
        detail = f"{title.lower()} at the CDS: {reason}; build again later"
        return CdsError(Outcome.UNREACHABLE, detail, everything="rejected" in title)
    detail = f"the CDS returned HTTP {status} {reason}; build again later"
    return CdsError(Outcome.UNREACHABLE, detail, everything=True)
