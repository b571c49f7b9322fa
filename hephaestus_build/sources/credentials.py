"""Who asks the CDS: the address and key that the ecosystem's standard variables or file hold."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

URL = "https://cds.climate.copernicus.eu/api"
HELP = f"get a key at {URL.removesuffix('/api')}/how-to-api, or use --era5 arco, which needs none"


@dataclass(frozen=True)
class Credentials:
    """How to reach the CDS: what the standard variables or the standard file say.

    Attributes
    ----------
    url, key : str
        Address and secret; the key is never shown.
    where : str
        Where the key was found.
    verify : bool
        Whether to check the server's certificate.
    """

    url: str
    key: str = field(repr=False)
    where: str
    verify: bool = True

    @property
    def outdated(self) -> bool:
        """Whether the key or address is of the service that was switched off in 2024."""
        return ":" in self.key or urlsplit(self.url).path.rstrip("/").endswith("/v2")


def find_credentials() -> Credentials | None:
    """Return what CDSAPI_URL, CDSAPI_KEY and the file CDSAPI_RC (``~/.cdsapirc``) say; None without a key."""
    path = Path(os.environ.get("CDSAPI_RC") or "~/.cdsapirc").expanduser()
    entries: dict[str, str] = {}
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                entries[name.strip()] = value.strip()
    key = os.environ.get("CDSAPI_KEY", "").strip() or entries.get("key", "")
    if not key:
        return None
    where = "CDSAPI_KEY" if os.environ.get("CDSAPI_KEY", "").strip() else str(path)
    url = os.environ.get("CDSAPI_URL", "").strip() or entries.get("url", "") or URL
    return Credentials(url.rstrip("/"), key, where, entries.get("verify", "1") != "0")
