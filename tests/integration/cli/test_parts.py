"""Tests of `--part i/n`: parts of frames that machines build without knowing of each other."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archives import reached, small_archive
from checkout import ROOT
from hephaestus_build.core.registry import published_frames
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS

FRAMES = {place.id for place in FRAME_SPECS}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def three_frames() -> Iterator[None]:
    with small_archive(frames=sorted(FRAMES), epochs=3, size=(40, 44)) as server, reached(server):
        yield


@pytest.mark.usefixtures("three_frames")
def test_parts_in_any_order_and_again_build_every_frame_once(hephaestus: Command, tmp_path: Path) -> None:
    def build(part: str) -> tuple[list[str], list[bool], str]:
        code, out, err = hephaestus(
            *("build", "--simulated", "--part", part, "--limit", "1", "--no-quicklook", "--json"),
            *("--data-dir", str(tmp_path)),
        )
        runs = json.loads(out)["frames"]
        assert code == 0, err
        return [run["frame"] for run in runs], [run["result"]["published"] for run in runs], err

    second, built, err = build("2/2")
    assert second
    assert all(built)
    assert "part 2 of 2" in err
    first, built, _ = build("1/2")
    assert all(built)
    assert sorted(first + second) == sorted(FRAMES)
    again, built, _ = build("2/2")
    assert again == second
    assert not any(built)


@pytest.mark.parametrize("command", [["build", "--no-quicklook"], ["watch", "--once"]])
def test_an_empty_part_says_so_and_asks_nobody(
    command: list[str], hephaestus: Command, tmp_path: Path
) -> None:
    frames = ["124D_05291_081406", "124D_04854_171313"]
    code, _, err = hephaestus(*command, *frames, "--part", "3/3", "--data-dir", str(tmp_path))
    assert code == 0
    assert "part 3 of 3 of 2 frames" in err
    assert "is empty: nothing to do" in err


@pytest.mark.parametrize("wrong", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/" + "9" * 5000])
def test_a_part_that_does_not_exist_is_wrong_usage(wrong: str, hephaestus: Command, tmp_path: Path) -> None:
    code, _, err = hephaestus("build", "--all", f"--part={wrong}", "--data-dir", str(tmp_path))
    assert code == 2
    assert "--part" in err
    assert "such as 2/4" in err


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ([], "build --simulated"),
        (["FRAME=124D_05291_081406"], "build 124D_05291_081406"),
        (["FRAMES=etna colima", "PART=3/20"], "build etna colima --part 3/20"),
        (["FRAMES=all", "PART=3/20"], "build --all --part 3/20"),
    ],
)
def test_make_cubes_takes_frames_and_a_part(variables: list[str], expected: str) -> None:
    made = subprocess.run(
        ["make", "--dry-run", "cubes", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"/hephaestus {expected} &" in made.stdout


def test_the_parts_of_all_published_frames_are_whole(
    hephaestus: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `--all --part` hands to the builds, without building."""
    handed: list[str] = []

    def note(requests: list[object], *_: object, **__: object) -> Iterator[None]:
        handed.extend(str(request.frame) for request in requests)  # type: ignore[attr-defined]
        return iter(())

    monkeypatch.setattr("hephaestus_build.cli.build.build_frames", note)
    marks = set()
    for number in range(1, 21):
        code, _, err = hephaestus("build", "--all", "--part", f"{number}/20")
        assert code == 0
        marks.add(err[err.index("(list ") : err.index(")")])
    assert sorted(handed) == sorted(published_frames())
    assert len(marks) == 1
