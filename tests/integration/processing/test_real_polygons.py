"""The experts' real polygons, drawn on the grid of a real frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from annotation_files import annotation, real_annotations
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.processing.mask_rasterization import default_preview_geometry, rasterize_annotation


def test_the_area_of_real_polygons_is_kept(shared_data: Path) -> None:
    frame, grid = Frame("087D_07004_060904"), Grid(2840, 2578, -157.0, 21.1, 0.001, 0.001)
    geometry = default_preview_geometry(frame, grid)
    errors = []
    for item in real_annotations(shared_data).for_frame(frame).values():
        for polygon, activity, level in item.labeled_polygons:
            one = rasterize_annotation(
                annotation(
                    label=("Deformation",),
                    phase="Unrest",
                    polygons=(polygon,),
                    activity_type=(activity,),
                    intensity_level=(level,),
                ),
                geometry,
                grid,
            )
            true = shapely.Polygon(geometry.to_grid(polygon, grid)).area
            errors.append(float(one.deformation.astype(bool).sum()) / true - 1)
    assert len(errors) == 565
    assert abs(float(np.mean(errors))) < 0.002
    assert max(map(abs, errors)) < 0.05
