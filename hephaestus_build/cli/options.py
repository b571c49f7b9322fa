"""Options and arguments that several commands share."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hephaestus_build.cli.console import print_notice
from hephaestus_build.cli.frames_file import read_frames_file
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named, list_published_frames
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.registry import OPTIONAL_VARIABLES, published_frames
from hephaestus_build.core.settings import Era5Choice, PairChoice, Settings

if TYPE_CHECKING:  # what builds need takes half a second to load, and most commands do without
    from hephaestus_build.pipeline.plan import BuildRequest

_PART_DIGITS = 18  # of the numbers of --part

DATE_FORMATS = ["%Y-%m-%d", "%Y%m%d"]


def complete_frame(incomplete: str) -> list[tuple[str, str]]:
    """Return published frames whose id begins with the typed text, and their volcanoes, for completion."""
    return [
        (name, ", ".join(known.volcanoes[:3]))
        for name, known in published_frames().items()
        if name.startswith(incomplete)
    ]


FramesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Frame ids, such as 124D_04854_171313 or 144A_SM_REUN_S6, or a volcano of one frame: Etna.",
        autocompletion=complete_frame,
    ),
]


PairsOption = Annotated[
    PairChoice | None,
    typer.Option(help="Which pairs: annotated, all, or auto (annotated where the frame has annotations)."),
]


SinceOption = Annotated[
    datetime | None, typer.Option(formats=DATE_FORMATS, help="Leave out pairs that begin before this day.")
]


UntilOption = Annotated[
    datetime | None, typer.Option(formats=DATE_FORMATS, help="Leave out pairs that end after this day.")
]


LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Take no more pairs than this, the earliest first.")
]


Era5Option = Annotated[
    Era5Choice | None,
    typer.Option(help="Source of ERA5: cds, arco, or auto (the CDS where a key is configured)."),
]


VariablesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[,NAME...]",
        help=f"Optional variables to add: {', '.join(OPTIONAL_VARIABLES)}. A cube keeps those that it has, "
        "and later builds extend them; none takes them all away.",
    ),
]


DataDirOption = Annotated[Path | None, typer.Option(help="Folder of cubes/, the cache and the results.")]


AtATimeOption = Annotated[
    int, typer.Option("--at-a-time", min=1, max=8, help="Frames at once; they share the connections.")
]


AllFramesOption = Annotated[
    bool,
    typer.Option(
        "--all",
        help="All frames that are known: the 38 of the published data set, and those that `hephaestus frames "
        "--update` has learnt; with --simulated, those of the simulated archive.",
    ),
]


PublishedOption = Annotated[
    bool, typer.Option("--published", help="The 38 frames of the published data set alone.")
]


FramesFileOption = Annotated[
    Path | None,
    typer.Option(
        "--frames-file",
        metavar="FILE",
        help="Frames that a file names, an id or a volcano a line; # begins a comment.",
    ),
]


ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Build on a Dask cluster, one frame a task: the address of its scheduler, such as "
        "tcp://10.0.0.7:8786, or local:4 for four workers on this machine. Limits hold for the cluster as a "
        "whole, --at-a-time does not.",
    ),
]


PartOfFramesOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="The I-th of N parts of these frames, of about the same cost, such as 3/20: for N machines or "
        "the tasks of an array. Each frame is in one part, the same on every machine.",
    ),
]


def make_build_request(
    frame: Frame, settings: Settings, since: datetime | None, until: datetime | None, limit: int | None
) -> BuildRequest:
    """Return the build request of a command's options."""
    from hephaestus_build.pipeline.plan import BuildRequest

    return BuildRequest(frame, settings.pairs, _to_date(since), _to_date(until), limit, settings.variables)


