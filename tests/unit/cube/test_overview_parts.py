"""Tests of what an overview is made of: its fingerprint follows its parts, on one grid."""

from datetime import date

import msgspec
import pytest

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.chunk_keys import ChunkKeys
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.fingerprints import fingerprint_grid
from hephaestus_build.cube.granules import (
    ChunkRef,
    EpochGranule,
    InterferogramGranule,
    MaskGranule,
    OverviewGranule,
)
from hephaestus_build.cube.overview_parts import OverviewParts, find_orphans

PAIR = Pair.parse("20190101_20190113")
GRID = Grid(9, 7, 10.0, 20.0, 0.01, 0.01)
INPUTS = fingerprint_grid(GRID)
GOOD = (Receipt("x", Outcome.DOWNLOADED),)


def granules():
    """Return the granules of one pair by key."""
    made = [
        InterferogramGranule(
            PAIR.name,
            INPUTS,
            {"insar_difference.0": ChunkRef("a" * 64, 1), "insar_coherence.0": ChunkRef("b" * 64, 1)},
            GOOD,
        ),
        MaskGranule(
            PAIR.name,
            "m",
            {name: ChunkRef("c" * 64, 1) for name in ("deformation_mask.1", "activity_type_mask.1")},
            facts={"grid": INPUTS},
        ),
        *(
            EpochGranule(
                f"{day:%Y%m%d}",
                INPUTS,
                {
                    name: ChunkRef(f"{day:%d}" * 32, 1)
                    for name in ("era5_total_column_water_vapour", "era5_surface_pressure")
                },
                GOOD,
            )
            for day in PAIR.dates
        ),
    ]
    return {granule.key: granule for granule in made}


def fingerprint(given, factor=8) -> str:
    parts = OverviewParts.find(given, PAIR, GRID)
    assert parts is not None
    return parts.fingerprint(GRID, factor)


def with_object(key: str, name: str):
    """Return the granules with another hash of one object."""
    given = granules()
    objects = {**given[key].objects, name: ChunkRef("f" * 64, 1)}
    return {**given, key: msgspec.structs.replace(given[key], objects=objects)}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (f"pair/{PAIR}", "insar_difference.0"),
        (f"pair/{PAIR}", "insar_coherence.0"),
        (f"pair/{PAIR}", "insar_difference.2"),
        (f"mask/{PAIR}", "deformation_mask.1"),
        ("epoch/20190101", "era5_total_column_water_vapour"),
        ("epoch/20190113", "era5_total_column_water_vapour"),
    ],
)
def test_another_object_of_what_it_shows_gives_another_fingerprint(key, name):
    assert fingerprint(with_object(key, name)) != fingerprint(granules())


@pytest.mark.parametrize(
    ("key", "name"), [(f"mask/{PAIR}", "activity_type_mask.1"), ("epoch/20190101", "era5_surface_pressure")]
)
def test_what_it_does_not_show_changes_nothing(key, name):
    assert fingerprint(with_object(key, name)) == fingerprint(granules())


def test_the_factor_is_a_part_of_the_fingerprint():
    assert fingerprint(granules(), 4) != fingerprint(granules(), 8)


@pytest.mark.parametrize("key", [f"mask/{PAIR}", "epoch/20190101"])
def test_a_mask_and_an_epoch_of_another_grid_are_ignored(key):
    given = granules()
    without = {name: granule for name, granule in given.items() if name != key}
    other = msgspec.structs.replace(given[key], inputs="other", facts={**given[key].facts, "grid": "other"})
    assert fingerprint({**given, key: other}) == fingerprint(without) != fingerprint(given)
    if key.startswith("epoch"):
        found = OverviewParts.find(without, PAIR, GRID)
        assert found is not None
        assert found.epochs == ()  # a difference needs both


def test_an_overview_of_a_pair_that_is_not_stored_is_an_orphan():
    overview = OverviewGranule.make(PAIR, "x", 8)
    given = {**granules(), overview.key: overview}
    assert find_orphans(given, GRID) == []
    key = f"pair/{PAIR}"
    other = msgspec.structs.replace(given[key], inputs="other")
    owed = msgspec.structs.replace(given[key], receipts=(Receipt("x", Outcome.UNREACHABLE),))
    for broken in (None, other, owed):
        left = {name: granule for name, granule in given.items() if name != key}
        if broken is not None:
            left[key] = broken
        assert find_orphans(left, GRID) == [overview.key]


def test_pairs_are_sorted_by_secondary_then_primary_date_so_that_later_ones_append():
    names = ["20190101_20190206", "20190125_20190206", "20190101_20190113", "20190113_20190125"]
    axes = DateAxes.from_pairs(map(Pair.parse, names))
    assert [pair.name for pair in axes.pairs] == [names[2], names[3], names[0], names[1]]
    assert axes.primary[0] == date(2019, 1, 1)
    last = OverviewGranule("20190125_20190206", objects={"coherence": ChunkRef("a" * 64, 1)})
    assert list(ChunkKeys(axes).keys(last)) == [("coherence", "overview/coherence/c.3.0.0")]
