"""Tests of detectability on cubes, with models of which it is known what they see."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.detectability import injection_experiment
from hephaestus_baselines.detectability.detectability_report import (
    DetectabilityReport,
    InjectedPlace,
    write_detectability,
)
from hephaestus_baselines.detectability.injection_experiment import measure_detectability
from hephaestus_baselines.detectability.place_groups import DISPLACEMENTS
from hephaestus_baselines.training.inference import TrainedModel
from hephaestus_build.core.errors import HephaestusError
from toy_benchmark import FRAME, toy_cubes
from toy_training import toy_recipe


class FringeCounter(nn.Module):
    """The mean turn of the phase from pixel to pixel: the more fringes, the surer."""

    def forward(self, channels: Tensor) -> Tensor:
        sine, cosine = channels[:, 0], channels[:, 1]
        turn = (cosine[..., 1:] - cosine[..., :-1]) ** 2 + (sine[..., 1:] - sine[..., :-1]) ** 2
        sure = turn.mean((1, 2))
        return torch.stack([torch.zeros_like(sure), sure], dim=1)


class Blind(nn.Module):
    """An answer that follows from the heights alone."""

    def forward(self, channels: Tensor) -> Tensor:
        sure = channels[:, 3].mean((1, 2))
        return torch.stack([torch.zeros_like(sure), sure], dim=1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    folder = toy_cubes(tmp_path_factory.mktemp("cubes"), until=6)
    return {FRAME: folder / f"{FRAME}.zarr"}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "run" / "best.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"stands for a trained model")
    return path


def use_model(monkeypatch: pytest.MonkeyPatch, model: nn.Module, **fields: Any) -> Recipe:
    recipe = toy_recipe(size=64, phase="sin-cos", **fields)
    moments = dict.fromkeys(recipe.inputs.channels, (0.0, 1.0)) | {"dem": (1000.0, 1000.0)}
    trained = TrainedModel(recipe, model.eval(), moments, True, "0" * 64, 1, 0.5, "average precision", 1.0)
    # a model without weights has no device of its own
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    monkeypatch.setattr(injection_experiment, "load_deformation_model", lambda *_, **__: trained)
    return recipe


def measure(checkpoint: Path, stores: dict[str, Path], **options: Any) -> tuple[DetectabilityReport, list]:
    chosen = {"places": 24, "false_alarms": 0.1, "device": "cpu"} | options
    return measure_detectability(checkpoint, stores, **chosen)


def test_a_model_that_counts_fringes_finds_large_sources_and_no_small_ones(monkeypatch, checkpoint, stores):
    use_model(monkeypatch, FringeCounter())
    report, places = measure(checkpoint, stores)
    shares = [point.detected / point.cases for point in report.all.points]
    assert shares[0] < 0.4
    assert shares[-1] > 0.8
    half, nine = report.all.limits
    assert 0.25 < half.displacement_cm <= nine.displacement_cm < 32
    assert half.fringes == pytest.approx(half.displacement_cm / 2.773288)
    assert report.simulated
    assert not report.same_split
    assert {place.kind for place in places} == {"mogi", "dyke", "sill", "spheroid"}
    assert sum(curve.places for curve in report.by_kind.values()) == len(places) == 24
    assert sum(curve.places for curve in report.by_coherence.values()) == 24
    assert not [name for name in report.by_extent if "e+" in name]


def test_a_model_that_sees_no_phase_finds_no_more_than_its_false_alarms(monkeypatch, checkpoint, stores):
    use_model(monkeypatch, Blind())
    report, _ = measure(checkpoint, stores)
    assert all(point.detected == report.test_false_alarms for point in report.all.points)
    assert not any(point.beyond_false_alarms for point in report.all.points)
    assert report.all.false_alarms == report.test_false_alarms
    assert report.test_windows == 24
    assert np.isnan(report.all.limits[0].displacement_cm)
    assert report.all.limits[0].note.startswith("not found up to 32 cm")


def test_a_frame_without_geometry_is_left_out_and_named(monkeypatch, checkpoint, stores, tmp_path, caplog):
    other = "203A_SM_SIMU_S3"
    both = {**stores, other: toy_cubes(tmp_path, until=6, frame=other) / f"{other}.zarr"}
    known = injection_experiment.read_radar_geometry

    def without_heading(frame, attributes, look=None):
        if frame == other:
            attributes = {**attributes, "platform_heading_deg": None}
        return known(frame, attributes, look)

    monkeypatch.setattr(injection_experiment, "read_radar_geometry", without_heading)
    use_model(monkeypatch, FringeCounter())
    report, places = measure(checkpoint, both, places=4)
    assert report.frames_left_out == [other]
    assert {place.frame for place in places} == {FRAME}
    assert f"{other}: the cube does not state platform_heading_deg" in caplog.text
    with pytest.raises(HephaestusError, match="does not state platform_heading_deg"):
        measure(checkpoint, {other: both[other]}, places=4)


def test_places_sources_and_noise_depend_on_the_seed_alone(monkeypatch, checkpoint, stores):
    use_model(monkeypatch, FringeCounter())
    first, again, other = (measure(checkpoint, stores, places=4, seed=seed) for seed in (5, 5, 6))
    assert first[0].model_dump_json() == again[0].model_dump_json()
    assert first[1] == again[1]
    assert [place.row for place in first[1]] != [place.row for place in other[1]]


def test_a_source_moves_in_every_member_of_a_series(monkeypatch, checkpoint, stores):
    seen: list[Tensor] = []
    score = injection_experiment._score_windows

    def record(trained, samples):
        seen.extend(sample["phase"] for sample in samples)
        return score(trained, samples)

    monkeypatch.setattr(injection_experiment, "_score_windows", record)
    use_model(monkeypatch, FringeCounter(), series=True)
    measure(checkpoint, stores, places=1)
    quiet, *moved = seen[-1 - len(DISPLACEMENTS) :]
    assert quiet.shape == (3, 64, 64)
    for step in range(3):
        turned = torch.angle(torch.exp(1j * (moved[0][step] - quiet[step]).double()))
        data = quiet[step] != 0
        # a quarter of a centimetre is a phase of 4 pi 0.25 / 5.55
        assert turned[data].abs().max().item() == pytest.approx(0.5664, rel=0.15)
        assert bool((moved[-1][step][~data] == 0).all())


def test_the_table_of_places_gives_each_source_so_that_it_can_be_computed_again(
    monkeypatch, checkpoint, stores, tmp_path
):
    use_model(monkeypatch, FringeCounter())
    report, places = measure(checkpoint, stores, places=4)
    # scores of a segmentation are multiples of 1/1024: one that equals the threshold raises no alarm
    report = report.model_copy(update={"threshold": 0.48046875})
    places = [replace(place, quiet_score=0.48046875) for place in places]
    paths = write_detectability(tmp_path / "out", report, places)
    assert [path.name for path in paths] == ["detectability.json", "detectability.csv", "detectability.png"]
    with paths[1].open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 4 * (1 + len(DISPLACEMENTS))
    assert {row["kind"] for row in rows} == {"mogi", "dyke", "sill", "spheroid"}
    largest = [row for row in rows if row["displacement_cm"] == "32"]
    assert [float(row["volume_m3"]) for row in largest] == pytest.approx(
        [0.32 * place.unit_volume for place in places]
    )
    assert all((float(row["score"]) > report.threshold) == (row["alarm"] == "1") for row in rows)
    written = DetectabilityReport.model_validate_json(paths[0].read_text())
    assert written.all.points == report.all.points
    assert isinstance(places[0], InjectedPlace)
    assert json.loads(paths[0].read_text())["simulated"] is True


def test_limits_of_single_interferograms_are_those_of_their_places(monkeypatch, checkpoint, stores, tmp_path):
    use_model(monkeypatch, FringeCounter())
    report, places = measure(checkpoint, stores, places=25, interferograms=2)
    assert {place.frame for place in places} == {FRAME}
    assert [one.places for one in report.by_interferogram] == [12, 13]
    assert len({tuple(one.pairs) for one in report.by_interferogram}) == 2
    for one in report.by_interferogram:
        own = [place for place in places if list(place.pairs) == one.pairs]
        alarms = np.array([[place.quiet_score, *place.scores] for place in own]) > report.threshold
        quiet, *shares = alarms.mean(axis=0)
        beyond = np.clip((np.array(shares) - quiet) / (1 - quiet), 0, 1)
        half = one.limits[0]
        # where it is crossed, whatever the interpolation: between the last below and the first from there on
        below = max(size for size, share in zip(report.displacements_cm, beyond, strict=True) if share < 0.5)
        assert below / 2 <= half.displacement_cm <= below * 2
        assert half.low_cm <= half.displacement_cm <= half.high_cm
    names = [path.name for path in write_detectability(tmp_path, report, places)]
    assert names[-1] == "detectability-interferograms.png"
    few, _ = measure(checkpoint, stores, places=4)
    for one in few.by_interferogram:
        assert [limit.note for limit in one.limits] == [
            f"not enough cases: {one.places} place{'s' if one.places > 1 else ''} of at least 10"
        ] * 2
        assert all(np.isnan(limit.displacement_cm) for limit in one.limits)


def test_a_rate_that_the_quiet_windows_cannot_measure_is_one_line(monkeypatch, checkpoint, stores):
    use_model(monkeypatch, FringeCounter())
    with pytest.raises(HephaestusError, match=r"a false-alarm rate of 0\.001 needs at least 1000 windows"):
        measure(checkpoint, stores, false_alarms=0.001)
