"""Reading processes of netCDF that stay alive between the tests of one process.

A build starts such a process for each frame and ends it when it has the answers. Starting one takes as much
time as all the rest of a small build, so tests hand a process that is in step on to the next build.
"""

from __future__ import annotations

import atexit
import subprocess
import threading

import pytest

from hephaestus_build.sources.era5.netcdf_process import NetcdfProcess

_start, _exit = NetcdfProcess.start, NetcdfProcess.__exit__


class NetcdfPool:
    """Processes that no reader uses, and whether each has said that it is ready."""

    def __init__(self) -> None:
        self._idle: list[tuple[subprocess.Popen[bytes], bool]] = []
        self._lock = threading.Lock()

    def start(self, reader: NetcdfProcess) -> subprocess.Popen[bytes]:
        """Give a reader an idle process, or start one."""
        with self._lock:
            while reader._process is None and self._idle:
                process, ready = self._idle.pop()
                if process.poll() is None:
                    reader._process, reader._ready = process, ready
                else:
                    process.communicate()
        return _start(reader)

    def take_back(self, reader: NetcdfProcess) -> None:
        """Keep a reader's process. A process that is out of step was ended by the reader before."""
        with self._lock:
            if reader._process is not None and reader._process.poll() is None:
                self._idle.append((reader._process, reader._ready))
                reader._process, reader._ready = None, False
        _exit(reader, None, None, None)

    def close(self) -> None:
        """End the idle processes."""
        for process, _ in self._idle:
            process.kill()
            process.communicate()
        self._idle.clear()


POOL = NetcdfPool()
atexit.register(POOL.close)


def keep_netcdf_processes(patch: pytest.MonkeyPatch) -> None:
    """Let all readers take their processes from the pool and give them back, until `patch` is undone."""
    patch.setattr(NetcdfProcess, "start", lambda reader: POOL.start(reader))
    patch.setattr(NetcdfProcess, "__exit__", lambda reader, *error: POOL.take_back(reader))
