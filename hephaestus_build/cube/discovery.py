"""Which cubes a command takes: one by its frame or its path, all real ones, or all simulated ones.

What is simulated stands apart, in ``<data>/simulated``:
:meth:`hephaestus_build.core.settings.Settings.simulated` is the one place that says so. Earlier versions put
simulated cubes among the real ones; they are read there until :mod:`hephaestus_build.cube.storage.migration`
moves them.
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
from hephaestus_build.core.settings import Settings, refuse_address
from hephaestus_build.core.volcanoes import volcanoes_named
from hephaestus_build.cube.reading.dataset import no_cube
from hephaestus_build.cube.storage.generations import Shelf

#: Beside the generations of a simulated cube while they are moved here from among the real ones.
MOVING = "moving.json"
#: Below what is simulated: the cubes that the simulated benchmark learns from, of a world of their own.
BENCHMARK = "benchmark"
_METADATA_BYTES = 64 << 20


def earlier_cubes_dir(settings: Settings) -> Path | None:
    """Return where earlier versions put simulated cubes, if they put any: among the real ones."""
    return None if settings.real_dir is None else settings.real_dir / "cubes"


def is_unmoved(settings: Settings, frame: Frame) -> bool:
    """Return whether a simulated frame's cube, or a part of it, stands where earlier versions put it."""
    earlier = earlier_cubes_dir(settings)
    return earlier is not None and frame.simulated and Shelf(earlier, frame).begun()


def cubes_of(settings: Settings, frame: Frame) -> Path:
    """Return the folder of published cubes that holds a frame's cube, or would.

    Raises
    ------
    HephaestusError
        If the cube was being moved when that was cut off.
    """
    here = settings.for_frame(frame)
    if not frame.simulated:
        return here.cubes_dir
    shelf = Shelf(here.cubes_dir, frame)
    if (shelf.root / MOVING).exists():
        raise HephaestusError(
            f"{frame}: moving it to {here.cubes_dir} was cut off; `hephaestus migrate {frame}` goes on"
        )
    if os.path.lexists(shelf.link):
        return here.cubes_dir
    earlier = earlier_cubes_dir(settings)
    if earlier is None or not (is_unmoved(settings, frame) or (earlier / shelf.link.name).exists()):
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
            refuse_address("the cube", target)
            if volcanoes_named(str(target)):
                raise
            if not path.exists():
                raise UsageError(
                    f"{target} is neither a cube nor a frame id such as 124D_04854_171313"
                    f"{suggestion(str(target))}; `hephaestus frames WORDS` finds frames by volcano or place"
                ) from None
        else:
            path = cubes_of(settings, frame) / f"{frame}.zarr"
    if not (path / "zarr.json").is_file():
        raise no_cube(path)
    return path


def is_simulated(store: Path) -> bool:
    """Return whether a cube is simulated: by its frame's track, or by what it says of itself."""
    try:
        if Frame(store.name.removesuffix(".zarr")).simulated:
            return True
    except UsageError:
        pass  # a copy of another name
    try:
        metadata = parse_json(read_bounded(store / "zarr.json", _METADATA_BYTES))
        attributes = metadata["attributes"]
        return attributes.get("simulated") is True or Frame(str(attributes.get("frame"))).simulated
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError):
        return False  # whoever opens it says what is wrong with it


def owner(store: Path, settings: Settings) -> Settings:
    """Return the settings of what is made from a cube: apart where the cube is simulated."""
    return settings.simulated() if is_simulated(store) else settings


def in_folders(given: Iterable[Path]) -> list[Path]:
    """Return the cubes of folders of cubes and single cubes, in order."""
    paths: list[Path] = []
    for path in given:
        paths += [path] if path.suffix == ".zarr" else sorted(path.glob("*.zarr"))
    return paths


def of_one_kind(stores: Iterable[Path], *, mixed: bool = False) -> bool:
    """Return whether cubes are simulated, any of them if they are `mixed`.

    Raises
    ------
    UsageError
        If real and simulated ones are among them and `mixed` does not ask for that.
    """
    kinds: dict[bool, Path] = {}
    for store in stores:
        kinds.setdefault(is_simulated(store), store)
    if len(kinds) == 2 and not mixed:
        raise UsageError(
            f"there are real cubes and simulated ones, such as {kinds[False]} and {kinds[True]}: give a "
            f"folder that holds one kind alone, or --mixed to take both"
        )
    return True in kinds


@dataclass(frozen=True)
class Taken:
    """The cubes that a command takes.

    Attributes
    ----------
    stores : tuple of pathlib.Path
        The cubes.
    settings : Settings
        Of what is made from them: simulated or real.
    said : str
        What a person should know of the choice; empty where it is the usual one.
    """

    stores: tuple[Path, ...]
    settings: Settings
    said: str = ""


def take(settings: Settings, given: Sequence[Path] = (), *, mixed: bool = False) -> Taken:
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
        stores = in_folders(given)
        simulated = of_one_kind(stores, mixed=mixed)
        return Taken(tuple(stores), settings.simulated() if simulated else settings)
    apart = settings.simulated()
    earlier = earlier_cubes_dir(settings)
    stores = in_folders([earlier] if earlier else [])
    unmoved = [store for store in stores if is_simulated(store)]
    made = {store.name: store for store in (*unmoved, *in_folders([apart.cubes_dir]))}
    simulated_ones = tuple(store for _, store in sorted(made.items()))
    if settings.is_simulated:
        return Taken(simulated_ones, apart)
    real = tuple(store for store in stores if store not in unmoved)
    if real or not simulated_ones:
        left = f"the simulated cubes in {settings.cubes_dir} are left out; `hephaestus migrate` moves them"
        return Taken(real, settings, left if unmoved else "")
    return Taken(simulated_ones, apart, only_simulated(settings))


def only_simulated(settings: Settings) -> str:
    """Say that a command takes simulated cubes since there are no others."""
    return f"there are no real cubes in {settings.cubes_dir}: taking the simulated ones (as with --simulated)"
