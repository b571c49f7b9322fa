"""Tests of simulated annotations: format and defects of the published files, and the true deformation."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from rasterio.features import rasterize

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.registry import load_schema
from hephaestus_build.simulation.world.annotator import DEFORMATION_THRESHOLD, pack_annotations
from hephaestus_build.simulation.world.deformation_sources import SIMULATED_ACTIVITIES
from hephaestus_build.simulation.world.frame_catalog import (
    HIGH_LATITUDE_FRAME,
    ORDINARY_FRAME,
    STRIPMAP_FRAME,
)
from hephaestus_build.simulation.world.world import World
from hephaestus_build.sources.annotations.archive import load_annotations
from small_world import small_world


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def _pair(annotation: dict[str, object]) -> Pair:
    return Pair.parse(f"{annotation['primary_date']}_{annotation['secondary_date']}")


def _mask(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    shapes = [{"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]} for ring in rings]
    return rasterize(shapes, out_shape=shape, dtype="uint8").astype(bool) if shapes else np.zeros(shape, bool)


def test_they_keep_to_the_schema_but_for_the_defects_of_the_real_ones(world: World) -> None:
    validator = jsonschema.Draft202012Validator(load_schema("annotation.json"))
    wrong = {
        (annotation["frameID"], error.json_path, error.instance)
        for name in world.frames
        for annotation in world.annotations(name)
        for error in validator.iter_errors(annotation)
    }
    assert wrong == {(ORDINARY_FRAME, "$.processing_error", 3), (HIGH_LATITUDE_FRAME, "$.glacier_fringes", 2)}


def test_our_reader_reads_them_all_and_reports_the_defects(world: World, tmp_path: Path) -> None:
    path = tmp_path / "annotations.tar.gz"
    path.write_bytes(pack_annotations(entry for name in world.frames for entry in world.annotations(name)))
    with tarfile.open(path) as archive:
        assert all(name.startswith("mnt/shared_storage/simulated/") for name in archive.getnames())
    read = load_annotations(path)
    assert len(read) == sum(len(world.annotations(name)) for name in world.frames)
    text = " ".join(f"{defect.what}" for defect in read.defects)
    assert "processing_error" in text
    assert "glacier" in text
    assert "crowd" in text


def test_packing_is_the_same_bytes_every_time() -> None:
    world = World(size=(60, 70), epochs=4)
    once, again = (
        pack_annotations(one.annotations(ORDINARY_FRAME)) for one in (world, World(size=(60, 70), epochs=4))
    )
    assert once == again
    with tarfile.open(fileobj=io.BytesIO(once)) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        assert member is not None
        assert json.load(member) == world.annotations(ORDINARY_FRAME)[0]


def test_defects_of_the_real_files_occur(world: World) -> None:
    every = [annotation for name in world.frames for annotation in world.annotations(name)]
    counts = [
        (len(entry["activity_type"]), len(entry["intensity_level"]), len(entry["segmentation_mask"]))
        for entry in every
    ]
    assert (2, 1, 1) in counts
    assert any(entry["is_crowd"] and len(entry["segmentation_mask"]) == 1 for entry in every)
    assert {entry["processing_error"] for entry in every} == {0, 2, 3}
    assert {entry["phase"] for entry in every} == {"Rest", "Unrest", "Rebound", "None"}
    for entry in every:
        assert (entry["phase"] == "None") == (entry["label"] == ["Earthquake"])
        assert ("None" in entry["intensity_level"]) == ("Earthquake" in entry["activity_type"])
        assert entry["caption"].endswith("Simulated.")
    for flag in (
        "corrupted",
        "no_info",
        "orbital_fringes",
        "image_artifacts",
        "low_coherence",
        "glacier_fringes",
    ):
        assert any(entry[flag] for entry in every), flag
    assert len({entry["uniqueID"] for entry in every}) == len(every)
    assert min(entry["uniqueID"] for entry in every) > 100_000


@pytest.mark.parametrize("name", [ORDINARY_FRAME, HIGH_LATITUDE_FRAME, STRIPMAP_FRAME])
def test_outlines_enclose_the_ground_that_moved(name: str, world: World) -> None:
    """Converts preview pixels back to the grid with the inverse projection of each era."""
    scene = world.scene(name)
    grid = scene.grid
    width, height = round(0.3 * grid.width), round(0.3 * grid.height)
    northing = np.log(np.tan(np.pi / 4 + np.radians([grid.north, grid.bounds[1]]) / 2))
    checked = 0
    for annotation in world.annotations(name):
        pair = _pair(annotation)
        truth = world.truth_polygons(name, pair)
        if not annotation["segmentation_mask"]:
            assert not truth
            continue
        mercator = name == HIGH_LATITUDE_FRAME or (
            name == STRIPMAP_FRAME and annotation["secondary_date"] >= "20201113"
        )
        drawn, true = [], []
        for flat, (_, corners) in zip(annotation["segmentation_mask"], truth, strict=False):
            x, y = np.array(flat).reshape(-1, 2).T
            assert x.min() >= 0
            assert x.max() <= width
            down = y / height
            if mercator:
                latitude = 2 * np.arctan(np.exp(northing[0] - down * (northing[0] - northing[1]))) - np.pi / 2
                down = (grid.north - np.degrees(latitude)) / (grid.north - grid.bounds[1])
            drawn.append(np.column_stack([x / width * grid.width, down * grid.height]))
            true.append(
                np.column_stack(
                    [(corners[:, 0] - grid.west) / grid.dx, (grid.north - corners[:, 1]) / grid.dy]
                )
            )
        for ring, corners in zip(drawn, true, strict=True):
            same = [np.abs(ring - way).max() for way in (corners, corners[::-1])]
            assert min(same) < 0.01  # pixels of the grid
        parts = [
            scene.source_displacement(source) * growth
            for source, growth in scene.active_sources(pair).items()
        ]
        strong = [part for part in parts if np.abs(part).max() > 0.7 * DEFORMATION_THRESHOLD]
        if len(strong) == 1:
            moved = np.abs(scene.coarse_grid.interpolate(strong[0])) >= DEFORMATION_THRESHOLD
            mask = _mask(drawn, grid.shape)
            assert (mask & moved).sum() / (mask | moved).sum() > 0.85
            assert (mask & ~moved).sum() < 0.05 * mask.sum()
            checked += 1
    assert checked >= 2


def test_mercator_and_linear_differ_where_it_matters(world: World) -> None:
    """On the tall high-latitude frame, ignoring the Mercator projection gives an error of several pixels."""
    grid = world.scene(HIGH_LATITUDE_FRAME).grid
    middle = grid.north - grid.height / 2 * grid.dy
    northing = [
        np.log(np.tan(np.pi / 4 + np.radians(lat) / 2)) for lat in (grid.north, middle, grid.bounds[1])
    ]
    assert abs((northing[0] - northing[1]) / (northing[0] - northing[2]) - 0.5) * grid.height > 2


def test_nothing_is_drawn_where_nothing_is_seen(world: World) -> None:
    for name in world.frames:
        for annotation in world.annotations(name):
            if annotation["corrupted"] or annotation["no_info"]:
                assert annotation["label"] == ["Non_Deformation"]
                assert world.truth_polygons(name, _pair(annotation)) == []


def test_the_small_world_has_every_activity_and_rest_in_each_part_of_the_split(world: World) -> None:
    seen: Counter[str] = Counter()
    split: dict[str, set[bool]] = {"train": set(), "validation": set(), "test": set()}
    for name in world.frames:
        for annotation in world.annotations(name):
            seen.update(annotation["activity_type"])
            day = annotation["primary_date"]
            part = "train" if day < "20190601" else "validation" if day < "20200101" else "test"
            split[part].add(bool(annotation["activity_type"]))
    assert set(seen) == set(SIMULATED_ACTIVITIES)
    assert all(kinds == {True, False} for kinds in split.values())
