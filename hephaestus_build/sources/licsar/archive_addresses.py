"""Addresses of the LiCSAR portal and its mirror: which are theirs, and where their files stand."""

from __future__ import annotations

from dataclasses import replace

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting
from hephaestus_build.sources.interferograms import ProductPlace

#: CEDA's copy of the portal's files, which lags behind and lacks some frames.
CEDA_URL = "https://dap.ceda.ac.uk/neodc/comet/data/licsar_products/"
_TRUSTED_HOSTS = (".jasmin.ac.uk", ".ceda.ac.uk")


class ArchiveAddresses:
    """Base addresses of the portal and of its mirror.

    Parameters
    ----------
    settings : Settings
        ``licsar_url`` and ``licsar_mirror_url``.

    Attributes
    ----------
    base : HttpUrl
        Folder of the tracks.
    mirror : HttpUrl or None
        The same of a copy in the layout of the CEDA archive.

    Raises
    ------
    UsageError
        If an address in the settings is invalid.
    """

    def __init__(self, settings: Settings) -> None:
        self.base = parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
        mirror = settings.licsar_mirror_url or (CEDA_URL if self.base.host.endswith(_TRUSTED_HOSTS) else None)
        self.mirror = parse_url_setting(mirror, "HEPHAESTUS_LICSAR_MIRROR_URL") if mirror else None

    def is_trusted_url(self, url: str) -> bool:
        """Return whether an address belongs to one of the archive's hosts."""
        try:
            address = HttpUrl.parse(url)
        except ValueError:
            return False
        near = address.is_loopback and self.base.is_loopback
        known = {base.host for base in (self.base, self.mirror) if base}
        return address.host in known or address.host.endswith(_TRUSTED_HOSTS) or near

    def is_other_port(self, url: str) -> bool:
        """Return whether an address is of this machine, but not of the server that the settings name."""
        address = HttpUrl.parse(url)
        return address.is_loopback and address.origin != self.base.origin

    def file_url(self, link: str) -> str:
        """Return the download address of a link: on CEDA's file server if need be, with credentials."""
        address = replace(HttpUrl.parse(link), credentials=None)
        if address.host == "data.ceda.ac.uk":  # serves HTML pages; dap.ceda.ac.uk serves the files
            address = replace(address, scheme="https", host="dap.ceda.ac.uk", port=None)
        for base in filter(None, (self.base, self.mirror)):
            address = address.with_credentials_of(base)
        return address.url_with_secrets


def product_folder(frame: Frame, place: ProductPlace) -> str:
    """Return the folder of a pair, a date or the frame's metadata, below the folder of the track."""
    if place is None:
        return f"{frame}/metadata"
    return f"{frame}/interferograms/{place}" if isinstance(place, Pair) else f"{frame}/epochs/{place:%Y%m%d}"
