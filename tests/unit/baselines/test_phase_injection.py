"""Tests of sources and of adding their phase: checked against formulas that are written out again here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_baselines.data.buried_sources import SOURCE_KINDS, BuriedSource, draw_source
from hephaestus_baselines.detectability.phase_injection import (
    RadarGeometry,
    coherence_after_slope,
    inject_phase,
)
from hephaestus_baselines.detectability.source_placement import place_source, read_radar_geometry
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.grid import Grid

WAVELENGTH = 0.0554658
STATED = {
    "radar_wavelength_m": WAVELENGTH,
    "phase_sign": "positive_away_from_satellite",
    "incidence_angle_deg": 39.0,
    "platform_heading_deg": -10.0,
    "look_direction": "right",
}
GRID = Grid(96, 80, 14.0, 41.0, 0.001, 0.001)
angles = st.floats(-3.125, 3.125, width=32)


def wrap(angle):
    return np.angle(np.exp(1j * np.asarray(angle, np.float64)))


def window(shape=(80, 80), seed=0):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(-3.1, 3.1, shape).astype("f4")
    phase[:5] = 0
    coherence = rng.integers(20, 250, shape).astype("u1")
    coherence[:5] = 0
    return phase, coherence


@given(offset=angles)
def test_a_flat_phase_turns_the_signal_and_changes_nothing_else(offset):
    phase, coherence = window((16, 16))
    turned, kept = inject_phase(phase, coherence, np.full(phase.shape, offset), np.random.default_rng(0))
    np.testing.assert_array_equal(kept, coherence)
    np.testing.assert_array_equal(turned == 0, phase == 0)
    seen = phase != 0
    np.testing.assert_allclose(wrap(turned[seen] - phase[seen] - np.float64(offset)), 0, atol=2e-6)
    assert np.abs(turned).max() < np.pi


def test_a_steep_slope_costs_the_coherence_that_averaging_over_the_pixel_costs():
    """Looks of a pixel are averaged here one by one, instead of by the formula."""
    slope = 2 * np.pi / 3
    added = slope * np.broadcast_to(np.arange(200.0), (200, 200))
    looks = np.exp(1j * slope * (np.arange(1000) + 0.5) / 1000)
    averaged = abs(looks.mean())
    np.testing.assert_allclose(coherence_after_slope(added), averaged, rtol=1e-5)
    phase, coherence = np.full((200, 200), 1.0, "f4"), np.full((200, 200), 230, "u1")
    turned, estimate = inject_phase(phase, coherence, added, np.random.default_rng(1))
    signal = estimate / 255 * np.exp(1j * (turned - 1.0 - added))
    assert signal.mean().real == pytest.approx(averaged * 230 / 255, rel=0.01)
    # circular noise of variance (1 - a^2) / 2L in each component, for L = 14 looks
    assert signal.imag.std() == pytest.approx(np.sqrt((1 - averaged**2) / 28), rel=0.05)


def test_a_pixel_of_a_fringe_and_more_has_lost_its_signal():
    added = 2.2 * np.pi * np.broadcast_to(np.arange(64.0), (64, 64))
    np.testing.assert_allclose(coherence_after_slope(added), 0, atol=1e-12)


@pytest.mark.parametrize("kind", SOURCE_KINDS)
def test_displacement_is_linear_in_the_volume_change_and_largest_near_the_source(kind):
    source = draw_source(kind, np.random.default_rng(3))
    east, north = np.meshgrid(np.linspace(-2e4, 2e4, 41), np.linspace(-2e4, 2e4, 41))
    once, thrice = source.displacement(east, north), source.scaled(-3).displacement(east, north)
    np.testing.assert_allclose(thrice, -3 * once, rtol=1e-6, atol=1e-12)
    size = np.linalg.norm(once, axis=0)
    assert np.hypot(east, north)[np.unravel_index(size.argmax(), size.shape)] < 15_000


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(SOURCE_KINDS))
def test_every_drawn_source_stays_below_the_surface(seed, kind):
    source = draw_source(kind, np.random.default_rng(seed))
    top = source.depth - source.shape.get("width", 0) / 2 * np.sin(np.radians(source.shape.get("dip", 0)))
    assert top >= 199
    assert source.volume == 1e6


def test_the_phase_of_a_sphere_equals_mogis_formula_seen_along_the_line_of_sight():
    """Everything is computed again from the formula, for the pixel below which the source lies and others."""
    source = BuriedSource("mogi", 3_000.0, 2e6)
    geometry = read_radar_geometry("124D_04854_171313", STATED)
    data = np.ones((64, 64), bool)
    placed = place_source(source, (10, 12), (40, 50), GRID, geometry, data, np.full((1, 64, 64), 128, "u1"))
    assert placed is not None
    metres = 6_371_000.0 * np.pi / 180
    rows, columns = np.mgrid[10:74, 12:76]
    latitude = 41.0 - 40.5 * 0.001
    east = (columns - 50) * 0.001 * metres * np.cos(np.radians(latitude))
    north = -(rows - 40) * 0.001 * metres
    radius = np.sqrt(east**2 + north**2 + 3_000.0**2)
    factor = 0.75 * 2e6 / np.pi / radius**3
    slant, flight = np.radians(39.0), np.radians(-10.0)
    to_satellite = np.array([-np.sin(slant) * np.cos(flight), np.sin(slant) * np.sin(flight), np.cos(slant)])
    towards = (
        to_satellite[0] * east * factor + to_satellite[1] * north * factor + to_satellite[2] * 3e3 * factor
    )
    largest = np.abs(towards).max()
    np.testing.assert_allclose(placed.towards, towards / largest, rtol=1e-5, atol=1e-8)
    assert placed.source.volume == pytest.approx(2e6 / largest)
    np.testing.assert_allclose(
        geometry.phase_of(0.02 * placed.towards), -4 * np.pi / WAVELENGTH * 0.02 * towards / largest,
        rtol=1e-5, atol=1e-7,
    )  # fmt: skip
    pixel = 0.001 * metres
    half = (np.abs(towards) >= largest / 2).sum() * pixel**2 * np.cos(np.radians(41 - 0.04)) / 1e6
    assert placed.extent_km2 == pytest.approx(half, rel=1e-3)
    assert placed.coherence == pytest.approx(128 / 255)


def test_only_pixels_with_data_decide_how_large_a_source_is_seen():
    source = draw_source("mogi", np.random.default_rng(0))
    geometry = read_radar_geometry("124D_04854_171313", STATED)
    data = np.zeros((64, 64), bool)
    data[:, 60:] = True  # far from the source: what is nearer has no data
    placed = place_source(source, (0, 0), (32, 5), GRID, geometry, data, np.full((1, 64, 64), 100, "u1"))
    assert placed is not None
    assert np.abs(placed.towards[data]).max() == pytest.approx(1)
    assert np.abs(placed.towards).max() > 1
    nothing = np.zeros((64, 64), bool)
    assert place_source(source, (0, 0), (32, 5), GRID, geometry, nothing, np.zeros((1, 64, 64), "u1")) is None


def test_the_stated_sign_and_side_of_the_radar_are_followed():
    up = np.zeros((3, 4, 4))
    up[2] = 0.01
    away = read_radar_geometry("124D_04854_171313", STATED)
    towards = read_radar_geometry("F", {**STATED, "phase_sign": "positive_towards_satellite"})
    assert away.phase_of(away.displacement_to_satellite(up)).max() < 0
    assert towards.phase_of(towards.displacement_to_satellite(up)).min() > 0
    left = read_radar_geometry("F", {**STATED, "look_direction": "left"})
    np.testing.assert_allclose(left.look[:2], -away.look[:2])
    assert left.look[2] == away.look[2]


def test_look_vectors_of_the_cube_stand_in_for_the_mean_angles():
    look = np.full((3, 4, 4), np.nan)
    look[:, :2] = np.array([0.5, 0.1, 0.86])[:, None, None]
    stated = {name: STATED[name] for name in ("radar_wavelength_m", "phase_sign")}
    geometry = read_radar_geometry("F", stated, look)
    np.testing.assert_allclose(geometry.look[:, 3, 3], [0.5, 0.1, 0.86])
    assert isinstance(geometry, RadarGeometry)


def test_a_cube_that_does_not_state_its_geometry_is_refused_by_name():
    stated = {**STATED, "incidence_angle_deg": ""}
    with pytest.raises(HephaestusError, match=r"124D_04854_171313: .* not state incidence_angle_deg"):
        read_radar_geometry("124D_04854_171313", stated)
