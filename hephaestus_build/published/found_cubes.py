"""What a path holds that can be imported: Zarr v2 folders, plain or in a tar file, with the frame of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import is_plain_file, is_real_folder, list_names
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.cube.reading.store_metadata import MAX_METADATA_BYTES
from hephaestus_build.cube.reading.store_objects import FolderObjects, StoreObjects, read_object
from hephaestus_build.cube.reading.tar_objects import find_tar_stores
from hephaestus_build.cube.reading.zarr_v2 import is_zarr_v2


@dataclass(frozen=True)
class FoundCube:
    """A cube that can be imported.

    Attributes
    ----------
    frame : Frame
        Its frame.
    objects : StoreObjects
        Its objects.
    """

    frame: Frame
    objects: StoreObjects


def find_published_cubes(
    path: Path, frames: Sequence[Frame] = (), listener: ProgressListener | None = None
) -> list[FoundCube]:
    """Return the cubes at a path, in the order of their frames.

    Parameters
    ----------
    path : pathlib.Path
        A folder in Zarr format 2, a tar file with one or more, or a folder of such.
    frames : sequence of Frame
        Frames to take; by default all. One is needed where neither name nor attributes of the only cube say
        its frame.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    UsageError
        If there is no such cube, or its frame is not known, or a frame of `frames` is not there.
    HephaestusError
        If something at `path` is damaged.
    """
    stores = list(_iter_stores(path.resolve(), listener))
    if not stores:
        raise UsageError(
            f"{path} holds no cube in Zarr format 2, neither itself nor in it; give the folder that holds "
            f".zgroup, or a tar file of it"
        )
    found: dict[Frame, FoundCube] = {}
    for objects, name in stores:
        frame = _frame_of(objects, name)
        if frame is None and len(stores) == len(frames) == 1:
            frame = frames[0]
        if frame is None:
            raise UsageError(
                f"{objects.path}: neither the name {name} nor an attribute of it is a frame id; say it: "
                f"`hephaestus import {path} FRAME`"
            )
        if frame in found:
            raise HephaestusError(f"{path} holds two cubes of {frame}; give the path of one of them")
        found[frame] = FoundCube(frame, objects)
    if lacking := [frame for frame in frames if frame not in found]:
        raise UsageError(
            f"{path} holds no cube of {', '.join(map(str, lacking))}, only of {', '.join(map(str, found))}"
        )
    return [found[frame] for frame in sorted(found) if not frames or frame in frames]


def _iter_stores(path: Path, listener: ProgressListener | None) -> Iterator[tuple[StoreObjects, str]]:
    """Yield the objects of each store at a path, and the name that should be its frame's."""
    if is_zarr_v2(path):
        yield FolderObjects(path), path.name
    elif is_real_folder(path):
        for name in list_names(path):
            if is_real_folder(path / name) and is_zarr_v2(path / name):
                yield FolderObjects(path / name), name
            elif name.endswith(".tar") and is_plain_file(path, name):
                yield from _iter_stores(path / name, listener)
    elif is_plain_file(path.parent, path.name):
        for objects in find_tar_stores(path, listener):
            yield objects, objects.path.name


def _frame_of(objects: StoreObjects, name: str) -> Frame | None:
    """Return the frame of a store, as its name says, else an attribute of its group."""
    stem = name.partition(".")[0]
    try:
        return Frame.parse(stem)
    except UsageError:
        pass
    try:
        attributes = parse_json(read_object(objects, ".zattrs", MAX_METADATA_BYTES))
        return Frame(attributes["frame"]) if isinstance(attributes["frame"], str) else None
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return None
