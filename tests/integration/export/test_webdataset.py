"""Tests of WebDataset shards: published keys, the cube's values, the same bytes each time, continuation."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hephaestus_build.cli import run_console_script
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.schema import CHANNELS
from hephaestus_build.export import webdataset as shards_module
from hephaestus_build.export.shard_samples import largest_sample_bytes, window_start
from hephaestus_build.export.torch_files import encode_plain_values, encode_tensor
from toy_cube import FRAME, PAIRS, grid, masks, toy_cube

ANNOTATED = PAIRS[:-1]
SIZE = 48


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


@pytest.fixture
def export(capsys, monkeypatch):
    def run(*words: object, code: int = 0) -> Any:
        command = ["hephaestus", "export", *map(str, words), "--to", "webdataset", "--json"]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as end:
            run_console_script()
        told = capsys.readouterr()
        assert (end.value.code or 0) == code, told.err
        return told.err if code else json.loads(told.out)

    return run


def small(cube: Path, folder: Path) -> tuple[object, ...]:
    return cube, "--out", folder, "--size", SIZE, "--shard-mb", 1


def read_samples(path: Path) -> dict[str, dict[str, bytes]]:
    """Read a shard as WebDataset does: by the name up to the first dot."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as archive:
        for entry in archive:
            key, _, ending = entry.name.partition(".")
            found.setdefault(key, {})[ending] = archive.extractfile(entry).read()
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_samples_have_the_published_keys_and_the_values_of_the_cube(cube, export, tmp_path):
    torch = pytest.importorskip("torch")
    done = export(*small(cube, tmp_path / "out"))
    assert (done["samples"], done["written"], done["simulated"]) == (len(ANNOTATED), 1, True)
    samples = read_samples(tmp_path / "out" / done["shards"][0]["path"])
    assert [set(one) for one in samples.values()] == [
        {"image.pth", "labels.pth", "sample.pth", "png", "txt", "json"}
    ] * len(ANNOTATED)
    with open_pinned_cube(cube, chunks=None) as opened:
        for sample, name in zip(samples.values(), ANNOTATED, strict=True):
            pair = Pair.parse(name)
            about = json.loads(sample["json"])
            assert (about["pair"], about["frame"], about["simulated"]) == (name, FRAME, True)
            row, column = about["window"]["row"], about["window"]["column"]
            here = opened.sel(
                primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
            ).isel(latitude=slice(row, row + SIZE), longitude=slice(column, column + SIZE))
            image = torch.load(io.BytesIO(sample["image.pth"]), weights_only=True)
            assert (image.shape, image.dtype) == ((9, SIZE, SIZE), torch.float32)
            for channel, variable in zip(image, CHANNELS, strict=True):
                np.testing.assert_array_equal(
                    channel.numpy(), np.nan_to_num(here[variable].values.astype("f4"), nan=0.0)
                )
            labels = torch.load(io.BytesIO(sample["labels.pth"]), weights_only=True)
            assert (labels.shape, labels.dtype) == ((1, SIZE, SIZE), torch.int64)
            np.testing.assert_array_equal(labels[0].numpy(), here["deformation_mask"].values > 0)
            told = torch.load(io.BytesIO(sample["sample.pth"]), weights_only=True)
            assert told["frame_id"] == FRAME
            assert told["label"] == [int(about["positive"])] == [int(bool(masks(grid(), name)))]
            [annotation] = told["annotation"]
            assert annotation["secondary_date"] == name[9:]
            assert sample["txt"].decode() == annotation["caption"] == here["caption"].values.item()
            picture = Image.open(io.BytesIO(sample["png"]))
            assert picture.text["Comment"] == "SIMULATED data"
            np.testing.assert_array_equal(np.asarray(picture) == 0, here["insar_difference"].values == 0)
    earthquake = json.loads(list(samples.values())[1]["json"])["annotation"]
    assert earthquake["label"] == ["Deformation", "Earthquake"]
    assert earthquake["activity_type"] == ["Mogi", "Earthquake"]
    assert earthquake["intensity_level"] == ["High", "None"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_the_library_webdataset_reads_them(cube, export, tmp_path):
    wds = pytest.importorskip("webdataset", reason="the library webdataset is not installed (group bench)")
    pytest.importorskip("torch")
    done = export(*small(cube, tmp_path / "out"))
    urls = [str(tmp_path / "out" / shard["path"]) for shard in done["shards"]]
    found = list(wds.WebDataset(urls, shardshuffle=False).decode("l"))
    assert [one["json"]["pair"] for one in found] == list(ANNOTATED)
    assert found[0]["image.pth"].shape == (9, SIZE, SIZE)
    assert found[0]["png"].shape == (SIZE, SIZE)
    assert found[0]["txt"] == found[0]["sample.pth"]["annotation"][0]["caption"]


def test_two_exports_are_equal_and_the_index_leads_to_each_sample(cube, export, tmp_path):
    shard_mb = 1  # three samples of 48 pixels would fit many times: a smaller window count is forced below
    done = export(cube, "--out", tmp_path / "one", "--size", 128, "--shard-mb", shard_mb)
    export(cube, "--out", tmp_path / "two", "--size", 128, "--shard-mb", shard_mb)
    assert len(done["shards"]) == len(ANNOTATED)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    index = json.loads((tmp_path / "one" / "index.json").read_bytes())
    assert index["simulated"] is True
    assert index["channels"] == list(CHANNELS)
    for shard in index["shards"]:
        content = (tmp_path / "one" / shard["path"]).read_bytes()
        assert len(content) == shard["bytes"] <= shard_mb * 1_000_000
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        for sample in shard["samples"]:
            header = tarfile.TarInfo.frombuf(
                content[sample["offset"] : sample["offset"] + 512], "utf-8", "strict"
            )
            assert header.name == f"{sample['key']}.image.pth"
            assert (header.mtime, header.uid, header.uname, header.mode) == (0, 0, "", 0o644)
    for line in (tmp_path / "one" / "SHA256SUMS").read_text().splitlines():
        digest, path = line.split("  ")
        assert hashlib.sha256((tmp_path / "one" / path).read_bytes()).hexdigest() == digest


def test_a_stopped_export_goes_on_and_ends_with_the_same_bytes(cube, export, tmp_path, monkeypatch):
    words = ("--size", 128, "--shard-mb", 1)
    export(cube, "--out", tmp_path / "whole", *words)
    real, calls = shards_module.encode_sample, []

    def stop_at_third(*args, **fields):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(*args, **fields)

    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "encode_sample", stop_at_third)
        export(cube, "--out", tmp_path / "part", *words, code=1)
    assert not (tmp_path / "part" / "SHA256SUMS").exists()
    assert not [path for path in (tmp_path / "part").rglob(".*") if path.is_file()]
    done = export(cube, "--out", tmp_path / "part", *words)
    assert (done["written"], done["kept"]) == (2, 2)
    assert tree(tmp_path / "part") == tree(tmp_path / "whole")
    # a damaged shard is found and written again, a whole one is left alone
    shard = tmp_path / "part" / done["shards"][1]["path"]
    shard.write_bytes(shard.read_bytes()[:-600] + bytes(600)[:-1] + b"x")
    again = export(cube, "--out", tmp_path / "part", *words)
    assert (again["written"], again["kept"]) == (1, 3)
    assert tree(tmp_path / "part") == tree(tmp_path / "whole")


