"""Loopback servers of ERA5 (CDS and ARCO), and the sources that read from them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.download.credentials import CdsCredentials
from hephaestus_build.simulation.server.arco_app import ARCO_PREFIX
from hephaestus_build.simulation.server.http_server import LoopbackServer
from hephaestus_build.sources.era5.arco import ArcoEra5Source
from hephaestus_build.sources.era5.cds import CdsEra5Source

FRAME = Frame("198A_00210_131313")
AREA = Era5Area(44.0, -1.0, 43.0, 0.5)
ELSEWHERE = Era5Area(-37.0, 174.0, -38.0, 180.0)
KEY = "0c9d-secret-key"
JUNE = [datetime(2018, 6, day, 12) for day in (1, 13)]
JULY = [datetime(2018, 7, day, 12) for day in (7, 19)]


def fields(moment: datetime, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Return smooth fields that differ at every point and hour, and agree at 350 and -10 degrees."""
    turn = np.radians(longitudes % 360)
    wave = np.sin(np.radians(9 * latitudes))[:, None] + np.cos(7 * turn + moment.day + moment.hour)
    levels = np.array([30.0, 95_000.0, 2.3e6]).reshape(3, 1, 1)
    return (levels * (1 + 0.04 * wave)).astype(np.float32)


def truth(times: list[datetime], area: Era5Area = AREA) -> np.ndarray:
    return np.stack([fields(hour, area.latitudes, area.longitudes) for hour in times])


def settings(server: LoopbackServer, folder: Path, **changes: Any) -> Settings:
    return load_settings(
        data_dir=folder,
        arco_url=f"{server.base_url}{ARCO_PREFIX}",
        **{"timeout": 30, "retries": 2, "era5_deadline": 200, **changes},
    )


def cds_source(server: LoopbackServer, folder: Path, key: str = KEY, **changes: Any) -> CdsEra5Source:
    credentials = CdsCredentials(f"{server.base_url}/api", key, "CDSAPI_KEY")
    return CdsEra5Source(settings(server, folder, **changes), credentials, longest_pause=0.02)


def arco_source(server: LoopbackServer, folder: Path, **changes: Any) -> ArcoEra5Source:
    return ArcoEra5Source(settings(server, folder, **changes))
