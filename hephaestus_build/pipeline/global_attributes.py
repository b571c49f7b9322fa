"""Global attributes of a cube."""

from __future__ import annotations

from typing import Any

from hephaestus_build import __version__
from hephaestus_build.core.registry import published_frames
from hephaestus_build.cube.granules import EpochGranule, MaskGranule
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.pipeline.registry_check import compare_with_registry
from hephaestus_build.pipeline.stage import Build


def make_global_attributes(build: Build) -> dict[str, Any]:
    """Return the attributes of the group as JSON values; equal inputs give equal attributes."""
    context, grid = build.context, build.ledger.require_grid()
    credit = context.interferograms.credit
    frame = published_frames().get(context.frame.id)
    granules = build.ledger.snapshot().values()
    sources = {granule.source for granule in granules if isinstance(granule, EpochGranule)}
    projections = {granule.projection for granule in granules if isinstance(granule, MaskGranule)}
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
        "center_time": str(context.metadata.center_time),
        "pixel_size_m": [round(width, 2), round(height, 2)],
        "era5_source": ", ".join(sorted(filter(None, sources))),
        "preview_projection": ", ".join(sorted(filter(None, projections))) or "none needed",
        "hephaestus_build_version": __version__,
        "schema_version": cube_schema().version,
        "overview_factor": context.settings.overview_factor,
        "build_settings": {
            "pairs": context.selection.resolved_choice,
            f"{context.frame.source.lower()}_url": context.interferograms.address,
        },
    }
    if frame is not None:
        attributes["volcanoes"] = list(frame.volcanoes)
    if frame is not None and frame.uncertain_geometry:
        attributes["uncertain_geometry"] = frame.uncertain_geometry
    if disagreements := compare_with_registry(context.frame, context.metadata.center_time, grid):
        attributes["registry_disagreements"] = list(disagreements)
    if context.is_simulated:
        attributes |= {
            "simulated": True,
            "title": f"Simulated cube of the frame {context.frame}, which does not exist",
            "institution": "none",
            "source": f"simulated {credit.source}, ERA5 and annotations: no satellite saw this",
            "license": "MIT",
            "acknowledgement": "Simulated data: no archive is to be credited.",
        }
    return attributes
