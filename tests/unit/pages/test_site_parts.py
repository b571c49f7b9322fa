"""Tests of the pure parts of a site: map, names of pages, feed, index, pages of volcanoes, status."""

from __future__ import annotations

import json
import math
import re
from datetime import date
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.registry import load_schema
from hephaestus_build.core.volcanoes import load_volcanoes
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.pages.site.benchmark_page import read_leaderboard, render_benchmark_page
from hephaestus_build.pages.site.card_page import read_card, render_card_page
from hephaestus_build.pages.site.feed import render_feed
from hephaestus_build.pages.site.index_page import SiteTotals, latency_level, owed_level, render_index_page
from hephaestus_build.pages.site.site_values import (
    FrameDigest,
    SiteFrame,
    SitePair,
    SiteVolcano,
    name_pages,
)
from hephaestus_build.pages.site.status_document import encode_status, make_status_document
from hephaestus_build.pages.site.volcano_pages import group_by_volcano, render_volcano_page
from hephaestus_build.pages.site.world_map import WORLD, choose_view, draw_footprint, trace_land
from html_elements import HtmlElements

FEED = "6f6d7a52-6a0e-4a53-9d5d-0a1f3c9f2f11"
TOTALS = SiteTotals(False, "1", "2026-11-28T03:00:00Z")
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(1)">&"'
ETNA = SiteVolcano(name="Etna", latitude=37.748, longitude=14.999, elevation=3320)


def a_frame(name: str = "124D_05291_081406", newest: str = "2026-11-20", **values) -> SiteFrame:
    pair = SitePair(
        name="20261108_20261120", primary="2026-11-08", secondary="2026-11-20", arrived="2026-11-21T04:00:00Z"
    )
    digest = FrameDigest(
        bounds=(13.5, 36.5, 16.5, 38.5),
        volcanoes=(ETNA,),
        pairs=(pair,),
        arrived=1,
        pictured=(pair.name,),
        grid=(13.5, 38.5, 3.0, 2.0),
    )
    given = {
        "direction": "ascending" if name[3] == "A" else "descending",
        "track": int(name[:3]),
        "simulated": False,
        "digest": digest,
        "page": True,
        "generation": 1,
        "built": "2026-11-21T05:00:00Z",
        "pairs": 10,
        **values,
    }
    return SiteFrame(frame=name, newest=newest, **given)


def test_every_volcano_has_a_page_of_its_own_whatever_the_site_holds() -> None:
    cones = [cone for cone in load_volcanoes() if cone.catalogued]
    names = name_pages(load_volcanoes())
    assert len(set(names.values())) == len({(one.name, one.latitude, one.longitude) for one in cones})
    assert all(re.fullmatch(r"[a-z0-9-]{1,120}", slug) for slug in names.values())
    assert ETNA.slug == "etna"
    azul = {slug for (name, *_), slug in names.items() if name == "Cerro Azul"}
    assert len(azul) == 2
    assert "cerro-azul" not in azul


def test_a_map_shows_the_frames_or_the_world() -> None:
    assert choose_view([]) == WORLD
    assert choose_view([(-70, -30, -68, -28), (140, 30, 142, 32)]) == WORLD
    west, north, width, height = choose_view([(13, 36, 16, 39), (-24, 63, -18, 65)])
    assert west < -24
    assert west + width > 16
    assert north < -65
    assert north + height > -36


@pytest.mark.parametrize(("direction", "lean"), [("ascending", -1), ("descending", 1)])
def test_outlines_lean_as_the_satellite_flies_within_their_bounds(direction: str, lean: int) -> None:
    points = [
        tuple(map(float, one.split(","))) for one in draw_footprint((13, 36, 16, 39), direction).split()
    ]
    (bottom, top) = points[0], points[3]
    assert (top[0] - bottom[0]) * lean > 0
    assert {round(min(x for x, _ in points), 1), round(max(x for x, _ in points), 1)} == {13, 16}
    assert {round(min(-y for _, y in points), 1), round(max(-y for _, y in points), 1)} == {36, 39}


def test_the_map_has_the_small_islands_that_frames_see() -> None:
    azores, etna = (-26.5, 37.0, -24.5, 38.5), (13.5, 36.5, 16.5, 38.5)
    bare = trace_land([])
    assert trace_land([azores]).startswith(bare)
    assert len(bare) < len(trace_land([azores])) < len(trace_land([azores, etna])) < len(bare) + 10_000


