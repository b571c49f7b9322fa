"""What the documentation shows is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import toy_benchmark

DOCS = Path(__file__).resolve().parents[1] / "docs"


def example(page: str, heading: str) -> str:
    """Return the first block of Python under a heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text[text.index(heading) :], re.DOTALL)
    assert found is not None
    return found[1]


def test_the_loader_works_in_ones_own_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_benchmark.toy_cubes(tmp_path / "data" / "cubes", secondaries=3)
    monkeypatch.chdir(tmp_path)
    code = example("benchmark.md", "## The loader in your own training")
    code = code.replace("num_workers=2", "num_workers=0").replace("range(10)", "range(1)")
    seen: dict[str, torch.Tensor] = {}
    exec(code, seen)
    # a series of each kind: there is one that deforms
    assert seen["images"].shape == (2, 27, 512, 512)
    assert seen["images"].isfinite().all()
    assert sorted(seen["label"].tolist()) == [0, 1]
    assert seen["mask"].any((1, 2)).tolist() == seen["label"].bool().tolist()
    assert (tmp_path / "sample.png").stat().st_size > 10_000
