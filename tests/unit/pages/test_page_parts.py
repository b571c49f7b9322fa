"""Tests of the pure parts of pages: pictures, gaps, the globe, and texts of strangers."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from shapely import Point, Polygon

from color_vision import nearest
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.volcanoes import VolcanoCone
from hephaestus_build.pages.assets import read_asset
from hephaestus_build.pages.colour_maps import byte_palette
from hephaestus_build.pages.cube_images import CubeImages, PairImages
from hephaestus_build.pages.encode_pictures import encode_pairs
from hephaestus_build.pages.gaps import find_gaps
from hephaestus_build.pages.maps import RADIUS, draw_globe, draw_region
from hephaestus_build.pages.page_data import FramePage, OwedProduct, PagePair, PageVolcano
from hephaestus_build.pages.pictures import encode_codes, encode_levels, quantize_to_codes
from hephaestus_build.pages.render import render_frame_page
from html_elements import HtmlElements

HOSTILE = '</script><img src=x onerror="alert(1)"><!-- ${"x"} $frame \u2028'


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def noise(rows: int, columns: int, seed: int) -> PairImages:
    random = np.random.default_rng(seed)
    phase, coherence = (random.integers(0, 256, (rows, columns), np.uint8) for _ in range(2))
    return PairImages(phase, coherence, np.zeros((rows, columns), np.uint8))


@pytest.mark.parametrize("highest", [1, 3, 255])
def test_samples_of_a_picture_are_the_codes_and_have_their_colours(highest: int) -> None:
    codes = np.random.default_rng(1).integers(0, highest + 1, (7, 13), np.uint8)
    palette = byte_palette("romaO")
    content = encode_codes(codes, palette)
    assert content[24] == 8  # bits of a sample, which the script of the page reads
    assert (np.asarray(opened(content)) == codes).all()
    shown = np.asarray(opened(content).convert("RGBA"))
    assert (shown[..., :3] == palette[codes]).all()
    assert ((shown[..., 3] == 0) == (codes == 0)).all()


def test_levels_of_16_bits_are_kept() -> None:
    levels = np.array([[0, 1, 258], [65_535, 40_000, 7]], np.uint16)
    assert (np.asarray(opened(encode_levels(levels))) == levels).all()


def test_the_colours_of_phase_have_no_seam_and_tell_it_apart_for_the_colour_blind() -> None:
    palette = byte_palette("romaO").astype(int)
    assert abs(palette[1] - palette[255]).max() <= 6
    assert abs(np.diff(palette[1:], axis=0)).max() <= 12
    quarters = ["#" + bytes(palette[code].tolist()).hex() for code in (1, 64, 128, 192)]
    assert nearest(quarters)[0] > 20


def test_values_are_quantised_within_half_a_step() -> None:
    values = np.array([[np.nan, 3.0, 4.7], [11.2, 7.123, 3.01]])
    codes, scale, offset = quantize_to_codes(values, 3.0, 11.2)
    assert codes[0, 0] == 0
    assert np.nanmax(abs(offset + scale * codes - values)[~np.isnan(values)]) <= scale / 2 + 1e-9
    flat, *_ = quantize_to_codes(np.full((2, 2), 5.0), 5.0, 5.0)
    assert (flat == 1).all()


def test_pictures_that_would_be_too_large_are_thinned_and_never_averaged() -> None:
    grid = Grid(90, 70, 10.0, 50.0, 0.01, 0.01)
    days = [f"2020010{day}_20200201" for day in range(1, 6)]
    images = {Pair.parse(name): noise(70, 90, seed) for seed, name in enumerate(days)}
    pairs, decimation = encode_pairs(CubeImages(grid, 8, images, None, {}), 20_000)
    assert sum(len(one.phase.png) + len(one.coherence.png) for one in pairs.values()) <= 20_000
    assert decimation is not None
    for pair, one in images.items():
        samples = np.asarray(opened(base64.b64decode(pairs[pair].phase.png)))
        first, step = decimation.first, decimation.factor
        assert (samples == one.phase[first(70) :: step, first(90) :: step]).all()
    assert encode_pairs(CubeImages(grid, 8, images, None, {}), 10_000_000)[1] is None


def test_gaps_are_long_intervals_and_those_that_no_pair_spans() -> None:
    chain = ["20200101_20200113", "20200113_20200125", "20200125_20200206", "20200206_20200501"]
    alone = ["20200513_20200525"]
    found = find_gaps([Pair.parse(name) for name in chain + alone])
    assert [(gap.start, gap.days, gap.spanned) for gap in found] == [
        ("2020-02-06", 85, True),
        ("2020-05-01", 12, False),
    ]
    assert find_gaps([]) == ()


@pytest.mark.parametrize("place", [(0.0, 0.0), (179.0, -40.0), (-24.0, 37.0), (20.0, 89.0)])
def test_the_globe_has_the_frame_in_its_middle_and_nothing_beyond_its_edge(place) -> None:
    longitude, latitude = place
    paths = draw_globe((longitude - 1, latitude - 1, longitude + 1, latitude + 1))

    def points(path: str) -> np.ndarray:
        return np.array(re.findall(r"(-?[\d.]+(?:e-\d+)?) (-?[\d.]+(?:e-\d+)?)", path), float)

    assert np.hypot(*points(paths.frame).mean(0)) < 3
    assert len(points(paths.land)) > 500
    for path in (paths.land, paths.graticule):
        assert np.hypot(*points(path).T).max() <= RADIUS + 0.1


@pytest.mark.parametrize("middle", [14.4, 179.9, -179.9])
def test_the_map_of_the_surroundings_is_square_on_the_ground_and_has_the_volcanoes(middle) -> None:
    near = VolcanoCone("near", -16.8, (middle + 0.5 + 180) % 360 - 180)
    far = VolcanoCone("far", 16.8, middle)
    region = draw_region((middle - 1, -17.5, middle + 1, -16.0), [near, far])
    left, top, width, height = region.box
    assert width == pytest.approx(height)
    [(x, y, found)] = region.volcanoes
    assert found is near
    assert (x, y) == pytest.approx((0.5 * np.cos(np.radians(16.75)), 16.8))
    assert left < x < left + width
    assert top < y < top + height
    assert region.land  # Angola, and Fiji on both sides of 180 degrees


ISLANDS = {
    "São Miguel": (37.77, -25.48),
    "Réunion": (-21.2, 55.6),
    "Hawaii": (19.6, -155.5),
    "Stromboli": (38.79, 15.213),
    "Santorini": (36.35, 25.46),
    "Montserrat": (16.72, -62.18),
    "Taveuni": (-16.82, -179.98),
}


@pytest.mark.parametrize("island", ISLANDS)
def test_islands_with_volcanoes_have_an_outline(island: str) -> None:
    latitude, longitude = ISLANDS[island]
    region = draw_region((longitude - 1, latitude - 0.8, longitude + 1, latitude + 0.8), [])
    outlines = [
        np.array([point.split() for point in part.rstrip("Z").split("L")], float)
        for part in region.land.split("M")[1:]
    ]
    place = Point(0, -latitude)
    assert min(Polygon(outline).buffer(0).distance(place) for outline in outlines) < 0.06


def brightness(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_background(scheme: str) -> None:
    """By WCAG 2, AA: a contrast of 4.5."""
    lists = re.findall(r":root \{(.*?)\}", read_asset("page.css"), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", lists[["light", "dark"].index(scheme)]))
    for words in ("ink", "soft", "accent", "alarm", "amber"):
        for ground in ("paper", "card"):
            bright, dim = sorted(map(brightness, (colours[words], colours[ground])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (words, ground)


def test_texts_of_strangers_are_text() -> None:
    pair = PagePair(
        "20200101_20200113", "2020-01-01", "2020-01-13", 12, "owed", annotated=True, caption=HOSTILE
    )
    page = FramePage(
        frame="124D_04854_171313",
        simulated=False,
        facts={"track": 124, "direction": "descending"},
        written="2026-01-01T00:00:00Z",
        version=HOSTILE,
        bounds=(14.0, 40.0, 15.0, 41.0),
        volcanoes=(PageVolcano(HOSTILE, 40.5, 14.5),),
        pairs=(pair,),
        owed=(OwedProduct("pair/20200101_20200113", HOSTILE, "corrupt", HOSTILE),),
        credits=(HOSTILE,),
    )
    text = render_frame_page(page)
    elements = HtmlElements(text)
    assert not [name for name, _ in elements.found if name == "img"]
    assert all(not key.startswith("on") for _, attributes in elements.found for key in attributes)
    assert len(elements.scripts) == 2
    data = json.loads(elements.scripts[0])
    assert data["pairs"][0]["caption"] == HOSTILE
    assert data["owed"][0]["reason"] == HOSTILE


def test_words_fit_one_thing_and_commands_the_kind_of_data() -> None:
    page = FramePage(
        frame="124D_04854_171313",
        simulated=True,
        facts={"track": 124, "direction": "descending"},
        written="2026-01-02T00:00:00Z",
        version="1",
        newest="2026-01-01",
        generation=1,
        preliminary=1,
        bounds=(179.0, 40.0, 182.0, 41.0),
        owed=(OwedProduct("dem", "a product", "unreachable", "HTTP 503"),),
    )
    text = render_frame_page(page)
    assert "1 day before this was written" in text
    assert "1 date preliminary" in text
    assert text.count("hephaestus build 124D_04854_171313 --simulated") == 2
    assert "179.5° W" in text
    assert "179.5° W" not in (real := render_frame_page(replace(page, simulated=False, bounds=None)))
    assert "--simulated" not in real


def test_a_page_names_nothing_that_a_browser_would_fetch() -> None:
    page = FramePage(
        "124D_04854_171313", False, {"track": 1, "direction": "descending"}, "2026-01-01T00:00:00Z", "1"
    )
    text = render_frame_page(page)
    for name, attributes in HtmlElements(text).found:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(key) or "data:").startswith("data:"), (name, attributes)
        assert "style" not in attributes  # which the policy would refuse
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", text)
    policy = next(a["content"] for n, a in HtmlElements(text).found if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
