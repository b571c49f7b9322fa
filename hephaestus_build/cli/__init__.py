"""The console script ``hephaestus``: thin commands over the rooms below."""

from __future__ import annotations

import logging
import os
import sys

import typer

from hephaestus_build import __version__
from hephaestus_build.cli import build as build_commands
from hephaestus_build.cli import keep
from hephaestus_build.cli.common import explain
from hephaestus_build.errors import HephaestusError
from hephaestus_build.settings import settings_template

app = typer.Typer(
    name="hephaestus",
    help="From the raw LiCSAR and ERA5 archives to machine-learning cubes of volcanic unrest.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(build_commands.plan)
app.command()(build_commands.build)
for command in (keep.status, keep.watch, keep.verify, keep.repair, keep.gc):
    app.command()(command)


@app.command()
def settings() -> None:
    """Print every setting as a commented YAML file."""
    typer.echo(settings_template(), nl=False)


@app.callback(invoke_without_command=True)
def start(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say more on standard error."),
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """Build, check and use cubes of volcanic unrest."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    for library in ("urllib3", "rasterio", "matplotlib", "asyncio", "PIL", "filelock"):
        logging.getLogger(library).setLevel(logging.WARNING)


def main() -> None:
    """Run the console script: errors that a person can act on are one line on standard error."""
    try:
        app()
    except HephaestusError as error:
        explain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        explain("stopped; the same command goes on from here")
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output went away; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
