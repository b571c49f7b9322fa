"""ERA5 for a frame: what hours and what area are wanted, and which of the two sources is asked.

The value types live in ``fields.py``, the sources in ``cds.py`` and ``arco.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from hephaestus_build.core.era5_grid import (
    ERA5_VARIABLE_NAMES,
    EXPVER_FINAL,
    EXPVER_PRELIMINARY,
    EXPVER_UNSTATED,
    Era5Area,
    era5_area_around,
    nearest_era5_hour,
    parse_center_time,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.credentials import CDS_KEY_HELP, CdsCredentials, find_cds_credentials
from hephaestus_build.sources.era5.arco import ArcoEra5Source
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.era5.fields import Era5Fields
from hephaestus_build.sources.era5.month_cache import HourProgress

__all__ = [
    "ERA5_VARIABLE_NAMES",
    "EXPVER_FINAL",
    "EXPVER_PRELIMINARY",
    "EXPVER_UNSTATED",
    "Era5Area",
    "Era5Fields",
    "Era5Source",
    "HourProgress",
    "choose_era5_source",
    "era5_area_around",
    "nearest_era5_hour",
    "parse_center_time",
]

log = logging.getLogger(__name__)


class Era5Source(Protocol):
    """Where ERA5 comes from."""

    name: str
    url: str

    @property
    def description(self) -> str:
        """Which source this is and why, in a few words."""

    def count_requests(self, times: Iterable[datetime]) -> int:
        """Return how many requests `times` take."""

    def set_expected_hashes(self, seals: Callable[[datetime], str | None]) -> None:
        """Believe kept hours only if their values are those that a published cube first used."""

    def fetch(
        self,
        frame: Frame,
        area: Era5Area,
        times: Sequence[datetime],
        progress: HourProgress | None = None,
        *,
        refresh_preliminary: bool = False,
    ) -> Era5Fields:
        """Return the fields of `area` at `times`, as many as can be had, and why the others cannot."""


def choose_era5_source(settings: Settings) -> Era5Source:
    """Return the source that the settings ask for, and log which it is.

    ``auto`` takes the CDS where a key is configured and ARCO-ERA5, which needs none, elsewhere.

    Raises
    ------
    UsageError
        If the CDS is asked for and there is no key, or only one of the service before 2024.
    """
    source: Era5Source
    own = settings.embedded_archive
    credentials = (
        CdsCredentials(own.cds_url, own.cds_key, "the embedded archive") if own else find_cds_credentials()
    )
    if settings.era5 == "arco":
        source = ArcoEra5Source(settings)
    elif settings.era5 == "cds":
        if credentials is None:
            raise UsageError(f"ERA5 from the CDS needs a key in CDSAPI_KEY or ~/.cdsapirc: {CDS_KEY_HELP}")
        source = CdsEra5Source(settings, credentials)
    elif credentials is None:
        source = ArcoEra5Source(settings, reason="because no CDS key is configured")
    elif credentials.is_legacy:
        source = ArcoEra5Source(
            settings, reason=f"because the CDS key in {credentials.found_in} is of the old service"
        )
    else:
        source = CdsEra5Source(settings, credentials)
    log.info("ERA5 comes from %s", source.description)
    return source
