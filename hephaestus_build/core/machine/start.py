"""What a process of this package does first, before it imports libraries that read the environment."""

from __future__ import annotations

import os

from hephaestus_build.core.machine.environment import discard_unusable_size
from hephaestus_build.core.machine.home import provide_user
from hephaestus_build.core.machine.limits import bound_library_threads
from hephaestus_build.core.machine.streams import accept_any_text, open_standard_streams


def prepare_process() -> None:
    """Prepare a process whose main function is this package's: its streams and its environment."""
    open_standard_streams()
    accept_any_text()
    prepare_environment()


def prepare_environment() -> None:
    """Adapt the environment to the machine or container: threads, size of the terminal, user."""
    bound_library_threads()
    discard_unusable_size(os.environ)
    provide_user()
