"""Tests of the axes of a cube and of the keys of its chunks, from one generation to the next."""

from dataclasses import replace
from datetime import date, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_cube
from cube_editions import ATTRIBUTES, GRID, completed, inventory_of
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.granules import (
    DEM_KEY,
    ChunkRef,
    DemGranule,
    Granule,
    GranuleKey,
    OptionalGranule,
    OverviewGranule,
)
from hephaestus_build.cube.inventory import CubeInventory, StoredHistory
from hephaestus_build.cube.key_spaces import KEY_SPACES, KeyHistory, KeySpace

NOTHING = StoredHistory(set, set)
pairs = st.builds(lambda first, gap: pair(first, first + gap), st.integers(0, 300), st.integers(1, 90))


def pair(first: int, second: int) -> Pair:
    start = date(2020, 1, 1)
    return Pair(start + timedelta(first), start + timedelta(second))


def history(contents: CubeInventory, on_disk: set[int]) -> StoredHistory:
    """Return the history of a cube whose chunks are the phase of every pair, and its date axis."""

    def chunk_keys() -> set[str]:
        space = contents.keys.space
        places = [contents.chunk_keys.pair_index(each) for each in contents.axes.pairs]
        phases = {
            space.chunk_key("insar_difference", place, 2, strip) for place in places for strip in (0, 1)
        }
        return {space.chunk_key("primary_date", (), 1), *phases}

    return StoredHistory(chunk_keys, lambda: {(space, space) for space in on_disk})


#: Granules of a cube without any image.
NO_IMAGES = {DEM_KEY: DemGranule.make("", (), GRID)}


def empty(listed) -> CubeInventory:
    return CubeInventory.new(GRID, NO_IMAGES, ATTRIBUTES, listed)


def grow(contents: CubeInventory, listed, on_disk=frozenset()) -> CubeInventory:
    return contents.succeed(GRID, NO_IMAGES, ATTRIBUTES, listed, history(contents, on_disk))


def test_axes_hold_every_acquisition_of_a_listed_pair():
    axes = empty([pair(12, 24), pair(0, 24)]).axes
    assert axes.primary == axes.secondary == axes.epochs == tuple(pair(n, 99).primary for n in (0, 12, 24))
    assert axes.pairs == (pair(0, 24), pair(12, 24))


def test_the_pair_axis_is_sorted_by_the_later_date():
    assert DateAxes.from_pairs([pair(0, 36), pair(12, 24), pair(0, 24), pair(24, 36)]).pairs == (
        pair(0, 24),
        pair(12, 24),
        pair(0, 36),
        pair(24, 36),
    )


def test_later_acquisitions_leave_positions_and_keys_as_they_are():
    first = empty([pair(0, 12)])
    later = grow(first, [pair(0, 12), pair(12, 24)])
    assert later.axes.epochs[:2] == first.axes.epochs
    assert later.keys == first.keys
    assert later.chunk_keys.pair_index(pair(0, 12)) == first.chunk_keys.pair_index(pair(0, 12))


def test_dates_that_are_no_longer_listed_stay():
    assert (
        grow(empty([pair(0, 12), pair(12, 24)]), [pair(12, 24)]).axes
        == empty([pair(0, 12), pair(12, 24)]).axes
    )


def test_an_older_date_moves_the_chunks_to_another_key_space():
    first = empty([pair(12, 24)])
    later = grow(first, [pair(12, 24), pair(0, 24)])
    assert later.axes.epochs == tuple(sorted(later.axes.epochs))
    assert (first.keys.space, later.keys.space) == KEY_SPACES[:2]
    assert later.keys.retired_keys == (
        "insar_difference/c.0.1.0.0",
        "insar_difference/c.0.1.0.1",
        "primary_date/c.0",
    )
    # keys that were retired stay so
    again = grow(later, [pair(6, 24)])
    assert again.keys.index == 2
    assert {*later.keys.retired_keys} < {*again.keys.retired_keys}


