"""Tests of channel statistics: training samples and valid pixels only, independent of the cubes' history."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from hephaestus_build.cli.statistics import app
from hephaestus_build.core.errors import HephaestusError, MissingProductsError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.dataset.channel_statistics import read_statistics, update_statistics
from hephaestus_build.dataset.running_moments import DATE_CHANNELS, RunningMoments, compute_product_moments
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import Split, make_split, split_rule

FRAME = Frame("198A_00210_131313")
DAYS = [date(2018, 1, 1), date(2018, 1, 13), date(2018, 1, 25), date(2020, 1, 1), date(2020, 1, 13)]
PAIRS = [Pair(DAYS[0], DAYS[1]), Pair(DAYS[0], DAYS[2]), Pair(DAYS[1], DAYS[2]), Pair(DAYS[3], DAYS[4])]

floats = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, st.integers(0, 40), elements=floats), st.integers(0, 40), st.integers(0, 5))
def test_moments_add_up_to_those_of_all_values(values: np.ndarray, cut: int, number: int) -> None:
    total = RunningMoments.from_values(values[:cut]) + RunningMoments.from_values(values[cut:])
    assert total.count == values.size
    if values.size:
        exact = values.astype(np.float64)
        assert total.mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-6)
        assert total.std == pytest.approx(exact.std(), rel=1e-6, abs=1e-4)
    repeated = RunningMoments.from_values(values).repeated(number)
    again = RunningMoments.from_values(np.tile(values, number))
    assert repeated.count == again.count
    assert repeated.mean == pytest.approx(again.mean, rel=1e-9, abs=1e-6)
    assert repeated.m2 == pytest.approx(again.m2, rel=1e-6, abs=1e-2)


def test_large_values_keep_their_small_deviations() -> None:
    values = (2.4e6 + np.arange(3_000_000) % 7).astype(np.float64)
    moments = RunningMoments.from_values(values)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.std == pytest.approx(values.std(), rel=1e-9)


@given(arrays(np.uint8, (7, 9)))
def test_coherence_counts_no_zeros_unless_asked(values: np.ndarray) -> None:
    measured = compute_product_moments("insar_coherence", values)
    valid = values[values > 0].astype(float)
    assert measured.valid.count == valid.size
    if valid.size:
        assert measured.valid.mean == pytest.approx(valid.mean())
        assert measured.valid.std == pytest.approx(valid.std(), abs=1e-9)
    published = measured.for_convention("published")
    assert published.count == values.size
    assert published.mean == pytest.approx(values.mean())
    assert published.std == pytest.approx(values.std())


def test_what_holds_no_data_is_told_apart_by_channel() -> None:
    values = np.array([[0.0, 1.0], [np.nan, -3.0]], np.float32)
    phase, dem = compute_product_moments("insar_difference", values), compute_product_moments("dem", values)
    assert (phase.valid.count, phase.valid.mean, phase.zero_count) == (2, -1.0, 1)
    assert (dem.valid.count, dem.zero_count) == (3, 0)  # sea level is a height


def write_cube(folder: Path, pairs: list[Pair], seed: int = 0) -> None:
    chance = np.random.default_rng(seed)
    primaries, secondaries = (sorted({pair.dates[side] for pair in pairs}) for side in (0, 1))
    grid = (4, 5)
    shape = (len(primaries), len(secondaries))
    fields = {day: chance.normal(size=(3, *grid)) for day in DAYS}
    images = {pair: chance.normal(size=grid).astype("f4") for pair in PAIRS}
    phase, valid = np.zeros((*shape, *grid), "f4"), np.zeros(shape, bool)
    for pair in pairs:
        index = primaries.index(pair.primary), secondaries.index(pair.secondary)
        phase[index], valid[index] = images[pair], True
    phase[..., 0] = 0
    dims = ("primary_date", "secondary_date")
    data = {
        "insar_difference": ((*dims, "latitude", "longitude"), phase),
        "insar_coherence": ((*dims, "latitude", "longitude"), (np.abs(phase) * 40).astype("u1")),
        "valid_date_pair": (dims, valid),
        "dem": (("latitude", "longitude"), np.arange(20, dtype="f4").reshape(grid)),
    }
    for axis, days in (("primary_date", primaries), ("secondary_date", secondaries)):
        for number, channel in enumerate(DATE_CHANNELS):
            stack = np.stack([fields[day][number] for day in days]).astype("f4")
            data[f"{axis}_{channel}"] = ((axis, "latitude", "longitude"), stack)
    coordinates = {
        "primary_date": np.array(primaries, "datetime64[ns]"),
        "secondary_date": np.array(secondaries, "datetime64[ns]"),
    }
    cube = xr.Dataset(data, coordinates, {"frame": FRAME.id, "simulated": True})
    cube.to_zarr(folder / f"{FRAME}.zarr", mode="w", zarr_format=3, consolidated=False)


def split_of(pairs: list[Pair]) -> Split:
    samples = [Sample(FRAME, pair, False, region=FRAME.id) for pair in pairs]
    return make_split(split_rule("strict-temporal"), samples)


pytestmark = pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated metadata")


def test_only_training_samples_count_and_each_counts_what_it_sees(tmp_path: Path) -> None:
    write_cube(tmp_path, PAIRS)
    split = split_of(PAIRS)
    assert [sample.pair for sample in split.parts["train"]] == PAIRS[:3]
    statistics = update_statistics(split, tmp_path)
    with xr.open_zarr(tmp_path / f"{FRAME}.zarr") as cube:
        days = {pair: (np.datetime64(pair.primary), np.datetime64(pair.secondary)) for pair in PAIRS}
        phases = [
            cube.insar_difference.sel(primary_date=one, secondary_date=two).to_numpy()
            for one, two in (days[pair] for pair in PAIRS[:3])
        ]
        pressure = [
            cube[f"{axis}_surface_pressure"].sel({axis: day}).to_numpy()
            for pair in PAIRS[:3]
            for axis, day in zip(("primary_date", "secondary_date"), days[pair], strict=True)
        ]
    valid = np.stack(phases)[np.stack(phases) != 0]
    channels = statistics.moments_by_channel()
    assert channels["insar_difference"].count == valid.size == 3 * 16
    assert channels["insar_difference"].mean == pytest.approx(valid.mean(dtype=float))
    assert channels["insar_difference"].std == pytest.approx(valid.std(dtype=float))
    assert channels["surface_pressure"].count == 6 * 20
    assert channels["surface_pressure"].mean == pytest.approx(np.mean(pressure, dtype=float))
    assert channels["surface_pressure"].std == pytest.approx(np.std(pressure, dtype=float))
    assert channels["dem"].count == 3 * 20
    published = statistics.moments_by_channel("published")["insar_difference"]
    assert published.count == 3 * 20
    assert published.std == pytest.approx(np.stack(phases).std(dtype=float))
    assert statistics.simulated
    assert statistics.sha256 == split.sha256


def test_grown_cubes_give_the_statistics_of_a_fresh_run(tmp_path: Path) -> None:
    write_cube(tmp_path, PAIRS[:1])
    small = update_statistics(split_of(PAIRS), tmp_path)
    assert small.missing == {FRAME.id: 2}
    write_cube(tmp_path, PAIRS)
    path = tmp_path / "statistics" / "one.json"
    small.write(path)
    grown = update_statistics(split_of(PAIRS), tmp_path, read_statistics(path))
    assert grown == update_statistics(split_of(PAIRS), tmp_path)
    assert grown.missing == {}
    grown.write(path)
    assert read_statistics(path) == grown
    assert read_statistics(path).moments_by_channel() == grown.moments_by_channel()


def test_missing_samples_are_owed_and_the_statistics_are_written(tmp_path: Path) -> None:
    write_cube(tmp_path, PAIRS[:1])
    split_of(PAIRS).write(tmp_path / "one.json")
    words = ["update", str(tmp_path / "one.json"), "--cubes", str(tmp_path), "--data-dir", str(tmp_path)]
    owed = CliRunner().invoke(app, words).exception
    assert isinstance(owed, MissingProductsError)
    assert owed.exit_code == 3
    assert "2 training samples of 1 frame " in str(owed)
    assert read_statistics(next((tmp_path / "simulated" / "statistics").glob("*.json"))).missing == {
        FRAME.id: 2
    }
    write_cube(tmp_path, PAIRS)
    assert CliRunner().invoke(app, words).exit_code == 0


def test_a_frame_without_a_cube_is_missing_not_forgotten(tmp_path: Path) -> None:
    statistics = update_statistics(split_of(PAIRS), tmp_path)
    assert statistics.missing == {FRAME.id: 3}
    assert statistics.products == {}


@pytest.mark.parametrize("content", ["", "{}", '{"format": "another"}', "[]"])
def test_damaged_statistics_are_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    with pytest.raises(HephaestusError, match="hephaestus statistics update"):
        read_statistics(path)
