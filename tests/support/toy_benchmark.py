"""Tiny cubes with samples in every part of the temporal splits, and a tiny grid of runs on them."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

import toy_cube
from hephaestus_build.cli import run_console_script

FRAME = toy_cube.FRAME
#: First primary date in each of train, validation and test of the split strict-temporal.
_FIRST = (date(2019, 1, 6), date(2019, 7, 1), date(2020, 2, 1))
TINY = {
    "description": "as small as it gets",
    "fields": {
        "size": 64,
        "phase": "sin-cos",
        "weights": "none",
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 0.002,
        "augment": ["flip"],
    },
    "tasks": {
        "classification": {"models": {"resnet-tiny": {}}},
        "segmentation": {"models": {"unet-tiny": {}}},
    },
    "series": [False],
    "atmosphere": ["none"],
    "seeds": [0],
}


def _pairs(until: int, secondaries: int) -> tuple[str, ...]:
    names = []
    for first in _FIRST:
        for step in range(until):
            primary = first + timedelta(days=12 * step)
            names += [
                f"{primary:%Y%m%d}_{primary + timedelta(days=12 * k):%Y%m%d}"
                for k in range(1, secondaries + 1)
            ]
    return tuple(names)


def toy_cubes(
    folder: Path, until: int = 3, frame: str = FRAME, secondaries: int = 2, *, kinds: bool = False
) -> Path:
    """Publish a cube with ``until`` primaries per part, every other one deforming; return the folder.

    With `kinds` every second of these shows the strong kind of deformation, see :data:`toy_cube.STRONG`.
    """
    pairs = _pairs(until, secondaries)
    moving = tuple(name for place, name in enumerate(pairs) if place // secondaries % until % 2)
    # the toy cube numbers its annotations, and adds deformation, by these module-level lists of pairs
    primaries = list(dict.fromkeys(name[:8] for name in moving))
    strong = tuple(name for name in moving if primaries.index(name[:8]) % 2) if kinds else pairs[1:2]
    with (
        patch.object(toy_cube, "PAIRS", pairs),
        patch.object(toy_cube, "MOVING", moving),
        patch.object(toy_cube, "STRONG", strong),
    ):
        toy_cube.toy_cube(folder, toy_cube.grid(70, 80), frame=frame, pairs=pairs)
    return folder


def tiny_preset(path: Path, **changes: object) -> Path:
    """Write the tiny grid of runs as YAML, with `changes` applied."""
    path.write_text(yaml.safe_dump({**TINY, **changes}), encoding="utf-8")
    return path


def hephaestus(*arguments: object) -> int:
    """Run a command as the console script does; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hephaestus", *map(str, arguments)])
        try:
            run_console_script()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def run(home: Path, *options: object, cubes: Path | None = None) -> list[object]:
    """Return the command that runs the tiny grid in a folder, on its cubes or others."""
    places = ["--cubes", cubes or home / "cubes", "--results", home / "results"]
    return ["benchmark", "run", home / "tiny.yaml", *places, *options]
