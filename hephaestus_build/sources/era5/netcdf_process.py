"""A child process that reads untrusted netCDF files.

On a damaged or hostile file the HDF5 library may follow links to other files, allocate any amount of memory,
loop for ever or crash. It therefore runs in a child process with limits of memory, time and open files, which
returns plain arrays.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import msgspec

from hephaestus_build.sources.era5 import netcdf_reader
from hephaestus_build.sources.era5.netcdf_reader import (
    MAX_NETCDF_BYTES,
    NetcdfError,
    NetcdfFile,
    receive_message,
    send_message,
)

_READ_TIMEOUT = 20.0  # seconds to read one file, which usually takes milliseconds
_STARTUP_TIMEOUT = 120.0  # seconds for the child to load its libraries; half a second on an idle machine


class NetcdfProcess:
    """A process that reads netCDF, started on first use and restarted after a failure.

    Use it as a context manager, from one thread at a time.

    Parameters
    ----------
    seconds : float
        Time limit for reading one file.
    """

    def __init__(self, seconds: float = _READ_TIMEOUT) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process if it is not running; call it early to hide the startup time."""
        if self._process is None:
            self._process = _start_process()
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process, self._ready = None, False

    def read(self, content: bytes) -> list[NetcdfFile]:
        """Read a netCDF file, or a zip of several.

        Raises
        ------
        NetcdfError
            If the content cannot be read or exceeds a limit.
        OSError
            If the process cannot be started.
        """
        if len(content) > MAX_NETCDF_BYTES:
            raise NetcdfError(f"it is larger than {MAX_NETCDF_BYTES >> 20} MB")
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not self._ready:
                with _kill_after(process, _STARTUP_TIMEOUT):
                    receive_message(process.stdout, 0)
                self._ready = True
            with _kill_after(process, self._seconds):
                send_message(process.stdin, content)
                reply = receive_message(
                    process.stdout, 4 * MAX_NETCDF_BYTES
                )  # the child reads less than that
            files = msgspec.msgpack.decode(reply, type=list[NetcdfFile] | str)
        except (OSError, ValueError, EOFError, msgspec.MsgspecError):
            self.close()
            raise NetcdfError("it is netCDF that cannot be read: the library fails on it") from None
        except NetcdfTimeoutError as error:
            self.close()
            raise NetcdfError(f"it is netCDF that cannot be read in {error.seconds:g} s") from None
        except BaseException:  # such as Ctrl-C in the middle of an exchange: the process is out of step
            self.close()
            raise
        if isinstance(files, str):
            raise NetcdfError(files)
        return files


class NetcdfTimeoutError(Exception):
    """The process did not answer in time and was killed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


def _start_process() -> subprocess.Popen[bytes]:
    """Start the child process, without the environment variables that configure the HDF5 library."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    # "::" disables HDF5 plugins; numpy's threads would only take memory
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", netcdf_reader.__file__],  # -P keeps this package's folder off sys.path
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


@contextmanager
def _kill_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Kill the process if the body of the with statement takes longer than `seconds`.

    Raises
    ------
    NetcdfTimeoutError
        If the process was killed.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    watch = threading.Timer(seconds, end)
    watch.daemon = True
    watch.start()
    try:
        yield
    except (OSError, ValueError, EOFError):
        if late.is_set():
            raise NetcdfTimeoutError(seconds) from None
        raise
    finally:
        watch.cancel()
