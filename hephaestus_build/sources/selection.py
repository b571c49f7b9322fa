"""Registry of interferogram sources, and selection by frame id."""

from __future__ import annotations

from collections.abc import Callable

from hephaestus_build.core.frames import LICSAR, Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.sources.interferograms import InterferogramSource, ProductHistory
from hephaestus_build.sources.licsar.portal import LicsarPortal

#: Factory of each source, by the source name of the frame id's format.
INTERFEROGRAM_SOURCES: dict[str, Callable[[Settings], InterferogramSource]] = {LICSAR.source: LicsarPortal}


def open_interferogram_source(settings: Settings, frame: Frame) -> InterferogramSource:
    """Open the source that serves `frame`, which the format of its id determines.

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
