"""Complete cubes of any size, computed quickly from formulas, for tests of readers."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.fingerprints import fingerprint_grid
from hephaestus_build.cube.granules import (
    DemGranule,
    EpochGranule,
    Granule,
    GranuleKey,
    InterferogramGranule,
    MaskGranule,
    OptionalGranule,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.pipeline.encoding import encode_atmosphere, encode_images

FRAME = "198A_00210_131313"
#: Direction of flight, degrees clockwise from north.
HEADING = -10.5
#: Pairs of the cube; the last one is not annotated.
PAIRS = (
    "20190101_20190113",
    "20190101_20190125",
    "20190113_20190125",
    "20190113_20190206",
    "20190125_20190206",
)
#: Pairs that are not stored: one is annotated but absent from the portal, the other was unreachable.
ABSENT, OWED = "20190101_20190206", "20190125_20190218"
#: Pairs that show deformation.
MOVING = (PAIRS[1], PAIRS[3], ABSENT)
#: Those of them that show a Mogi source of high intensity and an earthquake; others a sill of low intensity.
STRONG = (PAIRS[1],)


def grid(height: int = 60, width: int = 70) -> Grid:
    return Grid(width, height, 10.0003, 20.0007, 0.001, 0.001)


def _plane(on: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x and y from -1 to 1 and the distance from the volcano."""
    y, x = np.meshgrid(np.linspace(1, -1, on.height), np.linspace(-1, 1, on.width), indexing="ij")
    return x, y, np.hypot(x - 0.15, y + 0.1)


def height(on: Grid) -> np.ndarray:
    x, y, distance = _plane(on)
    values = 2600 * np.exp(-3.2 * distance) + 180 * np.sin(7 * x) * np.cos(5 * y) + 300
    values[x + y > 1.7] = np.nan
    return values.astype("f4")


def phase(on: Grid, name: str) -> np.ndarray:
    """Return wrapped phase with atmosphere, deformation (if any), noise, and a corner without data."""
    pair = Pair.parse(name)
    rng = np.random.default_rng(pair.primary.toordinal() * 7919 + pair.secondary.toordinal())
    x, y, distance = _plane(on)
    values = 2.5 * np.sin(2 * x + rng.uniform(0, 6)) * np.cos(1.5 * y + rng.uniform(0, 6))
    if name in MOVING:
        values += 22 * (1 if name in STRONG else 0.5) * np.exp(-((distance / 0.35) ** 2))
    noise = np.where(_loose(on), np.pi, 0.25)
    values = values + noise * rng.standard_normal(on.shape)
    values = np.angle(np.exp(1j * values)).astype("f4")
    values[values == 0] = 1e-3
    values[x + y > 1.6] = 0
    return values


def unwrapped_phase(on: Grid, name: str) -> np.ndarray:
    """Return unwrapped phase that wraps to :func:`phase`, float32; 0 where that has no data."""
    wrapped, (x, _, _) = phase(on, name), _plane(on)
    return np.where(wrapped == 0, 0, wrapped + 2 * np.pi * np.rint(3 * x)).astype("f4")


def look_vectors(on: Grid) -> dict[str, np.ndarray]:
    """Return the unit vectors to a satellite that flies north in the west, by variable."""
    slant, flight = np.radians(38 + 6 * _plane(on)[0]), np.radians(HEADING)
    east, north, up = -np.sin(slant) * np.cos(flight), np.sin(slant) * np.sin(flight), np.cos(slant)
    return {
        f"look_{name}": part.astype("f4") for name, part in (("east", east), ("north", north), ("up", up))
    }


def _loose(on: Grid) -> np.ndarray:
    x, y, _ = _plane(on)
    return (x < -0.55) & (y > 0.1)


def coherence(on: Grid, name: str) -> np.ndarray:
    x, y, distance = _plane(on)
    values = np.clip(215 - 60 * np.abs(np.sin(4 * x + y)) - 40 * distance, 0, 255)
    values = np.where(_loose(on), values * 0.25, values)
    values[x + y > 1.6] = 0
    return values.astype("u1")


def masks(on: Grid, name: str) -> dict[str, np.ndarray]:
    """Return the three masks of a pair; empty if it shows no deformation."""
    if name not in MOVING:
        return {}
    *_, distance = _plane(on)
    first = name in STRONG
    inside = (distance < (0.55 if first else 0.35)).astype("u1")
    planes = {
        "deformation_mask": inside,
        "activity_type_mask": inside * (1 if first else 3),
        "intensity_level_mask": inside * (3 if first else 1),
    }
    if first:
        x, y, _ = _plane(on)
        shake = np.hypot(x + 0.6, y + 0.5) < 0.2
        for plane, code in zip(planes.values(), (2, 5, 4), strict=True):
            plane[shake] = code
    return planes


def atmosphere(on: Grid, day: str) -> np.ndarray:
    """Return the three ERA5 fields around the grid, shape (3, latitude, longitude)."""
    area = era5_area_around(on)
    number = int(day)
    y, x = np.meshgrid(area.latitudes, area.longitudes, indexing="ij")
    swing = np.sin(number % 97 + 2 * x + y)
    return np.stack([22 + 4 * swing, 92_000 + 300 * swing, 2.4e6 + 2e4 * swing]).astype("f4")


