"""Tests of what the catalogue says of the quality of a pair."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from hephaestus_build.catalog.cube_record import make_cube_record, pair_rows_of, worst_row_shift
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.granules import EpochGranule, Granule, InterferogramGranule, MaskGranule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.processing.mask_rasterization import PREVIEW_SEEN

PAIR = Pair.parse("20190101_20190113")
GRID = Grid(300, 3000, 10.0, 63.0, 0.001, 0.001)
GOOD = Receipt("a product", Outcome.DOWNLOADED, "http://127.0.0.1/", size=1, blake3="0" * 64)


def rows_of(
    *others: Granule, frame: str = "124D_04854_171313", gone: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    stored = InterferogramGranule(
        PAIR.name, receipts=(GOOD,), facts={"alignment": "shifted", "valid_fraction": 0.5}
    )
    granules = {granule.key: granule for granule in (stored, *others)}
    return pair_rows_of(Frame(frame), CubeInventory.new(GRID, granules, {}), None, frozenset(gone))


def mask(evidence: str | None, **flags: Any) -> MaskGranule:
    annotation = {"corrupted": 0, "processing_error": 0, "no_info": 0, "phase": "Unrest", **flags}
    preview = {"projection": "linear", "evidence": evidence}
    facts = {"annotation": annotation} | ({} if evidence is None else {"preview": preview})
    return MaskGranule(PAIR.name, facts=facts)


@pytest.mark.parametrize(
    ("frame", "evidence", "position", "rows"),
    [
        ("124D_04854_171313", f"{PREVIEW_SEEN} 90 x 900 pixels, mode RGBA", "seen", 0.0),
        ("124D_04854_171313", "the registry's convention", "assumed", round(worst_row_shift(GRID), 1)),
        ("144A_SM_REUN_S6", "the registry's convention", "uncertain", math.nan),
        ("144A_SM_REUN_S6", f"{PREVIEW_SEEN} 90 x 900 pixels, mode P", "seen", 0.0),
        ("124D_04854_171313", None, "", math.nan),
    ],
)
def test_the_position_of_a_mask_is_as_certain_as_its_preview(
    frame: str, evidence: str | None, position: str, rows: float
) -> None:
    [row] = rows_of(mask(evidence), frame=frame)
    assert row["mask_position"] == position
    assert row["mask_error_rows"] == pytest.approx(rows, nan_ok=True)


def test_the_largest_shift_is_what_reading_rows_the_other_way_moves() -> None:
    # at 61.5 degrees a frame of three degrees: the rows' spacing differs by the ratio of the cosines
    assert worst_row_shift(GRID) == pytest.approx(36, abs=1)
    assert worst_row_shift(Grid(300, 3000, 10.0, 1.5, 0.001, 0.001)) < 0.2


@pytest.mark.parametrize(
    ("flags", "usable"),
    [({}, True), ({"corrupted": 1}, False), ({"no_info": 1}, False), ({"low_coherence": 1}, True)],
)
def test_samples_of_the_benchmark_are_usable(flags: dict[str, int], usable: bool) -> None:
    [row] = rows_of(mask(None, **flags))
    assert row["usable"] is usable
    assert row["annotated"]


def test_a_pair_that_nobody_looked_at_is_no_sample() -> None:
    [row] = rows_of()
    assert (row["usable"], row["annotated"], row["deformation"]) == (False, False, False)
    assert (row["alignment"], row["valid_fraction"]) == ("shifted", 0.5)


def test_rows_say_which_atmosphere_and_whether_the_archive_still_has_the_pair() -> None:
    epoch = EpochGranule.make(PAIR.primary, "", (GOOD,), (430000, "0005", "cds"))
    [row] = rows_of(epoch, gone=(PAIR.name,))
    assert (row["era5_primary"], row["era5_secondary"], row["status"]) == ("preliminary", "missing", "gone")


@pytest.mark.parametrize(
    ("frame", "place", "attributes", "found"),
    [
        ("198A_00210_131313", (-24.5, 38.0), {}, tuple(f"SIMULATED 198A {one}" for one in "AYZ")),
        ("124D_99999_131313", (14.8, 38.0), {}, ("Etna",)),
        ("124D_99999_131313", (0.0, 0.2), {}, ()),
        ("124D_04854_171313", (14.8, 38.0), {"volcanoes": "Ischia; Vulcano"}, ("Ischia", "Vulcano")),
    ],
)
def test_volcanoes_are_those_of_the_data_set_else_those_inside(
    frame: str, place: tuple[float, float], attributes: dict[str, Any], found: tuple[str, ...]
) -> None:
    inventory = CubeInventory.new(Grid(400, 400, *place, 0.001, 0.001), {}, attributes)
    record = make_cube_record(Frame(frame), 1, datetime(2024, 1, 1, tzinfo=UTC), inventory, {}, size=0)
    assert record.volcanoes == found
