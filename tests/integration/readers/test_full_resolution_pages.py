"""A pair at full resolution in headless Chromium: pixels, values, and words where the cube is another."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from archives import FRAME, settings_for
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.cube.storage.manifest import decode_manifest, encode_manifest
from hephaestus_build.pages.assets import read_asset
from hephaestus_build.pages.colour_maps import byte_palette
from hephaestus_build.pages.site.write_site import write_site
from reader_availability import find_program, report_missing, require_downloads

PICTURE = """() => {
  const {width, height} = document.querySelector("#picture");
  const pen = document.querySelector("#picture").getContext("2d");
  return [width, height, [...pen.getImageData(0, 0, width, height).data]];
}"""


@contextmanager
def served(folder: Path, **headers: str) -> Iterator[str]:
    """Serve a folder on loopback, and yield its address."""

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            super().end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def write(data: Path, folder: Path, cubes: HttpUrl | None = None) -> Path:
    done = write_site([FRAME], settings_for(data), folder, full_resolution=True, cubes=cubes)
    if done.left_out:
        report_missing(done.left_out)
    return folder


@pytest.fixture(scope="module")
def site(whole_cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with the scripts of the npm registry, and the cubes beside it."""
    require_downloads()
    folder = write(whole_cube, tmp_path_factory.mktemp("full") / "site")
    (folder / "cubes").symlink_to(whole_cube / "simulated" / "cubes")
    return folder


@pytest.fixture
def other(site: Path, cube: Any, tmp_path: Path) -> Path:
    """The same site with a copy of the cube, to be changed."""
    folder = tmp_path / "site"
    shutil.copytree(site, folder, ignore=shutil.ignore_patterns("cubes"))
    shutil.copytree(cube.store, folder / "cubes" / f"{FRAME}.zarr")
    return folder


def pairs_of(cube: Any) -> list[tuple[Pair, tuple[int, int]]]:
    """Return the stored pairs with their positions."""
    days = [cube.values[axis].astype("M8[D]").tolist() for axis in ("primary_date", "secondary_date")]
    places = [(int(a), int(b)) for a, b in np.argwhere(cube.values["valid_date_pair"])]
    return [(Pair(days[0][a], days[1][b]), (a, b)) for a, b in places]


def masked(cube: Any) -> tuple[Pair, tuple[int, int]]:
    """Return a pair on which an expert outlined deformation."""
    return next(
        (pair, place) for pair, place in pairs_of(cube) if cube.values["deformation_mask"][place].any()
    )


def expected(cube: Any, place: tuple[int, int], layer: str) -> np.ndarray:
    """Return the pixels of a picture, by the page's own colours."""
    if layer == "coherence":
        codes, palette = cube.values["insar_coherence"][place], byte_palette("grayC")
    else:
        phase, palette = cube.values["insar_difference"][place].astype("f8"), byte_palette("romaO")
        codes = np.where(
            phase == 0, 0, 1 + np.floor((phase + np.pi) * 127 / np.pi + 0.5).clip(0, 254)
        ).astype("u1")
    picture = np.concatenate([palette[codes], np.where(codes == 0, 0, 255)[..., None]], -1)
    return np.where(codes[..., None] == 0, 0, picture)  # a canvas keeps no colour of what is clear


def address(start: str, pair: Pair, layer: str = "phase", more: str = "") -> str:
    return f"{start}/full.html#frame={FRAME}&pair={pair}&layer={layer}{more}"


def ready(page: Any, what: str) -> str:
    page.wait_for_function("() => document.body.dataset.ready")
    said = page.locator("#message").inner_text()
    assert page.evaluate("document.body.dataset.ready") == what, said
    return said


def picture(page: Any) -> np.ndarray:
    width, height, values = page.evaluate(PICTURE)
    return np.array(values).reshape(height, width, 4)


