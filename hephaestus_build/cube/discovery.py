"""Which cubes a command takes: one by its frame or its path, all real ones, or all simulated ones.

What is simulated stands apart, in ``<data>/simulated``:
:meth:`hephaestus_build.core.settings.Settings.for_simulated` is the one place that says so. Earlier versions
put simulated cubes among the real ones; they are read there until
:mod:`hephaestus_build.cube.storage.migration` moves them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frame_search import frame_named, suggestion
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.settings import Settings, require_local_path
from hephaestus_build.core.volcanoes import volcanoes_named
from hephaestus_build.cube.reading.dataset import no_cube_error
from hephaestus_build.cube.storage.generations import FrameStore

#: Beside the generations of a simulated cube while they are moved here from among the real ones.
MIGRATION_MARKER = "moving.json"
#: Below what is simulated: the cubes that the simulated benchmark learns from, of a world of their own.
BENCHMARK_FOLDER = "benchmark"
_METADATA_BYTES = 64 << 20


def legacy_cubes_dir(settings: Settings) -> Path | None:
    """Return where earlier versions put simulated cubes, if they put any: among the real ones."""
    return None if settings.real_data_dir is None else settings.real_data_dir / "cubes"


def is_at_legacy_path(settings: Settings, frame: Frame) -> bool:
    """Return whether a simulated frame's cube, or a part of it, stands where earlier versions put it."""
    earlier = legacy_cubes_dir(settings)
    return earlier is not None and frame.is_simulated and FrameStore(earlier, frame).has_content()


def cubes_dir_for(settings: Settings, frame: Frame) -> Path:
    """Return the folder of published cubes that holds a frame's cube, or would.

    Raises
    ------
    HephaestusError
        If the cube was being moved when that was cut off.
    """
    here = settings.for_frame(frame)
    if not frame.is_simulated:
        return here.cubes_dir
    frame_store = FrameStore(here.cubes_dir, frame)
    if (frame_store.root / MIGRATION_MARKER).exists():
        raise HephaestusError(
            f"{frame}: moving it to {here.cubes_dir} was cut off; `hephaestus migrate {frame}` goes on"
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
    """Return the path of the cube that a user named by its frame or by its path.

    Parameters
    ----------
    target : str, pathlib.Path or Frame
        A frame's id counts as one, and so does a volcano that one frame of the registry lists, unless a cube
        has that very path.
    settings : Settings
        Where cubes are.

    Raises
    ------
    HephaestusError
        If there is no such cube.
    UsageError
        If `target` is neither a path nor a frame, or names several frames.
    """
    path = Path(str(target))
    if isinstance(target, Frame) or not (path / "zarr.json").is_file():
        try:
            frame = target if isinstance(target, Frame) else frame_named(str(target))
        except UsageError:
            require_local_path("the cube", target)
            if volcanoes_named(str(target)):
                raise
            if not path.exists():
                raise UsageError(
                    f"{target} is neither a cube nor a frame id such as 124D_04854_171313"
                    f"{suggestion(str(target))}; `hephaestus frames WORDS` finds frames by volcano or place"
                ) from None
        else:
            path = cubes_dir_for(settings, frame) / f"{frame}.zarr"
    if not (path / "zarr.json").is_file():
        raise no_cube_error(path)
    return path


def is_simulated_cube(store: Path) -> bool:
    """Return whether a cube is simulated: by its frame's track, or by what it says of itself."""
    try:
        if Frame(store.name.removesuffix(".zarr")).is_simulated:
            return True
    except UsageError:
        pass  # a copy of another name
    try:
        metadata = parse_json(read_bounded(store / "zarr.json", _METADATA_BYTES))
        attributes = metadata["attributes"]
        return attributes.get("simulated") is True or Frame(str(attributes.get("frame"))).is_simulated
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError):
        return False  # whoever opens it says what is wrong with it


def settings_for_cube(store: Path, settings: Settings) -> Settings:
    """Return the settings of what is made from a cube: apart where the cube is simulated."""
    return settings.for_simulated() if is_simulated_cube(store) else settings


def list_cubes(given: Iterable[Path]) -> list[Path]:
    """Return the cubes of folders of cubes and single cubes, in order."""
    paths: list[Path] = []
    for path in given:
        paths += [path] if path.suffix == ".zarr" else sorted(path.glob("*.zarr"))
    return paths


def are_simulated(stores: Iterable[Path], *, mixed: bool = False) -> bool:
    """Return whether cubes are simulated, any of them if they are `mixed`.

    Raises
    ------
    UsageError
        If real and simulated ones are among them and `mixed` does not ask for that.
    """
    kinds: dict[bool, Path] = {}
    for store in stores:
        kinds.setdefault(is_simulated_cube(store), store)
    if len(kinds) == 2 and not mixed:
        raise UsageError(
            f"there are real cubes and simulated ones, such as {kinds[False]} and {kinds[True]}: give a "
            f"folder that holds one kind alone, or --mixed to take both"
        )
    return True in kinds


@dataclass(frozen=True)
class CubeSelection:
    """The cubes that a command takes.

    Attributes
    ----------
    stores : tuple of pathlib.Path
        The cubes.
    settings : Settings
        Of what is made from them: simulated or real.
    notice : str
        What a person should know of the choice; empty where it is the usual one.
    """

    stores: tuple[Path, ...]
    settings: Settings
    notice: str = ""


def select_cubes(settings: Settings, given: Sequence[Path] = (), *, mixed: bool = False) -> CubeSelection:
    """Return the cubes that a command takes to which no frame is named.

    Parameters
    ----------
    settings : Settings
        Those of the simulated take the simulated cubes. All others take the real ones and, where there are
        only simulated ones, these.
    given : sequence of pathlib.Path
        Folders of cubes, or cubes, to take instead.
    mixed : bool
        Whether real and simulated ones among those may be taken together.

    Raises
    ------
    UsageError
        If `given` has real and simulated cubes and `mixed` does not ask for that.
    """
    if given:
        stores = list_cubes(given)
        simulated = are_simulated(stores, mixed=mixed)
        return CubeSelection(tuple(stores), settings.for_simulated() if simulated else settings)
    apart = settings.for_simulated()
    earlier = legacy_cubes_dir(settings)
    stores = list_cubes([earlier] if earlier else [])
    unmoved = [store for store in stores if is_simulated_cube(store)]
    made = {store.name: store for store in (*unmoved, *list_cubes([apart.cubes_dir]))}
    simulated_ones = tuple(store for _, store in sorted(made.items()))
    if settings.is_simulated:
        return CubeSelection(simulated_ones, apart)
    real = tuple(store for store in stores if store not in unmoved)
    if real or not simulated_ones:
        left = f"the simulated cubes in {settings.cubes_dir} are left out; `hephaestus migrate` moves them"
        return CubeSelection(real, settings, left if unmoved else "")
    return CubeSelection(simulated_ones, apart, only_simulated_notice(settings))


def only_simulated_notice(settings: Settings) -> str:
    """Say that a command takes simulated cubes since there are no others."""
    return f"there are no real cubes in {settings.cubes_dir}: taking the simulated ones (as with --simulated)"
