"""The flow ``benchmark``: a grid of runs, each a task; :mod:`baselines.benchmark` does the work.

No truth lives in Prefect's states: what is finished stands in the results folder, so that any number of flow
runs, and of `hephaestus benchmark run`, may share a grid, one after the other or at the same time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote
from pydantic import Field

from baselines.benchmark import Bench, Ended, finish, open_bench, run_one, share
from baselines.recipe import Recipe, read_preset
from baselines.world import benchmark_cubes
from hephaestus_build.cli.benchmark import headline, parse_part
from hephaestus_build.collection import take
from hephaestus_build.errors import HephaestusError
from hephaestus_build.settings import load_settings, refuse_address


@task(name="run", task_run_name="{key}", cache_policy=NO_CACHE, persist_result=False)
def train(key: str, recipe: Recipe, bench: Bench, device: str) -> State[Any]:
    """Do one run of the grid, unless it is finished or another process is at it."""
    ended = run_one(bench, recipe, device=device)
    said = ended.error or (headline(ended.result) if ended.result else "another process is at it")
    return (Failed if ended.error else Completed)(message=said, data=ended)


@flow(name="benchmark", flow_run_name="{preset} {part}", persist_result=False)
def benchmark(
    preset: str = "small",
    part: Annotated[str, Field(pattern=r"^[1-9][0-9]*/[1-9][0-9]*$")] = "1/1",
    cubes: Path | None = None,
    simulated: bool = False,
    mixed: bool = False,
    results: Path | None = None,
    fields: dict[str, Any] | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
) -> State[Any]:
    """Train and score the runs of a preset, or a part of them; tables and pictures at the end.

    Args:
        preset: small, paper, legacy, or the path of a YAML file.
        part: i/n, the i-th of n parts: give each machine another i.
        cubes: Folder of the cubes; cubes/ in the data folder by default.
        simulated: On cubes of the embedded archive, built once and kept.
        mixed: Take real and simulated cubes together, where the folder has both.
        results: Folder of the results; results/ in the data folder, or in its simulated/.
        fields: Fields of all runs to change, such as epochs.
        device: auto, cpu or cuda.
        data_dir: Folder of cubes/, the cache and the results.
    """
    try:
        number, chosen = parse_part(part), read_preset(preset)
        settings = load_settings(data_dir=data_dir)
        for name, path in (("cubes", cubes), ("results", results)):
            refuse_address(name, path)
        if simulated:
            cubes = benchmark_cubes(settings)
        taken = take(settings, [cubes] if cubes else [], mixed=mixed)
        if taken.said:
            get_run_logger().info(taken.said)
        bench = open_bench(
            chosen,
            taken.stores or cubes or settings.cubes_dir,
            results or taken.settings.data_dir / "results",
            mixed=mixed,
            command=f"flow benchmark, preset {chosen.name}",
            **(fields or {}),
        )
        mine = share(bench.recipes, number)
        states = [train(item.key, quote(item), quote(bench), device, return_state=True) for item in mine]
        ended = [cast(Ended, state.result(raise_on_failure=False)) for state in states]
        paths = finish(bench) if any(map(bench.is_finished, bench.recipes)) else []
    except HephaestusError as error:
        return Failed(message=str(error), data=error)
    create_table_artifact(table=[_row(item) for item in ended], key=f"benchmark-{chosen.name}")
    for path in paths:
        if path.suffix == ".md":
            create_markdown_artifact(path.read_text(encoding="utf-8"), key=f"tables-{chosen.name}")
    return _end(ended)


def _row(ended: Ended) -> dict[str, Any]:
    if ended.result is None:
        return {
            "run": ended.recipe.key,
            "state": "failed" if ended.error else "elsewhere",
            "why": ended.error,
        }
    state = "was finished" if ended.kept else "done"
    return {"run": ended.recipe.key, "state": state, "test": headline(ended.result)}


def _end(ended: list[Ended]) -> State[Any]:
    failed = [item for item in ended if item.error]
    elsewhere = sum(item.elsewhere for item in ended)
    done = len(ended) - len(failed) - elsewhere
    said = f"{len(ended)} runs: {done} finished, {elsewhere} elsewhere, {len(failed)} failed"
    if failed:
        return Failed(message=f"{said}; {failed[0].error}", data=said)
    return Completed(message=said, data=said)
