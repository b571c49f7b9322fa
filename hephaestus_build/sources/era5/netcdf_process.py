"""A process that reads netCDF files from outside.

The HDF5 library follows links to other files, takes any amount of memory and, on a damaged or hostile file,
loops for ever or ends the process that it runs in. So it runs in a child process with limits of memory, time
and open files, which sends back plain arrays.
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

_READ_TIMEOUT = 20.0  # for one answer, which takes some milliseconds
_STARTUP_TIMEOUT = 120.0  # for the child to load its libraries: half a second where there is no other work


class NetcdfProcess:
    """A process that reads netCDF, started when it is first needed and again after it has died.

    Use it as a context manager; one thread at a time.

    Parameters
    ----------
    seconds : float
        After which a file counts as one that cannot be read.
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
        """Start the process if there is none: who expects a file soon need not wait for it then."""
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
        """Return what the netCDF file, or the zip of some, holds.

        Raises
        ------
        NetcdfError
            If it cannot be read, or only beyond the bounds.
        OSError
            If no process can be started.
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
        except BaseException:  # half an exchange, at Ctrl-C
            self.close()
            raise
        if isinstance(files, str):
            raise NetcdfError(files)
        return files


class NetcdfTimeoutError(Exception):
    """The process did not answer in time and was ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


def _start_process() -> subprocess.Popen[bytes]:
    """Start the process that reads; what the environment tells the HDF5 library does not reach it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    # "::" stands for no plugins at all; threads of numpy's would only take memory
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", netcdf_reader.__file__],  # -P: the modules beside this one are no libraries
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


@contextmanager
def _kill_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """End the process if what is done with it takes longer.

    Raises
    ------
    NetcdfTimeoutError
        If it was ended.
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
