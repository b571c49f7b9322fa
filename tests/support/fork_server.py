"""Fork server for builds that are killed at a named point or after some time.

It reads one order per line (JSON) from standard input, forks a build for it, waits for the build to end, and
writes one line with the outcome. A fork avoids the seconds that starting Python and its libraries takes.

An order has the keys ``data`` (data folder), ``frame``, ``out`` (file to which the child writes what it did),
optionally ``point`` and ``count`` (exit when the named point is reached for the count-th time) or ``after``
(seconds until the child is killed), ``settings`` and ``task`` (``build`` or ``repair``). The child inherits
the environment of the server.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cdsapi  # noqa: F401 (loaded by the first build otherwise, in every child)

from hephaestus_build.core import atomic_io
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.codecs import image_encoder
from hephaestus_build.cube.storage import generations, staging, writer
from hephaestus_build.download import partial as part
from hephaestus_build.operations import repair as repairing
from hephaestus_build.pipeline import build as building
from hephaestus_build.pipeline import publish as publishing
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.sources.era5 import month_cache

#: Points that every build with something to download reaches, roughly in this order.
POINTS = (
    "before a download",
    "mid-download",
    "before a receipt",
    "after a download",
    "ERA5 arrived",
    "ERA5 kept",
    "mid-encode",
    "half a shard",
    "between shards",
    "before the ledger's line",
    "half the ledger's line",
    "after the ledger's line",
    "mid-metadata",
    "before the provenance",
    "mid-links",
    "before the manifest",
    "after the manifest",
    "before the generation's number",
    "after the generation's number",
    "before the link",
    "before the link's rename",
    "after the link's rename",
    "before staging is emptied",
    "half of staging emptied",
    "after staging is emptied",
    "at the end",
)

Act = Callable[..., None]


class Traps:
    """Counter of the points reached, which ends the process at one of them."""

    def __init__(self, point: str | None, count: int) -> None:
        self.point, self.count = point, count
        self.passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def at(self, point: str, act: Act | None = None, *arguments: Any) -> None:
        """Count a point; at the chosen one, leave something half done and end the process."""
        with self._lock:
            self.passed[point] += 1
            if (point, self.passed[point]) != (self.point, self.count):
                return
            if act is not None:
                act(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(
        self,
        owner: Any,
        name: str,
        *,
        before: str = "",
        half: tuple[str, Act] | None = None,
        after: str = "",
        only: Callable[..., bool] = lambda *_: True,
    ) -> None:
        """Wrap a function with points before, within and after it."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            watched = only(*arguments)
            if watched and before:
                self.at(before)
            if watched and half:
                self.at(half[0], half[1], *arguments)
            result = original(*arguments, **options)
            if watched and after:
                self.at(after)
            return result

        setattr(owner, name, wrapped)


def _half_block(part: Any, block: bytes) -> None:
    part._stream.write(block[: len(block) // 2])
    part._stream.flush()


def _half_file(path: Path, content: bytes, **_: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.0123456789ab").write_bytes(content[: len(content) // 2])


def _half_line(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # as the real function does
    with path.open("ab") as stream:
        stream.write(line.encode()[: len(line) // 2])


def _half_folder(self: staging.Staging) -> None:
    found = sorted(path for path in self.folder.rglob("*") if path.is_file())
    for path in found[::2]:
        path.unlink()


def install(traps: Traps, added: Path) -> None:
    """Install all points, and log every finished granule."""
    traps.wrap(part.PartialDownload, "resume", before="before a download")
    traps.wrap(part.PartialDownload, "write", half=("mid-download", _half_block))
    receipts = {"only": lambda path, _: path.name.endswith(".receipt.json")}
    traps.wrap(part, "write_atomic", before="before a receipt", **receipts)
    traps.wrap(part.PartialDownload, "publish", after="after a download")
    traps.wrap(month_cache.MonthCache, "add", before="ERA5 arrived", after="ERA5 kept")
    traps.wrap(image_encoder.ChunkEncoder, "encode", before="mid-encode")
    traps.wrap(staging, "write_atomic", half=("half a shard", _half_file), after="between shards")
    ledger = {"only": lambda path, _: path.name == "ledger.jsonl"}
    traps.wrap(staging, "append_line", half=("half the ledger's line", _half_line), **ledger)
    traps.wrap(
        staging, "append_line", before="before the ledger's line", after="after the ledger's line", **ledger
    )
    traps.wrap(writer, "write_atomic", half=("mid-metadata", _half_file))
    for name, point in ((generations.PROVENANCE, "provenance"), (generations.MANIFEST, "manifest")):
        traps.wrap(
            writer,
            "write_atomic",
            before=f"before the {point}",
            after="after the manifest" if point == "manifest" else "",
            only=lambda path, *_, name=name: path.name == name,
        )
    traps.wrap(atomic_io, "_link_or_copy", before="mid-links")
    traps.wrap(
        Path,
        "rename",
        before="before the generation's number",
        after="after the generation's number",
        only=lambda path, _: path.name.startswith(".draft-"),
    )
    traps.wrap(generations.FrameStore, "_publish", before="before the link")
    traps.wrap(
        Path,
        "replace",
        before="before the link's rename",
        after="after the link's rename",
        only=lambda path, _: path.name.startswith(".") and ".zarr." in path.name,
    )
    traps.wrap(
        staging.StagingArea,
        "discard",
        before="before staging is emptied",
        half=("half of staging emptied", _half_folder),
        after="after staging is emptied",
    )
    traps.wrap(publishing, "make_build_result", after="at the end")
    add = staging.StagingArea.add

    def noted(self: Any, granule: Any, contents: Any) -> Any:
        stored = add(self, granule, contents)
        with added.open("a") as stream:
            stream.write(stored.key + "\n")
        return stored

    staging.StagingArea.add = noted  # type: ignore[method-assign]


def child(order: dict[str, Any]) -> None:
    """Carry out an order and end the process in any case."""
    out = Path(order["out"])
    traps = Traps(order.get("point"), order.get("count", 1))
    end: dict[str, Any] = {}
    try:
        settings = load_settings(data_dir=Path(order["data"]), **order.get("settings", {}))
        install(traps, out.with_suffix(".added"))
        frame = Frame(order["frame"])
        if order.get("task") == "repair":
            end["result"] = repairing.repair(frame, settings).to_json()
        else:
            end["result"] = building.build(BuildRequest(frame, pairs="all"), settings).to_json()
    except BaseException:
        end["error"] = traceback.format_exc()
    end["passed"] = dict(traps.passed)
    out.write_text(json.dumps(end, default=str))
    os._exit(1 if "error" in end else 0)


def wait(pid: int, after: float | None) -> int:
    """Wait for a child, kill it after `after` seconds, and return its status as `os.waitpid` does."""
    deadline = None if after is None else time.monotonic() + after
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.002)


def main() -> None:
    """Process orders until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        for suffix in (".json", ".added"):
            Path(order["out"]).with_suffix(suffix).unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            child(order)
        status = wait(pid, order.get("after"))
        end = {"killed": os.WIFSIGNALED(status), "code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(end), flush=True)


if __name__ == "__main__":
    main()
