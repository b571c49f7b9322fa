"""Readers of other projects: imported, found or skipped, and in continuous integration never skipped.

The variable ``TEST_READERS`` is ``present`` in ``make test-readers``: readers that are missing are skipped,
and what Node needs is fetched from the npm registry. It is ``all`` in ``.ci/run``: a missing reader is a
failure. Without it nothing is fetched.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import pytest

MODE = os.environ.get("TEST_READERS", "")


def report_missing(reason: str) -> NoReturn:
    """Skip the test, or let it fail where no reader may be missing."""
    if MODE == "all":
        pytest.fail(reason)
    pytest.skip(reason)


def import_reader(name: str) -> ModuleType:
    """Return a module of a reader."""
    try:
        return import_module(name)
    except ImportError as error:
        report_missing(f"{name} is not installed ({error}): `make test-readers` installs it")


def require_python(*version: int) -> None:
    """Skip the test on an older Python, for which the reader has no version that can: in any mode."""
    if sys.version_info < version:
        pytest.skip(f"on Python before {'.'.join(map(str, version))} the reader is too old (docs/readers.md)")


def find_program(*names: str) -> str:
    """Return the path of the first of some programs that is installed."""
    for name in names:
        if found := shutil.which(name):
            return found
    report_missing(f"{names[0]} is not installed (Debian: apt-get install {names[0]})")


def require_downloads() -> None:
    """Skip a test that fetches packages, unless the readers were asked for."""
    if not MODE:
        pytest.skip("fetches zarrita from the npm registry: `make test-readers` runs it")
