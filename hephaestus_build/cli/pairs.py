"""``hephaestus pairs``: the pairs of a frame, from its cube and the last listing, offline."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hephaestus_build.cli.console import load_command_settings, print_json, print_notice, print_table
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption, complete_frame
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.plain_text import utc_text
from hephaestus_build.operations.pair_table import pair_table
from hephaestus_build.simulation.server.embedded import serve_for_frames

if TYPE_CHECKING:
    import pandas as pd


def pairs(
    frame: Annotated[
        str,
        typer.Argument(
            help="A frame id, such as 124D_04854_171313, or a volcano of one frame: Etna.",
            autocompletion=complete_frame,
        ),
    ],
    simulated: SimulatedOption = False,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Ask the archive for its listing and baselines first.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """List the pairs of a frame: baselines, what became of each, and what the experts wrote.

    It is read from the cube, and from the last listing that a build, a plan or --upstream read; without
    --upstream nobody is asked.
    """
    if as_json and as_csv:
        raise UsageError("choose --json or --csv, not both")
    chosen = frame_named(frame)
    settings = load_command_settings(simulated, data_dir=data_dir)
    with serve_for_frames(settings, [chosen]) if upstream else nullcontext(settings) as served:
        table = pair_table(chosen, served, upstream=upstream)
    if as_json:
        print_json(
            {
                "frame": chosen.id,
                "simulated": table.attrs["simulated"],
                "listed": utc_text(table.attrs["listed"] or "") or None,
                "pairs": _records(table),
            }
        )
    elif as_csv:
        typer.echo(table.to_csv(lineterminator="\n", date_format="%Y-%m-%d"), nl=False)
    else:
        _print(table)
    if table.attrs["listed"] is None:
        option = " --simulated" if table.attrs["simulated"] and not chosen.is_simulated else ""
        print_notice(
            f"{chosen}: no listing was kept, so these are the pairs of the cube alone; `hephaestus pairs "
            f"{chosen}{option} --upstream` asks the archive"
        )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as JSON values: days as text, null where a number is not known."""
    days = {name: table[name].dt.strftime("%Y-%m-%d") for name in ("primary", "secondary")}
    plain = table.assign(**days).reset_index().astype(object)
    records: Any = plain.where(plain.notna(), None).to_dict("records")
    return records


def _print(table: pd.DataFrame) -> None:
    """Print one line per pair."""
    columns = ("pair", "days", "m", "status", "valid", "annotation")
    rows = [_cells(row) for row in _records(table)]
    print_table(columns, rows, numbers=("days", "m", "valid"), folded=("annotation",))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    metres, share = row["perpendicular_baseline_m"], row["valid_fraction"]
    if row["annotated"]:
        written = (row["phase"] or "annotated") + (", deformation" if row["deformation"] else "")
    else:
        written = ""
    return (
        row["pair"],
        str(row["temporal_baseline_days"]),
        f"{metres:.0f}" if metres is not None else "-",
        row["status"],
        f"{share:.2f}" if share is not None else "-",
        written,
    )
