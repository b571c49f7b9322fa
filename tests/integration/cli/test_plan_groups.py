"""Tests that `plan` groups frames by what there is to do, in colour on a terminal, and ends with totals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text

from archives import FRAME, copied
from hephaestus_build.cli import console
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.pipeline.plan import BuildPlan, BuildRequest, PairSelection, PlanState
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import error_status
from hephaestus_build.sources.era5.requests import Era5Cost

Command = Callable[..., tuple[int, str, str]]
UNKNOWN = "124D_04854_171313"


def test_a_line_a_frame_then_totals(
    hephaestus: Command, upstream: ArchiveServer, whole_cube: Path, tmp_path: Path
) -> None:
    data = ["--pairs", "all", "--data-dir", str(copied(whole_cube, tmp_path / "data"))]
    code, out, err = hephaestus("plan", UNKNOWN, FRAME.id, *data)
    head, *lines = out.splitlines()
    assert code == 1
    assert head.split() == ["frame", "state", "wanted", "to", "fetch", "ERA5", "download", "disk"]
    assert [line.split()[0] for line in lines[:2]] == [FRAME.id, UNKNOWN]  # in groups, the refused last
    assert "up to date" in lines[0]
    assert "refused" in lines[1]
    assert lines[2] == "2 frames: 1 up to date, 1 refused"
    assert any(line.split()[:2] == ["to", "fetch"] for line in lines[3:])
    assert UNKNOWN in err
    assert max(map(len, [head, *lines[:3]])) <= 80
    code, _, err = hephaestus("plan", UNKNOWN, *data)
    assert code == 1
    assert len(err.splitlines()) == 1


def test_one_frame_is_new_then_owed_or_to_be_extended(
    hephaestus: Command, upstream: ArchiveServer, tmp_path: Path
) -> None:
    data = ["--pairs", "all", "--data-dir", str(tmp_path)]

    def title(*words: str) -> str:
        return hephaestus("plan", FRAME.id, *words, *data)[1].splitlines()[0]

    assert title() == f"{FRAME}: new"
    pairs = sorted(upstream.archive.pairs(FRAME.id))
    upstream.faults.add(rf"{pairs[0]}\.geo\.cc\.tif", error_status(404))
    assert hephaestus("build", FRAME.id, "--no-quicklook", "--limit", "2", *data)[0] == 3
    assert title("--limit", "2") == f"{FRAME}: owed"
    assert "owed by earlier builds" in hephaestus("plan", FRAME.id, *data)[1]
    assert title() == f"{FRAME}: to extend"


@pytest.mark.parametrize(
    ("known", "state"),
    [
        ({}, PlanState.NEW),
        ({"is_published": True}, PlanState.CURRENT),
        ({"is_published": True, "owed_count": 2}, PlanState.OWED),
        ({"is_published": True, "owed_count": 2, "new_count": 1}, PlanState.EXTEND),
        ({"is_published": True, "era5_dates": (Pair.parse("20200101_20200113").primary,)}, PlanState.OWED),
    ],
)
def test_the_state_of_a_frame(known: dict[str, object], state: PlanState) -> None:
    nothing = Era5Cost(0, 0)
    empty = {"pairs_to_fetch": (), "era5_dates": (), "era5_cost": nothing, "grid": None, "listed_count": 0}
    request = BuildRequest(Frame(UNKNOWN))
    assert BuildPlan(request=request, selection=PairSelection((), ()), **{**empty, **known}).state == state


def test_states_are_coloured_on_a_terminal(
    hephaestus: Command,
    upstream: ArchiveServer,
    whole_cube: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed: list[Text] = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(console.out, "print", lambda *texts, **_: printed.extend(texts))
    hephaestus("plan", FRAME.id, UNKNOWN, "--pairs", "all", "--data-dir", str(whole_cube))
    styles = {
        text.plain.split()[0]: {str(span.style) for span in text.spans}
        for text in printed
        if isinstance(text, Text) and text.plain.strip()
    }
    assert "bold red" in styles[UNKNOWN]
    assert "bold red" not in styles[FRAME.id]
