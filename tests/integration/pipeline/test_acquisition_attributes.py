"""Tests of what a cube says of its acquisitions: geometry, sign of phase, DEM, as the archive states them."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from archives import ALL, FRAME, copied, frame_store_of, settings_for
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.global_attributes import complete_metadata
from hephaestus_build.pipeline.prepare import prepare_build
from hephaestus_build.simulation.server.faults import error_status, replace_body
from hephaestus_build.simulation.world.frame_scene import RADIANS_PER_METRE
from hephaestus_build.sources.interferograms import AcquisitionGeometry, FrameMetadata, PhaseConvention
from hephaestus_build.sources.licsar.portal import LicsarPortal


def metadata_of(archive) -> dict[str, str]:
    """Return the lines of the archive's metadata.txt."""
    lines = archive.archive.world.frame_files(FRAME)._metadata_text().splitlines()
    return dict(line.split("=") for line in lines)


@pytest.fixture
def cube(whole_cube):
    return open_pinned_cube(frame_store_of(settings_for(whole_cube)).published_link)


def test_a_cube_states_the_geometry_that_the_archive_states(archive, cube):
    stated, said = metadata_of(archive), cube.attrs
    assert said["platform_heading_deg"] == float(stated["heading"])
    assert said["incidence_angle_deg"] == float(stated["avg_incidence_angle"])
    assert said["radar_wavelength_m"] == pytest.approx(0.05546576)
    assert said["look_direction"] == "right"
    assert said["primary_is_earlier"] == 1
    assert said["processor"] == "simulated"
    assert said["dem_source"] == cube.dem.attrs["dem_source"] == stated["applied_DEM"]
    assert (cube.epoch_satellite == "").all()  # no satellite saw it
    assert (cube.primary_date.values.min(), cube.secondary_date.values.max()) == (
        cube.epoch.values[0],
        cube.epoch.values[-1],
    )


def test_phase_has_the_sign_that_the_cube_states(archive, cube):
    """The atmosphere, which is known here, taken off, phase is the stated multiple of the displacement."""
    assert cube.attrs["phase_sign"] == "positive_away_from_satellite"
    assert "= -phase * radar_wavelength_m / (4 pi)" in cube.attrs["sign_convention"]
    scene = archive.archive.world.scene(FRAME)
    moved = {pair: scene.displacement(pair) for pair in scene.pairs}
    pair = max(moved, key=lambda pair: np.ptp(moved[pair][scene.valid_mask]))
    displacement = moved[pair]  # towards the satellite, m
    assert np.ptp(displacement) > 0.02
    phase = cube.insar_difference.sel(
        primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
    ).values
    air = (scene.zenith_delay(pair.secondary) - scene.zenith_delay(pair.primary)) / scene.line_of_sight[2]
    rest = np.exp(1j * (phase - air * RADIANS_PER_METRE))[phase != 0]
    stated = 4 * np.pi / cube.attrs["radar_wavelength_m"] * -displacement[phase != 0]
    agreement = {sign: abs((rest * np.exp(-1j * sign * stated)).mean()) for sign in (1, -1)}
    assert agreement[1] > agreement[-1] + 0.1


def test_licsars_sign_is_stated_with_its_evidence():
    convention = LicsarPortal.credit.phase
    assert convention.positive == "away"
    assert convention.evidence in convention.description
    towards = PhaseConvention("towards", "a test").description
    assert "shorter" in towards
    assert "= phase * radar" in towards


def without(*keys):
    """Return a fault that serves metadata.txt without some lines."""

    def cut(body: bytes) -> bytes:
        return b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(keys))

    return replace_body(cut)


def test_what_the_archive_does_not_state_is_left_out(upstream, tmp_path):
    settings = settings_for(tmp_path / "data")
    upstream.faults.add(r"/metadata\.txt$", without(b"heading", b"applied_DEM"))
    assert build(ALL, settings).exit_code == 0
    made = open_pinned_cube(frame_store_of(settings).published_link)
    assert {"platform_heading_deg", "dem_source"} & made.attrs.keys() == set()
    assert "dem_source" not in made.dem.attrs
    assert "incidence_angle_deg" in made.attrs
    assert check_schema(frame_store_of(settings).published_link) == []


def test_a_cube_keeps_what_the_archive_stated_when_it_no_longer_answers(upstream, whole_cube, tmp_path):
    settings = settings_for(copied(whole_cube, tmp_path / "data"), cache_dir=tmp_path / "empty")
    frame_store = frame_store_of(settings)
    before = open_pinned_cube(frame_store.published_link).attrs
    upstream.faults.add(r"/metadata\.txt$", error_status(503))
    context = prepare_build(ALL, settings, frame_store).context
    assert not context.metadata.receipt.ok
    assert context.metadata.geometry.heading_deg == before["platform_heading_deg"]
    assert context.metadata.dem_source == before["dem_source"]


def test_what_the_archive_states_now_counts_before_what_a_cube_says(whole_cube):
    current = frame_store_of(settings_for(whole_cube)).published_generation()
    published = replace(current.read_inventory(), satellites={"20190101": "S1A", "20190113": "S1B"})
    found = FrameMetadata(
        timedelta(hours=5),
        {},
        Receipt("metadata.txt", Outcome.UNREACHABLE),
        AcquisitionGeometry(heading_deg=-7.0),
        satellite=lambda day: "S1C" if day == date(2019, 1, 1) else "",
    )
    whole = complete_metadata(found, published)
    assert whole.geometry.heading_deg == -7.0
    assert whole.geometry.incidence_deg == published.attributes["incidence_angle_deg"]
    assert [whole.satellite(date(2019, 1, day)) for day in (1, 13, 25)] == ["S1C", "S1B", ""]
