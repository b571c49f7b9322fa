"""Test with real interferograms that appear gradually on a plain server, and builds killed at random."""

from __future__ import annotations

import functools
import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cube_objects import objects
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.repair import repair
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.archive_server import ArchiveServer

FRAME = Frame("106A_09048_000909")


class _Portal(http.server.SimpleHTTPRequestHandler):
    """Server without ETags and ranges, as many are; it logs its responses."""

    answered: list[tuple[str, int]] = []  # noqa: RUF012 (one server a test)

    def log_message(self, *arguments: object) -> None:
        pass

    def send_response(self, code: int, message: str | None = None) -> None:
        self.answered.append((self.path, int(code)))
        super().send_response(code, message)


@pytest.fixture
def portal(shared_data, tmp_path):
    """Empty portal, and a function that adds a pair of the real frame, or its DEM, to it."""
    source = shared_data / "licsar" / FRAME.id
    folder = tmp_path / "portal" / str(FRAME.track) / FRAME.id
    (folder / "interferograms").mkdir(parents=True)
    (folder / "metadata").mkdir()
    shutil.copy(source / "metadata" / "metadata.txt", folder / "metadata")

    def arrive(pair: str) -> None:
        target = folder / "interferograms" / pair
        target.mkdir()
        for path in sorted((source / "interferograms" / pair).iterdir()):
            (target / path.name).symlink_to(path)

    pairs = sorted(path.name for path in (source / "interferograms").iterdir())
    handler = functools.partial(_Portal, directory=str(tmp_path / "portal"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", arrive, pairs, source
        server.shutdown()


def worked(data: Path, after: float | None) -> tuple[int, float]:
    """Run the command, kill it `after` seconds after its first request; return its status and duration."""
    _Portal.answered.clear()
    arguments = ["build", FRAME.id, "--no-quicklook", "--data-dir", str(data)]
    process = subprocess.Popen(
        [sys.executable, "-m", "hephaestus_build", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not _Portal.answered:
        time.sleep(0.01)
    clock = time.monotonic()
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode, time.monotonic() - clock


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_real_pairs_arrive_in_steps_and_the_command_is_killed_at_random(portal, tmp_path, monkeypatch):
    address, arrive, pairs, source = portal
    chance = random.Random(int(os.environ.get("SEED", "0")))
    with ArchiveServer(epochs=2) as archive:
        archive.arco.areas = ()
        for name, value in archive.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", address)
        monkeypatch.setenv("HEPHAESTUS_ERA5", "arco")
        monkeypatch.setenv("HEPHAESTUS_TIMEOUT", "20")
        monkeypatch.delenv("HEPHAESTUS_ANNOTATIONS")
        settings = load_settings(data_dir=tmp_path / "data")
        frame_store = FrameStore(settings.cubes_dir, FRAME)
        kills = 0
        order = chance.sample(pairs, len(pairs))
        for step in range(0, len(order), 2):
            here = order[: step + 2]
            for pair in order[step : step + 2]:
                arrive(pair)
            usual = worked(tmp_path / f"usual{step}", None)[1]
            ended = -signal.SIGKILL
            for patience in (*(chance.uniform(0, usual / 3) for _ in range(5)), None):
                if ended >= 0:
                    break
                finished = set(frame_store.staging.read_granules())
                ended, _ = worked(settings.data_dir, patience)
                kills += ended < 0
                asked = {path.rsplit("/", 1)[1][:17] for path, _ in _Portal.answered if path.endswith(".tif")}
                assert not {f"pair/{pair}" for pair in asked} & finished
                if (current := frame_store.published_generation()) is not None:
                    assert verify_generation(current) == []
            assert ended == 3  # the real frame's DEM is not in the archive: a missing product
            units = frame_store.published_generation().read_inventory().granules.values()
            assert {unit.name for unit in units if unit.kind == "pair"} == set(here)
        assert kills > 2
        clean = load_settings(data_dir=tmp_path / "clean")
        build(BuildRequest(FRAME), clean)
        assert objects(frame_store) == objects(FrameStore(clean.cubes_dir, FRAME))
        cube = open_pinned_cube(frame_store.published_link)
        for name in pairs:
            pair = Pair.parse(name)
            here = cube.sel(
                primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
            )
            for suffix, variable in (("diff_pha", "insar_difference"), ("cc", "insar_coherence")):
                with rasterio.open(source / "interferograms" / name / f"{name}.geo.{suffix}.tif") as raster:
                    np.testing.assert_array_equal(here[variable].values, raster.read(1))
        flipped = 0
        for _ in range(10):
            files = [path for path in frame_store.published_link.resolve().rglob("*") if path.is_file()]
            path = chance.choice(files)
            content = bytearray(path.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content)
            (damage, *_) = verify_generation(frame_store.published_generation())
            _Portal.answered.clear()
            mended = repair(FRAME, settings)
            unit = damage.unit.partition("/")[2] if damage.unit.startswith("pair/") else "no pair"
            assert all(unit in path for path, _ in _Portal.answered if path.endswith(".tif"))
            assert mended.lost == ()
            assert verify_generation(frame_store.published_generation()) == []
            flipped += 1
        assert objects(frame_store) == objects(FrameStore(clean.cubes_dir, FRAME))
    print(f"\n{kills} kills while {len(pairs)} real pairs arrived; {flipped} bits flipped and mended")
