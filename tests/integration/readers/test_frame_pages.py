"""Pages of frames in headless Chromium, from file:// and from a plain server, by mouse and by keyboard."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives import FRAME, settings_for
from hephaestus_build.core.frames import Pair
from hephaestus_build.pages.colour_maps import byte_palette
from hephaestus_build.pages.frame_page import make_frame_page
from hephaestus_build.pages.frame_record import read_frame_record
from hephaestus_build.pages.page_data import FramePage, OwedProduct, PagePair, PageProduct, PageVolcano
from hephaestus_build.pages.pictures import Picture, encode_codes, to_base64
from hephaestus_build.pages.render import render_frame_page

Seen = tuple[Any, list[str]]
Opener = Callable[..., Seen]
#: Returns the pixels of an image of the page in its own size.
PIXELS = """(image) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  return Array.from(pen.getImageData(0, 0, canvas.width, canvas.height).data);
}"""
#: Returns whether anything is drawn on a canvas.
INK = """(canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.some((one) => one);
}"""


@pytest.fixture(scope="module")
def made(whole_cube: Path) -> FramePage:
    return make_frame_page(read_frame_record(FRAME.id, settings_for(whole_cube)))


@pytest.fixture(scope="module")
def file(made: FramePage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(made, tmp_path_factory.mktemp("page"))


def written(page: FramePage, folder: Path) -> Path:
    path = folder / f"{page.frame}.html"
    path.write_text(render_frame_page(page), encoding="utf-8")
    return path


@pytest.fixture
def opened(opened: Opener) -> Opener:
    """Open a page as soon as its script is ready, where it may run."""

    def open_page(address: str, width: int = 1280, **options: Any) -> Seen:
        page, heard = opened(address, width, **options)
        if options.get("java_script_enabled", True):
            page.wait_for_function("() => document.body.dataset.ready")
        return page, heard

    return open_page


def overview(cube: Any, variable: str, name: str) -> np.ndarray:
    pair = Pair.parse(name)
    days = [cube.values[f"overview/{axis}"] for axis in ("primary", "secondary")]
    wanted = [(day - date(1970, 1, 1)).days for day in pair.dates]
    [place] = np.flatnonzero((days[0] == wanted[0]) & (days[1] == wanted[1]))
    return cube.values[f"overview/{variable}"][place]


def choose(page: Any, name: str) -> None:
    """Move the slider to a pair, as a hand does."""
    names = page.evaluate("shownPairs.map((pair) => pair.name)")
    page.locator("#slider").fill(str(names.index(name)))
    shows(page, name)


def shows(page: Any, name: str) -> None:
    page.wait_for_function("(name) => document.body.dataset.ready === name", arg=name)


def source_of(page: Any, panel: str) -> str:
    """Return the base64 of the picture that a panel shows."""
    return page.locator(f"#panel-{panel} img").get_attribute("src").removeprefix("data:image/png;base64,")


def outside(heard: list[str]) -> list[str]:
    return [one for one in heard if not one.startswith("data:image/png;base64,") and one != "data:,"]


def test_a_file_opens_alone_and_says_nothing(file, opened):
    page, heard = opened(file.as_uri())
    for key in ("ArrowLeft", "Home", "End", "m", "v", "d"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert outside(heard) == [file.as_uri()]


def test_a_plain_server_is_asked_for_the_page_alone(file, opened):
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=file.parent)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _, heard = opened(f"http://127.0.0.1:{server.server_port}/{file.name}")
        finally:
            server.shutdown()
            thread.join()
    assert len(outside(heard)) == 1
    assert asked == [f"/{file.name}"]


def test_the_slider_shows_the_bytes_of_each_overview(file, made, opened, cube):
    page, _ = opened(file.as_uri())
    names = list(made.pictures.pairs)
    assert len(names) == 7
    for name in reversed(names):
        choose(page, name)
        for panel, variable, colours in (
            ("phase", "wrapped_phase", "romaO"),
            ("coherence", "coherence", "grayC"),
        ):
            image = page.locator(f"#panel-{panel} img")
            image.evaluate("(image) => image.decode()")
            codes = overview(cube, variable, name)
            pixels = np.array(image.evaluate(PIXELS), np.uint8).reshape(*codes.shape, 4)
            data = codes > 0
            assert (pixels[data][:, :3] == byte_palette(colours)[codes[data]]).all()
            assert ((pixels[..., 3] > 0) == data).all()
            decoded = page.evaluate(f"Array.from(panels.{panel}.values.samples)")
            assert decoded == codes.ravel().tolist()


def test_the_slider_moves_by_keyboard_and_so_does_the_page(file, made, opened):
    page, _ = opened(file.as_uri())
    names = list(made.pictures.pairs)
    shows(page, names[-1])
    page.locator("#slider").press("ArrowLeft")
    shows(page, names[-2])
    page.locator("h1").click()
    page.keyboard.press("Home")
    shows(page, names[0])
    page.keyboard.press("ArrowRight")
    shows(page, names[1])
    assert page.locator("#slider").input_value() == "1"
    page.locator("#next").click()
    shows(page, names[2])
    deforming = [pair.name for pair in made.pairs if pair.deformation and pair.name in names]
    page.keyboard.press("d")
    page.wait_for_function("(names) => names.includes(document.body.dataset.ready)", arg=deforming)


def test_a_cursor_over_one_picture_is_over_all_of_them_with_their_values(file, made, opened, cube):
    page, _ = opened(file.as_uri())
    name, grid = made.shown, made.pictures.grid
    row, column = (
        int(places[len(places) // 2]) for places in np.nonzero(overview(cube, "wrapped_phase", name))
    )
    box = page.locator("#panel-coherence .view").bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) / grid.width * box["width"],
        box["y"] + (row + 0.5) / grid.height * box["height"],
    )
    said = {
        one: page.locator(f"#panel-{one} output").inner_text()
        for one in ("phase", "coherence", "height", "primary")
    }
    numbers = {one: float(text.replace("\u2212", "-").split()[0]) for one, text in said.items()}
    phase = (int(overview(cube, "wrapped_phase", name)[row, column]) - 128) * np.pi / 127
    assert numbers["phase"] == pytest.approx(phase, abs=0.006)
    assert numbers["coherence"] == pytest.approx(
        overview(cube, "coherence", name)[row, column] / 255, abs=0.006
    )
    step = grid.step
    assert numbers["height"] == pytest.approx(cube.values["dem"][4 + step * row, 4 + step * column], abs=1)
    assert 0 < numbers["primary"] < 80
    latitude = cube.values["overview/y"][row]
    assert page.locator("#where").inner_text().startswith(f"{latitude:.3f}")
    page.keyboard.press("v")
    page.wait_for_timeout(100)
    for panel in ("phase", "coherence", "height", "primary", "secondary"):
        assert page.locator(f"#panel-{panel} .view canvas").evaluate(INK)


def test_the_cursor_moves_by_keyboard_pixel_by_pixel(file, made, opened):
    page, _ = opened(file.as_uri())
    view, grid = page.locator("#panel-phase .view"), made.pictures.grid
    view.focus()
    view.press("ArrowRight")
    before = page.evaluate("state.cursor")
    view.press("ArrowRight")
    view.press("ArrowDown")
    after = page.evaluate("state.cursor")
    assert after["x"] - before["x"] == pytest.approx(1 / grid.width)
    assert after["y"] - before["y"] == pytest.approx(1 / grid.height)
    view.press("Enter")
    assert page.evaluate("state.point") == after
    shows(page, made.shown)  # the arrows of a picture leave the pair as it is


def test_a_click_on_an_arch_shows_its_pair_in_every_panel(file, made, opened):
    page, _ = opened(file.as_uri())
    name = next(iter(made.pictures.pairs))
    page.locator("#network").scroll_into_view_if_needed()
    where = page.evaluate(
        """(name) => {
          const curve = network.curves.find((one) => one.pair.name === name);
          const box = network.root.getBoundingClientRect();
          const [x, y] = onCurve(curve, 0.5);
          return [box.left + x, box.top + y];
        }""",
        name,
    )
    page.mouse.click(*where)
    page.wait_for_function("(name) => document.body.dataset.pair === name", arg=name)
    shows(page, name)
    pair = next(one for one in made.pairs if one.name == name)
    assert source_of(page, "phase") == made.pictures.pairs[name].phase.png
    assert source_of(page, "coherence") == made.pictures.pairs[name].coherence.png
    vapour = page.locator("#panel-secondary img").get_attribute("src")
    assert vapour.endswith(made.pictures.vapour[pair.secondary].png)
    assert pair.products[0].digest in page.locator("#provenance").inner_text()
    assert pair.caption in page.locator("#expert").inner_text()


def test_a_pair_without_pictures_says_where_it_comes_from(made, whole_cube, opened, tmp_path):
    record = read_frame_record(FRAME.id, settings_for(whole_cube))
    page, _ = opened(written(make_frame_page(record, newest=1), tmp_path).as_uri())
    for pair in made.pairs:
        page.evaluate("(name) => choosePair(byName.get(name))", pair.name)
        shows(page, pair.name)
        said = page.locator("#provenance").text_content()
        for product in pair.products:
            assert product.product in said
            assert product.digest in said
        assert page.locator("#provenance-note").is_visible() == (not pair.products)


def test_all_pairs_are_reached_in_the_network_by_keyboard(whole_cube, opened, tmp_path):
    record = read_frame_record(FRAME.id, settings_for(whole_cube))
    page, _ = opened(written(make_frame_page(record, newest=1), tmp_path).as_uri())
    names = page.evaluate("data.pairs.map((pair) => pair.name)")
    page.locator("#network").focus()
    seen = {page.evaluate("state.pair.name")}
    for _ in names:
        page.keyboard.press("ArrowLeft")
        seen.add(page.evaluate("state.pair.name"))
    assert seen == set(names)
    page.keyboard.press("End")
    shows(page, max(names, key=lambda name: name[::-1].split("_")[0][::-1] + name))
    page.locator("#toggle-mask").focus()
    page.keyboard.press("M")  # as with Caps Lock
    assert not page.locator("#toggle-mask").is_checked()


def test_masks_are_drawn_over_the_phase_and_can_be_switched_off(file, made, opened):
    page, _ = opened(file.as_uri())
    name = next(name for name, one in made.pictures.pairs.items() if one.mask)
    choose(page, name)
    page.keyboard.press("v")
    canvas = page.locator("#panel-phase .view canvas")
    page.evaluate("state.point = null; drawPanels()")
    assert canvas.evaluate(INK)
    page.locator("#toggle-mask").click()
    assert not canvas.evaluate(INK)


def test_the_series_of_a_point_is_the_wrapped_phase_of_one_primary(file, made, opened, cube):
    page, _ = opened(file.as_uri())
    primaries = [name[:8] for name in made.pictures.pairs]
    primary = max(primaries, key=primaries.count)
    chain = [name for name in made.pictures.pairs if name[:8] == primary]
    assert len(chain) > 1
    choose(page, chain[0])
    images = [overview(cube, "wrapped_phase", name) for name in chain]
    row, column = (
        int(places[0]) for places in np.nonzero(np.logical_and.reduce([one > 0 for one in images]))
    )
    grid = made.pictures.grid
    page.evaluate(
        f"choosePoint({{x: {(column + 0.5) / grid.width}, y: {(row + 0.5) / grid.height}}})",
    )
    dots = page.locator("#series .dot")
    assert [dot.get_attribute("data-pair") for dot in dots.all()] == chain
    for dot, image in zip(dots.all(), images, strict=True):
        said = float(re.search(r"([\u2212\d.]+) rad", dot.text_content())[1].replace("\u2212", "-"))
        assert said == pytest.approx((int(image[row, column]) - 128) * np.pi / 127, abs=0.006)
    words = page.locator("main").inner_text()
    assert "no displacement" in words
    dots.last.click()
    shows(page, chain[-1])


@pytest.mark.parametrize("width", [360, 390, 768])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(file, opened, width, scheme):
    page, heard = opened(file.as_uri(), width, color_scheme=scheme, has_touch=True, is_mobile=width < 700)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = page.evaluate(
        "Math.max(...[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll, svg'))"
        ".map((one) => one.getBoundingClientRect().right))"
    )
    assert right <= width
    assert page.locator("#slider").bounding_box()["width"] > 100
    assert len(outside(heard)) == 1


def test_a_frame_across_180_degrees_has_its_volcanoes_and_their_places(made, opened, tmp_path):
    wide = made.pictures.grid.width * made.pictures.grid.dx
    grid = replace(made.pictures.grid, west=180 - wide / 4)
    volcano = PageVolcano("Across", grid.north - grid.height * grid.dy / 2, wide / 4 - 180, 1000)
    moved = replace(made, pictures=replace(made.pictures, grid=grid), volcanoes=(volcano,))
    page, _ = opened(written(moved, tmp_path).as_uri())
    [place] = page.evaluate("volcanoPlaces")
    assert place["x"] == pytest.approx(0.5)
    assert page.locator("#series-what").inner_text().split(":")[0].endswith(" W")
    assert page.evaluate("placeText(0, 179.5)").endswith("179.500\u00b0 E")


def test_a_models_probability_stands_beside_the_phase_and_over_it(made, opened, tmp_path):
    shown = made.pictures.pairs[made.shown]
    codes = np.full((made.pictures.grid.height, made.pictures.grid.width), 128, np.uint8)
    codes[:3] = 255
    chance = Picture(to_base64(encode_codes(codes, byte_palette("lajolla"))), 1 / 254, -1 / 254)
    pairs = {**made.pictures.pairs, made.shown: replace(shown, mask=None, probability=chance)}
    page, _ = opened(written(replace(made, pictures=replace(made.pictures, pairs=pairs)), tmp_path).as_uri())
    assert source_of(page, "probability") == chance.png
    page.evaluate("moveCursor({x: 0.5, y: 0.01})")
    assert page.locator("#panel-probability output").inner_text().strip() == "1.00"
    page.evaluate("moveCursor(null); state.point = null; state.volcanoes = false; drawPanels()")
    over = page.locator("#panel-phase .view canvas")
    assert not over.evaluate(INK)
    page.keyboard.press("p")
    assert over.evaluate(INK)
    choose(page, next(iter(made.pictures.pairs)))
    assert "Not predicted" in page.locator("#panel-probability").inner_text()


def test_without_scripts_the_shown_pair_and_all_facts_are_there(file, made, opened):
    page, _ = opened(file.as_uri(), java_script_enabled=False)
    assert page.locator("#panel-phase img").is_visible()
    assert source_of(page, "phase") == made.pictures.pairs[made.shown].phase.png
    words = page.locator("body").inner_text()
    for text in ("Newest acquisition", "SIMULATED", "Owed", "Brought to the grid", made.credits[0]):
        assert text in words


def test_printing_leaves_out_what_paper_cannot_do(file, opened):
    page, _ = opened(file.as_uri())
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible()
    assert page.locator("#panel-phase img").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_every_picture_has_words_for_those_who_cannot_see_it(file, opened):
    page, _ = opened(file.as_uri())
    for image in page.locator("img:visible").all():
        assert re.search(r"\d{4}|relief", image.get_attribute("alt"))
    for drawing in page.locator("svg").all():
        assert drawing.get_attribute("aria-label")
    for control in page.locator("input, button, select").all():
        name = control.evaluate(
            "(one) => one.ariaLabel || (one.labels && one.labels[0] && one.labels[0].textContent)"
        )
        assert name


def test_a_page_of_300_pairs_has_them_all_in_the_network(made, opened, tmp_path):
    first = date(2019, 1, 1)
    days = [first + timedelta(days=12 * number) for number in range(102)]
    pairs = [Pair(days[one], days[one + far]) for one in range(101) for far in (1, 2, 3) if one + far < 102]
    pairs.sort(key=lambda pair: (pair.secondary, pair.primary))
    rows = [
        PagePair(
            pair.name, str(pair.primary), str(pair.secondary), (pair.secondary - pair.primary).days, "stored"
        )
        for pair in pairs
    ]
    one = made.pictures.pairs[made.shown]
    pictures = replace(made.pictures, pairs={pair.name: one for pair in pairs[-60:]})
    many = replace(made, pairs=tuple(rows), pictures=pictures, shown=pairs[-1].name)
    page, heard = opened(written(many, tmp_path).as_uri())
    assert page.locator("#network path.pair").count() == len(pairs) == 300
    assert page.locator("#slider").get_attribute("max") == "59"
    page.evaluate("(name) => choosePair(byName.get(name))", pairs[0].name)
    shows(page, pairs[0].name)
    assert "No picture of this pair" in page.locator("#panel-phase").inner_text()
    assert len(outside(heard)) == 1


def test_a_page_of_owed_products_says_what_and_why(made, opened, tmp_path):
    owed = OwedProduct("pair/20200101_20200113", "20200101_20200113.geo.cc.tif", "unreachable", "HTTP 503")
    product = PageProduct("phase", "20200101_20200113.geo.diff_pha.tif", "unreachable", detail="HTTP 503")
    pair = PagePair("20200101_20200113", "2020-01-01", "2020-01-13", 12, "owed", products=(product,))
    empty = FramePage(made.frame, True, made.facts, made.written, "1", pairs=(pair,), owed=(owed,))
    page, heard = opened(written(empty, tmp_path).as_uri(), 390)
    assert "HTTP 503" in page.locator("main").inner_text()
    assert page.locator("#network path.owed").count() == 1
    assert not page.locator("#chosen").is_visible()
    page.evaluate("(name) => choosePair(byName.get(name))", pair.name)
    assert "13 Jan 2020" in page.locator("#chosen").inner_text()
    assert "HTTP 503" in page.locator("#chosen #provenance").text_content()
    page.reload()
    page.locator("#network").press("ArrowLeft")
    page.wait_for_function("(name) => document.body.dataset.pair === name", arg=pair.name)
    assert page.locator("#chosen").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(set(outside(heard))) == 1


def test_words_of_strangers_run_nothing(made, opened, tmp_path):
    hostile = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    pairs = tuple(replace(pair, annotated=True, caption=hostile) for pair in made.pairs)
    page, heard = opened(written(replace(made, pairs=pairs), tmp_path).as_uri())
    assert hostile in page.locator("#expert").inner_text()
    assert page.title() != "taken"
    assert len(outside(heard)) == 1


@pytest.mark.parametrize("width", [360, 1280])
def test_long_words_make_no_page_wider_and_arabic_begins_at_the_right(made, opened, tmp_path, width):
    word = "W" * 3000
    product = PageProduct(
        "phase", word, "refused", f"https://archive.invalid/{word}", detail=word, notes=(word,)
    )
    pair = replace(
        made.pairs[-1],
        annotated=True,
        caption=word,
        phase=word,
        alignment=word,
        flags={word: 1},
        products=(product,),
    )
    arabic = replace(made.pairs[-2], annotated=True, caption="\u062a\u0634\u0648\u0647 <b>")
    owed = OwedProduct(f"pair/{pair.name}", word, "unreachable", word)
    facts = {**made.facts, "uncertain_geometry": word, "sign_convention": word}
    volcano = replace(made.volcanoes[0], name=word)
    pairs = (*made.pairs[:-2], arabic, pair)
    page_of = replace(
        made, pairs=pairs, owed=(owed,), facts=facts, volcanoes=(volcano,), credits=(word,), shown=pair.name
    )
    page, _ = opened(written(page_of, tmp_path).as_uri(), width)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("(name) => choosePair(byName.get(name))", arabic.name)
    quote = page.locator("#expert blockquote")
    assert quote.evaluate("(one) => getComputedStyle(one).direction") == "rtl"
    assert quote.inner_text() == arabic.caption
