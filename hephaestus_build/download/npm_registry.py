"""Packages of an npm registry: pinned by hash, checked before they are unpacked, kept in the cache."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.tar_members import read_tar
from hephaestus_build.core.machine.user_paths import expand_path
from hephaestus_build.core.parsing import decode_utf8, read_bounded
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting
from hephaestus_build.download.client import HttpClient

_MAX_SETTINGS_BYTES = 1 << 20
_NPM_SECONDS = 60.0
#: Limits of a package, packed and unpacked, and of one file of it.
_MAX_PACKED, _MAX_UNPACKED, _MAX_MEMBER, _MAX_MEMBERS = 4 << 20, 16 << 20, 2 << 20, 1000


@dataclass(frozen=True)
class NpmPackage:
    """A version of a package.

    Attributes
    ----------
    name, version : str
        As in the registry, such as ``@zarrita/storage`` and ``0.2.0``.
    integrity : str
        ``sha512-`` and the hash of its archive in base64, the registry's ``dist.integrity``.
    scripts : str
        Pattern of the names of the files that are taken beside ``LICENSE``.
    """

    name: str
    version: str
    integrity: str
    scripts: str

    @property
    def folder(self) -> str:
        """Name of a folder for its files.

        Examples
        --------
        >>> NpmPackage("@zarrita/storage", "0.2.0", "", "").folder
        'zarrita-storage-0.2.0'
        """
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"

    @property
    def archive(self) -> str:
        """Path of its archive in a registry."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


def find_npm_registry() -> HttpUrl:
    """Return npm's registry: that of ``npm_config_registry``, of ``~/.npmrc``, or the one that npm names.

    Raises
    ------
    UsageError
        If what is configured is no address or cannot be read, or nothing is configured and npm names none.
    """
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if given := os.environ.get(name):
            return parse_url_setting(given, name)
    variables = (os.environ.get(name) for name in ("npm_config_userconfig", "NPM_CONFIG_USERCONFIG"))
    path = Path(expand_path(next(filter(None, variables), "~/.npmrc"), "npm_config_userconfig"))
    try:
        lines = decode_utf8(read_bounded(path, _MAX_SETTINGS_BYTES)).splitlines()
    except (FileNotFoundError, NotADirectoryError):
        lines = []
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); mend it, or set npm_config_registry") from None
    entries = (line.partition("=") for line in lines)
    named = [value.strip().strip("\"'") for key, _, value in entries if key.strip() == "registry"]
    if named:
        return parse_url_setting(named[-1], f"registry in {path}")
    return parse_url_setting(_ask_npm(path.anchor), "npm config get registry")


def _ask_npm(folder: str) -> str:
    """Return the registry that npm takes in a folder, which may be its own default."""
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            "which npm registry to ask is not known, and npm is not installed: set npm_config_registry"
        )
    try:
        said = subprocess.run(
            [npm, "config", "get", "registry"],
            cwd=folder,  # not the present one, whose .npmrc may be a stranger's
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_NPM_SECONDS,
            check=True,
        )
        return decode_utf8(said.stdout).strip()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UsageError(
            f"npm does not say which registry to ask ({error}): set npm_config_registry"
        ) from None


def fetch_package(
    package: NpmPackage, registry: Callable[[], HttpUrl], settings: Settings
) -> dict[str, bytes]:
    """Return the scripts and the licence of a package, from the cache if it has it, else from a registry.

    Parameters
    ----------
    package : NpmPackage
        The package.
    registry : callable
        Returns the registry; called where the cache lacks the package.
    settings : Settings
        Folder of the cache, and how a server is asked.

    Returns
    -------
    dict of str to bytes
        Content of the files by their names in the package.

    Raises
    ------
    HephaestusError
        If the registry cannot be reached, or what it has is not this package.
    """

    def addresses() -> Iterator[str]:
        yield registry().child(package.archive).url_with_secrets

    with HttpClient(settings) as client:
        receipt, files = client.download(
            addresses(),
            settings.downloads_dir / "npm" / f"{package.folder}.tgz",
            product=f"{package.name} {package.version}",
            read=partial(_read_archive, package),
            max_bytes=_MAX_PACKED,
        )
    if files is None:
        raise HephaestusError(
            f"{package.name} {package.version} cannot be had from the npm registry ({receipt.url}): "
            f"{receipt.outcome}, {receipt.detail}"
        )
    return files


def _read_archive(package: NpmPackage, path: Path) -> dict[str, bytes]:
    return unpack_package(package, read_bounded(path, _MAX_PACKED))


def unpack_package(package: NpmPackage, content: bytes) -> dict[str, bytes]:
    """Return the scripts and the licence in the archive of a package, whose hash is checked first.

    Raises
    ------
    ValueError
        If it is another archive, too large, or without the licence or scripts.
    """
    found = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
    if found != package.integrity:
        raise ValueError(f"it is not the pinned archive: {found[:24]}..., not {package.integrity[:24]}...")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(content, _MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked ({error})") from error
    if not unpacker.eof:
        raise ValueError(f"it is cut, or larger than {_MAX_UNPACKED} bytes unpacked")
    wanted = re.compile(rf"package/(LICENSE|{package.scripts})", re.ASCII)
    files: dict[str, bytes] = {}
    for number, member in enumerate(read_tar(unpacked)):
        if number >= _MAX_MEMBERS:
            raise ValueError(f"it has more than {_MAX_MEMBERS} members")
        if not member.kind and (match := wanted.fullmatch(member.name)):
            if len(member.content) > _MAX_MEMBER:
                raise ValueError(f"{match[1]} has more than {_MAX_MEMBER} bytes")
            files[match[1]] = bytes(member.content)
    if "LICENSE" not in files or len(files) < 2:
        raise ValueError("it has no licence, or no scripts")
    return files
