"""Tests of quicklooks: phase is never averaged as plain numbers, and simulated data are marked."""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib._pylab_helpers import Gcf
from matplotlib.text import Text
from PIL import Image

from hephaestus_build.cli import run_console_script
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.report.image_ops import (
    hillshade,
    phase_colormap,
    round_scale_length,
    shrink_codes,
    shrink_factor,
    shrink_mean,
    shrink_phase,
)
from hephaestus_build.report.quicklook import draw_quicklook, write_quicklook
from hephaestus_build.report.quicklook_data import PairNetwork, newest_pair, read_quicklook_data
from toy_cube import ABSENT, FRAME, PAIRS, grid, masks, phase, toy_cube


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Path:
    """Cube of a real frame without annotations and DEM."""
    folder = tmp_path_factory.mktemp("quiet")
    return toy_cube(folder, frame="106A_09048_000909", pairs=PAIRS[-1:], dem=False)


@pytest.fixture(scope="module")
def figure(cube):
    return draw_quicklook(cube, PAIRS[1])


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


# images


@given(st.floats(-np.pi, np.pi).filter(lambda value: abs(value) > 1e-3), st.integers(1, 5))
def test_a_constant_phase_stays_itself_however_it_is_shrunk(value, factor):
    image = np.full((11, 13), value, "f4")
    small = shrink_phase(image, factor)
    assert small.shape == (11 // factor, 13 // factor)
    np.testing.assert_allclose(np.exp(1j * small), np.exp(1j * value), atol=1e-5)


def test_phase_on_both_sides_of_the_wrap_does_not_average_to_zero():
    image = np.array([[3.1, -3.1], [-3.1, 3.1]], "f4")
    assert abs(shrink_phase(image, 2)[0, 0]) > 3


def test_pixels_without_phase_do_not_count_and_most_of_them_leave_a_hole():
    image = np.array([[2.0, 0.0, 2.0, 0.0], [2.0, 2.0, 0.0, 0.0]], "f4")
    small = shrink_phase(image, 2)
    assert small[0, 0] == pytest.approx(2.0)
    assert np.isnan(small[0, 1])
    assert np.isnan(shrink_phase(image, 1)[0, 1])


def test_means_leave_out_what_is_missing_and_codes_lose_no_small_region():
    image = np.array([[1, np.nan, np.nan, np.nan], [3, 2, np.nan, 5]], "f4")
    np.testing.assert_allclose(shrink_mean(image, 2), [[2, np.nan]])
    mask = np.zeros((4, 4), "u1")
    mask[3, 0] = 5
    assert shrink_codes(mask, 2).tolist() == [[0, 0], [5, 0]]


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(10, 2000))
def test_no_side_stays_longer_than_asked(rows, columns, largest):
    factor = shrink_factor((rows, columns), largest)
    assert max(rows, columns) // factor <= largest
    assert factor == 1 or max(rows, columns) / (factor - 1) > largest


def test_slopes_to_the_north_west_are_bright():
    rows, columns = np.mgrid[0:30, 0:30].astype("f4")
    north_west, south_east = (hillshade(sign * 50 * (rows + columns), (100, 100)) for sign in (1, -1))
    flat = hillshade(np.zeros((30, 30), "f4"), (100, 100))
    assert north_west.mean() > flat.mean() > south_east.mean()
    assert np.isnan(hillshade(np.full((5, 5), np.nan), (100, 100))).all()


@given(st.floats(0.01, 5000))
def test_the_scale_bar_is_round_and_fits(span):
    length = round_scale_length(span)
    assert span / 12 < length <= span / 4
    assert float(f"{length:.0e}") == pytest.approx(length)
    assert f"{length:.0e}"[0] in "125"


def test_the_colours_of_phase_have_no_seam():
    colours = phase_colormap()(np.arange(512))[:, :3]
    steps = np.abs(np.diff(np.vstack([colours, colours[:1]]), axis=0)).max(axis=1)
    assert steps.max() < 0.03
    assert steps[-1] < 0.005


