"""Revalidation of cached copies: compare them with the archive's response and with their first use."""

from __future__ import annotations

from datetime import datetime

from hephaestus_build.core.provenance import Outcome, PriorUse, Receipt
from hephaestus_build.core.web_address import url_origin
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.download.validators import Validators

#: Begins the description of a product that the archive no longer has.
GONE_UPSTREAM = "gone upstream"


def describes_other_file(answer: SmallResponse, held: Receipt) -> bool:
    """Return whether a "not modified" response describes another file than the cached copy `held`."""
    if answer.size and held.size is not None and answer.size != held.size:
        return True
    return answer.url == held.url and _validators(held).differs_from(_validators(answer))


def describes_same_file(answer: SmallResponse, held: Receipt) -> bool:
    """Return whether a response to a conditional request describes the cached copy `held`.

    Several servers behind one address give one file different ETags, and answer each other's with the
    content. The same length and the same date show that it is the file that the cache has.
    """
    if not (answer.last_modified and held.last_modified) or answer.size is None or answer.size != held.size:
        return False
    return not _validators(held).date_differs_from(_validators(answer))


def describe_difference(receipt: Receipt, page: SmallResponse) -> str:
    """Return how a product differs from the fetched one, in words; empty if it does not.

    Length and date decide. ETags differ between the servers behind one address, so they count only where
    neither is known, and only on the address of the download.
    """
    if page.outcome is Outcome.ABSENT:
        return f"{GONE_UPSTREAM} (it was at {receipt.url})"
    if differs_by_tag_alone(receipt, page):
        return f"changed upstream: etag {receipt.etag} -> {page.etag}"
    changed = []
    if page.size is not None and receipt.size is not None and page.size != receipt.size:
        changed.append(f"size {receipt.size} -> {page.size}")
    if _validators(receipt).date_differs_from(_validators(page)):
        changed.append(f"last modified {receipt.last_modified} -> {page.last_modified}")
    return f"changed upstream: {', '.join(changed)}" if changed else ""


def differs_by_tag_alone(receipt: Receipt, page: SmallResponse) -> bool:
    """Return whether only the ETag of a product can be compared with the fetched one, and differs."""
    lengths = page.size is not None and receipt.size is not None
    dates = page.last_modified and receipt.last_modified
    if lengths or dates or page.url != receipt.url:
        return False
    return _validators(receipt).tag_differs_from(_validators(page))


def _validators(described: Receipt | SmallResponse) -> Validators:
    return Validators(described.etag, described.last_modified)


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