def annotation(name: str) -> dict[str, Any]:
    active = name in MOVING
    return {
        "phase": "Unrest" if active else "Rest",
        "atmospheric_fringes": 2,
        "glacier_fringes": 0,
        "orbital_fringes": 0,
        "processing_error": 0,
        "corrupted": 0,
        "no_info": 0,
        "low_coherence": 0,
        "image_artifacts": 0,
        "is_crowd": int(name == PAIRS[1]),
        "confidence": 0.8,
        "caption": "Deformation around the summit, höher im Süden." if active else "No deformation.",
        "unique_id": 100 + (*PAIRS, ABSENT).index(name),
    }


def _receipt(product: str) -> Receipt:
    return Receipt(product, Outcome.DOWNLOADED, f"http://127.0.0.1/{product}", size=1, sha256="0" * 64)


def toy_cube(
    folder: Path,
    on: Grid | None = None,
    *,
    frame: str = FRAME,
    pairs: tuple[str, ...] = PAIRS,
    dem: bool = True,
    optional: tuple[str, ...] = (),
) -> Path:
    """Publish a cube below `folder`, with some `optional` variables, and return its path."""
    on = on or grid()
    frame_store = FrameStore(folder, Frame(frame))
    with frame_store.lock():
        granules = _units(frame_store, on, pairs, dem) + _optional_units(frame_store, on, pairs, optional)
        contents = CubeInventory.new(
            on, {granule.key: granule for granule in granules}, attributes(on, frame)
        )
        with frame_store.new_generation() as store:
            write_cube_store(store, contents, frame_store.staging.chunk_paths)
        frame_store.staging.discard()
    return frame_store.published_link


def attributes(on: Grid, frame: str) -> dict[str, Any]:
    simulated = {"simulated": True} if Frame(frame).is_simulated else {}
    return {
        "title": f"Volcanic unrest cube of LiCSAR frame {frame}",
        "frame": frame,
        "pixel_size_m": [round(size, 2) for size in on.pixel_size_m()],
        "era5_source": "arco",
        "radar_wavelength_m": 0.05546576,
        "incidence_angle_deg": 39.2,
        "platform_heading_deg": HEADING,
        "look_direction": "right",
        "phase_sign": "positive_away_from_satellite",
        "volcanoes": ["Monte Esempio"],
        "hephaestus_build_version": "0",
        "schema_version": cube_schema().version,
        **simulated,
    }


def _hour(day: str) -> int:
    """Return a morning hour of a day, in the cube's time encoding."""
    return (parse_day(day) - date(1970, 1, 1)).days * 24 + 5


def _units(frame_store: FrameStore, on: Grid, pairs: tuple[str, ...], dem: bool) -> list[Granule]:
    inputs = fingerprint_grid(on)

    def add(granule: Granule, contents: dict[str, bytes]) -> Granule:
        return frame_store.staging.add(msgspec.structs.replace(granule, inputs=inputs), contents)

    missing = Receipt("dem", Outcome.ABSENT, "http://127.0.0.1/dem", detail="404")
    granules = [
        add(
            DemGranule.make(inputs, (_receipt("dem") if dem else missing,), on),
            encode_images({"dem": height(on)}) if dem else {},
        )
    ]
    for name in pairs:
        planes = {"insar_difference": phase(on, name), "insar_coherence": coherence(on, name)}
        facts = {
            "alignment": "identical",
            "valid_fraction": round(float(np.count_nonzero(planes["insar_difference"])) / on.size, 6),
        }
        granules.append(
            add(InterferogramGranule(name, receipts=(_receipt(name),), facts=facts), encode_images(planes))
        )
    for name in (*pairs, ABSENT) if PAIRS[0] in pairs else pairs:
        if name != PAIRS[-1]:
            facts = {"annotation": annotation(name), "grid": inputs}
            granules.append(add(MaskGranule(name, facts=facts), encode_images(masks(on, name))))
    absent = Receipt(ABSENT, Outcome.ABSENT, "", detail="annotated, but not in the portal's listing")
    owed = Receipt(OWED, Outcome.UNREACHABLE, "http://127.0.0.1/", detail="503 five times")
    granules.append(add(InterferogramGranule(ABSENT, receipts=(absent,), facts={"unlisted": True}), {}))
    granules.append(add(InterferogramGranule(OWED, receipts=(owed,)), {}))
    for day in sorted({day for name in pairs for day in name.split("_")}):
        facts = {"era5_time": _hour(day), "era5_expver": "0001", "source": "arco"}
        area = era5_area_around(on)
        granules.append(
            add(
                EpochGranule(day, receipts=(_receipt(day),), facts=facts),
                encode_atmosphere(atmosphere(on, day), area.latitudes, area.longitudes, on),
            )
        )
    return granules


def _optional_units(
    frame_store: FrameStore, on: Grid, pairs: tuple[str, ...], names: tuple[str, ...]
) -> list[Granule]:
    made: list[tuple[GranuleKey, dict[str, np.ndarray]]] = []
    if "unwrapped_phase" in names:
        made += [
            (
                GranuleKey.of_optional("unwrapped_phase", Pair.parse(pair)),
                {"unwrapped_phase": unwrapped_phase(on, pair)},
            )
            for pair in pairs
        ]
    made += [
        (GranuleKey.of_optional(name), {name: values})
        for name, values in look_vectors(on).items()
        if name in names
    ]
    return [
        frame_store.staging.add(
            OptionalGranule.make(key, fingerprint_grid(on), (_receipt(str(key)),), alignment="identical"),
            encode_images(images),
        )
        for key, images in made
    ]
