"""Tests of the kept summary of a cube: the same answers as from the whole record, and never instead of it."""

from __future__ import annotations

import json
import os
from datetime import date

import pytest

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.operations.run_log import RUN_LOG, read_last_runs
from hephaestus_build.operations.status import list_frames_on_disk, list_started_frames, read_frame_status
from toy_cube import ABSENT, FRAME, OWED, toy_cube

TODAY = date(2019, 3, 1)


@pytest.fixture
def settings(tmp_path):
    settings = load_settings(data_dir=tmp_path).for_simulated()
    toy_cube(settings.cubes_dir)
    return settings


@pytest.fixture
def store(settings):
    return FrameStore(settings.cubes_dir, Frame(FRAME))


def row(settings):
    return read_frame_status(settings, Frame(FRAME), TODAY)


def without_reading_records(monkeypatch):
    def fail(record):
        raise AssertionError("the whole record was read")

    monkeypatch.setattr(CubeInventory, "decode", fail)


def test_status_says_the_same_with_a_summary_and_reads_no_record_for_it(settings, store, monkeypatch):
    first = row(settings)
    assert (first.problem, first.pairs, first.newest) == ("", 5, date(2019, 2, 6))
    assert first.absent == (ABSENT,)
    assert {item.unit for item in first.owed} == {f"pair/{OWED}"}
    assert store.summary_file.exists()
    without_reading_records(monkeypatch)
    assert row(settings) == first


@pytest.mark.parametrize("name", ["manifest.json", "provenance.json"])
def test_a_record_that_was_damaged_since_is_not_covered_up(settings, store, name):
    assert row(settings).problem == ""
    for folder in store.published_generation().record_folders:
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(b"{}")
    assert f"every copy of {name}" in row(settings).problem or "damaged" in row(settings).problem


def test_a_new_generation_has_a_new_summary(settings, store, monkeypatch):
    before = row(settings)
    toy_cube(settings.cubes_dir, pairs=("20190101_20190113",))
    after = row(settings)
    assert (before.generation, after.generation) == (1, 2)
    assert (before.pairs, after.pairs) == (5, 1)


def test_texts_of_another_version_are_looked_at_again(settings, store):
    assert not row(settings).other_wording
    kept = json.loads(store.summary_file.read_text())
    store.summary_file.write_text(json.dumps({**kept, "wording": "0" * 16, "reworded": True, "pairs": 99}))
    assert not row(settings).other_wording
    assert row(settings).pairs == 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"generation": 1}',
        b'{"generation": -1, "pairs": "many"}',
        b" " * (9 << 20),
    ],
    ids=["empty", "cut", "deep", "short", "wrong", "large"],
)
def test_a_summary_that_cannot_be_read_is_made_again(settings, store, content):
    first = row(settings)
    store.summary_file.write_bytes(content)
    assert row(settings) == first
    assert json.loads(store.summary_file.read_text())["pairs"] == 5


def test_texts_of_a_summary_reach_the_terminal_without_control_characters(settings, store):
    row(settings)
    kept = json.loads(store.summary_file.read_text())
    kept["absent"], kept["schema"] = ["\x1b[2J"], "2.0\x1b]0;x\x07"
    kept["missing"][0]["detail"] = "\x1b[31mred"
    store.summary_file.write_text(json.dumps(kept))
    shown = row(settings)
    assert "\x1b" not in repr(shown) + shown.schema + "".join(shown.absent)
    assert "\x1b" not in "".join(item.detail for item in shown.owed)


def test_a_folder_that_cannot_be_written_to_is_read_in_full(settings, store):
    if os.geteuid() == 0:
        store.summary_file.mkdir()  # rights do not stop root; a folder in its place does
    else:
        store.root.chmod(0o555)
    try:
        assert row(settings).pairs == 5
    finally:
        store.root.chmod(0o755)


def test_a_summary_alone_is_no_cube(settings, store):
    row(settings)
    lost = FrameStore(settings.cubes_dir, Frame("201D_02400_131313"))
    lost.root.mkdir(parents=True)
    lost.summary_file.write_bytes(store.summary_file.read_bytes())
    assert list_started_frames(settings) == [Frame(FRAME)]
    assert len(list_frames_on_disk(settings)) == 2
    assert read_frame_status(settings, lost.frame, TODAY).problem == "not built"


def test_the_last_run_of_thousands_of_frames_is_found(tmp_path):
    lines = [
        json.dumps(
            {"frame": f"{number % 175 + 1:03d}A_{number:05d}_131313", "began": str(turn), "x": "y" * 900}
        )
        for turn in range(2)
        for number in range(3000)
    ]
    (tmp_path / RUN_LOG).write_text("\n".join(lines) + "\n")
    runs = read_last_runs(tmp_path)
    assert len(runs) == 3000
    assert {run["began"] for run in runs.values()} == {"1"}