def test_an_index_that_was_edited_is_written_again_from_the_shards(cube, export, tmp_path):
    folder = tmp_path / "out"
    export(*small(cube, folder))
    before = tree(folder)
    for change in (
        {"bytes": 7},
        {"samples": []},
        {"samples": [{"offset": "far"}]},
        {"samples": None, "bytes": None},
        {"sha256": 5},
    ):
        index = json.loads(before["index.json"])
        index["shards"][0] |= change
        (folder / "index.json").write_text(json.dumps(index))
        (folder / "SHA256SUMS").write_text("")
        assert export(*small(cube, folder))["shards"]
        assert tree(folder) == before


def test_nothing_of_others_is_replaced(cube, export, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert "is of no export of this program" in export(*small(cube, folder), code=2)
    assert (folder / "thesis.txt").read_text() == "mine"
    (folder / "thesis.txt").unlink()
    export(*small(cube, folder))
    other = (cube, "--out", folder, "--size", 32)
    assert "export of other content" in export(*other, code=2)
    assert json.loads((folder / "index.json").read_bytes())["made_from"]["size"] == SIZE
    assert export(*other, "--force")["written"] == 1
    assert "in a cube or among the published ones" in export(cube, "--out", cube.resolve(), code=2)
    (tmp_path / "link").symlink_to(folder)
    assert "is a link" in export(cube, "--out", tmp_path / "link", "--size", 32, code=2)


def test_a_file_with_the_name_of_a_shard_that_is_not_ours_stays(cube, export, tmp_path):
    folder = tmp_path / "out"
    export(*small(cube, folder))
    index = json.loads((folder / "index.json").read_bytes())
    index["shards"] = []
    (folder / "index.json").write_text(json.dumps(index))
    before = tree(folder)
    assert "is of no export of this program" in export(*small(cube, folder), "--force", code=2)
    assert tree(folder) == before


def test_series_are_stacked_as_published_step_by_step(cube, export, tmp_path):
    torch = pytest.importorskip("torch")
    done = export(*small(cube, tmp_path / "out"), "--series", "--split", "paper", "--part", "train")
    # both groups of two interferograms deform; the first one of each is repeated
    assert {(one["path"].split("/")[0], one["samples"]) for one in done["shards"]} == {("train_pos", 1)}
    samples = [
        sample
        for shard in done["shards"]
        for sample in read_samples(tmp_path / "out" / shard["path"]).values()
    ]
    for sample, pairs in zip(samples, (PAIRS[:2], PAIRS[2:4]), strict=True):
        about = json.loads(sample["json"])
        members = (pairs[0], *pairs)
        assert about["pair"] == "_".join([pairs[0][:8], *(pair[9:] for pair in members)])
        image = torch.load(io.BytesIO(sample["image.pth"]), weights_only=True)
        labels = torch.load(io.BytesIO(sample["labels.pth"]), weights_only=True)
        assert (image.shape, image.dtype) == ((27, SIZE, SIZE), torch.float32)
        assert (labels.shape, labels.dtype) == ((3, SIZE, SIZE), torch.int64)
        row, column = about["window"]["row"], about["window"]["column"]
        with open_pinned_cube(cube, chunks=None) as opened:
            for step, name in enumerate(members):
                pair = Pair.parse(name)
                here = opened.sel(
                    primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
                ).isel(latitude=slice(row, row + SIZE), longitude=slice(column, column + SIZE))
                # the published loader reshapes to steps x channels
                for channel, variable in zip(image.reshape(3, 9, SIZE, SIZE)[step], CHANNELS, strict=True):
                    np.testing.assert_array_equal(
                        channel.numpy(), np.nan_to_num(here[variable].values.astype("f4"), nan=0.0)
                    )
                np.testing.assert_array_equal(labels[step].numpy(), here["deformation_mask"].values > 0)
        told = torch.load(io.BytesIO(sample["sample.pth"]), weights_only=True)
        assert told["label"] == [0, 0, 1]
        assert [one["secondary_date"] for one in told["annotation"]] == [pair[9:] for pair in members]
        assert told["annotation_path"] == [f"{one['uniqueID']}.json" for one in told["annotation"]]
        assert about["annotations"] == told["annotation"]
        assert sample["txt"].decode().split("\n") == [one["caption"] for one in told["annotation"]]
        assert Image.open(io.BytesIO(sample["png"])).size == (3 * SIZE, SIZE)
    index = json.loads((tmp_path / "out" / "index.json").read_bytes())
    assert index["shards"][0]["samples"][0]["pair"] == "20190101_20190113_20190113_20190125"
    # another content than single interferograms
    assert "export of other content" in export(*small(cube, tmp_path / "out"), code=2)
    whole = export(*small(cube, tmp_path / "all"), "--series")
    assert (whole["samples"], {one["part"] for one in whole["shards"]}) == (2, {"all"})


def test_parts_of_a_split_and_train_in_two_folders(cube, export, tmp_path):
    done = export(*small(cube, tmp_path / "out"), "--split", "paper")
    # all toy pairs are of 2019-01, which is train; two of four deform
    assert {(one["part"], one["path"].split("/")[0], one["samples"]) for one in done["shards"]} == {
        ("train", "train_pos", 2),
        ("train", "train_neg", 2),
    }
    recorded = json.loads((tmp_path / "out" / "index.json").read_bytes())["made_from"]["split"]
    assert recorded["name"] == "paper"
    assert len(recorded["sha256"]) == 64
    error = export(*small(cube, tmp_path / "none"), "--split", "paper", "--part", "test", code=1)
    assert "no interferogram for test of the split paper is stored" in error
    assert not (tmp_path / "none").exists()


def test_many_frames_and_chosen_pairs(cube, export, tmp_path):
    other = toy_cube(tmp_path / "more", frame="201D_02400_131313")
    done = export(cube, other, "--out", tmp_path / "out", "--size", SIZE)
    assert done["frames"] == [FRAME, "201D_02400_131313"]
    assert done["samples"] == 2 * len(ANNOTATED)
    samples = read_samples(tmp_path / "out" / done["shards"][0]["path"])
    assert len(samples) == 2 * len(ANNOTATED)
    one = export(*small(cube, tmp_path / "one"), "--pair", PAIRS[1])
    assert one["samples"] == 1
    assert "is not annotated" in export(*small(cube, tmp_path / "no"), "--pair", PAIRS[-1], code=2)
    assert "is named twice" in export(cube, cube, "--out", tmp_path / "twice", code=2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--part", "test"), "name it with --split"),
        (("--split", "paper", "--part", "tset"), "there is no part 'tset'"),
        (("--split", "nothing"), "there is no split 'nothing'"),
        (("--size", "512", "--shard-mb", "5"), "give --shard-mb more"),
        (
            ("--series", "--size", "128", "--shard-mb", "1"),
            "a series of 3 times 128 x 128 pixels takes up to 2",
        ),
        (("--variables", "dem"), "--variables chooses nothing of webdataset"),
    ],
)
def test_wrong_use_is_one_line(cube, export, tmp_path, words, expected):
    assert expected in export(cube, "--out", tmp_path / "out", *words, code=2)
    assert not (tmp_path / "out").exists()


def test_a_window_lies_around_the_deformation_and_in_the_frame():
    mask = np.zeros((100, 200), "u1")
    assert window_start(mask, 40) == (30, 80)
    mask[10:14, 190:199] = 1
    assert window_start(mask, 40) == (0, 160)
    assert window_start(mask, 150) == (0, 50)  # higher than the frame, which begins at 0 in it


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_tensors_are_those_of_torch(dtype):
    torch = pytest.importorskip("torch")
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for array in (values, values.transpose(2, 0, 1), values[:0], np.array(7, dtype)):
        loaded = torch.load(io.BytesIO(encode_tensor(array)), weights_only=True)
        assert loaded.dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(loaded.numpy(), array)
        assert loaded.is_contiguous()
    plain = {"text": "höher", "list": [1, 2.5, None, True], "inner": {"a": "b"}}
    assert torch.load(io.BytesIO(encode_plain_values(plain)), weights_only=True) == plain


def test_a_sample_is_never_larger_than_what_is_planned_for(cube, export, tmp_path):
    done = export(*small(cube, tmp_path / "out"))
    assert done["shards"][0]["bytes"] - 10_240 < done["samples"] * largest_sample_bytes(SIZE)
    shutil.rmtree(tmp_path / "out")