def test_the_page_of_a_frame_leads_to_the_shown_pair_and_its_pixels_are_the_cubes(site, cube, opened):
    pair, place = masked(cube)
    with served(site) as start:
        page, heard = opened(f"{start}/frames/{FRAME}.html#{pair}")
        for layer in ("phase", "coherence"):
            page.wait_for_function("(name) => document.body.dataset.ready === name", arg=pair.name)
            page.locator(f"#panel-{layer} a.full").click()
            assert ready(page, layer) == ""
            assert np.array_equal(picture(page), expected(cube, place, layer))
            assert page.locator(".stamp").inner_text() == "SIMULATED"
            page.locator("#back").click()
    assert all(one.startswith((start, "data:")) for one in heard), heard
    chunks = {one.partition(".zarr/")[2] for one in heard if "/insar_difference/c" in one}
    assert chunks
    assert chunks <= {*decode_manifest((cube.store / "manifest.json").read_bytes())}  # no other is asked for


def test_the_picture_changes_without_asking_for_more_than_the_layer(site, cube, opened):
    pair, place = masked(cube)
    with served(site) as start:
        page, heard = opened(address(start, pair))
        ready(page, "phase")
        assert not any("/insar_coherence/c" in one for one in heard)
        page.keyboard.press("c")
        page.wait_for_function("() => document.body.dataset.ready === 'coherence'")
        assert np.array_equal(picture(page), expected(cube, place, "coherence"))
        assert "layer=coherence" in page.url
        heard.clear()
        page.get_by_label("wrapped phase").check()
        page.wait_for_function("() => document.body.dataset.ready === 'phase'")
        assert np.array_equal(picture(page), expected(cube, place, "phase"))
        assert not [one for one in heard if one.startswith("http")]


def test_value_and_place_are_read_under_the_pointer_and_by_keyboard(site, cube, opened):
    pair, place = masked(cube)
    phase, mask = (cube.values[name][place] for name in ("insar_difference", "deformation_mask"))
    row, column = (int(found[0]) for found in np.nonzero((mask > 0) & (phase != 0)))
    with served(site) as start:
        page, _ = opened(address(start, pair))
        ready(page, "phase")
        for key in ("+", "+", "0"):
            page.keyboard.press(key)
        box = page.locator("#picture").bounding_box()
        height, width = phase.shape
        at = box["x"] + (column + 0.5) * box["width"] / width, box["y"] + (row + 0.5) * box["height"] / height
        page.mouse.move(*at)
        said = page.locator("#readout").inner_text()
        assert said.startswith(f"{abs(cube.values['latitude'][row]):.3f}°"), said
        assert f"{abs(phase[row, column]):.2f} rad" in said
        assert "volcanic deformation" in said
        page.mouse.wheel(0, -600)
        assert page.locator("#picture").bounding_box()["width"] > 2 * box["width"]
        assert page.locator("#readout").inner_text() == said  # what is under the pointer stays there
        page.locator("#view").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        moved = phase[row - 1, column + 1]
        said = page.locator("#readout").inner_text()
        assert said.startswith(f"{abs(cube.values['latitude'][row - 1]):.3f}°"), said
        assert (f"{abs(moved):.2f} rad" if moved else "no phase") in said


def test_masks_are_outlined_over_the_picture_and_can_be_hidden(site, cube, opened):
    pair, _ = masked(cube)
    ink = "getContext('2d').getImageData(0, 0, 2000, 2000).data.some(Boolean)"
    drawn = f"() => document.querySelector('#overlay').{ink}"
    with served(site) as start:
        page, _ = opened(address(start, pair))
        ready(page, "phase")
        assert page.evaluate(drawn)
        page.keyboard.press("m")
        assert not page.evaluate(drawn)
        page.get_by_label("experts' masks").check()
        assert page.evaluate(drawn)


def test_a_phone_shows_it_in_its_width_and_a_finger_moves_it(site, cube, opened):
    pair, _ = masked(cube)
    with served(site) as start:
        page, heard = opened(address(start, pair), 360, color_scheme="dark", has_touch=True)
        ready(page, "phase")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        box = page.locator("#view").bounding_box()
        assert 200 < box["width"] <= 360
        page.locator("#closer").tap()
        page.locator("#closer").tap()
        before = page.locator("#picture").bounding_box()
        page.mouse.move(box["x"] + 150, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 100, box["y"] + 130, steps=3)
        page.mouse.up()
        after = page.locator("#picture").bounding_box()
        assert (round(after["x"] - before["x"]), round(after["y"] - before["y"])) == (-50, -20)
        assert all(one.startswith((start, "data:")) for one in heard), heard


