"""What the documentation shows is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_benchmark
import toy_cube
from checkout import ROOT

DOCS = ROOT / "docs"


def example(page: str, heading: str) -> str:
    """Return the first block of Python under a heading of a page, named from docs/."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text[text.index(heading) :], re.DOTALL)
    assert found is not None
    return found[1]


def test_the_loader_works_in_ones_own_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_benchmark.toy_cubes(tmp_path / "data" / "cubes", secondaries=3)
    monkeypatch.chdir(tmp_path)
    code = example("training.md", "## The loader in your own training")
    code = code.replace("num_workers=2", "num_workers=0").replace("range(10)", "range(1)")
    seen: dict[str, torch.Tensor] = {}
    exec(code, seen)
    # a series of each kind: there is one that deforms
    assert seen["images"].shape == (2, 27, 512, 512)
    assert seen["images"].isfinite().all()
    assert sorted(seen["label"].tolist()) == [0, 1]
    assert seen["mask"].any((1, 2)).tolist() == seen["label"].bool().tolist()
    assert (tmp_path / "sample.png").stat().st_size > 10_000


def test_the_readme_opens_the_sample_that_make_cubes_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_cube.toy_cube(tmp_path / "data" / "simulated" / "cubes")
    monkeypatch.chdir(tmp_path)
    for page, heading in (("../README.md", "## Two commands"), ("cube.md", "## Pin the generation")):
        code = example(page, heading).replace(
            ', data_dir="/other/data"', f", data_dir={str(tmp_path / 'data')!r}"
        )
        seen: dict[str, Any] = {}
        exec(code, seen)
        assert seen["cube"].attrs["frame"] == toy_cube.FRAME
        assert "000001" in seen["cube"].encoding["source"]


@pytest.mark.parametrize("page", ["../README.md", *sorted(path.name for path in DOCS.glob("*.md"))])
def test_simulated_cubes_are_shown_where_they_stand(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert not re.search(r"(?<!simulated/)cubes/(17[6-9]|1[89]\d|[2-9]\d\d)[AD]_", text)
