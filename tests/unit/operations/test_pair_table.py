"""Tests of the status of a pair, derived from the cube, the listing and the annotations."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.granules import ChunkRef, Granule, InterferogramGranule, MaskGranule
from hephaestus_build.operations.pair_table import LABEL_COLUMNS, PAIR_STATES, KnownPairs, make_pair_rows
from hephaestus_build.sources.annotations.record import Annotation
from hephaestus_build.sources.licsar.baselines_file import parse_baselines

FRAME = Frame("198A_00210_131313")
NAME = "20190101_20190113"
PAIR = Pair.parse(NAME)
KNOWN = KnownPairs(FRAME, {}, None, (), {}, None, "all", {})


def granule(outcome: Outcome = Outcome.DOWNLOADED, **facts: Any) -> dict[str, Granule]:
    receipt = Receipt(f"{NAME}.geo.diff_pha.tif", outcome)
    return {
        f"pair/{NAME}": InterferogramGranule(
            NAME, receipts=(receipt,), facts={"valid_fraction": 0.5, **facts}
        )
    }


def mask(objects: dict[str, ChunkRef] | None = None, **written: Any) -> dict[str, Granule]:
    facts = {"annotation": {"phase": "Unrest", "unique_id": 7, **written}}
    return {f"mask/{NAME}": MaskGranule(NAME, objects=objects or {}, facts=facts)}


LACKS = granule(Outcome.UNREACHABLE)
NEVER = granule(Outcome.ABSENT, unlisted=True)


@pytest.mark.parametrize(
    ("granules", "listed", "options", "status"),
    [
        (granule(), [PAIR], {}, "stored"),
        (granule(), None, {}, "stored"),
        (granule(), [], {}, "gone"),
        (granule(), None, {"delisted": (NAME,)}, "gone"),
        (granule(), [PAIR], {"delisted": (NAME,)}, "stored"),  # it came back
        (LACKS, [PAIR], {}, "owed"),
        (LACKS, None, {}, "owed"),
        (LACKS, [], {}, "absent"),
        (granule(Outcome.ABSENT), [PAIR], {}, "owed"),
        (granule(Outcome.ABSENT), [PAIR], {"accept": {"*": ("interferogram",)}}, "absent"),
        (LACKS, [PAIR], {"accept": {"*": ("interferogram",)}}, "owed"),  # it may come
        (NEVER, [], {}, "absent"),
        (NEVER, [PAIR], {}, "owed"),  # it came
        ({}, [PAIR], {}, "owed"),
        ({}, [PAIR], {"choice": "annotated"}, "unwanted"),
        ({}, [PAIR], {"choice": "annotated", "annotations": {PAIR: Annotation(1, FRAME, PAIR)}}, "owed"),
        ({}, [], {"annotations": {PAIR: Annotation(1, FRAME, PAIR)}}, "absent"),
        (mask(), [], {}, "absent"),
    ],
)
def test_the_status_of_a_pair(
    granules: dict[str, Granule], listed: Collection[Pair] | None, options: dict[str, Any], status: str
) -> None:
    [row] = make_pair_rows(replace(KNOWN, granules=granules, listed=listed, **options))
    assert row["status"] == status
    assert status in PAIR_STATES
    assert math.isnan(row["valid_fraction"]) == (status not in ("stored", "gone"))


def test_annotated_pairs_are_not_called_absent_while_nobody_knows_the_listing() -> None:
    assert make_pair_rows(replace(KNOWN, annotations={PAIR: Annotation(1, FRAME, PAIR)})) == []


def test_baselines_are_nan_without_the_file_and_for_days_that_it_lacks() -> None:
    orbit = parse_baselines("20181220 20190101 10 12\n20181220 20190113 -30.5 24")
    later = Pair.parse("20190113_20190206")
    rows = make_pair_rows(replace(KNOWN, listed=[later, PAIR], baselines=orbit))
    assert [row["pair"] for row in rows] == [NAME, later.name]
    assert [row["temporal_baseline_days"] for row in rows] == [12, 24]
    assert rows[0]["perpendicular_baseline_m"] == -40.5
    assert math.isnan(rows[1]["perpendicular_baseline_m"])
    [row] = make_pair_rows(replace(KNOWN, listed=[PAIR]))
    assert math.isnan(row["perpendicular_baseline_m"])


def test_the_cube_tells_what_the_expert_wrote_before_the_archive_does() -> None:
    written = Annotation(9, FRAME, PAIR, phase="Rest", caption="of the archive", confidence=0.4)
    both = replace(KNOWN, granules={**granule(), **mask({"deformation_mask": ChunkRef("0", 1)})})
    [row] = make_pair_rows(replace(both, annotations={PAIR: written}))
    assert (row["annotated"], row["deformation"], row["phase"], row["unique_id"]) == (True, True, "Unrest", 7)
    [row] = make_pair_rows(replace(KNOWN, listed=[PAIR], annotations={PAIR: written}))
    assert (row["annotated"], row["deformation"], row["caption"]) == (True, False, "of the archive")
    [row] = make_pair_rows(replace(KNOWN, listed=[PAIR]))
    assert {name: row[name] for name in LABEL_COLUMNS if name != "confidence"} == {
        name: value for name, value in LABEL_COLUMNS.items() if name != "confidence"
    }


def test_text_of_others_is_harmless_and_names_no_column() -> None:
    [row] = make_pair_rows(replace(KNOWN, granules=mask(caption="\x1b[31mred\n", pair="x", status="y")))
    assert (row["pair"], row["status"]) == (NAME, "absent")
    assert row["caption"].isprintable()