def test_from_a_disk_it_says_that_it_needs_a_server(site, cube, opened):
    pair, _ = masked(cube)
    page, _ = opened(address(site.as_uri(), pair))
    assert "web server" in ready(page, "failed")
    assert "http.server" in page.locator("#message").inner_text()


def test_a_cube_that_is_gone_and_an_address_without_a_pair_are_said(other, cube, opened):
    pair, _ = masked(cube)
    shutil.rmtree(other / "cubes")
    with served(other) as start:
        page, _ = opened(address(start, pair))
        assert "no cube at" in ready(page, "failed")
        page, _ = opened(f"{start}/full.html")
        assert "names no pair" in ready(page, "failed")


def test_a_rebuilt_cube_is_said_and_the_dates_are_found_by_name(other, cube, opened):
    """The positions are those of another pair now: an older date stands in front of all others."""
    store = other / "cubes" / f"{FRAME}.zarr"
    group = zarr.open_group(store, mode="r+")
    for axis in ("primary_date", "secondary_date"):
        days = np.asarray(group[axis][...])
        group[axis][...] = np.concatenate([days[:1] - 12, days[:-1]])
    moved = {pair: (a + 1, b + 1) for pair, (a, b) in pairs_of(cube)}
    stored = {place for _, place in pairs_of(cube)}
    objects = decode_manifest((store / "manifest.json").read_bytes())
    for axis in ("primary_date", "secondary_date"):
        objects[f"{axis}/c.0"] = ["0" * 64, (store / axis / "c.0").stat().st_size]
    (store / "manifest.json").write_bytes(encode_manifest(objects))
    here = next(pair for pair, place in moved.items() if place in stored)
    gone = next(pair for pair, place in moved.items() if place not in stored)
    with served(other) as start:
        page, _ = opened(f"{start}/frames/{FRAME}.html#{here}")
        page.wait_for_function("(name) => document.body.dataset.ready === name", arg=here.name)
        page.locator("#panel-phase a.full").click()
        assert "published again since the page of this frame was written" in ready(page, "phase")
        assert np.array_equal(picture(page), expected(cube, moved[here], "phase"))
        page, _ = opened(address(start, gone))
        assert "no interferogram of this pair" in ready(page, "failed")


@pytest.mark.parametrize("times", [1, 9])
def test_a_cube_that_is_published_while_it_is_read_is_read_again(site, cube, opened, times):
    pair, place = masked(cube)
    asked: list[str] = []

    def publish(route: Any) -> None:
        asked.append(route.request.url)
        body = (cube.store / "manifest.json").read_bytes()
        number = len(asked) // 2  # of the publication: the second look of each reading sees the next one
        if number < times:
            objects = {**decode_manifest(body), "later": [f"{number:064}", number]}
            body = encode_manifest(objects)
        route.fulfill(body=body, content_type="application/json")

    with served(site) as start:
        page, _ = opened("about:blank")
        page.route("**/manifest.json", publish)
        page.goto(address(start, pair))
        if times == 1:
            assert ready(page, "phase") == ""
            assert np.array_equal(picture(page), expected(cube, place, "phase"))
        else:
            assert "again and again" in ready(page, "failed")


@pytest.mark.parametrize("harm", ["gone", "cut", "flipped"])
def test_a_damaged_cube_shows_no_pixels_but_words(other, cube, opened, harm):
    pair, (a, b) = masked(cube)
    chunk = other / "cubes" / f"{FRAME}.zarr" / "insar_difference" / f"c.{a}.{b}.0.1"
    content = chunk.read_bytes()
    chunk.unlink()  # other stores may hold the same file
    if harm == "cut":
        chunk.write_bytes(content[:-7])
    elif harm == "flipped":
        chunk.write_bytes(b"\xff" * len(content))
    with served(other) as start:
        page, _ = opened(address(start, pair))
        assert "damaged" in ready(page, "failed")
        page.wait_for_timeout(200)  # objects that arrive later leave the message
        assert "damaged" in page.locator("#message").inner_text()
        assert not page.locator("#view").is_visible()


