"""Products of optional variables in the LiCSAR archive: their file names and readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.sources.interferograms import ProductPlace, Raster
from hephaestus_build.sources.licsar.geotiff import read_delay, read_look_component, read_unwrapped

_PRODUCTS: dict[str, tuple[str, Callable[[Path], Raster]]] = {
    "unwrapped_phase": ("geo.unw.tif", read_unwrapped),
    "look_east": ("geo.E.tif", read_look_component),
    "look_north": ("geo.N.tif", read_look_component),
    "look_up": ("geo.U.tif", read_look_component),
    "gacos_delay": ("sltd.geo.tif", read_delay),
    "icams_delay": ("icams.sltd.geo.tif", read_delay),
}


def optional_product(
    frame: Frame, variable: str, place: ProductPlace
) -> tuple[str, Callable[[Path], Raster]]:
    """Return the file name and the reader of the raster of an optional variable.

    Parameters
    ----------
    frame : Frame
        The frame.
    variable : str
        Name of the variable.
    place : Pair, datetime.date or None
        The pair or the acquisition date; None for a variable of the frame.

    Examples
    --------
    >>> from datetime import date
    >>> optional_product(Frame("124D_04854_171313"), "gacos_delay", date(2016, 9, 9))[0]
    '20160909.sltd.geo.tif'
    """
    ending, read = _PRODUCTS[variable]
    stem = frame.id if place is None else place.name if isinstance(place, Pair) else f"{place:%Y%m%d}"
    return f"{stem}.{ending}", read
