"""Options of the commands of ``hephaestus benchmark``, and how their texts are read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.parsing import parse_yaml
from hephaestus_build.core.plain_text import sanitize_text

PresetArgument = Annotated[
    str, typer.Argument(help="small, recommended, paper, kinds, probes, legacy, or the path of a YAML file.")
]
BenchmarkCubesOption = Annotated[
    Path | None, typer.Option(help="Folder of the cubes. Default: cubes/ in the data folder.")
]
BenchmarkSimulatedOption = Annotated[
    bool, typer.Option("--simulated", help="Use cubes of the embedded archive, built once and kept.")
]
BenchmarkWorldOption = Annotated[
    int,
    typer.Option(
        "--world",
        min=0,
        max=2**32 - 1,
        help="Number of the simulated world, with --simulated: other than 0 it has other unrest, weather and "
        "terrain, and a longer test part.",
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the results. Default: results/ in the data folder, or in its simulated/; of another "
        "simulated world results-<world>/."
    ),
]
PartOption = Annotated[str, typer.Option(help="Execute only the i-th of n parts of the runs, such as 2/4.")]
FieldsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field of all runs, such as epochs=3; may be repeated."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="imagenet, none (random), simulated (trained on simulated interferograms first), a folder with "
        "the ImageNet weights, or a .safetensors file."
    ),
]
TasksOption = Annotated[
    list[str] | None, typer.Option("--task", help="Runs of this task of the preset alone; may be repeated.")
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch", help="Samples of a step; auto: chosen by the memory when a run begins, and kept by it."
    ),
]
UncheckedOption = Annotated[
    bool,
    typer.Option("--unchecked", help="Do not compare cube data with its published hashes."),
]
AllowUnseenOption = Annotated[
    bool,
    typer.Option(
        "--allow-unseen",
        help="Write tables although the windows show less than 90 % of the interferograms with deformation.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
UnsealedOption = Annotated[
    bool, typer.Option("--unsealed", help="Accept a checkpoint without a seal, as of other programs.")
]


CheckpointOption = Annotated[Path | None, typer.Option(help="Checkpoint: best.ckpt in the folder of a run.")]
ModelOption = Annotated[Path | None, typer.Option(help="Exported model: a folder of export-model.")]


def choose_model_path(checkpoint: Path | None, model: Path | None) -> Path:
    """Return the path of the model that ``--checkpoint`` or ``--model`` names.

    Raises
    ------
    UsageError
        If not exactly one is given, or a path of the wrong kind.
    """
    if (checkpoint is None) == (model is None):
        raise UsageError("name one model: --checkpoint FILE of a run, or --model FOLDER of an exported one")
    if model is not None and not model.is_dir():
        raise UsageError(f"--model {model}: there is no such folder; --checkpoint takes the file of a run")
    if checkpoint is not None and checkpoint.is_dir():
        raise UsageError(f"--checkpoint {checkpoint} is a folder; --model takes that of an exported model")
    return model or checkpoint or Path()


def parse_batch(text: str) -> int | str:
    """Parse the number of samples of a step, or ``auto``.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text == "auto":
        return text
    if not (text.isdecimal() and len(text) < 6 and int(text)):
        raise UsageError(f"--batch {text!r} is not a batch size: give a number, or auto")
    return int(text)


def parse_fields(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` texts into fields, with values as YAML.

    Raises
    ------
    UsageError
        If a text has another form or its value is not YAML.
    """
    fields = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise UsageError(f"--set {text!r}: write name=value, such as --set epochs=3")
        try:
            fields[name] = parse_yaml(value)
        except ValueError as error:
            shown = sanitize_text(text, 80)
            raise UsageError(
                f"--set {shown!r}: its value is not YAML ({sanitize_text(error, 100)})"
            ) from error
    return fields


def format_command(arguments: Sequence[str]) -> str:
    """Return the command line for the records, with each path reduced to its last part."""
    return shlex.join(["hephaestus", *(_strip_path(text) for text in arguments)])


def _strip_path(text: str) -> str:
    name, equals, value = text.rpartition("=") if text.startswith("-") else ("", "", text)
    path = Path(value)
    return f"{name}{equals}{path.name if path.is_absolute() or '..' in path.parts else value}"
