"""The pairs of a frame as a table: ``hb.pairs``."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from hephaestus_build.api.building import chosen_settings_for, named_frame
from hephaestus_build.core.frame_search import FoundFrame
from hephaestus_build.core.frames import Frame
from hephaestus_build.operations.pair_table import pair_table
from hephaestus_build.simulation.server.embedded import serve_for_frames

if TYPE_CHECKING:
    import pandas as pd


def pairs(
    frame: Frame | FoundFrame | str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    simulated: bool = False,
    upstream: bool = False,
) -> pd.DataFrame:
    """Return the pairs of a frame as a table, read from its cube and from the last listing that was kept.

    Parameters
    ----------
    frame : Frame, FoundFrame or str
        The frame, its id, or a volcano that one frame of the registry lists.
    data_dir : str or path, optional
        Folder of cubes, cache and results; by default that of the settings.
    simulated : bool
        Take what is simulated, in ``<data>/simulated``; of simulated frames it always is.
    upstream : bool
        Ask the archive for its listing and its baselines first. By default nobody is asked.

    Returns
    -------
    pandas.DataFrame
        In date order, with the pair's name (``yyyymmdd_yyyymmdd``) as index:

        - ``primary``, ``secondary``: acquisition dates, datetime64;
        - ``temporal_baseline_days``: days between them;
        - ``perpendicular_baseline_m``: metres, of the secondary to the primary acquisition; NaN where the
          archive's ``baselines`` file lacks one of them, or was not fetched yet;
        - ``status``: ``stored`` (in the cube), ``gone`` (in the cube, and no longer in the archive's
          listing), ``owed`` (the archive lists it, and the next build fetches it), ``absent`` (annotated or
          asked for, and the archive does not have it), ``unwanted`` (listed, and builds leave it out);
        - ``valid_fraction``: share of the frame's pixels with phase; NaN where the pair is not stored;
        - what the experts wrote: ``annotated``, ``deformation`` (whether something was outlined), ``phase``,
          the flags of docs/cube.md (-1 where the pair is not annotated), ``confidence``, ``caption``,
          ``unique_id``.

        ``attrs`` say what the table was made of: ``frame``, ``simulated``, ``generation`` of the cube, and
        ``listed``, when the listing was read (UTC); None where there is none.

    Raises
    ------
    HephaestusError
        If there is neither a cube nor a listing, or the archive is asked and does not answer.
    UsageError
        If `frame` names none.

    Examples
    --------
    >>> import hephaestus_build as hb
    >>> table = hb.pairs("124D_04854_171313")                                   # doctest: +SKIP
    >>> table.status.value_counts()                                             # doctest: +SKIP
    >>> short = table[(table.status == "stored") & (table.temporal_baseline_days <= 24)]    # doctest: +SKIP
    """
    found = named_frame(frame)
    settings = chosen_settings_for(data_dir, simulated)
    with serve_for_frames(settings, [found]) if upstream else nullcontext(settings) as served:
        return pair_table(found, served, upstream=upstream)
