"""``hephaestus benchmark difference``: the paired difference of two recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hephaestus_build.cli.console import print_json, print_notice, print_table
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.extras import check_extra

if TYPE_CHECKING:
    from hephaestus_baselines.experiments.compare_grids import GridComparison

_TITLES = {
    "precision": "precision", "recall": "recall", "f1": "F1", "auroc": "AUROC", "iou": "IoU",
    "average_precision": "average precision", "macro_f1": "macro F1", "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy", "mae": "mean absolute error",
    "macro_mae": "class mean of absolute errors",
    "quadratic_kappa": "quadratic kappa",
}  # fmt: skip


def difference(
    first: Annotated[Path, typer.Argument(help="Results of one preset, such as data/results/paper.")],
    second: Annotated[Path, typer.Argument(help="Results of another one on the same cubes.")],
    part: Annotated[
        Literal["test", "validation"],
        typer.Option(help="Part to score; validation while a recipe is being chosen."),
    ] = "test",
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare two recipes on the same items: mean difference over seeds, with its interval."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.experiments.compare_grids import compare_grids

    found = list(compare_grids(first, second, part=part))
    if as_json:
        print_json({"differences": [_to_json(one) for one in found]})
        return
    columns = ("task", "model", "unit", "score", "seeds", first.name, second.name, "difference", "interval")
    print_table(columns, [_to_row(one) for one in found], numbers=columns[4:])
    if any(one.simulated for one in found):
        print_notice("simulated data: these numbers say nothing of a volcano")


def _to_row(one: GridComparison) -> tuple[str, ...]:
    return (
        one.task,
        f"{one.model}, series" if one.series else one.model,
        one.unit,
        _TITLES[one.score],
        str(len(one.seeds)),
        f"{one.first:.3f}",
        f"{one.second:.3f}",
        f"{one.gap.value:+.3f}",
        f"{one.gap.low:+.3f} to {one.gap.high:+.3f}",
    )


def _to_json(one: GridComparison) -> dict[str, object]:
    return {**vars(one), "seeds": list(one.seeds), "gap": one.gap.model_dump(mode="json")}
