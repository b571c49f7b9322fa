"""Tests that splits keep their promises, and that the audit finds violations."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_files import annotation, real_annotations
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.dataset.coverage import (
    count_visible,
    find_earthquakes_alone,
    summarize_coverage,
    visible_from_annotations,
)
from hephaestus_build.dataset.deformation_events import (
    REARMING_DAYS,
    DeformationEvent,
    find_events,
    find_same_places,
)
from hephaestus_build.dataset.samples import (
    Sample,
    count_classes,
    published_absent_pairs,
    region_of,
    samples_from_annotations,
)
from hephaestus_build.dataset.split_leakage import audit_split
from hephaestus_build.dataset.splits import PARTS, Split, make_split, read_split, split_names, split_rule
from hephaestus_build.dataset.tiling import Tile, TilingMode

FRAMES = (
    "124D_05291_081406",
    "128D_09016_110500",
    "106A_09090_000404",
    "087D_07004_060904",
    "198A_00210_131313",
)

samples_strategy = st.lists(
    st.builds(
        lambda frame, primary, length, positive: Sample(
            Frame(frame),
            Pair(date(2014, 1, 1) + timedelta(primary), date(2014, 1, 1) + timedelta(primary + length)),
            positive,
            region=region_of(Frame(frame)),
        ),
        st.sampled_from(FRAMES),
        st.integers(0, 3600),
        st.integers(1, 400),
        st.booleans(),
    ),
    unique=True,
    max_size=60,
)
names_strategy = st.sampled_from(split_names())


@given(samples_strategy, names_strategy, st.randoms(use_true_random=False))
def test_splits_are_disjoint_in_what_they_promise(
    samples: list[Sample], name: str, chance: random.Random
) -> None:
    rule = split_rule(name)
    split = make_split(rule, samples)
    everything = [
        *(s for part in PARTS for s in split.parts[part]),
        *(s for v in split.left_out.values() for s in v),
    ]
    assert sorted(everything) == sorted(samples)
    for kind, keys in (
        ("acquisitions", lambda sample: sample.acquisitions),
        ("regions", lambda sample: [sample.region]),
    ):
        if kind in split.promises:
            held = [{key for sample in split.parts[part] for key in keys(sample)} for part in PARTS]
            assert not (held[0] & held[1] | held[0] & held[2] | held[1] & held[2])
    if "boundaries" in split.promises:
        for region in {sample.region for sample in samples}:
            ends = [
                [day for sample in split.parts[part] if sample.region == region for day in sample.pair.dates]
                for part in PARTS
            ]
            filled = [days for days in ends if days]
            assert all(max(one) < min(other) for one, other in pairwise(filled))
    assert audit_split(split).passed
    chance.shuffle(samples)
    assert make_split(rule, samples).sha256 == split.sha256


@given(samples_strategy, samples_strategy, names_strategy)
def test_a_further_pair_or_cube_never_moves_a_sample(
    before: list[Sample], further: list[Sample], name: str
) -> None:
    rule = split_rule(name)
    small = {s: part for part, members in make_split(rule, before).parts.items() for s in members}
    large = {s: p for p, members in make_split(rule, [*{*before, *further}]).parts.items() for s in members}
    assert small.items() <= large.items()
    assert {s for s in before if s not in small} == {s for s in before if s not in large}


def test_the_paper_split_ends_with_the_paper() -> None:
    late = Sample(Frame(FRAMES[0]), Pair.parse("20220101_20220113"), False, region="etna")
    assert split_rule("paper").part_of(late) == (None, "primary date beyond 2014-01-01 to 2021-12-31")
    assert split_rule("strict-temporal").part_of(late) == ("test", "")


def test_the_paper_split_has_the_published_samples_alone() -> None:
    """Cubes have pairs that the published benchmark lacked; annotations leave them out already."""
    absent = [Sample(*key, False, region=region_of(key[0])) for key in sorted(published_absent_pairs())]
    other = Sample(Frame("001A_00001_000001"), Pair.parse("20180101_20180113"), True, region="other")
    simulated = Sample(Frame(FRAMES[4]), other.pair, True, region="simulated")
    split = make_split(split_rule("paper"), [*absent, other, simulated])
    assert split.left_out == {"not in the published benchmark": (other, *absent)}
    assert split.parts["train"] == (simulated,)
    assert split_rule("strict-temporal").part_of(other) == ("train", "")


@pytest.mark.parametrize(
    ("pair", "paper", "strict"),
    [
        ("20190519_20190531", "train", "train"),
        ("20190520_20190601", "train", None),
        ("20190601_20190613", "validation", "validation"),
        ("20191219_20191231", "validation", "validation"),
        ("20191220_20200101", "validation", None),
        ("20200101_20200113", "test", "test"),
        ("20180101_20210101", "train", None),
    ],
)
def test_the_boundaries_are_those_of_the_paper(pair: str, paper: str, strict: str | None) -> None:
    sample = Sample(Frame(FRAMES[0]), Pair.parse(pair), True, region="etna")
    assert split_rule("paper").part_of(sample)[0] == paper
    assert split_rule("strict-temporal").part_of(sample)[0] == strict


def test_a_fold_is_known_for_every_region_and_nothing_else() -> None:
    assert split_rule("volcano-out-198A_00210_131313").held_out == {"198A_00210_131313"}
    assert split_rule("volcano-out-etna").validating.isdisjoint({"etna"})
    for name in ("none", "volcano-out", "volcano-out-", "paper-etna"):
        with pytest.raises(UsageError, match="hephaestus splits list"):
            split_rule(name)
    known = {frame.region for frame in published_frames().values()}
    [folds] = [entry["folds"] for entry in load_schema("split_rules.json")["splits"] if "folds" in entry]
    assert set(folds) <= known


def small_split(name: str = "strict-temporal") -> Split:
    samples = [
        Sample(Frame(frame), Pair.parse(pair), positive, region=region_of(Frame(frame)))
        for frame, pair, positive in [
            (FRAMES[0], "20180101_20180113", True),
            (FRAMES[0], "20180101_20180125", False),
            (FRAMES[0], "20190525_20190606", True),
            (FRAMES[4], "20200101_20200113", True),
        ]
    ]
    return make_split(split_rule(name), samples, source={"annotations": "test"})


def test_an_artefact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    split = small_split()
    path = tmp_path / "deep" / "split.json"
    split.write(path)
    content = json.loads(path.read_text())
    jsonschema.validate(content, load_schema("splits.json"))
    assert content["simulated"] is True
    assert content["counts"]["train"] == {
        "single": {"positive": 1, "negative": 1}, "series": {"positive": 1, "negative": 0},
    }  # fmt: skip
    assert content["left_out"] == {
        "spans a boundary": {FRAMES[0]: {"positive": ["20190525_20190606"], "negative": []}}
    }
    again = read_split(path)
    assert again.to_json() == split.to_json()
    assert audit_split(again) == audit_split(split)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content["parts"]["train"].update(
            {FRAMES[1]: {"positive": [], "negative": ["20180101_20180113"]}}
        ),
        lambda content: content["series"]["train"].clear(),
        lambda content: content.update(sha256="0" * 64),
        lambda content: content["counts"]["test"]["single"].update(positive=9),
        lambda content: content.update(format="another/1"),
        lambda content: content.pop("parts"),
        lambda content: content["parts"].update(test=[]),
        lambda content: content["parts"]["train"].update(nonsense={"positive": [], "negative": ["x"]}),
    ],
)
def test_a_changed_artefact_is_refused(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "split.json"
    content = small_split().to_json()
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(HephaestusError, match="hephaestus splits write"):
        read_split(path)


def test_the_hash_tells_labels_members_and_versions_apart() -> None:
    hashes = {small_split().sha256, small_split("paper").sha256}
    flipped = [
        Sample(s.frame, s.pair, not s.positive, region=s.region) for _, s in small_split().samples_with_parts
    ]
    hashes.add(make_split(split_rule("strict-temporal"), flipped).sha256)
    hashes.add(make_split(split_rule("strict-temporal"), flipped[:-1]).sha256)
    assert len(hashes) == 4


def event(members: list[tuple[str, str]]) -> DeformationEvent:
    pairs = tuple((Frame(frame), Pair.parse(pair)) for frame, pair in members)
    days = [day for _, pair in pairs for day in pair.dates]
    return DeformationEvent("made", "etna", min(days), max(days), pairs, {"Dyke": len(pairs)}, None)


def test_the_audit_finds_every_leak_of_the_paper_split() -> None:
    def sample(pair: str, positive: bool, frame: str = FRAMES[0]) -> Sample:
        return Sample(Frame(frame), Pair.parse(pair), positive, region=region_of(Frame(frame)))

    split = make_split(
        split_rule("paper"),
        [
            sample("20190501_20190513", True),
            sample("20190513_20190701", True),
            sample("20190701_20190713", True),
            sample("20200101_20200113", True, FRAMES[3]),
            sample("20200101_20200125", False, FRAMES[3]),
        ],
    )
    result = audit_split(split, [event([(FRAMES[0], "20190513_20190701"), (FRAMES[0], "20190701_20190713")])])
    found = {(leak.kind, leak.parts): leak for leak in result.leaks}
    assert set(found) == {
        ("acquisitions", ("train", "validation")),
        ("boundaries", ("train",)),
        ("events", ("train", "validation")),
        ("regions", ("train", "validation")),
    }
    leak = found["acquisitions", ("train", "validation")]
    assert (leak.shared, leak.samples, leak.positives) == (1, 1, 1)
    assert leak.examples == (f"{FRAMES[0]} 2019-07-01: 1 samples",)
    weights = {weight.part: weight for weight in result.weights}
    assert weights["test"].frames == {FRAMES[3]: 1}
    assert weights["test"].new == (FRAMES[3],)
    assert "hawaii" in weights["test"].dominant
    assert [(item.series, item.repeating) for item in result.repeats] == [(2, 2), (1, 1), (1, 1)]
    assert result.passed  # it promises nothing


def test_a_broken_promise_fails_the_audit() -> None:
    good = small_split()
    leaky = Split(good.name, 1, good.rule, good.promises, {**good.parts, "test": good.parts["train"]})
    result = audit_split(leaky)
    assert result.promises == {"acquisitions": False, "boundaries": False}
    assert not result.passed


def deforming(frame: str, pair: str, left: float, unique_id: int = 1) -> Any:
    square = np.array([(left, 50), (left + 10, 50), (left + 10, 60), (left, 60)], float)
    return annotation(
        frame, pair, unique_id, label=("Deformation",), phase="Unrest", polygons=(square,),
        activity_type=("Dyke",), intensity_level=("Low",),
    )  # fmt: skip


def test_an_event_is_what_overlaps_in_place_and_time() -> None:
    etna = FRAMES[0]
    items = [
        deforming(etna, "20180101_20180113", 100),
        deforming(etna, "20180113_20180125", 105),  # touches in time, overlaps in place
        deforming(etna, "20180107_20180119", 300),  # another place
        deforming(etna, "20180601_20180613", 100),  # another time
        annotation(etna, "20180101_20180301"),
    ]
    events = find_events(items)
    assert [(event.start, len(event.members)) for event in events] == [
        (date(2018, 1, 1), 2), (date(2018, 1, 7), 1), (date(2018, 6, 1), 1),
    ]  # fmt: skip
    assert find_events(items[::-1]) == events
    assert len({event.id for event in events}) == 3
    place = events[0].location
    assert place is not None
    west = 14.5166 - 3360 * 0.001 / 2
    assert place[0] == pytest.approx(west + 107.5 / 0.3 * 0.001, abs=0.01)


@pytest.mark.parametrize(("gap", "events"), [(1, 1), (REARMING_DAYS, 1), (REARMING_DAYS + 1, 2)])
def test_an_event_goes_on_after_a_gap_and_ends_after_a_longer_one(gap: int, events: int) -> None:
    """One inflation is not two events for a day that no pair spans."""
    end = date(2018, 1, 13)
    again = Pair(end + timedelta(gap), end + timedelta(gap + 12))
    items = [deforming(FRAMES[0], "20180101_20180113", 100), deforming(FRAMES[0], again.name, 102)]
    assert len(find_events(items)) == events


def test_an_interferogram_may_show_several_events_and_places_are_compared_at_any_time() -> None:
    first = deforming(FRAMES[0], "20180101_20180113", 100)
    later = deforming(FRAMES[0], "20200101_20200113", 103)
    elsewhere = deforming(FRAMES[0], "20180101_20180125", 300)
    assert find_same_places([later, elsewhere], [first]) == {(later.frame, later.pair)}
    assert find_same_places([first], []) == set()


def test_where_the_geometry_is_uncertain_time_alone_decides() -> None:
    items = [
        deforming("144A_SM_REUN_S6", "20180101_20180113", 100),
        deforming("151D_SM_REUN_S4", "20180107_20180119", 400),
    ]
    [event] = find_events(items)
    assert event.location is None
    assert len(event.members) == 2


#: The splits of the published annotations with the 15 absent pairs left out (docs/splits.md).
HASHES = {
    "paper": "a41720586531",
    "strict-temporal": "9aa793213c4c",
    "unseen-event": "c3772505a895",
    "volcano-out-galapagos": "cbf7ded69904",
}


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[list[Sample], list[DeformationEvent]]:
    annotations = real_annotations(shared_data)
    return samples_from_annotations(annotations), find_events(annotations)


@pytest.mark.parametrize("name", ["strict-temporal", "unseen-event", "volcano-out-galapagos"])
def test_the_real_splits_keep_their_promises(
    name: str, real: tuple[list[Sample], list[DeformationEvent]]
) -> None:
    samples, events = real
    split = make_split(split_rule(name), samples)
    assert audit_split(split, events).passed
    assert all(count_classes(split.parts["test"]).values())
    assert split.sha256.startswith(HASHES[name])


def test_no_test_positive_of_unseen_place_overlaps_train(
    shared_data: Path, real: tuple[list[Sample], list[DeformationEvent]]
) -> None:
    annotations = real_annotations(shared_data)
    samples, events = real
    split = make_split(split_rule("unseen-place"), samples)
    assert audit_split(split, events, annotations=annotations).passed
    assert count_classes(split.parts["test"]) == {"positive": 240, "negative": 5992}
    # the list follows from the annotations
    strict = make_split(split_rule("strict-temporal"), samples)
    known = {(item.frame, item.pair): item for item in annotations}
    parts = {
        part: [known[sample.frame, sample.pair] for sample in strict.parts[part]]
        for part in ("train", "test")
    }  # type: ignore[index]
    same = {(frame.id, pair.name) for frame, pair in find_same_places(parts["test"], parts["train"])}
    assert split_rule("unseen-place").seen_places == same
    leaks = {leak.parts for leak in audit_split(strict, events, annotations=annotations).leaks}
    assert ("train", "test") in leaks


def test_each_region_is_tested_once_by_the_grouped_folds(
    real: tuple[list[Sample], list[DeformationEvent]],
) -> None:
    samples, events = real
    names = [name for name in split_names() if name.startswith("volcano-group-")]
    assert len(names) == 5
    tested: list[Sample] = []
    for name in names:
        split = make_split(split_rule(name), samples)
        assert audit_split(split, events).passed
        assert count_classes(split.parts["validation"])["positive"] >= 200
        assert len({sample.region for sample in split.parts["validation"]}) == 2
        tested += split.parts["test"]
    assert sorted(tested) == sorted(samples)


def test_coverage_of_the_real_annotations_is_what_another_computation_found(
    shared_data: Path, real: tuple[list[Sample], list[DeformationEvent]]
) -> None:
    annotations = real_annotations(shared_data)
    split = make_split(split_rule("strict-temporal"), real[0])

    def covered(tiling: TilingMode) -> dict[str, dict[str, Any]]:
        visible = visible_from_annotations(split.all_samples, annotations, tiling)
        return summarize_coverage(split, tiling, 512, visible, events=real[1]).to_json()["parts"]

    grid, volcanoes = covered("grid"), covered("volcano-centred")
    assert (grid["test"]["touched"], grid["validation"]["touched"]) == (216, 62)
    assert (volcanoes["test"]["seen"], volcanoes["validation"]["seen"]) == (504, 115)
    assert (grid["test"]["positives"], grid["test"]["uncertain"]) == (509, 18)
    assert grid["test"]["pixels_seen"] == pytest.approx(0.1988, abs=1e-4)
    assert grid["test"]["regions"]["hawaii"]["touched"] == 0
    assert grid["test"]["frames"]["124D_05291_081406"]["positives"] == 18
    assert all(part["pixels_seen"] == 1 for part in covered("whole-frame").values())
    shaken = {(item.frame, item.pair) for item in annotations if "Earthquake" in item.label}
    samples = [sample for sample in split.parts["train"] if (sample.frame, sample.pair) in shaken]
    volcanic = visible_from_annotations(samples, annotations, "whole-frame", volcanic_only=True)
    assert (
        len(find_earthquakes_alone(volcanic)) == 15
    )  # by the words of their polygons; no other part has any
    for part in volcanoes.values():
        for group in ("regions", "frames"):
            for count in ("positives", "seen", "touched", "uncertain", "pixels"):
                assert sum(one[count] for one in part[group].values()) == part[count]


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20)), max_size=4),
    st.randoms(use_true_random=False),
)
def test_visible_pixels_are_those_of_the_windows_together(
    height: int, width: int, corners: list[tuple[int, int, int]], chance: random.Random
) -> None:
    deforming = np.array([[chance.random() < 0.3 for _ in range(width)] for _ in range(height)])
    union = np.zeros((height, width), bool)
    tiles = []
    for row, column, size in corners:
        core = (row, min(row + size, height), column, min(column + size, width))
        if core[0] < core[1] and core[2] < core[3]:
            tiles.append(Tile(row, column, size, core))
            union[core[0] : core[1], core[2] : core[3]] = True
    whole = count_visible(deforming, tiles)
    assert whole == (int(deforming.sum()), int((deforming & union).sum()))
    rows, columns = np.nonzero(deforming)
    if rows.size:  # the same from the part of the frame that has all of it
        top, left = int(rows.min()), int(columns.min())
        part = deforming[top : rows.max() + 1, left : columns.max() + 1]
        assert count_visible(part, tiles, row=top, column=left) == whole
    assert whole.seen == (whole.inside > 0 and whole.inside >= whole.pixels / 2)


def test_the_audit_of_the_paper_split_on_the_real_files(
    real: tuple[list[Sample], list[DeformationEvent]],
) -> None:
    samples, events = real
    assert len(events) == 53
    split = make_split(split_rule("paper"), samples)
    result = audit_split(split, events)
    assert split.sha256.startswith(HASHES["paper"])
    leaks = {(leak.kind, leak.parts): leak for leak in result.leaks}
    assert leaks["acquisitions", ("train", "validation")].shared == 89
    assert leaks["acquisitions", ("validation", "test")].shared == 131
    assert ("acquisitions", ("train", "test")) not in leaks
    train, validation = leaks["boundaries", ("train",)], leaks["boundaries", ("validation",)]
    assert (train.samples, train.positives) == (236, 52)
    assert (validation.samples, validation.positives) == (330, 39)
    assert result.repeats[2].repeating == 480
    weight = result.weights[2]
    assert sum([*weight.frames.values()][:4]) == 334
    assert "155D_02579_100800" in weight.new


def test_the_moved_boundaries_follow_from_the_published_events(
    real: tuple[list[Sample], list[DeformationEvent]],
) -> None:
    """Each is the day nearest to the paper's at which no event of the region is under way."""

    def is_free(day: date) -> bool:
        return not any(event.start < day <= event.end for event in own)

    def nearest_free_day(day: date) -> date:
        near = (day + timedelta(sign * step) for step in range(4000) for sign in (-1, 1))
        return next(filter(is_free, near))

    rule = split_rule("unseen-event")
    for region in {frame.region for frame in published_frames().values()}:
        own = [event for event in real[1] if event.region == region]
        expected = tuple(map(nearest_free_day, rule.boundaries))
        assert rule.regions.get(region, rule.boundaries) == expected, region
