"""Tests that simulated data are kept apart from real data, and that old simulated cubes are moved there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import hephaestus_baselines.data.simulated_cubes
import hephaestus_build
import toy_cube
from archives import ALL, FRAME, copied, reached
from hephaestus_baselines.data.pinned_cubes import pin_cubes
from hephaestus_baselines.data.simulated_cubes import ensure_benchmark_cubes
from hephaestus_build.cli import run_console_script
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.user_paths import require_local_path
from hephaestus_build.core.settings import EmbeddedArchive, load_settings
from hephaestus_build.cube.discovery import find_cube, is_simulated_cube, select_cubes
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage import migration
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.dataset.splits import read_split
from hephaestus_build.operations.status import frames_with_settings, read_frame_status
from hephaestus_build.pipeline import build as building
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server import embedded
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.sources.era5.selection import choose_era5_source
from hephaestus_build.sources.licsar.portal import LicsarPortal

REAL = Frame("124D_05291_081406")
#: Address without a server: every request to it fails.
NOWHERE = "http://127.0.0.1:9/"
EMBEDDED = EmbeddedArchive(
    "http://127.0.0.1:1/portal/", "http://127.0.0.1:1/a.tar.gz", "http://127.0.0.1:1/arco",
    "http://127.0.0.1:1/cds", "key", (FRAME.id,),
)  # fmt: skip


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    """Data folder with the simulated cube in the place of this version."""
    folder = tmp_path_factory.mktemp("built") / "data"
    with reached(archive):
        assert build(ALL, load_settings(data_dir=folder, era5="arco")).exit_code == 0
    return folder


@pytest.fixture
def data(archive, built, tmp_path, monkeypatch) -> Path:
    archive.reset()
    folder = copied(built, tmp_path / "data")
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(folder))
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    monkeypatch.setenv("HEPHAESTUS_ERA5", "arco")
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    return folder


@pytest.fixture
def portal(upstream):
    """A portal that the settings name."""


@pytest.fixture
def own(archive, monkeypatch):
    """Make the embedded archive a small one, of one frame, with the files of the archive of all tests."""

    def another() -> ArchiveServer:
        return ArchiveServer(SimulatedArchive(archive.archive.world, cache=archive.archive.folder))

    monkeypatch.setattr("hephaestus_build.simulation.server.archive_server.ArchiveServer", another)


@pytest.fixture
def hephaestus(data, monkeypatch, capsys):
    """Run a command as the console script does; return exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hephaestus", *map(str, arguments)])
        code = 0
        try:
            run_console_script()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return call


def as_before(data: Path) -> None:
    """Move a simulated cube to the place of earlier versions."""
    (data / "simulated" / "cubes").rename(data / "cubes")
    shutil.rmtree(data / "simulated")


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# folders


def test_everything_simulated_comes_to_its_own_folder_whoever_builds_it(built, data, portal, hephaestus):
    assert sorted(path.name for path in built.iterdir()) == ["simulated"]
    assert {path.name for path in (built / "simulated").iterdir()} == {"cubes", "cache"}
    assert hephaestus("build", FRAME)[0] == 0
    assert hephaestus("report", FRAME)[0] == 0
    assert sorted(path.name for path in data.iterdir()) == ["simulated"]
    assert list((data / "simulated" / "quicklooks").glob(f"{FRAME}_*.png"))
    assert len((data / "simulated" / "runs.jsonl").read_text().splitlines()) == 1


