"""Fuzzing of readers of external data: limits on memory and time, and mutated files.

A reader is any function of one path, named ``module:function``. It runs in a child process, so that a crash,
an endless loop or unbounded memory fails one test instead of the whole run::

    def test_no_mutated_table_escapes(tmp_path):
        with Reader("hephaestus_build.tables:read_table") as reader:
            fuzz(reader, [good_table_bytes()], tmp_path)

A reader passes on a file if it returns or raises a permitted exception (ValueError by default). Another
exception, a warning, printed output, exceeding the limits of memory or time, and a dead process each give an
AssertionError that names the file, which is kept.

The environment variable ``FUZZ_SECONDS`` sets the budget of each call of :func:`fuzz`, in seconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

#: Duration of :func:`fuzz` in seconds; short by default, for everyday test runs.
SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
_START = 120.0  # seconds allowed for a child to import its libraries on a busy machine


class Reader:
    """Function of one path that runs in a child process with limits.

    Parameters
    ----------
    name : str
        ``module:function``; modules of the tests' folder are found too.
    errors : sequence of str
        Permitted exceptions, each as ``module:class``.
    memory : int
        Bytes of memory allowed beyond what the imported libraries use (Linux only).
    seconds : float
        Time allowed per file.
    environment : mapping, optional
        Environment variables of the child, in addition to those of this process.
    """

    def __init__(
        self,
        name: str,
        *,
        errors: Sequence[str] = ("builtins:ValueError",),
        memory: int = 512 << 20,
        seconds: float = 30.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name, self.errors, self.memory, self.seconds = name, list(errors), memory, seconds
        self._environment = environment or {}
        self._child: subprocess.Popen[bytes] | None = None
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._printed.close()

    def __call__(self, path: Path) -> str:
        """Read `path` and return "read" or "refused: <message>".

        Raises
        ------
        AssertionError
            For any other outcome.
        """
        child = self._child or self._begin()
        assert child.stdin is not None
        with suppress(BrokenPipeError):  # the child is dead, which is reported below
            child.stdin.write(os.fsencode(path) + b"\n")
            child.stdin.flush()
        answer = self._answer(self.seconds)
        self._printed.seek(0)
        if printed := self._printed.read().decode(errors="replace").strip():
            self._printed.seek(0)
            self._printed.truncate()
        if answer is None:
            code = child.poll()
            self._end()
            told = f"died ({code})" if code is not None else f"took more than {self.seconds:g} s"
            raise AssertionError(f"{self.name} {told} on {path} {printed[-2000:]}")
        if answer["kind"] == "escaped":
            raise AssertionError(f"{self.name} on {path}: {answer['text']}")
        if printed:
            raise AssertionError(f"{self.name} printed on {path}: {printed[-2000:]}")
        return answer["kind"] if answer["kind"] == "read" else f"refused: {answer['text']}"

    def _begin(self) -> subprocess.Popen[bytes]:
        # threads of numpy's libraries and malloc arenas reserve address space without using it
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        # the child runs this module by name, with `python -m`
        self._child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "fuzzing", self.name, str(self.memory), *self.errors],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env={**os.environ, **quiet, "PYTHONPATH": path, **self._environment},
        )
        if self._answer(_START) is None:
            self._printed.seek(0)
            said = self._printed.read().decode(errors="replace")
            self._end()
            raise AssertionError(f"{self.name} could not be started: {said[-2000:]}")
        return self._child

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """Return the child's next answer; None if it died or is still busy after `seconds`."""
        assert self._child is not None
        assert self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()
            self._child = None


def fuzz(
    reader: Reader,
    samples: Sequence[bytes],
    folder: Path,
    *,
    suffix: str = "",
    seconds: float = SECONDS,
    least: int = 20,
) -> Counter[str]:
    """Run a reader on mutated `samples` for `seconds`, and on at least `least` files.

    The n-th file is always the same, so failures are reproducible; the offending file is kept in `folder`.

    Returns
    -------
    collections.Counter
        Numbers of files that were "read" and "refused".
    """
    counts: Counter[str] = Counter()
    path = folder / f"mutated{suffix}"
    until, number = time.monotonic() + seconds, 0
    while number < least or time.monotonic() < until:
        source = random.Random(number)
        path.write_bytes(mutate(samples[number % len(samples)], source))
        try:
            counts[reader(path).partition(":")[0]] += 1
        except AssertionError as error:
            kept = path.with_name(f"mutated-{number}{suffix}")
            path.replace(kept)
            raise AssertionError(f"mutation {number} (kept as {kept.name}): {error}") from None
        number += 1
    return counts


#: Numbers at which arithmetic with sizes, counts and offsets tends to fail.
_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(content: bytes, source: random.Random) -> bytes:
    """Return `content` with one to eight changes, more of them near the start, where headers are.

    Parameters
    ----------
    content : bytes
        A valid file.
    source : random.Random
        Source of random numbers; Hypothesis provides one too (``strategies.randoms``).
    """
    data = bytearray(content)
    for _ in range(source.randint(1, 8)):
        if not data:
            break
        size = len(data)
        at = source.randrange(size if source.random() < 0.5 else min(size, 512))
        match source.randrange(7):
            case 0:
                data[at] ^= 1 << source.randrange(8)
            case 1:
                data[at] = source.randrange(256)
            case 2:
                width, order = source.choice((1, 2, 4, 8)), source.choice(("little", "big"))
                number = source.choice(_EDGES) & ((1 << (8 * width)) - 1)
                data[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
            case 3:
                del data[at:]
            case 4:
                del data[at : at + source.randint(1, 64)]
            case 5:
                other = source.randrange(size)
                data[at:at] = data[other : other + source.randint(1, 256)]
            case 6:
                other, count = source.randrange(size), source.randint(1, 64)
                data[at : at + count] = data[other : other + count]
    return bytes(data)


def mutations(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a Hypothesis strategy of mutated `content`."""
    return st.randoms(use_true_random=False).map(lambda source: mutate(content, source))


def _loaded(path: Path) -> Any:
    """Import a test file, which Python cannot import by name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _resolved(name: str) -> Any:
    module, _, rest = name.rpartition(":")
    found: Any = _loaded(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    for part in rest.split("."):
        found = getattr(found, part)
    return found


def _limit(memory: int) -> None:
    """Limit this process to `memory` bytes more than it uses now, on systems that support it."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _serve(name: str, memory: int, errors: list[str]) -> None:
    """Run the reader on each path from standard input, and print one line with its outcome."""
    read, expected = _resolved(name), tuple(_resolved(error) for error in errors)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output on standard output counts as printed too
    _limit(memory)
    answer: dict[str, str] = {"kind": "ready"}
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        try:
            read(Path(os.fsdecode(line[:-1])))
            answer = {"kind": "read"}
        except expected as error:
            answer = {"kind": "refused", "text": str(error)[:2000]}
        except BaseException as error:
            answer = {"kind": "escaped", "text": f"{type(error).__name__}: {error}"[:2000]}
        sys.stdout.flush()
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
