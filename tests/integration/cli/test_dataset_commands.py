"""Tests of the commands for annotations, splits and statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import xarray as xr
from PIL import Image
from typer.testing import CliRunner

from annotation_files import SQUARE, good_file, quiet_file, real_annotations, tar_of
from hephaestus_build.cli import annotations, splits, statistics
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.dataset.published_counts import (
    PUBLISHED_TABLE_1,
    PUBLISHED_TABLE_2,
    compare_table_1,
    compare_table_2,
)
from hephaestus_build.dataset.samples import samples_from_annotations
from hephaestus_build.dataset.splits import make_split, read_split, split_names, split_rule
from hephaestus_build.sources.annotations.archive import load_annotations
from toy_cube import FRAME, MOVING, PAIRS, toy_cube

Run = Callable[..., str]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of Etna and a simulated frame over all years, with a defect and an absent pair."""
    files: dict[str, Any] = {}
    for number in range(1, 41):
        frame = "124D_05291_081406" if number % 4 else "198A_00210_131313"
        year = 2015 + number % 7
        dates = {"frameID": frame, "primary_date": f"{year}0{1 + number % 9}01"}
        dates["secondary_date"] = f"{year}0{1 + number % 9}{13 + number % 3}"
        make = good_file if number % 3 == 0 else quiet_file
        files[f"{number}.json"] = make(number, **dates)
    files["41.json"] = good_file(41, segmentation_mask=[SQUARE, SQUARE], glacier_fringes=2)
    files["2200.json"] = good_file(2200, primary_date="20210203", secondary_date="20210227")
    return tar_of(tmp_path_factory.mktemp("annotations") / "a.tar.gz", files)