def test_colours_follow_latency_and_owed_products() -> None:
    levels = [
        latency_level(a_frame(newest=day), TOTALS)
        for day in ("2026-11-28", "2026-11-14", "2026-11-13", "2026-08-30", "2025-11-28", "2025-11-27")
    ]
    assert levels == ["a0", "a0", "a1", "a2", "a3", "a4"]
    assert latency_level(a_frame(newest=""), TOTALS) == "a"
    assert [owed_level(a_frame(owed=count)) for count in (0, 1, 9, 10, 99, 100, 1000)] == [
        "b0", "b1", "b1", "b2", "b2", "b3", "b4",
    ]  # fmt: skip
    assert owed_level(a_frame(generation=None, owed=5)) == "b"


def test_the_index_has_every_frame_as_a_shape_and_as_a_row() -> None:
    frames = [
        a_frame(),
        a_frame("044A_05239_131313"),
        a_frame("010A_00001_010101", newest="", page=False, pairs=0),
    ]
    text = render_index_page(frames, TOTALS)
    ids = {attributes.get("id") for _, attributes in HtmlElements(text).found}
    for frame in frames:
        assert {f"row-{frame.frame}", f"shape-{frame.frame}"} <= ids
    links = [attributes["href"] for name, attributes in HtmlElements(text).found if name == "a"]
    assert "frames/124D_05291_081406.html" in links
    assert "volcanoes/etna.html" in links
    assert not any("010A" in link for link in links)
    assert not [link for link in links if ":" in link or link.startswith("/")]


def test_a_picture_of_a_volcano_has_the_outline_of_its_mask_at_its_place() -> None:
    frame = a_frame()
    pair = frame.digest.pictured[0]
    outlined = msgspec.structs.replace(frame.digest, shape=(200, 300), outlines={pair: "M10 20h5"})
    bare = render_volcano_page(ETNA, [frame], TOTALS)
    drawn = render_volcano_page(ETNA, [msgspec.structs.replace(frame, digest=outlined)], TOTALS)
    assert 'class="mask"' not in bare
    [line] = [attributes for name, attributes in HtmlElements(drawn).found if name == "path"]
    across, down = map(float, line["transform"].removeprefix("scale(").rstrip(")").split())
    assert down == pytest.approx(2.0 / 200)
    assert across == pytest.approx(3.0 / 300 * math.cos(math.radians(ETNA.latitude)))
    assert line["d"] == "M10 20h5"
    uses = [attributes["href"] for name, attributes in HtmlElements(drawn).found if name == "use"]
    assert uses == [f"#{line['id']}"] * 2


def test_the_data_card_is_a_page_whose_links_are_from_its_place(tmp_path) -> None:
    (tmp_path / "catalog").mkdir()
    text = (
        "---\nlicense: mit\npretty_name: A set\n---\n\n# A set of pairs\n\n| a | b |\n|:-:|---|\n| 1 | "
        "[table](pairs.parquet) |\n\n[a paper](https://doi.org/10.1/x) ![seen](https://a.example/x.png)\n\n"
        f"{HOSTILE}\n\n[run](javascript:alert(1))\n"
    )
    (tmp_path / "README.md").write_text("# Of something else\n")
    assert read_card(tmp_path) is None
    (tmp_path / "catalog" / "README.md").write_text(text)
    place, body = read_card(tmp_path)
    page = render_card_page(place, body, TOTALS)
    elements = HtmlElements(page).found
    links = {attributes["href"] for name, attributes in elements if name == "a"}
    assert {"catalog/pairs.parquet", "https://doi.org/10.1/x"} <= links
    assert not any("javascript" in link for link in links)
    assert not [name for name, attributes in elements if name in ("img", "script") or "style" in attributes]
    assert "<h1>A set of pairs" in page
    assert "pretty_name" not in page
    assert "<td" in page


