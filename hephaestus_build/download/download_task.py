"""One download: what is wanted, the copy in the cache, and which responses are accepted for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import requests

from hephaestus_build.core.provenance import Digest, Outcome, PriorUse, Receipt
from hephaestus_build.download.cache import is_of
from hephaestus_build.download.cache_files import VanishedError
from hephaestus_build.download.content_coding import content_codings
from hephaestus_build.download.partial import PartialDownload
from hephaestus_build.download.request_errors import RequestFailed
from hephaestus_build.download.revalidation import describes_other_file, describes_same_file
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.download.validators import Validators, parse_content_length, parse_content_range

T = TypeVar("T")
#: Callback that receives the number of newly arrived bytes.
ByteProgress = Callable[[int], None]
#: First bytes of a body by which it is judged.
SIGNATURE_BYTES = 512
# comments match up to their first end marker only: backtracking over a few dozen could take hours
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(<!--((?!-->).)*-->\s*)*<(!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass
class DownloadTask(Generic[T]):
    """State of one download: the requested product and the copy in the cache."""

    target: Path
    product: str
    read: Callable[[Path], T]
    has_signature: Callable[[bytes], bool] | None
    max_bytes: int
    progress: ByteProgress | None
    revalidate_by_date: bool
    accepted_hashes: Collection[Digest]
    prior_use: PriorUse
    known_copy: Receipt | None = None
    content: T | None = None
    conditional: bool = False  #: whether to send a conditional request
    warned: bool = False
    deadline: float = 0.0  #: of all attempts together, set at the first byte

    def as_recorded(self, receipt: Receipt, path: Path) -> Receipt:
        """Return `receipt` with the digest recorded at the product's first use, if the content is the same.

        A cube thus keeps the digests of earlier versions, and receipts of one product are comparable.
        """
        first, digest = self.prior_use.receipt, receipt.digest
        if first and first.digest and digest and is_of(first, path, digest):
            return receipt.with_digest(first.digest)
        return receipt

    def confirms(self, answer: SmallResponse) -> bool:
        """Return whether a response says that the copy in the cache is what the archive has."""
        copy = self.known_copy
        if copy is None:
            return False
        if answer.status == 304:
            return not describes_other_file(answer, copy)
        # not where the file is known to have been replaced: then its content decides
        return (
            self.conditional
            and self.revalidate_by_date
            and answer.status == 200
            and describes_same_file(answer, copy)
        )

    def content_at(self, path: Path) -> T:
        """Read the product at `path`; raise VanishedError if it was removed after the check."""
        try:
            return self.read(path)
        except FileNotFoundError as error:
            raise VanishedError(str(error)) from error


def prepare_part(
    response: requests.Response, part: PartialDownload, offset: int, job: DownloadTask[T]
) -> int | None:
    """Prepare `part` for the body of a response: resume if the response continues it, else restart.

    Parameters
    ----------
    response : requests.Response
        The response, whose body has not been read.
    part : PartialDownload
        What was received before, locked.
    offset : int
        Byte from which the rest was requested; 0 if all was.
    job : DownloadTask
        The download.

    Returns
    -------
    int or None
        Size of the body, bytes; None if it is not stated.
    """
    headers = response.headers
    span = parse_content_range(headers) if response.status_code == 206 else None
    if offset and response.status_code == 206:
        known = part.origin.length if part.origin else None
        if (
            span is None
            or span.start != offset
            or (known and span.total not in (None, known))
            or (part.origin and part.origin.validators.differs_from(Validators.from_headers(headers)))
            or content_codings(headers)
        ):
            part.restart()
            raise RequestFailed(
                Outcome.CORRUPT,
                "cut: the archive sent another part than requested",
                retry_policy="passing",
            )
        total = known or span.total
        return total - offset if total else None
    part.restart()
    if response.status_code == 416:
        raise RequestFailed(
            Outcome.CORRUPT,
            "cut: the file on the archive is shorter than announced",
            retry_policy="passing",
        )
    length = parse_content_length(headers)
    if length is not None and length > job.max_bytes:
        raise RequestFailed(Outcome.CORRUPT, f"{length} bytes are too many for this product")
    if not content_codings(headers):  # a part of compressed bytes could not be continued
        part.record_origin(Validators.from_headers(headers), length)
    return length


def check_signature(first: bytes, part: PartialDownload, job: DownloadTask[T]) -> None:
    """Raise RequestFailed and drop the part if its `first` bytes cannot be those of the product."""
    if not first:
        reason = "zero bytes received"
    elif _HTML_START.match(first):
        reason = "a web page came in its place"
    elif job.has_signature and not job.has_signature(first[:SIGNATURE_BYTES]):
        reason = "the first bytes are not those of this file type"
    else:
        return
    part.restart()
    raise RequestFailed(Outcome.CORRUPT, reason, retry_policy="content")
