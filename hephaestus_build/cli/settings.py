"""``hephaestus settings``."""

from __future__ import annotations

import typer

from hephaestus_build.cli.console import print_json
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.configuration.settings_reference import describe_settings, settings_template


def settings(as_json: bool = JSON_OPTION) -> None:
    """Print every setting as a commented YAML file, at its default."""
    if as_json:
        print_json({"settings": describe_settings()})
    else:
        typer.echo(settings_template(), nl=False)