@given(cache=st.booleans(), served=st.booleans(), named=st.booleans(), times=st.integers(1, 3))
def test_the_settings_of_the_simulated_are_the_same_however_often_they_are_asked_for(
    cache, served, named, times
):
    options = {"licsar_url": NOWHERE} if named else {}
    settings = load_settings(data_dir="data", cache_dir="cache" if cache else None, **options)
    if served:
        settings = settings.with_embedded_archive(EMBEDDED)
    apart = settings
    for _ in range(times):
        apart = apart.for_simulated().model_copy(update={"connections": 1})
    assert apart.is_simulated
    assert apart.data_dir == Path("data/simulated")
    assert apart.downloads_dir == (Path("cache/simulated") if cache else Path("data/simulated/cache"))
    assert apart.real_data_dir == Path("data")
    # explicit settings take precedence
    assert (apart.licsar_url == EMBEDDED.licsar_url) is (served and not named)
    assert (apart.embedded_archive is not None) is (served and not named)
    assert settings.for_frame(REAL) is settings
    assert not settings.is_simulated
    assert settings.licsar_url != EMBEDDED.licsar_url
    assert apart.for_frame(REAL).data_dir == apart.data_dir


def test_commands_find_a_simulated_cube_by_its_frame(data, hephaestus):
    assert json.loads(hephaestus("inspect", FRAME, "--json")[1])["simulated"] is True
    assert hephaestus("verify", FRAME)[1] == f"{FRAME} (simulated): whole\n"
    assert hephaestus("gc", FRAME)[1] == f"{FRAME} (simulated): nothing to remove\n"
    assert hephaestus("export", FRAME, "--to", "zarr2", "--out", data / "out")[0] == 0


def test_without_frames_the_real_cubes_are_taken_and_all_are_shown(data, hephaestus):
    toy_cube.toy_cube(data / "cubes", frame=REAL.id)
    rows = json.loads(hephaestus("status", "--json")[1])["frames"]
    assert {row["frame"]: row["simulated"] for row in rows} == {REAL.id: False, FRAME.id: True}
    assert [
        row["frame"] for row in json.loads(hephaestus("status", "--simulated", "--json")[1])["frames"]
    ] == [FRAME.id]
    assert set(hephaestus("verify")[1].splitlines()) >= {f"{FRAME} (simulated): whole"}
    assert f"{FRAME} (simulated): nothing to remove" in hephaestus("gc")[1]
    for command in ("report", "repair"):
        _, said, _ = hephaestus(command, "--json")
        assert REAL.id in said
        assert FRAME.id not in said
        _, said, _ = hephaestus(command, "--json", "--simulated")
        assert FRAME.id in said
        assert REAL.id not in said


def test_the_folder_of_simulated_data_may_be_named_itself(data, portal, hephaestus, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(data / "simulated"))
    before = tree(data / "simulated" / "cubes")
    for words in (
        ["build", FRAME, "--no-quicklook"],
        ["plan", FRAME],
        ["verify"],
        ["status"],
        ["repair", FRAME],
    ):
        code, said, line = hephaestus(*words)
        assert code == 0, line
        assert FRAME.id in said
        assert "migrate" not in said + line
    assert hephaestus("migrate")[0] == 0
    assert tree(data / "simulated" / "cubes") >= before
    assert not (data / "simulated" / "simulated").exists()
    # what is real there is told from it
    toy_cube.toy_cube(data / "simulated" / "cubes", frame=REAL.id)
    rows = json.loads(hephaestus("status", "--json")[1])["frames"]
    assert {row["frame"]: row["simulated"] for row in rows} == {REAL.id: False, FRAME.id: True}
    said = hephaestus("repair", "--json")[1]
    assert REAL.id in said
    assert FRAME.id not in said


def test_where_there_are_only_simulated_cubes_they_are_taken_and_a_line_says_so(data, hephaestus):
    for command in ("repair", "report"):
        code, said, line = hephaestus(command)
        assert code == 0
        assert FRAME.id in said
        assert line.count("\n") == 1
        assert "no real cubes" in line
        assert "no real cubes" not in hephaestus(command, "--simulated")[2]


# archives


