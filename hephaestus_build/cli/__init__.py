"""The console script ``hephaestus``: one module per command.

A command is imported only when it is called, so that it does not wait for the imports of the others.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import CompletionItem, TyperGroup  # type: ignore[attr-defined]
from typer.main import get_command

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.extras import find_plugins, install_hint
from hephaestus_build.core.machine.streams import discard_unprinted
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.stop_signals import StoppedError, run_interruptible

#: Entry points by which installed packages add commands. Each refers to a module as those of :data:`COMMANDS`
#: do, or to the function or Typer application itself.
COMMAND_GROUP = "hephaestus_build.commands"
#: Every command: the module that holds it (as a function of its name, or as a group named ``app``; None where
#: another package provides it in :data:`COMMAND_GROUP`), and what it is for.
COMMANDS: dict[str, tuple[str | None, str]] = {
    "doctor": ("hephaestus_build.cli.doctor", "Check what can be wrong around the product."),
    "frames": ("hephaestus_build.cli.frames", "Find a frame by volcano, place, point or box."),
    "plan": ("hephaestus_build.cli.plan", "Say what a build will fetch, skip, take and cost."),
    "build": ("hephaestus_build.cli.build", "Build or extend the cubes of frames, and publish them."),
    "pairs": ("hephaestus_build.cli.pairs", "List the pairs of a frame, and what became of each."),
    "status": ("hephaestus_build.cli.status", "Show how all cubes stand, and what is owed or stale."),
    "watch": ("hephaestus_build.cli.watch", "Keep cubes up to date, round after round."),
    "apply": ("hephaestus_build.cli.apply", "Do the jobs of a YAML file: build once, or schedule."),
    "verify": ("hephaestus_build.cli.verify", "Compare every stored object with what was published."),
    "repair": ("hephaestus_build.cli.repair", "Rebuild exactly what is damaged."),
    "gc": ("hephaestus_build.cli.gc", "Remove old generations."),
    "migrate": ("hephaestus_build.cli.migrate", "Bring cubes of earlier versions over to this one."),
    "inspect": ("hephaestus_build.cli.inspect", "Say what is in a cube, and check it against the schema."),
    "import": ("hephaestus_build.cli.import_", "Make cubes of published ones, and go on from them."),
    "compare": ("hephaestus_build.cli.compare", "Say how two cubes of one frame differ."),
    "report": ("hephaestus_build.cli.report", "Draw pictures of cubes, or write pages of frames."),
    "show": ("hephaestus_build.cli.show", "Open the page of a frame in a browser."),
    "timeseries": ("hephaestus_build.cli.timeseries", "Show wrapped phase and coherence at a point."),
    "catalog": ("hephaestus_build.cli.catalog", "Write STAC, a table of pairs, Croissant and a data card."),
    "site": ("hephaestus_build.cli.site", "Write a web site of all cubes."),
    "export": ("hephaestus_build.cli.export", "Write a cube for QGIS, LiCSBAS, MintPy and others."),
    "annotations": ("hephaestus_build.cli.annotations", "What the experts wrote, and its defects."),
    "splits": ("hephaestus_build.cli.splits", "Samples, splits and what leaks between them."),
    "statistics": ("hephaestus_build.cli.statistics", "Means and deviations of the training samples."),
    "benchmark": (None, "Train and score models on the cubes, and predict."),
    "archive": ("hephaestus_build.cli.archive", "Serve the simulated archive to any client."),
    "settings": ("hephaestus_build.cli.settings", "Print every setting as a commented YAML file."),
}


class _LazyCommandGroup(TyperGroup):
    """The commands of :data:`COMMANDS`, then those of other packages; each is loaded when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # only the names are used, to suggest one for a mistyped command; get_command loads each
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def invoke(self, ctx: Any) -> Any:
        from hephaestus_build.cli.next_commands import carry_data_options

        carry_data_options({})  # those of a command before in the same process are gone
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # Typer would end without a message
            raise StoppedError from None
        except Exception as error:
            raise _reword(error) from None

    def make_context(self, *words: Any, **options: Any) -> Any:
        try:
            return super().make_context(*words, **options)
        except Exception as error:
            raise _reword(error) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, words = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            from hephaestus_build.cli.degrees import require_one_word

            _require_content(words)
            require_one_word(command.params, words)
        return name, command, words

    def list_commands(self, ctx: Any) -> list[str]:
        return list(describe_commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        loaded = load_command(cmd_name)
        if loaded is None:
            self.commands = dict.fromkeys(describe_commands())  # type: ignore[assignment]
            return None
        from hephaestus_build.cli.console import resolve_local_paths

        if isinstance(loaded, typer.Typer):
            group = loaded
        else:
            group = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            group.command(cmd_name)(loaded)
        for known in group.registered_commands:
            if known.callback is not None:
                known.callback = resolve_local_paths(known.callback)
        command = get_command(group)
        command.name = cmd_name
        for leaf in getattr(command, "commands", {"": command}).values():
            taken = {text for known in leaf.params for text in known.opts}
            leaf.params += [option for option in _log_options() if taken.isdisjoint(option.opts)]
            # a group's help would cut it off
            leaf.short_help = leaf.short_help or _first_sentence(leaf.help or "")
        return command

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=what)
            for name, what in describe_commands().items()
            if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(describe_commands().items()))


