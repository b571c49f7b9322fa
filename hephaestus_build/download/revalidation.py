"""Revalidation of cached copies: compare them with the archive's response and with their first use."""

from __future__ import annotations

from datetime import datetime

from hephaestus_build.core.provenance import PriorUse, Receipt
from hephaestus_build.core.web_address import url_origin
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.download.validators import Validators


def describes_other_file(answer: SmallResponse, held: Receipt) -> bool:
    """Return whether a "not modified" response describes another file than the cached copy `held`."""
    if answer.size and held.size is not None and answer.size != held.size:
        return True
    here, there = Validators(held.etag, held.last_modified), Validators(answer.etag, answer.last_modified)
    return answer.url == held.url and here.differs_from(there)


def is_altered_copy(receipt: Receipt, first: Receipt) -> bool:
    """Return whether a copy has the address and validators of the first use but a different hash."""
    if receipt.url != first.url or None in (receipt.digest, first.digest) or receipt.digest == first.digest:
        return False
    if receipt.etag and first.etag:
        return receipt.etag == first.etag
    return receipt.last_modified is not None and receipt.last_modified == first.last_modified


def is_current_copy(held: Receipt, prior_use: PriorUse) -> bool:
    """Return whether a copy is not known to be outdated by a file that replaced it on the archive."""
    if not prior_use.replaced_since or (
        prior_use.receipt is not None and held.digest != prior_use.receipt.digest
    ):
        return True
    try:
        return datetime.fromisoformat(held.fetched or "").timestamp() > prior_use.replaced_since
    except (ValueError, OverflowError):
        return False


def conditional_headers(held: Receipt, url: str, *, by_date: bool) -> dict[str, str]:
    """Return headers for a conditional request, which is answered with content only if it changed."""
    if held.etag:
        return {"If-None-Match": held.etag}
    # dates of different hosts are not comparable
    if by_date and held.last_modified and url_origin(held.url) == url_origin(url):
        return {"If-Modified-Since": held.last_modified}
    return {}
