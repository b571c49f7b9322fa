"""Tests of finding frames by volcano, place, point or box, and of volcano names in place of ids."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import hephaestus_build
from checkout import ROOT
from hephaestus_build.cli import app, console
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frame_search import find_frames, frame_named, suggestion
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.terminal import PlainConsole
from hephaestus_build.cube.discovery import find_cube

ETNA, COLIMA = "124D_05291_081406", ["012D_07075_080504", "049A_07091_051113"]
GALAPAGOS = ["106A_09090_000404", "128D_09016_110500"]
RUN = CliRunner()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a search asks no archive")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def ids(*words: str, **options: Any) -> list[str]:
    return [frame.id for frame in find_frames(words, **options)]


def frames(*words: str) -> Result:
    return RUN.invoke(app, ["frames", *words])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["Etna"], [ETNA]),
        (["etn"], [ETNA]),
        (["colima"], COLIMA),
        (["Sierra", "Negra"], GALAPAGOS),
        (["galápagos"], GALAPAGOS),
        (["azul", "galapagos"], GALAPAGOS),
        (["sicily"], [ETNA]),
        (["124d_05291"], [ETNA]),
        (["la_gloria"], ["005A_07021_131313"]),
        (["Taal"], ["142A_07606_131313", "032D_07536_111313"]),
        (["Enta"], []),
        (["火山"], []),
    ],
)
def test_frames_are_found_by_words(words: list[str], found: list[str]) -> None:
    assert ids(*words) == found
    assert [frame.id for frame in hephaestus_build.find_frames(" ".join(words))] == found


def test_a_frame_found_by_its_footprint_says_so_and_comes_last() -> None:
    listed, covers = find_frames("Taal")
    assert not listed.found_inside
    assert [volcano.name for volcano in covers.found_inside] == ["Taal"]
    assert covers.to_json()["found_inside"] == ["Taal"]


def test_a_found_frame_is_shown_in_one_short_line() -> None:
    assert repr(find_frames("etna")) == f"[<FoundFrame {ETNA}: Etna>]"


def test_without_a_question_all_38_in_order() -> None:
    assert len(ids()) == 38
    assert ids() == sorted(ids())


def test_near_a_point_those_that_cover_it_else_the_five_nearest() -> None:
    found = find_frames(near=(-0.83, -91.17))
    assert [frame.id for frame in found] == GALAPAGOS
    assert [round(frame.distance_km or 0) for frame in found] == [15, 80]
    far = find_frames(near=(0.0, 0.0))
    assert len(far) == 5
    assert [frame.distance_km for frame in far] == sorted(frame.distance_km or 0 for frame in far)
    assert ids("iceland", near=(0.0, 0.0)) == ["155D_02579_100800", "155D_02484_191814"]


def test_in_a_box_across_the_antimeridian_too() -> None:
    assert ids(bbox=(13, 36, 17, 38)) == [ETNA]
    zealand = ids(bbox=(170, -50, -170, -30))
    assert zealand == [frame.id for frame in find_frames("New Zealand")]
    assert ids("etna", bbox=(170, -50, -170, -30)) == []


@pytest.mark.parametrize(
    "options",
    [{"near": (91, 0)}, {"near": (float("nan"), 0)}, {"bbox": (0, 10, 5, -10)}, {"bbox": (0, 0, 999, 1)}],
)
def test_what_is_not_on_the_globe_is_refused(options: Any) -> None:
    with pytest.raises(UsageError, match="write "):
        find_frames(**options)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (ETNA, ETNA),
        (ETNA.lower(), ETNA),
        ("106A_09048_000909", "106A_09048_000909"),  # not in the registry
        ("198A_00210_131313", "198A_00210_131313"),  # simulated
        ("etna", ETNA),
        ("Mauna_Loa", "087D_07004_060904"),
        ("Taal", "142A_07606_131313"),  # listed for one frame, in the footprint of another
    ],
)
def test_an_id_or_the_volcano_of_one_frame_names_it(text: str, frame: str) -> None:
    assert frame_named(text) == Frame(frame)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Colima", rf"names 2 frames: {COLIMA[0]} \(colima, descending\), {COLIMA[1]} \(colima, ascending\)"),
        ("Cerro Azul", r"083D_12636_131313 .*106A_09090_000404 .*`hephaestus frames 'Cerro Azul'`"),
        ("Hekla", r"approximate footprint of 155D_02484_191814 .*155D_02579_100800"),
        ("Stromboli", r"lies in no frame of the registry; name a frame by its id.*comet-lics-portal"),
        ("Enta", r"not a frame id.* \(did you mean 'Etna'\?\); `hephaestus frames` .*comet-lics-portal"),
        ("Sierra", r"did you mean 'Sierra Negra'\?"),
        ("./Etna", r"not a frame id"),
        ("124D_nonsense", r"not a frame id"),
    ],
)
def test_other_names_are_refused_with_the_candidates(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        frame_named(text)


@given(st.text())
def test_any_text_is_a_frame_or_one_line(text: str) -> None:
    said = ""
    try:
        frame_named(text)
    except UsageError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
    assert len(said) < 1000


def test_the_example_of_the_documentation_runs() -> None:
    text = (ROOT / "docs" / "frames.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    seen: dict[str, Any] = {}
    exec(code, seen)
    assert seen["frame"].id == ETNA


def test_nothing_is_suggested_for_what_is_like_nothing() -> None:
    assert suggestion("xyzzyxyzzy") == suggestion("") == ""


def test_the_command_prints_a_line_a_frame() -> None:
    done = frames("colima")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["frame", *COLIMA]
    assert len(frames().stdout.splitlines()) == 39


def test_the_command_prints_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "out", PlainConsole(file=screen, force_terminal=True, width=70))
    assert frames("mexico").exit_code == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert len(lines) > 4  # names of volcanoes are folded in their column
    assert all(len(line) <= 70 for line in lines)


def test_the_command_says_which_frame_is_found_by_its_footprint() -> None:
    assert "(and Hekla in its approximate footprint)" in frames("hekla").stdout


def test_json_and_csv_hold_the_same() -> None:
    facts = json.loads(frames("--near", "-0.83,-91.17", "--json").stdout)["frames"]
    assert [item["frame"] for item in facts] == GALAPAGOS
    assert set(facts[0]) == {
        "frame", "direction", "published", "latitude", "longitude", "bounds", "region", "places",
        "annotations", "volcanoes", "also_inside", "found_inside", "distance_km", "newest", "latency_days",
    }  # fmt: skip
    assert facts[0]["volcanoes"][1] == {
        "name": "Sierra Negra", "catalogue_name": "Negra, Sierra", "latitude": -0.83, "longitude": -91.17,
        "elevation_m": 1124, "smithsonian_number": None,
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(frames("--near", "-0.83,-91.17", "--csv").stdout)))
    assert [row["frame"] for row in rows] == GALAPAGOS
    assert rows[0]["volcanoes"] == "Cerro Azul;Sierra Negra"
    assert [float(rows[0][edge]) for edge in ("west", "south", "east", "north")] == facts[0]["bounds"]


def test_a_search_without_result_ends_well_and_says_what_to_do() -> None:
    done = frames("Enta", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"frames": []}
    assert "did you mean 'Etna'?" in done.stderr
    assert "no frame of the registry covers 0,0" in frames("--near", "0,0").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--near", "here"], "--near here is not LAT,LON"),
        (["--near", "1,2,3"], "is not LAT,LON"),
        (["--near", "100,0"], "is not a latitude"),
        (["--bbox", "1,2,3"], "is not W,S,E,N"),
        (["--json", "--csv"], "--json or --csv"),
    ],
)
def test_wrong_options_are_refused(words: list[str], said: str) -> None:
    done = frames(*words)
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


COMMANDS: list[Callable[[str], list[str]]] = [
    lambda name: ["plan", name],
    lambda name: ["build", name],
    lambda name: ["status", name],
    lambda name: ["verify", name],
    lambda name: ["repair", name],
    lambda name: ["watch", "--once", name],
    lambda name: ["gc", name],
    lambda name: ["migrate", name],
    lambda name: ["inspect", name],
    lambda name: ["report", name],
    lambda name: ["export", name, "--to", "geotiff", "--out", "out"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words("")[0])
def test_every_command_on_frames_takes_a_volcano(
    words: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    done = RUN.invoke(app, words("Colima"))
    assert isinstance(done.exception, UsageError), done.output
    assert "names 2 frames" in str(done.exception)


def test_status_and_the_reader_know_the_frame_by_its_volcano(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path))
    assert [
        row["frame"] for row in json.loads(RUN.invoke(app, ["status", "Etna", "--json"]).stdout)["frames"]
    ] == [ETNA]
    with pytest.raises(HephaestusError, match=f"there is no cube at .*{ETNA}"):
        find_cube("Etna", Settings(data_dir=tmp_path))
    with pytest.raises(UsageError, match="names 2 frames"):
        find_cube("Colima", Settings(data_dir=tmp_path))
    with pytest.raises(UsageError, match=r"neither a cube nor a frame id .*did you mean 'Etna'"):
        find_cube("Enta", Settings(data_dir=tmp_path))
