"""Tests of the performance suite: equal content in all rows, measured ratios, and the simulated mark."""

import json
import os

import numpy as np
import pytest

from checkout import SUPPORT
from hephaestus_build.core.frames import Frame
from hephaestus_build.performance.build_tasks import measure_stored_bytes
from hephaestus_build.performance.cached_archive import BENCHMARK_FRAME, CachedArchive
from hephaestus_build.performance.markdown_report import (
    BUILD,
    CACHED,
    FLOOR,
    REGION,
    bytes_by_kind,
    evaluate_targets,
    incremental_table_lines,
    render_build_report,
    summarize_build_runs,
)
from hephaestus_build.performance.process_timer import measure_task
from hephaestus_build.performance.raster_complexity import find_rasters, measure_complexity
from hephaestus_build.performance.suite import BuildBenchmark
from hephaestus_build.sources.annotations.archive import load_annotations
from hephaestus_build.sources.licsar.geotiff import read_phase
from task_runner import run_here

#: Lets another process import the files beside this one.
HERE = {"PYTHONPATH": str(SUPPORT)}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The whole measurement, with tiny rasters and one round."""
    folder = tmp_path_factory.mktemp("bench")
    return BuildBenchmark(
        folder, (64, 80), epochs=4, rounds=1, cube_sizes=(4,), pairs_added=1, run_task=run_here
    ).run()


def test_every_row_is_there_and_has_the_same_pairs(result):
    assert [row["row"] for row in result["rows"]] == [FLOOR, BUILD, CACHED, REGION]
    assert {row["pairs"] for row in result["rows"]} == {6}


def test_both_cubes_hold_the_same_arrays(result):
    same = result["same_content"]
    assert same["images_equal"]
    assert same["pairs_compared"] == 6
    # the field of either cube is rounded to float32, ours then to a step
    assert 0 < max(same["largest_difference_in_steps"].values()) <= 0.55


def test_ratios_are_those_of_the_measured_seconds(result):
    seconds = {run["row"]: run["seconds"] for run in result["runs"]}
    assert result["ratios"]["build_over_floor"] == pytest.approx(seconds[BUILD] / seconds[FLOOR])
    assert result["ratios"]["region_over_build"] == pytest.approx(seconds[REGION] / seconds[BUILD])
    assert seconds[FLOOR] < seconds[BUILD]


def test_the_build_that_is_measured_has_everything_in(result):
    facts = next(run["facts"] for run in result["runs"] if run["row"] == BUILD)
    assert facts["simulated"]
    assert (facts["masks"], facts["epochs"]) == (6, 4)
    kinds = next(row for row in result["rows"] if row["row"] == BUILD)["bytes_per_pair_by_kind"]
    assert all(kinds[kind] > 0 for kind in ("phase", "coherence", "masks", "atmosphere", "DEM"))


def test_the_limit_encodes_what_the_build_stores(result):
    facts = {run["row"]: run["facts"] for run in result["runs"]}
    kinds = next(row for row in result["rows"] if row["row"] == BUILD)["bytes_per_pair_by_kind"]
    tables = kinds["the rest"] * 6
    native = sum(size for name, size in facts[BUILD]["bytes_by_variable"].items() if name.startswith("era5_"))
    metadata = 30 * 3000  # each image's zarr.json
    assert facts[FLOOR]["encoded"] == pytest.approx(facts[BUILD]["bytes"] - tables - native, abs=metadata)


def test_adding_is_measured_one_pair_at_a_time(result):
    assert [(row["rows"], row["columns"], row["pairs"]) for row in result["adding"]] == [
        (60, 72, 4),
        (64, 80, 4),
    ]
    for row in result["adding"]:
        assert len(row["seconds"]) == len(row["dates"]) == 1
        assert min(row["seconds"]) > row["nothing_new"] > 0
        assert len(row["commands"]) == 1
        assert min(row["commands"]) > row["nothing_new"]


def test_the_first_pairs_of_a_thin_archive_hold_little_and_the_others_all(tmp_path):
    world = CachedArchive.in_cache(tmp_path, (300, 320), 4, thin=2)
    content = world.ensure_files()
    phases = [read_phase(content.phase(pair)).values for pair in content.pairs]
    shares = [np.count_nonzero(phase) / phase.size for phase in phases]
    assert all(0 < share < 0.2 for share in shares[:2])
    assert all(share > 2 * shares[0] for share in shares[2:])
    assert len(load_annotations(world.annotations).for_frame(Frame(BENCHMARK_FRAME))) == len(content.pairs)


def test_the_page_says_that_the_data_is_simulated_and_what_was_reached(result):
    assert result["simulated"]
    page = render_build_report(result)
    assert "Simulated data" in page
    assert "6 pairs of 4 dates" in page
    for item in evaluate_targets(result):
        assert f"| {item['what']} | {item['target']:g} | {item['reached']:.2f} |" in page
    json.dumps(result)


def runs(*seconds):
    facts = {"pairs": 2, "bytes": 10, "apparent_bytes": 12, "bytes_by_variable": {"dem": 10}}
    return [
        {
            "round": turn,
            "row": row,
            "seconds": time,
            "cpu": time,
            "elsewhere": 0.5,
            "peak": 100,
            "facts": facts,
        }
        for turn, times in enumerate(seconds)
        for row, time in zip((FLOOR, BUILD, CACHED, REGION), times, strict=True)
    ]


def test_what_else_the_machine_did_is_told():
    assert summarize_build_runs(runs((1, 2, 2, 1), (1, 2, 2, 1)))["disturbance"] == 0.5


def test_what_adding_takes_is_compared_like_with_like():
    first = {"rows": 60, "columns": 72, "pairs": 10, "nothing_new": 0.1, "commands": [2.0, 4.0]}
    first |= {"seconds": [1.0, 9.0, 1.0, 8.0], "dates": [0, 1, 0, 1]}
    many = {**first, "pairs": 1500, "seconds": [1.5, 1.7, 9.0], "dates": [0, 0, 1], "nothing_new": 1.0}
    none = {**first, "rows": 90, "seconds": [2.0, 4.0], "dates": [1, 2], "commands": [6.0]}
    assert incremental_table_lines([first, many, none])[2:] == [
        "| 60 x 72 | 10 | 1.00 | 8.50 | 0.10 | 1.00 |",
        "| 60 x 72 | 1500 | 1.60 | 9.00 | 1.00 | 1.00 |",
        "| 90 x 72 | 10 |  | 1.00 | 0.03 | 1.00 |",
    ]


def test_a_ratio_is_the_median_of_the_ratios_within_rounds():
    # the machine was ten times slower in the second round: that must not show
    result = summarize_build_runs(runs((1, 2, 2, 20), (10, 20, 20, 200), (1, 2.5, 2, 20)))
    assert result["ratios"]["build_over_floor"] == 2
    assert result["ratios"]["region_over_build"] == 10


def test_targets_are_missed_where_they_are_missed():
    result = {
        **summarize_build_runs(runs((1, 2, 2, 8))),
        "memory": [{"pairs": 2, "peak": 100}, {"pairs": 9, "peak": 300}],
    }
    assert [item["met"] for item in evaluate_targets(result)] == [False, False, False, True, False]


def test_a_linked_file_counts_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_bytes(b"12345")
    os.link(tmp_path / "a" / "c", tmp_path / "d")
    found = measure_stored_bytes(tmp_path)
    assert (found["bytes"], found["apparent_bytes"]) == (5, 10)
    assert bytes_by_kind(found["bytes_by_variable"], 1)["the rest"] == 5


def test_time_and_memory_are_those_of_the_other_process():
    run = measure_task("timer_task:busy", HERE, megabytes=80)
    assert run.facts == {"last": ord("1")}
    assert run.seconds > 0.1
    assert 80e6 < run.peak < 400e6
    assert measure_task("timer_task:busy", HERE, megabytes=1).peak < run.peak - 60e6


def test_a_failed_row_ends_the_measurement():
    with pytest.raises(RuntimeError, match="no_such_function ended with 1"):
        measure_task("timer_task:no_such_function", HERE)


def test_real_rasters_can_stand_beside_the_simulated_ones(shared_data):
    found = find_rasters(shared_data / "licsar")
    assert len(found) == 6
    numbers = measure_complexity(found[:1])
    assert 0.6 < numbers.nodata < 0.8
    assert 3 < numbers.phase_stored < numbers.phase_file < 4.2
