"""One request to the CDS and its state, of which the id is stored so that a later build can resume it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import make_folder
from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.download.cache_files import VanishedError, translate_cache_errors
from hephaestus_build.download.client import HttpClient
from hephaestus_build.sources.era5.cds_errors import CdsError
from hephaestus_build.sources.era5.cds_netcdf import CdsFields
from hephaestus_build.sources.era5.fields import Era5Batch, group_into_batches
from hephaestus_build.sources.era5.requests import Era5Request


@dataclass(eq=False)
class CdsJob:
    """One request to the CDS and its state.

    Attributes
    ----------
    request : Era5Request
        The requested hours.
    wanted : tuple of Era5Batch
        Those of them that are needed.
    inputs : dict
        The request as submitted.
    request_file : Path
        Where its id is stored while it is pending.
    lock_name : tuple of str and int
        The area and the month of the request, which no other process may ask for meanwhile.
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
    lock : ExitStack
        Its lock, until its fields are cached.
    """

    request: Era5Request
    wanted: tuple[Era5Batch, ...]
    inputs: dict[str, Any]
    request_file: Path
    lock_name: tuple[str, int]
    remote: Any = None
    resumed: bool = False
    error: CdsError | None = None
    is_final: bool = False
    retries_left: int = 3
    place: ExitStack = field(default_factory=ExitStack)
    lock: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def plan(cls, folder: Path, area: Era5Area, request: Era5Request, needed: Sequence[Era5Batch]) -> CdsJob:
        """Return the job of a request for an area, of which `needed` are the hours that a frame needs.

        Parameters
        ----------
        folder : Path
            Of the files of all requests.
        area, request, needed
            As above.
        """
        inputs = request.inputs(area)
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
        times = request.times
        wanted = group_into_batches({time for batch in needed for time in batch.times}.intersection(times))
        path = folder / str(area) / f"{request.name}-{digest}.json"
        return cls(request, tuple(wanted), inputs, path, (str(area), 12 * request.year + request.month))

    @property
    def wanted_times(self) -> tuple[datetime, ...]:
        """The hours that are needed."""
        return tuple(time for batch in self.wanted for time in batch.times)

    @property
    def netcdf_path(self) -> Path:
        """Where its result is stored until the fields are cached."""
        return self.request_file.with_suffix(".nc")

    def leave_queue(self) -> None:
        """Free its place in the queue."""
        self.place.close()

    def release(self) -> None:
        """Free its place in the queue and its lock."""
        self.place.close()
        self.lock.close()

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


def hour_receipt(receipt: Receipt, answer: CdsFields, moment: datetime) -> Receipt:
    """Return the receipt of one hour of a result, which may lack that hour."""
    if moment in answer.values:
        return receipt
    if reason := answer.rejected_hours.get(moment):
        return receipt.replace(outcome=Outcome.CORRUPT, detail=f"at {moment} {reason}")
    detail = f"the file from the CDS lacks {moment}: not released yet, or lost; build again later"
    return receipt.replace(outcome=Outcome.ABSENT, detail=detail)
