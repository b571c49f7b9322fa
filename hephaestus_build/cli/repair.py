"""``hephaestus repair``."""

from __future__ import annotations

import typer

from hephaestus_build.cli.console import chosen_settings, explain, out, print_json, worst
from hephaestus_build.cli.options import DataDir, Frames, Json, Simulated
from hephaestus_build.cli.targets import (
    frames_of_one_kind,
    report_failure,
)
from hephaestus_build.core.errors import HephaestusError, MissingProductsError, wrap_unexpected_errors
from hephaestus_build.core.progress import show_progress_bars
from hephaestus_build.operations.repair import repair as repair_frame
from hephaestus_build.simulation.server.embedded import serve_for_frames


def repair(
    frames: Frames = None, simulated: Simulated = False, data_dir: DataDir = None, as_json: bool = Json
) -> None:
    """Rebuild exactly what is damaged, and publish a whole cube.

    Without frames, the real cubes; with --simulated the simulated ones.
    Exits with 3 when some of it could not be fetched again, which is owed then, and with 1 when a frame could
    not be repaired.
    """
    settings = chosen_settings(simulated, data_dir=data_dir)
    chosen, settings = frames_of_one_kind(frames, settings)
    repairs, failed = [], False
    with serve_for_frames(settings, chosen) as served:
        for frame in chosen:
            try:
                with wrap_unexpected_errors(frame), show_progress_bars() as listener:
                    repairs.append(repair_frame(frame, served, listener))
            except HephaestusError as error:
                failed = report_failure(error, alone=len(chosen) == 1)
    if as_json:
        print_json([item.to_json() for item in repairs])
    for item in repairs:
        if not as_json:
            out.print(
                f"{item.frame}: {len(item.damages)} objects damaged, {len(item.rebuilt)} units rebuilt, "
                f"generation {item.generation}"
                if item.damages
                else f"{item.frame}: whole, nothing to repair"
            )
        for key in item.changed:
            explain(f"{item.frame}: {key} changed upstream meanwhile; the cube holds what is there now")
        for key in item.lost:
            explain(
                f"{item.frame}: {key} could not be had again; `hephaestus build {item.frame}` tries again"
            )
    raise typer.Exit(worst([int(failed), *(MissingProductsError.exit_code for item in repairs if item.lost)]))
