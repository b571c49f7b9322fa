"""``hephaestus benchmark score``, ``template`` and ``submit``: predictions of any model as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hephaestus_baselines.cli.cubes import select_benchmark_cubes
from hephaestus_baselines.cli.options import (
    BenchmarkCubesOption,
    BenchmarkSimulatedOption,
    DeviceOption,
    UncheckedOption,
)
from hephaestus_build.cli.console import err, out, print_json, print_notice, print_table
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption
from hephaestus_build.core.atomic_io import require_writable
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import ProgressListener, show_progress
from hephaestus_build.core.settings import load_settings

if TYPE_CHECKING:
    from hephaestus_baselines.data.preparation import PreparedData
    from hephaestus_baselines.submissions.leaderboard import LeaderboardEntry

_RESULT_FILE = "result.json"


def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Submissions (docs/scoring.md), and folders or result.json of runs to compare with."
        ),
    ],
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    to: Annotated[
        Path | None, typer.Option(help="Folder for leaderboard.md, .csv and .json. Default: only printed.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.")] = 0,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Score predictions of any model as our own runs are scored, and rank them in a leaderboard.

    A file that cannot be scored is named and stops no other; exits with 1 then.
    """
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.submissions.leaderboard import (
        entry_to_json,
        rank_entries,
        table_columns,
        table_rows,
        table_title,
        write_leaderboard,
    )

    if to:
        require_writable(to, "--to")
    scorer = _Scorer(cubes, simulated, mixed, unchecked, seed, data_dir)
    entries, problems = [], []
    for path in files:
        try:
            entries.append(scorer.read_entry(path))
        except UsageError:
            raise
        except HephaestusError as error:
            problems.append(str(error))
    tables = rank_entries(entries)
    paths = write_leaderboard(to, tables) if to and tables else []
    if as_json:
        print_json(
            {
                "entries": [entry_to_json(entry) for table in tables for entry in table],
                "problems": problems,
                "files": [str(path) for path in paths],
            }
        )
    else:
        for number, table in enumerate(tables):
            if number:
                out.print()
            out.print(table_title(table), style="bold")
            print_table(table_columns(table[0].task), table_rows(table))
        for path in paths:
            err.print(str(path))
    for problem in problems:
        print_notice(problem)
    if problems:
        raise typer.Exit(1)


