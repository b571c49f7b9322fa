"""Tests that expanded fields equal the cube's 100 m variables to within their storage step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils.data import DataLoader

import toy_cube
from hephaestus_baselines.config.channels import ATMOSPHERE_CHANNELS, InputChannels, channel_moments
from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch, interpolate_coarse_fields
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.dataset.channel_statistics import ChannelStatistics
from hephaestus_build.dataset.running_moments import ProductMoments, RunningMoments
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.tiling import tile_whole_frame

FRAMES = (toy_cube.FRAME, "199A_00210_131313")
SIZE = 300
NAMES = (toy_cube.PAIRS[0], toy_cube.PAIRS[1], toy_cube.PAIRS[1])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cubes of a frame with several windows, and of one smaller than a window."""
    folder = tmp_path_factory.mktemp("cubes")
    shapes = ((520, 700), (200, 610))
    return {
        frame: toy_cube.toy_cube(folder, toy_cube.grid(*shape), frame=frame).resolve()
        for frame, shape in zip(FRAMES, shapes, strict=True)
    }


def items(stores: dict[str, Path]) -> list[DatasetItem]:
    members = {
        frame: tuple(Sample(Frame(frame), Pair.parse(name), name in toy_cube.MOVING) for name in NAMES)
        for frame in FRAMES
    }
    return [
        DatasetItem(members[frame], True, tile)
        for frame, shape in zip(FRAMES, ((520, 700), (200, 610)), strict=True)
        for tile in tile_whole_frame(shape, SIZE).tiles
    ]


@pytest.fixture(scope="module")
def batch(stores: dict[str, Path]) -> dict[str, torch.Tensor]:
    data = WindowDataset(items(stores), stores, size=SIZE)
    loader = DataLoader(data, batch_size=len(data), sampler=[SampleDraw(i, 0) for i in range(len(data))])  # type: ignore[arg-type]
    return next(iter(loader))


def test_the_atmosphere_is_the_cubes_within_half_its_step(
    stores: dict[str, Path], batch: dict[str, torch.Tensor]
) -> None:
    fields = expand_batch(batch)
    cubes: dict[str, xr.Dataset] = {
        frame: open_pinned_cube(store, chunks=None) for frame, store in stores.items()
    }
    seen = 0
    for row, item in enumerate(items(stores)):
        cube, tile = cubes[item.frame], item.tile
        assert tile is not None
        for name in ATMOSPHERE_CHANNELS:
            step = cube_schema().variables[name].step
            assert step
            for place, member in enumerate(item.members):
                axis = name.partition("_date_")[0] + "_date"
                day = member.pair.primary if axis.startswith("primary") else member.pair.secondary
                truth = tile.read(cube[name].sel({axis: np.datetime64(day)}).to_numpy(), np.nan)
                got = fields[name][row, place].numpy()
                assert np.array_equal(np.isnan(got), np.isnan(truth))
                allowed = step / 2 + 4 * np.spacing(np.float32(np.nanmax(np.abs(truth))))
                assert np.nanmax(np.abs(got - truth)) <= allowed
                seen += int(np.isfinite(truth).sum())
    assert seen > 1e6


def test_other_fields_are_what_was_read(batch: dict[str, torch.Tensor]) -> None:
    fields = expand_batch(batch)
    shape = batch["phase"].shape
    assert all(values.shape == shape for values in fields.values())
    assert torch.equal(fields["insar_difference"], batch["phase"])
    assert torch.equal(fields["insar_coherence"], batch["coherence"].float())
    assert torch.equal(fields["valid"], batch["phase"] != 0)
    for step in range(shape[1]):
        assert torch.equal(fields["dem"][:, step].nan_to_num(-9), batch["dem"].nan_to_num(-9))


def test_a_product_of_matrices_is_exact_where_a_plane_is() -> None:
    """Bilinear interpolation is exact on planes; large means must not eat the digits."""
    points, rows = 5, torch.linspace(0, 4, 41).repeat(2, 1)
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    plane = 2_400_000 + 3_000 * y + 1_000 * x
    got = interpolate_coarse_fields(plane.expand(2, 3, points, points), rows, rows)
    expected = 2_400_000 + 3_000 * rows[0].double()[:, None] + 1_000 * rows[0].double()
    assert (got.double() - expected).abs().max() <= 0.5  # two steps of float32 there
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(interpolate_coarse_fields(plane.expand(2, 3, points, points), rows, rows), got)