def test_a_simulated_frame_is_served_by_the_command_itself_and_never_asked_of_the_real_archive(
    data, own, hephaestus, monkeypatch
):
    asked = []
    look_up = socket.getaddrinfo

    def only_here(host, *arguments, **options):
        if host not in ("127.0.0.1", "localhost"):
            asked.append(host)
            raise socket.gaierror(f"{host} is not asked in tests")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    for command in (
        ["plan", FRAME],
        ["build", FRAME, "--no-quicklook"],
        ["watch", FRAME, "--rounds", "1"],
        ["verify", "--upstream"],
        ["repair", FRAME],
    ):
        code, _, said = hephaestus(*command)
        assert "no such frame" not in said, command
        assert code == 0, (command, said)
    assert asked == []
    assert not {"HEPHAESTUS_LICSAR_URL", "HEPHAESTUS_ANNOTATIONS", "CDSAPI_KEY"} & os.environ.keys()
    assert hephaestus("build", REAL, "--no-quicklook")[0] == 1
    assert asked  # so that this test can fail


def test_a_real_frame_beside_a_simulated_one_is_asked_of_the_real_archive(data, own, monkeypatch):
    seen = {}

    def noted(request, settings, frame_store, *_, **__):
        seen[request.frame] = settings.for_frame(request.frame)
        raise HephaestusError(f"{request.frame}: seen")

    monkeypatch.setattr(building, "ask_listing", noted)
    settings = load_settings()
    with embedded.serve_for_frames(settings, [FRAME, REAL]) as served:
        for frame in (FRAME, REAL):
            with pytest.raises(HephaestusError, match="seen"):
                build(BuildRequest(frame), served)
    assert seen[REAL].licsar_url == settings.licsar_url
    assert seen[REAL].annotations is settings.annotations
    assert seen[REAL].arco_url == settings.arco_url
    assert not seen[REAL].is_simulated
    assert seen[FRAME].licsar_url.startswith("http://127.0.0.1:")
    assert seen[FRAME].is_simulated


def test_the_key_of_the_cds_goes_with_the_archive(monkeypatch):
    monkeypatch.setenv("CDSAPI_KEY", "mine")
    monkeypatch.setenv("CDSAPI_URL", "https://cds.example.org/api")
    settings = load_settings(era5="cds").with_embedded_archive(EMBEDDED)
    assert choose_era5_source(settings).url == "https://cds.example.org/api"
    assert choose_era5_source(settings.for_simulated()).url == EMBEDDED.cds_url
    assert choose_era5_source(settings.for_simulated())._credentials.key == "key"


def test_a_mirror_and_annotations_that_are_set_are_not_those_of_the_embedded_archive():
    settings = load_settings(
        licsar_mirror_url="http://mirror/", annotations="http://annotations/", arco_url="http://arco/"
    ).with_embedded_archive(EMBEDDED)
    apart = settings.for_simulated()
    assert (apart.licsar_mirror_url, apart.annotations, apart.arco_url) == (
        None, EMBEDDED.annotations, EMBEDDED.arco_url,
    )  # fmt: skip


def test_no_archive_is_started_where_a_portal_is_set_or_all_frames_are_real(monkeypatch):
    monkeypatch.setattr(embedded, "serve_embedded_archive", None)  # any call would fail
    real = load_settings()
    with embedded.serve_for_frames(real, [REAL]) as settings:
        assert settings is real
    named = load_settings(licsar_url=NOWHERE)
    with embedded.serve_for_frames(named, [FRAME]) as settings:
        assert settings.for_frame(FRAME).licsar_url == NOWHERE


def test_a_frame_that_the_embedded_archive_lacks_is_one_line(data, own, hephaestus):
    code, _, said = hephaestus("build", "199A_00001_000001", "--no-quicklook")
    assert code == 1
    assert said.count("\n") == 1
    assert "199A_00001_000001: the embedded archive has no such frame, it has 198A_00210_131313" in said
    code, _, said = hephaestus("build", REAL, "--simulated", "--no-quicklook")
    assert code == 1
    assert f"{REAL}: the embedded archive has no such frame" in said


