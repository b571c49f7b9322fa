"""Tests of samples, and of the series formed by the paper's rule."""

from __future__ import annotations

import random
from collections.abc import Collection
from datetime import date, timedelta
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_files import annotation, real_annotations
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import published_frames
from hephaestus_build.dataset.samples import (
    Sample,
    make_series,
    published_absent_pairs,
    region_of,
    samples_from_annotations,
    samples_from_cube,
)

ETNA = Frame("124D_05291_081406")
DAY = date(2018, 1, 1)


def group(count: int, positive: Collection[int] = ()) -> list[Sample]:
    return [
        Sample(ETNA, Pair(DAY, DAY + timedelta(6 * (index + 1))), index in positive, index, "etna")
        for index in range(count)
    ]


def entries(samples: list[Sample], **options: int) -> list[list[int]]:
    return [[sample.unique_id for sample in series.members] for series in make_series(samples, **options)]


def test_short_groups_repeat_entries_in_order() -> None:
    assert entries(group(1)) == [[0, 0, 0]]
    assert entries(group(2)) == [[0, 0, 1]]
    assert entries(group(3)) == [[0, 1, 2]]
    assert [series.has_repeats for series in make_series(group(2))] == [True]
    assert [series.has_repeats for series in make_series(group(3))] == [False]


def test_long_groups_are_cut_into_triples_that_share_nothing() -> None:
    assert entries(group(7)) == [[0, 1, 2], [3, 4, 5]]


def test_long_training_groups_with_deformation_may_share_one_entry() -> None:
    assert entries(group(5, {2}), share_positive=2) == [[0, 1, 2], [0, 3, 4]]
    assert entries(group(5), share_positive=2) == [[0, 1, 2]]  # no deformation: nothing shared


@given(count=st.integers(1, 12), length=st.integers(1, 4), limit=st.integers(1, 3), seed=st.integers(0, 99))
def test_series_keep_order_are_maximal_and_do_not_depend_on_the_order_given(
    count: int, length: int, limit: int, seed: int
) -> None:
    limit = min(limit, length)
    samples = group(count, {0})
    result = entries(samples, length=length, share_positive=limit)
    shuffled = random.Random(seed).sample(samples, count)
    assert entries(shuffled, length=length, share_positive=limit) == result
    assert all(series == sorted(series) for series in result)
    if count <= length:
        assert [set(series) for series in result] == [set(range(count))]
        return
    for one, other in combinations(result, 2):
        assert len({*one} & {*other}) < limit
    # greedy in lexicographic order: whatever is not kept shares too much with something kept before it
    for candidate in combinations(range(count), length):
        if list(candidate) not in result:
            earlier = [kept for kept in result if tuple(kept) < candidate]
            assert any(len({*candidate} & {*kept}) >= limit for kept in earlier)


def test_only_good_interferograms_are_samples_and_absent_ones_are_not() -> None:
    items = [
        annotation(pair="20180101_20180113", unique_id=1),
        annotation(pair="20180101_20180125", unique_id=2, corrupted=1),
        annotation(pair="20180101_20180206", unique_id=3, processing_error=3),
        annotation(pair="20180101_20180218", unique_id=4, no_info=1),
        annotation(pair="20180101_20180302", unique_id=5, no_info=-1),
        annotation(pair="20180101_20180314", unique_id=6, label=("Earthquake",), phase="None"),
        annotation(pair="20180101_20180326", unique_id=7),
    ]
    absent = [(ETNA, Pair.parse("20180101_20180326"))]
    samples = samples_from_annotations(reversed(items), absent)
    assert [(sample.unique_id, sample.positive, sample.region) for sample in samples] == [
        (1, False, "etna"), (6, True, "etna"),
    ]  # fmt: skip


