"""A site in headless Chromium, from file:// and from a plain server: search, colours, links, a telephone."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from archives import FRAME, settings_for
from hephaestus_build.core.frames import Frame
from hephaestus_build.operations.status import FrameStatus
from hephaestus_build.pages.site.index_page import SiteTotals, render_index_page
from hephaestus_build.pages.site.site_frames import digest_by_id, site_frame
from hephaestus_build.pages.site.write_site import write_site


@pytest.fixture(scope="module")
def site(whole_cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "site"
    (folder / "catalog").mkdir(parents=True)
    digest = "0123456789abcdef" * 4
    (folder / "catalog" / "README.md").write_text(
        "---\npretty_name: all\n---\n\n# The pairs\n\n| split | sha256 | |\n|---|:-:|---|\n"
        f"| a | `{digest}` | {digest} |\n\n"
        f"```python\n{digest}\n```\n\n![far](https://nowhere.example/x.png) <img src=x>\n"
    )
    write_site([FRAME, Frame("201D_02400_131313")], settings_for(whole_cube), folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of frames at real volcanoes, of which no page is there."""
    names = "124D_05291_081406", "044A_05239_131313", "022D_04826_121209", "124D_04854_171313"
    frames = []
    for name in names:
        frame = Frame(name)
        status = FrameStatus(name, generation=None, problem="not built")
        frames.append(site_frame(frame, status, digest_by_id(frame), page=False))
    path = tmp_path_factory.mktemp("world") / "index.html"
    path.write_text(
        render_index_page(frames, SiteTotals(False, "1", "2026-11-28T03:00:00Z")), encoding="utf-8"
    )
    return path


def colours(page: Any) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.map polygon')].map((one) => getComputedStyle(one).fill)"
    )


def test_a_site_opens_from_a_disk_and_asks_for_its_own_pictures_alone(site, opened):
    start = site.as_uri()
    page, heard = opened(f"{start}/index.html")
    page.locator(f"#row-{FRAME} a").first.click()
    page.wait_for_function("() => document.body.dataset.ready")
    page.get_by_role("link", name="All frames").click()
    page.locator(f"#row-{FRAME} td.wide a").first.click()
    page.wait_for_selector(".shot image")
    page.wait_for_timeout(300)
    assert all(one.startswith((start, "data:")) for one in heard), heard
    assert any("/pictures/" in one for one in heard)


def test_a_plain_server_is_enough_and_pictures_are_seen(site, opened):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            start = f"http://127.0.0.1:{server.server_port}"
            page, heard = opened(f"{start}/index.html")
            page.wait_for_load_state("networkidle")
            image = page.locator(".news img").first
            assert image.evaluate("(one) => one.decode().then(() => one.naturalWidth)") > 10
        finally:
            server.shutdown()
            thread.join()
    assert all(one.startswith((start, "data:")) for one in heard), heard


def test_a_volcano_is_found_by_the_beginnings_of_its_words_without_accents(world, opened):
    page, heard = opened(world.as_uri())
    page.keyboard.press("/")
    page.keyboard.type("Étn")
    page.wait_for_function("() => document.body.dataset.found !== '4'")
    shown = page.locator("tbody tr:visible").evaluate_all("(rows) => rows.map((row) => row.id)")
    assert "row-124D_05291_081406" in shown
    assert len(shown) < 4
    assert page.locator("#volcanoes-found a").first.get_attribute("href") == "volcanoes/etna.html"
    faded = page.locator(".map polygon.out").count()
    assert faded == 4 - len(shown)
    assert page.url.endswith(f"#find={'%C3%89tn'}")
    assert page.locator(".map .cone").count() == 1
    page.locator("#search").fill("nowhere at all")
    assert page.locator("tbody tr:visible").count() == 0
    page.locator("#search").fill("")
    assert page.locator("tbody tr:visible").count() == 4
    assert len(heard) == 1, heard


def test_the_colours_switch_and_the_legend_with_them(site, opened):
    page, _ = opened(f"{site.as_uri()}/index.html")
    before = colours(page)
    assert page.locator(".by-latency").first.is_visible()
    page.get_by_label("owed products").check()
    after = colours(page)
    assert before != after
    assert page.locator(".by-owed").first.is_visible()
    assert not page.locator(".by-latency").first.is_visible()
    counted = page.locator(".by-owed b").evaluate_all(
        "(all) => all.reduce((sum, one) => sum + Number(one.textContent), 0)"
    )
    assert counted == 1  # the other frame has no cube


def test_a_frame_on_the_map_opens_its_page_and_a_drag_does_not(site, opened):
    page, _ = opened(f"{site.as_uri()}/index.html")
    shape = page.locator(f"#shape-{FRAME}")
    shape.scroll_into_view_if_needed()
    box = shape.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    view = page.locator(".map svg").get_attribute("viewBox")
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 40, steps=4)
    page.mouse.up()
    assert page.url.endswith("index.html")
    assert page.locator(".map svg").get_attribute("viewBox") != view
    page.locator("#whole").click()
    assert page.locator(".map svg").get_attribute("viewBox").split(".")[0] == view.split(".")[0]
    shape.click()
    page.wait_for_url("**/frames/*.html")


def test_the_map_and_the_table_are_reached_by_keyboard(site, opened):
    page, _ = opened(f"{site.as_uri()}/index.html")
    page.locator("#search").focus()
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == f"frames/{FRAME}.html":
            break
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(FRAME.id)
    page.keyboard.press("Enter")
    page.wait_for_url("**/frames/*.html")


def test_a_link_of_the_feed_opens_its_pair(site, opened):
    names = sorted(path.stem.removeprefix(f"{FRAME}_") for path in (site / "pictures").glob("*.png"))
    page, _ = opened(f"{site.as_uri()}/frames/{FRAME}.html#{names[0]}")
    page.wait_for_function("(name) => document.body.dataset.ready === name", arg=names[0])


@pytest.mark.parametrize("width", [360, 768])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_of_a_site_is_wider_than_a_phone(site, opened, width, scheme):
    for path in ("index.html", "data-card.html", f"volcanoes/{next((site / 'volcanoes').iterdir()).name}"):
        page, _ = opened(f"{site.as_uri()}/{path}", width, color_scheme=scheme, has_touch=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_data_card_is_reached_and_loads_nothing(site, opened):
    page, heard = opened(f"{site.as_uri()}/index.html")
    page.get_by_role("link", name="data-card.html").click()
    assert page.locator("h1").inner_text().startswith("The pairs")
    assert page.locator("td").nth(1).is_visible()
    start = site.as_uri()
    assert all(one.startswith((start, "data:")) for one in heard), heard


def test_masks_are_drawn_over_the_pictures_of_a_volcano_with_thin_lines(site, opened):
    seen = next(path for path in (site / "volcanoes").iterdir() if 'class="mask"' in path.read_text())
    page, _ = opened(seen.as_uri())
    mask, picture = page.locator(".mask").first, page.locator(".shot svg").first
    assert mask.bounding_box()["width"] > 3
    assert picture.is_visible()
    styles = page.locator(".outline").first.evaluate(
        "(one) => [getComputedStyle(one).vectorEffect, getComputedStyle(one).fill]"
    )
    assert styles == ["non-scaling-stroke", "none"]


def test_without_scripts_map_table_and_news_are_there(site, opened):
    page, _ = opened(f"{site.as_uri()}/index.html", java_script_enabled=False)
    assert page.locator(f"#shape-{FRAME}").is_visible()
    assert page.locator(f"#row-{FRAME} a").first.get_attribute("href") == f"frames/{FRAME}.html"
    assert page.locator(".news img").first.is_visible()
