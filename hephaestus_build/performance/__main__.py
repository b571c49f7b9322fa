"""``python -m hephaestus_build.performance``: what ``make bench`` runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import err, print_notice
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.settings import load_settings

app = typer.Typer(
    help="Measurements beside named baselines, on simulated data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _main() -> None:
    """Keep ``build`` a command of its own while it is the only one."""


@app.command("build")
def measure_build(
    size: Annotated[
        str, typer.Option(help="real (2500 x 3000 pixels), small, or rows and columns as 600x700.")
    ] = "real",
    epochs: Annotated[
        int, typer.Option(min=4, help="Acquisitions of the simulated archive: 10 have 24 pairs.")
    ] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="How often each row is measured.")] = 3,
    long: Annotated[bool, typer.Option("--long", help="Also 48 pairs, and adding to 1,500.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait before each row until the machine is quiet.")
    ] = 0,
    real: Annotated[
        Path | None, typer.Option(help="A folder of real LiCSAR interferograms to compare with.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where archives are kept. Default: <data_dir>/bench.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where build.json and build.md go.")] = Path("results"),
    scale: Annotated[
        bool, typer.Option("--scale", help="Measure many small frames instead: scale.json and scale.md.")
    ] = False,
    frames: Annotated[int, typer.Option(min=4, help="With --scale: how many.")] = 2000,
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure the build beside its limit and beside a plain region-writing build of the same content."""
    from hephaestus_build.performance.markdown_report import evaluate_targets, render_build_report
    from hephaestus_build.performance.result_files import write_results
    from hephaestus_build.performance.suite import BuildBenchmark

    where = folder if folder is not None else load_settings().data_dir / "bench"
    if scale:
        _measure_scale(where, frames, results, as_json=as_json)
        return
    suite = BuildBenchmark(
        where,
        _parse_size(size),
        epochs=epochs,
        rounds=rounds,
        cube_sizes=(10, 100, 1500) if long else (10, 100),
        memory_pairs=48 if long else None,
        idle_timeout=patience,
        real=real,
        report=_report,
    )
    result = _finish(suite.run)
    result["targets"] = evaluate_targets(result)
    write_results(result, render_build_report(result), results, as_json=as_json)


def _measure_scale(folder: Path, frames: int, results: Path, *, as_json: bool) -> None:
    from hephaestus_build.performance.result_files import write_results
    from hephaestus_build.performance.scale_report import evaluate_scale_targets, render_scale_report
    from hephaestus_build.performance.scale_suite import ScaleBenchmark

    result = _finish(ScaleBenchmark(folder, frames, report=_report).run)
    result["targets"] = evaluate_scale_targets(result)
    write_results(result, render_scale_report(result), results, as_json=as_json)


def _report(text: str) -> None:
    err.print(text, markup=False)


def _finish(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return run()
    except (OSError, RuntimeError) as error:
        raise HephaestusError(f"the measurement did not come to its end: {error}") from error


def _parse_size(text: str) -> str | tuple[int, int]:
    if text in ("real", "small"):
        return text
    rows, _, columns = text.partition("x")
    if not (rows.isdigit() and columns.isdigit()):
        raise UsageError(f"unknown size {text}: choose real, small, or rows and columns such as 600x700")
    return int(rows), int(columns)


if __name__ == "__main__":
    try:
        app()
    except HephaestusError as error:
        print_notice(str(error))
        sys.exit(error.exit_code)
