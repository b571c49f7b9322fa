"""``hephaestus plan``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext

import typer

from hephaestus_build.cli.console import (
    load_command_settings,
    out,
    print_fields,
    print_json,
    print_notice,
    print_table,
)
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
from hephaestus_build.cli.targets import raise_or_print_error
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of, format_bytes, format_duration
from hephaestus_build.core.progress import NullListener, show_progress
from hephaestus_build.download.request_pace import spacing_of
from hephaestus_build.operations.dataset_plan import DatasetPlan, FrameOutlook, plan_dataset
from hephaestus_build.pipeline.build import plan as plan_frame
from hephaestus_build.pipeline.plan import BuildPlan, PlanState
from hephaestus_build.simulation.server.embedded import serve_for_frames

_ASSUMED_BYTES_PER_SECOND = 10e6
_REFUSED = "refused"
#: How a frame can stand, and how a terminal shows its line.
_STYLES: Mapping[str, str] = {
    PlanState.NEW: "cyan",
    PlanState.EXTEND: "green",
    PlanState.OWED: "yellow",
    PlanState.CURRENT: "dim",
    _REFUSED: "bold red",
}


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
    Exits with 1 when an archive refuses one of several frames; the others are planned.
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
    plans: list[BuildPlan] = []
    refused: list[Frame] = []
    progress = show_progress() if len(requests) > 1 else nullcontext(NullListener())
    with serve_for_frames(settings, [request.frame for request in requests]) as served, progress as listener:
        listener.stage("listings", len(requests))
        for request in requests:
            try:
                plans.append(plan_frame(request, served))
            except HephaestusError as error:
                raise_or_print_error(error, alone=len(requests) == 1)
                refused.append(request.frame)
            listener.advance("listings")
    if as_json:
        print_json({"frames": [item.to_json() for item in plans], "outlook": None})
    elif len(requests) == 1:
        _print_plan(*plans)
    elif requests:
        _print_plans(plans, refused)
    if refused:
        raise typer.Exit(1)


def _print_plan(plan: BuildPlan) -> None:
    facts = plan.to_json()
    rows = {
        "pairs upstream": facts["listed"],
        f"wanted ({facts['selection']})": facts["wanted"],
        "in the cube already": facts["in_cube"],
        "to fetch": facts["to_fetch"],
        **{f"skipped, {reason}": count for reason, count in facts["skipped"].items()},
        "annotated, absent upstream": len(facts["absent"]),
        **({"owed by earlier builds": count_of(plan.owed_count, "product")} if plan.owed_count else {}),
        "ERA5": f"{count_of(facts['era5_dates'], 'date')} in {count_of(facts['era5_requests'], 'request')}, "
        f"{format_bytes(facts['era5_bytes'])}"
        + (f", owed: {facts['era5_problem']}" if facts["era5_problem"] else ""),
        **{f"optional, {name}": count for name, count in facts["optional_products"].items()},
        "pace": _describe_pace(plan.portal_requests, plan.connections, plan.requests_per_second),
        "download": format_bytes(plan.download_bytes),
        "disk": _describe_disk(plan.disk_bytes, facts["free_bytes"]),
        "sizes from": "the frame's grid" if facts["size_is_exact"] else "a typical frame's grid",
    }
    print_fields(f"{facts['frame']}: {plan.state}", rows, style=f"bold {_STYLES[plan.state]}")
    for line in plan.file_system:
        print_notice(f"{facts['frame']}: {line}")


def _print_plans(plans: Sequence[BuildPlan], refused: Sequence[Frame]) -> None:
    """Print a line a frame, by what there is to do, then what builds of all of them cost."""
    columns = ("frame", "state", "wanted", "to fetch", "ERA5", "download", "disk")
    ordered = sorted(plans, key=lambda plan: list(PlanState).index(plan.state))
    rows = [_plan_cells(plan) for plan in ordered]
    rows += [(str(frame), _REFUSED, *"-----") for frame in refused]
    styles = {number: _STYLES[state] for number, (_, state, *_) in enumerate(rows)}
    print_table(columns, rows, numbers=columns[2:], styles=styles)
    title = _count_states(state for _, state, *_ in rows)
    if not plans:
        out.print(title, style="bold")
        return
    first, disks = plans[0], [plan.manners.free_bytes for plan in plans if plan.manners]
    totals = {
        "pairs wanted": sum(len(plan.selection.wanted) for plan in plans),
        "to fetch": sum(len(plan.pairs_to_fetch) for plan in plans),
        "pace": _describe_pace(
            sum(plan.portal_requests for plan in plans), first.connections, first.requests_per_second
        ),
        "download": format_bytes(sum(plan.download_bytes for plan in plans)),
        "disk": _describe_disk(
            sum(plan.disk_bytes for plan in plans), min((free for free in disks if free), default=None)
        ),
    }
    print_fields(title, totals)
    for plan in ordered:
        if plan.era5_problem:
            print_notice(f"{plan.request.frame}: ERA5 will be owed: {plan.era5_problem}")
    for line in dict.fromkeys(line for plan in plans for line in plan.file_system):  # of one disk, as a rule
        print_notice(line)


def _count_states(states: Iterable[str]) -> str:
    counts = Counter(states)
    said = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state])
    return f"{count_of(counts.total(), 'frame')}: {said}"


def _plan_cells(plan: BuildPlan) -> tuple[str, ...]:
    return (
        str(plan.request.frame),
        plan.state,
        str(len(plan.selection.wanted)),
        str(len(plan.pairs_to_fetch)),
        count_of(len(plan.era5_dates), "date"),
        format_bytes(plan.download_bytes),
        format_bytes(plan.disk_bytes),
    )


def _print_outlook(plan: DatasetPlan) -> None:
    facts = plan.to_json()
    transfer = format_duration(plan.download_bytes / _ASSUMED_BYTES_PER_SECOND)
    by_state = {state: [item for item in plan.frames if item.state == state] for state in PlanState}
    found = {state: items for state, items in by_state.items() if items}
    columns = ("state", "frames", "wanted", "to fetch", "download", "disk")
    rows = [(state, *_outlook_cells(items)) for state, items in found.items()]
    styles = {number: _STYLES[state] for number, state in enumerate(found)}
    print_table(columns, rows, numbers=columns[1:], styles=styles)
    totals = {
        "pairs wanted": facts["wanted"],
        "counted": f"in the kept listings of {count_of(facts['listed_frames'], 'frame')}, else expected",
        "in cubes already": facts["in_cube"],
        "to fetch": facts["to_fetch"],
        "pace": _describe_pace(plan.portal_requests, plan.connections, plan.requests_per_second),
        "download": f"{format_bytes(plan.download_bytes)}, {transfer} at 10 MB/s; ERA5 comes beside it",
        "ERA5": _describe_era5(plan),
        "disk": _describe_disk(plan.disk_bytes, plan.free_bytes),
    }
    print_fields(_count_states(item.state for item in plan.frames), totals)
    if plan.free_bytes is not None and plan.disk_bytes > plan.free_bytes:
        print_notice("the disk is too small for all of it; HEPHAESTUS_DATA_DIR names another folder")


def _outlook_cells(items: Sequence[FrameOutlook]) -> tuple[str, ...]:
    return (
        str(len(items)),
        str(sum(item.wanted for item in items)),
        str(sum(item.to_fetch.pairs for item in items)),
        format_bytes(sum(item.to_fetch.download_bytes for item in items)),
        format_bytes(sum(item.to_fetch.disk_bytes for item in items)),
    )


def _describe_era5(plan: DatasetPlan) -> str:
    """Return what the atmosphere of all frames costs."""
    if plan.era5 is None:
        return "from ARCO-ERA5, whose globes all frames share: 12 MB an hour before compression"
    whose = "its own area a frame" if plan.era5.area == "frame" else "tiles that frames share"
    cost = plan.era5.cost
    return f"{count_of(cost.requests, 'request')} to the CDS, {format_bytes(cost.bytes)}: {whose} (era5_area)"


def _describe_pace(requests: int, connections: int, rate: float | None) -> str:
    """Return how fast the portal may be asked, and what that means for the duration."""
    wanted, at_once = count_of(requests, "request"), f"{connections} at once"
    if rate is None:
        return f"{wanted} to the portal, {at_once}; unlimited per second on this machine"
    least = format_duration(requests * spacing_of(rate))
    return f"{wanted} to the portal, {at_once}, {rate:g} a second: {least} or more"


def _describe_disk(needed: int, free: int | None) -> str:
    return format_bytes(needed) + (f" of {format_bytes(free)} free" if free is not None else "")
