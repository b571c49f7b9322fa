"""The console script ``hephaestus``, also ``python -m hephaestus_build``: stoppable from its start."""

from __future__ import annotations

import os

from hephaestus_build.core.machine.environment import discard_unusable_size
from hephaestus_build.core.machine.limits import bound_library_threads
from hephaestus_build.core.stop_signals import run_interruptible


def main() -> None:
    """Run the command line."""
    run_interruptible(_run)


def _run() -> None:
    bound_library_threads()
    discard_unusable_size(os.environ)
    from hephaestus_build.cli import run_command_line  # takes a second where the disk is slow

    run_command_line()


if __name__ == "__main__":
    main()
