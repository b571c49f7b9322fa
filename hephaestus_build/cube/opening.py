"""The public function :func:`open_cube`, which opens a cube given by its frame, volcano or path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hephaestus_build.core.frame_search import FoundFrame
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.discovery import find_cube
from hephaestus_build.cube.reading import dataset

if TYPE_CHECKING:
    import xarray as xr


def open_cube(
    cube: str | os.PathLike[str] | Frame | FoundFrame,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Open a published cube, georeferenced and pinned to the currently published generation.

    Parameters
    ----------
    cube : str, path, Frame or FoundFrame
        Frame id such as ``124D_04854_171313``, name of a volcano that exactly one frame of the registry
        lists, or path of a cube. Simulated frames are opened from ``<data>/simulated``.
    data_dir : str or path, optional
        The data folder, used if `cube` is not a path; by default that of the settings
        (``HEPHAESTUS_DATA_DIR``, the settings file, or ``data``).
    **options
        Passed to :func:`hephaestus_build.cube.reading.dataset.open_pinned_cube`, and from there to
        :func:`xarray.open_zarr`.

    Returns
    -------
    xarray.Dataset
        Every variable of docs/cube.md. It keeps reading the same generation when a newer one is published.
        Its grid is available through the ``rio`` accessor of rioxarray.

    Raises
    ------
    HephaestusError
        If there is no such cube.
    UsageError
        If `cube` is not a frame, volcano or path, or a setting is invalid.

    Examples
    --------
    >>> import hephaestus_build as hb
    >>> cube = hb.open_cube("124D_04854_171313")                                # doctest: +SKIP
    >>> image = cube.insar_difference.isel(primary_date=0, secondary_date=0)    # doctest: +SKIP
    >>> image.rio.clip_box(14.3, 40.7, 14.6, 40.9).rio.reproject("EPSG:32633")  # doctest: +SKIP
    """
    import rioxarray  # noqa: F401 (registers the accessor)

    if isinstance(cube, FoundFrame):
        cube = cube.frame
    settings = load_settings(data_dir=None if data_dir is None else Path(data_dir))
    return dataset.open_pinned_cube(
        find_cube(cube if isinstance(cube, Frame) else os.fspath(cube), settings), **options
    )
