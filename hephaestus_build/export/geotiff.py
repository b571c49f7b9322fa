"""Export of a cube as cloud-optimized GeoTIFFs, in the layout of LiCSAR's products.

::

    <frame>/<frame>.dem.tif
    <frame>/interferograms/<pair>/<pair>.insar_difference.tif
    <frame>/epochs/<date>/<date>.total_column_water_vapour.tif
    <frame>/<frame>.insar_difference.vrt
    <frame>/<frame>.qgs

Every file is written atomically, with a tag for the content that it was made from; a second export writes
only new and changed files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioIOError
from rasterio.io import MemoryFile

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.embedded_hash import add_xml_hash
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.gdal import check_gdal, isolated_gdal_env, wgs84_crs
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import check_no_links, is_plain_file
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.schema import Variable
from hephaestus_build.export.export_lock import (
    check_export_target,
    exclusive_lock,
    paths_to_write,
    remove_unfinished_files,
)
from hephaestus_build.export.geotiff_layers import (
    KEY_TAG,
    GeotiffLayer,
    describe_variable,
    iter_geotiff_layers,
)
from hephaestus_build.export.image_stack import image_nodata, layers_in_time, stack_xml
from hephaestus_build.export.qgis_project import project_xml
from hephaestus_build.export.sealed_xml import write_sealed
from hephaestus_build.export.selection import ExportSelection

#: Side of the tiles, pixels.
_BLOCK = 512


@dataclass(frozen=True)
class ExportResult:
    """Result of an export.

    Attributes
    ----------
    folder : pathlib.Path
        Folder of the frame.
    written, kept : int
        Numbers of new images and of images that were there already.
    changed : tuple of pathlib.Path
        Stacks and projects that somebody changed after an earlier export, and that are kept as they are.
    """

    folder: Path
    written: int
    kept: int
    changed: tuple[Path, ...] = ()


def export_geotiff(
    source: ExportSelection,
    folder: Path,
    *,
    box: tuple[float, float, float, float] | None = None,
    force: bool = False,
    threads: int = 2,
    listener: ProgressListener | None = None,
) -> ExportResult:
    """Write the images of a cube below ``<folder>/<frame>/``, with stacks and a QGIS project.

    Parameters
    ----------
    source : ExportSelection
        What to export. Tables and ERA5's own grid have no GeoTIFF; masks have one for annotated pairs only.
    folder : pathlib.Path
        Destination; created if needed.
    box : (float, float, float, float), optional
        West, south, east and north edge in degrees: only the pixels that it touches. By default the frame.
    force : bool
        Whether to replace files of another content.
    threads : int
        Number of images processed at once; memory grows with it, not with the number of pairs.
    listener : ProgressListener, optional
        Receives progress.

    Returns
    -------
    ExportResult
        The folder, and numbers of files.

    Raises
    ------
    UsageError
        If no wanted variable is an image, `box` lies outside of the frame, or a file has another content and
        `force` is false; then nothing is written.
    HephaestusError
        If a file cannot be written.
    """
    rows, columns = _window(source, box)
    layers = list(iter_geotiff_layers(source, None if box is None else (rows, columns)))
    result = write_layers(
        source, layers, folder, (rows, columns), force=force, threads=threads, listener=listener
    )
    return replace(result, changed=_write_companions(source, layers, folder, source.grid.crop(rows, columns)))


def write_layers(
    source: ExportSelection,
    layers: Sequence[GeotiffLayer],
    folder: Path,
    window: tuple[slice, slice],
    *,
    force: bool = False,
    threads: int = 2,
    listener: ProgressListener | None = None,
) -> ExportResult:
    """Write images as files; those that are there with the same content are kept.

    Parameters
    ----------
    source : ExportSelection
        What is exported.
    layers : sequence of GeotiffLayer
        Its images and their files, below ``<folder>/<frame>/``.
    folder : pathlib.Path
        Destination; created if needed.
    window : (slice, slice)
        Rows and columns of the frame that are written.
    force, threads, listener
        See :func:`export_geotiff`.

    Raises
    ------
    UsageError
        If there is no image, or a file has another content and `force` is false; then nothing is written.
    HephaestusError
        If a file cannot be written.
    """
    listener = listener or NullListener()
    grid = source.grid.crop(*window)
    if not layers:
        raise UsageError(f"{source.frame}: nothing of what is wanted is an image on the frame's grid")
    target = folder / source.frame
    check_export_target(source.store, target)
    with (
        translate_os_errors(f"{source.frame}: exporting to {target}", setting="--out"),
        exclusive_lock(target),
    ):
        for layer in layers:
            check_no_links(folder, layer.path)
        remove_unfinished_files(target)
        keys = {layer.path: layer.content_key for layer in layers}
        missing = {*paths_to_write(folder, keys, read_export_key, force=force)}
        todo = [layer for layer in layers if layer.path in missing]
        stage = f"{source.frame} to GeoTIFF"
        listener.stage(stage, len(todo))

        def write(layer: GeotiffLayer) -> None:
            image = source.read_window(layer.variable, layer.position, *window)
            write_atomic(folder / layer.path, encode_cog(image, grid, layer))

        for _ in map_bounded(write, todo, threads):
            listener.advance(stage)
    return ExportResult(target, len(todo), len(layers) - len(todo))


def _write_companions(
    source: ExportSelection, layers: Sequence[GeotiffLayer], folder: Path, grid: Grid
) -> tuple[Path, ...]:
    """Write stacks and the QGIS project; return those that somebody changed, which are kept."""
    by_variable: dict[str, list[GeotiffLayer]] = {}
    for layer in layers_in_time(layers):
        by_variable.setdefault(layer.variable.quantity, []).append(layer)
    target = folder / source.frame
    written = {
        target / f"{source.frame}.{name}.vrt": stack_xml(stacked, grid, source.frame)
        for name, stacked in by_variable.items()
        if stacked[0].position
    }
    written[target / f"{source.frame}.qgs"] = project_xml(
        source.frame, by_variable, grid, source.is_simulated
    )
    with translate_os_errors(f"{source.frame}: exporting to {target}", setting="--out"):
        return tuple(path for path, text in written.items() if not write_sealed(path, add_xml_hash(text)))


def _window(source: ExportSelection, box: tuple[float, float, float, float] | None) -> tuple[slice, slice]:
    """Return the rows and columns of the frame that are exported."""
    if box is None:
        return slice(None), slice(None)
    try:
        return source.grid.window(*box)
    except ValueError:
        edges = ",".join(f"{edge:.4f}" for edge in source.grid.bounds)
        raise UsageError(f"{source.frame}: the box lies outside of the frame, which is {edges}") from None


def read_export_key(path: Path) -> str | None:
    """Return the content key of an exported file; None if it is missing or of another program."""
    if not is_plain_file(path.parent, path.name):
        return None
    try:
        # GTiff alone: other drivers may open files that a file refers to
        with isolated_gdal_env(), rasterio.open(path, driver="GTiff") as dataset:
            return dataset.tags().get(KEY_TAG)
    except (RasterioIOError, UnicodeError):
        return None


def encode_cog(image: npt.NDArray[Any], grid: Grid, layer: GeotiffLayer) -> bytes:
    """Encode one image as a cloud-optimized GeoTIFF: tiled, with overviews, the directory first.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (rows, columns).
    grid : Grid
        Its grid.
    layer : GeotiffLayer
        Its variable and tags.
    """
    variable = layer.variable
    check_gdal()
    with isolated_gdal_env(), MemoryFile(ext=".tif") as optimized:
        # never a file: reading its coordinate system back would ask a database
        with rasterio.open(
            f"/vsimem/{uuid4()}",
            "w",
            driver="MEM",
            width=grid.width,
            height=grid.height,
            count=1,
            dtype=variable.dtype,
            crs=wgs84_crs(),
            transform=grid.transform,
            nodata=image_nodata(variable),
        ) as dataset:
            dataset.write(image, 1)
            dataset.update_tags(**layer.tags)
            dataset.set_band_description(1, describe_variable(variable))
            dataset.units = (variable.attributes.get("units", ""),)
            rasterio.shutil.copy(
                dataset,
                optimized.name,
                driver="COG",
                compress="DEFLATE",
                predictor="YES",
                blocksize=_BLOCK,
                overviews="IGNORE_EXISTING",
                overview_resampling="AVERAGE" if _is_continuous(variable) else "NEAREST",
            )
        return bytes(optimized.getbuffer())


def _is_continuous(variable: Variable) -> bool:
    """Return whether pixels may be averaged; not true of wrapped phase and of the codes of masks."""
    return variable.name != "insar_difference" and "flag_values" not in variable.attributes
