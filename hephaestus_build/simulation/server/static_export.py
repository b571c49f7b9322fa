"""Export of the simulated portal as plain files, for any static web server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import check_no_links
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.server.licsar_app import PORTAL_ROOT, LicsarApp, is_mirrored


def write_static_archive(
    archive: SimulatedArchive,
    folder: Path,
    *,
    base: str = "http://127.0.0.1:8000",
    unwrapped: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> int:
    """Write the files of the portal, and the annotations, into `folder`.

    The ``directories`` layout needs only a static server that lists folders. In the ``links`` layout pairs
    and epochs are files whose links begin with `base`, the address at which `folder` will be served.

    Parameters
    ----------
    archive : SimulatedArchive
        Archive to write, in its present layout.
    folder : Path
        Target folder, created if needed; existing files of the same names are replaced.
    base : str
        Address at which `folder` will be served, for links.
    unwrapped : bool
        Also write the unwrapped phase, which takes as much space as all other files; only cubes with the
        optional variable ``unwrapped_phase`` have it.
    report : callable
        Called with the frame id, kind and key of each folder before it is written.

    Returns
    -------
    int
        Number of files written.
    """
    portal = LicsarApp(archive)
    written = 0
    for name in archive.world.frames:
        track = Frame(name).track
        home = folder / PORTAL_ROOT / str(track) / name
        keys = [("metadata", "")]
        keys += [("interferograms", pair.name) for pair in archive.pairs(name)]
        keys += [("epochs", f"{day:%Y%m%d}") for day in archive.epochs(name)]
        for kind, key in keys:
            report(f"{name} {kind} {key}".rstrip())
            direct = kind == "metadata" or archive.layout == "directories"
            check_no_links(folder, str((home / kind / key).relative_to(folder)))
            (home / kind / key if direct else home / kind).mkdir(parents=True, exist_ok=True)
            if not direct:
                page = portal.link_page(name, kind, key, base.rstrip("/"))
                target = home / kind / key
                target.write_text(page.text)
                os.utime(target, (page.modified.timestamp(), page.modified.timestamp()))
                written += 1
            for file in archive.file_names(name, kind, key):
                source = archive.product_path(name, kind, key, file)
                if source is None or (file.endswith(".geo.unw.tif") and not unwrapped):
                    continue
                if direct:
                    place = home / kind / key
                elif is_mirrored(archive, name, kind, key, file):
                    place = folder / archive.mirror_root / f"{track:02d}" / name
                    place = place / key if kind == "interferograms" else place / kind / key
                else:
                    place = folder / archive.public_root / str(track) / name / kind / key
                check_no_links(folder, str((place / file).relative_to(folder)))
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place / file)
                written += 1
    check_no_links(folder, "annotations.tar.gz")
    (folder / "annotations.tar.gz").write_bytes(archive.annotations())
    return written + 1
