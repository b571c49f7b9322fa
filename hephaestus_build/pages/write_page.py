"""Writing of a frame's page to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.settings import Settings
from hephaestus_build.pages.frame_page import NEWEST, make_frame_page
from hephaestus_build.pages.frame_record import read_frame_record
from hephaestus_build.pages.page_data import FramePage
from hephaestus_build.pages.render import render_frame_page


@dataclass(frozen=True)
class WrittenPage:
    """A page that was written.

    Attributes
    ----------
    path : pathlib.Path
        The file, ``<frame>.html``.
    page : FramePage
        What it shows.
    size : int
        Its size in bytes.
    """

    path: Path
    page: FramePage
    size: int


def write_frame_page(
    target: str | Path,
    settings: Settings,
    folder: Path | None = None,
    *,
    newest: int = NEWEST,
    pair: Pair | None = None,
) -> WrittenPage:
    """Write the page of a frame, one file that opens offline, atomically.

    Parameters
    ----------
    target : str or pathlib.Path
        Path of a cube, frame id, or name of a volcano that exactly one frame lists.
    settings : Settings
        Folders of cubes and cache.
    folder : pathlib.Path, optional
        Folder to write to; by default ``pages`` in the frame's data folder.
    newest : int
        Number of the newest pairs that have pictures in the page.
    pair : Pair, optional
        The pair that is shown first; by default the newest one.

    Raises
    ------
    HephaestusError
        If nothing is known of the frame, its cube is damaged, or the file cannot be written.
    UsageError
        If `target` is neither a path nor a frame, or `pair` is not stored.
    """
    record = read_frame_record(target, settings)
    page = make_frame_page(record, newest=newest, pair=pair)
    content = render_frame_page(page).encode()
    path = (folder or record.data_dir / "pages") / f"{record.frame}.html"
    setting = "--out" if folder else "HEPHAESTUS_DATA_DIR"
    with translate_os_errors(f"{record.frame}: writing its page", setting=setting):
        write_atomic(path, content)
    return WrittenPage(path, page, len(content))
