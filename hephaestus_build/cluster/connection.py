"""Connections to a Dask cluster: one that runs elsewhere, or one for the time of a command."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.plain_text import sanitize_text

if TYPE_CHECKING:
    from distributed import Client

_LOCAL = re.compile(r"local:([1-9][0-9]{0,3})", re.ASCII)
_SCHEDULER = re.compile(
    r"(tcp|tls|ws|wss)://[^\s/:@]+(:[0-9]{1,5})?|(tcp|tls)://\[[0-9a-fA-F:%]+\]:[0-9]{1,5}"
)
# No pages in a browser: Dask would serve them to the whole network.
_NO_PAGES: dict[str, list[str]] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
#: Seconds that a scheduler may take to answer.
ANSWER_SECONDS = 30.0


def parse_local_workers(address: str) -> int | None:
    """Return the number of workers of ``local:N``; None for the address of a scheduler.

    Raises
    ------
    UsageError
        If `address` is neither.

    Examples
    --------
    >>> parse_local_workers("local:4"), parse_local_workers("tcp://10.0.0.7:8786")
    (4, None)
    """
    if match := _LOCAL.fullmatch(address):
        return int(match[1])
    if not _SCHEDULER.fullmatch(address):
        shown = sanitize_text(address.rpartition("@")[2], 100)  # without a login
        raise UsageError(
            f"--cluster {shown!r} is no cluster: give the address of a Dask scheduler, such as "
            f"tcp://10.0.0.7:8786, or local:4 for four workers on this machine"
        )
    return None


@contextmanager
def connect_to_cluster(address: str, frames: int) -> Iterator[Client]:
    """Connect to the scheduler at an address, or start the workers of ``local:N``, for the time of the block.

    Parameters
    ----------
    address : str
        Of either form.
    frames : int
        Number of frames that are built: no more local workers are started than there are.

    Raises
    ------
    UsageError
        If `address` is neither.
    HephaestusError
        If Dask is not installed, or no scheduler answers.
    """
    workers = parse_local_workers(address)
    check_extra("cluster", "--cluster")
    from distributed import Client, LocalCluster

    _silence_libraries()
    with ExitStack() as opened:
        if workers is None:
            try:
                client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
            except (OSError, ValueError, ImportError, TypeError) as error:
                why = sanitize_text(str(error).partition("\n")[0], 300)
                raise HephaestusError(
                    f"no Dask scheduler answers at {address} ({why}); `dask scheduler` starts one and prints "
                    f"its address"
                ) from error
        else:
            import dask

            opened.enter_context(dask.config.set(_NO_PAGES))
            # encrypted: who may connect to a scheduler may run code
            cluster = LocalCluster(
                n_workers=min(workers, frames),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                memory_limit=0,
                security=True,
                silence_logs=logging.CRITICAL,
            )
            opened.enter_context(cluster)
            client = Client(cluster, timeout=ANSWER_SECONDS, set_as_default=False)
        with client:
            yield client


def _silence_libraries() -> None:
    """Have Dask log nothing in this process: what it means for a build is said in one line."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
