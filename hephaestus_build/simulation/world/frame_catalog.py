"""Catalog of the three simulated frames and the irregularities of each.

Their track numbers are above 175, the largest of Sentinel-1. This module holds only parameters;
:mod:`hephaestus_build.simulation.world.frame_scene` computes the scene from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from hephaestus_build.simulation.world.deformation_sources import ActivityHistory, DeformationSource
from hephaestus_build.simulation.world.terrain import SimulatedVolcano, TerrainSpec

#: Irregularities of a frame's files that real frames have too. They are enabled by default, and a build
#: handles each of them without missing products.
ODDITIES: Mapping[str, str] = {
    "cropped": "the rasters of one pair are smaller by whole pixels on every side",
    "shifted": "the rasters of one pair lie off the frame's grid by part of a pixel",
    "unlisted": "one annotated pair is not in the listing",
    "unannotated": "one listed pair was never annotated",
    "no-preview": "one pair has no preview",
    "mixed-tags": "older rasters are PixelIsPoint with a nodata tag, newer ones PixelIsArea without",
    "sparse-metadata": "metadata.txt lacks lines, and there is no baselines file",
}
#: Irregularities that are disabled by default: those that leave a build with missing products, and longitudes
#: in another turn.
FAULTY_ODDITIES: Mapping[str, str] = {
    "no-files": "one pair is listed and annotated but has no files",
    "no-dem": "geo.hgt.tif answers 404",
    "empty-dem": "geo.hgt.tif has zero bytes",
    "empty-phase": "the phase of one pair has zero bytes",
    "blank-phase": "the phase of one pair is 0 everywhere",
    "other-crs": "the rasters of one pair are in UTM",
    "dem-turn": "geo.hgt.tif counts its longitudes from another turn, such as 335.7 in place of -24.3",
    "pair-turn": "the rasters of one pair count their longitudes from another turn",
}
#: Offset of the rasters of the "shifted" pair from the frame's grid, pixels east and south.
SHIFT_PIXELS = (0.45, 0.45)
#: Pixels cut off the rasters of the "cropped" pair: columns west and east, rows north and south.
CROP_PIXELS = (7, 4, 5, 11)

PreviewEra = Literal["linear", "mercator", "mixed"]


@dataclass(frozen=True)
class FrameSpec:
    """Description of one simulated frame.

    Attributes
    ----------
    id : str
        Frame id.
    longitude, latitude : float
        Approximate centre, degrees.
    corner_offset : tuple of float
        Degrees added to the west and north edges of the grid, so that they are not multiples of the pixel
        size.
    pixel_size : float
        Pixel size, degrees.
    shapes : mapping of str to tuple of int
        Rows and columns for each named size.
    heading : float
        Flight direction, degrees clockwise from north.
    incidence : tuple of float
        Incidence angle at near and far range, degrees.
    center_time : datetime.timedelta
        Time of day of the acquisitions, UTC.
    day_offset : int
        Days by which its acquisitions follow those of the first frame.
    terrain : TerrainSpec
        Parameters of the terrain.
    sources : tuple of DeformationSource
        Deformation sources.
    preview_era : str
        Projection of the previews: ``linear``, ``mercator``, or ``mixed`` (by the date of the pair).
    oddities : frozenset of str
        Keys of :data:`ODDITIES` that occur in this frame.
    defects : mapping of int to str
        Defects of interferograms by their index in the frame's list of pairs, modulo 29.
    """

    id: str
    longitude: float
    latitude: float
    corner_offset: tuple[float, float]
    pixel_size: float
    shapes: Mapping[str, tuple[int, int]]
    heading: float
    incidence: tuple[float, float]
    center_time: timedelta
    day_offset: int
    terrain: TerrainSpec
    sources: tuple[DeformationSource, ...]
    preview_era: PreviewEra
    oddities: frozenset[str]
    defects: Mapping[int, str] = field(default_factory=dict)


ORDINARY_FRAME, HIGH_LATITUDE_FRAME, STRIPMAP_FRAME = (
    "198A_00210_131313",
    "201D_02400_131313",
    "203A_SM_SIMU_S3",
)

FRAME_SPECS: tuple[FrameSpec, ...] = (
    FrameSpec(
        id=ORDINARY_FRAME,
        longitude=-24.3,
        latitude=37.75,
        corner_offset=(0.0003744, 0.0001667),
        pixel_size=0.001,
        shapes={"small": (300, 360), "real": (2500, 3000)},
        heading=-12.4,
        incidence=(34.0, 44.0),
        center_time=timedelta(hours=18, minutes=41, seconds=7, microseconds=318204),
        day_offset=0,
        terrain=TerrainSpec(
            (
                SimulatedVolcano(-24.285, 37.765, 2150, 5200),
                SimulatedVolcano(-25.1, 38.35, 1500, 6500),
                SimulatedVolcano(-23.4, 37.1, 1900, 8000),
            ),
            relief=150,
            base_height=-30,
            tilt=-640,
        ),
        sources=(
            DeformationSource(
                "summit reservoir", "Mogi", -24.30, 37.770,
                ActivityHistory(date(2019, 3, 20), 252, 16, rebound=0.45),
                {"depth": 3300.0, "volume": 4.6e6},
            ),
            DeformationSource(
                "flank sill", "Sill", -24.355, 37.705,
                ActivityHistory(date(2020, 10, 27), 240, 16),
                {"depth": 2900.0, "length": 4200.0, "width": 3200.0, "strike": 40.0, "dip": 4.0,
                 "opening": 0.28},
            ),
            DeformationSource(
                "rift dyke", "Dyke", -24.215, 37.822,
                ActivityHistory(date(2020, 11, 8), 336, 9),
                {"depth": 2300.0, "length": 4800.0, "width": 3000.0, "strike": 118.0, "dip": 88.0,
                 "opening": 0.45},
            ),
        ),
        preview_era="linear",
        oddities=frozenset({"cropped", "shifted", "unlisted", "unannotated", "no-preview",
                            "mixed-tags"}),
        defects={9: "orbital", 13: "corrupted", 18: "processing 3"},
    ),
    FrameSpec(
        id=HIGH_LATITUDE_FRAME,
        longitude=-17.1,
        latitude=66.0,
        corner_offset=(-0.0002561, 0.0004321),
        pixel_size=0.001,
        shapes={"small": (880, 400), "real": (2500, 3000)},
        heading=-162.7,
        incidence=(31.5, 42.5),
        center_time=timedelta(hours=23, minutes=42, seconds=11, microseconds=250000),
        day_offset=4,
        terrain=TerrainSpec(
            (
                SimulatedVolcano(-17.06, 66.08, 1350, 6800),
                SimulatedVolcano(-17.16, 65.74, 950, 5000),
                SimulatedVolcano(-16.2, 65.4, 1500, 7500),
            ),
            relief=150,
            base_height=110,
            tilt=620,
        ),
        sources=(
            DeformationSource(
                "fissure swarm", "Dyke", -17.10, 66.03,
                ActivityHistory(date(2019, 3, 23), 250, 14),
                {"depth": 3000.0, "length": 9000.0, "width": 4400.0, "strike": 12.0, "dip": 90.0,
                 "opening": 0.42},
            ),
            DeformationSource(
                "caldera pipe", "Spheroid", -17.14, 65.75,
                ActivityHistory(date(2020, 10, 18), 310, 30, rebound=0.4),
                {"depth": 3600.0, "volume": 7.5e6, "elongation": 1.9},
            ),
            DeformationSource(
                "transform fault", "Earthquake", -17.02, 66.29,
                ActivityHistory(date(2019, 9, 20), 408, 0),
                {"depth": 4200.0, "length": 8000.0, "width": 6000.0, "strike": 300.0, "dip": 80.0,
                 "strike_slip": 0.45},
            ),
        ),
        preview_era="mercator",
        oddities=frozenset(),
        defects={6: "glacier", 12: "processing 2", 24: "no info"},
    ),
    FrameSpec(
        id=STRIPMAP_FRAME,
        longitude=55.7,
        latitude=-21.23,
        corner_offset=(0.0001389, -0.0001944),
        pixel_size=0.0005,
        shapes={"small": (400, 420), "real": (2500, 3000)},
        heading=-13.1,
        incidence=(37.0, 42.0),
        center_time=timedelta(hours=14, minutes=52, seconds=23),
        day_offset=2,
        terrain=TerrainSpec(
            (SimulatedVolcano(55.708, -21.244, 2450, 4600), SimulatedVolcano(55.48, -21.1, 2900, 8000)),
            relief=90,
            base_height=-900,
            tilt=-160,
        ),
        sources=(
            DeformationSource(
                "summit pipe", "Spheroid", 55.712, -21.243,
                ActivityHistory(date(2019, 3, 14), 168, 20, rebound=0.5),
                {"depth": 2000.0, "volume": 1.9e6, "elongation": 1.6},
            ),
            DeformationSource(
                "east flank", "Unidentified", 55.752, -21.262,
                ActivityHistory(date(2019, 8, 27), 210, 26),
                {"radius": 1100.0, "azimuth": 100.0, "drop": 0.055},
            ),
            DeformationSource(
                "shallow sill", "Sill", 55.690, -21.222,
                ActivityHistory(date(2020, 10, 24), 330, 12),
                {"depth": 1500.0, "length": 2600.0, "width": 1900.0, "strike": 75.0, "dip": 8.0,
                 "opening": 0.2},
            ),
        ),
        preview_era="mixed",
        oddities=frozenset({"sparse-metadata"}),
        defects={5: "artifacts", 16: "orbital"},
    ),
)  # fmt: skip
