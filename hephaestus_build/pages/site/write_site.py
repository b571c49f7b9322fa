"""Writing of a site into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hephaestus_build import __version__
from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import utc_text
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.cube.discovery import cubes_dir_for
from hephaestus_build.export.export_lock import check_export_target, exclusive_lock
from hephaestus_build.pages.site.benchmark_page import read_leaderboard, render_benchmark_page
from hephaestus_build.pages.site.card_page import read_card, render_card_page
from hephaestus_build.pages.site.feed import render_feed
from hephaestus_build.pages.site.full_resolution import FULL_PAGE, fetch_scripts, render_full_page
from hephaestus_build.pages.site.index_page import SiteTotals, render_index_page
from hephaestus_build.pages.site.site_folder import SiteFolder
from hephaestus_build.pages.site.site_frames import write_frames
from hephaestus_build.pages.site.status_document import encode_status, make_status_document
from hephaestus_build.pages.site.volcano_pages import group_by_volcano, render_volcano_page

#: Pairs with pictures in the page of a frame: all, unless another number is asked for.
ALL_PAIRS = 5000
#: What may stand beside a site, and is linked from it.
_BESIDE = {
    "README.md": "the data card, Markdown",
    "catalog/README.md": "the data card, Markdown",
    "catalog/collection.json": "the catalogue, STAC",
    "catalog/pairs.parquet": "all pairs as a table, GeoParquet",
    "catalog/croissant.json": "the data set as Croissant",
    "collection.json": "the catalogue, STAC",
    "leaderboard.md": "the benchmark's table, Markdown",
    "leaderboard.csv": "the benchmark's table, CSV",
    "leaderboard.json": "the benchmark's entries with all scores",
}


@dataclass(frozen=True)
class WrittenSite:
    """A site that was written.

    Attributes
    ----------
    folder : pathlib.Path
        The folder.
    simulated : bool
        Whether it is of simulated cubes.
    frames, volcanoes : int
        Numbers of frames and of volcanoes.
    made : tuple of str
        Frames whose pages were made again.
    written, kept, removed : int
        Numbers of files that were written, compared and left as they were, and removed.
    failed : dict of str to str
        Why the page of a frame could not be made, by frame.
    foreign : tuple of str
        Files of before that somebody has changed, and that were therefore not removed.
    full_resolution : bool
        Whether its pages show pairs at full resolution.
    left_out : str
        Why they do not, where that was asked for.
    """

    folder: Path
    simulated: bool
    frames: int
    volcanoes: int
    made: tuple[str, ...]
    written: int
    kept: int
    removed: int
    failed: Mapping[str, str]
    foreign: tuple[str, ...]
    full_resolution: bool = False
    left_out: str = ""


def write_site(
    frames: Sequence[Frame],
    settings: Settings,
    folder: Path,
    *,
    base: HttpUrl | None = None,
    newest: int = ALL_PAIRS,
    benchmark: Path | None = None,
    full_resolution: bool = False,
    cubes: HttpUrl | None = None,
    listener: ProgressListener | None = None,
    now: datetime | None = None,
) -> WrittenSite:
    """Write the site of frames; only what has changed is made and written again.

    Parameters
    ----------
    frames : sequence of Frame
        The frames, at least one; all real or all simulated.
    settings : Settings
        Folders of cubes and cache.
    folder : pathlib.Path
        Where to write; made if need be. Files of others in it are left alone.
    base : HttpUrl, optional
        Address of the site, for absolute links in the feed. By default all links are relative.
    newest : int
        Number of the newest pairs that have pictures in the page of a frame.
    benchmark : pathlib.Path, optional
        Folder with ``leaderboard.csv``, which becomes ``benchmark.html``.
    full_resolution : bool
        Whether pages show pairs at full resolution, with scripts from the npm registry. Where these cannot be
        had, it is left out.
    cubes : HttpUrl, optional
        Address of the folder of the cubes, for full resolution; by default ``cubes`` in the site.
    listener : ProgressListener, optional
        Is told of the progress.
    now : datetime, optional
        Time of writing; by default the current one, UTC.

    Raises
    ------
    HephaestusError
        If the folder cannot be written, or `benchmark` has no such table.
    UsageError
        If a page would replace a file of somebody else.
    """
    home = settings.for_frame(frames[0])
    rows = read_leaderboard(benchmark) if benchmark is not None else None
    check_export_target(cubes_dir_for(home, frames[0]) / f"{frames[0]}.zarr", folder)
    with translate_os_errors(f"the site in {folder}", setting="--out"), exclusive_lock(folder / "site"):
        target = SiteFolder(folder, simulated=home.is_simulated)
        target.remove_unfinished()
        files, left_out = _full_resolution_files(home, cubes) if full_resolution else ({}, "")
        found = write_frames(
            frames, settings, target, newest, listener or NullListener(), full=FULL_PAGE in files
        )
        totals = SiteTotals(home.is_simulated, __version__, utc_text(now or datetime.now(UTC)))
        beside = [(name, what) for name, what in _BESIDE.items() if (folder / name).is_file()]
        if (card := read_card(folder)) is not None:
            files["data-card.html"] = render_card_page(*card, totals).encode()
            beside.insert(0, ("data-card.html", "the data card"))
        if rows is not None:
            files["benchmark.html"] = render_benchmark_page(rows, totals).encode()
            beside.insert(0, ("benchmark.html", "the benchmark's table"))
        volcanoes = group_by_volcano(found.frames)
        for slug, (volcano, seen_by) in volcanoes.items():
            files[f"volcanoes/{slug}.html"] = render_volcano_page(volcano, seen_by, totals).encode()
        status = make_status_document(
            found.frames, simulated=totals.simulated, version=totals.version, written=totals.written
        )
        files["status.json"] = encode_status(status)
        files["atom.xml"] = render_feed(
            found.frames, target.feed, base=base, simulated=totals.simulated, version=totals.version,
            written=totals.written,
        )  # fmt: skip
        files["index.html"] = render_index_page(found.frames, totals, beside).encode()
        for name, content in files.items():
            target.write(name, content)
        foreign = tuple(target.remove_others(found.files | files.keys()))
        target.close({frame.frame for frame in found.frames})
    return WrittenSite(
        folder, totals.simulated, len(found.frames), len(volcanoes), tuple(found.made), target.written,
        target.kept, target.removed, found.failed, foreign, FULL_PAGE in files, left_out,
    )  # fmt: skip


def _full_resolution_files(home: Settings, cubes: HttpUrl | None) -> tuple[dict[str, bytes], str]:
    """Return the page of full resolution and its scripts by their paths, or why they cannot be had."""
    try:
        scripts = fetch_scripts(home)
    except HephaestusError as error:
        return {}, str(error)
    page = render_full_page(cubes, simulated=home.is_simulated, version=__version__)
    return {**scripts, FULL_PAGE: page.encode()}, ""
