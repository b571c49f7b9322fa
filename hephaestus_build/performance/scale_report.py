"""What the measurement of many frames comes to, as pure functions: targets, and a page to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hephaestus_build.download.request_pace import RATE_WINDOW, spacing_of
from hephaestus_build.pipeline.plan import (
    DOWNLOAD_BYTES_PER_PIXEL,
    REQUESTS_PER_FRAME,
    REQUESTS_PER_PAIR,
    TYPICAL_PIXELS,
)

_DAY, _MACHINES, _MACHINE_BYTES_PER_SECOND = 86_400, 20, 10e6
_PAIRS_PER_FULL_FRAME, _FULL_FRAMES = 500, 2000


def evaluate_scale_targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was aimed at, what was reached, and whether that is enough."""
    every, usual, memory = result["round"], result["usual_round"], result["one_worker"]["memory"]
    found = [
        ("status, seconds", 10, result["status"]["seconds"]),
        ("status, peak memory, MB", 1000, result["status"]["peak"] / 1e6),
        ("plan --all, seconds", 10, result["plan"]["seconds"]),
        ("plan --all, peak memory, MB", 1000, result["plan"]["peak"] / 1e6),
        ("frames asked more than once for their listing in a round of watch", 0, every["asked_again"]),
        (
            "seconds of a round that asks all frames over requests divided by the rate",
            1.1,
            every["seconds"] / (every["requests"] / result["rate"]),
        ),
        (
            f"most requests in {RATE_WINDOW:g} s over the set rate",
            1,
            max(item["requests_in_window"] for item in (every, usual)) / (RATE_WINDOW * result["rate"]),
        ),
        ("seconds of a usual round of watch", 180, usual["seconds"]),
        (
            "frames whose cube differs between one worker and parts whose workers are killed",
            0,
            result["frames"] - result["equal_frames"],
        ),
        (
            "frames whose cube differs between one worker and a cluster whose workers are killed",
            0,
            result["frames"] - result["equal_frames_on_cluster"],
        ),
        ("memory after all frames over that after a tenth of them", 1.25, memory[-1][1] / memory[0][1]),
    ]
    return [
        {"what": what, "target": target, "reached": reached, "met": reached <= target}
        for what, target, reached in found
    ]


def full_scale_days(rate: float) -> dict[str, float]:
    """Return what 2,000 full frames of 500 pairs take on 20 machines, by arithmetic.

    Parameters
    ----------
    rate : float
        Requests a second to the archive, of all machines together.

    Returns
    -------
    dict
        ``requests``, ``bytes``; ``days_of_requests`` at the rate; ``days_of_transfer`` at 10 MB/s a machine,
        and ``days_of_transfer_in_all`` at 10 MB/s of all together.
    """
    pairs = _FULL_FRAMES * _PAIRS_PER_FULL_FRAME
    requests = pairs * REQUESTS_PER_PAIR + _FULL_FRAMES * REQUESTS_PER_FRAME
    size = pairs * TYPICAL_PIXELS * DOWNLOAD_BYTES_PER_PIXEL
    return {
        "requests": requests,
        "bytes": size,
        "days_of_requests": requests * spacing_of(rate) / _DAY,
        "days_of_transfer": size / (_MACHINES * _MACHINE_BYTES_PER_SECOND) / _DAY,
        "days_of_transfer_in_all": size / _MACHINE_BYTES_PER_SECOND / _DAY,
    }


def render_scale_report(result: Mapping[str, Any]) -> str:
    """Return a result as a page."""
    machine, every, usual = result["machine"], result["round"], result["usual_round"]
    one, frames, workers = result["one_worker"], result["frames"], result["workers"]
    parts, cluster = result["by_parts"], result["on_cluster"]
    scheduler, command = (cluster[name] / frames for name in ("scheduler_cpu", "command_cpu"))
    full = full_scale_days(result["rate"])
    met = {True: "yes", False: "no"}
    reached = [
        f"| {item['what']} | {item['target']:g} | {item['reached']:.3g} | {met[item['met']]} |"
        for item in evaluate_scale_targets(result)
    ]
    lines = [
        "# Many frames, measured",
        "",
        (
            f"**Simulated data.** {frames} frames. {machine['cores']} cores, {machine['system']}, "
            f"Python {machine['python']}. {result['date']}."
        ),
        "",
        "| target | at most | reached | met |",
        "|---|---|---|---|",
        *reached,
        "",
        (
            f"`status` counts {result['status']['pairs']} pairs, `plan --all` {result['plan']['pairs']}. The "
            f"round of `watch` made {every['requests']} requests; the usual one left out "
            f"{frames - usual['listings']} frames ({usual['active']:.0%} of all have had something new in "
            "the last six days)."
        ),
        "",
        "| | processor seconds a frame |",
        "|---|---|",
        f"| a look at a frame of {result['pairs_per_frame']} pairs | {every['cpu'] / frames:.3f} |",
        f"| a build that finds nothing new (12 pairs) | {result['nothing_new']['cpu'] / frames:.3f} |",
        f"| a build of 12 tiny pairs | {one['cpu'] / frames:.3f} |",
        f"| the scheduler of a cluster, leases of requests included | {scheduler:.3f} |",
        f"| the command that builds on a cluster, its start included | {command:.3f} |",
        "",
        (
            f"{result['built_pairs']} pairs: {workers} workers that build {parts['parts']} parts, of which "
            f"one was killed {parts['kills']} times, take {result['ratio_of_parts_to_one']:.2f} times the "
            f"time of one process on {machine['cores']} cores, which the simulated archive shares; "
            f"{workers} workers of a Dask cluster with {cluster['kills']} kills "
            f"{result['ratio_of_cluster_to_one']:.2f} times. {result['equal_frames']} and "
            f"{result['equal_frames_on_cluster']} of {frames} cubes are equal, object by object "
            f"({result['objects']} objects)."
        ),
        "",
        "| frames built in one process | its memory, MB |",
        "|---|---|",
        *(f"| {number} | {size / 1e6:.0f} |" for number, size in one["memory"]),
        "",
        (
            f"On paper, {_FULL_FRAMES} frames of {_PAIRS_PER_FULL_FRAME} pairs on {_MACHINES} machines: "
            f"{full['requests'] / 1e6:.1f} million requests at {result['rate']:g} a second take "
            f"{full['days_of_requests']:.1f} days; {full['bytes'] / 1e12:.1f} TB at 10 MB/s a machine take "
            f"{full['days_of_transfer']:.1f} days, and {full['days_of_transfer_in_all']:.1f} at 10 MB/s in "
            "all."
        ),
    ]
    return "\n".join(lines) + "\n"
