"""Loopback server of all simulated archives: LiCSAR, CDS, ARCO-ERA5 and annotations."""

from __future__ import annotations

import os
from typing import Any

from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.server.arco_app import ARCO_PREFIX as ARCO_PREFIX
from hephaestus_build.simulation.server.arco_app import ArcoApp
from hephaestus_build.simulation.server.cds_app import CDS_PREFIX as CDS_PREFIX
from hephaestus_build.simulation.server.cds_app import CdsApp
from hephaestus_build.simulation.server.faults import FaultPlan
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer
from hephaestus_build.simulation.server.licsar_app import PORTAL_ROOT, LicsarApp
from hephaestus_build.simulation.world.frame_scene import FrameScene

ANNOTATIONS_PATH = "/annotations.tar.gz"
#: Degrees around a frame in which the simulated ARCO store has data.
_ARCO_MARGIN = 2.0


class ArchiveServer(LoopbackServer):
    """Loopback server of a simulated archive; a context manager.

    Parameters
    ----------
    archive : SimulatedArchive, optional
        Archive to serve; by default one is created from `options` and closed with the server.
    port : int
        Port to listen on; 0 selects a free one.
    faults : FaultPlan, optional
        Faults to inject.
    **options
        Arguments of :class:`~hephaestus_build.simulation.server.archive_state.SimulatedArchive`, such as
        ``seed`` and ``size``.

    Attributes
    ----------
    archive : SimulatedArchive
        The served archive; may be changed while it is served.
    portal : LicsarApp
        The portal, with the login that it asks for.
    cds : CdsApp
        The CDS, with its queue, licence, failures and dates of availability.
    arco : ArcoApp
        The ARCO-ERA5 store, which has data only around the archive's frames.
    """

    def __init__(
        self,
        archive: SimulatedArchive | None = None,
        *,
        port: int = 0,
        faults: FaultPlan | None = None,
        **options: Any,
    ) -> None:
        self._owns_archive = archive is None
        self.archive = archive if archive is not None else SimulatedArchive(**options)
        world = self.archive.world
        self.portal = LicsarApp(self.archive)
        # the world's fields are already rounded to fixed steps; packing them per area as well would make
        # the same point differ between requests
        self.cds = CdsApp(world.era5_fields, grib_packing=False)
        self.arco = ArcoApp(
            world.era5_fields, areas=tuple(_area_around(world.scene(name)) for name in world.frames)
        )
        super().__init__(
            [self.portal, self._serve_annotations, self.cds, self.arco], port=port, faults=faults
        )

    @property
    def licsar_url(self) -> str:
        """Base address of the portal."""
        return f"{self.base_url}/{PORTAL_ROOT}/"

    @property
    def cds_url(self) -> str:
        """Address of the CDS, the value for CDSAPI_URL."""
        return f"{self.base_url}{CDS_PREFIX}"

    @property
    def cds_key(self) -> str:
        """API key that the simulated CDS accepts; not a secret."""
        return self.cds.key

    @property
    def arco_url(self) -> str:
        """Address of the ARCO-ERA5 store."""
        return f"{self.base_url}{ARCO_PREFIX}"

    @property
    def annotations_url(self) -> str:
        """Address of the annotation archive."""
        return f"{self.base_url}{ANNOTATIONS_PATH}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point this project's commands, and cdsapi, to this server."""
        return {
            "HEPHAESTUS_LICSAR_URL": self.licsar_url,
            "HEPHAESTUS_ANNOTATIONS": self.annotations_url,
            "HEPHAESTUS_ARCO_URL": self.arco_url,
            "CDSAPI_URL": self.cds_url,
            "CDSAPI_KEY": self.cds_key,
            **self.proxy_environment(),
        }

    @staticmethod
    def proxy_environment() -> dict[str, str]:
        """Return the environment variables that exclude loopback from the proxy; empty without a proxy."""
        if any(name.lower() in ("http_proxy", "all_proxy") for name in os.environ):
            # without NO_PROXY, loopback requests go to the proxy too
            beyond = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            hosts = ",".join(filter(None, (beyond, "127.0.0.1", "localhost")))
            return {"NO_PROXY": hosts, "no_proxy": hosts}
        return {}

    def reset(self) -> None:
        """Undo every change since the server was made: faults, the state of every archive, the log."""
        self.faults.clear()
        self.archive.reset()
        for app in (self.portal, self.cds, self.arco):
            app.reset()
        self.clear_log()

    def close(self) -> None:
        """Stop serving; close the archive, which removes its files, if this server created it."""
        super().close()
        if self._owns_archive:
            self.archive.close()

    def _serve_annotations(self, request: HttpRequest) -> HttpResponse | None:
        if request.method != "GET" or request.path != ANNOTATIONS_PATH:
            return None
        return HttpResponse(200, self.archive.annotations(), {"Content-Type": "application/gzip"})


def _area_around(scene: FrameScene) -> Era5Area:
    west, south, east, north = scene.grid.in_first_turn().bounds
    return Era5Area(
        min(90.0, float(int(north) + 1 + _ARCO_MARGIN)),
        float(int(west) - 1 - _ARCO_MARGIN),
        max(-90.0, float(int(south) - 1 - _ARCO_MARGIN)),
        float(int(east) + 1 + _ARCO_MARGIN),
    )
