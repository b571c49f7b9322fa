"""Export of a cube as a folder in LiCSAR's names, from which LiCSBAS computes a time series.

::

    <frame>/GEOC/<pair>/<pair>.geo.unw.tif      where the cube has unwrapped phase
    <frame>/GEOC/<pair>/<pair>.geo.diff_pha.tif
    <frame>/GEOC/<pair>/<pair>.geo.cc.tif
    <frame>/GEOC/<frame>.geo.hgt.tif  .E.tif  .N.tif  .U.tif
    <frame>/GEOC/baselines  metadata.txt
    <frame>/GACOS/<date>.sltd.geo.tif
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.export.geotiff import ExportResult, write_layers
from hephaestus_build.export.geotiff_layers import GeotiffLayer, iter_geotiff_layers
from hephaestus_build.export.selection import ExportSelection
from hephaestus_build.sources.interferograms import EpochBaselines
from hephaestus_build.sources.licsar.baselines_file import SIMULATED_MARK

_PAIR_NAMES = {"unwrapped_phase": "unw", "insar_difference": "diff_pha", "insar_coherence": "cc"}
_FRAME_NAMES = {"dem": "hgt", "look_east": "E", "look_north": "N", "look_up": "U"}
_DATE_NAMES = {"gacos_delay": "GACOS/{}.sltd.geo.tif"}
#: Variables that have a place in the folder.
LICSBAS_VARIABLES = (
    *_PAIR_NAMES,
    *_FRAME_NAMES,
    *(f"{axis}_date_gacos_delay" for axis in ("primary", "secondary")),
)
_LIGHT_SPEED = 299_792_458.0


@dataclass(frozen=True)
class LicsbasResult:
    """Result of an export for LiCSBAS.

    Attributes
    ----------
    files : ExportResult
        The folder, and numbers of images.
    unwrapped : int
        Number of pairs with unwrapped phase, which a series is computed from.
    baselines : bool
        Whether perpendicular baselines of the acquisitions are there.
    """

    files: ExportResult
    unwrapped: int
    baselines: bool


def export_licsbas(
    source: ExportSelection,
    folder: Path,
    baselines: EpochBaselines | None,
    *,
    force: bool = False,
    threads: int = 2,
    listener: ProgressListener | None = None,
) -> LicsbasResult:
    """Write ``<folder>/<frame>/GEOC``, the folder from which LiCSBAS starts.

    Parameters
    ----------
    source : ExportSelection
        What to export.
    folder : pathlib.Path
        Destination; created if needed.
    baselines : EpochBaselines or None
        Perpendicular baselines of the acquisitions.
    force : bool
        Whether to replace files of another content.
    threads : int
        Number of images processed at once.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    UsageError
        If nothing of what is wanted has a place there, or a file has another content and `force` is false.
    HephaestusError
        If a file cannot be written.
    """
    used = tuple(variable for variable in source.variables if variable.name in LICSBAS_VARIABLES)
    source = replace(source, variables=used)
    layers = list(licsbas_layers(iter_geotiff_layers(source), source.frame))
    whole = slice(None), slice(None)
    files = write_layers(source, layers, folder, whole, force=force, threads=threads, listener=listener)
    geoc = files.folder / "GEOC"
    with translate_os_errors(f"{source.frame}: exporting to {geoc}", setting="--out"):
        if "center_time" in source.cube.attrs:  # COMET's version stops at a file without it
            write_atomic(geoc / "metadata.txt", metadata_text(source.cube.attrs).encode())
        if baselines is not None:
            write_atomic(geoc / "baselines", baselines_text(baselines, source.is_simulated).encode())
    return LicsbasResult(
        files, sum(layer.variable.name == "unwrapped_phase" for layer in layers), baselines is not None
    )


def licsbas_layers(layers: Iterable[GeotiffLayer], frame: str) -> Iterator[GeotiffLayer]:
    """Yield the images that have a place in the folder, under the names that LiCSBAS reads."""
    for layer in layers:
        name = layer.variable.quantity
        if name in _PAIR_NAMES:
            pair = layer.tags["PAIR"]
            path = f"GEOC/{pair}/{pair}.geo.{_PAIR_NAMES[name]}.tif"
        elif name in _FRAME_NAMES:
            path = f"GEOC/{frame}.geo.{_FRAME_NAMES[name]}.tif"
        elif name in _DATE_NAMES:
            path = _DATE_NAMES[name].format(layer.tags["DATE"].replace("-", ""))
        else:
            continue
        yield replace(layer, path=f"{frame}/{path}")


def metadata_text(attributes: Mapping[str, Any]) -> str:
    """Return ``metadata.txt`` of the frame, as far as a cube's attributes know it."""
    wavelength = attributes.get("radar_wavelength_m")
    lines = {
        "center_time": attributes.get("center_time"),
        "radar_freq": f"{_LIGHT_SPEED / wavelength:.0f}" if wavelength else None,
        "heading": attributes.get("platform_heading_deg"),
        "avg_incidence_angle": attributes.get("incidence_angle_deg"),
        "simulated": "true" if attributes.get("simulated") else None,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items() if value is not None)


def baselines_text(baselines: EpochBaselines, simulated: bool) -> str:
    """Return the file ``baselines``: reference, acquisition, metres and days in a line.

    The first line must have these four fields, by which LiCSBAS tells this form from an older one.
    """
    start = baselines.reference
    lines = [
        f"{start:%Y%m%d} {day:%Y%m%d} {metres:.4f} {(day - start).days}"
        for day, metres in sorted(baselines.metres.items())
    ]
    return "\n".join([*lines, *([SIMULATED_MARK] if simulated else []), ""])
