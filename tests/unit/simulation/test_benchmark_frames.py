"""Tests of the frames of the benchmark: unrest at places that neither terrain nor history gives away."""

from __future__ import annotations

from datetime import date

import pytest

from hephaestus_build.core.bounds import great_circle_km
from hephaestus_build.simulation.world.benchmark_frames import benchmark_frame_specs
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS, FrameSpec

#: First days of validation and of test in `strict-temporal`.
VALIDATION, TEST = date(2019, 6, 1), date(2020, 1, 1)


@pytest.mark.parametrize(
    "spec", [*benchmark_frame_specs(), *benchmark_frame_specs(1)], ids=lambda spec: spec.id
)
def test_each_episode_has_a_place_of_its_own_in_the_frame(spec: FrameSpec) -> None:
    rows, columns = spec.shapes["small"]
    places = [(source.latitude, source.longitude) for source in spec.sources]
    assert len(set(places)) == len(places)
    for latitude, longitude in places:
        assert abs(latitude - spec.latitude) < 0.4 * rows * spec.pixel_size
        assert abs(longitude - spec.longitude) < 0.4 * columns * spec.pixel_size
    summits = [(cone.latitude, cone.longitude) for cone in spec.terrain.volcanoes]
    near = sum(any(great_circle_km(*place, *summit) < 3 for summit in summits) for place in places)
    assert near < len(places) / 2
    # each acts once, and each part of the splits by time has some
    days = [source.history.first for source in spec.sources]
    assert all(source.history.period > 50_000 for source in spec.sources)
    assert min(days) < VALIDATION
    assert any(VALIDATION <= day < TEST for day in days)
    assert max(days) >= TEST


def test_the_benchmark_has_the_frames_of_the_catalog_and_the_same_ones_each_time() -> None:
    before = [spec.id for spec in FRAME_SPECS]
    assert [spec.id for spec in benchmark_frame_specs()] == before
    first = [(source.latitude, source.longitude) for source in benchmark_frame_specs()[0].sources]
    benchmark_frame_specs.cache_clear()
    assert first == [(source.latitude, source.longitude) for source in benchmark_frame_specs()[0].sources]
    assert all(
        len(spec.terrain.volcanoes) > len(known.terrain.volcanoes)
        for spec, known in zip(benchmark_frame_specs(), FRAME_SPECS, strict=True)
    )


def test_another_world_has_other_episodes_and_several_times_as_many_in_test() -> None:
    worlds = [benchmark_frame_specs(world) for world in (0, 1, 2)]
    for frames in zip(*worlds, strict=True):
        assert len({frame.id for frame in frames}) == 1
        places = [{(source.latitude, source.longitude) for source in frame.sources} for frame in frames]
        assert places[0].isdisjoint(places[1])
        assert places[1].isdisjoint(places[2])
    learning, testing = (
        [
            sum((source.history.first >= TEST) == late for frame in world for source in frame.sources)
            for world in worlds
        ]
        for late in (False, True)
    )
    assert max(learning) - min(learning) <= len(worlds[0])  # as many to learn from
    assert min(testing[1:]) >= 4 * testing[0]
