"""What is believed of a copy in the cache, given what upstream and an earlier use say: pure functions."""

from __future__ import annotations

from datetime import datetime

from hephaestus_build.core.provenance import PriorUse, Receipt
from hephaestus_build.core.web_address import url_origin
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.download.validators import Validators


def describes_other_file(answer: SmallResponse, held: Receipt) -> bool:
    """Whether an archive that says "not modified" describes another file than the one that is held."""
    if answer.size and held.size is not None and answer.size != held.size:
        return True
    here, there = Validators(held.etag, held.last_modified), Validators(answer.etag, answer.last_modified)
    return answer.url == held.url and here.differs_from(there)


def is_altered_copy(receipt: Receipt, first: Receipt) -> bool:
    """Whether a receipt claims the edition that was used first, of one address, for other bytes."""
    if receipt.url != first.url or None in (receipt.digest, first.digest) or receipt.digest == first.digest:
        return False
    if receipt.etag and first.etag:
        return receipt.etag == first.etag
    return receipt.last_modified is not None and receipt.last_modified == first.last_modified


def is_current_copy(held: Receipt, past: PriorUse) -> bool:
    """Whether a copy is none of those that upstream was found to differ from."""
    if not past.replaced_since or (past.receipt is not None and held.digest != past.receipt.digest):
        return True
    try:
        return datetime.fromisoformat(held.fetched or "").timestamp() > past.replaced_since
    except (ValueError, OverflowError):
        return False


def conditional_headers(held: Receipt, url: str, *, by_date: bool) -> dict[str, str]:
    """Return the headers that ask `url` for content only if it is not what `held` describes."""
    if held.etag:
        return {"If-None-Match": held.etag}
    # another host's clock and history say nothing about this one's
    if by_date and held.last_modified and url_origin(held.url) == url_origin(url):
        return {"If-Modified-Since": held.last_modified}
    return {}