def test_a_damaged_sample_has_ways_out_without_a_portal(built, archive, data, own, hephaestus, monkeypatch):
    # each command starts an archive of its own, at another port than that of the build
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
    store = data / "simulated" / "cubes" / f"{FRAME}.zarr"
    assert hephaestus("verify", "--upstream") == (0, f"{FRAME} (simulated): whole\n", "")
    for emptied in (False, True):
        shard = next((store / "insar_difference").glob("c.*"))
        shard.unlink()
        shard.write_bytes(b"bad")
        if emptied:
            shutil.rmtree(data / "simulated" / "cache")
        assert hephaestus("verify", FRAME)[0] == 1
        code, said, _ = hephaestus("repair", FRAME)
        assert (code, "1 granule rebuilt" in said) == (0, True)
        assert hephaestus("verify", FRAME)[0] == 0
    assert hephaestus("plan", FRAME)[0] == hephaestus("watch", "--once")[0] == 0
    assert hephaestus("verify", "--upstream", FRAME)[0] == 0
    assert hephaestus("verify", "--upstream", store)[0] == 0


def test_a_library_call_without_an_archive_says_so_and_asks_nobody(data):
    with pytest.raises(HephaestusError, match=f"{FRAME}: it is simulated, and no archive that has it is set"):
        build(ALL, load_settings())


def test_an_archive_that_says_simulated_of_a_real_frame_is_built_apart_or_not_at_all(
    archive, data, portal, hephaestus, monkeypatch
):
    listing, metadata = LicsarPortal.listing, LicsarPortal.metadata
    monkeypatch.setattr(LicsarPortal, "listing", lambda self, frame: listing(self, FRAME))
    monkeypatch.setattr(LicsarPortal, "metadata", lambda self, frame: metadata(self, FRAME))
    code, _, said = hephaestus("build", REAL, "--no-quicklook")
    assert code == 1
    assert said.count("\n") == 1
    assert f"`hephaestus build {REAL} --simulated` builds it apart" in said
    assert not (data / "cubes" / f"{REAL}.zarr").exists()
    assert not FrameStore(data / "cubes", REAL).has_content()
    # and real data are never stored among simulated ones
    monkeypatch.setattr(
        LicsarPortal, "metadata", lambda self, frame: replace(metadata(self, FRAME), fields={})
    )
    code, _, said = hephaestus("build", REAL, "--simulated", "--no-quicklook")
    assert code == 1
    assert "does not say that its data of this frame is simulated" in said
    assert not FrameStore(data / "simulated" / "cubes", REAL).has_content()


# products of cubes


def both(folder: Path) -> Path:
    """Return a folder of a real cube and a simulated one."""
    toy_cube.toy_cube(folder, frame=REAL.id)
    toy_cube.toy_cube(folder, frame=FRAME.id)
    return folder


@pytest.mark.torch
def test_splits_statistics_and_benchmark_refuse_what_is_mixed_unless_asked(data, tmp_path, hephaestus):
    cubes = both(tmp_path / "both")
    for command in (
        ["splits", "write", "paper"],
        ["splits", "summary"],
        ["splits", "audit", "paper"],
        ["benchmark", "plan", "small"],
        ["benchmark", "run", "small"],
    ):
        code, _, said = hephaestus(*command, "--cubes", cubes)
        assert code == 2, command
        assert said.count("\n") == 1, said
        assert "--mixed to take both" in said
    assert hephaestus("splits", "write", "paper", "--cubes", cubes, "--mixed")[0] == 0
    assert read_split(data / "simulated" / "splits" / "paper.json").is_simulated
    code, _, said = hephaestus("statistics", "update", "paper", "--cubes", cubes)
    assert code == 2
    assert "--mixed" in said
    with pytest.raises(UsageError, match="--mixed"):
        pin_cubes(cubes, tmp_path / "grid")
    assert pin_cubes(cubes, tmp_path / "grid", mixed=True)[0].is_dir()


