"""Global attributes of a cube."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from hephaestus_build import __version__
from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.registry import published_frames
from hephaestus_build.cube.array_attributes import DEM_SOURCE
from hephaestus_build.cube.granules import EpochGranule, Granule, MaskGranule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.pipeline.registry_check import compare_with_registry
from hephaestus_build.pipeline.stage import Build
from hephaestus_build.sources.interferograms import FrameMetadata, SourceCredit

#: Members of AcquisitionGeometry by the attribute that states them.
_GEOMETRY_ATTRIBUTES = {
    "radar_wavelength_m": "wavelength_m",
    "platform_heading_deg": "heading_deg",
    "incidence_angle_deg": "incidence_deg",
    "look_direction": "look_direction",
}
_PHASE_SIGNS = {
    "away": "positive_away_from_satellite",
    "towards": "positive_towards_satellite",
}


def make_global_attributes(build: Build) -> dict[str, Any]:
    """Return the attributes of a cube as JSON values; equal inputs give equal attributes."""
    context, grid = build.context, build.ledger.require_grid()
    credit = context.interferograms.credit
    frame = published_frames().get(context.frame.id)
    width, height = grid.pixel_size_m()
    attributes: dict[str, Any] = {
        "title": f"Volcanic unrest cube of {credit.source} frame {context.frame}",
        "frame": context.frame.id,
        "institution": f"{credit.institution} ({credit.source}), ECMWF (ERA5), Orion Lab (annotations)",
        "source": f"{credit.source} interferograms, ERA5 single levels, Hephaestus annotations",
        "license": f"{credit.source}: {credit.license}; ERA5: Licence to use Copernicus products; "
        "annotations: CC-BY-4.0",
        "acknowledgement": f"{credit.acknowledgement} "
        "Generated using Copernicus Climate Change Service information.",
        **_acquisition_attributes(context.metadata, credit),
        "pixel_size_m": [round(width, 2), round(height, 2)],
        **attributes_of_granules(build.ledger.snapshot().values()),
        "hephaestus_build_version": __version__,
        "schema_version": cube_schema().version,
        "overview_factor": context.settings.overview_factor,
        "build_settings": {
            "pairs": context.selection.resolved_choice,
            f"{context.frame.source.lower()}_url": context.interferograms.address,
        },
    }
    if context.metadata.center_time is not None:
        attributes["center_time"] = str(context.metadata.center_time)
    if frame is not None:
        attributes["volcanoes"] = list(frame.volcanoes)
    if frame is not None and frame.uncertain_geometry:
        attributes["uncertain_geometry"] = frame.uncertain_geometry
    if disagreements := compare_with_registry(context.frame, context.metadata.center_time, grid):
        attributes["registry_disagreements"] = list(disagreements)
    if context.is_simulated:
        attributes |= {
            "simulated": True,
            "processor": "simulated",
            "title": f"Simulated cube of the frame {context.frame}, which does not exist",
            "institution": "none",
            "source": f"simulated {credit.source}, ERA5 and annotations: no satellite saw this",
            "license": "MIT",
            "acknowledgement": "Simulated data: no archive is to be credited.",
        }
    return attributes


def attributes_of_granules(granules: Collection[Granule]) -> dict[str, Any]:
    """Return the attributes that follow from the granules of a cube."""
    sources = {granule.source for granule in granules if isinstance(granule, EpochGranule)}
    projections = {granule.projection for granule in granules if isinstance(granule, MaskGranule)}
    attributes = {
        "era5_source": ", ".join(sorted(filter(None, sources))),
        "preview_projection": ", ".join(sorted(filter(None, projections))) or "none needed",
    }
    files = {receipt.file for granule in granules for receipt in granule.receipts if receipt.origin}
    if files:
        attributes["imported_from"] = ", ".join(sorted({file.partition("/")[0] for file in files}))
    return attributes


def _acquisition_attributes(metadata: FrameMetadata, credit: SourceCredit) -> dict[str, Any]:
    """Return how the interferograms were acquired and formed; what the source does not state is left out."""
    geometry = {name: getattr(metadata.geometry, member) for name, member in _GEOMETRY_ATTRIBUTES.items()}
    stated: dict[str, Any] = {**geometry, "processor": credit.processor, DEM_SOURCE: metadata.dem_source}
    if credit.phase is not None:
        stated["sign_convention"] = credit.phase.description
        stated["phase_sign"] = _PHASE_SIGNS[credit.phase.positive]
    known = {name: value for name, value in stated.items() if value not in (None, "")}
    return {**known, "primary_is_earlier": 1}  # of every Pair


def complete_metadata(metadata: FrameMetadata, published: CubeInventory) -> FrameMetadata:
    """Return metadata that the archive did not serve now, completed by what a published cube states.

    Parameters
    ----------
    metadata : FrameMetadata
        The archive's metadata, with values missing.
    published : CubeInventory
        An earlier cube of the frame.
    """
    attributes = published.attributes
    stated = {
        member: attributes[name]
        for name, member in _GEOMETRY_ATTRIBUTES.items()
        if name in attributes and getattr(metadata.geometry, member) is None
    }
    center_time, simulated = (
        metadata.center_time,
        {"simulated": "true"} if attributes.get("simulated") else {},
    )
    if center_time is None and "center_time" in attributes:
        center_time = parse_center_time(str(attributes["center_time"]))
    return replace(
        metadata,
        center_time=center_time,
        fields={**simulated, **metadata.fields},
        geometry=replace(metadata.geometry, **stated),
        dem_source=metadata.dem_source or str(attributes.get(DEM_SOURCE, "")),
        satellite=lambda day: metadata.satellite(day) or published.satellites.get(f"{day:%Y%m%d}", ""),
    )
