"""Export of a cube as a folder in which MintPy works, past its step ``load_data``.

::

    <frame>/inputs/ifgramStack.h5     unwrapped phase, coherence, dates and baselines of the pairs
    <frame>/inputs/geometryGeo.h5     height, angles of the line of sight
    <frame>/<frame>.txt               a template, for the user to change

MintPy adds to these files, so the key of their content stands before it, in the user block of HDF5. Each is
written beside its name and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.atomic_io import make_folder, translate_os_errors, write_atomic
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_files import check_no_links, open_plain_file
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.export.export_lock import (
    check_export_target,
    exclusive_lock,
    paths_to_write,
    remove_unfinished_files,
)
from hephaestus_build.export.mintpy_geometry import (
    CREDITS,
    look_angles,
    phase_factor,
    radar_attributes,
    slant_range,
)
from hephaestus_build.export.selection import DimensionIndex, ExportSelection
from hephaestus_build.sources.interferograms import EpochBaselines

#: What MintPy cannot do without, and what gives it the angles of each pixel.
_UNWRAPPED, _LOOKS = "unwrapped_phase", ("look_east", "look_north", "look_up")
#: Part of every key: version of the way in which files are written.
_LAYOUT = 1
#: The smallest user block that HDF5 has, and what stands in it.
_USER_BLOCK = 512
_KEY = re.compile(rb"HEPHAESTUS_KEY=([0-9a-f]{32})\n")
#: Rows of a chunk: MintPy reads images whole, or blocks of rows of all pairs.
_CHUNK_ROWS = 128
#: The filter that MintPy uses itself where it compresses; it comes with h5py.
_COMPRESSION = "lzf"


@dataclass(frozen=True)
class MintpyResult:
    """Result of an export for MintPy.

    Attributes
    ----------
    folder : pathlib.Path
        MintPy's working folder.
    written, kept : int
        Numbers of new files and of files that were there already.
    unwrapped : int
        Number of pairs, those with unwrapped phase.
    baselines : int
        Number of these with a perpendicular baseline; the others have 0.
    look_vectors : bool
        Whether each pixel has its angles. Otherwise MintPy takes the mean ones.
    """

    folder: Path
    written: int
    kept: int
    unwrapped: int
    baselines: int
    look_vectors: bool


def export_mintpy(
    source: ExportSelection,
    folder: Path,
    baselines: EpochBaselines | None,
    *,
    force: bool = False,
    threads: int = 2,
    listener: ProgressListener | None = None,
) -> MintpyResult:
    """Write ``<folder>/<frame>``, a folder in which MintPy starts at its step ``modify_network``.

    Parameters
    ----------
    source : ExportSelection
        What to export: pairs; MintPy's variables are always the same.
    folder : pathlib.Path
        Destination; created if needed.
    baselines : EpochBaselines or None
        Perpendicular baselines of the acquisitions, for cubes without those of pairs.
    force : bool
        Whether to replace files of another content.
    threads : int
        Number of pairs read at once; memory grows with it, not with the number of pairs.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    UsageError
        If the cube was built without unwrapped phase, or a file has another content and `force` is false.
    HephaestusError
        If the cube lacks what MintPy needs, or a file cannot be written.
    """
    listener = listener or NullListener()
    places = _unwrapped_places(source)
    attributes = radar_attributes(source.cube.attrs, source.grid)
    metres = _pair_baselines(source, places, baselines)
    looks = all(name in source.cube and _is_stored(source, name) for name in _LOOKS)
    files = {
        f"{source.frame}/inputs/ifgramStack.h5": _stack_file(source, places, metres, attributes, threads),
        f"{source.frame}/inputs/geometryGeo.h5": _geometry_file(source, attributes, looks=looks),
    }
    template = f"{source.frame}/{source.frame}.txt"
    target = folder / source.frame
    check_export_target(source.store, target)
    with (
        translate_os_errors(f"{source.frame}: exporting to {target}", setting="--out"),
        exclusive_lock(target),
    ):
        for path in (*files, template):
            check_no_links(folder, path)
        remove_unfinished_files(target)
        keys = {path: file.key for path, file in files.items()}
        todo = paths_to_write(folder, keys, _read_key, force=force)
        stage = f"{source.frame} to MintPy"
        listener.stage(stage, sum(files[path].images for path in todo))
        for path in todo:
            for _ in _write_hdf5(folder / path, files[path]):
                listener.advance(stage)
        if not (folder / template).exists():  # once written it is the user's own
            write_atomic(folder / template, template_text(source.frame, attributes).encode())
            todo.append(template)
    known = int(np.isfinite(metres).sum())
    return MintpyResult(target, len(todo), len(files) + 1 - len(todo), len(places), known, looks)


def template_text(frame: str, attributes: Mapping[str, str]) -> str:
    """Return MintPy's template of a frame, with whom to credit as comments."""
    about = [f"{name.lower()}: {attributes[name]}" for name in CREDITS if name in attributes]
    lines = [
        f"# MintPy, frame {frame}: in this folder, smallbaselineApp.py {frame}.txt --start modify_network",
        *(["# SIMULATED DATA: no satellite saw this"] if "SIMULATED" in attributes else []),
        *(f"# {line}" for line in about),
        "# inputs/ is complete, so the step load_data is left out. MintPy writes smallbaselineApp.cfg with",
        "# all options beside it; what is set below replaces them. A later export keeps this file.",
        "",
        "# pyaps, MintPy's default, fetches ERA5 with your key of the Copernicus Climate Data Store",
        "mintpy.troposphericDelay.method = no",
        "# MintPy takes a point of coherence above 0.85 on average; better one that is known not to move",
        "# mintpy.reference.lalo = LATITUDE,LONGITUDE",
    ]
    return "\n".join([*lines, ""])


