"""Selection of the ERA5 source by the settings, and the interface that both sources have.

The value types are in ``fields.py``, the sources in ``cds.py`` and ``arco.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from hephaestus_build.core.era5_grid import (
    Era5Area,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.credentials import CDS_KEY_HELP, CdsCredentials, find_cds_credentials
from hephaestus_build.sources.era5.arco import ArcoEra5Source
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.era5.fields import Era5Fields
from hephaestus_build.sources.era5.month_cache import HourProgress
from hephaestus_build.sources.era5.requests import Era5Cost

log = logging.getLogger(__name__)


class Era5Source(Protocol):
    """Interface of a source of ERA5 fields."""

    name: str
    url: str

    @property
    def description(self) -> str:
        """Name of the source and why it was chosen, for messages."""

    def estimate(self, area: Era5Area, times: Iterable[datetime]) -> Era5Cost:
        """Return what the fields of `area` at `times` cost, as if nothing were cached."""

    def set_expected_hashes(self, expected_hash: Callable[[datetime], str | None]) -> None:
        """Use cached hours only if their value hashes are those that `expected_hash` returns, if any."""

    def fetch(
        self,
        frame: Frame,
        area: Era5Area,
        times: Sequence[datetime],
        progress: HourProgress | None = None,
        *,
        refresh_preliminary: bool = False,
    ) -> Era5Fields:
        """Fetch the fields of `area` at `times`, as many as are available, and receipts for the others.

        Parameters
        ----------
        frame : Frame
            Frame that the receipts name.
        area : Era5Area
            Area of the fields.
        times : sequence of datetime
            Whole hours, UTC without a time zone.
        progress : callable, optional
            Called with the number of hours done, the number of hours requested, and a message.
        refresh_preliminary : bool
            Request hours again whose cached version is preliminary.
        """


def choose_era5_source(settings: Settings) -> Era5Source:
    """Return the source that the settings name, and log the choice.

    ``auto`` selects the CDS if a key is configured, else ARCO-ERA5, which needs none.

    Raises
    ------
    UsageError
        If the settings name the CDS and there is no key, or only a key of the service before 2024; or the
        file of the key cannot be read.
    """
    source: Era5Source
    own = settings.embedded_archive
    credentials = None
    if own:
        credentials = CdsCredentials(own.cds_url, own.cds_key, "the embedded archive")
    elif settings.era5 != "arco":  # which needs no key, so that a broken file of one does not matter
        credentials = find_cds_credentials()
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
