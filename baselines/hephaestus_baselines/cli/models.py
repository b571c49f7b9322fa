"""``hephaestus benchmark predict``, ``detectability`` and ``export-model``: one trained model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hephaestus_baselines.cli.cubes import select_benchmark_cubes
from hephaestus_baselines.cli.options import (
    BenchmarkCubesOption,
    BenchmarkSimulatedOption,
    CheckpointOption,
    DeviceOption,
    ModelOption,
    UncheckedOption,
    UnsealedOption,
    choose_model_path,
)
from hephaestus_build.cli.console import (
    err,
    out,
    print_fields,
    print_json,
    print_notice,
    print_table,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption, parse_pair
from hephaestus_build.core.atomic_io import require_writable
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.discovery import BENCHMARK_FOLDER, find_cube, settings_for_cube

if TYPE_CHECKING:
    from hephaestus_baselines.detectability.detectability_report import DetectabilityReport
    from hephaestus_baselines.detectability.detection_limits import DetectionCurve, DetectionLimit

_DATE_FORMATS = ["%Y-%m-%d", "%Y%m%d"]


def predict(
    frame: Annotated[str, typer.Argument(help="Frame id, volcano with a single frame, or path of a cube.")],
    checkpoint: CheckpointOption = None,
    model: ModelOption = None,
    pairs: Annotated[
        list[str] | None, typer.Option(help="Only this pair, such as 20200101_20200113; may be repeated.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=_DATE_FORMATS, help="Leave out pairs that begin before this day."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Only pairs without a map of this checkpoint.")] = False,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the maps. Default: predictions/ in the data folder.")
    ] = None,
    alarms: Annotated[
        Path | None,
        typer.Option(help="CSV to write: the maps made now that reach the threshold, area, nearest volcano."),
    ] = None,
    device: DeviceOption = "auto",
    unsealed: UnsealedOption = False,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Predict maps of the probability of deformation, as GeoTIFFs, pictures and <frame>.zarr."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.mapping.map_alarms import check_alarm_table, write_alarm_table
    from hephaestus_baselines.mapping.predict_frame import PairFilter
    from hephaestus_baselines.mapping.predict_frame import predict_frame_maps as predict_frame

    chosen = choose_model_path(checkpoint, model)
    if alarms:
        check_alarm_table(alarms)
    settings = load_settings(data_dir=data_dir)
    wanted = PairFilter(tuple(map(parse_pair, pairs or ())), since.date() if since else None, new)
    cube = _find_cube_to_map(frame, settings)
    folder = to or settings_for_cube(cube, settings).data_dir / "predictions"
    if to:
        require_writable(to, "--to")
    written = []
    with show_progress() as listener:
        maps = predict_frame(
            chosen,
            cube,
            folder,
            wanted,
            device=device,
            unsealed=unsealed,
            unchecked=unchecked,
            needs_threshold=alarms is not None,
            listener=listener,
        )
        for item in maps:
            written.append(item)
            if not as_json and item.geotiff:
                word = ", alarm" if item.alarm else ""
                out.print(f"{item.name}: highest {item.highest:.3f}{word}  {item.geotiff}")
    raised = [item.alarm for item in written if item.alarm]
    if alarms:
        write_alarm_table(alarms, raised)
    made = sum(item.geotiff is not None for item in written)
    if as_json:
        print_json({"maps": [item.to_json() for item in written]})
    else:
        err.print(f"{count_of(made, 'map')} written to {folder}, {len(written) - made} already there")
        if alarms:
            err.print(f"{count_of(len(raised), 'alarm')} in {alarms}")


def detectability(
    checkpoint: CheckpointOption = None,
    model: ModelOption = None,
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    places: Annotated[
        int, typer.Option(min=1, max=100_000, help="Places for each frame, each with one source.")
    ] = 60,
    interferograms: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Take a frame's places from so many of its interferograms, equally many from each, for the "
            "limits of each. Default: at random from all.",
        ),
    ] = None,
    false_alarms: Annotated[
        float,
        typer.Option(
            "--false-alarms", min=0.001, max=0.5, help="Share of quiet windows that may raise an alarm."
        ),
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of places, sources and noise.")] = 0,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the report. Default: detectability/ beside the checkpoint.")
    ] = None,
    device: DeviceOption = "auto",
    unsealed: UnsealedOption = False,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure how small a deformation a model finds: known sources are added to quiet interferograms."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
    from hephaestus_baselines.detectability.detectability_report import write_detectability
    from hephaestus_baselines.detectability.injection_experiment import measure_detectability
    from hephaestus_baselines.training.exported_model import require_model

    chosen = require_model(choose_model_path(checkpoint, model))
    settings = load_settings(data_dir=data_dir)
    taken = select_benchmark_cubes(settings, cubes, simulated=simulated, mixed=mixed)
    folder = to or chosen.parent / "detectability"
    require_writable(folder, "--to")
    with show_progress() as listener:
        report, injected = measure_detectability(
            chosen,
            {store.stem: store for store in taken.stores},
            places=places,
            interferograms=interferograms,
            false_alarms=false_alarms,
            seed=seed,
            device=device,
            unsealed=unsealed,
            mixed=mixed,
            checker=None if unchecked else CubeIntegrityChecker(None, listener),
            listener=listener,
        )
    paths = write_detectability(folder, report, injected)
    if not report.same_split:
        print_notice(
            f"the split of these cubes is not that of training: some interferograms of their {report.split} "
            "test part may have been trained on"
        )
    if as_json:
        kept = (
            "model", "simulated", "same_split", "false_alarm_rate", "threshold", "test_windows",
            "test_false_alarms",
        )  # fmt: skip
        described = {name: getattr(report, name) for name in kept}
        print_json({**described, "limits": _limits_json(report), "files": [str(path) for path in paths]})
        return
    _print_detectability(report)
    for path in paths:
        err.print(str(path))


def export_model(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder to write; an earlier exported model there is replaced.")
    ],
    license_id: Annotated[
        str, typer.Option("--license", help="Identifier of the licence of the weights, for the model card.")
    ] = "mit",
    as_json: bool = JSON_OPTION,
) -> None:
    """Write the model of a run as a folder that predicts anywhere, with its scores and a model card."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.experiments.model_export import export_model_folder
    from hephaestus_baselines.training.exported_model import hash_model, read_exported_model

    paths = export_model_folder(run, out_dir, license_id=license_id)
    exported = read_exported_model(out_dir)
    if as_json:
        print_json(
            {
                "model": exported.description.recipe.key,
                "simulated": exported.description.simulated,
                "sha256": hash_model(out_dir),
                "folder": str(out_dir),
                "files": [str(path) for path in paths],
            }
        )
        return
    for path in paths:
        out.print(str(path))
    err.print(f"exported; `hephaestus benchmark predict FRAME --model {out_dir}` uses it")


