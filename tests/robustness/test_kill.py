"""Tests of builds killed at any point: no work is lost or repeated, and no reader sees a partial cube."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import requests

from checkout import SUPPORT
from cube_objects import objects
from fork_server import POINTS
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.granules import Granule, GranuleKey, OverviewGranule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.overview_parts import OverviewParts
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.archive_server import ArchiveServer

FRAME = Frame("198A_00210_131313")
#: Number of kills and seed of the long test, as in `KILLS=1000 pytest -m slow tests/robustness/test_kill.py`.
KILLS, SEED = int(os.environ.get("KILLS", "200")), int(os.environ.get("SEED", "0"))
_PRODUCT = re.compile(
    r"/(?P<name>(?P<pair>\d{8}_\d{8})\.geo\.(diff_pha\.tif|cc\.tif|diff\.png)|\S+\.hgt\.tif)$"
)


@pytest.fixture
def environment(upstream) -> dict[str, str]:
    """The variables that name the archive."""
    upstream.hidden = []
    return dict(os.environ)


@pytest.fixture
def zygote(environment) -> Iterator[subprocess.Popen[str]]:
    """Process that forks the builds."""
    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [sys.executable, str(SUPPORT / "fork_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | quiet,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=240) == 0


class Reader(threading.Thread):
    """Thread that reads the published cube repeatedly, byte for byte, while builds run and are killed."""

    def __init__(self, frame_store: FrameStore) -> None:
        super().__init__(daemon=True)
        self.frame_store = frame_store
        self.looks: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.02):
            try:
                self.look()
            except Exception as error:
                self.wrong.append(repr(error))

    def look(self) -> None:
        current = self.frame_store.published_generation()
        if current is None:
            return
        self.wrong += [f"generation {current.number}: {damage}" for damage in verify_generation(current)]
        cube = open_pinned_cube(self.frame_store.published_link, chunks=None)
        phase, valid = cube.insar_difference.values, cube.valid_date_pair.values
        if not (phase.any(axis=(2, 3)) == valid).all():
            self.wrong.append(f"generation {current.number}: its flags do not say what is stored")
        self.looks[current.number] += 1

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def _must_draw(
    overview: OverviewGranule, granules: dict[str, Granule], grid: Grid | None, replaced: set[str]
) -> bool:
    """Return whether an overview was made of other granules than those of now, or of replaced ones."""
    pair = overview.pair
    if replaced & {GranuleKey.of_pair(pair), GranuleKey.of_mask(pair)}:
        return True
    if grid is None:
        return False
    parts = OverviewParts.find(granules, pair, grid)
    return parts is None or parts.fingerprint(grid, overview.factor) != overview.inputs


class Victim:
    """Data folder built repeatedly by processes that are killed, with checks after each."""

    def __init__(self, archive: ArchiveServer, zygote: subprocess.Popen[str], data: Path, **settings: Any):
        self.archive, self.zygote, self.data = archive, zygote, data
        self.options = {"era5": "arco", "timeout": 15, "retries": 1, **settings}
        self.settings: Settings = load_settings(data_dir=data, **self.options).for_simulated()
        self.frame_store = FrameStore(self.settings.cubes_dir, FRAME)
        self.out = data.with_suffix(".json")
        self.kills: Counter[str] = Counter()

    def run(self, **order: Any) -> bool:
        """Run one build that may be killed, check what it did, and return whether it was killed."""
        before, finished, whole = self.frame_store.published_generation(), self._finished(), self._downloads()
        self.archive.clear_log()
        order |= {"data": str(self.data), "frame": FRAME.id, "out": str(self.out), "settings": self.options}
        assert self.zygote.stdin
        assert self.zygote.stdout
        self.zygote.stdin.write(json.dumps(order) + "\n")
        self.zygote.stdin.flush()
        end = json.loads(self.zygote.stdout.readline())
        where = f"{order.get('point', 'a moment')}, {order.get('count', order.get('after', ''))}"
        if not end["killed"]:
            report = json.loads(self.out.read_text())
            assert "error" not in report, f"after {dict(self.kills)}: {report['error']}"
            self.passed = report["passed"]
        else:
            self.kills[order.get("point", "a moment")] += 1
        self._nothing_twice(finished, whole, where)
        after = self.frame_store.published_generation()
        if after is not None:
            assert before is None or after.number in (before.number, before.number + 1), where
            assert verify_generation(after) == [], where
        else:
            assert before is None, where
        return end["killed"]

    def _finished(self) -> set[str]:
        """Return the granules that must not be built again."""
        current = self.frame_store.published_generation()
        granules = {
            **(current.read_inventory().granules if current else {}),
            **self.frame_store.staging.read_granules(),
        }
        replaced = {key for key, granule in granules.items() if self._replaced(granule)}
        grid = current.read_inventory().grid if current else None
        return {
            key
            for key, granule in granules.items()
            if granule.is_complete
            and key not in replaced
            and not (isinstance(granule, OverviewGranule) and _must_draw(granule, granules, grid, replaced))
        }

    def _replaced(self, granule: Granule) -> bool:
        """Return whether the archive has replaced the files of a pair."""
        if granule.kind not in ("pair", "mask") or "modified" not in granule.facts:
            return False
        modified = self.archive.archive.modified_time(FRAME.id, "interferograms", granule.name)
        return granule.facts["modified"] != f"{modified:%Y-%m-%d %H:%M}"

    def _downloads(self) -> dict[str, str | None]:
        """Return the ETag of every product that is complete in the cache."""
        receipts = (
            msgspec.json.decode(path.read_bytes(), type=Receipt)
            for path in self.settings.downloads_dir.rglob("*.receipt.json")
        )
        return {receipt.product: receipt.etag for receipt in receipts}

    def _nothing_twice(self, finished: set[str], whole: dict[str, str | None], where: str) -> None:
        added = self.out.with_suffix(".added")
        again = finished & set(added.read_text().split() if added.exists() else ())
        assert not again, f"built again after {where}: {again}"
        for entry in self.archive.log:
            if match := _PRODUCT.search(entry.path):
                kind = "mask" if entry.path.endswith(".png") else "pair"
                granule = f"{kind}/{match['pair']}" if match["pair"] else "dem/dem"
                assert granule not in finished, f"{entry.path} was asked for again after {where}"
                if match["name"] in whole and whole[match["name"]] == self._tag(entry.path):
                    assert entry.status == 304, f"{entry.path} was downloaded again after {where}"

    def _tag(self, path: str) -> str | None:
        """Return the current ETag of a product in the archive."""
        head = requests.head(self.archive.base_url + path, timeout=60)
        return head.headers.get("ETag")


def provenance(contents: CubeInventory) -> dict[str, Any]:
    """Return a cube's provenance without the times of download and the ids of CDS requests."""
    return {
        key: granule.identity[:3] if granule.kind == "epoch" else granule.identity
        for key, granule in contents.granules.items()
    } | {"": contents.attributes}


