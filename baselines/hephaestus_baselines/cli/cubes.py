"""The cubes that a command of ``hephaestus benchmark`` works on."""

from __future__ import annotations

from pathlib import Path

from hephaestus_build.cli.console import print_notice
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import CubeSelection, select_cubes


def select_benchmark_cubes(
    settings: Settings,
    cubes: Path | None,
    *,
    simulated: bool,
    mixed: bool,
    world: int = 0,
    required: bool = True,
) -> CubeSelection:
    """Return the cubes that the options name; missing ones of the embedded archive are built.

    Parameters
    ----------
    settings : Settings
        Settings of the command.
    cubes : pathlib.Path or None
        Folder of the cubes (``--cubes``).
    simulated : bool
        Whether to take the cubes of the embedded archive (``--simulated``).
    mixed : bool
        Whether real and simulated cubes may be mixed.
    world : int
        Number of the simulated world (``--world``).
    required : bool
        Whether it is an error if there is no cube.

    Raises
    ------
    HephaestusError
        If there is no cube.
    UsageError
        If both a folder and the embedded archive are asked for, a world without it, or cubes are mixed that
        may not be.
    """
    from hephaestus_baselines.data.simulated_cubes import ensure_benchmark_cubes

    if cubes and simulated:
        raise UsageError("--simulated uses its own cubes: leave out --cubes or --simulated")
    if world and not simulated:
        raise UsageError("--world chooses a world of the embedded archive: give --simulated too")
    if simulated:
        with show_progress() as listener:
            cubes = ensure_benchmark_cubes(settings, world=world, listener=listener)
    taken = select_cubes(settings, [cubes] if cubes else [], mixed=mixed)
    if taken.notice:
        print_notice(taken.notice)
    if required and not taken.stores:
        more = "" if cubes else ", --simulated makes some"
        raise HephaestusError(
            f"there are no cubes in {cubes or settings.cubes_dir}; `hephaestus build FRAME` builds one{more}"
        )
    return taken
