"""Options and arguments that several commands share."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Era5Choice, PairChoice, Settings
from hephaestus_build.operations.batch import list_published_frames
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.embedded import embedded_frames

_DAYS = ["%Y-%m-%d", "%Y%m%d"]


def complete_frame(incomplete: str) -> list[tuple[str, str]]:
    """Return the published frames whose id begins with what was typed, and their volcanoes, for the shell."""
    return [
        (name, ", ".join(known.volcanoes[:3]))
        for name, known in published_frames().items()
        if name.startswith(incomplete)
    ]


Frames = Annotated[
    list[str] | None,
    typer.Argument(
        help="Frame ids, such as 124D_04854_171313 or 144A_SM_REUN_S6, or a volcano of one frame: Etna.",
        autocompletion=complete_frame,
    ),
]


Pairs = Annotated[
    PairChoice | None,
    typer.Option(help="Which pairs: annotated, all, or auto (annotated where the frame has annotations)."),
]


Since = Annotated[
    datetime | None, typer.Option(formats=_DAYS, help="Leave out pairs that begin before this day.")
]


Until = Annotated[
    datetime | None, typer.Option(formats=_DAYS, help="Leave out pairs that end after this day.")
]


Limit = Annotated[int | None, typer.Option(min=1, help="Take no more pairs than this, the earliest first.")]


Era5 = Annotated[
    Era5Choice | None,
    typer.Option(help="Source of ERA5: cds, arco, or auto (the CDS where a key is configured)."),
]


DataDir = Annotated[Path | None, typer.Option(help="Folder of cubes/, the cache and the results.")]


AtATime = Annotated[
    int, typer.Option("--at-a-time", min=1, max=8, help="Frames at once; they share the connections.")
]


def request_of(
    frame: Frame, settings: Settings, since: datetime | None, until: datetime | None, limit: int | None
) -> BuildRequest:
    """Return what the options of a command ask for."""
    return BuildRequest(frame, settings.pairs, _day(since), _day(until), limit)


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def frames_to_build(names: list[str] | None, simulated: bool, *, every: bool = False) -> list[Frame]:
    """Return the frames that a build is asked for: named ones, all, or those of the embedded archive."""
    if names and every:
        raise UsageError("name frames or say --all, not both")
    if every and not simulated:
        return list_published_frames()
    if not names and not simulated:
        raise UsageError(
            "name a frame, such as 124D_04854_171313, or add --simulated for the embedded sample; "
            "`hephaestus frames` finds frames by volcano or place"
        )
    return list(dict.fromkeys(map(frame_named, names))) if names else list(embedded_frames())


#: Of commands that take cubes; those that need an archive serve it themselves.
Simulated = Annotated[
    bool, typer.Option("--simulated", help="Take the simulated cubes, which stand apart in <data>/simulated.")
]


Mixed = Annotated[
    bool, typer.Option("--mixed", help="Take real and simulated cubes together; else they are refused.")
]


Json = typer.Option(False, "--json", help="Print JSON instead of text.")