# the pair


def test_the_newest_pair_is_shown(cube):
    assert read_quicklook_data(cube).pair == Pair.parse(PAIRS[4])
    network = PairNetwork(tuple(map(Pair.parse, PAIRS[:2])), *[np.zeros(2, bool)] * 2, np.ones(2))
    assert newest_pair(network, FRAME) == Pair.parse(PAIRS[1])
    with pytest.raises(UsageError, match="no interferogram is stored"):
        newest_pair(PairNetwork((), *[np.zeros(0, bool)] * 2, np.ones(0)), FRAME)


def test_only_the_shown_pair_is_read(cube, tmp_path):
    store = Path(shutil.copytree(cube.resolve(), tmp_path / cube.name))
    for path in store.glob("insar_difference/c.*"):
        if not path.name.startswith("c.0.1.0."):
            path.write_bytes(b"junk")
    view = read_quicklook_data(store, Pair.parse(PAIRS[0]))
    expected = phase(grid(), PAIRS[0])
    np.testing.assert_array_equal(np.nan_to_num(view.phase), expected)


def test_a_view_holds_what_the_cube_holds(cube):
    view = read_quicklook_data(cube, Pair.parse(PAIRS[1]))
    np.testing.assert_array_equal(view.activity, masks(grid(), PAIRS[1])["activity_type_mask"])
    assert view.extent == pytest.approx((10.0003, 10.0703, 19.9407, 20.0007))
    assert view.is_simulated
    assert view.annotation["phase"] == "Unrest"
    assert view.network.deforming.tolist() == [False, True, False, True, False]
    opened = open_pinned_cube(cube)
    change = opened.secondary_date_total_column_water_vapour.sel(
        secondary_date="2019-01-25"
    ) - opened.primary_date_total_column_water_vapour.sel(primary_date="2019-01-01")
    np.testing.assert_allclose(view.vapour, change.values)
    small = read_quicklook_data(cube, Pair.parse(PAIRS[1]), largest=35)
    assert small.phase.shape == (30, 35)
    assert small.extent == pytest.approx(view.extent)


def test_a_pair_that_is_not_stored_is_wrong_usage_and_the_nearest_is_named(cube):
    with pytest.raises(UsageError, match=rf"no interferogram of {ABSENT} is stored; the nearest"):
        draw_quicklook(cube, ABSENT)
    with pytest.raises(UsageError, match="is not a pair"):
        draw_quicklook(cube, "yesterday")
    with pytest.raises(HephaestusError, match="there is no cube"):
        draw_quicklook(cube.parent / "124D_04854_171313.zarr")


# the picture


def test_a_picture_says_what_it_shows(figure):
    shown = words(figure)
    for text in (FRAME, "1 Jan 2019  –  25 Jan 2019,  24 days", "Monte Esempio", "pixel 105 x 111 m",
                 "98 % of the frame has data", "expert: Unrest, confidence 0.8", "wrapped phase (rad)",
                 "coherence", "height (m)", "water vapour, later − earlier (kg m$^{-2}$)", "1 km",
                 "Mogi, high", "Earthquake", "5 interferograms of 4 acquisitions", "with deformation (2)",
                 "not annotated (1)", "SIMULATED DATA", "höher im Süden"):  # fmt: skip
        assert text in shown, text


def test_a_real_frame_without_dem_is_drawn_and_not_called_simulated(quiet):
    shown = words(draw_quicklook(quiet))
    assert "SIMULATED" not in shown.upper()
    assert "DEM is missing" in shown
    assert "expert" not in shown


LICSAR, ERA5, HEPHAESTUS = "modified Copernicus Sentinel data", "ERA5", "Hephaestus annotations"


def credited(cube, pair=None) -> str:
    return " ".join(read_quicklook_data(cube, pair and Pair.parse(pair)).credits)


