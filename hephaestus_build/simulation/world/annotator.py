"""Simulated expert annotations, in the format of the published annotation files.

A polygon outlines the pixels where the line-of-sight displacement of one source reaches
:data:`DEFORMATION_THRESHOLD`, provided that the interferogram is coherent enough to show it. Polygons are
written in preview pixels, with the kinds of defects that the published files have.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import contourpy
import numpy as np
import shapely
from shapely.geometry import Polygon

from hephaestus_build.core.frames import Pair
from hephaestus_build.simulation.world.deformation_sources import DeformationSource
from hephaestus_build.simulation.world.frame_scene import RADIANS_PER_METRE, WAVELENGTH, FrameScene
from hephaestus_build.simulation.world.previews import PreviewProjection, grid_to_preview
from hephaestus_build.simulation.world.random_fields import random_stream

#: Smallest line-of-sight displacement, in either direction, that counts as deformation, metres.
DEFORMATION_THRESHOLD = 0.010
#: Folder of the annotations inside the archive file, as long as in the published one.
ANNOTATION_FOLDER = "mnt/shared_storage/simulated/datasets/Hephaestus_annotations/annotations"
#: First date of previews in Mercator projection.
MERCATOR_SINCE = date(2020, 11, 13)
_FRINGE = WAVELENGTH / 2
#: Standard deviation of a delay's phase over the frame above which its fringes are annotated, radians.
_STRONG_FRINGES = 0.75
_IMAGE_PARTS = (
    ("top-left", "top", "top-right"),
    ("left", "central", "right"),
    ("bottom-left", "bottom", "bottom-right"),
)


@dataclass(frozen=True)
class Outline:
    """Outline of one deforming area.

    Attributes
    ----------
    source : DeformationSource
        Source of the deformation.
    growth : float
        Growth of the source, in mean episodes.
    peak : float
        Largest absolute line-of-sight displacement inside the outline, metres.
    columns, rows : numpy.ndarray
        Corners in pixel-edge coordinates of the frame's grid, (n,), not closed.
    """

    source: DeformationSource
    growth: float
    peak: float
    columns: np.ndarray
    rows: np.ndarray


def preview_projection(scene: FrameScene, pair: Pair) -> PreviewProjection:
    """Return the projection of the preview of `pair`."""
    era = scene.spec.preview_era
    if era == "mixed":
        return "mercator" if pair.secondary >= MERCATOR_SINCE else "linear"
    return era


def outline_deformation(scene: FrameScene, pair: Pair) -> list[Outline]:
    """Return the outlines of the deformation visible in an interferogram, the strongest first."""
    if scene.interferogram_defect(pair) in ("corrupted", "no info"):
        return []
    found = []
    step = scene.coarse_grid.step
    shows = _visible_nodes(scene, pair)
    for source, growth in scene.active_sources(pair).items():
        moved = np.abs(scene.source_displacement(source) * np.float32(growth))
        if moved.max() < DEFORMATION_THRESHOLD:
            continue
        # a border of zeros closes every contour; corners on it are clipped to the frame's edge below
        lines = contourpy.contour_generator(z=np.pad(moved, 1)).lines(DEFORMATION_THRESHOLD)
        shapes = [Polygon(np.asarray(line)) for line in lines if len(line) > 3]
        largest = max(shape.area for shape in shapes)
        for shape in shapes:
            if shape.area < max(0.15 * largest, 40 / step**2) or any(
                other is not shape and other.contains(shape) for other in shapes
            ):
                continue
            # the outer ring only: the experts draw no holes
            drawn = shapely.simplify(shape.exterior, 0.8 / step)
            ring = shapely.get_coordinates(drawn)[:-1] - 1
            columns = np.clip(ring[:, 0] * step + 0.5, 0, scene.grid.width)
            rows = np.clip(ring[:, 1] * step + 0.5, 0, scene.grid.height)
            inside = _nodes_inside(shape, moved.shape)
            if not inside.any() or shows[inside].mean() < 0.3:
                continue
            found.append(Outline(source, growth, float(moved[inside].max()), columns, rows))
    return sorted(found, key=lambda outline: -outline.peak)


def _nodes_inside(shape: Polygon, size: tuple[int, int]) -> np.ndarray:
    """Return a mask of the nodes inside a contour of the padded field, bool."""
    from rasterio.features import rasterize

    from hephaestus_build.core.gdal import isolated_gdal_env

    # contour coordinates count points of the padded field; a point is the centre of its cell
    moved = Polygon(np.asarray(shape.exterior.coords) - 0.5)
    with isolated_gdal_env():
        return np.asarray(rasterize([moved], out_shape=size, dtype="uint8"), dtype=bool)


def _visible_nodes(scene: FrameScene, pair: Pair) -> np.ndarray:
    """Return a mask of the nodes where fringes are visible (valid and coherent), bool."""
    step = scene.coarse_grid.step
    clear = scene.valid_mask[::step, ::step] & (scene.true_coherence(pair, step) > 0.2)
    rows, columns = (size - have for size, have in zip(scene.coarse_grid.shape, clear.shape, strict=True))
    return np.pad(clear, ((0, rows), (0, columns)), mode="edge")


def annotate_pair(scene: FrameScene, pair: Pair, unique_id: int, quirk: str = "") -> dict[str, Any]:
    """Return the annotation of one interferogram, with the 20 keys of the real files.

    Parameters
    ----------
    scene : FrameScene
        The frame.
    pair : Pair
        The interferogram.
    unique_id : int
        Value of ``uniqueID``, also the name of the file.
    quirk : str
        Defect of the published files to reproduce: ``fewer polygons`` (two activities, one polygon) or
        ``lone crowd`` (is_crowd with one polygon). Empty for none.

    Returns
    -------
    dict
        The content of the annotation's JSON file.
    """
    seen = outline_deformation(scene, pair)
    random = random_stream(scene.seed, scene.frame, pair, "expert")
    blemish = scene.interferogram_defect(pair)
    if quirk == "fewer polygons":
        seen = seen[:1]
    activities = [outline.source.activity for outline in seen]
    strengths = [_intensity_level(outline) for outline in seen]
    quakes = {activity == "Earthquake" for activity in activities}
    label = [name for name, is_quake in (("Deformation", False), ("Earthquake", True)) if is_quake in quakes]
    unrest = [outline for outline in seen if outline.source.activity != "Earthquake"]
    step = max(1, max(scene.grid.shape) // 150)
    stratified, turbulent = (
        float(np.subtract(*(part(day, step) for day in pair.dates)).std() * RADIANS_PER_METRE)
        for part in (scene.stratified_delay, scene.turbulent_delay)
    )
    dim = float(scene.true_coherence(pair, step)[scene.valid_mask[::step, ::step]].mean()) < 0.4
    projection = preview_projection(scene, pair)
    rings = [grid_to_preview(outline.columns, outline.rows, scene.grid, projection) for outline in seen]
    # the published polygons run in either direction
    rings = [ring[::-1] if random.random() < 0.25 else ring for ring in rings]
    if quirk == "fewer polygons" and activities:
        activities = [activities[0], "Sill" if activities[0] != "Sill" else "Mogi"]
    phase = "Rest" if not seen else "None"
    if unrest:
        phase = "Unrest" if unrest[0].growth > 0 else "Rebound"
    return {
        "uniqueID": unique_id,
        "frameID": scene.frame.id,
        "primary_date": f"{pair.primary:%Y%m%d}",
        "secondary_date": f"{pair.secondary:%Y%m%d}",
        "corrupted": int(blemish == "corrupted"),
        "processing_error": int(blemish[-1]) if blemish.startswith("processing") else 0,
        "glacier_fringes": 0 if blemish != "glacier" else 2 if scene.pairs.index(pair) < 29 else 1,
        "orbital_fringes": int(blemish == "orbital"),
        "atmospheric_fringes": int(stratified > _STRONG_FRINGES) + 2 * int(turbulent > _STRONG_FRINGES),
        "low_coherence": int(dim),
        "no_info": int(blemish == "no info"),
        "image_artifacts": int(blemish == "artifacts"),
        "label": label or ["Non_Deformation"],
        "activity_type": activities,
        "intensity_level": strengths,
        "phase": phase,
        "confidence": float(random.choice([0.8, 0.7, 0.6, 0.5], p=[0.85, 0.06, 0.05, 0.04])),
        "segmentation_mask": [[round(float(value), 6) for value in ring.ravel()] for ring in rings],
        "is_crowd": int(len(seen) > 1 or (quirk == "lone crowd" and bool(seen))),
        "caption": _caption(scene, seen, stratified, turbulent, dim),
    }


def _intensity_level(outline: Outline) -> str:
    if outline.source.activity == "Earthquake":
        return "None"
    return ("Low", "Medium", "High")[int(np.searchsorted([0.9 * _FRINGE, 2.2 * _FRINGE], outline.peak))]


def _caption(
    scene: FrameScene, seen: Sequence[Outline], stratified: float, turbulent: float, dim: bool
) -> str:
    """Return the caption; it ends with ``Simulated.``, since no expert wrote it."""
    sentences = []
    if dim:
        sentences.append("Noise covers wide parts of the image.")
    if stratified > _STRONG_FRINGES:
        sentences.append("Fringes follow the height.")
    if turbulent > _STRONG_FRINGES:
        sentences.append("Turbulent air has left its pattern.")
    for outline in seen:
        row = int(3 * min(outline.rows.mean() / scene.grid.height, 0.999))
        column = int(3 * min(outline.columns.mean() / scene.grid.width, 0.999))
        where = f"in the {_IMAGE_PARTS[row][column]} part of the image"
        kind = outline.source.activity.lower()
        if kind == "earthquake":
            sentences.append(f"An earthquake has moved the ground {where}.")
        else:
            sentences.append(
                f"Deformation of {kind} type and {_intensity_level(outline).lower()} intensity is seen "
                f"{where}."
            )
    if not seen:
        sentences.append("No deformation is seen.")
    return " ".join([*sentences, "Simulated."])


def pack_annotations(annotations: Iterable[dict[str, Any]]) -> bytes:
    """Return a .tar.gz of the annotations in the layout of the published one; deterministic to the byte."""
    import gzip

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for annotation in annotations:
            content = json.dumps(annotation, indent=2).encode()
            member = tarfile.TarInfo(f"{ANNOTATION_FOLDER}/{annotation['uniqueID']}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)
