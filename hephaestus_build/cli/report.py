"""``hephaestus report``: pictures of cubes, and pages of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import load_command_settings, out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption
from hephaestus_build.cli.targets import require_cubes
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError, wrap_unexpected_errors
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import count_of, format_bytes
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import find_cube, settings_for_cube
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.report.quicklook import parse_pair_argument, write_quicklook


class ReportFigure(StrEnum):
    """What ``report`` draws."""

    PAIR = "pair"
    TYPES = "types"
    SERIES = "series"
    CAPTIONS = "captions"
    VAPOUR = "vapour"


def report(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FRAME_OR_PATH]...",
            help="Frame ids, volcanoes of one frame, or where cubes are. "
            "Default: all real cubes, or the simulated ones.",
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(help="Show this pair, such as 20160909_20160921; by default the newest."),
    ] = None,
    figure: Annotated[
        ReportFigure,
        typer.Option(
            help="pair: one interferogram of each cube; types: an example of each type of deformation; "
            "series: the interferograms of one primary date with their masks; captions: three, with what "
            "the experts wrote; vapour: lateral gradients of water vapour."
        ),
    ] = ReportFigure.PAIR,
    html: Annotated[
        bool,
        typer.Option(
            "--html",
            help="Write a page of each frame instead, <frame>.html: one file that opens offline, with a "
            "slider over pairs, their network, what is owed and where all comes from.",
        ),
    ] = False,
    newest: Annotated[
        int | None,
        typer.Option(
            min=1, max=5000, help="With --html: how many of the newest pairs have pictures. Default: 60."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write to. Default: quicklooks/ in the data folder; of --html, pages/."
        ),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Draw a pair of each cube: phase, coherence, terrain, water vapour, masks, and all pairs in time.

    Each pair has a picture of its own, <frame>_<pair>.png. With --figure it draws what the paper's figures
    show, docs/paper.md: types.png and captions.png of all cubes together, and of each cube
    <frame>_series_<primary>.png and <frame>_vapour_<pair>.png, where --pair chooses the pair or its primary.

    With --html it writes pages, docs/pages.md. A page needs no cube: of a frame whose builds got nothing yet
    it shows what is owed, and why.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    if pair and len(targets or []) != 1:
        raise UsageError("--pair is of one cube: name it")
    if html and figure is not ReportFigure.PAIR:
        raise UsageError("--html writes a page, --figure a picture: give one of them")
    if newest is not None and not html:
        raise UsageError("--newest is of a page: add --html")
    if html:
        _write_pages(targets or require_cubes(settings).stores, settings, folder, newest, pair, as_json)
        return
    cubes = [find_cube(target, settings) for target in targets or []] or require_cubes(settings).stores
    if figure is not ReportFigure.PAIR:
        home = folder or settings_for_cube(cubes[0], settings).data_dir / "quicklooks"
        drawn = _draw_figure(figure, cubes, home, parse_pair_argument(pair))
        for one in drawn if not as_json else ():
            out.print(f"{figure}, of {', '.join(one['frames'])}, in {one['picture']}", soft_wrap=True)
        if as_json:
            print_json({"pictures": [], "figures": drawn, "pages": []})
        return
    pictures, failed = [], False
    setting = "--out" if folder else "HEPHAESTUS_DATA_DIR"
    for cube in cubes:
        home = folder or settings_for_cube(cube, settings).data_dir / "quicklooks"
        try:
            with wrap_unexpected_errors(cube.stem):
                done = write_quicklook(cube, home, pair, setting=setting)
        except HephaestusError as error:
            if len(cubes) == 1:
                raise
            print_notice(str(error))
            failed = True
            continue
        pictures.append(
            {
                "frame": done.frame,
                "cube": str(cube),
                "pair": done.pair.name,
                "chosen": "asked" if done.asked else "newest",
                "picture": str(done.path),
            }
        )
        if not as_json:
            out.print(f"{cube.stem}: {done.pair}, {done.reason}, in {done.path}", soft_wrap=True)
    if as_json:
        print_json({"pictures": pictures, "figures": [], "pages": []})
    if failed:
        raise typer.Exit(1)


def _write_pages(
    targets: Sequence[str | Path],
    settings: Settings,
    folder: Path | None,
    newest: int | None,
    pair: str | None,
    as_json: bool,
) -> None:
    """Write the page of each frame, and say where it is."""
    from hephaestus_build.pages.frame_page import NEWEST
    from hephaestus_build.pages.write_page import write_frame_page

    shown = parse_pair_argument(pair)
    pages, failed = [], False
    for target in targets:
        name = Path(target).stem
        try:
            with wrap_unexpected_errors(name):
                done = write_frame_page(target, settings, folder, newest=newest or NEWEST, pair=shown)
        except HephaestusError as error:
            if len(targets) == 1:
                raise
            print_notice(str(error))
            failed = True
            continue
        pictured = len(done.page.pictures.pairs) if done.page.pictures else 0
        pages.append(
            {
                "frame": done.page.frame,
                "page": str(done.path),
                "pair": done.page.shown or None,
                "pairs": pictured,
                "bytes": done.size,
                "simulated": done.page.simulated,
            }
        )
        if not as_json:
            what = count_of(pictured, "interferogram") if pictured else "no interferogram yet"
            out.print(f"{done.page.frame}: {what}, {format_bytes(done.size)}, in {done.path}", soft_wrap=True)
    if as_json:
        print_json({"pictures": [], "figures": [], "pages": pages})
    if failed:
        raise typer.Exit(1)


def _draw_figure(
    kind: ReportFigure, cubes: Sequence[Path], folder: Path, pair: Pair | None
) -> list[dict[str, Any]]:
    """Write a figure of the paper, of all cubes or of each one, and return what was drawn."""
    from hephaestus_build.report.scene_figures import encode_scenes, plot_captions, plot_series, plot_types
    from hephaestus_build.report.scenes import (
        SERIES_SHOWN,
        find_caption_scenes,
        find_series_pairs,
        find_type_scenes,
        read_series_scenes,
    )
    from hephaestus_build.report.vapour_gradients import draw_vapour_figure

    drawn: list[dict[str, Any]] = []

    def write(name: str, content: bytes, frames_and_pairs: Iterable[tuple[str, Pair]]) -> None:
        frames, pairs = zip(*frames_and_pairs, strict=True)
        path = folder / f"{name}.png"
        with translate_os_errors(f"figure {path}", setting="--out"):
            write_atomic(path, content)
        drawn.append(
            {
                "figure": str(kind),
                "frames": list(dict.fromkeys(frames)),
                "pairs": [one.name for one in pairs],
                "picture": str(path),
            }
        )

    with ExitStack() as stack:
        opened = [stack.enter_context(open_pinned_cube(path, chunks=None)) for path in cubes]
        if kind in (ReportFigure.TYPES, ReportFigure.CAPTIONS):
            if pair:
                raise UsageError(f"--pair chooses nothing of --figure {kind}")
            with wrap_unexpected_errors(", ".join(path.stem for path in cubes)):
                if kind is ReportFigure.TYPES:
                    types = find_type_scenes(opened)
                    scenes, figure = list(types.values()), plot_types(types)
                else:
                    scenes = find_caption_scenes(opened)
                    figure = plot_captions(scenes)
                write(kind, encode_scenes(figure), [(scene.frame, scene.pair) for scene in scenes])
            return drawn
        for path, cube in zip(cubes, opened, strict=True):
            with wrap_unexpected_errors(path.stem):
                if kind is ReportFigure.SERIES:
                    pairs = find_series_pairs(cube, pair.primary if pair else None)[:SERIES_SHOWN]
                    scenes = read_series_scenes(cube, pairs)
                    name = f"{path.stem}_series_{pairs[0].name[:8]}"
                    write(name, encode_scenes(plot_series(scenes)), [(path.stem, one) for one in pairs])
                else:
                    shown, content = draw_vapour_figure(cube, pair)
                    write(f"{path.stem}_vapour_{shown}", content, [(path.stem, shown)])
    return drawn
