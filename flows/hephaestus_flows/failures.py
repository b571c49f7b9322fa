"""The failed state of a flow run, whose message is one line."""

from __future__ import annotations

import logging
from typing import Any

from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.states import Failed

from hephaestus_build.core.errors import HephaestusError

#: Errors that end a flow run with one line; others are mistakes of the program, which Prefect shows in full.
EXPECTED_FAILURES = (HephaestusError, OSError, ConcurrencySlotAcquisitionError)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Return whether a record of Prefect's engine shows a mistake of the program, not an expected failure."""
    error = record.exc_info[1] if record.exc_info else None
    expected = isinstance(error, EXPECTED_FAILURES)
    return not (expected and record.getMessage().endswith("exited with unexpected exception"))


# the engine logs the failed state's message, and then the error again with its traceback
for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_is_unexpected)


def failed_state(error: Exception) -> State[Any]:
    """Return the state of a flow run that `error` has ended.

    Parameters
    ----------
    error : Exception
        One of :data:`EXPECTED_FAILURES`.
    """
    if isinstance(error, ConcurrencySlotAcquisitionError):
        error = HephaestusError(
            f"no task may begin ({error}): `prefect concurrency-limit ls` lists the limits, and `prefect "
            f"concurrency-limit create licsar 2` sets one of 0 to two tasks at once"
        )
    elif not isinstance(error, HephaestusError):
        where = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or error
        error = HephaestusError(
            f"{type(error).__name__}: {reason}{f' ({where})' if where else ''}; `hephaestus status` says "
            f"what there is, and a new run goes on from there"
        )
    return Failed(message=str(error), data=error)
