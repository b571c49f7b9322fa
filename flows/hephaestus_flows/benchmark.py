"""The flow ``benchmark``: a grid of runs, each a task.

:mod:`hephaestus_baselines.experiments.experiment_grid` does the work.

Prefect's states hold no results: finished runs are in the results folder, so any number of flow runs and of
`hephaestus benchmark run` may work on a grid, one after the other or at the same time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote
from pydantic import Field

from hephaestus_baselines.cli.runs import format_headline_score
from hephaestus_baselines.config.run_config import Recipe, preset_names, read_preset
from hephaestus_baselines.data.simulated_cubes import ensure_benchmark_cubes
from hephaestus_baselines.experiments.experiment_grid import (
    ExperimentGrid,
    RunOutcome,
    open_experiment_grid,
    run_experiment,
    select_part,
)
from hephaestus_baselines.experiments.experiment_report import write_experiment_report
from hephaestus_build.cli.options import parse_part
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import select_cubes
from hephaestus_flows.artifacts import artifact_key, create_rows_artifact
from hephaestus_flows.failures import EXPECTED_FAILURES, failed_state
from hephaestus_flows.parameter_folders import load_flow_settings, resolve_allowed_path


@task(name="run", task_run_name="{key}", cache_policy=NO_CACHE, persist_result=False)
def training_run_task(key: str, recipe: Recipe, bench: ExperimentGrid, device: str) -> State[Any]:
    """Train and score one run of the grid, unless it is finished or running in another process."""
    ended = run_experiment(bench, recipe, device=device)
    said = ended.error or (
        format_headline_score(ended.result) if ended.result else "running in another process"
    )
    return (Failed if ended.error else Completed)(message=sanitize_text(said, 2000), data=ended)


@flow(name="benchmark", flow_run_name="{preset} {part}", persist_result=False)
def benchmark(
    preset: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,500}$")] = "small",
    part: Annotated[str, Field(pattern=r"^[1-9][0-9]*/[1-9][0-9]*$")] = "1/1",
    cubes: Path | None = None,
    simulated: bool = False,
    mixed: bool = False,
    results: Path | None = None,
    fields: dict[str, Any] | None = None,
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = "auto",
    data_dir: Path | None = None,
) -> State[Any]:
    """Train and score the runs of a preset, or a part of them; tables and pictures at the end.

    Args:
        preset: small, paper, legacy, or the path of a YAML file where data_dir may be, too.
        part: i/n, the i-th of n parts: give each machine another i.
        cubes: Folder of the cubes, where data_dir may be; cubes/ in the data folder by default.
        simulated: On cubes of the embedded archive, built once and kept.
        mixed: Take real and simulated cubes together, where the folder has both.
        results: Folder of the results, where data_dir may be; results/ in data_dir or its simulated/.
        fields: Fields of all runs to change, such as epochs.
        device: auto, cpu or cuda.
        data_dir: Folder of cubes/, the cache and the results: in the server's own, or in one of data_roots.
    """
    try:
        check_extra("baselines", "the benchmark")
        settings = load_flow_settings(data_dir)
        number, chosen = parse_part(part), read_preset(_resolve_preset(preset, settings))
        if cubes is not None:
            cubes = resolve_allowed_path("cubes", cubes, settings)
        if results is not None:
            results = resolve_allowed_path("results", results, settings)
        if simulated:
            cubes = ensure_benchmark_cubes(settings)
        taken = select_cubes(settings, [cubes] if cubes else [], mixed=mixed)
        if taken.notice:
            get_run_logger().info("%s", sanitize_text(taken.notice, 2000))
        bench = open_experiment_grid(
            chosen,
            taken.stores or cubes or settings.cubes_dir,
            results or taken.settings.data_dir / "results",
            mixed=mixed,
            command=f"flow benchmark, preset {chosen.name}",
            **_resolve_weights_field(fields or {}, settings),
        )
        mine = select_part(bench.recipes, number)
        states = [
            training_run_task(item.key, quote(item), quote(bench), device, return_state=True) for item in mine
        ]
        ended = [cast(RunOutcome, state.result(raise_on_failure=False)) for state in states]
        paths = write_experiment_report(bench) if bench.has_results_for_tables() else []
    except EXPECTED_FAILURES as error:
        return failed_state(error)
    create_rows_artifact(map(_outcome_row, ended), artifact_key("benchmark", chosen.name))
    for path in paths:
        if path.suffix == ".md":
            create_markdown_artifact(
                path.read_text(encoding="utf-8"), key=artifact_key("tables", chosen.name)
            )
    return _final_state(ended)


def _resolve_preset(preset: str, settings: Settings) -> str:
    """Return the name of a built-in preset, or the path of a file in an allowed folder."""
    if preset in preset_names() or re.fullmatch(r"[\w-]+", preset, re.ASCII):
        return preset
    return str(resolve_allowed_path("preset", Path(preset), settings))


def _resolve_weights_field(fields: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return `fields`, with a folder of weights checked to be in an allowed folder."""
    weights = fields.get("weights", "none")
    if not isinstance(weights, str) or weights in ("imagenet", "none"):
        return fields
    return {**fields, "weights": str(resolve_allowed_path("weights", Path(weights), settings))}


def _outcome_row(ended: RunOutcome) -> dict[str, Any]:
    if ended.result is None:
        return {
            "run": ended.recipe.key,
            "state": "failed" if ended.error else "elsewhere",
            "why": ended.error,
        }
    state = "was finished" if ended.was_finished else "done"
    return {"run": ended.recipe.key, "state": state, "test": format_headline_score(ended.result)}


def _final_state(ended: list[RunOutcome]) -> State[Any]:
    failed = [item for item in ended if item.error]
    elsewhere = sum(item.is_running_elsewhere for item in ended)
    done = len(ended) - len(failed) - elsewhere
    said = f"{count_of(len(ended), 'run')}: {done} finished, {elsewhere} elsewhere, {len(failed)} failed"
    if failed:
        return Failed(message=sanitize_text(f"{said}; {failed[0].error}", 2000), data=said)
    return Completed(message=said, data=said)
