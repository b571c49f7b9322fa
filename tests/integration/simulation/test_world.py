"""Tests of the simulated world: deterministic, and consistent with the physics that it models."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.acquisition_schedule import acquisition_dates, form_pairs
from hephaestus_build.simulation.world.coarse_grid import CoarseGrid
from hephaestus_build.simulation.world.deformation_sources import SIMULATED_ACTIVITIES
from hephaestus_build.simulation.world.frame_catalog import (
    FRAME_SPECS,
    HIGH_LATITUDE_FRAME,
    ORDINARY_FRAME,
    STRIPMAP_FRAME,
)
from hephaestus_build.simulation.world.frame_scene import EFFECTIVE_LOOKS, RADIANS_PER_METRE
from hephaestus_build.simulation.world.random_fields import fractal_field, random_stream
from hephaestus_build.simulation.world.weather import (
    DRY_DELAY_PER_PASCAL,
    PRESSURE_SCALE_HEIGHT,
    VAPOUR_SCALE_HEIGHT,
    WET_DELAY_PER_VAPOUR,
)
from hephaestus_build.simulation.world.world import World
from small_world import small_world

PAIR = Pair.parse("20190317_20190329")


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def test_the_same_seed_is_the_same_world_in_any_order(world: World) -> None:
    other = World()
    pairs = list(world.pairs(ORDINARY_FRAME))[:3]
    forwards = [world.phase(ORDINARY_FRAME, pair) for pair in pairs]
    backwards = [other.phase(ORDINARY_FRAME, pair.name) for pair in reversed(pairs)][::-1]
    for one, two in zip(forwards, backwards, strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(forwards[0], World(seed=1).phase(ORDINARY_FRAME, pairs[0]))


def test_a_frame_does_not_depend_on_which_others_there_are() -> None:
    every, alone = World(size=(60, 70), epochs=6), World(size=(60, 70), epochs=6, frames=[STRIPMAP_FRAME])
    assert alone.frames == (STRIPMAP_FRAME,)
    pair = every.pairs(STRIPMAP_FRAME)[1]
    assert np.array_equal(alone.coherence(STRIPMAP_FRAME, pair), every.coherence(STRIPMAP_FRAME, pair))
    assert alone.annotations(STRIPMAP_FRAME) == every.annotations(STRIPMAP_FRAME)


def test_what_is_not_there_is_refused_in_one_line() -> None:
    for wrong in ({"frames": ["199A_00000_000000"]}, {"size": "huge"}, {"oddities": ["gremlin"]}):
        with pytest.raises(UsageError) as raised:
            World(**wrong)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_frames_are_ones_that_no_satellite_sees(world: World) -> None:
    assert all(Frame(name).is_simulated for name in world.frames)
    assert ["_SM_" in name for name in world.frames] == [False, False, True]
    assert world.scene(STRIPMAP_FRAME).grid.dx == 0.0005
    assert world.scene(HIGH_LATITUDE_FRAME).grid.bounds[1] > 65
    for name in world.frames:
        grid = world.scene(name).grid
        for origin in (grid.west, grid.north):
            assert abs(origin / grid.dx - round(origin / grid.dx)) > 0.05
    rolled = world.scene(HIGH_LATITUDE_FRAME).acquisition_time(date(2019, 3, 9)) + timedelta(minutes=30)
    assert rolled.date() == date(2019, 3, 10)


@pytest.mark.parametrize("size", [(2500, 3000), (211, 97)])
def test_another_size_shows_the_same_volcano(size: tuple[int, int], world: World) -> None:
    scene = World(size=size, frames=[ORDINARY_FRAME]).scene(ORDINARY_FRAME)
    assert scene.grid.shape == size
    assert scene.displacement(PAIR).shape == size
    small = world.scene(ORDINARY_FRAME)
    assert scene.displacement(PAIR).max() == pytest.approx(small.displacement(PAIR).max(), rel=0.1)


# the air


def test_a_grid_point_has_one_value_whatever_area_is_asked(world: World) -> None:
    time = datetime(2019, 8, 20, 19)
    wide = world.era5_fields(time, np.arange(45, 29.9, -0.25), np.arange(-35, -9.9, 0.25))
    part = world.era5_fields(time, np.arange(38.5, 36.9, -0.25), np.arange(335, 336.6, 0.25))
    assert wide.shape == (3, 61, 101)
    assert wide.dtype == np.float32
    assert np.array_equal(wide[:, 26:33, 40:47], part)


def test_fields_are_what_an_atmosphere_can_be(world: World) -> None:
    latitudes, longitudes = np.arange(90, -90.1, -3), np.arange(0, 360, 3)
    for month in (1, 7):
        vapour, pressure, temperature = world.era5_fields(datetime(2020, month, 5, 6), latitudes, longitudes)
        assert 0.5 < vapour.min() < 6
        assert 45 < vapour.max() < 95
        assert 93_000 < pressure.min() < pressure.max() < 107_000
        assert 2.2e6 < temperature.min() < temperature.max() < 2.8e6
        tropics = np.abs(latitudes) < 15
        assert vapour[tropics].mean() > 4 * vapour[np.abs(latitudes) > 60].mean()
    # summer is moister and warmer than winter on both sides of the equator
    july, january = (
        world.era5_fields(datetime(2020, month, 20), np.array([45.0, -45.0]), longitudes).mean(axis=2)
        for month in (7, 1)
    )
    assert july[0, 0] > 1.3 * january[0, 0]
    assert january[0, 1] > 1.3 * july[0, 1]
    assert july[2, 0] > january[2, 0]


def test_weather_moves(world: World) -> None:
    place = np.array([37.75]), np.array([-24.25])
    series = [world.era5_fields(datetime(2019, 3, 5) + timedelta(hours=hour), *place) for hour in range(96)]
    vapour, pressure, _ = np.array(series)[:, :, 0, 0].T
    assert np.ptp(vapour) > 0.5
    assert 200 < np.ptp(pressure) < 8000
    assert np.abs(np.diff(pressure)).max() < 250  # and not by jumps


def test_the_delay_follows_from_the_fields(world: World) -> None:
    scene = world.scene(ORDINARY_FRAME)
    time = datetime(2019, 3, 17, 18, 41)
    rows, columns = np.array([20, 130, 280]), np.array([40, 190, 300])
    stratified = world.weather.zenith_delay(time, scene.height, scene.grid.latitudes, scene.grid.longitudes)
    for row, column in zip(rows, columns, strict=True):
        latitude, longitude = scene.grid.latitudes[row], scene.grid.longitudes[column]
        north, west = np.ceil(latitude * 4) / 4, np.floor(longitude * 4) / 4
        nodes = np.array([north, north - 0.25]), np.array([west, west + 0.25])
        vapour, pressure, _ = world.era5_fields(time, *nodes).astype(float)
        ground = world.weather.orography(*nodes)
        down, right = (north - latitude) / 0.25, (longitude - west) / 0.25
        weights = np.outer([1 - down, down], [1 - right, right])
        height = float(scene.height[row, column])
        wet = (weights * vapour * np.exp((ground - height) / VAPOUR_SCALE_HEIGHT)).sum()
        dry = (weights * (pressure * np.exp(ground / PRESSURE_SCALE_HEIGHT) - 101_325)).sum()
        expected = WET_DELAY_PER_VAPOUR * wet + DRY_DELAY_PER_PASCAL * dry * np.exp(
            -height / PRESSURE_SCALE_HEIGHT
        )
        assert stratified[row, column] == pytest.approx(expected, abs=2e-5)


def test_the_whole_delay_is_turbulent_too(world: World) -> None:
    scene = world.scene(ORDINARY_FRAME)
    day = date(2019, 3, 17)
    rest = scene.zenith_delay(day) - world.weather.zenith_delay(
        scene.acquisition_time(day), scene.height, scene.grid.latitudes, scene.grid.longitudes
    )
    assert 0.001 < rest.std() < 0.015
    assert abs(np.corrcoef(rest.ravel(), scene.height.ravel())[0, 1]) < 0.6
    steps = np.abs(np.diff(rest, axis=1)).mean()
    assert steps < 0.2 * rest.std()  # neighbouring values are similar


# the interferogram


def test_phase_is_wrapped_and_exact_zero_is_no_data(world: World) -> None:
    for name in world.frames:
        scene = world.scene(name)
        seen = scene.simulate_interferogram(scene.pairs[0])
        assert seen.phase.dtype == np.float32
        assert seen.coherence.dtype == np.uint8
        assert -np.pi < seen.phase.min() < -3
        assert 3 < seen.phase.max() < np.pi
        assert np.array_equal(seen.phase != 0, scene.valid_mask)
        assert np.array_equal(seen.coherence != 0, scene.valid_mask)
        assert 0.05 < (~scene.valid_mask).mean() < 0.6  # sea, slanted edges of the swath, layover
        assert (scene.height[scene.valid_mask] > 0).all()
        turns = (seen.unwrapped - seen.phase) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.rint(turns), atol=1e-4)


def test_three_interferograms_of_three_days_close_within_their_noise(world: World) -> None:
    scene = world.scene(ORDINARY_FRAME)
    first, second, third = scene.epochs[:3]
    loops = [
        world.phase(ORDINARY_FRAME, Pair(first, second)),
        world.phase(ORDINARY_FRAME, Pair(second, third)),
        -world.phase(ORDINARY_FRAME, Pair(first, third)),
    ]
    clear = (
        np.min([world.coherence(ORDINARY_FRAME, Pair(first, day)) for day in (second, third)], axis=0) > 220
    )
    closure = np.angle(np.exp(1j * np.sum(loops, axis=0)))[clear]
    assert clear.sum() > 1000
    assert np.abs(closure).mean() < 0.25
    assert np.abs(closure.mean()) < 0.02


def test_noise_is_what_coherence_says(world: World) -> None:
    scene = world.scene(STRIPMAP_FRAME)
    pair = scene.pairs[0]
    error = np.angle(np.exp(1j * (world.phase(STRIPMAP_FRAME, pair) - scene.noise_free_phase(pair))))[
        scene.valid_mask
    ]
    coherence = scene.true_coherence(pair)[scene.valid_mask]
    for low, high in ((0.5, 0.6), (0.7, 0.8), (0.85, 0.9)):
        some = (coherence > low) & (coherence < high)
        middle = coherence[some].mean()
        expected = np.sqrt((1 - middle**2) / (2 * EFFECTIVE_LOOKS * middle**2))
        assert some.sum() > 500
        assert error[some].std() == pytest.approx(expected, rel=0.12)
    estimate = world.coherence(STRIPMAP_FRAME, pair)[scene.valid_mask] / 255
    assert np.corrcoef(estimate, coherence)[0, 1] > 0.75
    some = (coherence > 0.75) & (coherence < 0.85)
    assert estimate[some].mean() == pytest.approx(coherence[some].mean(), abs=0.02)


def test_coherence_is_lost_with_time_and_under_plants(world: World) -> None:
    scene = world.scene(ORDINARY_FRAME)
    start = scene.epochs[0]
    mean = [scene.true_coherence(Pair(start, day))[scene.valid_mask].mean() for day in scene.epochs[1:5]]
    assert all(sooner > later for sooner, later in pairwise(mean))
    bare, grown = scene.vegetation < 0.2, scene.vegetation > 0.6
    kept = scene.true_coherence(Pair(start, scene.epochs[4]))
    assert kept[bare].mean() > 2 * kept[grown].mean()


def test_deformation_is_in_the_phase(world: World) -> None:
    scene = world.scene(ORDINARY_FRAME)
    moved = scene.displacement(PAIR)
    assert moved.max() > 0.03
    air = np.subtract(*(scene.zenith_delay(day) for day in reversed(PAIR.dates))) / scene.line_of_sight[2]
    np.testing.assert_allclose(scene.noise_free_phase(PAIR), RADIANS_PER_METRE * (air - moved), atol=1e-3)


def test_a_new_revision_differs_in_noise_alone(world: World) -> None:
    before, after = (world.phase(ORDINARY_FRAME, PAIR, revision) for revision in (0, 1))
    assert not np.array_equal(before, after)
    clear = world.coherence(ORDINARY_FRAME, PAIR) > 225
    assert np.abs(np.angle(np.exp(1j * (before - after)))[clear]).mean() < 0.25


# what happens over the years


def test_schedules() -> None:
    small = acquisition_dates(14)
    assert len(small) == 14
    assert [day.year for day in small].count(2020) == 4
    assert acquisition_dates(14, shift=4)[0] == small[0] + timedelta(days=4)
    long = acquisition_dates(90, date(2014, 10, 10))
    assert long[0] == date(2014, 10, 10)
    assert {(later - sooner).days for sooner, later in pairwise(long)} == {12}
    assert acquisition_dates(60)[0] < date(2019, 1, 1) < date(2020, 2, 1) < acquisition_dates(60)[-1]
    with pytest.raises(ValueError, match="at least 2"):
        acquisition_dates(1)


def test_pairs_connect_all_epochs() -> None:
    for count in (2, 5, 14, 40):
        epochs = acquisition_dates(count)
        pairs = form_pairs(epochs)
        assert list(pairs) == sorted(set(pairs))
        reached = {epochs[0]}
        for pair in pairs:
            if pair.primary in reached:
                reached.add(pair.secondary)
        assert reached == set(epochs)
    assert 24 <= len(form_pairs(acquisition_dates(14))) <= 30


def test_places_keep_to_their_rules() -> None:
    assert len({place.id for place in FRAME_SPECS}) == 3
    for place in FRAME_SPECS:
        assert len({source.name for source in place.sources}) == len(place.sources)
        assert {source.activity for source in place.sources} <= set(SIMULATED_ACTIVITIES)


# the tools it is made with


def test_enlarging_keeps_a_slope_and_the_nodes_cover_the_grid() -> None:
    for size, step in ((11, 3), (12, 3), (1, 4), (7, 1)):
        nodes = CoarseGrid(Grid(size, size + 5, 10.0, 60.0, 0.001, 0.001), step)
        slope = 2.0 * nodes.rows[:, None] - 0.5 * nodes.columns[None, :]
        expected = 2.0 * np.arange(size + 5)[:, None] - 0.5 * np.arange(size)[None, :]
        np.testing.assert_allclose(nodes.interpolate(slope), expected, atol=1e-4)
        np.testing.assert_allclose(nodes.interpolate(slope, 2), expected[::2, ::2], atol=1e-4)


def test_a_fractal_is_rougher_the_flatter_its_spectrum() -> None:
    rough, smooth = (fractal_field((90, 70), slope, random_stream(3, "x")) for slope in (1.5, 3.5))
    for field in (rough, smooth):
        assert field.shape == (90, 70)
        assert abs(field.mean()) < 1e-3
        assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(rough)).mean() > 3 * np.abs(np.diff(smooth)).mean()
