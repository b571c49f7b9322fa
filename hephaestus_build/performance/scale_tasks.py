"""What the measurement of many frames runs in processes of their own: commands, and builds of all frames."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.performance.process_timer import TaskTimer
from hephaestus_build.pipeline.plan import BuildRequest


def run_command(clock: TaskTimer, words: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints JSON, and return what it says of all frames together."""
    from hephaestus_build.cli import run_command_line

    sys.argv = ["hephaestus", *words]
    said = io.StringIO()
    code: object = 0
    with clock, redirect_stdout(said):
        try:
            run_command_line()
        except SystemExit as ended:
            code = ended.code or 0
    if code != 0:
        raise RuntimeError(f"{' '.join(sys.argv)} ended with {code}")
    return _count_pairs(words[0], said.getvalue())


def _count_pairs(command: str, said: str) -> dict[str, Any]:
    if command == "status":
        rows = json.loads(said)["frames"]
        return {"frames": len(rows), "pairs": sum(row["pairs"] for row in rows)}
    if command == "plan":
        outlook = json.loads(said)["outlook"]
        return {
            "frames": len(outlook["frames"]),
            "pairs": outlook["wanted"],
            "outlook": outlook | {"frames": []},
        }
    return {}


def build_all(clock: TaskTimer, frames: Sequence[str], data: str, samples: int = 10) -> dict[str, Any]:
    """Build frames one after the other in this process; return its memory as the number of frames grows."""
    settings = load_settings(data_dir=Path(data))
    each = max(1, len(frames) // samples)
    memory: list[tuple[int, int]] = []
    with clock:
        for number, run in enumerate(
            build_frames([BuildRequest(Frame(name)) for name in frames], settings), 1
        ):
            if run.exit_code:
                raise RuntimeError(f"{run.frame}: {run.error or 'it owes products'}")
            if number % each == 0:
                memory.append((number, _resident_bytes()))
    return {"memory": memory}


def _resident_bytes() -> int:
    """Return the resident memory of this process now; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def stored_hashes(cubes: Path, frame: str) -> dict[str, Any]:
    """Return hash and size of every object of a cube but its record, which says when it was built."""
    generation = FrameStore(cubes, Frame(frame)).published_generation()
    if generation is None:
        raise RuntimeError(f"{frame} has no cube in {cubes}")
    objects = generation.read_manifest()
    return {path: item for path, item in objects.items() if path != PROVENANCE}
