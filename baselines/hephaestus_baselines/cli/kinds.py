"""``hephaestus benchmark probe``: what a frozen network tells of the kind of deformation."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hephaestus_baselines.cli.cubes import select_benchmark_cubes
from hephaestus_baselines.cli.options import (
    BenchmarkCubesOption,
    BenchmarkSimulatedOption,
    DeviceOption,
    FieldsOption,
    UncheckedOption,
    UnsealedOption,
    WeightsOption,
    parse_fields,
)
from hephaestus_build.cli.console import err, print_fields, print_json, print_notice, print_table
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption
from hephaestus_build.core.atomic_io import make_folder, require_writable, translate_os_errors, write_atomic
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import load_settings

if TYPE_CHECKING:
    from hephaestus_baselines.config.run_config import Recipe
    from hephaestus_baselines.evaluation.kind_schema import KindReport, ScoreEstimate
    from hephaestus_baselines.probes.frozen_encoder import FrozenEncoder


class KindTaskName(StrEnum):
    """What a head tells of deforming windows."""

    activity = "activity"
    intensity = "intensity"


def probe(
    task: Annotated[KindTaskName, typer.Option(help="What is told of windows that show deformation.")],
    encoder: Annotated[
        str | None, typer.Option(help="A network of timm, by its name; it stays frozen.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Instead, a trained model: best.ckpt in the folder of a run.")
    ] = None,
    weights: WeightsOption = None,
    fields: FieldsOption = None,
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the report. Default: kinds/ in the folder of results.")
    ] = None,
    device: DeviceOption = "auto",
    unsealed: UnsealedOption = False,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Fit a head on a frozen network that tells the type of activity or the intensity, and score it.

    The head sees windows with deformation alone. `benchmark run probes` tells them from quiet ones.
    """
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
    from hephaestus_baselines.data.pinned_cubes import pin_cubes
    from hephaestus_baselines.data.preparation import prepare_recipe_data
    from hephaestus_baselines.evaluation.kind_schema import KINDS_FOLDER
    from hephaestus_baselines.probes.kind_report import measure_kinds

    if (encoder is None) == (checkpoint is None):
        raise UsageError("give either --encoder NAME or --checkpoint FILE")
    changes = parse_fields(fields or ())
    if weights:
        changes["weights"] = local_path("--weights", weights)
    recipe, trained = _open_recipe(encoder, checkpoint, changes, device, unsealed=unsealed)
    settings = load_settings(data_dir=data_dir)
    taken = select_benchmark_cubes(settings, cubes, simulated=simulated, mixed=mixed)
    folder = to or taken.settings.data_dir / "results" / KINDS_FOLDER
    if to:
        require_writable(to, "--to")
    pinned, changed = pin_cubes(taken.stores, folder, mixed=mixed)
    if changed:
        print_notice(f"{', '.join(changed)} changed since {folder} began, and is read as it was then")
    with show_progress() as listener:
        prepared = prepare_recipe_data(
            recipe,
            pinned,
            results=folder,
            mixed=True,
            whole=None if unchecked else CubeIntegrityChecker(folder, listener),
            listener=listener,
        )
        if trained is None:
            from hephaestus_baselines.probes.frozen_encoder import open_encoder
            from hephaestus_baselines.training.inference import resolve_device

            trained = open_encoder(recipe, prepared, resolve_device(device))
        report = measure_kinds(
            task.value,
            recipe,
            prepared,
            trained,
            folder / "features",
            model=encoder or recipe.key,
            weights=Path(recipe.weights).name if encoder else "trained for deformation",
            listener=listener,
        )
    name = f"{recipe.key}-{task.value}.json"
    with translate_os_errors(f"probe: writing {folder / name}", setting="--to"):
        make_folder(folder)
        write_atomic(folder / name, report.model_dump_json(indent=1).encode() + b"\n")
    if as_json:
        shown = report.model_dump(mode="json", exclude={"format", "generations", "split_sha256"})
        print_json({**shown, "files": [str(folder / name)]})
        return
    _print_report(report)
    err.print(str(folder / name))


def _open_recipe(
    encoder: str | None, checkpoint: Path | None, changes: dict[str, object], device: str, *, unsealed: bool
) -> tuple[Recipe, FrozenEncoder | None]:
    """Return windows and channels, and the network of a checkpoint."""
    from hephaestus_baselines.config.run_config import read_preset

    recipes = read_preset("probes").make_recipes(**({"model": encoder} if encoder else {}), **changes)
    known = next(recipe for recipe in recipes if not recipe.control)  # controls see no phase
    if checkpoint is None:
        return known, None
    from hephaestus_baselines.probes.frozen_encoder import encoder_of_trained
    from hephaestus_baselines.training.exported_model import require_model
    from hephaestus_baselines.training.inference import load_trained_model

    if changes:
        raise UsageError("a checkpoint brings its own settings; leave out --set and --weights")
    require_model(checkpoint)
    trained = load_trained_model(checkpoint, device, unsealed=unsealed)
    passes = {"epochs": known.epochs, "workers": 0}
    return trained.recipe.model_copy(update=passes), encoder_of_trained(trained)


def _print_report(report: KindReport) -> None:
    marked = " (simulated)" if report.simulated else ""
    counts = ", ".join(f"{count} in {part}" for part, count in report.windows.items())
    print_fields(
        f"{report.task} of deformation{marked}",
        {
            "network": f"{report.model}, weights: {report.weights}",
            "deforming windows": f"{counts}, of {report.events} events in test",
            "split": report.split,
        },
    )
    names = list(report.scores)
    rows = [["head", *(_format_estimate(report.scores[name]) for name in names)]]
    for control, found in report.controls.items():
        rows.append([control, *(_format_estimate(found.scores[name]) for name in names)])
        rows.append([f"better than {control} by", *(_format_estimate(found.gaps[name]) for name in names)])
    titles = [name.replace("_", " ") for name in names]
    print_table(["", *titles], rows)
    scored = [*report.classes[0].scores] if report.classes else []
    parts = [*report.classes[0].windows] if report.classes else []
    print_table(
        ["", *parts, "events", *(name.replace("_", " ") for name in scored), "left out of means"],
        [
            [
                one.name,
                *(str(count) for count in one.windows.values()),
                str(one.events),
                *(_format_estimate(one.scores[name]) for name in scored),
                one.too_few,
            ]
            for one in report.classes
        ],
    )


def _format_estimate(found: ScoreEstimate) -> str:
    if math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
