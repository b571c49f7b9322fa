"""Examples in docstrings are run: each shows what it says it shows."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from checkout import ROOT

PACKAGES = ("hephaestus_build", "baselines/hephaestus_baselines", "flows/hephaestus_flows")


def modules_with_examples() -> list[str]:
    paths = [
        path.relative_to((ROOT / package).parent)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if ">>> " in path.read_text()
    ]
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("hephaestus_baselines"):
        pytest.importorskip("torch", reason="the extra baselines is not installed")
    monkeypatch.chdir(tmp_path)
    ended = doctest.testmod(importlib.import_module(name), verbose=False)
    assert ended.failed == 0