def test_cubes_of_another_server_are_read_where_it_lets_pages_read_them(
    whole_cube, cube, opened, site, tmp_path
):
    pair, place = masked(cube)
    cubes = whole_cube / "simulated" / "cubes"
    for headers, state in (({"Access_Control_Allow_Origin": "*"}, "phase"), ({}, "failed")):
        with served(cubes, **headers) as elsewhere:
            folder = write(whole_cube, tmp_path / state, HttpUrl.parse(elsewhere))
            with served(folder) as start:
                page, heard = opened(address(start, pair))
                said = ready(page, state)
                if state == "phase":
                    assert np.array_equal(picture(page), expected(cube, place, "phase"))
                    assert all(one.startswith((start, elsewhere, "data:")) for one in heard), heard
                else:
                    assert "CORS" in said


def test_blosc_is_decoded_block_by_block_and_what_is_damaged_is_refused(site, tmp_path):
    """Images of real frames have blocks, that of the simulated one is too small for it."""
    random = np.random.default_rng(1)
    phase = np.cumsum(random.normal(0, 0.1, (500, 700)), 1).astype("f4")
    encoded = {
        "blocks": Blosc("zstd", 1, Blosc.SHUFFLE, 1 << 18).encode(phase),
        "bytes": Blosc("zstd", 1, Blosc.SHUFFLE, 1 << 17).encode((phase * 9).astype("u1")),
        "plain": Blosc("zstd", 5, Blosc.NOSHUFFLE, 1 << 16).encode(phase),
        "odd": Blosc("zstd", 5, Blosc.SHUFFLE, 4096).encode(phase.ravel()[:4999]),
        "noise": Blosc("zstd", 1).encode(random.bytes(5000)),
        "lz4": Blosc("lz4").encode(phase),
    }
    encoded["cut"] = encoded["blocks"][:-9]
    for name, content in encoded.items():
        (tmp_path / name).write_bytes(content)
    [decoder] = site.glob("vendor/fzstd-*/esm/index.js")
    (tmp_path / "fzstd.mjs").write_bytes(decoder.read_bytes())
    program = f"""import {{decompress}} from "./fzstd.mjs";
        import {{createHash}} from "node:crypto";
        import {{readFileSync}} from "node:fs";
        const MOST_PIXELS = 2 ** 27;
        {read_asset("site_full_blosc.js")}
        const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
        for (const name of process.argv.slice(2)) {{
          try {{ console.log(digest(decodeBlosc(new Uint8Array(readFileSync(name)), decompress))); }}
          catch {{ console.log("refused"); }}
        }}"""
    (tmp_path / "decode.mjs").write_text(program)
    command = [find_program("node", "nodejs"), "decode.mjs", *encoded]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    good = [hashlib.sha256(Blosc().decode(content)).hexdigest() for content in list(encoded.values())[:5]]
    assert ended.stdout.split() == [*good, "refused", "refused"]


def test_words_of_a_cube_run_nothing(other, cube, opened):
    pair, _ = masked(cube)
    store = other / "cubes" / f"{FRAME}.zarr"
    group = zarr.open_group(store, mode="r+")
    group.attrs["frame"] = "<img src=x onerror=alert(1)>"
    objects = decode_manifest((store / "manifest.json").read_bytes())
    objects["zarr.json"] = ["0" * 64, (store / "zarr.json").stat().st_size]
    (store / "manifest.json").write_bytes(encode_manifest(objects))
    with served(other) as start:
        page, heard = opened(address(start, pair))
        assert "of another frame" in ready(page, "failed")
    assert not any(one.rpartition("/")[2] == "x" for one in heard)
