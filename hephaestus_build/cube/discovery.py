"""Lookup of cubes on disk: one by its frame or path, all real ones, or all simulated ones.

Simulated cubes are stored separately, in ``<data>/simulated``
(:meth:`hephaestus_build.core.settings.Settings.for_simulated`). Earlier versions put them among the real
ones; they are found there until :mod:`hephaestus_build.cube.storage.migration` moves them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frame_search import frame_named, suggestion
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.volcanoes import volcanoes_named
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.published_name import wait_for_replacement

#: Marker in the folder of a simulated cube's generations while the cube is migrated.
MIGRATION_MARKER = "moving.json"
#: Folder, in the simulated data folder, of the cubes that the simulated benchmark is trained on.
BENCHMARK_FOLDER = "benchmark"
_METADATA_BYTES = 64 << 20


def legacy_cubes_dir(settings: Settings) -> Path | None:
    """Return the folder of real cubes, where earlier versions put simulated ones too; None if not set."""
    return None if settings.real_data_dir is None else settings.real_data_dir / "cubes"


def is_at_legacy_path(settings: Settings, frame: Frame) -> bool:
    """Return whether a simulated frame's cube, or part of it, is where earlier versions put it."""
    earlier = legacy_cubes_dir(settings)
    return earlier is not None and frame.is_simulated and FrameStore(earlier, frame).has_content()


def cubes_dir_for(settings: Settings, frame: Frame) -> Path:
    """Return the folder in which a frame's cube is published, or will be.

    Raises
    ------
    HephaestusError
        If a migration of the cube was interrupted.
    """
    here = settings.for_frame(frame)
    if not frame.is_simulated:
        return here.cubes_dir
    frame_store = FrameStore(here.cubes_dir, frame)
    if (frame_store.root / MIGRATION_MARKER).exists():
        raise HephaestusError(
            f"{frame}: moving its cube to {here.cubes_dir} was interrupted; `hephaestus migrate {frame}` "
            f"finishes it"
        )
    if os.path.lexists(frame_store.published_link):
        return here.cubes_dir
    earlier = legacy_cubes_dir(settings)
    if earlier is None or not (
        is_at_legacy_path(settings, frame) or (earlier / frame_store.published_link.name).exists()
    ):
        return here.cubes_dir
    return earlier


def find_cube(target: str | Path | Frame, settings: Settings) -> Path:
    """Return the path of a cube that is given by its path, frame or volcano.

    Parameters
    ----------
    target : str, pathlib.Path or Frame
        Path of a cube, frame id, or name of a volcano that exactly one frame of the registry lists. A cube
        at that path takes precedence.
    settings : Settings
        Settings with the folders of cubes.

    Raises
    ------
    HephaestusError
        If there is no such cube.
    UsageError
        If `target` is neither a path nor a frame, or names several frames.
    """
    path = Path(local_path("the cube", str(target)))
    if isinstance(target, Frame) or not (path / "zarr.json").is_file():
        try:
            frame = target if isinstance(target, Frame) else frame_named(str(target))
        except UsageError:
            if volcanoes_named(str(target)):
                raise
            if not path.exists():
                raise UsageError(
                    f"{target} is neither a cube nor a frame id such as 124D_04854_171313"
                    f"{suggestion(str(target))}; `hephaestus frames WORDS` finds frames by volcano or place"
                ) from None
        else:
            path = cubes_dir_for(settings, frame) / f"{frame}.zarr"
    if not (wait_for_replacement(path) and (path / "zarr.json").is_file()):
        raise no_cube_error(path)
    return path


def is_simulated_cube(store: Path) -> bool:
    """Return whether a cube is simulated, from its frame's track number or its attributes."""
    try:
        if Frame(store.name.removesuffix(".zarr")).is_simulated:
            return True
    except UsageError:
        pass  # a copy with another name
    try:
        metadata = parse_json(read_bounded(store / "zarr.json", _METADATA_BYTES))
        attributes = metadata["attributes"]
        return attributes.get("simulated") == 1 or Frame(str(attributes.get("frame"))).is_simulated
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError):
        return False  # opening the cube reports what is wrong with it


def settings_for_cube(store: Path, settings: Settings) -> Settings:
    """Return the settings for results derived from a cube: those of simulated data if it is simulated."""
    return settings.for_simulated() if is_simulated_cube(store) else settings


