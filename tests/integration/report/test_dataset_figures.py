"""Tests of figures of the data set: colours for everybody, coastlines, and labels that do not overlap."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from color_vision import nearest
from hephaestus_build.core.registry import published_frames
from hephaestus_build.report.dataset_figures import ANNOTATION_COLOURS, PART_COLOURS, plot_frame_map
from hephaestus_build.report.map_axes import overlaps, place_labels
from hephaestus_build.report.style import ALARM, BLUE, INK, SILVER, draw_heading


def test_classes_can_be_told_apart_by_colour_blind_readers_and_from_the_page() -> None:
    for colours in (PART_COLOURS.values(), ANNOTATION_COLOURS.values(), (SILVER, BLUE, ALARM, INK)):
        assert nearest([*colours, "white"])[0] > 20
    # the colours of earlier versions would be found out
    assert nearest(["#5b7a99", "#d9a441", "#2f8f6b", "#ccd2d8", "white"])[0] < 20


def test_the_map_has_coastlines_and_every_id_once_where_no_label_covers_another() -> None:
    figure = plot_frame_map(published_frames(), [])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axes] = figure.axes
    [land] = [item for item in axes.collections if isinstance(item, PolyCollection)]
    assert len(land.get_paths()) > 100
    # Hawaii is in the sea, Rome on land, Chukotka on land beyond 180 degrees
    inside = [any(path.contains_point(where) for path in land.get_paths()) for where in
              ((-158.0, 25.0), (12.5, 42.0), (-175.0, 66.5))]  # fmt: skip
    assert inside == [False, True, True]
    labels = {text.get_text(): text for text in axes.texts}
    assert set(labels) == set(published_frames())
    boxes = [text.get_window_extent(canvas.get_renderer()).extents for text in labels.values()]
    assert not [pair for pair in combinations(boxes, 2) if overlaps(*pair)]
    frame = axes.get_window_extent().extents
    assert all(box[0] >= frame[0] and box[2] <= frame[2] for box in boxes)
    listed = [text.get_window_extent(canvas.get_renderer()).extents for text in figure.texts]
    assert not [pair for pair in combinations(listed, 2) if overlaps(*pair)]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=25))
def test_labels_are_placed_apart(where: list[tuple[float, float]]) -> None:
    anchors = [(x, y, x + 1, y + 1) for x, y in where]
    within = (-100.0, -100.0, 200.0, 200.0)
    places = place_labels(anchors, [(20, 2)] * len(anchors), within)
    for one, other in combinations(places, 2):
        assert not overlaps(one, other)
    for place in places:
        assert not any(overlaps(place, anchor) for anchor in anchors)
        assert np.isclose(place[2] - place[0], 20)


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("length", [1, 60, 120])
def test_a_heading_stays_clear_of_the_badge_and_inside_the_figure(simulated, length):
    figure = Figure((6, 2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    name = "deeplabv3plus-tiny-single-atmosphere-both-seed-1-a234580e " * 3
    draw_heading(figure, name[:length], simulated, mark="SIMULATED DATA")
    canvas.draw()
    title, *badge = (text.get_window_extent() for text in figure.texts)
    edge = badge[0].x0 - 5 if simulated else 600 - 20
    assert title.x1 <= edge
    if length == 1:
        assert figure.texts[0].get_fontsize() == 11