def test_a_split_of_simulated_cubes_never_replaces_the_published_one(data, tmp_path, hephaestus):
    toy_cube.toy_cube(data / "cubes", frame=REAL.id)
    assert hephaestus("splits", "write", "paper", "--cubes", data / "cubes")[0] == 0
    real = (data / "splits" / "paper.json").read_bytes()
    assert hephaestus("splits", "write", "paper", "--simulated")[0] == 0
    assert read_split(data / "simulated" / "splits" / "paper.json").is_simulated
    assert hephaestus("splits", "write", "--cubes", data / "simulated" / "cubes")[0] == 0
    code, _, said = hephaestus("splits", "write", "paper", "--simulated", "--to", data / "splits")
    assert code == 2
    assert "is a split of real samples, and these are simulated" in said
    assert (data / "splits" / "paper.json").read_bytes() == real
    rows = json.loads(hephaestus("splits", "list", "--json")[1])["splits"]
    listed = {row["split"]: row for row in rows}
    assert (listed["paper"]["simulated"], listed["strict-temporal"]["simulated"]) == (False, True)
    hephaestus("statistics", "update", "strict-temporal")
    assert (data / "simulated" / "statistics" / "strict-temporal.json").is_file()
    assert not (data / "statistics").exists()


def test_a_cube_that_says_it_is_simulated_counts_as_one_whatever_its_frame(data, tmp_path):
    store = find_cube(FRAME, load_settings()).resolve()
    copy = shutil.copytree(store, tmp_path / f"{REAL}.zarr")
    assert is_simulated_cube(copy)
    assert not is_simulated_cube(toy_cube.toy_cube(tmp_path / "real", frame=REAL.id))
    taken = select_cubes(load_settings(), [copy])
    assert taken.settings.is_simulated


def test_the_simulated_benchmark_has_its_own_cubes_and_results(data, tmp_path, monkeypatch):
    small = {"epochs": 3, "frames": [FRAME.id], "size": (80, 90)}
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", NOWHERE)  # a separate world, whatever portal is set
    cubes = ensure_benchmark_cubes(load_settings(), options=small)
    assert cubes == data / "simulated" / "benchmark" / "cubes"
    assert is_simulated_cube(cubes / f"{FRAME}.zarr")
    assert sorted(path.name for path in data.iterdir()) == ["simulated"]
    # another world has a folder of its own, the same frame and other phase
    other = ensure_benchmark_cubes(load_settings(), world=2, options=small)
    assert other == data / "simulated" / "benchmark-2" / "cubes"
    first, second = (
        xr.open_zarr(folder / f"{FRAME}.zarr").insar_difference.values for folder in (cubes, other)
    )
    assert first.shape == second.shape
    both = (first != 0) & (second != 0)  # land and sea differ too
    assert both.any()
    assert np.mean(first[both] == second[both]) < 0.01
    # cubes of earlier versions are used in their place until they are moved
    (data / "simulated" / "benchmark").rename(data / "benchmark")
    monkeypatch.setattr(
        hephaestus_baselines.data.simulated_cubes, "serve_embedded_archive", None
    )  # building would fail
    assert ensure_benchmark_cubes(load_settings(), options=small) == data / "benchmark" / "cubes"


# cubes of earlier versions


