"""The frames of a site: their status, and their pages, which are written where they have changed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC
from functools import cache
from importlib.resources import files
from typing import Any

from hephaestus_build import __version__
from hephaestus_build.core.atomic_io import encode_json, hash_bytes, translate_os_errors
from hephaestus_build.core.errors import HephaestusError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import utc_text
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.storage.manifest import hash_objects
from hephaestus_build.operations.run_log import read_last_runs
from hephaestus_build.operations.status import NOT_BUILT, FrameStatus, read_frame_status
from hephaestus_build.pages import assets
from hephaestus_build.pages.frame_page import locate_by_id, make_frame_page
from hephaestus_build.pages.frame_record import read_frame_record
from hephaestus_build.pages.markup import tag
from hephaestus_build.pages.page_data import FramePage
from hephaestus_build.pages.render import render_frame_page
from hephaestus_build.pages.site.full_resolution import FULL_PAGE
from hephaestus_build.pages.site.page_parts import picture_path
from hephaestus_build.pages.site.site_folder import SiteFolder
from hephaestus_build.pages.site.site_values import FrameDigest, SiteFrame, digest_page, site_volcanoes

#: Characters that the pictures of a page may take: all pairs are in it.
PICTURE_CHARACTERS = 16_000_000
#: Number of this form of pages: with another one all are written again.
_FORM = 2
#: What of a frame's status its page follows; times of looks and runs are not among it.
_FOLLOWED = (
    "generation", "built", "pairs", "annotated", "absent", "owed", "accepted", "preliminary", "stale", "gone",
    "schema", "simulated", "newest_listed",
)  # fmt: skip


@dataclass
class WrittenFrames:
    """The frames of a site, and what became of their pages.

    Attributes
    ----------
    frames : list of SiteFrame
        All of them, sorted.
    files : set of str
        The files that belong to them.
    made : list of str
        Frames whose pages were made again.
    failed : dict of str to str
        Why a page could not be made, by frame; the one of before stays.
    """

    frames: list[SiteFrame] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    made: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def write_frames(
    chosen: Sequence[Frame],
    settings: Settings,
    folder: SiteFolder,
    newest: int,
    listener: ProgressListener,
    *,
    full: bool = False,
) -> WrittenFrames:
    """Write the pages of the frames that have changed.

    Parameters
    ----------
    chosen : sequence of Frame
        The frames.
    settings : Settings
        Folders of cubes and cache.
    folder : SiteFolder
        The site.
    newest : int
        Number of the newest pairs that have pictures in a page.
    listener : ProgressListener
        Is told of the progress.
    full : bool
        Whether pages lead to their pairs at full resolution.
    """
    done = WrittenFrames()
    runs = read_last_runs(settings.data_dir)
    listener.stage("pages", len(chosen))

    def write(frame: Frame) -> SiteFrame:
        found = _write_frame(frame, settings, folder, newest, runs, done, full)
        listener.advance("pages")
        return found

    with ThreadPoolExecutor(settings.worker_count, thread_name_prefix="page") as pool:
        try:
            done.frames = list(pool.map(write, sorted(chosen)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return done


def _write_frame(
    frame: Frame,
    settings: Settings,
    folder: SiteFolder,
    newest: int,
    runs: Mapping[str, Mapping[str, Any]],
    done: WrittenFrames,
    full: bool,
) -> SiteFrame:
    home = settings.for_frame(frame)
    status = read_frame_status(home, frame, runs=runs)
    key = key_of_page(status, newest, _prediction_time(home, frame), full=full)
    digest = folder.digest_of(frame.id, key, lambda one: frame_files(frame.id, one))
    if digest is None:
        try:
            with (
                wrap_unexpected_errors(frame),
                translate_os_errors(f"{frame}: writing its page", setting="--out"),
            ):
                digest = _make_page(frame, home, folder, newest, full)
            folder.keep_digest(frame.id, key, digest)
            done.made.append(frame.id)
        except HephaestusError as error:
            digest = folder.last_digest(frame.id)
            if status.problem != NOT_BUILT:  # nothing is known of such a frame yet, which is no failure
                done.failed[frame.id] = str(error)
    page = digest is not None and (folder.path / f"frames/{frame.id}.html").is_file()
    if digest is None:
        digest = digest_by_id(frame)
    if page:
        done.files.update(frame_files(frame.id, digest))
    return site_frame(frame, status, digest, page=page)


def _make_page(frame: Frame, home: Settings, folder: SiteFolder, newest: int, full: bool) -> FrameDigest:
    """Write the page of a frame and the pictures of its newest pairs."""
    record = read_frame_record(frame.id, home)
    page = make_frame_page(record, newest=newest, most=PICTURE_CHARACTERS)
    digest = digest_page(page)
    links = [tag("a", "All frames", href="../index.html")]
    links += [tag("a", one.name, href=f"../volcanoes/{one.slug}.html") for one in digest.volcanoes[:8]]
    generation = record.known.generation
    address = full_address(page, generation) if full and generation is not None else ""
    content = render_frame_page(page, tag("nav", *links, aria_label="Site"), address)
    for name in digest.pictured:
        assert page.pictures is not None
        picture = base64.b64decode(page.pictures.pairs[name].phase.png)
        folder.write(picture_path(frame.id, name), picture)
    folder.write(f"frames/{frame.id}.html", content.encode())
    return digest


def full_address(page: FramePage, generation: Generation) -> str:
    """Return where the page of a frame leads for the shown pair at full resolution.

    The hash of the manifest says which publication the page was made of.
    """
    made_of = hash_objects(generation.read_manifest())
    return f"../{FULL_PAGE}#frame={page.frame}&pair={page.shown}&as={made_of}"


def frame_files(frame: str, digest: FrameDigest) -> list[str]:
    """Return the files of a frame in the site."""
    return [f"frames/{frame}.html", *(picture_path(frame, name) for name in digest.pictured)]


def key_of_page(status: FrameStatus, newest: int, predicted: int, *, full: bool = False) -> str:
    """Return what a page is made from, as a hash: the frame's generation and state, and this program.

    Parameters
    ----------
    status : FrameStatus
        Status of the frame.
    newest : int
        Number of the newest pairs that have pictures.
    predicted : int
        Time of a model's maps of the frame; 0 without any.
    full : bool
        Whether it leads to its pairs at full resolution.
    """
    values = {name: value for name, value in status.to_json().items() if name in _FOLLOWED}
    begun = status.unfinished if status.generation is None else 0
    made_with = (_FORM, __version__, _hash_assets(), newest, PICTURE_CHARACTERS, full)
    return hash_bytes(encode_json([values, begun, predicted, made_with], order="deterministic"))


@cache
def _hash_assets() -> str:
    """Return a hash of the templates, styles and scripts of frames' pages."""
    found = sorted(files(assets).iterdir(), key=lambda one: one.name)
    used = [one for one in found if one.is_file() and not one.name.endswith((".py", ".pyc"))]
    return hash_bytes(b"".join(one.read_bytes() for one in used if not one.name.startswith("site")))


def _prediction_time(home: Settings, frame: Frame) -> int:
    try:
        return (home.data_dir / "predictions" / f"{frame}.zarr" / "zarr.json").stat().st_mtime_ns
    except OSError:
        return 0


def digest_by_id(frame: Frame) -> FrameDigest:
    """Return where a frame lies as far as its id and the registry say, without any page."""
    bounds, volcanoes = locate_by_id(frame)
    return FrameDigest(bounds=bounds, approximate=True, volcanoes=site_volcanoes(volcanoes))


def site_frame(frame: Frame, status: FrameStatus, digest: FrameDigest, *, page: bool) -> SiteFrame:
    """Return a frame of the site from its status and its digest."""
    return SiteFrame(
        frame=frame.id,
        direction="ascending" if frame.direction == "A" else "descending",
        track=frame.track,
        simulated=status.simulated,
        digest=digest,
        page=page,
        generation=status.generation,
        built=utc_text(status.built.astimezone(UTC)) if status.built else "",
        newest=status.newest.isoformat() if status.newest else "",
        pairs=status.pairs,
        annotated=status.annotated,
        owed=len(status.owed),
        accepted=len(status.accepted),
        preliminary=status.preliminary,
        problem=status.problem,
    )