def template(
    file: Annotated[Path, typer.Argument(help="File to write: .csv, or .jsonl for JSON Lines.")],
    model: Annotated[str, typer.Option(help="Name of the model in tables.")] = "my model",
    task: Annotated[Literal["classification", "segmentation"], typer.Option(help="Task.")] = "classification",
    unit: Annotated[
        Literal["window", "interferogram"],
        typer.Option(help="What gets a probability: each window, or each interferogram as a whole."),
    ] = "window",
    split: Annotated[
        str, typer.Option(help="Name of the split (hephaestus splits list).")
    ] = "strict-temporal",
    series: Annotated[bool, typer.Option("--series", help="Series of three interferograms.")] = False,
    size: Annotated[int, typer.Option(min=32, max=8192, help="Rows and columns of a window.")] = 512,
    tiling: Annotated[
        str, typer.Option(help="Placement of windows, such as volcano-centred.")
    ] = "whole-frame",
    positives: Annotated[
        Literal["any", "volcanic"], typer.Option(help="Deformation that counts: any, or volcanic.")
    ] = "any",
    uncertain: Annotated[
        Literal["by-task", "exclude", "keep"], typer.Option(help="Frames whose outlines are uncertain.")
    ] = "by-task",
    maps: Annotated[
        str, typer.Option(help="Name of the maps of a segmentation, beside the file.")
    ] = "maps.npz",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a submission without probabilities: all samples that a model must predict to be scored."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.submissions.scored_samples import describe_samples, list_samples
    from hephaestus_baselines.submissions.submission_file import protocol_recipe, write_submission

    segmentation = task == "segmentation"
    recipe = protocol_recipe(
        task, split=split, series=series, size=size, tiling=tiling, positives=positives, uncertain=uncertain
    )
    if file.exists():
        raise UsageError(
            f"{file} is there already, perhaps with predictions; choose another name, or remove it"
        )
    require_writable(file.parent, "the folder of FILE")
    prepared = _Scorer(cubes, simulated, mixed, unchecked, 0, data_dir).prepare(recipe)
    chosen = "interferogram" if segmentation else unit
    samples = list_samples(prepared, chosen)
    header = describe_samples(
        recipe, prepared, "window" if segmentation else unit, model=model, maps=maps if segmentation else ""
    )
    write_submission(file, header, [(key, part, None) for key, part in samples.items()])
    if as_json:
        told = header.model_dump(mode="json", exclude={"size"})
        print_json({**told, "window_pixels": header.size, "samples": len(samples), "file": str(file)})
    else:
        err.print(f"{count_of(len(samples), 'sample')} to be filled in: {file}")


def submit(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    file: Annotated[Path, typer.Option("--out", help="File to write: .csv, or .jsonl for JSON Lines.")],
    model: Annotated[str, typer.Option(help="Name of the model in tables. Default: the run's.")] = "",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    device: DeviceOption = "auto",
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a finished run as a submission, which others can score; a segmentation has its maps beside it.

    The maps are predicted again; windows that are not what the run had, as on another device, are counted.
    """
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.submissions.run_submission import FinishedRun, write_run_submission

    finished = FinishedRun.open(run)
    if file.exists():
        raise UsageError(f"{file} is there already; choose another name, or remove it")
    require_writable(file.parent, "--out")
    prepared = _Scorer(cubes, simulated, mixed, unchecked, 0, data_dir).prepare(
        finished.recipe, results=finished.statistics_folder
    )
    with show_progress() as listener:
        made = write_run_submission(finished, prepared, file, model=model, device=device, listener=listener)
    if made.differing:
        print_notice(
            f"{count_of(made.differing, 'window')} of the maps not as in the run, which was predicted on "
            f"{finished.result.device}"
        )
    if as_json:
        told = made.header.model_dump(mode="json", exclude={"size"})
        counts = {"samples": made.samples, "differing_windows": made.differing}
        print_json({**told, "window_pixels": made.header.size, **counts, "file": str(file)})
        return
    beside = f", with maps in {file.parent / made.header.maps}" if made.header.maps else ""
    err.print(f"{count_of(made.samples, 'sample')} in {file}{beside}", soft_wrap=True)
    err.print(f"`hephaestus benchmark score {file} {run}` scores both", soft_wrap=True)


class _Scorer:
    """Scores files on cubes, which are opened once for the same samples, when a submission needs them."""

    def __init__(
        self,
        cubes: Path | None,
        simulated: bool,
        mixed: bool,
        unchecked: bool,
        seed: int,
        data_dir: Path | None,
    ) -> None:
        self._options = cubes, simulated, mixed
        self._unchecked, self._seed, self._data_dir = unchecked, seed, data_dir
        self._prepared: dict[Any, PreparedData] = {}

    def read_entry(self, path: Path) -> LeaderboardEntry:
        """Return the entry of a submission, or of a run by its folder or result."""
        from hephaestus_baselines.evaluation.result_schema import RunResult
        from hephaestus_baselines.submissions.leaderboard import entry_of_run, entry_of_submission
        from hephaestus_baselines.submissions.scored_samples import score_submission
        from hephaestus_baselines.submissions.submission_file import read_submission

        if path.is_dir():
            path = path / _RESULT_FILE
        if not path.exists():
            raise UsageError(
                f"there is no file {path}; `hephaestus benchmark template` writes one to be filled in"
            )
        if path.name == _RESULT_FILE:
            return entry_of_run(RunResult.read(path), path)
        submission = read_submission(path)
        prepared = self.prepare(submission.header.recipe)
        with show_progress() as listener:
            found = score_submission(submission, prepared, seed=self._seed, listener=listener)
        return entry_of_submission(submission, found)

    def prepare(self, recipe: Any, results: Path | None = None) -> PreparedData:
        """Return the data of a recipe; with the statistics of a grid's `results`, if given."""
        key = (
            recipe.split, recipe.series, recipe.size, recipe.tiling, recipe.uses_uncertain, recipe.positives,
        )  # fmt: skip
        if key not in self._prepared:
            self._prepared[key] = self._prepare(recipe, results)
        return self._prepared[key]

    def _prepare(self, recipe: Any, results: Path | None) -> PreparedData:
        from hephaestus_baselines.submissions.scored_samples import prepare_scored_data

        cubes, simulated, mixed = self._options
        taken = select_benchmark_cubes(
            load_settings(data_dir=self._data_dir), cubes, simulated=simulated, mixed=mixed
        )
        listener: ProgressListener
        with show_progress() as listener:
            return prepare_scored_data(
                recipe,
                taken.stores,
                mixed=mixed,
                unchecked=self._unchecked,
                results=results,
                listener=listener,
            )
