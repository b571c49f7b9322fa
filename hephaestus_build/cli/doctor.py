"""``hephaestus doctor``: what can be wrong around the product."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import out, print_json, print_notice
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, SimulatedOption, complete_frame
from hephaestus_build.core.configuration.settings_reference import find_setting_origins
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.doctor.check import Check
from hephaestus_build.doctor.checkup import check_archives, check_this_machine
from hephaestus_build.doctor.configuration import settings_with_origins
from hephaestus_build.doctor.report_file import write_report_file
from hephaestus_build.simulation.server.embedded import embedded_frames, serve_for_frames

#: The frame that archives are asked for if none is named.
_FRAME = "124D_04854_171313"


def doctor(
    frame: Annotated[
        str | None,
        typer.Argument(
            help=f"With --live: the frame that is asked for, by default {_FRAME}.",
            autocompletion=complete_frame,
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Also ask the archives of the settings for the smallest product of each kind."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a .tar.gz for a bug report; it holds no secrets."),
    ] = None,
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check what can be wrong around the product: installation, data folder, limits, settings, keys, clock.

    One line each, with the next step. Nobody is asked but with --live, which says whether the portal, the CDS
    and ARCO still look as this version expects.

    Exits with 1 when a check failed; warnings are 0.
    """
    if frame is not None and not live:
        raise UsageError("a frame is only asked for with --live")
    checks: list[Check] = []
    settings, problem = _settings_or_defaults(data_dir)
    if problem:
        checks.append(problem)
    options = {"data_dir"} if data_dir is not None else set()
    origins = {} if problem else find_setting_origins(options)
    settings = settings.for_simulated() if simulated else settings
    checks += check_this_machine(settings, origins)
    if live:
        asked = _frame_to_ask(frame, simulated)
        with serve_for_frames(settings, [asked]) as served:
            found = list(check_archives(asked, served))
        known = {check.name for check in found}  # the archives know more of these
        checks = [check for check in checks if check.name not in known] + found
    if report is not None:
        write_report_file(report, checks, settings, settings_with_origins(settings, origins))
    if as_json:
        print_json({"checks": [check.to_json() for check in checks]})
    else:
        _print_checks(checks)
        if report is not None:
            out.print(f"report: {report}")
    failed = [check.name for check in checks if check.verdict == "failed"]
    if failed:
        print_notice(f"{len(failed)} of {count_of(len(checks), 'check')} failed: {', '.join(failed)}")
        raise typer.Exit(1)


def _settings_or_defaults(data_dir: Path | None) -> tuple[Settings, Check | None]:
    """Return the settings, else the defaults and a check that says what is wrong with the given ones."""
    try:
        return load_settings(data_dir=data_dir), None
    except UsageError as error:
        step = "correct it; the checks below go by the defaults"
        settings = Settings.model_construct()
        if data_dir is not None:
            settings = settings.model_copy(update={"data_dir": data_dir})
        return settings, Check("settings", "failed", str(error), step)


def _frame_to_ask(frame: str | None, simulated: bool) -> Frame:
    if frame is not None:
        return frame_named(frame)
    return embedded_frames()[0] if simulated else Frame(_FRAME)


def _print_checks(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        step = f"; {check.next}" if check.next else ""
        out.print(f"{check.verdict:<7}  {check.name:<{width}}  {check.to_json()['detail']}{step}")
