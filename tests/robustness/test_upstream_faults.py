"""Tests of upstream faults: each gives a named outcome, the rest is built, and the next build retries."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from archives import (
    ALL,
    FRAME,
    asked,
    copied,
    frame_store_of,
    objects,
    rasters,
    reached,
    settings_for,
)
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import NullListener
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.faults import Fault
from hephaestus_build.sources.licsar.portal import LicsarPortal

PHASE, COHERENCE = r"{pair}\.geo\.diff_pha\.tif$", r"{pair}\.geo\.cc\.tif$"


def altered(change: Callable[[np.ndarray, dict], tuple[np.ndarray, dict]]) -> Fault:
    """Return a fault that serves a raster with changed values and profile."""

    def body(content: bytes) -> bytes:
        with MemoryFile(content) as file, file.open() as source:
            values, profile = change(source.read(1), dict(source.profile))
        profile |= {"height": values.shape[0], "width": values.shape[1]}
        with MemoryFile() as file:
            with file.open(**profile) as target:
                target.write(values, 1)
            return bytes(file.getbuffer())

    return faults.replace_body(body)


def absurd(_: bytes) -> bytes:
    """Return a TIFF of a few bytes that claims ten billion pixels."""
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", width=100_000, height=100_000, count=1, dtype="float32", crs="EPSG:4326",
            transform=Affine(0.001, 0, 10, 0, -0.001, 20), tiled=True, SPARSE_OK=True, BIGTIFF="YES",
        ):  # fmt: skip
            pass
        return bytes(file.getbuffer())


@dataclass(frozen=True)
class Case:
    """One fault of one pair, and the expected outcome."""

    path: str
    fault: Fault
    outcome: Outcome | None
    detail: str = ""
    times: int | None = None
    timeout: float = 10


def moved(columns: float) -> Callable[[np.ndarray, dict], tuple[np.ndarray, dict]]:
    return lambda values, profile: (
        values, profile | {"transform": profile["transform"] * Affine.translation(columns, 0)}
    )  # fmt: skip


def beside(values: np.ndarray, profile: dict) -> tuple[np.ndarray, dict]:
    """Move a raster so that all its data are outside the frame, and only empty pixels inside."""
    half = values.shape[-1] // 2
    values[..., :half] = 0
    return moved(half)(values, profile)


GONE, REFUSED, SILENT, CORRUPT = Outcome.ABSENT, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.CORRUPT
CASES = {
    "404": Case(PHASE, faults.error_status(404), GONE, "404|not among"),
    "410": Case(COHERENCE, faults.error_status(410), GONE, "410|not among"),
    "403": Case(PHASE, faults.error_status(403), REFUSED, "403"),
    "401": Case(COHERENCE, faults.error_status(401), REFUSED, "401"),
    "429 for ever": Case(PHASE, faults.error_status(429, retry_after=0), SILENT, "429"),
    "429 once": Case(PHASE, faults.error_status(429, retry_after=1), None, times=1),
    "500 for ever": Case(COHERENCE, faults.error_status(500), SILENT, "500"),
    "503 for ever": Case(PHASE, faults.error_status(503), SILENT, "503"),
    "a burst of 503": Case(r"{pair}", faults.error_status(503), None, times=1),
    "connection reset": Case(PHASE, faults.reset_connection(), SILENT, "reset"),
    "connection reset within the file": Case(COHERENCE, faults.reset_connection(500), SILENT, "reset"),
    "a stall without end": Case(PHASE, faults.stall_body(), SILENT, "stalled|no byte", timeout=2),
    "a stall within the file": Case(PHASE, faults.stall_body(1000), SILENT, "stalled|no byte", timeout=2),
    "a cut body": Case(PHASE, faults.cut_connection(1000), CORRUPT, "cut"),
    "a length that is too long": Case(COHERENCE, faults.claim_length(10_000_000), CORRUPT, "cut"),
    "a length that is absurd": Case(PHASE, faults.claim_length(10**13), CORRUPT, "too many"),
    "a length that is too short": Case(PHASE, faults.claim_length(1000), CORRUPT),
    "zero bytes": Case(PHASE, faults.empty_body(), CORRUPT, "zero bytes"),
    "HTML with 200": Case(COHERENCE, faults.serve_html(), CORRUPT, "web page"),
    "a truncated TIFF that opens": Case(PHASE, faults.truncate_body(0.7), CORRUPT),
    "other bytes": Case(PHASE, faults.replace_body(b"II*\0" + bytes(300)), CORRUPT),
    "absurd dimensions": Case(PHASE, faults.replace_body(absurd), CORRUPT, "100000|pixels"),
    "an all-zero raster": Case(PHASE, altered(lambda v, p: (v * 0, p)), CORRUPT, "no data"),
    "a wrong CRS": Case(PHASE, altered(lambda v, p: (v, p | {"crs": "EPSG:32626"})), CORRUPT, "4326"),
    "values that are no phase": Case(PHASE, altered(lambda v, p: (v * 100, p)), CORRUPT),
    "a shift of half a pixel": Case(PHASE, altered(moved(0.5)), None),
    "a shift of three pixels": Case(PHASE, altered(moved(3)), None),
    "no data within the frame": Case(PHASE, altered(beside), CORRUPT, "within the frame"),
    "another size": Case(COHERENCE, altered(lambda v, p: (v[:-5, :-4], p)), None),
}  # fmt: skip


@pytest.fixture(scope="module")
def hidden(archive):
    """Two pairs that are published later: faults affect the first one only."""
    pairs = archive.archive.world.pairs(FRAME)
    return pairs[1], pairs[3]


@pytest.fixture(scope="module")
def built(archive, hidden, tmp_path_factory):
    """Data folder with a cube of all pairs except the hidden ones, and the content of a complete cube."""
    folder = tmp_path_factory.mktemp("built")
    with reached(archive):
        whole = settings_for(folder / "whole")
        assert build(ALL, whole).exit_code == 0
        for pair in hidden:
            archive.archive.withdraw(FRAME, pair)
        assert build(ALL, settings_for(folder / "data")).exit_code == 0
        return folder / "data", objects(whole)


@pytest.fixture
def settings(upstream, built, tmp_path):
    """A copy of that folder, with the hidden pairs upstream by now."""
    return settings_for(copied(built[0], tmp_path / "data"))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_named_the_rest_is_built_and_the_next_run_pays(archive, built, hidden, settings, name):
    case = CASES[name]
    met, spared = hidden
    settings = settings.model_copy(update={"timeout": case.timeout})
    rule = archive.faults.add(case.path.format(pair=met), case.fault, times=case.times)
    result = build(ALL, settings)
    assert rule.hits > 0
    status = read_frame_status(settings, FRAME)
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    if case.outcome is None:
        assert (result.exit_code, result.pairs, status.owed) == (0, 7, ())
    else:
        assert (result.exit_code, result.pairs) == (3, 6)
        assert [(item.unit, item.outcome) for item in result.owed] == [(f"pair/{met}", case.outcome)]
        assert re.search(case.detail, result.owed[0].detail), result.owed[0].detail
        assert status.owed == result.owed
    assert rasters(spared) <= asked(archive)
    archive.reset()
    if case.outcome is None:
        check_upstream(
            FRAME, settings, NullListener()
        )  # a file repaired in place does not change the listing
        archive.clear_log()
    paid = build(ALL, settings)
    assert (paid.exit_code, paid.pairs, paid.owed) == (0, 7, ())
    assert asked(archive) <= rasters(met)
    assert objects(settings) == built[1]
    assert read_frame_status(settings, FRAME).owed == ()


def test_odd_grids_are_said_to_be_and_bits_are_never_averaged(archive, hidden, settings):
    archive.faults.add(PHASE.format(pair=hidden[0]), CASES["a shift of half a pixel"].fault)
    assert build(ALL, settings).aligned["resampled"] == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.error_status(503), "503"),
        (faults.error_status(404), "404"),
        (faults.error_status(403), "403"),
        (faults.reset_connection(), "reset"),
        (faults.replace_body(b"<html><body>Maintenance</body></html>"), "listing"),
        (faults.replace_body(b"<h1>Down for maintenance</h1><a href='/'>Home</a>"), "listing"),
        (faults.empty_body(), "listing"),
    ],
)
def test_a_frame_without_a_listing_keeps_its_cube_and_is_on_record(archive, built, settings, fault, words):
    before = frame_store_of(settings).published_link.resolve()
    archive.faults.add(r"/interferograms/$", fault)
    (run,) = build_frames([ALL], settings)
    assert run.exit_code == 1
    assert FRAME.id in run.error
    assert words in run.error
    assert "\n" not in run.error
    assert frame_store_of(settings).published_link.resolve() == before
    status = read_frame_status(settings, FRAME)
    assert (status.last_error, status.pairs) == (run.error, 5)
    archive.reset()
    (run,) = build_frames([ALL], settings)
    assert run.exit_code == 0
    assert objects(settings) == built[1]
    assert read_frame_status(settings, FRAME).last_error == ""


def test_an_empty_listing_takes_nothing_out_of_a_cube(archive, settings):
    pairs = archive.archive.pairs(FRAME)
    for pair in pairs:
        archive.archive.withdraw(FRAME, pair)
    result = build(ALL, settings)
    assert result.pairs == len(result.gone) == 5
    assert result.published is False
    assert len(read_frame_status(settings, FRAME).gone) == 5
    fresh = settings.model_copy(update={"data_dir": settings.data_dir.parent / "fresh"})
    with pytest.raises(HephaestusError, match="its listing is empty"):
        build(ALL, fresh)
    archive.reset()
    assert build(ALL, settings).gone == ()
    assert read_frame_status(settings, FRAME).gone == ()


def test_hostile_names_in_a_listing_do_nothing(archive, built, settings, tmp_path):
    first = archive.archive.pairs(FRAME)[0]
    archive.archive.extra_links[FRAME.id] = [
        "../../../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "javascript:alert(1)",
        f"http://evil.invalid/{FRAME}/interferograms/20180101_20180113/", "//evil.invalid/20180101_20180113/",
        f"http://127.0.0.1.evil.invalid/{FRAME}/20180101_20180113", "http://[::1", "https://user:pw@evil.invalid/",
        "20180101_20180113/../../../..", "..%2f20180101_20180113/", "%2e%2e/20180101_20180113/",
        r"..\\20180101_20180113", "20189999_20180113/", "20180113_20180101/", f"{first}/../{first}x",
        "20180101_20180113\x00/", "?C=M;O=D", "#", "",
    ]  # fmt: skip
    outside = set(tmp_path.iterdir())
    listing = LicsarPortal(settings).listing(FRAME)
    assert [item.pair for item in listing.pairs] == list(archive.archive.pairs(FRAME))
    archive.clear_log()
    assert build(ALL, settings).exit_code == 0
    assert objects(settings) == built[1]
    assert set(tmp_path.iterdir()) == outside
    assert all(FRAME.id in entry.path or "/api" in entry.path or "annot" in entry.path or "cds" in entry.path
               for entry in archive.log)  # fmt: skip


def test_a_pair_listed_without_files_is_owed_until_they_come(archive, built, hidden, settings):
    archive.faults.add(rf"/interferograms/{hidden[0]}/.", faults.error_status(404))
    result = build(ALL, settings)
    assert [(item.unit, item.outcome) for item in result.owed] == [(f"pair/{hidden[0]}", Outcome.ABSENT)]
    # the pair is no longer missing once the archive removes it from its listing
    archive.faults.clear()
    archive.archive.withdraw(FRAME, hidden[0])
    if hidden[0] not in annotated(archive):
        assert build(ALL, settings).owed == ()
    archive.reset()
    assert build(ALL, settings).owed == ()
    assert objects(settings) == built[1]


def annotated(archive):
    return {
        f"{item['primary_date']}_{item['secondary_date']}"
        for item in archive.archive.world.annotations(FRAME)
    }


def test_files_that_are_replaced_between_listing_and_download_are_noticed(
    archive, hidden, settings, tmp_path
):
    def replace_now(content: bytes) -> bytes:
        archive.archive.reprocess(FRAME, hidden[0])
        return content

    archive.faults.add(r"/interferograms/$", faults.replace_body(replace_now), times=1)
    first = build(ALL, settings)
    assert first.exit_code == 0
    archive.clear_log()
    second = build(ALL, settings)  # the listing has a new date, so the files are revalidated
    assert asked(archive) == rasters(hidden[0])
    assert {entry.status for entry in archive.log if entry.path.endswith(".tif")} == {304}
    assert second.exit_code == 0
    assert build(ALL, settings).published is False
    clean = settings_for(tmp_path / "clean")
    build(ALL, clean)
    assert objects(settings) == objects(clean)


def test_storage_that_moves_is_followed_and_is_no_change(archive, built, hidden, settings):
    archive.archive.layout = "links"
    archive.archive.withdraw(FRAME, hidden[1])
    assert build(ALL, settings).exit_code == 0
    archive.archive.move_storage("elsewhere")
    assert check_upstream(FRAME, settings, NullListener()) == []
    archive.archive.restore(FRAME, hidden[1])
    archive.clear_log()
    assert build(ALL, settings).exit_code == 0
    assert asked(archive) == rasters(hidden[1])
    assert objects(settings) == built[1]


@pytest.mark.parametrize("product", ["hgt", "preview"])
@pytest.mark.parametrize("fault", ["503 for ever", "zero bytes", "HTML with 200", "a cut body"])
def test_a_dem_or_a_preview_is_owed_and_paid(archive, built, tmp_path, settings, product, fault):
    fresh = settings_for(tmp_path / "fresh")
    pattern = r"\.geo\.hgt\.tif$" if product == "hgt" else r"\.geo\.diff\.png$"
    archive.faults.add(pattern, CASES[fault].fault)
    result = build(ALL, fresh)
    assert result.pairs == 7
    assert {item.outcome for item in result.owed} == {CASES[fault].outcome}
    assert {item.unit.partition("/")[0] for item in result.owed} == {"dem" if product == "hgt" else "mask"}
    assert read_frame_status(fresh, FRAME).owed == result.owed
    archive.reset()
    assert build(ALL, fresh).owed == ()
    assert asked(archive) <= {f"{FRAME}.geo.hgt.tif"}
    assert objects(fresh) == built[1]


def test_a_cube_remembers_its_frames_metadata(archive, built, settings, tmp_path):
    archive.faults.add(r"metadata\.txt$", faults.error_status(503))
    assert build(ALL, settings).exit_code == 0
    assert objects(settings) == built[1]
    # a new cube lacks the atmosphere, whose hour nobody knows
    fresh = build(ALL, settings_for(tmp_path / "fresh"))
    assert (fresh.pairs, fresh.epochs, {item.part for item in fresh.owed}) == (7, 0, {"era5"})
    assert all("metadata.txt is unreachable" in item.detail for item in fresh.owed)


def test_era5_without_one_variable_is_owed_and_paid(archive, built, settings, tmp_path):
    fresh = settings_for(tmp_path / "fresh", era5="cds")
    archive.cds.missing_variables = frozenset({"surface_pressure"})
    result = build(ALL, fresh)
    assert result.pairs == 7
    assert {item.outcome for item in result.owed} == {Outcome.CORRUPT}
    assert "surface_pressure" in result.owed[0].detail
    assert {item.unit for item in read_frame_status(fresh, FRAME).owed} == {
        f"epoch/{day:%Y%m%d}" for day in archive.archive.epochs(FRAME)
    }
    archive.reset()
    assert build(ALL, fresh).exit_code == 0
    assert asked(archive) == set()
    assert objects(fresh) == built[1]


@pytest.mark.parametrize("end", ["failed", "rejected", "silent"])
def test_era5_that_does_not_come_is_owed_and_paid(archive, built, settings, tmp_path, end):
    fresh = settings_for(tmp_path / "fresh", era5="cds")
    if end == "silent":
        archive.faults.add(r"^/api", faults.reset_connection())
    else:
        archive.cds.job_end = end
    result = build(ALL, fresh)
    assert (result.exit_code, result.pairs, result.epochs) == (3, 7, 0)
    assert {item.unit.partition("/")[0] for item in result.owed} == {"epoch"}
    archive.reset()
    assert build(ALL, fresh).exit_code == 0
    assert objects(fresh) == built[1]


def test_preliminary_era5_is_counted_and_replaced_when_it_is_final(archive, built, settings, tmp_path):
    days = archive.archive.epochs(FRAME)
    fresh = settings_for(tmp_path / "fresh", era5="cds")
    archive.cds.final_until = days[2]
    assert build(ALL, fresh).exit_code == 0
    assert read_frame_status(fresh, FRAME).preliminary == 3
    archive.clear_log()
    assert build(ALL, fresh).published is False  # requested again, since these dates are years old
    assert sum(entry.path.endswith("/execution") for entry in archive.log) > 0
    archive.cds.final_until = None
    archive.clear_log()
    final = build(ALL, fresh)
    assert (final.generation, final.exit_code) == (2, 0)
    assert asked(archive) == set()
    assert read_frame_status(fresh, FRAME).preliminary == 0
    archive.clear_log()
    assert build(ALL, fresh).published is False
    assert not any("/api/" in entry.path for entry in archive.log)
    assert objects(fresh) == built[1]


def test_one_frame_that_fails_does_not_stop_the_others(archive, settings):
    bad = BuildRequest(FRAME.__class__("199A_00001_000001"), pairs="all")
    runs = list(build_frames([bad, ALL, bad], settings, at_a_time=2))
    assert sorted(run.exit_code for run in runs) == [0, 1, 1]


def test_rasters_of_absurd_dimensions_are_small_files():
    content = absurd(b"")
    assert len(content) < 20_000_000
    with MemoryFile(content) as file, file.open() as source:
        assert source.shape == (100_000, 100_000)
    assert rasterio.__version__
