"""``hephaestus plan``."""

from __future__ import annotations

from hephaestus_build.cli.console import load_command_settings, print_fields, print_json, print_notice
from hephaestus_build.cli.options import (
    JSON_OPTION,
    AllFramesOption,
    DataDirOption,
    Era5Option,
    FramesArgument,
    FramesFileOption,
    LimitOption,
    PairsOption,
    PartOfFramesOption,
    PublishedOption,
    SimulatedOption,
    SinceOption,
    UntilOption,
    VariablesOption,
    list_named_frames,
    make_build_request,
    require_frames_to_build,
    select_requested_part,
)
from hephaestus_build.core.plain_text import count_of, format_bytes, format_duration
from hephaestus_build.operations.dataset_plan import DatasetPlan, plan_dataset
from hephaestus_build.pipeline.build import plan as plan_frame
from hephaestus_build.pipeline.plan import BuildPlan
from hephaestus_build.simulation.server.embedded import serve_for_frames

_ASSUMED_BYTES_PER_SECOND = 10e6


def plan(
    frames: FramesArgument = None,
    every: AllFramesOption = False,
    published: PublishedOption = False,
    frames_file: FramesFileOption = None,
    part: PartOfFramesOption = None,
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

    With --all or --published it asks no archive, and says what all these frames cost together, from listings
    that were read before, cubes, the registry and ids.
    Simulated frames are asked of an archive that this command serves itself, unless a portal is set.
    """
    settings = load_command_settings(
        simulated, data_dir=data_dir, era5=era5, pairs=pairs, variables=variables
    )
    named = list_named_frames(frames, settings, every=every, published=published, listed=frames_file)
    chosen = require_frames_to_build(named, settings)
    requests = [make_build_request(frame, settings, since, until, limit) for frame in chosen]
    requests = select_requested_part(requests, part)
    if every or published:
        outlook = plan_dataset(requests, settings)
        if as_json:
            print_json({"frames": [], "outlook": outlook.to_json()})
        else:
            _print_outlook(outlook)
        return
    chosen = [request.frame for request in requests]
    with serve_for_frames(settings, chosen) as served:
        plans = [plan_frame(request, served) for request in requests]
    if as_json:
        print_json({"frames": [item.to_json() for item in plans], "outlook": None})
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


def _print_outlook(plan: DatasetPlan) -> None:
    facts = plan.to_json()
    free = f" of {format_bytes(plan.free_bytes)} free" if plan.free_bytes is not None else ""
    transfer = format_duration(plan.download_bytes / _ASSUMED_BYTES_PER_SECOND)
    rows = {
        "pairs wanted": facts["wanted"],
        "counted": f"in the kept listings of {count_of(facts['listed_frames'], 'frame')}, else expected",
        "in cubes already": facts["in_cube"],
        "to fetch": facts["to_fetch"],
        "pace": _describe_pace(plan),
        "download": f"{format_bytes(plan.download_bytes)}, {transfer} at 10 MB/s; ERA5 comes beside it",
        "disk": f"{format_bytes(plan.disk_bytes)}{free}",
    }
    print_fields(count_of(len(plan.frames), "frame"), rows)
    if plan.free_bytes is not None and plan.disk_bytes > plan.free_bytes:
        print_notice("the disk is too small for all of it; HEPHAESTUS_DATA_DIR names another folder")


def _describe_pace(plan: BuildPlan | DatasetPlan) -> str:
    """Return how fast the portal may be asked, and what that means for the duration."""
    wanted = count_of(plan.portal_requests, "request")
    at_once = f"{plan.connections} at once"
    if plan.requests_per_second is None or plan.pace_seconds is None:
        return f"{wanted} to the portal, {at_once}; unlimited per second on this machine"
    least = format_duration(plan.pace_seconds)
    return f"{wanted} to the portal, {at_once}, {plan.requests_per_second:g} a second: {least} or more"
