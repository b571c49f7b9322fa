"""Runs a task of a measurement in the process of the tests."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest

from hephaestus_build.performance.process_timer import Measurement, TaskTimer, peak_memory


def run_here(task: str, environment: Any = None, **arguments: Any) -> Measurement:
    """Run a task in this process: imports take most of the time of a process for tiny rasters."""
    module, _, function = task.partition(":")
    clock = TaskTimer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        arguments = json.loads(json.dumps(arguments))
        facts = getattr(import_module(module), function)(clock, **arguments)
    return Measurement(clock.seconds, clock.cpu, peak_memory(), clock.elsewhere, facts)