@pytest.fixture
def run(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    for module in (annotations, splits, statistics):
        app.add_typer(module.app, name=module.__name__.rsplit(".", 1)[-1])

    def invoke(*words: str, archive: Path | None = archive) -> str:
        if archive and words[0] == "splits":  # it has real frames and a simulated one
            words = (*words, "--mixed")
        result = CliRunner().invoke(app, [*words, *(["--archive", str(archive)] if archive else [])])
        if result.exception:
            raise result.exception
        return result.output

    return invoke


def test_the_summary_counts_the_files_beside_the_paper(run: Run) -> None:
    result = json.loads(run("annotations", "summary", "--json"))
    assert (result["annotations"], result["frames"], result["polygons"]) == (42, 2, 16)
    assert result["files"]["label"] == {"Non_Deformation": 27, "Deformation": 15, "Earthquake": 0}
    assert result["without_absent_pairs"]["label"]["Deformation"] == 14
    assert result["absent_pairs"] == 1
    assert result["difference"]["label"]["Deformation"] == 14 - 1798
    assert result["simulated"] is True
    text = run("annotations", "summary")
    assert "Deformation" in text
    assert "1798" in text
    assert "simulated" in text


def test_every_defect_is_listed(run: Run) -> None:
    found = json.loads(run("annotations", "defects", "--json"))["defects"]
    assert {item["file"] for item in found} == {"41.json"}
    assert {item["kind"] for item in found} == {"undocumented value", "uneven lists", "is_crowd"}
    assert "glacier_fringes is 2" in run("annotations", "defects")


def test_the_masks_report_says_what_is_kept(run: Run) -> None:
    [etna, simulated] = json.loads(run("annotations", "masks", "--json"))["frames"]
    assert etna["frame"] == "124D_05291_081406"
    assert etna["polygons"] == len(etna["each"])
    assert etna["area_kept"] == pytest.approx(1, abs=0.05)
    assert etna["hidden_pixels"] == etna["each"][0]["pixels"]  # of two equal squares one is hidden
    assert (simulated["grid_from"], simulated["uncertain"]) == ("unknown", "no grid")
    assert "of their area is kept" in run("annotations", "masks")


def test_the_masks_report_takes_the_grid_of_a_cube_where_there_is_one(run: Run, tmp_path: Path) -> None:
    cube = xr.Dataset(
        {"spatial_ref": ((), 0, {"GeoTransform": "20.0 0.001 0 10.0 0 -0.001"})},
        {"latitude": 10 - 0.001 * (np.arange(300) + 0.5), "longitude": 20 + 0.001 * (np.arange(360) + 0.5)},
    )
    cube.to_zarr(tmp_path / "198A_00210_131313.zarr", zarr_format=3, consolidated=False)
    with pytest.warns(RuntimeWarning, match="consolidated"):
        [_, simulated] = json.loads(run("annotations", "masks", "--cubes", str(tmp_path), "--json"))["frames"]
    assert (simulated["grid_from"], simulated["shape"]) == ("cube", [300, 360])
    assert simulated["polygons"] == len(simulated["each"]) > 0


def test_the_split_summary_states_counts_and_hash(run: Run, archive: Path) -> None:
    result = json.loads(run("splits", "summary", "--json"))
    split = make_split(split_rule("paper"), samples_from_annotations(load_annotations(archive)))
    assert result["sha256"] == split.sha256
    assert result["counts"]["sum"]["single"] == {"positive": 14, "negative": 27}
    assert result["equal"] is False
    assert f"(paper {PUBLISHED_TABLE_2['train']['single']['positive']})" in run("splits", "summary")
    assert "simulated" in run("splits", "summary")
    assert "spans a boundary" not in run("splits", "summary", "strict-temporal")


def test_splits_are_written_listed_and_audited(run: Run, tmp_path: Path) -> None:
    rows = json.loads(run("splits", "write", "paper", "volcano-out-198A_00210_131313", "--json"))["splits"]
    assert [row["split"] for row in rows] == ["paper", "volcano-out-198A_00210_131313"]
    assert read_split(Path(rows[0]["path"])).sha256 == rows[0]["sha256"]
    listed = json.loads(run("splits", "list", "--json", archive=None))["splits"]
    assert [row["split"] for row in listed] == split_names()
    assert {row["split"] for row in listed if row["path"]} == {"paper"}
    [result] = json.loads(run("splits", "audit", "--file", rows[1]["path"], "--json"))["splits"]
    assert result["passed"]
    assert set(result["promises"]) == {"acquisitions", "events", "regions"}
    assert "promises: nothing" in run("splits", "audit", "paper")


def test_coverage_says_what_a_tiling_shows_of_each_part(run: Run) -> None:
    found = json.loads(run("splits", "coverage", "paper", "--json"))
    assert (found["tiling"], found["window"]) == ("whole-frame", 512)
    for part in found["parts"].values():
        assert part["seen"] == part["touched"] == part["positives"]
    # simulated frames have no implied grid: what is not known is said, and in no other count
    assert sum(part["unknown"] for part in found["parts"].values())
    table = run("splits", "coverage", "paper", "--tiling", "volcano-centred")
    assert "volcano-centred windows of 512 pixels" in table
    with pytest.raises(UsageError, match=r"there is no tiling 'tiles'; choose one of whole-frame, volcano"):
        run("splits", "coverage", "--tiling", "tiles")


def test_coverage_of_cubes_is_that_of_their_masks(run: Run, tmp_path: Path) -> None:
    toy_cube(tmp_path)
    asked = ["splits", "coverage", f"volcano-out-{FRAME}", "--cubes", str(tmp_path), "--json"]
    test = json.loads(run(*asked, "--size", "32", archive=None))["parts"]["test"]
    assert test["positives"] == test["seen"] == len(set(MOVING) & set(PAIRS))
    assert test["pixels_seen"] == 1
    few = json.loads(run(*asked, "--size", "8", "--tiling", "grid", archive=None))["parts"]["test"]
    assert few["pixels_seen"] < 1


def test_a_broken_promise_is_an_error(run: Run, archive: Path, tmp_path: Path) -> None:
    good = make_split(split_rule("strict-temporal"), samples_from_annotations(load_annotations(archive)))
    leaky = good.__class__(
        good.name, 1, good.rule, good.promises, {**good.parts, "validation": good.parts["train"][:1]}
    )
    leaky.write(tmp_path / "leaky.json")
    with pytest.raises(HephaestusError, match="promises are broken by strict-temporal"):
        run("splits", "audit", "--file", str(tmp_path / "leaky.json"))


def test_an_unknown_split_is_wrong_usage(run: Run) -> None:
    with pytest.raises(UsageError, match="hephaestus splits list"):
        run("splits", "summary", "nonsense")


def test_without_annotations_the_next_step_is_named(run: Run) -> None:
    with pytest.raises(HephaestusError, match="hephaestus annotations fetch"):
        run("annotations", "summary", archive=None)


def test_statistics_need_a_written_split(run: Run) -> None:
    with pytest.raises(HephaestusError, match="hephaestus splits write"):
        run("statistics", "update", "paper", archive=None)
    run("splits", "write", "paper")
    with pytest.raises(HephaestusError, match="no cube of the split paper"):
        run("statistics", "update", "paper", archive=None)
    with pytest.raises(UsageError, match="valid or published"):
        run("statistics", "show", "paper", "--convention", "zeros", archive=None)


def test_figures_are_small_pictures_with_something_on_them(run: Run, tmp_path: Path) -> None:
    paths = json.loads(run("splits", "figures", "--to", str(tmp_path / "figures"), "--json"))["files"]
    assert {Path(path).relative_to(tmp_path / "figures").as_posix() for path in paths} == {
        "samples-over-time.png", "positives-per-frame.png", "series-lengths.png", "map-of-frames.png",
        "networks/124D_05291_081406.png", "networks/198A_00210_131313.png",
    }  # fmt: skip
    for path in map(Path, paths):
        assert path.stat().st_size < 150_000
        colours = Image.open(path).convert("RGB").getcolors(256)
        assert colours is not None
        assert len(colours) > 20


def test_the_real_files_give_the_figures_of_the_paper(shared_data: Path) -> None:
    real = real_annotations(shared_data)
    result = compare_table_1(real)
    assert result["difference"] == {"label": {"Non_Deformation": 2}, "phase": {"Rest": 2}}
    assert result["paper"] == PUBLISHED_TABLE_1
    assert result["files"]["label"] == {"Non_Deformation": 18100, "Deformation": 1804, "Earthquake": 55}
    assert result["absent_pairs"] == 15
    assert compare_table_2(make_split(split_rule("paper"), samples_from_annotations(real)))["equal"] is True