def _print_detectability(report: DetectabilityReport) -> None:
    from hephaestus_baselines.detectability.detection_limits import MIN_PLACES

    marked = " (simulated)" if report.simulated else ""
    achieved = f"{report.test_false_alarms} of {report.test_windows} windows of the test part"
    print_fields(
        f"detection of added sources{marked}",
        {
            "model": report.model,
            "alarm above": f"{report.threshold:.4f}, which {report.false_alarm_rate:.1%} of "
            f"{report.validation_windows} quiet validation windows exceed",
            "without a source": f"{achieved} raise an alarm, as a model that looks at no image would",
        },
    )
    rows = [
        [kind, name, str(curve.places), *(_format_limit(limit) for limit in curve.limits)]
        for kind, name, curve in _curves(report)
    ]
    known = [one for one in report.by_interferogram if one.places >= MIN_PLACES]
    rows += [
        [
            "interferogram",
            f"{one.frame} {_name_pairs(one.pairs)}",
            str(one.places),
            *(_format_limit(limit) for limit in one.limits),
        ]
        for one in known
    ]
    print_table(["by", "", "places", "half found from", "9 of 10 found from"], rows)
    if few := len(report.by_interferogram) - len(known):
        print_notice(
            f"{count_of(few, 'interferogram')} with fewer than {MIN_PLACES} places: limits of each need more "
            "--places, or fewer --interferograms"
        )


def _curves(report: DetectabilityReport) -> list[tuple[str, str, DetectionCurve]]:
    """Return the curves of a report, each with what its places have in common."""
    groups = {"all": {"all places": report.all}, "frame": report.by_frame, "source": report.by_kind}
    groups |= {"extent": report.by_extent, "coherence": report.by_coherence}
    return [(kind, name, curve) for kind, curves in groups.items() for name, curve in curves.items()]


def _limits_json(report: DetectabilityReport) -> list[dict[str, Any]]:
    of_each = [
        {
            "by": "interferogram",
            "group": " ".join(one.pairs),
            "frame": one.frame,
            "places": one.places,
            **limit.model_dump(mode="json"),
        }
        for one in report.by_interferogram
        for limit in one.limits
    ]
    groups = [
        {
            "by": kind,
            "group": name,
            **({"frame": name} if kind == "frame" else {}),
            "places": curve.places,
            **limit.model_dump(mode="json"),
        }
        for kind, name, curve in _curves(report)
        for limit in curve.limits
    ]
    return groups + of_each


def _name_pairs(pairs: Sequence[str]) -> str:
    """Return the name of a pair, or of a series by its first."""
    return pairs[0] if len(pairs) == 1 else f"{pairs[0]} and {count_of(len(pairs) - 1, 'more')}"


def _format_limit(limit: DetectionLimit) -> str:
    if math.isnan(limit.displacement_cm):
        return limit.note.split(",")[0]
    low = "below" if math.isnan(limit.low_cm) else f"{limit.low_cm:.2g}"
    high = "more" if math.isnan(limit.high_cm) else f"{limit.high_cm:.2g}"
    return f"{limit.displacement_cm:.2g} cm ({low} to {high}), {limit.fringes:.2g} fringes"


def _find_cube_to_map(target: str, settings: Settings) -> Path:
    """Return the path of a cube, preferring that of the simulated benchmark for its frames."""
    own = settings.for_simulated().data_dir / BENCHMARK_FOLDER / "cubes" / f"{target}.zarr"
    if not own.exists():
        return find_cube(target, settings)
    print_notice(f"{target}: using the cube of the simulated benchmark, {own}; give a path to use another")
    return own
