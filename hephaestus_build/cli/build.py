"""``hephaestus build``."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from typing import Annotated

import typer

from hephaestus_build.cli.console import (
    load_command_settings,
    out,
    print_fields,
    print_json,
    print_notice,
    worst_exit_code,
)
from hephaestus_build.cli.messages import BuildSummary, print_owed_notices
from hephaestus_build.cli.options import (
    JSON_OPTION,
    AllFramesOption,
    AtATimeOption,
    ClusterOption,
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
from hephaestus_build.cluster.cluster_build import build_on_cluster
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.simulation.server.embedded import serve_for_frames


def build(
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
    at_a_time: AtATimeOption = 2,
    cluster: ClusterOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another build works on the frame.")
    ] = False,
    quicklook: Annotated[bool, typer.Option(help="Draw a picture of each cube.")] = True,
    as_json: bool = JSON_OPTION,
) -> None:
    """Build or extend the cubes of frames, and publish them.

    Simulated frames, or all with --simulated, come to <data>/simulated, from an archive that this command
    serves itself unless a portal is set.
    A frame that fails never stops the others. Every run is written down in <data>/runs.jsonl.

    Exits with 0 when all is there (or only absences that the setting `accept` names are missing), 1 when a
    frame failed, 2 when every request was wrong, 3 when all are published and something is owed. What is owed
    is fetched by the same command later.
    """
    runs: list[BuildRun] = []
    spoilt = False
    settings = load_command_settings(
        simulated, data_dir=data_dir, era5=era5, pairs=pairs, variables=variables
    )
    named = list_named_frames(frames, settings, every=every, published=published, listed=frames_file)
    chosen = require_frames_to_build(named, settings)
    requests = [make_build_request(frame, settings, since, until, limit) for frame in chosen]
    requests = select_requested_part(requests, part)
    chosen = [request.frame for request in requests]
    summary = BuildSummary()
    with serve_for_frames(settings, chosen) as served, show_progress() as listener, ExitStack() as started:
        if cluster is None:
            building = build_frames(requests, served, listener=listener, wait=wait, at_a_time=at_a_time)
        else:
            building = build_on_cluster(requests, served, cluster, listener=listener, wait=wait)
            started.enter_context(closing(building))  # stops the frames where this command is stopped
        for run in building:
            runs.append(run)
            summary.add(run)
            if run.result is None:
                print_notice(run.error, logging.ERROR)
                continue
            picture = ""
            if quicklook:
                picture, fault = _draw_quicklook(run.result, settings.for_frame(run.frame))
                spoilt |= bool(fault)
            if not as_json:
                _print_result(run.result, picture)
    if as_json:
        print_json({"frames": [run.to_json() for run in runs]})
    for run in runs:
        if run.result is not None:
            print_owed_notices(str(run.frame), run.result.owed)
            if run.error:
                print_notice(run.error, logging.WARNING)
    if len(chosen) > 1:
        summary.print()
    raise typer.Exit(worst_exit_code([*(run.exit_code for run in runs), *([1] if spoilt else [])]))


def _draw_quicklook(result: BuildResult, settings: Settings) -> tuple[str, str]:
    """Return where the picture of the newest pair is, and why there is none; neither ends the command."""
    from hephaestus_build.report.quicklook import write_quicklook

    try:
        done = write_quicklook(result.path, settings.data_dir / "quicklooks", keep=not result.published)
    except (HephaestusError, OSError, ValueError) as error:
        print_notice(
            f"{result.frame}: its picture could not be drawn ({error}); `hephaestus verify "
            f"{result.frame}` says whether the cube is whole"
        )
        return "", str(error)
    return f"{done.path} ({done.reason})", ""


def _print_result(result: BuildResult, picture: str) -> None:
    mark = ", simulated" if result.simulated else ""
    state = (
        f"generation {result.generation}"
        if result.published
        else f"nothing new, generation {result.generation}"
    )
    rows: dict[str, object] = {
        "cube": f"{result.path} ({state}{mark})",
        "interferograms": f"{result.pairs}"
        + (f", {len(result.absent)} absent upstream" if result.absent else ""),
        "brought to the grid": ", ".join(f"{count} {kind}" for kind, count in result.aligned.items()),
        "annotated": result.masks,
        **({"accepted as absent": count_of(len(result.accepted), "product")} if result.accepted else {}),
        **({"gone upstream": f"{count_of(len(result.gone), 'interferogram')}, kept"} if result.gone else {}),
        "ERA5": count_of(result.epochs, "date") + (f", from {result.era5}" if result.epochs else ""),
        "open it": f"hephaestus_build.open_cube({str(result.path)!r})",
    }
    if picture:
        rows["picture"] = picture
    print_fields(str(result.frame), rows)
    out.print()
