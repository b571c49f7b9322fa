"""The home folder of the user, which a container may not have, and folders of libraries in its place.

A process of a container may run as a user without an entry in the list of users, without HOME, or with a home
folder that cannot be written to.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

#: Variables that name the user, as :func:`getpass.getuser` reads them.
_USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def find_home() -> Path | None:
    """Return the home folder, of HOME or of the list of users; None if neither has one."""
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        home = _entry_of_user("pw_dir")
    return Path(home) if home.startswith("/") else None


def provide_user() -> None:
    """Give libraries a user's name and a folder for caches where they would find none and fail.

    PyTorch asks for the name, the hub of weights for the folder, which is temporary.
    """
    if not any(map(os.environ.get, _USER_NAMES)) and not _entry_of_user("pw_name"):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    if find_home() is None:
        os.environ.setdefault("XDG_CACHE_HOME", str(_temporary_folder()))


def provide_matplotlib_folder() -> None:
    """Name a temporary folder for matplotlib's settings and caches where its own cannot be written to.

    Matplotlib would fail without a home folder, and print a warning about one that cannot be written to.
    """
    if os.environ.get("MPLCONFIGDIR"):
        return
    home, named = find_home(), os.environ.get("XDG_CONFIG_HOME")
    if named or home:
        folder = (Path(named) if named else Path(home or "") / ".config") / "matplotlib"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return
        except OSError:
            pass
    os.environ["MPLCONFIGDIR"] = str(_temporary_folder())


def _entry_of_user(field: str) -> str:
    """Return a field of this user's entry in the list of users, an empty text if there is none."""
    import pwd

    try:
        return str(getattr(pwd.getpwuid(os.getuid()), field))
    except KeyError:
        return ""


def _temporary_folder() -> Path:
    """Make a folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="hephaestus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
