"""Tests that documented imports exist in the packages' public API, and that the table of pairs is correct."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import hephaestus_baselines
import hephaestus_build
import toy_cube
from checkout import ROOT
from hephaestus_build.operations.pair_table import PAIR_STATES

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]


def examples(page: str, heading: str = "") -> list[str]:
    """Return the Python blocks of a page after a heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text[text.index(heading) :], re.DOTALL)


def test_the_page_of_the_cube_lists_pairs_and_uses_the_georeference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_cube.toy_cube(tmp_path / "data" / "simulated" / "cubes")
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    exec(examples("docs/cube.md", "## From Python")[0], seen)
    assert seen["part"].shape in {(60, 35), (60, 36)}  # versions of rioxarray round an edge their own way
    assert seen["metres"].rio.crs.to_epsg() == 32627
    # both stored pairs with deformation span 24 days
    assert seen["moving"].index.tolist() == [name for name in toy_cube.PAIRS if name in toy_cube.MOVING]
    page = (ROOT / "docs" / "cube.md").read_text(encoding="utf-8")
    columns = [*seen["table"].reset_index().columns[:9], "phase", "confidence", "caption", "unique_id"]
    assert all(f"`{name}`" in page for name in (*columns, *PAIR_STATES))


@pytest.mark.parametrize("page", PAGES)
def test_examples_import_from_the_face_alone(page: str) -> None:
    for block in examples(page):
        assert not re.search(r"^\s*(from|import) (hephaestus_\w+)\.", block, re.MULTILINE)
        for names in re.findall(r"^from hephaestus_baselines import (\([^)]*\)|.*)", block, re.MULTILINE):
            assert set(re.findall(r"\w+", names)) <= set(hephaestus_baselines.__all__)
        assert {*re.findall(r"\bhb\.(\w+)", block)} <= set(hephaestus_build.__all__)


def test_the_face_of_the_baselines_loads_what_it_names() -> None:
    pytest.importorskip("torch")
    for name in hephaestus_baselines.__all__:
        assert getattr(hephaestus_baselines, name).__name__ == name
        assert name in dir(hephaestus_baselines)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hephaestus_baselines.nothing  # type: ignore[attr-defined]