def _require_content(words: Sequence[str]) -> None:
    """Raise UsageError if a word is empty: an empty path would mean the current folder."""
    for place, word in enumerate(words):
        option, given, value = word.partition("=")
        if word and (value or not given or not option.startswith("--")):
            continue
        before = option or (words[place - 1] if place and words[place - 1].startswith("-") else "")
        what = f"{before} has an empty value" if before else "an argument is empty"
        raise UsageError(f"{what}, as a shell variable that is not set leaves it; give it, or leave it out")


def _reword(error: Exception) -> Exception:
    """Return a wrong usage in plain words: as Typer prints it, or as our own error where JSON is wanted."""
    said = getattr(error, "format_message", None)  # of what Typer prints
    if said is None and not isinstance(error, UsageError):
        return error
    if isinstance(message := getattr(error, "message", None), str):
        error.message = message.removeprefix("Value error, ")  # type: ignore[attr-defined]  # pydantic's
    if not re.search(r"(^| )--log-format[ =]json( |$)", " ".join(sys.argv[1:])):
        return error
    _set_log_format(LogFormat.JSON)  # the option may not have been read yet
    return error if said is None else UsageError(said())


def describe_commands() -> dict[str, str]:
    """Return what each command is for, by name, without loading any."""
    return {name: what for name, (_, what) in COMMANDS.items()} | {
        sanitize_text(name, 40): f"A command of the package {plugin.distribution}."
        for name, plugin in find_plugins(COMMAND_GROUP).items()
        if name not in COMMANDS
    }


def load_command(name: str) -> typer.Typer | Callable[..., Any] | None:
    """Import a command, a function or a Typer application; None where there is no such command.

    Raises
    ------
    HephaestusError
        If the package that provides the command is not installed, or cannot be imported.
    """
    place, _ = COMMANDS.get(name, (None, ""))
    if place is not None:
        return _command_of_module(import_module(place), name)
    plugin = find_plugins(COMMAND_GROUP).get(name)
    if plugin is None:
        if name in COMMANDS:
            raise HephaestusError(
                f"no installed package provides the command {name}; {install_hint('baselines')}"
            )
        return None
    found = plugin.load()
    command = _command_of_module(found, name) if isinstance(found, ModuleType) else found
    if not callable(command):
        raise plugin.make_error("is neither a function nor a Typer application")
    return command


def _first_sentence(text: str) -> str:
    """Return the first sentence of a command's help, on one line."""
    return re.split(r"(?<=\.)\s|\n\n", text.strip(), maxsplit=1)[0].replace("\n", " ")


