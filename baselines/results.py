"""What a finished run leaves behind: one JSON document that says all it takes to judge its scores."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from baselines.predictions import Task
from baselines.scoring import Assessment, Record
from hephaestus_build.cube.files import explained, write_atomic
from hephaestus_build.errors import HephaestusError
from hephaestus_build.splits import Part

FORMAT = "hephaestus-result/1"
#: What numbers depend on.
_LIBRARIES = (
    "hephaestus-build", "numpy", "torch", "torchvision", "lightning", "torchmetrics", "timm",
    "segmentation-models-pytorch", "zarr", "xarray",
)  # fmt: skip


class SplitRecord(Record):
    """The split that was trained and scored on."""

    name: str
    version: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    counts: dict[Part, dict[Literal["positive", "negative"], int]] = Field(
        description="Samples (or series) of each part that the cubes at hand hold, before tiling."
    )


class RunResult(Record):
    """One finished run (``result.json``). It is written last: where it stands, the run is finished."""

    format: Literal["hephaestus-result/1"] = FORMAT
    key: str = Field(description="Name of the run's folder: a readable name and a hash of the recipe.")
    task: Task
    model: str
    series: bool
    atmosphere: bool = Field(description="Whether the model sees the atmosphere, of whichever form.")
    seed: int
    size: int = Field(ge=1, description="Rows and columns of a window.")
    training: str = Field(description="How windows were placed in training.")
    tiling: str = Field(description="How windows were placed in validation and test.")
    weights: str = Field(description="Where the first weights came from; none is from scratch.")
    recipe: dict[str, Any] = Field(description="All settings of the run.")
    command: str = Field(description="What was typed, without paths of the machine.")
    simulated: bool = Field(description="Whether any frame is simulated: then no number is of a volcano.")
    split: SplitRecord
    generations: dict[str, str] = Field(description="Generation of every frame's cube.")
    versions: dict[str, str]
    code: str = Field(description="Hash over the project's own source files.")
    device: str
    parameters: int = Field(ge=0, description="Trainable parameters.")
    epochs: int = Field(ge=0, description="Epochs trained.")
    best_epoch: int = Field(ge=0, description="The epoch whose weights were kept, by validation, from 0.")
    seconds: dict[str, float] = Field(description="Wall time of each step: training, prediction.")
    samples_per_second: float = Field(ge=0, description="Items trained per second of training.")
    assessment: Assessment

    def write(self, path: Path) -> None:
        """Write the result to `path`, whole or not at all.

        Raises
        ------
        HephaestusError
            If it cannot be written.
        """
        with explained(f"{self.key}: writing {path}"):
            write_atomic(path, (self.model_dump_json(indent=1) + "\n").encode(), durable=True)

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """Read what :meth:`write` wrote.

        Raises
        ------
        HephaestusError
            If it is missing, damaged, or of another form than ``schemas/results.json``.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise HephaestusError(
                f"{path} is no result that can be read ({_short(error)}); remove it and run "
                "`hephaestus benchmark` again"
            ) from error


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_version() -> str:
    """Return a hash over the project's own source, so that a result says which code made it without git."""
    digest = hashlib.sha256()
    here = Path(__file__).resolve().parent
    for package in (here, here.parent / "hephaestus_build"):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package.parent).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)
