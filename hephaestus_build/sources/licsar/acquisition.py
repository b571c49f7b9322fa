"""Acquisition geometry in LiCSAR's ``metadata.txt``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hephaestus_build.sources.interferograms import AcquisitionGeometry

#: Speed of light over the centre frequency of Sentinel-1's radar, 5.405 GHz (ESA).
SENTINEL_1_WAVELENGTH_M = 299_792_458 / 5.405e9


def parse_geometry(fields: Mapping[str, str]) -> AcquisitionGeometry:
    """Return the acquisition geometry of a frame; Sentinel-1 looks to the right.

    Parameters
    ----------
    fields : mapping of str to str
        Lines of ``metadata.txt``, by key; ``heading`` and ``avg_incidence_angle`` are used. LiCSAR leaves
        lines out where it lacks their source, and values outside of their range are ignored.

    Examples
    --------
    >>> parse_geometry({"heading": "-12.019061", "avg_incidence_angle": "41.6437"}).heading_deg
    -12.019061
    """
    return AcquisitionGeometry(
        wavelength_m=SENTINEL_1_WAVELENGTH_M,
        heading_deg=_parse_angle(fields.get("heading", ""), -360.0, 360.0),
        incidence_deg=_parse_angle(fields.get("avg_incidence_angle", ""), 0.0, 90.0),
        look_direction="right",
    )


def _parse_angle(text: str, lowest: float, highest: float) -> float | None:
    """Return an angle in degrees; None if it is missing or out of range."""
    try:
        angle = float(text)
    except ValueError:
        return None
    return angle if math.isfinite(angle) and lowest <= angle <= highest else None
