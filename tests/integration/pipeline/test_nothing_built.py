"""Tests of builds of which no interferogram, or no raster at all, can be had for one reason."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from archives import ALL, FRAME, asked, copied, frame_store_of, objects, settings_for
from hephaestus_build.cli import run_console_script
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.run_log import BuildRun, read_last_runs
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.pipeline.build import build
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import Fault, error_status, replace_body

PAGE = replace_body(b"<!DOCTYPE html><html><body>Please sign in</body></html>")
REASONS: dict[str, tuple[Callable[[], Fault] | Fault, Outcome, str]] = {
    "refused": (error_status(403), Outcome.REFUSED, "HEPHAESTUS_LICSAR_URL"),
    "absent": (error_status(404), Outcome.ABSENT, "`hephaestus plan"),
    "unreachable": (error_status(503), Outcome.UNREACHABLE, "run the same command again"),
    "a page": (PAGE, Outcome.CORRUPT, "run the same command again"),
}
DEM = f"{FRAME}.geo.hgt.tif"


def phases(server: ArchiveServer) -> list[str]:
    return [f"{pair}.geo.diff_pha.tif" for pair in server.archive.world.pairs(FRAME)]


def run_once(settings: Settings) -> BuildRun:
    [run] = build_frames([ALL], settings)
    return run


@pytest.mark.parametrize("case", REASONS)
@pytest.mark.parametrize("rasters", ["all rasters", "phases alone"])
def test_each_product_has_its_outcome_and_the_shared_reason_is_said_once(upstream, tmp_path, case, rasters):
    fault, outcome, advice = REASONS[case]
    pattern = r"\.tif$" if rasters == "all rasters" else r"diff_pha\.tif$"
    upstream.faults.add(pattern, fault)
    settings = settings_for(tmp_path / "data", retries=0)
    run = run_once(settings)
    assert run.exit_code == 1
    wanted = [*([DEM] if rasters == "all rasters" else []), *phases(upstream)]
    said = run.to_json()
    assert [item["product"] for item in said["owed"]] == wanted
    assert {item["outcome"] for item in said["owed"]} == {str(outcome)}
    assert said["error"].startswith(f"{FRAME}: ")
    details = {item["detail"] for item in said["owed"]}  # one, or another of the DEM
    assert all(said["error"].count(detail) == 1 for detail in details)
    assert said["error"].count(str(outcome)) == len(details) <= 2
    assert advice in said["error"]
    assert "7 interferograms" in said["error"]
    assert "\n" not in said["error"]

    # status names the same, now and for the next process
    status = read_frame_status(settings, FRAME)
    assert [item.product for item in status.owed] == wanted
    assert status.last_error == said["error"]
    assert status.has_failed
    assert "0 granules" not in status.problem
    assert len(read_last_runs(settings.data_dir)[FRAME.id]["owed"]) == len(wanted)

    # once the archive answers, the same command builds the same cube as one that never failed
    upstream.faults.clear()
    upstream.clear_log()
    assert run_once(settings).exit_code == 0
    if rasters == "phases alone":
        assert DEM not in asked(upstream)
    clean = settings_for(tmp_path / "clean")
    assert build(ALL, clean).owed == ()
    assert objects(settings) == objects(clean)


def test_what_differs_is_counted_by_reason(upstream, tmp_path):
    upstream.faults.add(r"hgt\.tif$", error_status(404))
    first, *rest = phases(upstream)
    upstream.faults.add(first, PAGE)
    upstream.faults.add(r"diff_pha\.tif$", error_status(403))
    error = run_once(settings_for(tmp_path / "data", retries=0)).error
    assert f"{len(rest)} interferograms refused: " in error
    assert "1 interferogram corrupt: " in error
    assert "the DEM absent: " in error


def test_a_later_build_of_fewer_pairs_owes_the_others(upstream, tmp_path):
    upstream.faults.add(r"\.tif$", error_status(403))
    settings = settings_for(tmp_path / "data", retries=0)
    assert run_once(settings).exit_code == 1
    upstream.faults.clear()
    result = build(replace(ALL, limit=2), settings)
    assert (result.pairs, len(result.owed)) == (2, 5)
    assert build(ALL, settings).owed == ()


def test_a_published_cube_loses_nothing_when_its_grid_is_in_doubt(
    upstream, whole_cube, tmp_path, monkeypatch
):
    settings = settings_for(copied(whole_cube, tmp_path / "data"), cache_dir=tmp_path / "empty", retries=0)
    before = objects(settings)
    upstream.faults.add(r"\.tif$", error_status(403))
    with monkeypatch.context() as patch:
        patch.setattr("hephaestus_build.pipeline.prepare.recorded_grid", lambda granules: None)
        run = run_once(settings)
    assert "its grid is unknown" in run.error
    assert len(run.missing) == 8
    assert objects(settings) == before
    # the record of the failure replaces nothing that is complete
    assert frame_store_of(settings).staging.read_granules() == {}
    upstream.faults.clear()
    result = build(ALL, settings)
    assert (result.owed, result.published) == ((), False)
    assert objects(settings) == before


def test_nothing_wanted_is_not_blamed_on_the_archive(upstream, tmp_path):
    upstream.faults.add(r"\.tif$", error_status(404))
    with pytest.raises(HephaestusError, match="none of 7 listed interferograms is wanted") as caught:
        build(replace(ALL, since=date(2030, 1, 1)), settings_for(tmp_path / "data"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # Prefect hands it on


def test_the_commands_list_the_products(upstream, tmp_path, monkeypatch, capsys):
    upstream.faults.add(r"\.tif$", error_status(403))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hephaestus", *words, "--data-dir", str(tmp_path / "data")])
        code = 0
        try:
            run_console_script()
        except SystemExit as ended:
            code = int(ended.code or 0)
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    code, out, err = run("build", FRAME.id, "--pairs", "all", "--json")
    assert code == 1
    assert len(json.loads(out)["frames"][0]["owed"]) == 8
    assert err.count("refused") == 1
    code, out, _ = run("status", "--json")
    assert code == 1
    [row] = json.loads(out)["frames"]
    assert {item["outcome"] for item in row["owed"]} == {"refused"}
    assert len(row["owed"]) == 8
    code, out, err = run("status")
    assert "7 more" in err or "6 more" in err
