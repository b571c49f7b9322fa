"""Tests of the selection of a frame's reference grid."""

from __future__ import annotations

from dataclasses import replace

from hephaestus_build.core.grid import Grid
from hephaestus_build.pipeline.frame_grid import grids_compatible, select_reference_grid


def test_grids_of_one_frame_are_alike_and_others_are_not():
    whole = Grid(100, 80, 10.0, 20.0, 0.001, 0.001)
    assert grids_compatible(whole, replace(whole, west=10.0005, width=90))
    assert not grids_compatible(whole, replace(whole, width=40))
    assert not grids_compatible(whole, replace(whole, west=20.0))
    assert not grids_compatible(whole, replace(whole, dx=0.01, dy=0.01, width=10, height=8))


def test_a_dem_is_believed_if_one_interferogram_bears_it_out_and_most_count_without():
    whole = Grid(100, 80, 10.0, 20.0, 0.001, 0.001)
    astray, cut = replace(whole, west=20.0), replace(whole, width=30)
    assert select_reference_grid(whole, []) == whole
    assert select_reference_grid(whole, [astray, replace(whole, width=99)]) == whole
    assert select_reference_grid(astray, [cut, whole, whole]) == whole
    assert select_reference_grid(None, [cut, whole, whole]) == whole
    assert select_reference_grid(None, [cut, whole]) == cut
    assert select_reference_grid(None, []) is None


def test_longitudes_of_another_turn_are_the_same_place():
    whole = Grid(100, 80, 179.96, 20.0, 0.001, 0.001)
    for turns in (-1, 1):
        there = replace(whole, west=whole.west + 360 * turns)
        assert there.same_as(whole)
        assert there.in_turn_of(whole) == whole
        assert grids_compatible(there, replace(whole, width=90))
        assert not grids_compatible(replace(there, west=there.west + 180), whole)


def test_the_first_turn_has_the_middle_of_the_grid_in_it():
    whole = Grid(200, 80, 179.85, 20.0, 0.001, 0.001)
    assert whole.in_first_turn() is whole
    assert replace(whole, west=-180.15).in_first_turn() == replace(whole, west=179.85)
    assert replace(whole, west=539.95).in_first_turn() == replace(whole, west=-180.05)
    assert replace(whole, west=180.0 - 0.1).in_first_turn().west == -180.1
    assert replace(whole, west=335.7003744).in_first_turn().west == -24.2996256
