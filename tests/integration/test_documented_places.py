"""Tests that frames stand beside the right places in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from checkout import ROOT
from doc_pages import pages
from hephaestus_build.core.frame_search import FoundFrame, find_frames
from hephaestus_build.core.volcanoes import fold_name

_ID = re.compile(r"\b\d{3}[AD]_(?:\d{5}_\d{6}|SM_[A-Z]+_S\d)\b")
_KNOWN = {found.id: found for found in find_frames()}
_SHORTEST_NAME = 4  # letters; shorter ones are words as well


def names_of(found: FoundFrame) -> set[str]:
    """Return the folded names of places of a frame: its own, and volcanoes in its footprint."""
    volcanoes = (*found.volcanoes, *found.also_inside)
    places = (found.region, *found.places)
    return {*map(fold_name, places), *(name for volcano in volcanoes for name in volcano.spellings)}


_NAMES = {name: names_of(found) for name, found in _KNOWN.items()}
#: Names that tell one place from another: regions, and volcanoes that frames are known for.
_TELLING = {
    name
    for found in _KNOWN.values()
    for name in (fold_name(found.region), *(name for v in found.volcanoes for name in v.spellings))
    if len(name) >= _SHORTEST_NAME
}


def misplaced(text: str) -> Iterator[tuple[str, set[str]]]:
    """Yield frames that stand in a line, or in one item of a list, with names of other places alone."""
    for line in re.sub(r"\n +(?!\s*-)", " ", text).splitlines():
        words = f" {fold_name(_ID.sub(' ', line))} "
        said = {name for name in _TELLING if f" {name} " in words}
        for frame in _KNOWN.keys() & set(_ID.findall(line)):
            if said and not said & _NAMES[frame]:
                yield frame, said


@pytest.mark.parametrize("page", [*pages(), "prefect.yaml", "CHANGELOG.md"])
def test_frames_stand_beside_their_places(page: str) -> None:
    assert dict(misplaced((ROOT / page).read_text(encoding="utf-8"))) == {}


def test_a_frame_beside_another_place_is_found() -> None:
    item = "  - name: etna\n    entrypoint: x.py:build\n    parameters: {frame: 124D_04854_171313}\n"
    assert dict(misplaced(item)) == {"124D_04854_171313": {"etna"}}
    assert not dict(misplaced(item.replace("124D_04854_171313", "124D_05291_081406")))
    assert not dict(misplaced("`hephaestus build 124D_04854_171313` builds Campi Flegrei"))
