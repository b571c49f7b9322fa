"""The measurement of many frames: rounds of ``watch``, ``status`` and ``plan``, and builds by workers."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.download.request_pace import RATE_WINDOW, spacing_of
from hephaestus_build.performance.cluster_workers import ClusterWorkers
from hephaestus_build.performance.many_frames import ManyFrames, copy_cube, spread_looks
from hephaestus_build.performance.part_workers import PartWorkers
from hephaestus_build.performance.process_timer import Measurement, measure_task
from hephaestus_build.performance.result_files import result_header
from hephaestus_build.performance.scale_tasks import stored_hashes
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.http_server import RequestLogEntry

_TASKS_MODULE = "hephaestus_build.performance.scale_tasks"
#: Acquisitions of a frame with 500 pairs, and with 12.
MANY_EPOCHS, FEW_EPOCHS = 162, 6
#: Time from one round of ``watch`` to the next, by default.
_EVERY = timedelta(hours=12)


@dataclass(frozen=True)
class ScaleBenchmark:
    """What to measure, and where.

    Attributes
    ----------
    folder : pathlib.Path
        Of what is made, thrown away in the end.
    frames : int
        How many.
    epochs : int
        Acquisitions of each frame whose listing is long; three times as many pairs.
    active : float
        Share of the frames with something new in the last six days, in the usual round.
    rate : float
        Requests a second that ``watch`` may make.
    kill_every : float
        Seconds after which one of several workers is killed, again and again; None kills none.
    frames_per_part : int
        Frames in each part that a worker takes.
    workers : int
        Workers that build by parts, and on a cluster.
    report : callable
        Told what is being done.
    run_task : callable
        Runs a task as :func:`~hephaestus_build.performance.process_timer.measure_task` does.
    """

    folder: Path
    frames: int = 2000
    epochs: int = MANY_EPOCHS
    active: float = 0.25
    rate: float = Settings.model_fields["requests_per_second"].default
    kill_every: float | None = 20.0
    frames_per_part: int = 20
    workers: int = 4
    report: Callable[[str], None] = lambda _: None
    run_task: Callable[..., Measurement] = measure_task

    def run(self) -> dict[str, Any]:
        """Measure everything and return the result as JSON values."""
        scratch = self.folder / "scale"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            built = self._measure_builds(scratch / "built")
            kept = self._measure_kept(scratch / "kept")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return {**result_header("scale"), "frames": self.frames, **kept, **built}

    # long listings: watch, status, plan

    def _measure_kept(self, folder: Path) -> dict[str, Any]:
        """Measure what is asked of cubes of 500 pairs that are up to date."""
        world = ManyFrames(self.frames, self.epochs, same_days=True)
        first, *others = world.ids
        with ArchiveServer(world.open_archive()) as server:
            environment = {
                **server.environment(),
                "HEPHAESTUS_ERA5": "arco",
                "HEPHAESTUS_DATA_DIR": str(folder),
            }
            pairs = len(server.archive.pairs(first))
            self.report(f"building a cube of {pairs} tiny pairs, and writing its records {len(others)} times")
            self.run_task(f"{_TASKS_MODULE}:build_all", environment, frames=[first], data=str(folder))
            cubes = load_settings(data_dir=folder).for_simulated().cubes_dir
            copy_cube(server.archive, cubes, first, others)
            names = folder / "frames.txt"
            names.write_text("\n".join(world.ids) + "\n")
            paced = {**environment, "HEPHAESTUS_REQUESTS_PER_SECOND": str(self.rate)}
            words = ["watch", "--once", "--json", "--frames-file", str(names)]
            self.report(f"a round of watch that asks all {self.frames} frames")
            every = self._run_round(server, paced, words)
            spread_looks(cubes, world.ids, self.active, Settings.model_fields["quiet_share"].default, _EVERY)
            usual_share = str(Settings.model_fields["quiet_share"].default)
            self.report("a usual round")
            usual = self._run_round(server, {**paced, "HEPHAESTUS_QUIET_SHARE": usual_share}, words)
            self._run_command(environment, ["frames", "--update", "--simulated", "--json"])
        self.report("status and plan, without an archive")
        offline = {"HEPHAESTUS_DATA_DIR": str(folder), **environment}
        return {
            "pairs_per_frame": pairs,
            "rate": self.rate,
            "round": every,
            "usual_round": usual | {"active": self.active},
            "status": self._run_command(offline, ["status", "--simulated", "--json"]),
            "plan": self._run_command(offline, ["plan", "--all", "--simulated", "--json"]),
        }

    def _run_round(
        self, server: ArchiveServer, environment: Mapping[str, str], words: Sequence[str]
    ) -> dict[str, Any]:
        server.clear_log()
        taken = self._run_command(environment, words)
        asked = [entry for entry in server.log if entry.path.startswith("/LiCSAR_products")]
        return taken | count_requests(asked) | {"paced_seconds": len(asked) * spacing_of(self.rate)}

    def _run_command(self, environment: Mapping[str, str], words: Sequence[str]) -> dict[str, Any]:
        """Run a command in a process of its own; its time includes the start of the process."""
        began = time.perf_counter()
        taken = self.run_task(f"{_TASKS_MODULE}:run_command", environment, words=list(words))
        return {"seconds": time.perf_counter() - began, "cpu": taken.cpu, "peak": taken.peak, **taken.facts}

    # builds of few pairs, by one process and by several

    def _measure_builds(self, folder: Path) -> dict[str, Any]:
        """Build the cubes of all frames in one process, and again by parts and on a cluster, with kills."""
        world = ManyFrames(self.frames, FEW_EPOCHS, annotated=min(38, self.frames))
        with ArchiveServer(world.open_archive()) as server:
            environment = {**server.environment(), "HEPHAESTUS_ERA5": "arco"}
            self.report(f"making the files of {self.frames} frames")
            server.archive.make_all_files()
            pairs = sum(len(server.archive.pairs(name)) for name in world.ids)
            folder.mkdir(parents=True, exist_ok=True)
            names = folder / "frames.txt"
            names.write_text("\n".join(world.ids) + "\n")

            self.report(f"building {pairs} pairs of {self.frames} frames in one process")
            alone = folder / "alone"
            one = self.run_task(f"{_TASKS_MODULE}:build_all", environment, frames=world.ids, data=str(alone))
            expected = _read_hashes(alone, world.ids)
            server.clear_log()

            kills = f"one killed every {self.kill_every} s"
            self.report(f"building them by parts in {self.workers} processes, {kills}")
            shared, together = folder / "shared", folder / "together"
            program = [sys.executable, "-m", "hephaestus_build"]
            words = ["build", "--frames-file", str(names), "--no-quicklook"]
            parts = PartWorkers(
                [*program, *words, "--at-a-time", "1", "--data-dir", str(shared)],
                parts=max(1, -(-self.frames // self.frames_per_part)),
                workers=self.workers,
                environment=environment,
                log=folder / "workers.txt",
                kill_every=self.kill_every,
            )
            by_parts = parts.run()

            self.report(f"building them on a cluster of {self.workers} workers, {kills}")
            cluster = ClusterWorkers(
                [*program, *words, "--data-dir", str(together)],
                workers=self.workers,
                environment=environment,
                folder=folder / "dask",
                kill_every=self.kill_every,
            )
            on_cluster = cluster.run()
            equal, equal_on_cluster = (
                sum(found == expected[name] for name, found in _read_hashes(data, world.ids).items())
                for data in (shared, together)
            )
            again = self.run_task(
                f"{_TASKS_MODULE}:build_all", environment, frames=world.ids, data=str(shared)
            )
        return {
            "built_pairs": pairs,
            "one_worker": {"seconds": one.seconds, "cpu": one.cpu, "peak": one.peak, **one.facts},
            "workers": self.workers,
            "by_parts": {"seconds": by_parts, "kills": parts.kills, "parts": parts.parts},
            "ratio_of_parts_to_one": by_parts / one.seconds,
            "equal_frames": equal,
            "on_cluster": {
                "seconds": on_cluster,
                "kills": cluster.kills,
                "scheduler_cpu": cluster.scheduler_cpu,
                "command_cpu": cluster.command_cpu,
            },
            "ratio_of_cluster_to_one": on_cluster / one.seconds,
            "equal_frames_on_cluster": equal_on_cluster,
            "objects": sum(map(len, expected.values())),
            "nothing_new": {"seconds": again.seconds, "cpu": again.cpu},
        }


def _read_hashes(data: Path, frames: Sequence[str]) -> dict[str, dict[str, Any]]:
    cubes = load_settings(data_dir=data).for_frame(Frame(frames[0])).cubes_dir
    return {name: stored_hashes(cubes, name) for name in frames}


def count_requests(log: Sequence[RequestLogEntry]) -> dict[str, Any]:
    """Return what the archive's log says of a round.

    Returns
    -------
    dict
        ``requests``; ``listings``: how many frames were asked for their listing; ``asked_again``: how many of
        them more than once; ``requests_in_window``: the most that began in any :data:`RATE_WINDOW` seconds.
    """
    listings = Counter(entry.path for entry in log if entry.path.endswith("/interferograms/"))
    times = sorted(entry.started for entry in log)
    most = begin = 0
    for end, moment in enumerate(times):
        while moment - times[begin] > RATE_WINDOW:
            begin += 1
        most = max(most, end - begin + 1)
    return {
        "requests": len(log),
        "listings": len(listings),
        "asked_again": sum(count > 1 for count in listings.values()),
        "requests_in_window": most,
    }
