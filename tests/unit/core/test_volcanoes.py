"""Tests of the catalogue of volcanoes, and that it contains every volcano of the registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.bounds import Bounds, great_circle_km
from hephaestus_build.core.frame_search import approximate_bounds, volcanoes_of
from hephaestus_build.core.registry import PublishedFrame, published_frames, schema_path
from hephaestus_build.core.volcanoes import (
    VolcanoCone,
    fold_name,
    load_volcanoes,
    nearest_volcano,
    parse_volcanoes,
    volcanoes_inside,
    volcanoes_named,
)

FRAMES = list(published_frames().values())


def named(text: str) -> VolcanoCone:
    [volcano] = volcanoes_named(text)
    return volcano


def test_a_volcano_is_one_row_with_name_coordinates_and_aliases() -> None:
    volcanoes = load_volcanoes()
    assert len(volcanoes) == 1612
    assert len({(v.catalogue_name, v.latitude, v.longitude) for v in volcanoes}) == len(volcanoes)
    assert sum(v.catalogued for v in volcanoes) == 1599
    assert {v.smithsonian_number for v in volcanoes} == {None}
    assert all((v.latitude is None) == (v.longitude is None) for v in volcanoes)
    assert all(abs(v.latitude or 0) <= 90 and abs(v.longitude or 0) <= 180 for v in volcanoes)
    assert "Source: NOAA" in schema_path("volcanoes.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("catalogue_name", "name"),
    [
        ("Etna", "Etna"),
        ("Negra, Sierra", "Sierra Negra"),
        ("Fournaise, Piton de la", "Piton de la Fournaise"),
        ("Est, Ile de l'", "Ile de l'Est"),
    ],
)
def test_a_name_is_the_catalogues_in_reading_order(catalogue_name: str, name: str) -> None:
    assert VolcanoCone(catalogue_name).name == str(VolcanoCone(catalogue_name)) == name


@pytest.mark.parametrize(
    "spelling", ["Sierra Negra", "Negra, Sierra", "sierra_negra", " SIERRA  NEGRA", "Sierra-Negrá"]
)
def test_any_spelling_finds_the_volcano(spelling: str) -> None:
    assert named(spelling).catalogue_name == "Negra, Sierra"


def test_other_names_are_aliases_of_one_volcano() -> None:
    assert named("la_gloria") is named("La, Gloria") is named("Gloria, La")
    assert named("Nyamuragira") is named("Nyamulagira")
    assert named("Hualalai2") is named("Hualalai")
    assert named("white_island") is named("Whakaari/White Island")
    assert named("azul").latitude == pytest.approx(-35.653)
    assert [v.latitude for v in volcanoes_named("Cerro Azul")] == [-35.653, -0.92]
    assert volcanoes_named("Atlantis") == volcanoes_named("") == volcanoes_named("火山") == ()


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    once = fold_name(text)
    assert fold_name(once) == once
    assert not set(once) - set("abcdefghijklmnopqrstuvwxyz0123456789 ")


def test_a_number_is_read_where_a_table_has_one() -> None:
    lines = ["# a comment\n", "name,latitude,longitude,elevation_m,type,smithsonian_number,aliases\n"]
    [found] = parse_volcanoes([*lines, "Esempio,1.5,-2,,,123456,Monte E;E\n"])
    assert found == VolcanoCone("Esempio", 1.5, -2.0, None, "", 123456, ("Monte E", "E"))
    with pytest.raises(ValueError, match="could not convert"):
        parse_volcanoes([*lines, "Esempio,north,-2,,,,\n"])


def test_the_nearest_and_those_inside() -> None:
    assert nearest_volcano(37.7, 15.1).name == "Etna"
    assert nearest_volcano(37.7, 15.1, [VolcanoCone("Nowhere"), named("Stromboli")]).name == "Stromboli"
    aeolian = volcanoes_inside(Bounds(14.5, 37.5, 15.5, 39))
    assert [volcano.name for volcano in aeolian] == ["Etna", "Lipari", "Panarea", "Stromboli", "Vulcano"]
    around_180 = volcanoes_inside(Bounds(179.5, 51, -178, 53))
    assert [v.name for v in around_180] == ["Gareloi", "Semisopochnoi", "Takawangha", "Tanaga"]


def test_boxes_on_a_globe() -> None:
    pacific = Bounds(170, -50, -170, -30)
    assert pacific.contains(-40, 175)
    assert pacific.contains(-40, -175)
    assert pacific.contains(-40, 185)
    assert not pacific.contains(-40, 0)
    assert pacific.intersects(Bounds(-175, -60, -171, -45))
    assert not pacific.intersects(Bounds(-169, -60, -160, -45))
    assert not pacific.intersects(Bounds(172, -29, 175, 0))
    assert Bounds(-180, -90, 180, 90).intersects(pacific)
    assert Bounds(0, -90, 360, 90).contains(0, -10)
    assert great_circle_km(0, 179.5, 0, -179.5) == pytest.approx(111.2, abs=0.1)
    assert great_circle_km(90, 0, -90, 50) == pytest.approx(20015, abs=1)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.id)
def test_every_volcano_of_a_frame_is_one_of_the_catalogue_and_lies_in_it(frame: PublishedFrame) -> None:
    volcanoes, bounds = volcanoes_of(frame), approximate_bounds(frame)
    assert [volcano.name for volcano in volcanoes] == list(frame.volcanoes)
    assert len(set(volcanoes)) == len(volcanoes) > 0
    for volcano in volcanoes:
        if volcano.latitude is not None and volcano.longitude is not None:
            assert bounds.contains(volcano.latitude, volcano.longitude)
    assert frame.places


def test_the_registry_has_177_volcanoes_13_of_them_not_in_the_catalogue() -> None:
    volcanoes = {volcano for frame in FRAMES for volcano in volcanoes_of(frame)}
    assert len(volcanoes) == 177
    assert sorted(volcano.name for volcano in volcanoes if not volcano.catalogued) == [
        volcano.name for volcano in load_volcanoes() if not volcano.catalogued
    ]


def test_no_volcano_of_the_catalogue_is_in_two_regions() -> None:
    regions: dict[VolcanoCone, set[str]] = {}
    for frame in FRAMES:
        for volcano in volcanoes_of(frame):
            regions.setdefault(volcano, set()).add(frame.region)
    assert all(len(names) == 1 for names in regions.values())


def test_footprints_from_bursts_agree_with_those_that_annotations_imply() -> None:
    from dataclasses import replace

    known = [frame for frame in FRAMES if frame.implied_from == "volcanoes"]
    assert len(known) == 16
    for frame in known:
        implied = approximate_bounds(frame)
        derived = approximate_bounds(replace(frame, implied_shape=None))
        assert derived == pytest.approx(implied, abs=0.3), frame.id


def test_every_spelling_of_the_data_set_is_a_name_or_an_alias(shared_data: Path) -> None:
    path = shared_data / "frame_names.json"
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not here")
    spellings = set()
    for frame, text in json.loads(path.read_text(encoding="utf-8")).items():
        listed = volcanoes_of(published_frames()[frame])
        for spelling in text.replace("La, Gloria", "La; Gloria").split(", "):
            spelling = spelling.replace(";", ",")
            spellings.add(spelling)
            assert any(spelling in (v.catalogue_name, *v.aliases) for v in listed), spelling
    assert len(spellings) == 179
