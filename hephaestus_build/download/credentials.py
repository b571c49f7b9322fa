"""Credentials: the CDS key from its standard variables or file, and logins from ``~/.netrc``."""

from __future__ import annotations

import netrc
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hephaestus_build.core.parsing import read_bounded
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
    """Read CDSAPI_URL, CDSAPI_KEY and the file CDSAPI_RC (``~/.cdsapirc``); return None without a key."""
    path = Path(os.environ.get("CDSAPI_RC") or "~/.cdsapirc").expanduser()
    entries: dict[str, str] = {}
    with suppress(OSError, ValueError):
        for line in read_bounded(path, _MAX_FILE_BYTES).decode().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                entries[name.strip()] = value.strip()
    key = os.environ.get("CDSAPI_KEY", "").strip() or entries.get("key", "")
    if not key:
        return None
    where = "CDSAPI_KEY" if os.environ.get("CDSAPI_KEY", "").strip() else str(path)
    url = os.environ.get("CDSAPI_URL", "").strip() or entries.get("url", "") or CDS_API_URL
    return CdsCredentials(url.rstrip("/"), key, where, entries.get("verify", "1") != "0")


def netrc_login(address: HttpUrl) -> tuple[str, str] | None:
    """Return user and password for an address from ``~/.netrc`` (or the file NETRC), None if there are none.

    Only an entry of exactly this host is used, not ``default``, and only for https on port 443: entries
    specify neither port nor scheme, and over http the password could be intercepted.
    """
    if address.origin != ("https", address.host, 443):
        return None
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    with suppress(OSError, ValueError, netrc.NetrcParseError):
        if path.stat().st_size > _MAX_FILE_BYTES or not path.is_file():
            return None
        login, account, password = netrc.netrc(path).hosts.get(address.host) or ("", "", "")
        return (login or account or "", password or "") if password else None
    return None