def _to_date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def list_named_frames(
    names: list[str] | None,
    settings: Settings,
    *,
    every: bool = False,
    published: bool = False,
    listed: Path | None = None,
) -> list[Frame] | None:
    """Return the frames that arguments or one of the options for many name; None without any.

    Raises
    ------
    UsageError
        If more than one of them is given, or one names no frame.
    """
    if (bool(names) + every + published + (listed is not None)) > 1:
        raise UsageError("give one of: frames, --all, --published, --frames-file")
    if names:
        return list(dict.fromkeys(map(frame_named, names)))
    if listed is not None:
        return read_frames_file(listed)
    if published:
        if settings.is_simulated:
            raise UsageError("--published takes the frames of the published data set; leave out --simulated")
        return list_published_frames()
    return list_known_frames(settings) if every else None


def list_known_frames(settings: Settings) -> list[Frame]:
    """Return all frames that are known without asking an archive, and say so where a list was kept."""
    from hephaestus_build.operations.frame_list import read_frame_list
    from hephaestus_build.simulation.server.embedded import embedded_frames

    kept = read_frame_list(settings)
    if settings.is_simulated:
        return list(kept.frames if kept else embedded_frames())
    published = list_published_frames()
    if kept is None:
        return published
    known = sorted({*published, *kept.frames})
    print_notice(
        f"--all: {count_of(len(known), 'frame')}, as listed on {kept.updated[:10]} (`hephaestus frames "
        f"--update`); --published takes the {len(published)} of the published data set alone"
    )
    return known


def require_frames_to_build(chosen: list[Frame] | None, settings: Settings) -> list[Frame]:
    """Return the frames that were named, else with ``--simulated`` those of the embedded archive.

    Raises
    ------
    UsageError
        If there are none.
    """
    if chosen is None and not settings.is_simulated:
        raise UsageError(
            "name a frame, such as 124D_04854_171313, or add --simulated for the embedded sample; "
            "`hephaestus frames` finds frames by volcano or place"
        )
    from hephaestus_build.simulation.server.embedded import embedded_frames

    return list(embedded_frames()) if chosen is None else chosen


#: Option of commands that take cubes; commands that need an archive serve it themselves.
SimulatedOption = Annotated[
    bool, typer.Option("--simulated", help="Take the simulated cubes, which stand apart in <data>/simulated.")
]


MixedOption = Annotated[
    bool, typer.Option("--mixed", help="Take real and simulated cubes together; else they are refused.")
]


JSON_OPTION = typer.Option(False, "--json", help="Print JSON instead of text.")


def parse_part(text: str) -> tuple[int, int]:
    """Parse ``i/n`` into (i, n).

    Raises
    ------
    UsageError
        If `text` has another form, or i is not between 1 and n.
    """
    number, slash, count = text.partition("/")
    are_numbers = bool(slash) and all(len(end) <= _PART_DIGITS and end.isdecimal() for end in (number, count))
    if not (are_numbers and 1 <= int(number) <= int(count)):
        shown = sanitize_text(text, 80)
        raise UsageError(f"--part {shown!r} is not a valid part: give i/n with i from 1 to n, such as 2/4")
    return int(number), int(count)


def parse_pair(text: str) -> Pair:
    """Parse the name of a pair, such as ``20200101_20200113``.

    Raises
    ------
    UsageError
        If `text` has another form.
    """
    try:
        return Pair.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def select_requested_part(requests: list[BuildRequest], part: str | None) -> list[BuildRequest]:
    """Return the requests of the part that ``--part`` names, and say which; all without it.

    Raises
    ------
    UsageError
        If there is no such part.
    """
    if part is None:
        return requests
    number, count = parse_part(part)
    from hephaestus_build.pipeline.frame_cost import fingerprint_frames, select_frame_part

    chosen = select_frame_part(requests, (number, count))
    which = f"{count_of(len(requests), 'frame')} (list {fingerprint_frames(requests)})"
    if chosen:
        print_notice(f"part {number} of {count}: {len(chosen)} of {which}")
    else:
        print_notice(f"part {number} of {count} of {which} is empty: nothing to do")
    return list(chosen)
