"""``hephaestus settings``."""

from __future__ import annotations

import typer

from hephaestus_build.core.settings import settings_template


def settings() -> None:
    """Print every setting as a commented YAML file, at its default."""
    typer.echo(settings_template(), nl=False)
