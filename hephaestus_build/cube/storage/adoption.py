"""Adoption of a cube that was copied to its published name, without the folder of its generations."""

from __future__ import annotations

import logging

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.validation.checksums import verify_generation

log = logging.getLogger(__name__)


def adopt_copy(
    frame_store: FrameStore, *, damaged: bool = False, listener: ProgressListener | None = None
) -> None:
    """Make a generation of a copied cube, so that builds continue from it; call it with the frame locked.

    Nothing is done if the published cube is not such a copy.

    Parameters
    ----------
    frame_store : FrameStore
        Store of the frame.
    damaged : bool
        Whether to adopt a copy that differs from its manifest too, to repair it.
    listener : ProgressListener, optional
        Receives the progress of the comparison with the manifest.

    Raises
    ------
    HephaestusError
        If the copy differs from its manifest and `damaged` is false.
    """
    copy = frame_store.published_generation()
    if copy is None or copy.number:
        return
    damages = [] if damaged else verify_generation(copy, listener)
    if damages:
        more = f" and {len(damages) - 1} more" if len(damages) > 1 else ""
        raise HephaestusError(
            f"{frame_store.frame}: {copy.store} is a damaged or incomplete copy of a cube "
            f"({damages[0]}{more}); copy it again, or `hephaestus repair {frame_store.frame}` rebuilds what "
            f"is damaged"
        )
    adopted = frame_store.adopt(copy)
    log.info("%s: %s was copied here; it is generation %d now", frame_store.frame, copy.store, adopted.number)