def test_texts_of_strangers_stay_text_on_all_pages(tmp_path) -> None:
    volcano = SiteVolcano(name=HOSTILE, latitude=37.0, longitude=15.0)
    frame = a_frame(problem=HOSTILE)
    frame = SiteFrame(
        **{
            **{name: getattr(frame, name) for name in frame.__struct_fields__},
            "digest": FrameDigest(
                bounds=frame.digest.bounds,
                volcanoes=(volcano,),
                pairs=frame.digest.pairs,
                pictured=frame.digest.pictured,
                grid=frame.digest.grid,
            ),
        }
    )
    (tmp_path / "leaderboard.csv").write_text(
        f'model,score\n"{HOSTILE.replace(chr(34), chr(34) * 2)}",0.123456789\n'
    )
    pages = [
        render_index_page([frame], TOTALS),
        render_volcano_page(volcano, [frame], TOTALS),
        render_benchmark_page(read_leaderboard(tmp_path), TOTALS),
    ]
    for text in pages:
        elements = HtmlElements(text).found
        assert all(not key.startswith("on") for _, attributes in elements for key in attributes)
        assert "<script>alert" not in text
        assert not [one for one in elements if one[0] == "img" and one[1].get("src") == "x"]
        assert not [one for one in elements if "style" in one[1]]  # which the policies would refuse
    assert "0.1235" in pages[2]


def test_the_feed_is_atom_whose_links_are_absolute_with_an_address_alone() -> None:
    frames = [a_frame(), a_frame("044A_05239_131313", simulated=True)]
    atom = "{http://www.w3.org/2005/Atom}"

    def read(base: HttpUrl | None) -> ElementTree.Element:
        content = render_feed(frames, FEED, base=base, simulated=False, version="1", written=TOTALS.written)
        return ElementTree.fromstring(content)

    feed = read(HttpUrl.parse("https://observatory.example/insar/"))
    assert feed.tag == f"{atom}feed"
    for element in (feed, *feed.iter(f"{atom}entry")):
        assert [len(element.findall(f"{atom}{name}")) for name in ("id", "title", "updated")] == [1, 1, 1]
    ids = [one.text for one in feed.iter(f"{atom}id")]
    assert len(set(ids)) == len(ids) == 3
    assert all(one.startswith("urn:uuid:") for one in ids)
    assert feed.find(f"{atom}author/{atom}name").text
    assert feed.find(f"{atom}updated").text == "2026-11-21T04:00:00Z"
    links = [one.get("href") for one in feed.iter(f"{atom}link")]
    assert all(link.startswith("https://observatory.example/insar/") for link in links)
    titles = [one.findtext(f"{atom}title") for one in feed.iter(f"{atom}entry")]
    assert [title.startswith("SIMULATED") for title in titles] == [False, True] or [
        title.startswith("SIMULATED") for title in titles
    ] == [True, False]
    relative = [one.get("href") for one in read(None).iter(f"{atom}link")]
    assert not [link for link in relative if ":" in link or link.startswith("/")]
    assert ids == [one.text for one in read(None).iter(f"{atom}id")]


def test_a_volcano_has_its_tracks_side_by_side_with_its_surroundings() -> None:
    frames = [a_frame(), a_frame("044A_05239_131313"), a_frame("117A_05239_131313", newest="")]
    [(volcano, seen_by)] = group_by_volcano(frames).values()
    text = render_volcano_page(volcano, seen_by, TOTALS)
    ascending, descending = text.index(">Ascending<"), text.index(">Descending<")
    assert ascending < text.index("044A_05239_131313") < text.index("117A_05239_131313") < descending
    assert descending < text.index("124D_05291_081406")
    shots = [one for name, one in HtmlElements(text).found if name == "svg" and "around" in one["aria-label"]]
    assert len(shots) == 3
    _, top, width, height = map(float, shots[0]["viewbox"].split())
    assert 38.5 - top > 37.748 > 38.5 - top - height
    assert width == height == pytest.approx(0.6)
    assert "#20261108_20261120" in text


def test_the_status_follows_its_schema() -> None:
    frames = [
        a_frame(),
        a_frame("010A_00001_010101", newest="", generation=None, built="", problem="not built"),
    ]
    document = make_status_document(frames, simulated=False, version="1", written=TOTALS.written)
    content = json.loads(encode_status(document))
    assert content == json.loads(json.dumps(document))
    jsonschema.validate(content, load_schema("site_status.json"))
    assert content["frames"][0]["latency_days"] == (date(2026, 11, 28) - date(2026, 11, 20)).days
    assert content["frames"][1]["newest"] is None


def test_what_is_no_leaderboard_is_named(tmp_path) -> None:
    with pytest.raises(HephaestusError, match=r"benchmark score FILE\.\.\. --to"):
        read_leaderboard(tmp_path)
    (tmp_path / "leaderboard.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(HephaestusError, match="cannot be read"):
        read_leaderboard(tmp_path)
