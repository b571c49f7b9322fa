"""Prefect's limits of concurrent tasks per archive: creating and renewing them, and what a run waits for.

Prefect counts the slots of a limit in its database, and keeps leases of those who hold them in its memory. A
server that is stopped while tasks run would start again with slots that nobody holds, and every later run
would wait for them, silently. So leases are kept on disk (:data:`LEASE_STORAGE`), the limits are renewed
where a server is started, and a run that waits writes to its log what it waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterId,
)
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from hephaestus_build.core.plain_text import count_of, sanitize_text

#: Largest number of concurrent tasks per archive, over all processes of one Prefect server, by tag.
CONCURRENCY_LIMITS = {"licsar": 2, "cds": 2}
#: All tags that tasks carry: of archives, with a limit or not.
ARCHIVE_TAGS = (*CONCURRENCY_LIMITS, "arco")
#: Module of Prefect that keeps leases in its home, so that they outlive the server.
LEASE_STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
_NO_HOLDER = "by none since a server was stopped"
#: Seconds that a task waits for a slot before the run's log says so, and until it is said again.
_NOTICE_AFTER, _NOTICE_EVERY = 10.0, 300.0
_JOIN_SECONDS = 5.0  # for a question to the server that is under way
_MAX_NAMED_HOLDERS, _MAX_READ_HOLDERS = 3, 100


def create_missing_limits() -> None:
    """Create missing concurrency limits; existing ones are kept."""
    with get_client(sync_client=True) as client:
        for tag, limit in CONCURRENCY_LIMITS.items():
            try:
                client.read_concurrency_limit_by_tag(tag)
            except ObjectNotFound:
                client.create_concurrency_limit(tag, limit)


def renew_limits() -> None:
    """Delete the archives' limits and create them as they were, with all slots free.

    For a server that has just been started: earlier tasks have ended with the server before it, or go on
    without a slot. A new limit has a new id, so that leases of the old one take nothing from it when they
    expire.
    """
    with get_client(sync_client=True) as client:
        for tag in ARCHIVE_TAGS:
            name = f"tag:{tag}"
            try:
                limit = client.read_global_concurrency_limit_by_name(name)
                client.delete_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                continue
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(
                    name=name,
                    limit=limit.limit,
                    active=limit.active,
                    slot_decay_per_second=limit.slot_decay_per_second,
                )
            )


def describe_wait(tag: str, flow_run_id: UUID | None = None) -> str:
    """Return what a task with `tag` waits for: who holds the slots, and what to do.

    Empty where a slot is free, where there is no limit, and where a task of the run `flow_run_id` holds one.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(f"tag:{tag}")
            if not limit.active or limit.active_slots < limit.limit:
                return ""
            holders = client.read_concurrency_limit_by_tag(tag).active_slots
        except ObjectNotFound:
            return ""
        tasks = _read_tasks(client, holders[:_MAX_READ_HOLDERS])
        if any(task.flow_run_id == flow_run_id for task in tasks if flow_run_id):
            return ""
        names = _name_tasks(client, tasks[:_MAX_NAMED_HOLDERS])
    taken = f"{limit.active_slots} of {limit.limit} slots of the limit {tag} are taken"
    if len(holders) < limit.active_slots:
        return (
            f"{taken}, {len(holders)} of them by tasks, the others {_NO_HOLDER}: "
            f"`prefect concurrency-limit delete {tag}` and `prefect concurrency-limit create {tag} "
            f"{limit.limit}` free them"
        )
    if len(holders) > len(names):
        names.append(f"{len(holders) - len(names)} more" if names else count_of(len(holders), "task"))
    return (
        f"{taken} ({', '.join(names)}): the run goes on when one is free, those of a killed process within "
        f"75 s; `prefect concurrency-limit create {tag} {limit.limit + 1}` allows one more"
    )


def _read_tasks(client: SyncPrefectClient, ids: Sequence[UUID]) -> list[TaskRun]:
    if not ids:
        return []
    return client.read_task_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=list(ids))))


def _name_tasks(client: SyncPrefectClient, tasks: Sequence[TaskRun]) -> list[str]:
    """Return the names of tasks, each after the name of its run."""
    ids = [task.flow_run_id for task in tasks if task.flow_run_id]
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids))) if ids else []
    names = {run.id: f"{run.name}: " for run in runs}
    return [
        sanitize_text(f"{names.get(task.flow_run_id, '') if task.flow_run_id else ''}{task.name}", 200)
        for task in tasks
    ]


@contextmanager
def report_waiting(tag: str) -> Iterator[None]:
    """Call a task with `tag` in this block: the log of the run says what it waits for, if it waits long."""
    ended = threading.Event()
    logger, own_id = get_run_logger(), flow_run.id

    def watch() -> None:
        patience, before = _NOTICE_AFTER, ""
        while not ended.wait(patience):
            with suppress(Exception):  # a server that does not answer is the task's own trouble
                said = describe_wait(tag, UUID(own_id) if own_id else None)
                # the server counts a slot before it records the task that takes it: read again
                is_doubtful, before = _NO_HOLDER in said and said != before, said
                patience = _NOTICE_EVERY if said and not is_doubtful else _NOTICE_AFTER
                if said and not is_doubtful and not ended.is_set():
                    logger.info("waiting: %s", said)

    thread = threading.Thread(target=copy_context().run, args=(watch,), name="report-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_JOIN_SECONDS)