def test_a_picture_credits_what_it_shows_and_nothing_else(tmp_path):
    cube = toy_cube(tmp_path, frame="106A_09048_000909")
    said = credited(cube, PAIRS[1])
    assert LICSAR in said
    assert "Generated using Copernicus Climate Change Service information" in said
    assert "Hephaestus annotations (Bountos et al. 2022): CC-BY-4.0" in said
    assert HEPHAESTUS not in credited(cube, PAIRS[4])  # not annotated
    shown = words(draw_quicklook(cube, PAIRS[1])).replace("\n", " ")
    assert all(name in shown for name in (LICSAR, ERA5, HEPHAESTUS))
    for path in (cube.resolve() / "secondary_date_total_column_water_vapour").glob("c.*"):
        path.unlink()
    assert ERA5 not in credited(cube, PAIRS[1])
    assert LICSAR in credited(cube, PAIRS[1])


def test_heights_are_credited_where_there_are_some(cube, quiet):
    opened = open_pinned_cube(cube, chunks=None)
    opened["dem"].attrs["dem_source"] = "TanDEMX_90m"
    del opened.attrs["simulated"]
    assert "Heights: TanDEMX_90m." in credited(opened)
    opened["dem"] = opened["dem"] * np.nan
    assert "Heights" not in credited(opened)


def test_a_simulated_picture_says_what_is_simulated(cube):
    assert credited(cube, PAIRS[1]) == (
        "Simulated interferogram, terrain, weather and annotation: no satellite saw this."
    )
    assert credited(cube, PAIRS[4]) == "Simulated interferogram, terrain and weather: no satellite saw this."


def test_a_map_keeps_its_shape_on_the_ground(figure):
    _, south, _, north = grid().bounds
    assert figure.axes[0].get_aspect() == pytest.approx(1 / np.cos(np.radians((south + north) / 2)))


def test_each_pair_has_a_picture_of_its_own_written_whole_and_marked(cube, tmp_path):
    folder = tmp_path / "new"
    figures = dict(Gcf.figs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a glyph that the font lacks
        done = write_quicklook(cube, folder)
    assert (done.pair.name, done.of, done.asked) == (PAIRS[4], 5, False)
    other = write_quicklook(cube, folder, PAIRS[1])
    assert (other.pair.name, other.asked) == (PAIRS[1], True)
    assert dict(Gcf.figs) == figures
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{FRAME}_{PAIRS[1]}.png",
        f"{FRAME}_{PAIRS[4]}.png",
    ]
    before = done.path.stat().st_mtime_ns
    assert write_quicklook(cube, folder, keep=True) == done
    assert done.path.stat().st_mtime_ns == before
    with Image.open(done.path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 1000
        assert image.info["Comment"] == "simulated data"
        assert len(image.convert("RGB").quantize(64).getcolors()) > 20


def test_a_field_that_is_owed_is_said_to_be(cube, tmp_path):
    store = Path(shutil.copytree(cube.resolve(), tmp_path / cube.name))
    for path in (store / "secondary_date_total_column_water_vapour").glob("c.*"):
        path.unlink()
    assert "ERA5 is missing" in words(draw_quicklook(store))


# the command


def test_the_command_says_which_pair_it_drew_and_why(tmp_path, monkeypatch, capsys):
    cube = toy_cube(tmp_path / "simulated" / "cubes")

    def report(*options: str) -> str:
        words = ["hephaestus", "report", FRAME, "--data-dir", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            run_console_script()
        assert not ended.value.code
        return capsys.readouterr().out

    picture = tmp_path / "simulated" / "quicklooks" / f"{FRAME}_{PAIRS[4]}.png"
    assert report() == f"{FRAME}: {PAIRS[4]}, the newest of 5 interferograms, in {picture}\n"
    (shown,) = json.loads(report("--pair", PAIRS[1], "--json"))["pictures"]
    assert (shown["pair"], shown["chosen"], shown["cube"]) == (PAIRS[1], "asked", str(cube))
    assert len(list(picture.parent.iterdir())) == 2
