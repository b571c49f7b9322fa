"""Tests of a cache and a cube whose records hold SHA-256: both are used, and nothing is downloaded again.

The data folder in ``data/sha256_records.tar.xz`` was written by an earlier version of this program (commit
06d85c2), from a simulated archive with two small pairs under the id of a real track.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from archives import asked, frame_store_of, rasters
from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.schema_migration import migrate_schema
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest as BuildRequest
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer

RECORDS = Path(__file__).parents[2] / "data" / "sha256_records.tar.xz"
FRAME = Frame("010A_00210_131313")
PAIR = Pair.parse("20190305_20190820")
ALL = BuildRequest(FRAME, pairs="all")
LISTING = f"/LiCSAR_products/10/{FRAME}/interferograms/"


class Archive(LoopbackServer):
    """The archive that the products came from: it has the files of the cache, with the marks of then."""

    def __init__(self, folder: Path) -> None:
        super().__init__([self._answer])
        self._listing = (folder / "listing.html").read_bytes()
        self._files: dict[str, HttpResponse] = {}
        for note in (folder / "data" / "cache" / "licsar").rglob("*.receipt.json"):
            receipt = json.loads(note.read_text())
            content = note.with_name(note.name.removesuffix(".receipt.json")).read_bytes()
            headers = {"ETag": receipt["etag"], "Last-Modified": receipt["last_modified"]}
            self._files[receipt["product"]] = HttpResponse(200, content, headers)

    def _answer(self, request: HttpRequest) -> HttpResponse | None:
        if request.path == LISTING:
            return HttpResponse(200, self._listing, {"Content-Type": "text/html;charset=UTF-8"})
        return self._files.get(request.path.rpartition("/")[2])

    def sent(self) -> int:
        """Return how many bytes of products were sent; of the baselines, which it lacks, a 404 alone."""
        return sum(entry.sent for path, entry in self.asked() if path != LISTING)

    def asked(self) -> list[tuple[str, Any]]:
        """Return what was asked for, but for the baselines: earlier versions did not fetch them."""
        entries = [entry for entry in self.log if not entry.path.endswith("/baselines")]
        assert all(entry.status == 404 for entry in self.log if entry not in entries)
        return [(entry.path, entry) for entry in entries]


@pytest.fixture
def written(tmp_path) -> Path:
    """The folder of data as it was written."""
    with tarfile.open(RECORDS) as archive:
        # Python 3.11.4 is the first with filters
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return tmp_path / "data"


@pytest.fixture
def archive(written):
    with Archive(written.parent) as server:
        yield server


@pytest.fixture
def settings(archive, written) -> Settings:
    return load_settings(
        data_dir=written,
        licsar_url=f"{archive.base_url}/LiCSAR_products/",
        arco_url=f"{archive.base_url}/arco/full_37-1h-0p25deg-chunk-1.zarr-v3",
        era5="arco",
        timeout=20,
        retries=0,
    )


@pytest.fixture
def migrated(settings) -> Settings:
    """The settings of the data folder after its cube was brought over to the schema of this version."""
    migrate_schema(FRAME, settings)
    return settings


def record(settings: Settings) -> list[dict[str, Any]]:
    """Return the receipts of interferograms and the DEM, as a reader of provenance.json finds them.

    Without how and when they came, and without the address: the port is another in each test.
    """
    store = frame_store_of(settings, FRAME).published_generation().store
    granules = json.loads((store / "provenance.json").read_text())["units"]
    found = [
        item for granule in granules if granule["kind"] in ("pair", "dem") for item in granule["receipts"]
    ]
    return [
        {key: value for key, value in item.items() if key not in ("outcome", "url", "fetched")}
        for item in found
    ]


def lose_cache(settings: Settings) -> None:
    shutil.rmtree(settings.downloads_dir / "licsar")


def suspect(settings: Settings, pair: Pair) -> None:
    """Note that the archive was found to hold another edition of a pair."""
    note = {"checked": "2020-01-01T00:00:00+00:00", "changed": {f"pair/{pair}": "size"}, "gone": []}
    (frame_store_of(settings, FRAME).root / "upstream.json").write_text(json.dumps(note))


def damage(settings: Settings, pattern: str) -> None:
    path = min(frame_store_of(settings, FRAME).published_generation().store.glob(pattern))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_records_are_of_the_earlier_version(settings):
    assert all(set(item) & {"sha256", "blake3"} == {"sha256"} for item in record(settings))
    notes = list(settings.downloads_dir.rglob("*.receipt.json"))
    assert len(notes) == 12
    assert all('"sha256"' in note.read_text() and '"blake3"' not in note.read_text() for note in notes)


def test_a_cube_and_its_cache_are_used_without_a_byte_downloaded_again(archive, settings):
    before = record(settings)
    migrate_schema(FRAME, settings)
    assert archive.asked() == []
    assert record(settings) == before
    result = build(ALL, settings)
    assert result.exit_code == 0
    # published once more, with the attributes that the archive's metadata states
    assert frame_store_of(settings, FRAME).published_generation().number == 3
    assert [(path, entry.status) for path, entry in archive.asked()] == [
        (LISTING, 200),
        (f"/LiCSAR_products/10/{FRAME}/metadata/metadata.txt", 304),
    ]
    assert archive.sent() == 0
    assert record(settings) == before
    assert verify_generation(frame_store_of(settings, FRAME).published_generation()) == []
    assert build(ALL, settings).generation == 3


def test_a_cache_is_used_without_a_byte_downloaded_again(archive, settings):
    before = record(settings)
    with open_pinned_cube(frame_store_of(settings, FRAME).published_link) as cube:
        phases = cube.insar_difference.values[cube.valid_date_pair.values]
    shutil.rmtree(settings.cubes_dir)
    assert build(ALL, settings).exit_code == 0
    products = {path: entry.status for path, entry in archive.asked() if path != LISTING}
    assert len(products) == 7
    assert set(products.values()) == {304}
    assert archive.sent() == 0
    with open_pinned_cube(frame_store_of(settings, FRAME).published_link) as cube:
        found = cube.insar_difference.values[cube.valid_date_pair.values]
        np.testing.assert_array_equal(found, phases)
    # the new record names the algorithm of the cache's
    assert sorted(item["sha256"] for item in record(settings)) == sorted(item["sha256"] for item in before)


def test_what_comes_again_with_the_same_content_is_no_change(archive, migrated):
    settings = migrated
    before = record(settings)
    lose_cache(settings)
    suspect(settings, PAIR)
    assert build(ALL, settings).exit_code == 0
    assert asked(archive) == rasters(PAIR)
    assert archive.sent() > 0
    assert record(settings) == before
    # of what was downloaded now, BLAKE3
    notes = [json.loads(note.read_text()) for note in settings.downloads_dir.rglob("*.tif.receipt.json")]
    assert len(notes) == 2
    assert all("blake3" in note and "sha256" not in note for note in notes)
    number = (
        frame_store_of(settings, FRAME).published_generation().number
    )  # another one, since the address has another port
    for cached in (True, False):
        if not cached:
            lose_cache(settings)
        suspect(settings, PAIR)
        archive.clear_log()
        assert build(ALL, settings).exit_code == 0
        assert asked(archive) == rasters(PAIR)
        assert (archive.sent() == 0) == cached
        assert frame_store_of(settings, FRAME).published_generation().number == number


@pytest.mark.parametrize("cached", [True, False])
def test_a_repair_keeps_the_record(archive, migrated, cached):
    settings = migrated
    before = record(settings)
    if not cached:
        lose_cache(settings)
    damage(settings, "insar_difference/[0-9]*")
    result = repair(FRAME, settings)
    assert (result.rebuilt, result.changed, result.lost) == ((f"pair/{PAIR}",), (), ())
    assert record(settings) == before
    assert (archive.sent() == 0) == cached


def test_a_repair_does_with_a_newer_cache_when_the_archive_has_lost_the_products(archive, migrated):
    settings = migrated
    lose_cache(settings)
    suspect(settings, PAIR)
    build(ALL, settings)  # the cache holds BLAKE3 now, the cube SHA-256
    damage(settings, "insar_difference/[0-9]*")
    archive._files.clear()
    before = record(settings)
    result = repair(FRAME, settings)
    assert (result.rebuilt, result.changed, result.lost) == ((f"pair/{PAIR}",), (), ())
    assert record(settings) == before


def test_a_forged_copy_is_found_whatever_algorithm_its_receipt_names(archive, migrated, caplog):
    settings = migrated
    true = record(settings)
    path = settings.downloads_dir / "licsar" / "127.0.0.1" / FRAME.id / f"{PAIR}.geo.cc.tif"
    note = path.with_name(path.name + ".receipt.json")
    receipt = json.loads(note.read_text())
    other = path.with_name("20190820_20201013.geo.cc.tif").read_bytes()
    assert hashlib.sha256(other).hexdigest() != receipt.pop("sha256")
    path.write_bytes(other)
    first = next(item for item in true if item["product"] == path.name)
    note.write_bytes(encode_json({**receipt, "size": len(other), "blake3": blake3(other).hexdigest()}))
    # an earlier use counts for an address: the archive stands at that of then
    receipt = json.loads(note.read_text())
    assert receipt["etag"] == first["etag"]
    damage(settings, "insar_coherence/[0-9]*")
    result = repair(FRAME, settings)
    assert (result.changed, result.lost) == ((), ())
    assert "is not what it was when first used" in caplog.text
    assert record(settings) == true
