"""The console script ``hephaestus``, also ``python -m hephaestus_build``: stoppable from its start."""

from __future__ import annotations

from hephaestus_build.core.machine.start import prepare_process
from hephaestus_build.core.stop_signals import run_interruptible


def main() -> None:
    """Run the command line."""
    run_interruptible(_run)


def _run() -> None:
    prepare_process()
    from hephaestus_build.cli import run_command_line  # takes a second where the disk is slow

    run_command_line()


if __name__ == "__main__":
    main()
