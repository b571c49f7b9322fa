"""The file that a bug report contains: what the doctor found, versions, settings and the last runs.

Nothing secret is in it: addresses are without login and query, known keys and passwords are replaced, and so
is the path of the home folder.
"""

from __future__ import annotations

import io
import os
import platform
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.terminal import json_text
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting
from hephaestus_build.doctor.check import Check
from hephaestus_build.doctor.installation import DISTRIBUTION
from hephaestus_build.download.credentials import find_cds_credentials, netrc_login
from hephaestus_build.operations.run_log import RUN_LOG, read_log_tail

#: Lines of the log of runs that are taken.
_RUNS = 20
_HIDDEN = "(hidden)"
_SHORTEST_SECRET = 4  # characters: shorter ones would hide parts of words


def write_report_file(
    path: Path, checks: Sequence[Check], settings: Settings, described: Mapping[str, Any]
) -> None:
    """Write the file of a bug report, a ``.tar.gz``.

    Parameters
    ----------
    path : pathlib.Path
        The file to write.
    checks : sequence of Check
        What the doctor found.
    settings : Settings
        The settings that take effect.
    described : mapping
        The settings that were given, without secrets, as
        :func:`~hephaestus_build.doctor.configuration.settings_with_origins` returns them.

    Raises
    ------
    HephaestusError
        If it cannot be written.
    """
    runs = [*read_log_tail(settings.data_dir, _RUNS)]
    if not settings.is_simulated:
        runs += read_log_tail(settings.for_simulated().data_dir, _RUNS)
    contents = {
        "doctor.json": json_text({"checks": [check.to_json() for check in checks]}),
        "versions.json": json_text(_versions()),
        "settings.json": json_text(dict(described)),
        RUN_LOG: "".join(f"{line}\n" for line in runs),
    }
    secrets = find_secrets(settings)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in contents.items():
            content = redact(text, secrets).encode()
            member = tarfile.TarInfo(f"hephaestus-report/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with translate_os_errors(f"writing {path}", setting="--report"):
        write_atomic(path, packed.getvalue())


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets and without the path of the home folder.

    Examples
    --------
    >>> redact("key 0123-abc is refused", ["0123-abc"])
    'key (hidden) is refused'
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _HIDDEN)
    with suppress(RuntimeError):  # no home
        home = str(Path.home())
        if len(home) >= _SHORTEST_SECRET:
            text = text.replace(home, "~")
    return text


def find_secrets(settings: Settings) -> set[str]:
    """Return the keys, passwords and queries that settings, environment and key files hold."""
    found = {os.environ.get("CDSAPI_KEY", "").strip()}
    with suppress(HephaestusError):
        credentials = find_cds_credentials()
        found |= {credentials.key} if credentials is not None else set()
    addresses = [settings.licsar_url, settings.licsar_mirror_url, settings.arco_url, settings.annotations]
    addresses += [value for name, value in os.environ.items() if name.lower().endswith(("_proxy", "_url"))]
    for address in filter(None, addresses):
        found |= _secrets_of(address)
    if settings.heartbeat_url is not None:  # its path is the secret
        found |= {settings.heartbeat_url, HttpUrl.parse(settings.heartbeat_url).path.strip("/")}
        found |= _secrets_of(settings.heartbeat_url)
    with suppress(UsageError):
        found |= set(netrc_login(parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")) or ())
    return found - {""}


def _secrets_of(address: str) -> set[str]:
    """Return user, password and query of an address, as written and decoded."""
    before, at, _ = address.partition("://")[2].partition("/")[0].rpartition("@")
    parts = {*before.split(":"), before} if at else set()
    _, _, query = address.partition("?")
    parts |= {query, *(pair.partition("=")[2] for pair in query.split("&"))}
    return parts | {unquote(part) for part in parts}


def _versions() -> dict[str, Any]:
    packages = sorted(
        {
            item.metadata["Name"]: item.version for item in metadata.distributions() if item.metadata["Name"]
        }.items()
    )
    version = dict(packages).get(DISTRIBUTION, "not installed")
    return {
        DISTRIBUTION: version,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "packages": dict(packages),
    }
