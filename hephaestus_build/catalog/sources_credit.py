"""Licences of the four sources of a cube, who made them, and what to cite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLicence:
    """The licence of one source.

    Attributes
    ----------
    source : str
        What it is.
    holder : str
        Institution that provides it.
    licence : str
        Name of the licence.
    url : str
        Its text.
    covers : str
        What of a cube it covers.
    credit : str
        The sentence that the licence asks for.
    """

    source: str
    holder: str
    licence: str
    url: str
    covers: str
    credit: str


LICENCES = (
    SourceLicence(
        "Sentinel-1",
        "European Union, Copernicus programme",
        "Copernicus Sentinel data terms",
        "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice",
        "what the interferograms are formed of",
        "Contains modified Copernicus Sentinel data.",
    ),
    SourceLicence(
        "LiCSAR",
        "COMET",
        "Open Government Licence v3",
        "https://www.nationalarchives.gov.uk/doc/open-government-licence/version/3/",
        "phase, coherence and heights",
        "LiCSAR contains modified Copernicus Sentinel data analysed by COMET.",
    ),
    SourceLicence(
        "ERA5",
        "ECMWF, Copernicus Climate Change Service",
        "Licence to use Copernicus products",
        "https://apps.ecmwf.int/datasets/licences/copernicus/",
        "water vapour, pressure and temperature",
        "Generated using Copernicus Climate Change Service information.",
    ),
    SourceLicence(
        "Hephaestus annotations",
        "Orion Lab",
        "CC-BY-4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        "masks, labels, flags and captions",
        "Annotations of the Hephaestus data set (Bountos et al. 2022).",
    ),
)
#: Licence of simulated cubes, which no source is to be credited for.
SIMULATED_LICENCE = SourceLicence(
    "simulated archive",
    "hephaestus-build",
    "MIT",
    "https://opensource.org/license/mit",
    "everything: no satellite, no weather service and no expert saw this",
    "Simulated data: no archive is to be credited.",
)
SIMULATED_NOTICE = "SIMULATED: made by a program; no satellite, no weather service and no expert saw this."


def licences_of(simulated: bool) -> tuple[SourceLicence, ...]:
    """Return the licences that hold for real or for simulated cubes."""
    return (SIMULATED_LICENCE,) if simulated else LICENCES
