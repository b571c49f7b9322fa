"""``hephaestus timeseries``: what the interferograms of a cube show at one point."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import (
    load_command_settings,
    out,
    print_json,
    print_notice,
    print_table,
)
from hephaestus_build.cli.degrees import parse_degrees
from hephaestus_build.cli.options import (
    DATE_FORMATS,
    JSON_OPTION,
    DataDirOption,
    SimulatedOption,
    complete_frame,
)
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import UsageError, wrap_unexpected_errors
from hephaestus_build.core.progress import show_progress
from hephaestus_build.cube.discovery import find_cube, settings_for_cube
from hephaestus_build.cube.reading.verified_objects import choose_verification
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.point_series import PointSeries, read_point_series

_COLUMNS = ("pair", "primary", "secondary", "phase_rad", "unwrapped_rad", "coherence", "deformation")


def timeseries(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FRAME_OR_PATH",
            help="A frame id, a volcano of one frame, or where a cube is.",
            autocompletion=complete_frame,
        ),
    ],
    at: Annotated[
        str, typer.Option(metavar="LAT,LON", help="The point in degrees, south and west negative.")
    ],
    primary: Annotated[
        datetime | None,
        typer.Option(
            formats=DATE_FORMATS,
            help="Take the pairs of this primary date. Default: that of the most pairs.",
        ),
    ] = None,
    every_pair: Annotated[
        bool, typer.Option("--all", help="Take all pairs, whatever their primary date.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
    as_png: Annotated[bool, typer.Option("--png", help="Draw a picture, and say where it is.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Of --png: folder to write to. Default: quicklooks/ in the data folder."),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Show wrapped phase and coherence at a point, for the interferograms of one primary date.

    It is wrapped phase: whole cycles are unknown, so it is no displacement. Unwrapped phase is shown beside
    it where the cube has it; docs/handover.md says how a displacement series is computed.
    """
    if as_csv + as_png + as_json > 1:
        raise UsageError("choose one of --csv, --png and --json")
    if every_pair and primary is not None:
        raise UsageError("choose --primary or --all, not both")
    if folder is not None and not as_png:
        raise UsageError("--out is of --png alone")
    latitude, longitude = parse_degrees("--at", at, "LAT,LON")
    settings = load_command_settings(simulated, data_dir=data_dir)
    path = find_cube(target, settings)
    with wrap_unexpected_errors(target), show_progress() as listener:
        series = read_point_series(
            WindowReader(path, verify=choose_verification(path.resolve())),
            latitude,
            longitude,
            primary=primary.date() if primary else None,
            every_pair=every_pair,
            listener=listener,
        )
    if as_json:
        print_json(
            {
                "frame": series.frame,
                "simulated": series.simulated,
                "latitude": series.latitude,
                "longitude": series.longitude,
                "primary": str(series.primary) if series.primary else None,
                "pairs": [sample.to_json() for sample in series.samples],
            }
        )
    elif as_csv:
        typer.echo(_format_csv(series), nl=False)
    elif as_png:
        home = folder or settings_for_cube(path, settings).data_dir / "quicklooks"
        out.print(str(_write_picture(series, home)), soft_wrap=True)
    else:
        _print(series)
    if not as_json and all(sample.phase_rad is None for sample in series.samples):
        print_notice(
            f"{series.frame}: no interferogram of these has data at the point, which is water or outside of "
            f"their images; `hephaestus show {series.frame}` shows where there is data"
        )
    if series.simulated and not as_json:
        print_notice(f"{series.frame}: simulated data")


def _format_csv(series: PointSeries) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sample.to_json() for sample in series.samples)
    return text.getvalue()


def _write_picture(series: PointSeries, folder: Path) -> Path:
    from hephaestus_build.report.point_plot import encode_point_series

    pairs = f"{series.primary:%Y%m%d}" if series.primary else "all"
    place = f"{series.latitude:.4f}_{series.longitude:.4f}"
    path = folder / f"{series.frame}_at_{place}_{pairs}.png"
    with translate_os_errors(f"picture {path}", setting="--out or HEPHAESTUS_DATA_DIR"):
        write_atomic(path, encode_point_series(series))
    return path


def _print(series: PointSeries) -> None:
    """Print one line per pair."""
    columns = ["pair", "phase", *(["unwrapped"] if series.has_unwrapped else []), "coherence", "outlined"]
    rows = [
        [
            sample.pair,
            _text(sample.phase_rad),
            *([_text(sample.unwrapped_rad)] if series.has_unwrapped else []),
            _text(sample.coherence),
            sample.deformation or "-",
        ]
        for sample in series.samples
    ]
    print_table(columns, rows, numbers=("phase", "unwrapped", "coherence"))
    out.print(f"wrapped phase in rad at {series.latitude:.4f}, {series.longitude:.4f}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