def test_a_cube_of_an_earlier_version_is_read_where_it_is_until_it_is_moved(data, portal, hephaestus):
    as_before(data)
    assert find_cube(FRAME, load_settings()) == data / "cubes" / f"{FRAME}.zarr"
    assert hephaestus("inspect", FRAME)[0] == 0
    assert hephaestus("verify")[1] == f"{FRAME} (simulated): whole\n"
    code, _, said = hephaestus("status")
    assert f"`hephaestus migrate {FRAME}` moves it" in said
    (row,) = json.loads(hephaestus("status", "--json")[1])["frames"]
    assert (row["to_migrate"], row["simulated"], row["generation"]) == (True, True, 1)
    assert select_cubes(load_settings()).stores == (data / "cubes" / f"{FRAME}.zarr",)
    # nothing is written there, and no second cube is created
    for command in (["build", FRAME, "--no-quicklook"], ["repair", FRAME], ["watch", FRAME, "--rounds", "1"]):
        code, _, said = hephaestus(*command)
        assert code == 1
        assert said.count("hephaestus: ") == 1  # beside the sum of the round, of watch
        assert f"move it with `hephaestus migrate {FRAME}`, then run the same command again" in said
    before = tree(data / "cubes" / ".generations" / FRAME.id / "000001")

    code, out, said = hephaestus("migrate", "--json")
    assert (code, said) == (0, "")
    (moved,) = json.loads(out)["moved"]
    assert moved == {
        "frame": FRAME.id,
        "from": str(data / "cubes" / f"{FRAME}.zarr"),
        "to": str(data / "simulated" / "cubes" / f"{FRAME}.zarr"),
        "generations": [1],
    }
    assert tree(data / "simulated" / "cubes" / ".generations" / FRAME.id / "000001") == before
    assert tree(data / "cubes") == {".generations"}
    assert hephaestus("verify")[1] == f"{FRAME} (simulated): whole\n"
    assert "nothing to migrate" in hephaestus("migrate")[1]
    assert hephaestus("build", FRAME, "--no-quicklook")[0] == 0
    assert hephaestus("status")[2] == ""


def test_a_cube_that_says_it_is_simulated_is_moved_whatever_its_frame(data, hephaestus, monkeypatch):
    told = toy_cube.attributes
    monkeypatch.setattr(toy_cube, "attributes", lambda on, frame: {**told(on, frame), "simulated": True})
    toy_cube.toy_cube(data / "cubes", frame=REAL.id)
    (row,) = json.loads(hephaestus("status", REAL, "--json")[1])["frames"]
    assert (row["simulated"], row["to_migrate"]) == (True, True)
    assert hephaestus("migrate", REAL)[0] == 0
    assert not (data / "cubes" / f"{REAL}.zarr").exists()
    assert hephaestus("inspect", REAL)[0] == 1
    assert json.loads(hephaestus("inspect", REAL, "--simulated", "--json")[1])["simulated"] is True
    rows = json.loads(hephaestus("status", "--json")[1])["frames"]
    assert {(row["frame"], row["simulated"]) for row in rows} == {(REAL.id, True), (FRAME.id, True)}


@pytest.mark.parametrize("apart", [False, True])
def test_the_downloads_of_a_cube_move_with_it_and_none_comes_again(
    archive, data, portal, hephaestus, monkeypatch, apart
):
    downloads = data.parent / "downloads" if apart else data / "cache"
    (data / "simulated" / "cache").rename(downloads)
    as_before(data)
    if apart:
        monkeypatch.setenv("HEPHAESTUS_CACHE_DIR", str(downloads))
    real = downloads / "licsar" / "127.0.0.1" / REAL.id
    real.mkdir()
    archive.clear_log()
    assert hephaestus("migrate")[0] == 0
    assert hephaestus("build", FRAME, "--no-quicklook")[0] == 0
    inside = [entry for entry in archive.log if f"/{FRAME}/" in entry.path and not entry.path.endswith("/")]
    assert [(entry.path.rpartition("/")[2], entry.status) for entry in inside] == [
        ("metadata.txt", 304),
        ("baselines", 304),
    ]
    kept = downloads / "simulated" if apart else data / "simulated" / "cache"
    assert list(kept.glob(f"licsar/127.0.0.1/{FRAME}/*.geo.cc.tif"))
    assert real.is_dir()


