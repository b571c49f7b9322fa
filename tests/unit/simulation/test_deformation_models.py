"""Tests of the deformation models: known values, limits and symmetries."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from hephaestus_build.simulation.world.deformation_models import (
    line_of_sight,
    mogi,
    okada,
    sagging_flank,
    spheroid,
)
from hephaestus_build.simulation.world.deformation_sources import ActivityHistory


def _table(x: float, y: float, depth: float, dip: float, slip: str) -> np.ndarray:
    """Okada's own arrangement (1985, table 2): x along strike and y from the lower edge's end, L=3, W=2."""
    sine, cosine = np.sin(np.radians(dip)), np.cos(np.radians(dip))
    east, north = np.array([x - 1.5]), np.array([y - cosine])
    return okada(east, north, depth=depth - sine, length=3.0, width=2.0, strike=90.0, dip=dip, **{slip: 1.0})[
        :, 0
    ]


@pytest.mark.parametrize(
    ("x", "y", "dip", "slip", "expected"),
    [
        (2, 3, 70, "strike_slip", (-8.689e-3, -4.298e-3, -2.747e-3)),
        (2, 3, 70, "dip_slip", (-4.682e-3, -3.527e-2, -3.564e-2)),
        (2, 3, 70, "opening", (-2.660e-4, 1.056e-2, 3.214e-3)),
        (0, 0, 90, "strike_slip", (0, 5.253e-3, 0)),
        (0, 0, 90, "dip_slip", (0, 0, 0)),
        (0, 0, 90, "opening", (1.223e-2, 0, -1.606e-2)),
    ],
)
def test_okada_gives_his_published_check_values(
    x: float, y: float, dip: float, slip: str, expected: tuple[float, ...]
) -> None:
    assert _table(x, y, 4.0, dip, slip) == pytest.approx(expected, rel=5e-4, abs=1e-9)


def _profile(reach: float = 20_000.0) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-reach, reach, 81)
    return np.meshgrid(axis, axis)


def test_mogi_peaks_above_the_source_and_lifts_his_volume() -> None:
    east, north = _profile()
    up = mogi(east, north, depth=3000.0, volume=1e6)[2]
    assert up.max() == up[40, 40] == pytest.approx(0.75 * 1e6 / (np.pi * 3000.0**2))
    assert np.array_equal(up, up.T)
    radius = np.geomspace(1.0, 3e7, 20_000)
    lifted = np.trapezoid(2 * np.pi * radius * mogi(radius, 0 * radius, depth=3000.0, volume=1e6)[2], radius)
    assert lifted == pytest.approx(2 * (1 - 0.25) * 1e6, rel=1e-3)


def test_a_round_spheroid_is_mogi() -> None:
    east, north = _profile()
    # three equal openings of total potency V move the ground as a sphere that grows by V (1+nu)/(3(1-nu))
    sphere = mogi(east, north, depth=3000.0, volume=1e6)
    assert spheroid(east, north, depth=3000.0, volume=1.8e6, elongation=1.0) == pytest.approx(
        sphere, rel=5e-3, abs=2e-4 * sphere.max()
    )
    pipe = spheroid(east, north, depth=3000.0, volume=1.8e6, elongation=3.0)
    pancake = spheroid(east, north, depth=3000.0, volume=1.8e6, elongation=0.0)
    assert pipe[2].max() < sphere[2].max() < pancake[2].max()
    for moved in (pipe, pancake):
        assert moved[2] == pytest.approx(moved[2].T, abs=1e-9)


def test_a_level_sill_lifts_and_an_upright_dyke_parts_the_ground() -> None:
    east, north = _profile()
    sill = okada(east, north, depth=3000, length=4000, width=4000, strike=0, dip=0, opening=0.5)
    assert np.unravel_index(sill[2].argmax(), sill[2].shape) == (40, 40)
    assert sill[2] == pytest.approx(sill[2, ::-1, ::-1], abs=1e-9)
    dyke = okada(east, north, depth=3000, length=6000, width=3000, strike=0, dip=90, opening=0.5)
    assert dyke[0] == pytest.approx(-dyke[0][:, ::-1], abs=1e-9)  # both sides move apart
    assert dyke[0][40, 45] > 0 > dyke[0][40, 35]
    assert dyke[2][40, 40] < dyke[2][40, 48]  # a trough above it


def test_strike_turns_the_pattern() -> None:
    east, north = _profile()
    shape = {"depth": 4000.0, "length": 7000.0, "width": 3000.0, "dip": 60.0, "dip_slip": 1.0}
    straight = okada(east, north, strike=0.0, **shape)
    turned = okada(north, -east, strike=90.0, **shape)  # the same points seen from a quarter turn
    assert turned[2] == pytest.approx(straight[2], abs=1e-9)
    assert turned[0] == pytest.approx(straight[1], abs=1e-9)


def test_a_source_that_reaches_the_surface_is_refused() -> None:
    with pytest.raises(ValueError, match="reaches the surface"):
        okada(np.zeros(1), np.zeros(1), depth=1000, length=1000, width=2000, strike=0, dip=90)


def test_a_sagging_flank_moves_down_and_outwards() -> None:
    moved = sagging_flank(np.zeros(1), np.zeros(1), radius=800, azimuth=90, drop=0.1)[:, 0]
    assert moved == pytest.approx([0.08, 0.0, -0.1])


@pytest.mark.parametrize(("heading", "east"), [(-12.0, -1), (-168.0, 1)])
def test_satellites_look_right(heading: float, east: int) -> None:
    """An ascending satellite is west of the target, a descending one east of it."""
    sight = line_of_sight(39.0, heading)
    assert np.linalg.norm(sight) == pytest.approx(1, abs=1e-6)
    assert np.sign(sight[0]) == east
    assert sight[2] == pytest.approx(np.cos(np.radians(39)), abs=1e-6)


def test_episodes_come_back_grow_and_relax() -> None:
    history = ActivityHistory(date(2019, 3, 1), period=200, duration=20, rebound=0.5)
    first = (date(2019, 3, 1) - date(2014, 1, 1)).days
    level = {
        day: history.cumulative_growth(first + day, 7, "source") for day in (-10, 0, 10, 20, 60, 199, 225)
    }
    assert level[-10] == pytest.approx(level[0], abs=0.01)
    assert level[10] - level[0] == pytest.approx(level[20] - level[10], abs=0.01)
    grown = level[20] - level[0]
    assert 0.69 < grown < 1.31
    assert level[20] - level[60] == pytest.approx(0.5 * grown * (1 - np.exp(-2)), abs=0.01)
    assert level[225] > level[199] + 0.3
    assert level[60] != ActivityHistory(date(2019, 3, 1), 200, 20, 0.5).cumulative_growth(
        first + 60, 8, "source"
    )


def test_an_earthquake_is_a_step() -> None:
    day = date(2019, 9, 20)
    history = ActivityHistory(day, period=408, duration=0)
    before, after, later = (
        history.cumulative_growth((day + timedelta(days=late) - date(2014, 1, 1)).days, 0, "fault")
        for late in (0, 1, 300)
    )
    assert after > before + 0.6
    assert later == after
