"""Tests of the figures that follow the paper's: types, series, captions, gradients of water vapour."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from color_vision import nearest
from hephaestus_build.cli import run_console_script
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import make_split, split_rule
from hephaestus_build.report.dataset_figures import count_group_sizes, plot_series_lengths
from hephaestus_build.report.scene_figures import (
    INTENSITY_COLOURS,
    TYPE_COLOURS,
    encode_scenes,
    plot_captions,
    plot_series,
    plot_types,
)
from hephaestus_build.report.scenes import (
    find_caption_scenes,
    find_series_pairs,
    find_type_scenes,
    read_scene,
    read_series_scenes,
)
from hephaestus_build.report.vapour_gradients import (
    compute_vapour_gradients,
    draw_vapour_figure,
    mean_lateral_gradient,
)
from toy_cube import FRAME, PAIRS, grid, masks, toy_cube

PAIRS_AS_DATES = tuple(map(Pair.parse, PAIRS))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def path(data) -> Path:
    return toy_cube(data, grid(180, 210))


@pytest.fixture(scope="module")
def cube(path):
    with open_pinned_cube(path, chunks=None) as opened:
        yield opened


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_each_type_is_shown_once_by_its_largest_outline(cube):
    scenes = find_type_scenes([cube])
    # of the toy's types: Mogi and earthquake in one pair, sill in another
    assert {code: scene.pair.name for code, scene in scenes.items()} == {
        1: PAIRS[1],
        3: PAIRS[3],
        5: PAIRS[1],
    }
    for code, scene in scenes.items():
        assert (scene.activity == code).any()
    text = words(plot_types(scenes))
    for expected in ("Mogi, high intensity", "Sill, low intensity", "Earthquake", "SIMULATED", PAIRS[3]):
        assert expected in text
    with pytest.raises(HephaestusError, match="no annotated deformation"):
        find_type_scenes([])


def test_a_window_is_cut_at_the_place_that_its_grid_says(cube):
    whole = read_scene(cube, PAIRS_AS_DATES[1], largest=1000)
    part = find_type_scenes([cube])[5]
    assert part.phase.size < whole.phase.size
    row = round((whole.grid.north - part.grid.north) / part.grid.dy)
    column = round((part.grid.west - whole.grid.west) / part.grid.dx)
    rows, columns = part.phase.shape
    np.testing.assert_array_equal(part.activity, whole.activity[row : row + rows, column : column + columns])
    np.testing.assert_array_equal(part.phase, whole.phase[row : row + rows, column : column + columns])


def test_a_series_shares_its_primary_and_has_both_masks(cube):
    pairs = find_series_pairs(cube)
    assert [pair.name for pair in pairs] == [PAIRS[0], PAIRS[1]]
    assert find_series_pairs(cube, date(2019, 1, 13)) == PAIRS_AS_DATES[2:4]
    with pytest.raises(HephaestusError, match="primary date 2019-01-25"):
        find_series_pairs(cube, date(2019, 1, 25))  # it is stored, but nobody has annotated it
    scenes = read_series_scenes(cube, pairs)
    assert len({(scene.grid, scene.phase.shape) for scene in scenes}) == 1
    expected = masks(grid(180, 210), PAIRS[1])
    assert set(np.unique(scenes[1].activity)) == set(np.unique(expected["activity_type_mask"]))
    assert not scenes[0].activity.any()
    text = words(plot_series(scenes))
    for word in ("1. to 2019-01-13, 12 days", "2. to 2019-01-25", "primary 2019-01-01", "activity: Mogi"):
        assert word in text
    assert "intensity: High" in text


def test_captions_are_shown_in_full_with_and_without_deformation(cube):
    scenes = find_caption_scenes([cube])
    moving = {PAIRS[1], PAIRS[3]}
    assert [scene.pair.name in moving for scene in scenes] == [True, False, True]
    text = words(plot_captions(scenes)).replace("\n", " ")
    for scene in scenes:
        assert scene.caption in text


def test_kinds_of_a_mask_can_be_told_apart_by_colour_blind_readers():
    for colours in (TYPE_COLOURS, INTENSITY_COLOURS):
        assert nearest(list(colours.values()))[0] > 20


def test_small_pictures_keep_grey_grey(cube):
    image = Image.open(
        io.BytesIO(encode_scenes(plot_series(read_series_scenes(cube, find_series_pairs(cube)))))
    )
    assert image.mode == "P"
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels.min(axis=1) == 255).mean() > 0.2  # the page is white


def test_the_gradient_of_a_plane_is_its_slope():
    latitudes, longitudes = np.array([60.5, 60.25, 60.0]), np.array([10.0, 10.25, 10.5, 10.75])
    north = np.broadcast_to(latitudes[:, None], (3, 4)) * 111.195 * 0.03
    assert mean_lateral_gradient(north, latitudes, longitudes) == pytest.approx(3.0)
    # a degree of longitude is half as long at 60 degrees
    east = np.broadcast_to(longitudes, (3, 4)) * 111.195 * 0.03
    middle = 3.0 * np.mean(1 / np.cos(np.radians(latitudes)))
    assert mean_lateral_gradient(east, latitudes, longitudes) == pytest.approx(middle)
    assert mean_lateral_gradient(np.full((3, 4), 7.0), latitudes, longitudes) == pytest.approx(0, abs=1e-9)
    assert np.isnan(mean_lateral_gradient(np.full((3, 4), np.nan), latitudes, longitudes))


def test_a_pair_stands_among_the_gradients_of_its_frame(cube):
    gradients = compute_vapour_gradients(cube)
    assert set(gradients.of_dates) == set(gradients.of_difference) == set(PAIRS_AS_DATES)
    most = max(gradients.of_difference, key=gradients.of_difference.__getitem__)
    assert gradients.count_below(most, difference=True) == len(PAIRS) - 1
    shown, picture = draw_vapour_figure(cube)
    assert shown == most
    assert Image.open(io.BytesIO(picture)).width > 500
    # what is computed from the fields by hand
    pair = PAIRS_AS_DATES[1]
    days = cube["epoch"].values.astype("datetime64[D]").tolist()
    fields = [cube["era5_total_column_water_vapour"].values[days.index(day)] for day in pair.dates]
    axes = cube["era5_latitude"].values, cube["era5_longitude"].values
    by_hand = [mean_lateral_gradient(field.astype("f8"), *axes) for field in fields]
    assert gradients.of_dates[pair] == pytest.approx(np.mean(by_hand))
    with pytest.raises(UsageError, match="no interferogram of"):
        draw_vapour_figure(cube, Pair.parse("20190101_20190206"))


@pytest.mark.parametrize("figure", ["types", "series", "captions", "vapour"])
def test_the_command_draws_each_figure_and_names_it(path, figure, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["hephaestus", "report", str(path), "--figure", figure, "--out",
                                     str(tmp_path), "--json"])  # fmt: skip
    with pytest.raises(SystemExit) as end:
        run_console_script()
    assert end.value.code in (0, None)
    [drawn] = json.loads(capsys.readouterr().out)["figures"]
    assert drawn["figure"] == figure
    assert drawn["frames"] == [FRAME]
    assert Path(drawn["picture"]).parent == tmp_path
    assert Path(drawn["picture"]).stat().st_size < 200_000


def test_a_pair_that_chooses_nothing_is_refused(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["hephaestus", "report", str(path), "--figure", "types", "--pair", PAIRS[0]]
    )
    with pytest.raises(SystemExit) as end:
        run_console_script()
    assert end.value.code == 2
    assert "--pair chooses nothing of --figure types" in capsys.readouterr().err


def test_series_lengths_count_interferograms_of_one_primary():
    frame = Frame("124D_04854_171313")
    samples = [
        Sample(frame, Pair.parse(name), False)
        for name in ("20170101_20170113", "20170101_20170125", "20170113_20170125", "20200101_20200113")
    ]
    assert count_group_sizes(samples) == {1: 2, 2: 1}
    text = words(plot_series_lengths(make_split(split_rule("paper"), samples)))
    assert "train: 2 primary dates, 0% with 3 or more\n2 series of 3" in text
    assert "test: 1 primary dates" in text
