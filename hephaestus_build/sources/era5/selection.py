"""ERA5 for a frame: what hours and what area are wanted, and which of the two sources is asked.

The value types live in ``fields.py``, the sources in ``cds.py`` and ``arco.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from hephaestus_build.core.era5_grid import (
    FINAL,
    PRELIMINARY,
    UNSTATED,
    VARIABLES,
    Area,
    area_of,
    nearest_hour,
    parse_center_time,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.credentials import HELP, Credentials, find_credentials
from hephaestus_build.sources.era5.arco import Arco
from hephaestus_build.sources.era5.cds import Cds
from hephaestus_build.sources.era5.fields import Fields
from hephaestus_build.sources.era5.month_cache import Progress

__all__ = [
    "FINAL",
    "PRELIMINARY",
    "UNSTATED",
    "VARIABLES",
    "Area",
    "Fields",
    "Progress",
    "Source",
    "area_of",
    "choose_source",
    "nearest_hour",
    "parse_center_time",
]

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where ERA5 comes from."""

    name: str
    url: str

    @property
    def description(self) -> str:
        """Which source this is and why, in a few words."""

    def requests(self, times: Iterable[datetime]) -> int:
        """Return how many requests `times` take."""

    def first_use(self, seals: Callable[[datetime], str | None]) -> None:
        """Believe kept hours only if their values are those that a published cube first used."""

    def fetch(
        self,
        frame: Frame,
        area: Area,
        times: Sequence[datetime],
        progress: Progress | None = None,
        *,
        refresh_preliminary: bool = False,
    ) -> Fields:
        """Return the fields of `area` at `times`, as many as can be had, and why the others cannot."""


def choose_source(settings: Settings) -> Source:
    """Return the source that the settings ask for, and log which it is.

    ``auto`` takes the CDS where a key is configured and ARCO-ERA5, which needs none, elsewhere.

    Raises
    ------
    UsageError
        If the CDS is asked for and there is no key, or only one of the service before 2024.
    """
    source: Source
    own = settings.embedded
    credentials = Credentials(own.cds_url, own.cds_key, "the embedded archive") if own else find_credentials()
    if settings.era5 == "arco":
        source = Arco(settings)
    elif settings.era5 == "cds":
        if credentials is None:
            raise UsageError(f"ERA5 from the CDS needs a key in CDSAPI_KEY or ~/.cdsapirc: {HELP}")
        source = Cds(settings, credentials)
    elif credentials is None:
        source = Arco(settings, reason="because no CDS key is configured")
    elif credentials.outdated:
        source = Arco(settings, reason=f"because the CDS key in {credentials.where} is of the old service")
    else:
        source = Cds(settings, credentials)
    log.info("ERA5 comes from %s", source.description)
    return source
