"""Every setting with its default and description, and where its value comes from."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from hephaestus_build.core.settings import (
    ENV_PREFIX,
    SETTINGS_FILE_VARIABLE,
    SettingOrigin,
    Settings,
    read_settings_file,
)


def describe_settings() -> list[dict[str, Any]]:
    """Return every setting as JSON values: its name, variable, default, examples and description."""
    return [
        {
            "name": name,
            "variable": f"{ENV_PREFIX}{name.upper()}",
            "default": _plain_default(field),
            "examples": [str(example) for example in field.examples or ()],
            "description": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _plain_default(field: FieldInfo) -> Any:
    default = field.get_default()
    if isinstance(default, Path):
        return str(default)
    return list(default) if isinstance(default, tuple) else default


def find_setting_origins(options: Collection[str] = ()) -> dict[str, SettingOrigin]:
    """Return where the value of each setting comes from.

    Parameters
    ----------
    options : collection of str
        Settings that options of the command have set.

    Raises
    ------
    UsageError
        If the settings file cannot be read.
    """
    path = os.environ.get(SETTINGS_FILE_VARIABLE)
    in_file = read_settings_file(path).keys() if path else {}.keys()
    variables = {name.upper() for name in os.environ}
    origins: dict[str, SettingOrigin] = {}
    for name in Settings.model_fields:
        in_environment = ENV_PREFIX + name.upper() in variables
        given: SettingOrigin = "environment" if in_environment else "file" if name in in_file else "default"
        origins[name] = "option" if name in options else given
    return origins


def settings_template() -> str:
    """Return a YAML file of all settings with their defaults and descriptions, commented out."""
    lines = [f"# Settings of hephaestus-build. Use: export {SETTINGS_FILE_VARIABLE}=<this file>"]
    for name, field in Settings.model_fields.items():
        lines += ["", *(f"# {line}" for line in textwrap.wrap(field.description or "", 96))]
        value = yaml.safe_dump(_plain_default(field)).removesuffix("...\n").strip()
        lines += [f"# Example: {name}: {example}" for example in field.examples or ()]
        lines.append(f"# {name}: {value}")
    return "\n".join(lines) + "\n"