def _unwrapped_places(source: ExportSelection) -> dict[Pair, DimensionIndex]:
    """Return the places of the selected pairs that have unwrapped phase; check that there is height too."""
    asking = f"`hephaestus build {source.frame} --variables {','.join((_UNWRAPPED, *_LOOKS))}`"
    if _UNWRAPPED not in source.cube:
        raise UsageError(
            f"{source.frame}: the cube has no unwrapped phase, which MintPy starts from; {asking} adds it"
        )
    variable = cube_schema().variables[_UNWRAPPED]
    places = {
        pair: place for pair, place in source.pair_positions.items() if source.is_stored(variable, place)
    }
    if not places:
        raise HephaestusError(
            f"{source.frame}: no chosen pair has unwrapped phase; {asking} asks the archive again"
        )
    if not _is_stored(source, "dem"):
        raise HephaestusError(
            f"{source.frame}: the cube has no height, which MintPy needs; `hephaestus build {source.frame}` "
            "asks the archive again"
        )
    return places


def _is_stored(source: ExportSelection, name: str) -> bool:
    return source.is_stored(cube_schema().variables[name], ())


def _hash(source: ExportSelection, name: str, place: DimensionIndex) -> str:
    return source.hash_image(cube_schema().variables[name], place)


def _read(source: ExportSelection, name: str, place: DimensionIndex = ()) -> npt.NDArray[Any]:
    return source.read_image(cube_schema().variables[name], place)


def _pair_baselines(
    source: ExportSelection, places: Mapping[Pair, DimensionIndex], baselines: EpochBaselines | None
) -> npt.NDArray[np.float32]:
    """Return perpendicular baselines of pairs, m: the cube's, else those of the acquisitions, else NaN."""
    metres = np.full(len(places), np.nan, np.float32)
    if "perpendicular_baseline" in source.cube:
        table = source.cube["perpendicular_baseline"].values
        metres[:] = [table[place] for place in places.values()]
    if baselines is not None:
        metres = np.where(np.isnan(metres), [baselines.of_pair(pair) for pair in places], metres)
    return metres.astype(np.float32)