def cube(frame: str = ETNA.id) -> xr.Dataset:
    primaries = np.array(["2018-01-01", "2018-01-13"], "datetime64[ns]")
    secondaries = np.array(["2018-01-13", "2018-01-25", "2018-02-06"], "datetime64[ns]")
    dims = ("primary_date", "secondary_date")
    valid = np.array([[1, 1, 1], [0, 1, 1]], bool)
    annotated = np.array([[1, 1, 1], [0, 1, 0]], bool)

    def table(value: object, fill: object, dtype: object) -> tuple[tuple[str, str], np.ndarray]:
        return dims, np.where(annotated, np.full((2, 3), value, dtype), fill).astype(dtype)  # type: ignore[arg-type]

    data = {
        "valid_date_pair": (dims, valid),
        "annotated": (dims, annotated),
        "corrupted": table(0, -1, "int8"),
        "processing_error": table(0, -1, "int8"),
        "no_info": table(0, -1, "int8"),
        "phase": (dims, np.array([["Rest", "Unrest", ""], ["", "None", ""]], object)),
        "unique_id": (dims, np.array([[1, 2, 3], [-1, 4, -1]], "int32")),
        "deformation_mask": ((*dims, "latitude", "longitude"), np.zeros((2, 3, 2, 2), "uint8")),
    }
    coordinates = {
        "primary_date": primaries, "secondary_date": secondaries,
        "latitude": [37.8, 37.6], "longitude": [14.9, 15.1],
    }  # fmt: skip
    return xr.Dataset(data, coordinates, {"frame": frame})


def test_a_cube_gives_the_samples_that_it_holds_and_an_expert_saw() -> None:
    samples = samples_from_cube(cube())
    assert [(s.pair.name, s.positive, s.unique_id) for s in samples] == [
        ("20180101_20180113", False, 1),
        ("20180101_20180125", True, 2),
        ("20180101_20180206", False, 3),  # no phase: its mask is empty
        ("20180113_20180125", True, 4),
    ]
    marked = cube()
    marked["deformation_mask"][0, 2, 1, 1] = 1
    assert samples_from_cube(marked)[2].positive
    bad = cube()
    bad["corrupted"][0, 0] = 1
    bad["valid_date_pair"][0, 1] = False
    assert [s.unique_id for s in samples_from_cube(bad.transpose("secondary_date", ...))] == [3, 4]


def test_a_cube_that_lacks_a_table_says_which() -> None:
    with pytest.raises(HephaestusError, match="no_info"):
        samples_from_cube(cube().drop_vars("no_info"))
    with pytest.raises(HephaestusError, match="does not name its frame"):
        samples_from_cube(cube().drop_attrs())


def test_frames_of_one_volcano_are_one_region_whoever_built_them() -> None:
    assert region_of(Frame("106A_09090_000404")) == region_of(Frame("128D_09016_110500")) == "galapagos"
    assert samples_from_cube(cube("001D_05291_081406"))[0].region == "etna"
    assert region_of(Frame("001D_05291_081406"), (-140.0, 0.0)) == "001D_05291_081406"
    assert samples_from_cube(cube("198A_00210_131313"))[0].region == "198A_00210_131313"


def test_no_volcano_is_in_two_regions() -> None:
    def plain(name: str) -> str:
        return "".join(letter for letter in name.lower() if letter.isalpha())

    regions: dict[str, set[str]] = {}
    for frame in published_frames().values():
        for volcano in frame.volcanoes:
            regions.setdefault(plain(volcano), set()).add(frame.region)
    shared = {volcano for volcano, names in regions.items() if len(names) > 1}
    assert shared == {"cerroazul"}  # one in the Galapagos, another in Chile


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_no_rule_depends_on_the_order_of_files(chance: random.Random) -> None:
    items = [
        annotation(
            pair=f"2018010{day}_2018{month:02d}01",
            unique_id=10 * day + month,
            corrupted=(day * month) % 3 == 0,
        )
        for day in range(1, 4)
        for month in range(2, 7)
    ]
    straight = samples_from_annotations(items)
    chance.shuffle(items)
    assert samples_from_annotations(items) == straight
    assert make_series(samples_from_annotations(items)) == make_series(straight)


def test_the_published_absent_pairs_are_good_annotated_pairs(shared_data: Path) -> None:
    real = real_annotations(shared_data)
    absent = published_absent_pairs()
    assert len(absent) == 15
    assert {(sample.frame, sample.pair) for sample in samples_from_annotations(real, absent=())} >= absent
    assert len(samples_from_annotations(real)) == 18_911
