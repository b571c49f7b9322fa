"""Tests of pages of frames that were built: the cube's own bytes, what is owed, and where all is from."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from archives import ALL, FRAME, settings_for
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.pages.frame_page import make_frame_page
from hephaestus_build.pages.frame_record import read_frame_record
from hephaestus_build.pages.page_data import FramePage
from hephaestus_build.pages.pictures import Picture
from hephaestus_build.pages.write_page import write_frame_page
from hephaestus_build.pipeline.build import build
from hephaestus_build.simulation.server.faults import error_status


@pytest.fixture(scope="session")
def page(whole_cube: Path) -> FramePage:
    return make_frame_page(read_frame_record(FRAME.id, settings_for(whole_cube)))


def store_of(data: Path) -> Path:
    return data / "simulated" / "cubes" / f"{FRAME}.zarr"


def samples(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.png))))


def values(picture: Picture) -> np.ndarray:
    codes = samples(picture)
    return np.where(codes == 0, np.nan, picture.offset + picture.scale * codes.astype(float))


def data_of(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8")
    start = text.index(">", text.index('id="data"')) + 1
    return json.loads(text[start : text.index("</script>", start)])


def test_the_pictures_are_the_bytes_of_the_overview(page, whole_cube):
    raw = open_pinned_cube(store_of(whole_cube), group="overview", mask_and_scale=False, chunks=None)
    decoded = open_pinned_cube(store_of(whole_cube), group="overview", chunks=None)
    days = [raw[name].values.astype("datetime64[D]").tolist() for name in ("primary", "secondary")]
    names = [Pair(*both).name for both in zip(*days, strict=True)]
    stored = [pair.name for pair in page.pairs if pair.status == "stored"]
    assert sorted(page.pictures.pairs) == sorted(stored)
    for name, pictures in page.pictures.pairs.items():
        place = names.index(name)
        assert (samples(pictures.phase) == raw.wrapped_phase.values[place]).all()
        assert (samples(pictures.coherence) == raw.coherence.values[place]).all()
        np.testing.assert_allclose(values(pictures.phase), decoded.wrapped_phase.values[place], atol=1e-5)
        np.testing.assert_allclose(values(pictures.coherence), decoded.coherence.values[place], atol=1e-6)
        mask = raw.deformation_mask.values[place]
        assert (pictures.mask is None) == (not mask.any())
        assert pictures.mask is None or (samples(pictures.mask) == mask).all()
    assert any(one.mask for one in page.pictures.pairs.values())
    west, north = decoded.x.values[0], decoded.y.values[0]
    grid = page.pictures.grid
    assert (grid.west + grid.dx / 2, grid.north - grid.dy / 2) == pytest.approx((west, north))


def test_heights_and_water_vapour_are_the_cubes(page, whole_cube):
    cube = open_pinned_cube(store_of(whole_cube), chunks=None)
    small = open_pinned_cube(store_of(whole_cube), group="overview", chunks=None)
    heights = cube.dem.sel(latitude=small.y.values, longitude=small.x.values, method="nearest").values
    np.testing.assert_allclose(values(page.pictures.heights), heights, atol=0.5)
    days = [small[name].values.astype("datetime64[D]").tolist() for name in ("primary", "secondary")]
    compared = 0
    for primary, secondary, difference in zip(*days, small.water_vapour_difference.values, strict=True):
        if not np.isnan(difference).all():
            later, earlier = (page.pictures.vapour[str(day)] for day in (secondary, primary))
            mean = (values(later) - values(earlier)).mean()
            assert mean == pytest.approx(difference.mean(), abs=2 * later.scale)
            compared += 1
    assert compared == len(page.pictures.pairs)


def test_the_page_says_where_the_shown_pair_is_from(page, whole_cube):
    record = read_frame_record(FRAME.id, settings_for(whole_cube))
    pair = next(one for one in page.pairs if one.name == page.shown)
    [phase, coherence, *_] = pair.products
    [receipt, _] = record.known.granules[f"pair/{page.shown}"].receipts
    assert (phase.role, phase.url, phase.size) == ("phase", receipt.url, receipt.size)
    assert phase.digest == f"blake3:{receipt.blake3}"
    assert coherence.product == f"{page.shown}.geo.cc.tif"
    assert {date.era5 for date in page.dates} == {"final"}
    assert all(date.products[0].digest.startswith("blake3:") for date in page.dates)
    assert page.dem[0].product == f"{FRAME}.geo.hgt.tif"
    moved = [one for one in page.pairs if one.alignment not in ("", "identical")]
    assert any("pixel" in " ".join(one.products[0].notes) for one in moved)


def test_pairs_without_pictures_have_their_provenance_too(page, whole_cube, tmp_path):
    done = write_frame_page(FRAME.id, settings_for(whole_cube), tmp_path, newest=1)
    found = data_of(done.path)
    packed = json.loads(zlib.decompress(base64.b64decode(found["provenance"])))
    assert not any("products" in one for one in (*found["pairs"], *found["dates"]))
    for pair in page.pairs:
        known = [(one.role, one.url, one.digest, one.size, list(one.notes)) for one in pair.products]
        said = packed["pairs"][pair.name]
        assert [
            (*(one[name] for name in ("role", "url", "digest", "size")), one["notes"]) for one in said
        ] == known
        assert known or pair.status == "owed"
    assert all(packed["dates"][date.day][0]["digest"] == date.products[0].digest for date in page.dates)


def test_the_page_has_the_experts_words_and_is_marked_as_simulated(page, tmp_path, whole_cube):
    done = write_frame_page(FRAME.id, settings_for(whole_cube), tmp_path)
    data = data_of(done.path)
    said = {pair["name"]: pair["caption"] for pair in data["pairs"] if pair["annotated"]}
    cube = open_pinned_cube(store_of(whole_cube), chunks=None)
    for name, caption in said.items():
        pair = Pair.parse(name)
        days = {"primary_date": str(pair.primary), "secondary_date": str(pair.secondary)}
        assert caption == cube.caption.sel(days).item().strip()
    text = done.path.read_text(encoding="utf-8")
    assert text.count(">SIMULATED</span>") >= 2
    assert "(SIMULATED)" in text.split("<title>")[1].split("</title>")[0]
    assert "no archive is to be credited" in text
    assert [line.partition(":")[0] for line in done.page.credits[:4]] == [
        "Interferograms", "Heights", "Water vapour", "Annotations",
    ]  # fmt: skip


def test_the_newest_pairs_have_pictures_and_an_asked_one_too(whole_cube):
    record = read_frame_record(FRAME.id, settings_for(whole_cube))
    three = make_frame_page(record, newest=3)
    everything = [pair.name for pair in three.pairs if pair.status == "stored"]
    newest = sorted(everything, key=lambda name: (name[9:], name))[-3:]
    assert list(three.pictures.pairs) == newest
    assert three.shown == newest[-1]
    asked = Pair.parse(everything[0])
    with_asked = make_frame_page(record, newest=3, pair=asked)
    assert list(with_asked.pictures.pairs) == [everything[0], *newest]
    assert with_asked.shown == everything[0]
    with pytest.raises(UsageError, match="hephaestus pairs"):
        make_frame_page(record, pair=Pair.parse("19990101_19990113"))


def test_a_frame_with_nothing_but_owed_products_has_a_page(upstream, tmp_path):
    upstream.faults.add(r"\.tif$", error_status(503))
    settings = settings_for(tmp_path / "data", retries=0)
    with pytest.raises(HephaestusError):
        build(ALL, settings)
    done = write_frame_page(FRAME.id, settings)
    assert done.path == tmp_path / "data" / "simulated" / "pages" / f"{FRAME}.html"
    assert (done.page.pictures, done.page.generation, done.page.shown) == (None, None, "")
    assert {item.outcome for item in done.page.owed} == {"unreachable"}
    assert {pair.status for pair in done.page.pairs} == {"owed", "absent"}
    text = done.path.read_text(encoding="utf-8")
    assert "HTTP 503" in text
    assert f"hephaestus build {FRAME}" in text
    assert "not published" in text


def test_a_frame_that_nobody_has_built_is_refused_by_name(tmp_path, hephaestus):
    code, _, err = hephaestus("report", "198A_00210_131313", "--html", "--data-dir", str(tmp_path))
    assert code == 1
    assert "198A_00210_131313: there is no cube" in err


def test_a_copied_cube_has_a_page_of_what_it_holds(whole_cube, tmp_path):
    copy = tmp_path / "elsewhere.zarr"
    shutil.copytree(store_of(whole_cube).resolve(), copy)
    done = write_frame_page(copy, settings_for(tmp_path / "empty"), tmp_path)
    assert done.path.name == f"{FRAME}.html"
    assert done.page.simulated
    assert len(done.page.pictures.pairs) == sum(pair.status == "stored" for pair in done.page.pairs) == 7


@pytest.mark.parametrize("damage", ["missing", "flipped"])
@pytest.mark.parametrize("name", ["overview/primary", "overview/wrapped_phase", "dem"])
def test_a_page_shows_no_damage_as_data(whole_cube, tmp_path, name, damage):
    copy = tmp_path / "elsewhere.zarr"
    shutil.copytree(store_of(whole_cube).resolve(), copy)
    chunk = max(path for path in (copy / name).iterdir() if path.name != "zarr.json")
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.unlink()
    if damage == "flipped":
        chunk.write_bytes(content)
    word = {"missing": "is missing", "flipped": "is damaged"}[damage]
    with pytest.raises(HephaestusError, match=f"{name}/{chunk.name} {word}.*hephaestus repair"):
        make_frame_page(read_frame_record(copy, settings_for(tmp_path / "empty")))


def predicted(data: Path, shape: tuple[int, int], name: str, **attributes: Any) -> np.ndarray:
    """Write a model's map of one pair in the format of the store, and return it."""
    probability = np.random.default_rng(2).random((1, *shape), np.float32)
    probability[0, :20] = np.nan
    days = [(day - date(1970, 1, 1)).days for day in Pair.parse(name).dates]
    maps = xr.Dataset(
        {
            "deformation_probability": (("map", "latitude", "longitude"), probability),
            "primary_date": ("map", [days[0]]),
            "secondary_date": (("map", "step"), [[days[1]]]),
        },
        attrs={"format": "hephaestus-predictions-map/1", "checkpoint": "abc", "model": "toy", **attributes},
    )
    maps.to_zarr(data / "simulated" / "predictions" / f"{FRAME}.zarr", zarr_format=3, consolidated=True)
    return probability[0]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_models_probability_is_shown_where_a_map_was_predicted(whole_cube, tmp_path, page):
    data = tmp_path / "data"
    shutil.copytree(whole_cube, data, symlinks=True)
    cube = open_pinned_cube(store_of(data), chunks=None)
    name = list(page.pictures.pairs)[-2]
    probability = predicted(data, cube.dem.shape, name)
    made = make_frame_page(read_frame_record(FRAME.id, settings_for(data)))
    pictures = made.pictures.pairs
    assert [one for one in pictures if pictures[one].probability] == [name]
    first, factor = 4, made.pictures.grid.step
    np.testing.assert_allclose(
        values(pictures[name].probability), probability[first::factor, first::factor], atol=0.5 / 254 + 1e-6
    )
    assert made.pictures.model["model"] == "toy"


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_maps_of_another_grid_are_refused_by_name(whole_cube, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(whole_cube, data, symlinks=True)
    predicted(data, (5, 6), "20190305_20190317")
    with pytest.raises(HephaestusError, match="holds no maps of this frame's grid"):
        make_frame_page(read_frame_record(FRAME.id, settings_for(data)))


def test_the_command_writes_a_page_and_says_so(whole_cube, tmp_path, hephaestus):
    where = ("--data-dir", str(whole_cube), "--out", str(tmp_path))
    code, out, _ = hephaestus("report", FRAME.id, "--html", "--newest", "2", "--json", *where)
    assert code == 0
    [said] = json.loads(out)["pages"]
    file = tmp_path / f"{FRAME}.html"
    assert (said["page"], said["pairs"], said["bytes"]) == (str(file), 2, file.stat().st_size)
    code, out, _ = hephaestus("report", FRAME.id, "--html", "--pair", "20190305_20190317", *where)
    assert code == 0
    assert out.startswith(f"{FRAME}: 7 interferograms, ")
    assert data_of(file)["shown"] == "20190305_20190317"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--newest", "3"), "add --html"),
        (("--html", "--figure", "series"), "give one of them"),
        (("--html", "--pair", "20190305"), "20190305"),
        (("--html", "--newest", "0"), "--newest"),
    ],
)
def test_options_that_do_not_fit_are_refused(whole_cube, hephaestus, options, words):
    code, _, err = hephaestus("report", FRAME.id, "--data-dir", str(whole_cube), *options)
    assert code == 2
    assert words in err
