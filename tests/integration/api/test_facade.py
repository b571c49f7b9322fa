"""Tests of the Python API ``hephaestus_build`` (hb): build, plan, pairs and georeferenced cubes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import hephaestus_build as hb
import toy_cube
from archives import ALL, FRAME, frame_store_of, reached, settings_for, small_archive
from hephaestus_build.cli import app
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.simulation.server.archive_server import ArchiveServer

RUN = CliRunner()


@pytest.fixture
def portal(upstream: ArchiveServer) -> ArchiveServer:
    return upstream


@pytest.fixture
def data(tmp_path: Path, portal: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data folder that the settings name."""
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("nobody is to be asked")


def names_of_the_face() -> list[str]:
    return [name for name in hb.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", names_of_the_face())
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(hb, name).__doc__
    assert name in dir(hb)


def test_the_face_has_no_other_names() -> None:
    assert sorted(hb.__all__) == hb.__all__
    assert {name for name in dir(hb) if name in hb._NAMES} == {*names_of_the_face()}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hb.nothing  # type: ignore[attr-defined]


def test_the_import_loads_nothing_and_types_are_declared() -> None:
    code = (
        "import sys, hephaestus_build as hb; dir(hb); "
        "print([name for name in ('numpy', 'pandas', 'xarray', 'typer', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (Path(hb.__file__).parent / "py.typed").read_bytes() == b""


def test_what_is_shown_in_a_notebook_is_short(tmp_path: Path) -> None:
    frame, pair = hb.Frame(FRAME.id), hb.Pair.parse("20160909_20160921")
    assert eval(repr(frame), {"Frame": hb.Frame}) == frame
    assert eval(repr(pair), {"Pair": hb.Pair}) == pair
    assert repr(pair) == "Pair.parse('20160909_20160921')"
    note = {"uniqueID": 5, "frameID": "124D_04854_171313", "primary_date": "20160909"}
    (tmp_path / "5.json").write_text(json.dumps({**note, "secondary_date": "20160921", "label": []}))
    found = hb.load_annotations(str(tmp_path))
    assert repr(found).startswith("<Annotations: 1 of 1 frames, ")
    assert repr(next(iter(found))).startswith("<Annotation 5: 124D_04854_171313 20160909_20160921, ")


def test_a_frame_is_planned_built_and_listed_by_its_name(
    data: Path, portal: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = hb.plan(FRAME.id, pairs="all")
    assert len(plan.pairs_to_fetch) == 7
    assert re.fullmatch(rf"<BuildPlan {FRAME}: 7 of 7 pairs to fetch, about \d\.\d\d GB>", repr(plan))
    assert not frame_store_of(settings_for(data)).root.exists()
    # of the listed pairs one is not annotated, and one annotated pair is not listed
    assert hb.pairs(FRAME).status.value_counts().to_dict() == {"owed": 6, "unwanted": 1, "absent": 1}
    assert hb.pairs(FRAME).perpendicular_baseline_m.notna().all()

    first, *_, last = portal.archive.pairs(FRAME)
    result = hb.build(FRAME, pairs="all", until=last.secondary, since=str(first.primary), limit=3)
    assert (result.frame, result.pairs, result.owed) == (FRAME, 3, ())
    assert repr(result) == f"<BuildResult {FRAME}: generation 1, 3 pairs>"
    assert read_last_runs(settings_for(data).data_dir)[FRAME.id]["exit_code"] == 0

    monkeypatch.setattr(socket.socket, "connect", refuse)
    table = hb.pairs(FRAME.id)
    assert table.index.name == "pair"
    states = dict.fromkeys((pair.name for pair in portal.archive.pairs(FRAME)), "owed")
    states |= dict.fromkeys([*states][:3], "stored")
    unlisted = portal.archive.world.pair_with_oddity(FRAME, "unlisted")
    assert table.status.to_dict() == {**states, str(unlisted): "absent"}
    assert table.index.is_monotonic_increasing
    assert table.attrs["generation"] == 1
    assert table.valid_fraction.notna().tolist() == (table.status == "stored").tolist()
    assert table.primary.dtype.kind == table.secondary.dtype.kind == "M"
    assert ((table.secondary - table.primary).dt.days == table.temporal_baseline_days).all()
    scene = portal.archive.world.scene(FRAME)
    for row in table.itertuples():
        one, two = (scene.perpendicular_baseline(day.date()) for day in (row.primary, row.secondary))
        assert row.perpendicular_baseline_m == pytest.approx(two - one, abs=2e-4)
    written = {
        f"{a['primary_date']}_{a['secondary_date']}": a for a in portal.archive.world.annotations(FRAME)
    }
    assert table.annotated.tolist() == [name in written for name in table.index]
    deforming = [bool(written.get(name, {}).get("segmentation_mask")) for name in table.index]
    assert table.deformation.tolist() == deforming
    assert any(deforming)


def test_baselines_outlive_the_cache_and_are_no_part_of_the_cube(data: Path, portal: ArchiveServer) -> None:
    hb.build(FRAME, limit=1)
    settings = settings_for(data)
    record = json.loads(frame_store_of(settings).baselines_file.read_text())
    assert record["receipt"]["url"].endswith("/metadata/baselines")
    current = frame_store_of(settings).published_generation()
    assert current is not None
    assert not [path for path in current.read_manifest() if "baselines" in path]
    for path in settings.downloads_dir.rglob("*"):
        if path.is_file():
            path.unlink()
    table = hb.pairs(FRAME)
    assert table.attrs["listed"] is None
    assert table.perpendicular_baseline_m.notna().all()


def test_a_frame_without_baselines_owes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_archive() as server, reached(server):
        files = server.archive.world.frame_files(FRAME)
        monkeypatch.setattr(files, "oddities", files.oddities | {"sparse-metadata"})
        assert hb.build(FRAME, limit=1, data_dir=tmp_path).owed == ()
    table = hb.pairs(FRAME, data_dir=tmp_path)
    assert table.perpendicular_baseline_m.isna().all()
    assert not frame_store_of(settings_for(tmp_path)).baselines_file.exists()


def test_upstream_is_asked_on_request_alone(data: Path, portal: ArchiveServer) -> None:
    with pytest.raises(hb.HephaestusError, match=r"`hephaestus pairs 198A_00210_131313 --upstream` asks"):
        hb.pairs(FRAME)
    *_, last = portal.archive.pairs(FRAME)
    portal.archive.withdraw(FRAME, last)
    assert last.name not in hb.pairs(FRAME, upstream=True).index
    portal.archive.restore(FRAME, last)
    assert last.name not in hb.pairs(FRAME).index
    assert last.name in hb.pairs(FRAME, upstream=True).index


def test_a_failed_build_raises_and_is_written_down(data: Path, portal: ArchiveServer) -> None:
    with pytest.raises(hb.HephaestusError, match="none of 7 listed interferograms is wanted"):
        hb.build(FRAME, pairs="all", since="2100-01-01")
    assert read_last_runs(settings_for(data).data_dir)[FRAME.id]["exit_code"] == 1
    wrong: list[dict[str, Any]] = [{"limit": 0}, {"since": "soon"}, {"pairs": "most"}, {"era5": "mars"}]
    for options in wrong:
        with pytest.raises(hb.UsageError):
            hb.build(FRAME, **options)
    with pytest.raises(hb.UsageError, match="names 2 frames"):
        hb.plan("Colima")


def test_the_sample_is_served_without_a_portal(tmp_path: Path) -> None:
    found = hb.plan(FRAME, data_dir=tmp_path, limit=2)
    assert len(found.pairs_to_fetch) == 2
    assert len(hb.pairs(FRAME, data_dir=tmp_path)) > 20


def test_the_command_prints_what_the_table_holds(data: Path, portal: ArchiveServer) -> None:
    hb.build(ALL.frame, limit=2)
    lines = RUN.invoke(app, ["pairs", FRAME.id]).stdout.splitlines()
    assert lines[0].split() == ["pair", "days", "m", "status", "valid", "annotation"]
    assert len(lines) == 9
    rows = json.loads(RUN.invoke(app, ["pairs", FRAME.id.lower(), "--json"]).stdout)["pairs"]
    table = hb.pairs(FRAME)
    assert [row["pair"] for row in rows] == table.index.tolist()
    assert set(rows[0]) == {"pair", *table.columns}
    assert rows[0]["primary"] == f"{table.primary.iloc[0]:%Y-%m-%d}"
    assert rows[-1]["valid_fraction"] is None
    text = RUN.invoke(app, ["pairs", FRAME.id, "--csv"]).stdout
    (data / "table.csv").write_text(text)
    again = pd.read_csv(data / "table.csv", index_col="pair", parse_dates=["primary", "secondary"])
    assert again.status.tolist() == table.status.tolist()
    assert np.allclose(again.perpendicular_baseline_m, table.perpendicular_baseline_m)
    refused = RUN.invoke(app, ["pairs", FRAME.id, "--csv", "--json"])
    assert isinstance(refused.exception, hb.UsageError)


def test_the_command_asks_upstream_where_it_is_told_to(data: Path, portal: ArchiveServer) -> None:
    done = RUN.invoke(app, ["pairs", FRAME.id])
    assert isinstance(done.exception, hb.HephaestusError)
    assert len(RUN.invoke(app, ["pairs", FRAME.id, "--upstream"]).stdout.splitlines()) == 9


def test_a_cube_alone_is_listed_and_says_so(tmp_path: Path) -> None:
    toy_cube.toy_cube(tmp_path / "simulated" / "cubes")
    done = RUN.invoke(app, ["pairs", toy_cube.FRAME, "--data-dir", str(tmp_path), "--json"])
    states = {row["pair"]: row["status"] for row in json.loads(done.stdout)["pairs"]}
    assert states == {
        **dict.fromkeys(toy_cube.PAIRS, "stored"), toy_cube.ABSENT: "absent", toy_cube.OWED: "owed",
    }  # fmt: skip
    assert "no listing was kept" in done.stderr


def test_an_opened_cube_is_georeferenced(tmp_path: Path) -> None:
    toy_cube.toy_cube(tmp_path / "simulated" / "cubes")
    cube = hb.open_cube(toy_cube.FRAME, data_dir=tmp_path)
    grid = toy_cube.grid()
    assert cube.rio.crs.to_epsg() == 4326
    assert cube.rio.bounds() == pytest.approx(grid.bounds)
    assert cube.rio.shape == grid.shape
    assert {cube[name].rio.crs.to_epsg() for name in ("insar_difference", "dem", "deformation_mask")} == {
        4326
    }
    image = cube.insar_difference.isel(primary_date=0, secondary_date=1)
    west, south, east, north = grid.bounds
    middle = (west + east) / 2
    half = image.rio.clip_box(west, south, middle - 1e-6, north)
    assert half.shape == (grid.height, grid.width // 2)
    assert np.array_equal(half.values, image.values[:, : grid.width // 2])
    triangle = {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [west, north], [west, south]]],
    }
    cut = image.rio.clip([triangle])
    assert 0.4 < float(cut.notnull().mean()) < 0.6
    metres = cube.dem.rio.reproject("EPSG:32632")
    assert metres.rio.crs.to_epsg() == 32632
    assert metres.rio.resolution()[0] == pytest.approx(grid.pixel_size_m()[0], rel=0.05)
    assert float(metres.max()) == pytest.approx(float(cube.dem.max()), rel=0.01)
    assert float(image.rio.reproject("EPSG:32632").max()) <= np.pi
