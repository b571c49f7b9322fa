"""``hephaestus plan``."""

from __future__ import annotations

from hephaestus_build.cli.console import load_command_settings, print_fields, print_json, print_notice
from hephaestus_build.cli.options import (
    JSON_OPTION,
    DataDirOption,
    Era5Option,
    FramesArgument,
    FramesFileOption,
    LimitOption,
    PairsOption,
    SimulatedOption,
    SinceOption,
    UntilOption,
    VariablesOption,
    list_named_frames,
    make_build_request,
    require_frames_to_build,
)
from hephaestus_build.core.plain_text import count_of, format_duration
from hephaestus_build.pipeline.build import plan as plan_frame
from hephaestus_build.pipeline.plan import BuildPlan
from hephaestus_build.simulation.server.embedded import serve_for_frames


def plan(
    frames: FramesArgument = None,
    frames_file: FramesFileOption = None,
    pairs: PairsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    era5: Era5Option = None,
    variables: VariablesOption = None,
    data_dir: DataDirOption = None,
    simulated: SimulatedOption = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say what a build will fetch, skip, take and cost, from one listing.

    Simulated frames are asked of an archive that this command serves itself, unless a portal is set.
    """
    settings = load_command_settings(
        simulated, data_dir=data_dir, era5=era5, pairs=pairs, variables=variables
    )
    named = list_named_frames(frames, settings, listed=frames_file)
    chosen = require_frames_to_build(named, settings)
    with serve_for_frames(settings, chosen) as served:
        plans = [
            plan_frame(make_build_request(frame, settings, since, until, limit), served) for frame in chosen
        ]
    if as_json:
        print_json({"frames": [item.to_json() for item in plans]})
        return
    for item in plans:
        _print_plan(item)


def _print_plan(plan: BuildPlan) -> None:
    facts = plan.to_json()
    free = facts["free_bytes"]
    rows = {
        "pairs upstream": facts["listed"],
        f"wanted ({facts['selection']})": facts["wanted"],
        "in the cube already": facts["in_cube"],
        "to fetch": facts["to_fetch"],
        **{f"skipped, {reason}": count for reason, count in facts["skipped"].items()},
        "annotated, absent upstream": len(facts["absent"]),
        "ERA5": f"{count_of(facts['era5_dates'], 'date')} in {count_of(facts['era5_requests'], 'request')}"
        + (f", owed: {facts['era5_problem']}" if facts["era5_problem"] else ""),
        **{f"optional, {name}": count for name, count in facts["optional_products"].items()},
        "pace": _describe_pace(plan),
        "download": f"{plan.download_bytes / 1e9:.2f} GB",
        "disk": f"{plan.disk_bytes / 1e9:.2f} GB"
        + (f" of {free / 1e9:.2f} GB free" if free is not None else ""),
        "sizes from": "the frame's grid" if facts["size_is_exact"] else "a typical frame's grid",
    }
    print_fields(facts["frame"], rows)
    for line in plan.file_system:
        print_notice(f"{facts['frame']}: {line}")


def _describe_pace(plan: BuildPlan) -> str:
    """Return how fast the portal may be asked, and what that means for the duration."""
    wanted = count_of(plan.portal_requests, "request")
    at_once = f"{plan.connections} at once"
    if plan.requests_per_second is None or plan.pace_seconds is None:
        return f"{wanted} to the portal, {at_once}; unlimited per second on this machine"
    least = format_duration(plan.pace_seconds)
    return f"{wanted} to the portal, {at_once}, {plan.requests_per_second:g} a second: {least} or more"
