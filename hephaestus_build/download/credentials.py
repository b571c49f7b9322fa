"""Credentials: the CDS key from its standard variables or file, and logins from ``~/.netrc``."""

from __future__ import annotations

import netrc
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.machine.user_paths import expand_path
from hephaestus_build.core.parsing import decode_utf8, read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.web_address import HttpUrl

CDS_API_URL = "https://cds.climate.copernicus.eu/api"
CDS_KEY_HELP = (
    f"get a key at {CDS_API_URL.removesuffix('/api')}/how-to-api, or use --era5 arco, which needs none"
)
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class CdsCredentials:
    """Address and key of the CDS, from its standard variables or file.

    Attributes
    ----------
    url, key : str
        Address of the API, and the secret key, which is never shown.
    found_in : str
        Variable or file that provided the key.
    verify_tls : bool
        Whether to check the server's certificate.
    """

    url: str
    key: str = field(repr=False)
    found_in: str
    verify_tls: bool = True

    @property
    def is_legacy(self) -> bool:
        """Whether the key or address belongs to the CDS that was switched off in 2024."""
        try:
            path = urlsplit(self.url).path
        except ValueError:  # reported when the address is requested
            path = ""
        return ":" in self.key or path.rstrip("/").endswith("/v2")


def find_cds_credentials() -> CdsCredentials | None:
    """Read CDSAPI_URL, CDSAPI_KEY and the file CDSAPI_RC (``~/.cdsapirc``); return None without a key.

    Raises
    ------
    UsageError
        If the file is there, but cannot be read or has no key.
    """
    given = os.environ.get("CDSAPI_KEY", "").strip()
    path = _user_file("CDSAPI_RC", "~/.cdsapirc")
    entries: dict[str, str] = {}
    try:
        entries = _read_cdsapirc(path) if path is not None else {}
    except UsageError:
        if not (given and os.environ.get("CDSAPI_URL", "").strip()):
            raise  # what it says would be missed
    key = given or entries.get("key", "")
    if not key:
        if entries:
            raise UsageError(f"{path}: it has no line `key: ...`; {CDS_KEY_HELP}")
        return None
    where = "CDSAPI_KEY" if given else str(path)
    url = os.environ.get("CDSAPI_URL", "").strip() or entries.get("url", "") or CDS_API_URL
    return CdsCredentials(url.rstrip("/"), key, where, entries.get("verify", "1") != "0")


def _read_cdsapirc(path: Path) -> dict[str, str]:
    """Return the entries of a file ``name: value``; none if there is no file."""
    try:
        text = decode_utf8(read_bounded(path, _MAX_FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(
            f"the CDS's key file {sanitize_text(path, 200)} cannot be read: {sanitize_text(reason, 200)}; "
            f"mend or remove it, set CDSAPI_KEY, or use --era5 arco, which needs none"
        ) from None
    lines = (line.partition(":") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def _user_file(variable: str, by_default: str) -> Path | None:
    """Return the path that a variable names, else one in the home folder; None where that is unknown."""
    if named := os.environ.get(variable):
        return Path(expand_path(named, variable))
    try:
        return Path(expand_path(by_default, variable))
    except UsageError:
        return None


def netrc_login(address: HttpUrl) -> tuple[str, str] | None:
    """Return user and password for an address from ``~/.netrc`` (or the file NETRC), None if there are none.

    Only an entry of exactly this host is used, not ``default``, and only for https on port 443: entries
    specify neither port nor scheme, and over http the password could be intercepted.
    """
    if address.origin != ("https", address.host, 443):
        return None
    with suppress(OSError, ValueError, netrc.NetrcParseError):
        entries = _read_netrc()
        login, account, password = (entries.hosts.get(address.host) if entries else None) or ("", "", "")
        return (login or account or "", password or "") if password else None
    return None


def netrc_path() -> Path | None:
    """Return the file of logins: the one that NETRC names, else ``~/.netrc``; None where that is unknown."""
    return _user_file("NETRC", "~/.netrc")


def find_netrc_fault() -> str:
    """Return why no login in the file of logins is used; empty if it is fine or not there.

    The file's own text is not repeated, since it may be part of a password.
    """
    path = sanitize_text(netrc_path(), 200)
    try:
        _read_netrc()
    except FileNotFoundError:
        return ""
    except netrc.NetrcParseError as error:
        return f"{path} cannot be read in line {error.lineno}: no login in it is used"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): no login in it is used"
    return ""


def _read_netrc() -> netrc.netrc | None:
    """Return the logins; None where the home folder is unknown."""
    path = netrc_path()
    if path is None:
        return None
    if not path.is_file():
        path.stat()  # raises if it is not there
        raise ValueError("it is not a file")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {_MAX_FILE_BYTES >> 20} MB")
    return netrc.netrc(path)