def _command_of_module(module: ModuleType, name: str) -> Any:
    # a function cannot be named as a keyword of Python is
    own = f"{name}_" if iskeyword(name) else name
    return getattr(module, "app", None) or getattr(module, own, None)


_VERBOSE_HELP = "Say on standard error what is fetched, encoded and published, with times."
_LOG_FILE_HELP = "Append that, and all that is said on standard error, to this file."
_LOG_FORMAT_HELP = "Lines on standard error and in the log file: text, or json for one object a line."


class LogFormat(StrEnum):
    """Forms of the lines on standard error and in the log file."""

    TEXT = "text"
    JSON = "json"


def _set_log_format(form: LogFormat) -> None:
    if form is LogFormat.JSON:
        from hephaestus_build.core.terminal import configure_logging, log_as_json

        configure_logging()
        log_as_json()


def _show_steps(verbose: bool) -> None:
    if verbose:
        from hephaestus_build.core.terminal import log_steps

        log_steps()


def _open_log_file(path: str | None) -> None:
    if path is None:
        return
    from hephaestus_build import __version__
    from hephaestus_build.core.machine.user_paths import local_path
    from hephaestus_build.core.terminal import SPOKEN, log_to_file

    log_to_file(Path(str(local_path("--log-file", path))))
    SPOKEN.info("hephaestus %s: %s", __version__, shlex.join(sys.argv[1:]))


def _log_options() -> list[Any]:
    """Return the options that may stand before a command or after it."""
    group = typer.Typer(add_completion=False, rich_markup_mode=None)

    @group.command()
    def command(
        verbose: bool = typer.Option(False, "--verbose", "-v", callback=_show_steps, help=_VERBOSE_HELP),
        log_file: str | None = typer.Option(
            None, "--log-file", metavar="FILE", callback=_open_log_file, help=_LOG_FILE_HELP
        ),
        log_format: Annotated[
            LogFormat,
            typer.Option("--log-format", callback=_set_log_format, is_eager=True, help=_LOG_FORMAT_HELP),
        ] = LogFormat.TEXT,
    ) -> None: ...

    options = get_command(group).params
    for option in options:
        option.expose_value = False
    return options


app = typer.Typer(
    name="hephaestus",
    cls=_LazyCommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def configure_app(
    verbose: bool = typer.Option(False, "--verbose", "-v", help=_VERBOSE_HELP),
    log_file: str | None = typer.Option(None, metavar="FILE", help=_LOG_FILE_HELP),
    log_format: Annotated[LogFormat, typer.Option(help=_LOG_FORMAT_HELP)] = LogFormat.TEXT,
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """From the raw LiCSAR and ERA5 archives to machine-learning cubes of volcanic unrest."""
    if version:
        from hephaestus_build import __version__

        typer.echo(__version__)
        raise typer.Exit
    from hephaestus_build.core.terminal import configure_logging

    configure_logging()
    _set_log_format(log_format)
    _show_steps(verbose)
    _open_log_file(log_file)


def run_console_script() -> None:
    """Run the console script; 130 when Ctrl-C stops it, 143 when SIGTERM does."""
    run_interruptible(run_command_line)


def run_command_line() -> None:
    """Run the command line; errors of this package are printed as one line on standard error.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 published but something is owed.
    """
    try:
        app()
    except HephaestusError as error:
        _exit_with_error(str(error), error.exit_code)
    except BrokenPipeError:
        # the reader of standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _exit_with_error(
            f"{error.strerror or error}{where}: check the disk, then run the same command again", 1
        )
    except StoppedError:
        raise
    except Exception:
        from hephaestus_build.core.terminal import SPOKEN, is_log_json

        if not is_log_json():
            raise
        SPOKEN.critical("an error of this program", exc_info=True)
        sys.exit(1)


def _exit_with_error(message: str, code: int) -> None:
    _print_and_flush(message)
    sys.exit(code)


def _print_and_flush(message: str) -> None:
    from hephaestus_build.cli.console import print_notice

    print_notice(message, logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        discard_unprinted(stream)
