"""Handling of Ctrl-C and SIGTERM in the console script: exit within bounded time, with a one-line message.

The first signal raises KeyboardInterrupt in the main thread, so that temporary files are removed and the
terminal is restored. That can take long if the main thread is inside a library call, or waits for a thread
that waits for an archive. Python also drops it where it was raised in a callback, such as one of the garbage
collector; it is then sent again. A second thread therefore reads the same signals from a pipe
(:func:`signal.set_wakeup_fd`) and ends the process after :data:`GRACE_SECONDS` seconds, or immediately at the
second signal. Files on disk are safe in both cases: a command may be killed at any point, and its lock is
released with its process.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

#: Time that a command may take to clean up, seconds.
GRACE_SECONDS = 5.0
# Log of what is said on standard error; the log file and, with `--log-format json`, standard error have it.
_SPOKEN = logging.getLogger("hephaestus")
# Time that the logs may take, seconds.
_LOG_SECONDS = 1.0
# Time from an interrupt that Python dropped to the next, seconds, and how often it is sent again.
_AGAIN_SECONDS, _MOST_AGAIN = 0.05, 20
_STOP_MESSAGES = {
    signal.SIGINT: "stopped; the same command goes on from here",
    signal.SIGTERM: "stopped by SIGTERM; the same command goes on from here",
}


class StoppedError(Exception):
    """Raised in place of KeyboardInterrupt where a library would handle the latter itself."""


def run_interruptible(work: Callable[[], None]) -> None:
    """Run the main function of a process, which exits with 130 at Ctrl-C and with 143 at SIGTERM."""
    stopping = StopSignalHandler()
    try:
        with stopping:
            try:
                work()
            finally:
                if stopping.caught_signal is not None:  # a library may have swallowed the interrupt
                    stopping.exit_process()
    except (StoppedError, KeyboardInterrupt):
        stopping.exit_process()


class StopSignalHandler:
    """Context manager that handles SIGINT and SIGTERM; without effect outside the main thread.

    Ignored signals stay ignored, since shells start background jobs that way.

    Attributes
    ----------
    caught_signal : int or None
        The first of these signals that was received.
    """

    def __init__(self) -> None:
        self.caught_signal: int | None = None
        self._before: dict[int, Any] = {}
        self._over = False
        self._again = 0  # interrupts that were sent again
        self._is_dropped = False
        self._said = threading.Lock()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _STOP_MESSAGES:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._interrupt)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._drop
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup)
            sys.unraisablehook = self._unraisable
            for number, handler in self._before.items():
                signal.signal(number, handler)
            os.close(self._writer)  # ends the thread

    def exit_process(self, number: int | None = None) -> NoReturn:
        """Print that the command was stopped, and end the process regardless of its threads.

        Parameters
        ----------
        number : int, optional
            The signal; by default, the one that was caught, or SIGINT.
        """
        number = number or self.caught_signal or signal.SIGINT
        tidied = threading.current_thread() is threading.main_thread()
        if tidied:
            for handled in self._before:
                signal.signal(handled, signal.SIG_IGN)  # the process is already ending
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
        if self._said.acquire(blocking=False):
            message = _STOP_MESSAGES[signal.Signals(number)]
            if not any(getattr(handler, "as_json", False) for handler in _SPOKEN.handlers):
                with suppress(OSError):
                    # progress bars hide the cursor until they end
                    restored = "\x1b[?25h\r\x1b[K" if not tidied and os.isatty(2) else ""
                    os.write(2, f"{restored}hephaestus: {message}\n".encode())
            _write_to_logs(message)
        _kill_worker_processes()
        os._exit(128 + number)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt in the main thread; :meth:`_watch` counts signals in its own thread."""
        if (self.caught_signal is None or self._is_dropped) and not self._over:
            self.caught_signal, self._is_dropped = self.caught_signal or number, False
            raise KeyboardInterrupt

    def _drop(self, dropped: Any) -> None:
        """Send an interrupt again that Python drops; what else it drops is reported as before."""
        if dropped.exc_type is not KeyboardInterrupt or self._over or self._again == _MOST_AGAIN:
            self._unraisable(dropped)
            return
        self._again, self._is_dropped = self._again + 1, True
        # from another thread, after the callback has returned
        timer = threading.Timer(_AGAIN_SECONDS, self._send_again)
        timer.daemon = True
        timer.start()

    def _send_again(self) -> None:
        main = threading.main_thread().ident
        if main is not None and not self._over:
            signal.pthread_kill(main, self.caught_signal or signal.SIGINT)

    def _watch(self) -> None:
        with open(self._reader, "rb", buffering=0) as pipe:  # noqa: PTH123 (no path)
            deadline: float | None = None
            first = sent_again = 0
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not select.select([pipe], [], [], left)[0]:
                    self.exit_process(first)
                content = pipe.read(1)
                if not content:
                    return  # the block has ended
                if content[0] in self._before:
                    if sent_again < self._again:
                        sent_again += 1
                        continue
                    if deadline is not None:
                        self.exit_process(first)
                    first, deadline = content[0], time.monotonic() + GRACE_SECONDS


def _write_to_logs(message: str) -> None:
    """Add the message to the logs, if there are some; a thread that holds their locks is not waited for."""
    writer = threading.Thread(target=_SPOKEN.info, args=(message,), daemon=True)
    writer.start()
    writer.join(_LOG_SECONDS)


def _kill_worker_processes() -> None:
    """Kill data loader processes, which would otherwise outlive this process by seconds.

    Other children, such as those of `benchmark run --at-a-time`, stop by themselves with their workers.
    """
    if "multiprocessing.process" in sys.modules:
        from multiprocessing import active_children

        for child in active_children():
            if child.daemon:
                child.kill()
