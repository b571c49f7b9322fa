"""Tests of frames whose metadata.txt is missing or odd, so that their acquisition time is unknown."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from archives import ALL, FRAME, asked, copied, objects, settings_for
from hephaestus_build.cli import run_console_script
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.simulation.server.faults import Fault, error_status, replace_body

METADATA = r"/metadata\.txt$"


def with_time(text: str) -> Fault:
    """Return a fault that serves metadata.txt with another centre time."""

    def change(body: bytes) -> bytes:
        lines = body.decode().splitlines()
        return "\n".join(
            f"center_time={text}" if line.startswith("center_time") else line for line in lines
        ).encode()

    return replace_body(change)


def without_time(body: bytes) -> bytes:
    return b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(b"center_time"))


UNKNOWN = {
    "missing": (error_status(404), Outcome.ABSENT, "metadata.txt is absent"),
    "without the line": (replace_body(without_time), Outcome.ABSENT, "does not state it"),
    "odd": (with_time("noon"), Outcome.CORRUPT, "'noon' is not a time of day"),
    "out": (error_status(503), Outcome.UNREACHABLE, "metadata.txt is unreachable"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_all_but_the_atmosphere_is_built_and_that_is_owed_with_its_cause(upstream, tmp_path, case):
    fault, outcome, said = UNKNOWN[case]
    upstream.faults.add(METADATA, fault)
    settings = settings_for(tmp_path / "data", retries=0)
    assert said in plan(ALL, settings).era5_problem
    result = build(ALL, settings)
    world = upstream.archive.world
    assert result.pairs == len(world.pairs(FRAME))
    assert result.masks > 0
    assert (result.epochs, result.exit_code) == (0, 3)
    assert {item.part for item in result.owed} == {"era5"}
    assert {item.outcome for item in result.owed} == {outcome}
    assert len(result.owed) == len(world.scene(FRAME).epochs)
    for part in (said, "acquisition time is unknown", f'center_time: {{{FRAME}: "', str(FRAME)):
        assert part in result.owed[0].detail
    assert not any("/arco/" in entry.path or "/api/" in entry.path for entry in upstream.log)
    cube = open_pinned_cube(result.path)
    assert "center_time" not in cube.attrs
    np.testing.assert_array_equal(cube.dem.values, world.height(FRAME))
    assert np.isnan(cube.primary_date_surface_pressure.isel(primary_date=0).values).all()
    assert check_schema(result.path) == []

    # nothing changes as long as the time is unknown, and no raster is asked for again
    upstream.clear_log()
    assert not build(ALL, settings).published
    assert asked(upstream) == set()

    # a setting supplies the time; only the atmosphere is fetched
    upstream.clear_log()
    told = settings_for(tmp_path / "data", retries=0, center_time={FRAME.id: "18:41:07.318204"})
    paid = build(ALL, told)
    assert paid.owed == ()
    assert asked(upstream) == set()
    assert open_pinned_cube(paid.path).attrs["center_time"] == "18:41:07.318204"


def test_a_cube_made_with_the_setting_equals_one_made_with_the_archives_time(upstream, whole_cube, tmp_path):
    upstream.faults.add(METADATA, replace_body(without_time))
    settings = settings_for(tmp_path / "data", center_time={FRAME.id: "18:41:07.318204"})
    assert build(ALL, settings).owed == ()
    mine, theirs = objects(settings), objects(settings_for(whole_cube))
    assert {path: item for path, item in mine.items() if path.partition("/")[0] != "zarr.json"} == {
        path: item for path, item in theirs.items() if path.partition("/")[0] != "zarr.json"
    }


def test_a_published_cube_remembers_its_time(upstream, whole_cube, tmp_path):
    settings = settings_for(copied(whole_cube, tmp_path / "data"), cache_dir=tmp_path / "empty")
    upstream.faults.add(METADATA, error_status(404))
    result = build(ALL, settings)
    assert (result.owed, result.published) == ((), False)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("24:00:01", "next day 00"),
        ("18:41", "same day 19"),
        ("18:41:07,3", "same day 19"),
        (" 18 : 29 : 07 ", "same day 18"),
        ("67267.318204", "same day 19"),
    ],
)
def test_odd_but_unambiguous_times_are_taken(upstream, tmp_path, text, hour):
    upstream.faults.add(METADATA, with_time(text))
    settings = settings_for(tmp_path / "data", era5="arco")
    result = build(ALL, settings)
    assert result.owed == ()
    cube = open_pinned_cube(result.path)
    day, number = (1, 0) if hour.startswith("next") else (0, int(hour[-2:]))
    wanted = cube.epoch.values + np.timedelta64(24 * day + number, "h")
    np.testing.assert_array_equal(cube.era5_time.values, wanted)


def test_the_commands_name_the_cause_in_one_line(upstream, tmp_path, monkeypatch, capsys):
    upstream.faults.add(METADATA, error_status(404))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hephaestus", *words, "--data-dir", str(tmp_path / "data")])
        with pytest.raises(SystemExit) as ended:
            run_console_script()
        streams = capsys.readouterr()
        return int(ended.value.code or 0), streams.out, streams.err

    code, out, _ = run("plan", FRAME.id, "--json")
    assert code == 0
    assert "acquisition time is unknown" in json.loads(out)["frames"][0]["era5_problem"]
    code, out, _ = run("plan", FRAME.id)
    assert "acquisition time is unknown" in " ".join(out.split())
    code, _, err = run("build", FRAME.id, "--json", "--no-quicklook", "--pairs", "all")
    assert code == 3
    [line] = [line for line in err.splitlines() if "acquisition time is unknown" in line]
    assert line.startswith(f"hephaestus: {FRAME}: owed: era5 of epoch/")
    assert "center_time" in line
