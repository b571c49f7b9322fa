"""Tests of cubes whose atmosphere comes in tiles that frames share, and of cubes begun in another form."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archives import frame_store_of, objects, reached
from era5_servers import fields
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.repair import repair
from hephaestus_build.pipeline.build import plan
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS
from moved_frames import moved

FIRST, SECOND = Frame("198A_00210_131313"), Frame("199A_00211_131313")
TILE = [42.5, -35.0, 27.5, -15.0]


@pytest.fixture(scope="module")
def served() -> Iterator[ArchiveServer]:
    """Two frames a degree apart, and a CDS that packs values by the area that is asked for."""
    spec = FRAME_SPECS[0]
    places = [
        replace(moved(spec, spec.longitude + number, spec.latitude), id=str(frame))
        for number, frame in enumerate((FIRST, SECOND))
    ]
    with ArchiveServer(epochs=4, size=(50, 60), places=places, oddities=()) as server:
        server.archive.make_all_files()
        server.cds.grib_packing = True
        server.cds.fields = fields  # the world's are multiples of steps that packing leaves as they are
        yield server


@pytest.fixture(autouse=True)
def archive(served: ArchiveServer) -> Iterator[ArchiveServer]:
    with reached(served):
        served.cds.jobs.clear()
        yield served


def settings_for(data: Path, **options: Any) -> Settings:
    return load_settings(data_dir=data, era5="cds", **options).for_simulated()


def built(data: Path, *requests: BuildRequest, **options: Any) -> dict[str, dict[str, list[Any]]]:
    """Build frames one after the other; return the objects of their cubes."""
    settings = settings_for(data, **options)
    assert all(run.exit_code == 0 for run in build_frames(requests, settings))
    return {str(item.frame): objects(settings, item.frame) for item in requests}


def areas_asked(server: ArchiveServer) -> list[list[float]]:
    return [job.inputs["area"] for job in server.cds.jobs.values()]


def all_of(frame: Frame, limit: int | None = None) -> BuildRequest:
    return BuildRequest(frame, pairs="all", limit=limit)


def test_cubes_are_the_same_whichever_frame_of_a_tile_was_built_first(archive, tmp_path):
    first, second = all_of(FIRST), all_of(SECOND)
    expected = plan(first, settings_for(tmp_path / "a", era5_area="tile")).era5_cost
    together = built(tmp_path / "a", first, second, era5_area="tile")
    jobs = areas_asked(archive)
    assert set(map(tuple, jobs)) == {tuple(TILE)}
    assert len(jobs) == expected.requests  # the second frame, with the same dates, asked for nothing
    assert built(tmp_path / "b", second, first, era5_area="tile") == together
    # values of a frame's own area are packed otherwise
    assert built(tmp_path / "c", first)[str(FIRST)] != together[str(FIRST)]


@pytest.mark.parametrize(("begun", "later"), [("frame", "tile"), ("tile", "frame")])
def test_a_cube_keeps_the_form_that_it_was_begun_in(archive, tmp_path, begun, later, caplog):
    few, every = all_of(FIRST, limit=2), all_of(FIRST)
    built(tmp_path / "grown", few, era5_area=begun)
    asked_before = areas_asked(archive)
    with caplog.at_level("INFO"):
        grown = built(tmp_path / "grown", every, era5_area=later)
    assert f"begun with era5_area: {begun} and keeps it; a new cube takes {later}" in caplog.text
    assert set(map(tuple, areas_asked(archive))) == set(map(tuple, asked_before))
    assert grown == built(tmp_path / "once", every, era5_area=begun)


def test_a_damaged_atmosphere_of_a_tile_is_made_again(archive, tmp_path):
    whole = built(tmp_path, all_of(FIRST), era5_area="tile")
    settings = settings_for(tmp_path)  # of another form
    current = frame_store_of(settings, FIRST).published_generation()
    path = next(path for path in whole[str(FIRST)] if "era5_surface_pressure/c" in path)
    damaged = current.store / path
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert verify_generation(current)
    shutil.rmtree(settings.downloads_dir / "era5")
    archive.cds.jobs.clear()
    repair(FIRST, settings)
    assert set(map(tuple, areas_asked(archive))) == {tuple(TILE)}
    assert not verify_generation(frame_store_of(settings, FIRST).published_generation())
    assert objects(settings, FIRST) == whole[str(FIRST)]
