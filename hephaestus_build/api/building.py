"""Build and plan one frame from Python: ``hb.build`` and ``hb.plan``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date, datetime
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frame_search import FoundFrame, frame_named
from hephaestus_build.core.frames import Frame, parse_day
from hephaestus_build.core.progress import NullListener, show_progress
from hephaestus_build.core.settings import Era5Choice, PairChoice, Settings, load_settings
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.pipeline.build import plan
from hephaestus_build.pipeline.plan import BuildPlan, BuildRequest
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.simulation.server.embedded import serve_for_frames


def build_cube(
    frame: Frame | FoundFrame | str,
    *,
    pairs: PairChoice = "auto",
    since: date | str | None = None,
    until: date | str | None = None,
    limit: int | None = None,
    era5: Era5Choice = "auto",
    variables: str | Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    simulated: bool = False,
    progress: bool = False,
) -> BuildResult:
    """Build or extend the cube of a frame and publish it, as ``hephaestus build`` does.

    What is in the cube already is not fetched again, and a build that was cut off goes on where it stopped.
    The run is written down in ``<data>/runs.jsonl``.

    Parameters
    ----------
    frame : Frame, FoundFrame or str
        The frame, its id, or a volcano that one frame of the registry lists. A simulated frame is served by
        the program itself, unless the settings name a portal.
    pairs : {"auto", "annotated", "all"}
        Which pairs; ``auto`` leaves it to the settings, by default those that experts annotated where there
        are some, else all.
    since, until : datetime.date or str, optional
        Leave out pairs that begin before, or end after, this day (``yyyy-mm-dd``).
    limit : int, optional
        Take no more pairs than this, the earliest first.
    era5 : {"auto", "cds", "arco"}
        Source of the atmosphere; ``auto`` leaves it to the settings, by default the CDS where a key is
        configured, else ARCO.
    variables : str or sequence of str, optional
        Optional variables to add to those that the cube has, such as ``unwrapped_phase``;
        ``"none"`` takes them all away. By default those of the settings.
    data_dir : str or path, optional
        Folder of cubes, cache and results; by default that of the settings.
    simulated : bool
        Build a simulated cube of the frame, in ``<data>/simulated``.
    progress : bool
        Whether to draw bars on standard error; elsewhere than on a terminal, notes alone.

    Returns
    -------
    BuildResult
        What is in the cube, where it is, and what is owed: products that the archives promise and did not
        deliver. The same call fetches them later.

    Raises
    ------
    HephaestusError
        If nothing could be built; what was published before stays as it was.
    UsageError
        If the request is wrong.

    Examples
    --------
    >>> import hephaestus_build as hb
    >>> result = hb.build("124D_04854_171313", limit=5)    # doctest: +SKIP
    >>> result.pairs, result.owed                          # doctest: +SKIP
    (5, ())
    >>> cube = hb.open_cube(result.frame)                  # doctest: +SKIP
    """
    settings, request = _request(frame, pairs, since, until, limit, era5, variables, data_dir, simulated)
    bars = show_progress() if progress else nullcontext(NullListener())
    with serve_for_frames(settings, [request.frame]) as served, bars as listener:
        [run] = build_frames([request], served, listener=listener)
    if run.result is None:
        raise run.exception or HephaestusError(run.error)
    return run.result


def plan_cube(
    frame: Frame | FoundFrame | str,
    *,
    pairs: PairChoice = "auto",
    since: date | str | None = None,
    until: date | str | None = None,
    limit: int | None = None,
    era5: Era5Choice = "auto",
    variables: str | Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    simulated: bool = False,
) -> BuildPlan:
    """Return what a build of a frame would fetch, skip and cost, as ``hephaestus plan`` does.

    One listing is read and no interferogram is fetched.

    Parameters
    ----------
    frame, pairs, since, until, limit, era5, variables, data_dir, simulated
        As for a build.

    Returns
    -------
    BuildPlan
        The pairs to fetch, the dates of ERA5, and rough sizes; ``to_json()`` gives it as plain values.

    Raises
    ------
    HephaestusError
        If the archive does not answer or has no such frame.
    UsageError
        If the request is wrong.

    Examples
    --------
    >>> import hephaestus_build as hb
    >>> todo = hb.plan("Etna", since="2019-01-01")         # doctest: +SKIP
    >>> len(todo.pairs_to_fetch), todo.download_bytes      # doctest: +SKIP
    """
    settings, request = _request(frame, pairs, since, until, limit, era5, variables, data_dir, simulated)
    with serve_for_frames(settings, [request.frame]) as served:
        return plan(request, served)


def named_frame(frame: Frame | FoundFrame | str) -> Frame:
    """Return the frame that a caller names: itself, by its id, or by a volcano of one frame.

    Raises
    ------
    UsageError
        If it names none, or several.
    """
    if isinstance(frame, FoundFrame):
        return frame.frame
    return frame if isinstance(frame, Frame) else frame_named(frame)


def chosen_settings_for(
    data_dir: str | os.PathLike[str] | None, simulated: bool, **overrides: str | list[str] | None
) -> Settings:
    """Return the settings of a call: those of what is simulated if that is asked for.

    Raises
    ------
    UsageError
        If a setting is wrong.
    """
    folder = None if data_dir is None else Path(data_dir)
    settings = load_settings(data_dir=folder, **overrides)
    return settings.for_simulated() if simulated else settings


def _request(
    frame: Frame | FoundFrame | str,
    pairs: PairChoice,
    since: date | str | None,
    until: date | str | None,
    limit: int | None,
    era5: Era5Choice,
    variables: str | Sequence[str] | None,
    data_dir: str | os.PathLike[str] | None,
    simulated: bool,
) -> tuple[Settings, BuildRequest]:
    chosen = {name: None if value == "auto" else value for name, value in (("pairs", pairs), ("era5", era5))}
    asked = variables if variables is None or isinstance(variables, str) else list(variables)
    settings = chosen_settings_for(data_dir, simulated, **chosen, variables=asked)
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: take one pair at least, or leave it out for all")
    request = BuildRequest(
        named_frame(frame),
        settings.pairs,
        _day("since", since),
        _day("until", until),
        limit,
        settings.variables,
    )
    return settings, request


def _day(name: str, day: date | str | None) -> date | None:
    if isinstance(day, datetime):
        return day.date()
    if day is None or isinstance(day, date):
        return day
    try:
        return parse_day(day)
    except ValueError as error:
        raise UsageError(f"{name}: {error} or yyyy-mm-dd") from None