def test_a_move_that_is_cut_off_anywhere_goes_on(data, hephaestus, monkeypatch):
    as_before(data)
    root = data / "cubes" / ".generations" / FRAME.id
    shutil.copytree(root / "000001", root / "000002", symlinks=True)
    link = data / "cubes" / f"{FRAME}.zarr"
    link.unlink()
    link.symlink_to(f".generations/{FRAME}/000002/{FRAME}.zarr")
    (root / "upstream.json").write_text("{}")
    whole = tree(data / "cubes")

    class CutError(Exception):
        pass

    rename, unlink = Path.rename, Path.unlink
    for cut in range(20):
        folder = copied(data, data.parent / f"cut-{cut}")
        left = [cut]

        def counted(act, left=left):
            def counting(self, *arguments, **options):
                if "simulated" in str(self) or "cubes" in str(self):
                    if left[0] == 0 and self.name not in ("lock.json",) and not self.name.startswith(".lock"):
                        raise CutError
                    left[0] -= 1
                return act(self, *arguments, **options)

            return counting

        settings = load_settings(data_dir=folder)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", counted(rename))
            patch.setattr(Path, "unlink", counted(unlink))
            try:
                migration.migrate_cube(FRAME, settings)
            except CutError:
                cut_off = True
            else:
                cut_off = False
        if cut_off and migration.frames_to_migrate(settings):
            assert migration.frames_to_migrate(settings) == [FRAME]
            assert read_frame_status(settings, FRAME).to_migrate
            migration.migrate_cube(FRAME, settings)
        assert migration.frames_to_migrate(settings) == []
        frame_store = FrameStore(folder / "simulated" / "cubes", FRAME)
        assert (frame_store.generation_numbers(), frame_store.published_generation().number) == ([1, 2], 2)
        ours = {name for name in tree(folder / "simulated" / "cubes") if not name.endswith("lock")}
        assert ours == {name for name in whole if not name.endswith("lock")}
        if not cut_off:
            break
    assert cut >= 4
    assert not cut_off


def test_a_move_replaces_nothing_and_waits_for_no_build(data, hephaestus, tmp_path):
    (data / "cubes").mkdir()
    shutil.copytree(data / "simulated" / "cubes", data / "cubes", symlinks=True, dirs_exist_ok=True)
    before = tree(data)
    code, _, said = hephaestus("migrate", FRAME)
    assert code == 1
    assert said.count("\n") == 1
    assert "nothing is replaced" in said
    assert tree(data) - before <= {f"{kind}cubes/.generations/{FRAME}/lock" for kind in ("", "simulated/")}
    assert hephaestus("migrate", REAL)[0] == 1
    shutil.rmtree(data / "simulated")
    with FrameStore(data / "cubes", FRAME).lock():
        code, _, said = hephaestus("migrate")
    assert code == 1
    assert "another build is running (" in said
    outside = tmp_path / "outside"
    (data / "cubes" / ".generations" / FRAME.id).rename(outside)
    (data / "cubes" / ".generations" / FRAME.id).symlink_to(outside)
    kept = tree(outside)
    code, _, said = hephaestus("migrate")
    assert code == 1
    assert "is a link that this program did not make" in said
    assert tree(outside) == kept


def test_the_earlier_benchmark_moves_with_the_results_that_were_learnt_from_it(data, hephaestus):
    (data / "benchmark").mkdir()
    (data / "simulated" / "cubes").rename(data / "benchmark" / "cubes")
    (data / "benchmark" / "world.json").write_text("{}")
    pin_cubes(data / "benchmark" / "cubes", data / "results" / "small")
    toy_cube.toy_cube(data / "cubes", frame=REAL.id)
    pin_cubes(data / "cubes", data / "results" / "paper")
    assert hephaestus("migrate")[0] == 0
    assert open_pinned_cube(data / "simulated" / "results" / "small" / "cubes" / f"{FRAME}.zarr").attrs[
        "simulated"
    ]
    assert not (data / "benchmark").exists()
    assert [path.name for path in (data / "results").iterdir()] == ["paper"]


# the façade


