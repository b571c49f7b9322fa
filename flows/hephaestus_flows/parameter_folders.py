"""Folders that parameters of a flow may name: the server's data folder, and those in ``data_roots``.

Parameters come from users of the server, possibly on other machines; flows neither read nor write elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.settings import Settings, load_settings

#: Folders that this program keeps in a data folder; no other data folder may lie in them.
_RESERVED_FOLDERS = frozenset({"cubes", "cache", "results"})


def load_flow_settings(data_dir: Path | None = None, simulated: bool = False, **overrides: Any) -> Settings:
    """Return the settings of the flow's process, with the data folder of its parameters.

    Parameters
    ----------
    data_dir : pathlib.Path or None
        As given to the flow; the process's own by default.
    simulated : bool
        Whether the flow works among the simulated cubes, in ``simulated/`` of that folder.
    **overrides
        Other settings that the flow's parameters set.

    Raises
    ------
    UsageError
        If the folder is none that a flow may write to, or a setting is wrong.
    """
    own = load_settings(**overrides)
    if data_dir is None:
        return own.for_simulated() if simulated else own
    folder = resolve_allowed_path("data_dir", data_dir, own)
    root = next(root for root in _allowed_roots(own) if folder.is_relative_to(root))
    if kept := _RESERVED_FOLDERS.intersection(folder.relative_to(root).parts):
        raise UsageError(
            f"data_dir {sanitize_text(data_dir, 200)}: no data folder lies in a folder called {min(kept)}"
        )
    chosen = load_settings(**{**overrides, "data_dir": folder})
    return chosen.for_simulated() if simulated else chosen


def resolve_allowed_path(name: str, path: Path, settings: Settings) -> Path:
    """Return the parameter `name` with links and ``..`` resolved.

    Raises
    ------
    UsageError
        If it lies outside the allowed folders.
    """
    try:
        where = path.resolve()
    except (OSError, ValueError, RuntimeError):
        raise UsageError(f"{name} {sanitize_text(path, 200)} is no path") from None
    if not any(where.is_relative_to(root) for root in _allowed_roots(settings)):
        raise UsageError(
            f"{name} {sanitize_text(path, 200)} is neither in {_base_data_dir(settings).absolute()} nor in a "
            "folder of the setting data_roots; add its folder to HEPHAESTUS_DATA_ROOTS of the process that "
            "runs the flows, and start that again"
        )
    return where


def _base_data_dir(settings: Settings) -> Path:
    """Return the data folder, without its part for simulated data."""
    return settings.real_data_dir or settings.data_dir


def _allowed_roots(settings: Settings) -> list[Path]:
    return [root.resolve() for root in (_base_data_dir(settings), *settings.data_roots)]


def allowed_path_pattern(settings: Settings) -> str:
    """Return a pattern (of Python and JavaScript) for paths that a flow may name.

    It cannot resolve links: it refuses early what is certainly wrong.
    """
    roots = [_base_data_dir(settings), *settings.data_roots]
    spelled = dict.fromkeys(
        str(path) for root in roots for path in (root, root.absolute(), root.resolve()) if str(path) != "."
    )
    start = "|".join(re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", root) for root in spelled)
    return rf"^(?!.*(?:^|\/)\.\.(?:\/|$))(?:{start})(?:\/[^\0\n]*)?$"