def test_without_a_free_key_space_dates_are_appended_out_of_order():
    contents, on_disk = empty([pair(50, 60)]), {0}
    for number in (40, 30):
        contents = grow(contents, [pair(number, 60)], on_disk)
        on_disk |= {contents.keys.index}
    before = contents
    contents = grow(contents, [pair(20, 60)], on_disk)
    assert contents.keys == before.keys
    assert contents.axes.epochs == (*before.axes.epochs, pair(20, 60).primary)
    # once `gc` has removed the generations that used one, the next change sorts the axes
    contents = grow(contents, [pair(20, 60)], {contents.keys.index, 0})
    assert contents.keys.index == 1
    assert contents.axes.epochs == tuple(sorted(contents.axes.epochs))


@given(st.lists(st.lists(pairs, min_size=1, max_size=4), min_size=2, max_size=8), st.booleans())
def test_a_key_never_gets_another_meaning(publications, keeps_old):
    """Whatever is published, a key of an earlier generation has the same pair or is retired."""
    contents = empty(publications[0])
    on_disk, meaning = {0}, dict[str, Pair]()
    for listed in publications[1:]:
        for each in contents.axes.pairs:
            key = contents.keys.space.chunk_key("insar_difference", contents.chunk_keys.pair_index(each), 2)
            meaning[key] = each
        contents = grow(contents, listed, on_disk if keeps_old else ())
        if keeps_old:
            on_disk.add(contents.keys.index)
            retired = {*contents.keys.retired_keys}
            for key, each in meaning.items():
                place = contents.chunk_keys.pair_index(each)
                now = contents.keys.space.chunk_key("insar_difference", place, 2)
                assert key == now or key in retired
            current = {
                contents.keys.space.chunk_key("insar_difference", contents.chunk_keys.pair_index(each), 2)
                for each in contents.axes.pairs
            }
            assert not current & retired
        assert {*contents.axes.epochs} == {day for each in contents.axes.pairs for day in each.dates}
        assert CubeInventory.decode(contents.encode()) == contents


def test_images_that_are_lost_move_the_keys_and_an_empty_mask_does_not():
    name = toy_cube.PAIRS[0]
    days = name.split("_")
    every = {"dem/dem": 0, f"pair/{name}": 1, f"mask/{name}": 1, **{f"epoch/{day}": 0 for day in days}}
    contents = inventory_of(every)
    same = [contents.keys]
    for key, edition in ((f"mask/{name}", 2), (f"pair/{name}", 2)):  # an empty mask, another phase
        after = inventory_of({**every, key: edition}).granules
        same.append(contents.succeed(GRID, after, ATTRIBUTES, (), NOTHING).keys)
    assert same == [KeyHistory()] * 3
    absent = inventory_of({**every, f"pair/{name}": 0}).granules
    assert contents.succeed(GRID, absent, ATTRIBUTES, (), NOTHING).keys.index == 1
    shifted = replace(GRID, west=GRID.west + 1)
    assert contents.succeed(shifted, contents.granules, ATTRIBUTES, (), NOTHING).keys.index == 1


def with_objects(granule: Granule, *names: str) -> Granule:
    return msgspec.structs.replace(granule, objects=dict.fromkeys(names, ChunkRef("0" * 64, 1)))


def test_a_field_that_is_lost_moves_the_keys_and_an_image_without_data_does_not():
    name = toy_cube.PAIRS[0]
    contents = inventory_of(completed({f"pair/{name}": 1}))
    epoch = next(granule for granule in contents.granules.values() if granule.kind == "epoch")
    gridded = with_objects(epoch, *(name for name in epoch.objects if not name.startswith("era5_")))
    after = contents.succeed(GRID, {**contents.granules, epoch.key: gridded}, ATTRIBUTES, (), NOTHING)
    assert (after.keys.index, after.pair_keys.index) == (1, 0)
    drawn = OverviewGranule.make(Pair.parse(name), "", 8)
    small = with_objects(drawn, "coherence", "water_vapour_difference")
    contents = replace(contents, granules={**contents.granules, drawn.key: small})
    for names, index in ((("coherence",), 1), (("water_vapour_difference",), 0)):
        granules = {**contents.granules, drawn.key: with_objects(drawn, *names)}
        after = contents.succeed(GRID, granules, ATTRIBUTES, (), NOTHING)
        assert (after.keys.index, after.pair_keys.index) == (0, index)


