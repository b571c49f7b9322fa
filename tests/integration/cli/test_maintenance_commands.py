"""Tests of the commands for maintenance: build --all, status, verify, repair, watch and gc."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from archives import ALL, FRAME, asked, copied, frame_store_of, settings_for
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import published_frames
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.build import build
from hephaestus_build.simulation.server import faults


@pytest.fixture
def data(upstream, whole_cube, tmp_path, monkeypatch) -> Path:
    folder = copied(whole_cube, tmp_path / "data")
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(folder))
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    return folder


@pytest.fixture
def hephaestus(data, hephaestus):
    """Run a command on the data of this file."""
    return hephaestus


def runs(data: Path) -> list[dict]:
    """Return the run log of real frames, then of simulated ones."""
    files = [data / "runs.jsonl", data / "simulated" / "runs.jsonl"]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def test_all_builds_the_registry_and_one_failed_frame_stops_none(data, hephaestus):
    code, out, err = hephaestus("build", "--all", "--at-a-time", "4", "--no-quicklook", "--json")
    assert code == 1
    assert {entry["frame"] for entry in json.loads(out)["frames"]} == set(published_frames())
    assert sorted(run["frame"] for run in runs(data)) == sorted(published_frames())
    lines = [line for line in err.splitlines() if line.startswith("hephaestus:")]
    assert len(lines) == 38
    assert all("no such frame" in line for line in lines)


def test_a_list_is_built_and_its_exit_code_tells(data, hephaestus):
    code, out, err = hephaestus("build", "199A_00001_000001", FRAME.id, FRAME.id.lower(), "--no-quicklook")
    assert code == 1
    assert f"{FRAME}\n" in out
    assert "nothing new, generation 1" in out
    assert err.count("no such frame") == 1
    ended = {run["frame"]: run["exit_code"] for run in runs(data)}
    assert ended == {FRAME.id: 0, "199A_00001_000001": 1}
    assert hephaestus("build", FRAME.id, "--all")[0] == 2
    assert hephaestus("build")[0] == 2
    assert hephaestus("build", "nonsense")[0] == 2


def test_status_fits_a_narrow_terminal_and_names_what_needs_attention(archive, data, hephaestus):
    code, out, err = hephaestus("status")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[1].split()[0] == FRAME.id
    assert "simulated" in out
    pair = archive.archive.pairs(FRAME)[2]
    archive.archive.reprocess(FRAME, pair)
    archive.archive.withdraw(FRAME, archive.archive.pairs(FRAME)[0])
    archive.faults.add(str(pair), faults.error_status(503))
    assert hephaestus("build", FRAME.id, "--no-quicklook")[0] == 3
    code, out, err = hephaestus("status")
    assert code == 0
    assert "stale: 2 granules changed upstream" in err  # the pair, and the geometry of its masks
    assert "gone upstream, kept in the cube: 1 pair, such as" in err
    code, out, _ = hephaestus("status", "--json")
    (row,) = json.loads(out)["frames"]
    assert (row["pairs"], len(row["gone"]), len(row["stale"]), row["generation"]) == (7, 1, 1, 1)
    assert row["newest"] == str(max(pair.secondary for pair in archive.archive.world.pairs(FRAME)))
    assert row["latency_days"] > 0
    assert row["bytes"] > 10_000
    assert row["simulated"] is True
    assert row["last_run"]


def test_a_host_that_is_down_is_one_line_a_frame(archive, data, hephaestus):
    archive.faults.add("LiCSAR_products", faults.error_status(503))
    code, out, err = hephaestus("verify", "--upstream", FRAME.id)
    (line,) = err.splitlines()
    assert code == 1
    assert re.fullmatch(rf"{FRAME} \(simulated\): \d+ products not compared", out.strip())
    assert "cannot be asked (unreachable:" in line
    assert " more products; `hephaestus verify --upstream" in line
    (found,) = (
        row["findings"]
        for row in json.loads(hephaestus("verify", "--upstream", FRAME.id, "--json")[1])["frames"]
    )
    assert len(found) > 10  # programs get each product


def test_what_changed_is_named_beside_what_was_not_compared(archive, data, hephaestus):
    pairs = archive.archive.pairs(FRAME)
    archive.archive.reprocess(FRAME, pairs[2])
    archive.faults.add(str(pairs[1]), faults.error_status(503))
    code, out, err = hephaestus("verify", "--upstream", FRAME.id)
    assert code == 1
    assert re.search(r": 2 findings, \d products? not compared$", out.strip())
    lines = err.splitlines()
    assert [("not compared" in line, str(pairs[1]) in line) for line in lines].count((True, True)) == 1
    assert all("not compared" in line or f"`hephaestus build {FRAME}` fetches it" in line for line in lines)
    assert any(f"{pairs[2]}" in line and "changed upstream" in line for line in lines)


def test_status_lists_what_is_owed_also_before_anything_is_published(archive, data, hephaestus):
    shutil.rmtree(data)
    archive.faults.add(r"\.geo\.diff_pha\.tif$", faults.error_status(503))
    code, _, err = hephaestus("build", FRAME.id, "--no-quicklook")
    assert code == 1
    assert "no interferogram could be fetched" in err
    code, _, err = hephaestus("status")
    assert code == 1
    assert "not published" in err
    assert "its last build failed" in err
    # seven products, one reason, one line
    owed = [line for line in err.splitlines() if "owed:" in line]
    assert len(owed) == 1
    assert "and 6 more" in owed[0]
    archive.reset()
    assert hephaestus("build", FRAME.id, "--no-quicklook")[0] == 0
    assert hephaestus("status")[0] == 0


def test_a_mistyped_frame_is_shown_by_status_and_troubles_nothing_else(data, hephaestus):
    mistyped = "199A_00001_000001"
    assert hephaestus("build", mistyped, "--no-quicklook")[0] == 1
    code, out, err = hephaestus("status")
    assert code == 1
    assert f"{mistyped}: not built" in err
    for command in (["verify"], ["verify", "--upstream"], ["repair"], ["gc"], ["watch", "--rounds", "1"]):
        code, out, err = hephaestus(*command)
        assert code == 0, command
        assert mistyped not in out + err
    code, _, err = hephaestus("verify", mistyped)
    assert code == 1
    assert "there is no cube" in err
    shutil.rmtree(data / "simulated" / "cubes" / ".generations" / mistyped)
    assert hephaestus("status")[0] == 0


def test_verify_and_repair_by_name_and_by_path(data, hephaestus, tmp_path):
    assert hephaestus("verify") == (0, f"{FRAME} (simulated): whole\n", "")
    store = frame_store_of(settings_for(data)).published_generation().store
    copy = shutil.copytree(store, tmp_path / "copy.zarr")
    shard = next((store / "insar_difference").glob("c.*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    code, out, err = hephaestus("verify", FRAME.id)
    assert (code, out) == (1, f"{FRAME} (simulated): 1 finding\n")
    assert "insar_difference of pair/2019" in err
    assert f"`hephaestus repair {FRAME}`" in err
    assert hephaestus("verify", str(copy)) == (0, f"{copy}: whole\n", "")
    (copy / "zarr.json").unlink()
    code, _, err = hephaestus("verify", str(copy))
    assert code == 1
    assert "zarr.json is missing" in err
    assert hephaestus("repair", FRAME.id)[0] == 0
    (row,) = json.loads(hephaestus("verify", "--json")[1])["frames"]
    assert (row["frame"], row["findings"]) == (FRAME.id, [])
    assert hephaestus("verify", "199A_00001_000001")[0] == 1
    assert hephaestus("verify", str(tmp_path))[0] == 1


def test_verify_checks_flags_and_schema_of_a_cube_that_is_what_was_published(data, hephaestus, tmp_path):
    """A cube may match its manifest byte for byte and still violate the schema."""
    from hephaestus_build.core.atomic_io import hash_file
    from hephaestus_build.cube.storage.frame_folder import MANIFEST
    from hephaestus_build.cube.storage.generations import Generation
    from hephaestus_build.cube.storage.manifest import encode_manifest

    copy = shutil.copytree(
        frame_store_of(settings_for(data)).published_generation().store, tmp_path / "copy.zarr"
    )
    group = copy / "zarr.json"
    group.write_text(group.read_text().replace('"CF-1.11"', '"CF-1.10"'))
    manifest = Generation.from_path(copy).read_manifest()
    manifest["zarr.json"] = [hash_file(group), group.stat().st_size]
    (copy / MANIFEST).write_bytes(encode_manifest(manifest))
    code, _, err = hephaestus("verify", str(copy))
    assert code == 1
    assert "Conventions" in err


def test_verify_upstream_says_what_the_next_build_fetches(archive, data, hephaestus):
    assert hephaestus("verify", "--upstream")[0] == 0
    pair = archive.archive.pairs(FRAME)[1]
    archive.archive.reprocess(FRAME, pair)
    code, _, err = hephaestus("verify", "--upstream")
    assert code == 1
    assert f"{pair}.geo.diff_pha.tif: changed upstream" in err
    assert f"`hephaestus build {FRAME}` fetches it" in err


def test_watch_prints_a_line_a_frame_and_a_summary(archive, data, hephaestus):
    code, out, err = hephaestus("watch", "--rounds", "1", "--json")
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == [FRAME.id]
    # without a frame and --simulated, as there are only simulated cubes
    assert err.count("\n") == 2
    assert "round 1: 1 frame: 0 built, 1 unchanged, 0 failed" in err
    assert "no real cubes" in err
    assert hephaestus("watch", "--rounds", "1", "--simulated", "--json")[2].startswith("round 1: 1 frame: ")
    assert len(runs(data)) == 2


def test_watch_says_who_builds_a_frame_and_looks_again_in_the_next_round(data, hephaestus):
    with frame_store_of(settings_for(data)).lock():
        code, _, err = hephaestus("watch", "--rounds", "1")
    assert code == 1
    assert "another build is running (process" in err
    assert hephaestus("watch", "--rounds", "1")[0] == 0


def test_watch_needs_to_know_what_to_watch(data, hephaestus):
    shutil.rmtree(data)
    code, _, err = hephaestus("watch", "--rounds", "1")
    assert code == 2
    assert "name the frames to watch" in err


def test_gc_keeps_what_readers_may_have_pinned(archive, data, hephaestus):
    settings = settings_for(data)
    for pair in archive.archive.pairs(FRAME)[:2]:
        archive.archive.reprocess(FRAME, pair)
        build(ALL, settings)
    assert frame_store_of(settings).generation_numbers() == [1, 2, 3]
    assert "nothing to remove" in hephaestus("gc")[1]
    assert "removed generations 1, 2" in hephaestus("gc", "--keep", "1", "--older-than", "0")[1]
    assert frame_store_of(settings).generation_numbers() == [3]
    assert hephaestus("verify")[0] == 0
    assert not [path for path in frame_store_of(settings).root.iterdir() if path.name.startswith(".")]


def test_a_lost_link_loses_no_generation(archive, data, hephaestus):
    """After a copy without symbolic links, any command that writes publishes the newest generation again."""
    settings = settings_for(data)
    archive.archive.reprocess(FRAME, archive.archive.pairs(FRAME)[0])
    build(ALL, settings)
    pinned = open_pinned_cube(frame_store_of(settings).published_link, chunks=None)
    coherence = pinned.insar_coherence.values
    for again in (lambda: hephaestus("gc"), lambda: build(ALL, settings)):
        frame_store_of(settings).published_link.unlink()
        archive.clear_log()
        again()
        assert frame_store_of(settings).generation_numbers() == [1, 2]
        assert frame_store_of(settings).published_generation().number == 2
        assert asked(archive) == set()
    assert (pinned.insar_coherence.values == coherence).all()
    assert hephaestus("verify")[0] == 0


def test_a_cube_whose_generations_are_gone_is_named_by_all_commands(archive, data, hephaestus):
    shutil.rmtree(data / "simulated" / "cubes" / ".generations")
    for command in (("verify",), ("watch", "--rounds", "1")):
        code, _, said = hephaestus(*command)
        assert code == 1
        assert f"`hephaestus repair {FRAME}`" in said
    assert f"`hephaestus repair {FRAME}`" in hephaestus("status")[2]
    assert hephaestus("repair")[0] == 0
    assert hephaestus("verify")[0] == 0


def test_gc_goes_on_after_a_frame_that_it_cannot_have(data, hephaestus):
    first = frame_store_of(settings_for(data))
    other = FrameStore(first.published_link.parent, Frame("198A_00001_131313"))
    other.root.mkdir()
    (other.root / "000001").mkdir()
    with other.lock():
        code, told, said = hephaestus("gc")
    assert code == 1
    assert f"{FRAME} (simulated): nothing to remove" in told
    assert "another build is running" in said


def test_what_else_lies_among_the_cubes_disturbs_no_command(data, hephaestus):
    (data / "simulated" / "cubes" / ".generations" / "something else").mkdir()
    (data / "simulated" / "runs.jsonl").write_text("{not json\n[]\n")
    assert hephaestus("status")[0] == 0
    assert hephaestus("verify")[0] == 0
    assert Frame(FRAME.id).is_simulated