@dataclass(frozen=True)
class _Hdf5File:
    """A file to write: its key, its attributes, and what fills it, image by image."""

    key: str
    attributes: Mapping[str, str]
    images: int
    fill: Callable[[Any], Iterator[None]]

    @classmethod
    def make(
        cls,
        kind: str,
        attributes: Mapping[str, str],
        images: int,
        content: Any,
        fill: Callable[[Any], Iterator[None]],
    ) -> _Hdf5File:
        """Return a file of MintPy's `kind`; its key is that of the attributes and of `content`."""
        text = json.dumps([_LAYOUT, attributes, content], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        return cls(key, {**attributes, "FILE_TYPE": kind}, images, fill)


def _read_key(path: Path) -> str | None:
    """Return the content key of an exported file; None if it is missing or of another program."""
    try:
        with open_plain_file(path.parent, path.name) as (descriptor, _):
            found = _KEY.match(os.read(descriptor, _USER_BLOCK))
    except OSError:
        return None
    return found[1].decode() if found else None


def _write_hdf5(path: Path, made: _Hdf5File) -> Iterator[None]:
    """Write an HDF5 file beside its name, with its key in front, then rename it; yield after each image."""
    import h5py

    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    try:
        with _DraftFile(draft, "x+") as stream:
            with h5py.File(stream, "w", userblock_size=_USER_BLOCK) as file:
                file.attrs.update(made.attributes)
                for _ in made.fill(file):
                    stream.check()
                    yield
            stream.seek(0)
            stream.write(f"HEPHAESTUS_KEY={made.key}\n".encode())
            stream.check()
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


class _DraftFile(io.FileIO):
    """A file that keeps its first failure and takes no more content then, without an error.

    HDF5 that cannot write cannot close its file either, and crashes the process at its end.
    """

    _failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all of `content`, unless something failed."""
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while rest and self._failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size, unless something failed."""
        try:
            return super().truncate(size) if self._failure is None else size or 0
        except OSError as error:
            self._failure = error
            return size or 0

    def check(self) -> None:
        """Raise the failure that was kept, if there was one."""
        if self._failure is not None:
            raise self._failure


def _stack_file(
    source: ExportSelection,
    places: Mapping[Pair, DimensionIndex],
    metres: npt.NDArray[np.float32],
    attributes: Mapping[str, str],
    threads: int,
) -> _Hdf5File:
    factor = np.float32(phase_factor(source.cube.attrs))
    shape = (len(places), *source.grid.shape)

    def read(item: tuple[int, DimensionIndex]) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
        index, place = item
        coherence = _read(source, "insar_coherence", place) / np.float32(255)
        return index, _read(source, _UNWRAPPED, place) * factor, coherence

    def fill(file: Any) -> Iterator[None]:
        file["date"] = np.array([[f"{day:%Y%m%d}" for day in pair.dates] for pair in places], "S8")
        file["bperp"] = np.nan_to_num(metres)
        file["dropIfgram"] = np.ones(len(places), bool)  # true is kept, whatever the name says
        phases, coherences = (_create(file, name, shape) for name in ("unwrapPhase", "coherence"))
        for index, phase, coherence in map_bounded(read, enumerate(places.values()), threads):
            phases[index], coherences[index] = phase, coherence
            yield

    hashes = [
        [pair.name, _hash(source, _UNWRAPPED, place), _hash(source, "insar_coherence", place)]
        for pair, place in places.items()
    ]
    content = [hashes, np.nan_to_num(metres).tolist(), int(factor)]
    return _Hdf5File.make("ifgramStack", attributes, len(places), content, fill)


def _geometry_file(source: ExportSelection, attributes: Mapping[str, str], *, looks: bool) -> _Hdf5File:
    def fill(file: Any) -> Iterator[None]:
        layers = {"height": _read(source, "dem")}
        if looks:
            incidence, azimuth = look_angles(*(_read(source, name) for name in _LOOKS))
            distance = slant_range(incidence)
            layers |= {"incidenceAngle": incidence, "azimuthAngle": azimuth, "slantRangeDistance": distance}
        for name, values in layers.items():
            _create(file, name, values.shape)[...] = values
        yield

    hashes = [_hash(source, name, ()) for name in ("dem", *(_LOOKS if looks else ()))]
    return _Hdf5File.make("geometry", attributes, 1, hashes, fill)


def _create(file: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Return a new array of images in chunks of some rows of one image, as MintPy reads them."""
    chunks = (*(1,) * (len(shape) - 2), min(_CHUNK_ROWS, shape[-2]), shape[-1])
    array = file.create_dataset(name, shape, "f4", chunks=chunks, compression=_COMPRESSION)
    array.attrs["MODIFICATION_TIME"] = str(time.time())  # by which MintPy knows what to compute again
    return array