def assert_same(one: FrameStore, other: FrameStore) -> None:
    """Check that two cubes have equal hashes, arrays and products."""
    assert objects(one) == objects(other)
    first, second = one.published_generation(), other.published_generation()
    assert first is not None
    assert second is not None
    assert provenance(first.read_inventory()) == provenance(second.read_inventory())
    left, right = (
        open_pinned_cube(one.published_link, chunks=None),
        open_pinned_cube(other.published_link, chunks=None),
    )
    assert set(left.variables) == set(right.variables)
    for name in left.variables:
        np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=str(name))


@pytest.fixture
def clean(environment, tmp_path):
    """Build the present archive into a separate folder, uninterrupted."""

    def make(name: str, **settings: Any) -> FrameStore:
        options = {"era5": "arco", "timeout": 15, "retries": 1, **settings}
        settings_ = load_settings(data_dir=tmp_path / name, **options).for_simulated()
        assert build(BuildRequest(FRAME, pairs="all"), settings_).exit_code == 0
        return FrameStore(settings_.cubes_dir, FRAME)

    return make


def grow(archive: ArchiveServer, chance: random.Random) -> None:
    """Publish new pairs, some of them between old ones, and replace the files of an old pair."""
    old = archive.archive.pairs(FRAME)
    archive.archive.publish_until(None)
    for name in archive.hidden:
        archive.archive.restore(FRAME, name)
    archive.archive.reprocess(FRAME, chance.choice(old))


