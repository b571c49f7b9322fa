"""Play file systems that lack links, locks or flushing, below one folder.

``limit_calls`` replaces the system calls of this process; ``SHIM`` is a library for whole commands, which
covers calls from libraries in C too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

#: What can be missing, as the variables of the library and the arguments of `limit_calls` name it.
OPERATIONS = ("SYMLINK", "LINK", "FLOCK", "DIRSYNC")

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int refused(const char *operation, const char *path) {
    const char *number = getenv(operation), *root = getenv("LIMITED_FOLDER");
    if (!number || !root || !path || !strstr(path, root)) return 0;
    errno = atoi(number);
    return 1;
}
static const char *path_of(int descriptor, char *path) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(name, path, PATH_MAX);
    if (length < 0) return 0;
    path[length] = 0;
    return path;
}
#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))
int symlink(const char *to, const char *at) {
    return refused("NO_SYMLINK", at) ? -1 : NEXT(int (*)(const char *, const char *), "symlink")(to, at);
}
int symlinkat(const char *to, int folder, const char *at) {
    if (refused("NO_SYMLINK", at)) return -1;
    return NEXT(int (*)(const char *, int, const char *), "symlinkat")(to, folder, at);
}
int link(const char *of, const char *at) {
    return refused("NO_LINK", at) ? -1 : NEXT(int (*)(const char *, const char *), "link")(of, at);
}
int linkat(int a, const char *of, int b, const char *at, int flags) {
    if (refused("NO_LINK", at)) return -1;
    return NEXT(int (*)(int, const char *, int, const char *, int), "linkat")(a, of, b, at, flags);
}
int flock(int descriptor, int operation) {
    char path[PATH_MAX + 1];
    if (refused("NO_FLOCK", path_of(descriptor, path))) return -1;
    return NEXT(int (*)(int, int), "flock")(descriptor, operation);
}
int fsync(int descriptor) {
    char path[PATH_MAX + 1];
    struct stat facts;
    int of_folder = !fstat(descriptor, &facts) && S_ISDIR(facts.st_mode);
    if (of_folder && refused("NO_DIRSYNC", path_of(descriptor, path))) return -1;
    return NEXT(int (*)(int), "fsync")(descriptor);
}
"""


def build_shim(folder: Path) -> Path:
    """Compile the library in `folder`; skip the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler, to play file systems that lack links, locks or flushing")
    source, library = folder / "limited.c", folder / "limited.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def shim_environment(library: Path, folder: Path, **refusals: int) -> dict[str, str]:
    """Return the environment in which operations below `folder` fail with the given error numbers."""
    assert set(refusals) <= set(OPERATIONS)
    numbers = {f"NO_{name}": str(number) for name, number in refusals.items()}
    return {**os.environ, "LD_PRELOAD": str(library), "LIMITED_FOLDER": str(folder), **numbers}


def limit_calls(patch: pytest.MonkeyPatch, folder: Path, **refusals: int) -> None:
    """Let operations of this process below `folder` fail with the given error numbers."""
    assert set(refusals) <= set(OPERATIONS)
    root = str(folder)

    def is_below(where: Any) -> bool:
        if isinstance(where, int):
            where = Path(f"/proc/self/fd/{where}").readlink()
        return root in str(Path(where).absolute())

    def refuse(name: str, owner: Any, call: str, place: int, only: Any = lambda _: True) -> None:
        if (number := refusals.get(name)) is None:
            return
        real = getattr(owner, call)

        def limited(*arguments: Any, **options: Any) -> Any:
            where = arguments[place]
            where = where.fileno() if hasattr(where, "fileno") else where
            if is_below(where) and only(where):
                raise OSError(number, os.strerror(number), str(where))
            return real(*arguments, **options)

        patch.setattr(owner, call, limited)

    refuse("SYMLINK", os, "symlink", 1)
    refuse("LINK", os, "link", 1)
    refuse("FLOCK", fcntl, "flock", 0)
    refuse("DIRSYNC", os, "fsync", 0, lambda descriptor: stat.S_ISDIR(os.fstat(descriptor).st_mode))


#: Refusals of common file systems.
EXFAT = {"SYMLINK": errno.EPERM, "LINK": errno.EPERM}
CIFS = {"SYMLINK": errno.EOPNOTSUPP, "LINK": errno.EOPNOTSUPP, "DIRSYNC": errno.EINVAL, "FLOCK": errno.EACCES}
