"""Tests of a source other than LiCSAR: other ids and products, with the same pipeline, cube and checks."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import ClassVar

import numpy as np
import pytest

import toy_cube
from hephaestus_build.core import frames
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, FrameIdForm, Pair
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.operations.pair_table import pair_table
from hephaestus_build.operations.repair import repair
from hephaestus_build.pipeline import prepare
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.sources import selection
from hephaestus_build.sources.era5.fields import assemble_fields
from hephaestus_build.sources.era5.requests import Era5Cost
from hephaestus_build.sources.interferograms import (
    EpochBaselines,
    FrameMetadata,
    InterferogramListing,
    KeptListing,
    ListedPair,
    Raster,
    SourceCredit,
)

GRID = toy_cube.grid()
PAIRS = (Pair.parse("20260101_20260113"), Pair.parse("20260101_20260125"))
NISAR = FrameIdForm(
    "NISAR",
    re.compile(r"NISAR_(?P<track>\d{3})_(?P<direction>[AD])_\d{3}"),
    "NISAR_147_A_081",
    173,
)
NAME = "NISAR_147_A_081"


class Granules:
    """Synthetic source with one file per pair; it records its requests."""

    credit = SourceCredit("NISAR", "NASA and ISRO", "none known", "Made up for a test.")
    address = "memory:"

    def __init__(self, settings, history) -> None:
        pass

    asked: ClassVar[list[tuple[str, Pair | None]]] = []

    def tracks(self):
        return (Frame(NAME).track,)

    def frames(self, track):
        return (Frame(NAME),)

    def listing(self, frame):
        return InterferogramListing(frame, tuple(ListedPair(pair, "2026-02-01") for pair in PAIRS), "memory:")

    def metadata(self, frame):
        return FrameMetadata(timedelta(hours=5, minutes=20), {}, Receipt("orbit.xml", Outcome.DOWNLOADED))

    def _product(self, kind, pair, values):
        self.asked.append((kind, pair))
        name = f"{pair}.gunw.h5/{kind}" if pair else f"{NAME}.dem.h5"
        return Receipt(name, Outcome.DOWNLOADED, f"memory:{name}", etag="1"), Raster(values, GRID)

    def dem(self, frame):
        return self._product("dem", None, toy_cube.height(GRID))

    def phase(self, frame, pair, *, replaced=False):
        return self._product("phase", pair, toy_cube.phase(GRID, pair.name))

    def coherence(self, frame, pair, *, replaced=False):
        return self._product("coherence", pair, toy_cube.coherence(GRID, pair.name))

    def preview(self, frame, pair):
        return Receipt(f"{pair}.png", Outcome.ABSENT), None

    def probe_product(self, frame, pair, name, url=""):
        return SmallResponse(Outcome.DOWNLOADED, f"memory:{name}", etag="2" if "phase" in name else "1")

    def optional_raster(self, frame, variable, place, *, replaced=False):
        return Receipt(f"{variable}.tif", Outcome.ABSENT), None

    def fetch_baselines(self, frame, path):
        return Receipt("baselines", Outcome.ABSENT), None

    def kept_listing(self, frame):
        return KeptListing(dict.fromkeys(PAIRS), "2026-02-02T00:00:00+00:00", self.address)

    def kept_baselines(self, frame, path):
        return EpochBaselines(PAIRS[0].primary, {PAIRS[0].primary: 0.0, PAIRS[0].secondary: 25.0})

    def close(self):
        pass


class Weather:
    """Uniform atmosphere."""

    name = "made-up"
    url = "memory:"
    description = "memory"

    def estimate(self, area, times):
        return Era5Cost(len(set(times)), 0)

    def set_expected_hashes(self, hashes):
        pass

    def fetch(self, frame, area, times, progress=None, *, refresh_preliminary=False):
        receipt = Receipt("era5", Outcome.DOWNLOADED, "memory:")
        values = {time: np.full((3, *area.shape), 280, np.float32) for time in times}
        versions, proofs = dict.fromkeys(times, "0001"), dict.fromkeys(times, (receipt,))
        return assemble_fields(area, self.name, values, versions, proofs)


@pytest.fixture
def settings(monkeypatch, tmp_path):
    monkeypatch.setattr(frames, "FRAME_ID_FORMS", [*frames.FRAME_ID_FORMS, NISAR])
    monkeypatch.setitem(selection.INTERFEROGRAM_SOURCES, NISAR.source, Granules)
    monkeypatch.setattr(prepare, "choose_era5_source", lambda settings: Weather())
    monkeypatch.setattr(Granules, "asked", [])
    return load_settings(data_dir=tmp_path)


def test_the_form_of_an_id_tells_its_source(settings):
    frame = Frame.parse(NAME.lower())
    assert (frame.source, frame.track, frame.direction, frame.is_simulated) == ("NISAR", 147, "A", False)
    assert Frame("NISAR_174_D_001").is_simulated
    assert Frame("124D_04854_171313").source == "LiCSAR"
    with pytest.raises(UsageError, match="NISAR_147_A_081"):
        Frame("NISAR_147_X_081")


def test_another_source_is_planned_built_verified_and_repaired(settings):
    frame = Frame(NAME)
    request = BuildRequest(frame, pairs="all")
    assert plan(request, settings).pairs_to_fetch == PAIRS
    assert Granules.asked == []
    result = build(request, settings)
    assert (result.pairs, result.epochs, result.owed, result.era5) == (2, 3, (), "made-up")
    with open_pinned_cube(result.path) as cube:
        assert cube.attrs["title"] == f"Volcanic unrest cube of NISAR frame {NAME}"
        assert "LiCSAR" not in str(cube.attrs)
        assert json.loads(cube.attrs["build_settings"])["nisar_url"] == "memory:"
        unstated = {"radar_wavelength_m", "phase_sign", "processor", "dem_source"}
        assert not cube.attrs.keys() & unstated
        for index, pair in enumerate(PAIRS):
            stored = cube.insar_difference.isel(primary_date=0, secondary_date=index + 1).values
            np.testing.assert_array_equal(stored, toy_cube.phase(GRID, pair.name))
    assert build(request, settings).published is False
    current = FrameStore(settings.cubes_dir, frame).published_generation()
    assert verify_generation(current) == []

    # only the damaged product is fetched again
    Granules.asked.clear()
    (current.store / "insar_coherence" / "c.0.2.0.0").unlink()
    repaired = repair(frame, settings)
    assert (repaired.rebuilt, repaired.lost) == ((f"pair/{PAIRS[1]}",), ())
    assert {pair for _, pair in Granules.asked} == {PAIRS[1]}


def test_pairs_of_another_source_are_listed(settings):
    table = pair_table(Frame(NAME), settings)
    assert list(table.index) == [pair.name for pair in PAIRS]
    np.testing.assert_array_equal(table.perpendicular_baseline_m, [25.0, np.nan])


def test_what_another_source_has_changed_is_found_and_fetched(settings):
    frame = Frame(NAME)
    request = BuildRequest(frame, pairs="all")
    build(request, settings)
    changes = check_upstream(frame, settings, prepare.NullListener())
    assert {change.unit for change in changes} == {f"pair/{pair}" for pair in PAIRS}
    Granules.asked.clear()
    build(request, settings)
    assert {pair for _, pair in Granules.asked} == {*PAIRS}
