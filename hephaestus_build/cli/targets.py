"""Which cubes a command works on, and how messages name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hephaestus_build.cli.console import print_notice
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import (
    CubeSelection,
    cubes_dir_for,
    no_cube_error,
    only_simulated_notice,
    select_cubes,
)
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.operations.status import frames_with_settings, list_started_frames


def raise_or_print_error(error: HephaestusError, *, alone: bool) -> bool:
    """Say what went wrong with one frame of several; return that something did."""
    if alone:
        raise error
    print_notice(str(error))
    return True


def select_frames(
    names: Sequence[str] | None,
    settings: Settings,
    by_default: Callable[[Settings], list[Frame]] = list_started_frames,
) -> list[tuple[Frame, Settings]]:
    """Return the frames that a user named, else all here, each with the settings that hold for it."""
    frames = dict.fromkeys(map(frame_named, names or ()))
    return [(frame, settings.for_frame(frame)) for frame in frames] or frames_with_settings(
        settings, by_default
    )


def frames_by_label(chosen: Sequence[tuple[Frame, Settings]]) -> dict[str, tuple[Frame, Settings]]:
    """Return frames by what JSON calls them: the id, marked where it stands for a real cube too."""
    real = {frame for frame, home in chosen if not home.is_simulated}
    return {
        f"{frame}{simulated_suffix(home) if frame in real else ''}": (frame, home) for frame, home in chosen
    }


def select_frames_of_kind(names: list[str] | None, settings: Settings) -> tuple[list[Frame], Settings]:
    """Return the frames that a user named, else those of the real cubes, else of the simulated ones."""
    if names:
        return list(dict.fromkeys(map(frame_named, names))), settings
    found = frames_with_settings(settings)
    real = [frame for frame, home in found if not home.is_simulated]
    if real or not found:
        return real, settings
    if not settings.is_simulated:
        print_notice(only_simulated_notice(settings))
    return [frame for frame, _ in found], settings.for_simulated()


def require_cubes(settings: Settings, cubes: Sequence[Path] = (), *, mixed: bool = False) -> CubeSelection:
    """Return the cubes that a user named, else all real ones, else the simulated ones.

    Parameters
    ----------
    settings : Settings
        Where cubes are.
    cubes : sequence of pathlib.Path
        Folders of cubes, or cubes.
    mixed : bool
        Whether real and simulated ones may be taken together.

    Raises
    ------
    HephaestusError
        If there are none.
    """
    taken = select_cubes(settings, cubes, mixed=mixed)
    if taken.notice:
        print_notice(taken.notice)
    if not taken.stores:
        raise no_cubes_error(cubes[0] if cubes else settings.cubes_dir)
    return taken


def no_cubes_error(folder: Path) -> HephaestusError:
    """Return the error of a folder without cubes."""
    return HephaestusError(f"there are no cubes in {folder}; `hephaestus build FRAME` builds one")


def select_targets(names: list[str] | None, settings: Settings) -> dict[str, tuple[Frame | Path, Settings]]:
    """Return frames and paths by what JSON calls them."""
    if not names:
        return dict(frames_by_label(select_frames(None, settings)))
    found: dict[str, tuple[Frame | Path, Settings]] = {}
    for name in names:
        if is_cube_path(name):
            found[name] = Path(local_path("the cube", name)), settings
        else:
            frame = frame_named(name)
            found[str(frame)] = frame, settings.for_frame(frame)
    return found


def simulated_suffix(home: Settings) -> str:
    """Return what marks the name of a simulated cube."""
    return " (simulated)" if home.is_simulated else ""


def simulated_option(target: Frame | Path, home: Settings) -> str:
    """Return what a command needs beside a frame's id to find its simulated cube."""
    return (
        " --simulated" if home.is_simulated and isinstance(target, Frame) and not target.is_simulated else ""
    )


def is_cube_path(target: str) -> bool:
    """Return whether what a user typed is where a cube is, not a frame's id."""
    return target.endswith(".zarr") or "/" in target or Path(target).exists()


def published_generation(settings: Settings, frame: Frame) -> Generation:
    """Return a frame's published generation."""
    cubes = cubes_dir_for(settings, frame)
    current = FrameStore(cubes, frame).published_generation()
    if current is None:
        raise no_cube_error(cubes / f"{frame}.zarr")
    return current
