"""``hephaestus archive``: the simulated archive, for this project's commands and anyone's own client."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hephaestus_build.cli.console import err, out, print_json, print_table
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import count_of

if TYPE_CHECKING:
    from hephaestus_build.simulation.server.archive_state import SimulatedArchive

app = typer.Typer(
    help="A simulated LiCSAR portal, CDS, ARCO-ERA5 store and annotation archive, on this machine alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

SeedOption = Annotated[int, typer.Option(help="Another seed is another world.")]
SizeOption = Annotated[
    str, typer.Option(help="small, real (2500 x 3000 pixels), or rows and columns as 600x700.")
]
EpochsOption = Annotated[int, typer.Option(min=2, help="Acquisitions of each frame.")]
StartOption = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="First day of a series every 12 days; default: three campaigns."),
]
FrameOption = Annotated[list[str] | None, typer.Option("--frame", help="Only this frame; may be repeated.")]
LayoutOption = Annotated[
    str, typer.Option("--layout", help="directories (the portal until 2025) or links (since).")
]
OddityOption = Annotated[
    list[str] | None,
    typer.Option("--oddity", help="Only these oddities; `hephaestus archive list` names them. none: none."),
]


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    seed: SeedOption = 0,
    size: SizeOption = "small",
    epochs: EpochsOption = 14,
    start: StartOption = None,
    frames: FrameOption = None,
    layout: LayoutOption = "directories",
    oddity: OddityOption = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keep made files here; default: a temporary folder.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="NAME[=PATTERN]",
            help="Play a fault, where paths match the regular expression; `hephaestus archive list` names "
            "them. May be repeated; the first that matches is played.",
        ),
    ] = None,
) -> None:
    """Serve the simulated archive on 127.0.0.1 until interrupted, and print the settings that point at it."""
    from hephaestus_build.simulation.server.archive_server import ArchiveServer
    from hephaestus_build.simulation.server.named_faults import named_fault

    played = [named_fault(text) for text in fault or ()]
    archive = _make_archive(seed, size, epochs, start, frames, layout, oddity, cache)
    try:
        server = ArchiveServer(archive, port=port)
    except OSError as error:
        archive.close()
        raise HephaestusError(
            f"port {port} cannot be served ({error.strerror}); choose another with --port (0: a free one)"
        ) from None
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # where this is not run by the console script
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary files go then too
    for pattern, behaviour in played:
        server.faults.add(pattern, behaviour)
    try:
        with server:
            for name, value in server.environment().items():
                typer.echo(f"export {name}={shlex.quote(value)}")
            err.print(f"Serving simulated frames {', '.join(archive.world.frames)}. Ctrl-C stops it.")
            sys.stdout.flush()
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:  # the console script says so
        pass
    finally:
        archive.close()


@app.command("write")
def write_archive(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    base: Annotated[
        str, typer.Option(help="Address at which the folder will be served; only links hold it.")
    ] = "http://127.0.0.1:8000",
    unwrapped: Annotated[bool, typer.Option(help="Write the unwrapped phase too.")] = False,
    seed: SeedOption = 0,
    size: SizeOption = "small",
    epochs: EpochsOption = 14,
    start: StartOption = None,
    frames: FrameOption = None,
    layout: LayoutOption = "directories",
    oddity: OddityOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write the simulated portal and annotations as files, for any static web server."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from hephaestus_build.simulation.server.static_export import write_static_archive

    archive = _make_archive(seed, size, epochs, start, frames, layout, oddity, None)
    try:
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), console=err, transient=True
        ) as progress:
            task = progress.add_task("writing")
            count = write_static_archive(
                archive,
                folder,
                base=base,
                unwrapped=unwrapped,
                report=lambda text: progress.update(task, description=text),
            )
    except OSError as error:
        raise HephaestusError(
            f"{folder} cannot be written ({error.strerror}); free some space or choose another folder"
        ) from None
    finally:
        archive.close()
    if as_json:
        print_json({"path": str(folder), "written": count, "simulated": True})
    else:
        out.print(f"{count_of(count, 'simulated file')} in {folder}")


@app.command("list")
def list_frames(
    as_json: bool = JSON_OPTION,
    seed: SeedOption = 0,
    size: SizeOption = "small",
    epochs: EpochsOption = 14,
    start: StartOption = None,
    frames: FrameOption = None,
) -> None:
    """List the simulated frames, what is odd about each, and the faults that `serve` can play."""
    from hephaestus_build.simulation.server.named_faults import NAMED_FAULTS
    from hephaestus_build.simulation.world.frame_catalog import FAULTY_ODDITIES, ODDITIES

    archive = _make_archive(seed, size, epochs, start, frames, "directories", None, None)
    world = archive.world
    archive.close()
    rows: list[dict[str, Any]] = []
    for name in world.frames:
        scene, frame_store = world.scene(name), world.frame_files(name)
        rows.append(
            {
                "frame": name,
                "simulated": True,
                "shape": scene.grid.shape,
                "pixel_deg": (scene.grid.dx, scene.grid.dy),
                "center_time": f"{scene.spec.center_time}Z",
                "epochs": len(scene.epochs),
                "pairs": len(scene.pairs),
                "first": f"{scene.epochs[0]}",
                "last": f"{scene.epochs[-1]}",
                "previews": scene.spec.preview_era,
                "sources": [source.activity for source in scene.spec.sources],
                "oddities": [
                    {"oddity": oddity, "pair": frame_store.pair_with_oddity(oddity)}
                    for oddity in sorted(frame_store.oddities)
                ],
            }
        )
    if as_json:
        described = {name: item.description for name, item in NAMED_FAULTS.items()}
        oddities = {"oddities": ODDITIES, "faulty_oddities": FAULTY_ODDITIES}
        print_json({"frames": rows, **oddities, "faults": described})
        return
    columns = ("frame", "rows", "columns", "pixel", "epochs", "pairs", "first", "last", "previews", "sources")
    cells = [
        [
            row["frame"],
            *row["shape"],
            row["pixel_deg"][0],
            *(row[name] for name in columns[4:-1]),
            ", ".join(row["sources"]),
        ]
        for row in rows
    ]
    numbers = ("rows", "columns", "pixel", "epochs", "pairs")
    print_table(columns, cells, numbers=numbers, folded=("sources",))
    for oddity, meaning in {**ODDITIES, **FAULTY_ODDITIES}.items():
        where = [name for name in world.frames if oddity in world.frame_files(name).oddities]
        out.print(f"{oddity}: {meaning} ({', '.join(where) or 'on request'})")
    out.print()
    faults = [(name, f"the server {item.description}") for name, item in NAMED_FAULTS.items()]
    print_table(("serve --fault", "what it does"), faults, folded=("what it does",))


def _make_archive(
    seed: int,
    size: str,
    epochs: int,
    start: datetime | None,
    frames: list[str] | None,
    layout: str,
    oddity: list[str] | None,
    cache: Path | None,
) -> SimulatedArchive:
    from hephaestus_build.simulation.server.archive_state import SimulatedArchive

    rows, _, columns = size.partition("x")
    shape: str | tuple[int, int] = size
    if rows.isdigit() and columns.isdigit():
        shape = (int(rows), int(columns))
    if layout not in ("directories", "links"):
        raise UsageError(f"no such layout: {layout}; there are directories and links")
    return SimulatedArchive(
        seed=seed,
        size=shape,
        epochs=epochs,
        start=None if start is None else start.date(),
        frames=frames,
        oddities=None if not oddity else [name for name in oddity if name != "none"],
        layout="links" if layout == "links" else "directories",
        cache=cache,
    )