def begin(archive: ArchiveServer, chance: random.Random) -> None:
    """Publish only some of the earlier pairs."""
    pairs = archive.archive.world.pairs(FRAME)
    archive.archive.publish_until(pairs[len(pairs) // 2].secondary)
    archive.hidden = [chance.choice(archive.archive.pairs(FRAME)[1:])]
    for name in archive.hidden:
        archive.archive.withdraw(FRAME, name)


def test_killed_at_every_point_in_turn(archive, zygote, clean, tmp_path):
    """A first build is killed at the points before it is complete, an incremental one at the later ones."""
    chance = random.Random(1)
    begin(archive, chance)
    victim = Victim(archive, zygote, tmp_path / "data")
    reader = Reader(victim.frame_store)
    reader.start()
    half = POINTS.index("mid-metadata")
    for point in POINTS[:half]:
        assert victim.run(point=point), f"{point} was not passed"
    assert not victim.run()
    assert victim.frame_store.published_generation().number == 1
    grow(archive, chance)
    for point in ("mid-download", "between shards", "half the ledger's line", *POINTS[half:]):
        assert victim.run(point=point), f"{point} was not passed"
    assert not victim.run()
    reader.stop()
    assert reader.wrong == []
    assert victim.frame_store.published_generation().number == 2
    assert_same(victim.frame_store, clean("clean"))


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_killed_anywhere_hundreds_of_times(archive, zygote, clean, tmp_path):
    chance = random.Random(SEED)
    kills: Counter[str] = Counter()
    looks = cubes = 0
    while kills.total() < KILLS:
        era5 = chance.choice(["arco", "arco", "cds"])
        begin(archive, chance)
        victim = Victim(archive, zygote, tmp_path / f"data{cubes}", era5=era5)
        reader = Reader(victim.frame_store)
        reader.start()
        for step in ("first", "second"):
            if step == "second":
                grow(archive, chance)
            usual = _usual(archive, zygote, tmp_path / f"usual{cubes}{step}", era5)
            alive = True
            for _ in range(chance.randrange(6, 16)):
                if chance.random() < 0.3:
                    order: dict[str, Any] = {"after": chance.uniform(0, usual[1])}
                else:
                    point = chance.choice([point for point in POINTS if usual[0].get(point)])
                    # a resumed build reaches a point less often than a first one
                    count = min(usual[0][point], chance.choice([1, 1, 1, 1, 1, 2, 4]))
                    order = {"point": point, "count": count}
                if not (alive := victim.run(**order)):
                    break
            assert not (alive and victim.run())
        reader.stop()
        assert reader.wrong == []
        assert_same(victim.frame_store, clean(f"clean{cubes}", era5=era5))
        kills += victim.kills
        looks += reader.looks.total()
        cubes += 1
        shutil.rmtree(victim.data)
    at_moments = kills.pop("a moment", 0)
    print(
        f"\n{kills.total() + at_moments} kills of builds of {cubes} cubes (seed {SEED}): {kills.total()} at "
        f"{len(kills)} named points, {at_moments} at random moments; a reader looked {looks} times"
    )


def _usual(archive: ArchiveServer, zygote: subprocess.Popen[str], data: Path, era5: str) -> tuple[Any, float]:
    """Return how often an uninterrupted build reaches each point, and how long it takes."""
    peaceful = Victim(archive, zygote, data, era5=era5)
    clock = time.monotonic()
    assert not peaceful.run()
    shutil.rmtree(data)
    return peaceful.passed, time.monotonic() - clock
