"""Commands of ``hephaestus benchmark``: train and score models on the cubes, and predict with them.

The heavy modules of this package are imported when a command runs, so that help works without PyTorch.
"""

from __future__ import annotations

import typer

from hephaestus_baselines.cli.difference import difference
from hephaestus_baselines.cli.kinds import probe
from hephaestus_baselines.cli.models import detectability, export_model, predict
from hephaestus_baselines.cli.runs import plan, run, tables
from hephaestus_baselines.cli.submissions import score, submit, template

app = typer.Typer(
    help="Train and score models on the cubes, and map their predictions.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
for command in (
    run, plan, tables, difference, predict, probe, detectability, export_model, score, template, submit,
):  # fmt: skip
    app.command()(command)
