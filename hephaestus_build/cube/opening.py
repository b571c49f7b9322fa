"""The façade's :func:`open_cube`: a cube by its frame or by its path, wherever it stands."""

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
    """Open a published cube, georeferenced and pinned to the generation that is current now.

    Parameters
    ----------
    cube : str, path, Frame or FoundFrame
        A frame, such as ``124D_04854_171313``, a volcano that one frame of the registry lists, or where a
        cube is. Of simulated frames, the cube in ``<data>/simulated``.
    data_dir : str or path, optional
        The data folder, where a frame is named; by default that of the settings (``HEPHAESTUS_DATA_DIR``,
        the file of settings, or ``data``).
    **options
        Of :func:`hephaestus_build.cube.reading.dataset.open_pinned_cube`, and of :func:`xarray.open_zarr`.

    Returns
    -------
    xarray.Dataset
        Every variable of docs/cube.md; what it reads stays the same whatever is built meanwhile. The accessor
        ``rio`` of rioxarray knows its grid.

    Raises
    ------
    HephaestusError
        If there is no such cube.
    UsageError
        If `cube` is neither a frame nor a path, or a setting is wrong.

    Examples
    --------
    >>> import hephaestus_build as hb
    >>> cube = hb.open_cube("124D_04854_171313")                                # doctest: +SKIP
    >>> image = cube.insar_difference.isel(primary_date=0, secondary_date=0)    # doctest: +SKIP
    >>> image.rio.clip_box(14.3, 40.7, 14.6, 40.9).rio.reproject("EPSG:32633")  # doctest: +SKIP
    """
    import rioxarray  # noqa: F401 (the accessor)

    if isinstance(cube, FoundFrame):
        cube = cube.frame
    settings = load_settings(data_dir=None if data_dir is None else Path(data_dir))
    return dataset.open_pinned_cube(
        find_cube(cube if isinstance(cube, Frame) else os.fspath(cube), settings), **options
    )