def test_the_keys_of_an_optional_variable_that_is_taken_away_are_retired_and_no_others_move():
    plain = inventory_of(completed({f"pair/{toy_cube.PAIRS[0]}": 1}))
    look = GranuleKey.of_optional("look_up")
    baseline = GranuleKey.of_optional("perpendicular_baseline")
    added: dict[str, Granule] = {
        look: with_objects(OptionalGranule.make(look, "", ()), "look_up.0"),
        baseline: OptionalGranule.make(baseline, "", (), metres={}),
    }
    contents = replace(plain, granules={**plain.granules, **added})
    without = contents.succeed(GRID, plain.granules, ATTRIBUTES, (), NOTHING)
    assert without.keys == KeyHistory(0, (("look_up/c.0.0", "perpendicular_baseline/c.0.0"), (), ()))
    assert without.pair_keys == KeyHistory(0, (("pairs/perpendicular_baseline/c.0",), (), ()))
    assert CubeInventory.decode(without.encode()) == without
    again = without.succeed(GRID, contents.granules, ATTRIBUTES, (), NOTHING)
    assert (again.keys, again.pair_keys) == (KeyHistory(), KeyHistory())


def test_without_a_record_images_on_disk_that_are_not_stored_again_count_as_lost():
    every = completed({f"pair/{name}": 1 for name in toy_cube.PAIRS[:2]})
    contents = inventory_of(every)
    keys = {key for granule in contents.granules.values() for _, key in contents.chunk_keys.keys(granule)}
    disk = StoredHistory(lambda: {*keys, "epoch/c.0", "deformation_mask/c.0.1.0.0", "pairs/stored/c.0"}, set)
    recovered = replace(contents, granules={})
    same = recovered.succeed(GRID, contents.granules, ATTRIBUTES, (), disk)
    assert same.keys == KeyHistory()
    absent = inventory_of({**every, f"pair/{toy_cube.PAIRS[1]}": 0}).granules
    moved = recovered.succeed(GRID, absent, ATTRIBUTES, (), disk)
    assert (moved.keys.index, moved.pair_keys.index) == (1, 0)
    assert keys < {*moved.retired_keys}


def test_without_a_free_key_space_lost_images_are_errors_until_they_are_stored_again():
    name = toy_cube.PAIRS[0]
    every = {"dem/dem": 0, f"pair/{name}": 1}
    contents = replace(inventory_of(every), keys=KeyHistory(1, (("x/c.0",), (), ("x/c/0",))))
    busy = StoredHistory(set, lambda: {(0, 0), (1, 1), (2, 2)})
    lost = contents.succeed(GRID, inventory_of({**every, f"pair/{name}": 0}).granules, ATTRIBUTES, (), busy)
    keys = {key for _, key in contents.chunk_keys.keys(contents.granules[f"pair/{name}"])}
    assert lost.keys.index == 1
    assert {*lost.keys.retired[1]} == keys
    again = lost.succeed(GRID, contents.granules, ATTRIBUTES, (), busy)
    assert again.keys == contents.keys
    with pytest.raises(ValueError, match="key spaces are in use"):
        contents.succeed(replace(GRID, west=GRID.west + 1), contents.granules, ATTRIBUTES, (), busy)


@pytest.mark.parametrize("space", KEY_SPACES)
def test_names_of_chunks_can_be_read_back(space):
    name = space.chunk_name((3, 15), 2, 1)
    assert space.split_chunk_name(name) == ("3", "15", "0", "1")
    assert KeySpace.from_metadata({"chunk_key_encoding": space.to_metadata()}) == space
    assert not any(other.split_chunk_name(name) for other in KEY_SPACES if other != space)
    assert space.split_chunk_name("zarr.json") == ()


@pytest.mark.parametrize(
    "damage",
    [
        {"index": 3},
        {"index": -1},
        {"retired": [[], []]},
        {"retired": [["insar_difference/c.0.1.0.0"], [], []]},
        {"retired": [[], ["../outside"], []]},
        {"retired": [[], ["insar_difference/c.0/../../x"], []]},
        {"retired": [[], ["/etc/c.0"], []]},
    ],
)
def test_a_record_cannot_name_keys_outside_the_cube(damage):
    import json

    name = toy_cube.PAIRS[0]
    record = json.loads(inventory_of({"dem/dem": 0, f"pair/{name}": 1}).encode())
    record["keys"] |= damage
    with pytest.raises(ValueError, match=r"key"):
        CubeInventory.decode(json.dumps(record).encode())