def moments(inputs: InputChannels) -> dict[str, tuple[float, float]]:
    return {name: (10.0 + place, 2.0 + place) for place, name in enumerate(inputs.channels)}


@pytest.mark.parametrize("atmosphere", ["none", "both", "difference"])
@pytest.mark.parametrize("phase", ["angle", "sin-cos"])
def test_channels_stand_where_their_names_say(
    batch: dict[str, torch.Tensor], atmosphere: str, phase: str
) -> None:
    inputs = InputChannels(atmosphere, phase, nodata=True)  # type: ignore[arg-type]
    fields = expand_batch(batch)
    stacked = ChannelStack(inputs, 3, moments(inputs))(fields)
    names = inputs.stacked_channels(3)
    assert stacked.shape == (batch["phase"].shape[0], len(names), SIZE, SIZE)
    assert torch.isfinite(stacked).all()
    by_name = dict(zip(names, stacked.unbind(1), strict=True))
    mean, deviation = moments(inputs)["dem"]
    dem = ((batch["dem"] - mean) / deviation).nan_to_num(0)
    torch.testing.assert_close(by_name["2/dem"], dem)
    assert torch.equal(by_name["1/valid"], fields["valid"][:, 1].float())
    known = fields["valid"][:, 2]
    if phase == "sin-cos":
        circle = by_name["2/insar_difference_sin"] ** 2 + by_name["2/insar_difference_cos"] ** 2
        torch.testing.assert_close(circle, known.float())
    else:
        mean, deviation = moments(inputs)["insar_difference"]
        expected = (batch["phase"][:, 2] - mean) / deviation
        torch.testing.assert_close(by_name["2/insar_difference"], expected)
    coherence = by_name["0/insar_coherence"]
    # no data is no coherence, not average coherence
    mean, deviation = moments(inputs)["insar_coherence"]
    torch.testing.assert_close(coherence, (batch["coherence"][:, 0].float() - mean) / deviation)
    if atmosphere == "difference":
        change = (
            fields["secondary_date_surface_pressure"][:, 1] - fields["primary_date_surface_pressure"][:, 1]
        )
        mean, deviation = moments(inputs)["surface_pressure_difference"]
        torch.testing.assert_close(
            by_name["1/surface_pressure_difference"], ((change - mean) / deviation).nan_to_num(0)
        )


@pytest.mark.parametrize("phase", ["angle", "sin-cos"])
def test_a_blind_model_gets_the_same_input_whatever_the_phase(
    batch: dict[str, torch.Tensor], phase: str
) -> None:
    inputs = InputChannels("both", phase, nodata=True, blind=("insar_difference", "insar_coherence"))  # type: ignore[arg-type]
    stack = ChannelStack(inputs, 3, moments(inputs))
    other = {**batch, "phase": batch["phase"].flip(-1), "coherence": 255 - batch["coherence"]}
    assert torch.equal(stack(expand_batch(batch)), stack(expand_batch(other)))
    assert stack(expand_batch(batch)).any()  # the terrain and the atmosphere are there


def test_moments_follow_the_names_of_the_channels() -> None:
    products = {
        "insar_difference/20190101_20190113": ProductMoments("", RunningMoments(10, 0.5, 40.0), 10),
        "surface_pressure/20190101": ProductMoments("", RunningMoments(4, 90_000.0, 400.0)),
    }
    statistics = ChannelStatistics("x", "0", True, {"A": products}, {"A": dict.fromkeys(products, 1)})
    both = channel_moments(statistics, InputChannels("both"))
    assert both["insar_difference"] == (0.5, 2.0)
    assert (
        both["primary_date_surface_pressure"] == both["secondary_date_surface_pressure"] == (90_000.0, 10.0)
    )
    assert both["dem"] == (0.0, 1.0)
    assert channel_moments(statistics, InputChannels("difference"))["surface_pressure_difference"] == (
        0.0,
        10.0,
    )
    assert channel_moments(statistics, InputChannels(), "published")["insar_difference"][0] == 0.25
    assert channel_moments(statistics, InputChannels(phase="sin-cos"))["insar_difference_cos"] == (0.0, 1.0)