def test_a_cube_is_opened_by_its_frame_or_path_and_pinned(data, monkeypatch):
    for named in (FRAME, FRAME.id, FRAME.id.lower(), data / "simulated" / "cubes" / f"{FRAME}.zarr"):
        cube = hephaestus_build.open_cube(named, chunks=None)
        assert cube.attrs["frame"] == FRAME.id
        assert "000001" in cube.encoding["source"]
    monkeypatch.delenv("HEPHAESTUS_DATA_DIR")
    assert hephaestus_build.open_cube(FRAME, data_dir=data).attrs["simulated"] == 1
    monkeypatch.chdir(data.parent)
    (data.parent / FRAME.id).mkdir()  # a folder of manual downloads is not a cube
    assert hephaestus_build.open_cube(FRAME.id).attrs["simulated"] == 1
    with pytest.raises(
        HephaestusError, match=f"there is no cube at .*{REAL}.zarr; `hephaestus build {REAL}`"
    ):
        hephaestus_build.open_cube(REAL)
    with pytest.raises(UsageError, match="neither a cube nor a frame id"):
        hephaestus_build.open_cube("nonsense")


def test_what_is_asked_of_the_reader_is_passed_on(data, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "hephaestus_build.cube.reading.dataset.open_pinned_cube",
        lambda path, **options: asked.update(options),
    )
    hephaestus_build.open_cube(FRAME, verify="first", chunks={})
    assert asked == {"verify": "first", "chunks": {}}


def test_the_import_is_light():
    code = (
        "import sys, hephaestus_build\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'xarray', 'numpy', 'zarr', 'pydantic', 'typer'}, loaded\n"
        "assert hephaestus_build.__version__ and {'open_cube', '__version__'} <= set(dir(hephaestus_build))\n"
        "from hephaestus_build import open_cube\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


# buckets


@pytest.mark.parametrize("address", ["s3://bucket/x", "gs://b", "abfs://u:secret@h/x", "file:///x", "S3:/b"])
def test_a_bucket_is_refused_in_one_line_wherever_a_folder_is_meant(
    data, tmp_path, hephaestus, monkeypatch, address
):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    commands = (
        ["build", FRAME, "--data-dir", address],
        ["status", "--data-dir", address],
        ["report", "--out", address],
        ["export", FRAME, "--to", "zarr2", "--out", address],
        ["splits", "write", "--to", address],
        ["splits", "figures", "--to", address],
        ["benchmark", "run", "--results", address],
        ["benchmark", "predict", FRAME, "--checkpoint", "x", "--to", address],
        ["archive", "write", address],
        ["inspect", f"{address}/x.zarr"],
        ["verify", f"{address}/x.zarr"],
    )
    for command in commands:
        code, _, said = hephaestus(*command)
        assert (code, said.count("\n")) == (2, 1), (command, said)
        assert "is an address" in said
        assert "secret" not in said
    for name in ("HEPHAESTUS_DATA_DIR", "HEPHAESTUS_CACHE_DIR"):
        with monkeypatch.context() as patch:
            patch.setenv(name, address)
            assert hephaestus("status")[0] == 2
    file = tmp_path / "settings.yaml"
    file.write_text(f"cache_dir: {address}\n")
    with monkeypatch.context() as patch:
        patch.setenv("HEPHAESTUS_SETTINGS", str(file))
        assert hephaestus("status")[0] == 2
    assert tree(tmp_path) - before == {"settings.yaml"}
    with pytest.raises(UsageError, match="is an address"):
        hephaestus_build.open_cube(FRAME, data_dir=address)


@pytest.mark.parametrize("folder", ["C:\\data", "C:/data", "data", "/data/a:b", "./s3:/x", "a b:c", None, 3])
def test_folders_are_no_addresses(folder):
    require_local_path("data_dir", folder)


def test_homes_name_each_frame_with_the_settings_that_hold_for_it(data):
    toy_cube.toy_cube(data / "cubes", frame=REAL.id)
    toy_cube.toy_cube(data / "cubes", frame="199A_00210_131313")  # an earlier version's
    found = {frame.id: home.is_simulated for frame, home in frames_with_settings(load_settings())}
    assert found == {REAL.id: False, FRAME.id: True, "199A_00210_131313": True}
    assert [frame for frame, _ in frames_with_settings(load_settings().for_simulated())] == [
        FRAME,
        Frame("199A_00210_131313"),
    ]
