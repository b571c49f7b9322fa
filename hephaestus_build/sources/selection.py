"""Registry of interferogram sources, and selection by frame id."""

from __future__ import annotations

from collections.abc import Callable

from hephaestus_build.core.frames import LICSAR, Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.sources.interferograms import InterferogramSource, ProductHistory


def _open_licsar(settings: Settings, history: ProductHistory) -> InterferogramSource:
    # it loads GDAL, and most commands ask no archive
    from hephaestus_build.sources.licsar.portal import LicsarPortal

    return LicsarPortal(settings, history=history)


#: What opens each source, by the name that the form of its frames' ids gives.
INTERFEROGRAM_SOURCES: dict[str, Callable[[Settings, ProductHistory], InterferogramSource]] = {
    LICSAR.source: _open_licsar
}


def open_interferogram_source(
    settings: Settings, frame: Frame, history: ProductHistory | None = None
) -> InterferogramSource:
    """Return the source that serves `frame`, as the form of its id tells.

    Parameters
    ----------
    settings : Settings
        Where the archive and the cache are.
    frame : Frame
        The frame.
    history : ProductHistory, optional
        What earlier builds know of its products; by default nothing.

    Raises
    ------
    UsageError
        If an address in the settings is invalid.
    """
    return INTERFEROGRAM_SOURCES[frame.source](settings, history or ProductHistory())