def list_cubes(given: Iterable[Path]) -> list[Path]:
    """Return the cubes at the given paths, each a cube or a folder of cubes, in order."""
    paths: list[Path] = []
    for path in given:
        paths += [path] if path.suffix == ".zarr" else sorted(path.glob("*.zarr"))
    return paths


def are_simulated(stores: Iterable[Path], *, mixed: bool = False) -> bool:
    """Return whether any of the cubes is simulated.

    Raises
    ------
    UsageError
        If there are both real and simulated cubes and `mixed` is false.
    """
    kinds: dict[bool, Path] = {}
    for store in stores:
        kinds.setdefault(is_simulated_cube(store), store)
    if len(kinds) == 2 and not mixed:
        raise UsageError(
            f"both real and simulated cubes are given, such as {kinds[False]} and {kinds[True]}; give a "
            f"folder with only one kind, or --mixed to take both"
        )
    return True in kinds


@dataclass(frozen=True)
class CubeSelection:
    """The cubes that a command works on.

    Attributes
    ----------
    stores : tuple of pathlib.Path
        Paths of the cubes.
    settings : Settings
        Settings for the results, of simulated or of real data.
    notice : str
        Message to show to the user about the selection; empty if there is nothing unusual.
    """

    stores: tuple[Path, ...]
    settings: Settings
    notice: str = ""


def select_cubes(settings: Settings, given: Sequence[Path] = (), *, mixed: bool = False) -> CubeSelection:
    """Return the cubes that a command works on when no frame is given.

    Parameters
    ----------
    settings : Settings
        Settings for simulated data select the simulated cubes. Others select the real cubes or, if there are
        none, the simulated ones.
    given : sequence of pathlib.Path
        Cubes, or folders of cubes, to take instead.
    mixed : bool
        Whether `given` may contain both real and simulated cubes.

    Raises
    ------
    UsageError
        If `given` contains both real and simulated cubes and `mixed` is false.
    """
    if given:
        stores = list_cubes(given)
        simulated = are_simulated(stores, mixed=mixed)
        return CubeSelection(tuple(stores), settings.for_simulated() if simulated else settings)
    apart = settings.for_simulated()
    earlier = legacy_cubes_dir(settings)
    together = earlier or settings.cubes_dir
    stores = list_cubes([together])
    unmoved = [store for store in stores if is_simulated_cube(store)]
    others = [] if apart.cubes_dir == together else list_cubes([apart.cubes_dir])
    made = {store.name: store for store in (*unmoved, *others)}
    simulated_ones = tuple(store for _, store in sorted(made.items()))
    if settings.is_simulated:
        return CubeSelection(simulated_ones, apart)
    real = tuple(store for store in stores if store not in unmoved)
    if real or not simulated_ones:
        left = f"leaving out the simulated cubes in {settings.cubes_dir}; `hephaestus migrate` moves them"
        return CubeSelection(real, settings, left if unmoved and earlier else "")
    return CubeSelection(simulated_ones, apart, only_simulated_notice(settings))


def only_simulated_notice(settings: Settings) -> str:
    """Return the message that simulated cubes are taken because there are no real ones."""
    return f"there are no real cubes in {settings.cubes_dir}: taking the simulated ones (as with --simulated)"


def no_cube_error(path: str | Path) -> HephaestusError:
    """Return the error for a cube that is not at `path`, or is damaged, with the command that helps."""
    name = Path(path).stem
    try:
        frame = str(Frame.parse(name))
        number = FrameStore(Path(path).parent, Frame(name)).unpublished_number()
    except UsageError:
        return HephaestusError(f"there is no cube at {path}; `hephaestus status` shows those that exist")
    except HephaestusError:  # the folder of its generations cannot be read
        number = None
    if number is not None:
        return HephaestusError(
            f"there is no cube at {path}, but its generation {number} is complete: a publication was "
            f"interrupted, or the name was lost; `hephaestus repair {frame}` publishes it"
        )
    if (Path(path) / "manifest.json").is_file():
        return HephaestusError(f"the cube at {path} is damaged; `hephaestus repair {frame}` repairs it")
    return HephaestusError(f"there is no cube at {path}; `hephaestus build {frame}` builds it")
