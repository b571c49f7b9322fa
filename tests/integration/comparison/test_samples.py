"""Tests of `compare --samples`: shards of this project and of torch.save, and those of a stranger."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hephaestus_build.comparison.torch_values import decode_torch_file
from hephaestus_build.export.torch_files import encode_plain_values, encode_tensor
from json_page import differences
from published_cubes import write_published_cube
from published_loader import CHANNELS, load_item
from toy_cube import FRAME, annotation, toy_cube
from toy_published import PAIRS, toy_published

OTHER = "201D_02400_131313"
SIZE = 32
SERIES = PAIRS[:2]


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data") / "simulated/cubes", pairs=PAIRS)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The folder of a cube in the published layout, written without code of the builder."""
    return write_published_cube(toy_published(), tmp_path_factory.mktemp("published")).parent


@pytest.fixture
def compare(hephaestus):
    """Return a function that compares a shard with cubes and returns the exit code, the JSON and errors."""

    def call(samples: Path, *words: object):
        code, out, err = hephaestus("compare", *map(str, words), "--samples", str(samples), "--json")
        found = json.loads(out) if out else None
        if found:
            assert differences("compare", found) == []
        return code, found, err

    return call


def about(pairs: tuple[str, ...], frame: str = FRAME, **changed: object) -> dict[str, object]:
    """What the published loader puts into ``sample.pth``: annotations as their JSON files have them."""
    told = []
    for name in pairs:
        primary, secondary = name.split("_")
        values = annotation(name)
        values["uniqueID"] = values.pop("unique_id")
        told.append(
            {"frameID": frame, "primary_date": primary, "secondary_date": secondary, **values, **changed}
        )
    return {"frame_id": frame, "annotation": told, "label": [0] * len(pairs), "annotation_path": ["?"]}


def saved(value: object) -> bytes:
    """Return a value as torch.save writes it."""
    torch = pytest.importorskip("torch")
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def write_shard(path: Path, *samples: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, files in enumerate(samples):
            for name, content in files.items():
                entry = tarfile.TarInfo(f"sample{number:06d}.{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def item(published: Path, pairs: tuple[str, ...] = SERIES, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return load_item(published, FRAME, pairs, SIZE, seed)


def torch_sample(
    image: np.ndarray, labels: np.ndarray, pairs: tuple[str, ...] = SERIES, **changed: object
) -> dict[str, bytes]:
    return {
        "image.pth": saved(image),
        "labels.pth": saved(labels),
        "sample.pth": saved(about(pairs, **changed)),
    }


def plain_sample(image: np.ndarray, labels: np.ndarray, pairs: tuple[str, ...] = SERIES) -> dict[str, bytes]:
    return {
        "image.pth": encode_tensor(image),
        "labels.pth": encode_tensor(labels),
        "sample.pth": encode_plain_values(about(pairs)),
    }


def test_an_export_agrees_with_its_cube_and_each_window_is_found(cube, compare, hephaestus, tmp_path):
    assert (
        hephaestus("export", str(cube), "--to", "webdataset", "--size", "40", "--out", str(tmp_path / "out"))[
            0
        ]
        == 0
    )
    code, found, _ = compare(tmp_path / "out", cube)
    assert (code, found["agrees"], found["findings"], found["simulated"]) == (0, True, [], True)
    assert [one["pair"] for one in found["samples"]] == list(PAIRS)
    [shard] = (tmp_path / "out").rglob("*.tar")
    with tarfile.open(shard) as archive:
        stated = [
            json.load(archive.extractfile(name)) for name in archive.getnames() if name.endswith(".json")
        ]
    assert [(one["row"], one["column"]) for one in found["samples"]] == [
        (one["window"]["row"], one["window"]["column"]) for one in stated
    ]


def test_an_exported_window_that_is_larger_than_its_frame_is_compared_as_far_as_the_frame_goes(
    cube, compare, hephaestus, tmp_path
):
    assert (
        hephaestus(
            "export", str(cube), "--to", "webdataset", "--size", "128", "--out", str(tmp_path / "out")
        )[0]
        == 0
    )
    code, found, _ = compare(tmp_path / "out", cube)
    assert (code, found["findings"]) == (0, [])
    assert {one["channels"]["insar_difference"]["pixels"] for one in found["samples"]} == {60 * 70}


def test_shards_of_torch_made_by_the_published_loader_agree_with_a_rebuilt_cube(
    cube, published, compare, tmp_path
):
    items = {
        pairs: item(published, pairs, seed) for seed, pairs in enumerate((SERIES, PAIRS[2:3], PAIRS[3:]))
    }
    shard = write_shard(
        tmp_path / "val/sample-val-0-000000.tar", *(torch_sample(*one, pairs) for pairs, one in items.items())
    )
    for words in ((shard, cube), (shard.parent, cube), (shard, "--data-dir", cube.parents[2])):
        code, found, _ = compare(*words)
        assert (code, found["findings"], found["frames"]) == (0, [], [FRAME])
        assert [one["pair"] for one in found["samples"]] == [name for pairs in items for name in pairs]
        assert {one["fit"] for one in found["samples"]} == {1.0}
    assert compare(shard, published / f"{FRAME}.zarr")[0] == 0


def changed_item(
    published: Path, channel: int, how: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    image, labels = item(published, PAIRS[1:2])
    image = image.copy()
    image[channel] = how(image[channel])
    return image, labels


@pytest.mark.parametrize(
    ("channel", "how", "where", "words"),
    [
        (0, np.negative, "insar_difference", "sign swapped"),
        (0, lambda one: np.where(np.arange(SIZE) < 3, one + 0.5, one), "insar_difference", "up to 0.5"),
        (
            0,
            lambda one: np.random.default_rng(1).uniform(-3, 3, one.shape),
            "insar_difference",
            "of 1024 pixels",
        ),
        (1, lambda one: one / 255, "insar_coherence", "0 to 1 in place of 0 to 255"),
        (2, lambda one: one + 7, "dem", "up to 7"),
        (6, lambda one: one + 5, "secondary_date_surface_pressure", "up to 5"),
    ],
)
def test_what_was_changed_in_a_channel_is_named_and_the_window_found(
    cube, published, compare, tmp_path, channel, how, where, words
):
    shard = write_shard(
        tmp_path / "a.tar",
        plain_sample(*item(published, PAIRS[1:2]), PAIRS[1:2]),
        plain_sample(*changed_item(published, channel, how), PAIRS[1:2]),
    )
    code, found, _ = compare(shard, cube)
    assert code == 1
    [finding] = found["findings"]
    assert finding["where"] == where
    assert words in finding["what"]
    assert "in 1 of 2 interferograms" in finding["what"]
    same, other = found["samples"]
    assert same["equal"]
    assert (other["row"], other["column"]) == (same["row"], same["column"])


def test_channels_in_another_order_and_other_labels_and_flags_are_named(cube, published, compare, tmp_path):
    image, labels = item(published, PAIRS[1:2])
    sample = plain_sample(image[[1, 0, *range(2, 9)]], 1 - labels, PAIRS[1:2])
    told = about(PAIRS[1:2], glacier_fringes=1, caption="\x1b[2Jother")
    shard = write_shard(tmp_path / "a.tar", {**sample, "sample.pth": encode_plain_values(told)})
    code, found, _ = compare(shard, cube)
    assert code == 1
    assert found["samples"][0]["swapped"] == {
        "insar_difference": "insar_coherence",
        "insar_coherence": "insar_difference",
    }
    assert {"channels", "labels", "glacier_fringes", "caption"} <= {one["where"] for one in found["findings"]}


def test_a_pair_that_the_cube_lacks_and_a_window_of_nowhere_are_said(cube, published, compare, tmp_path):
    noise = np.random.default_rng(2).uniform(-3, 3, (9, SIZE, SIZE)).astype("f4")
    labels = np.zeros((1, SIZE, SIZE), "i8")
    lacking = plain_sample(noise, labels, PAIRS[:1])
    lacking["sample.pth"] = encode_plain_values(
        {"frame_id": FRAME, "annotation": [{"primary_date": "20180101", "secondary_date": "20180113"}]}
    )
    code, found, _ = compare(
        write_shard(tmp_path / "a.tar", plain_sample(noise, labels, PAIRS[:1]), lacking), cube
    )
    assert code == 1
    nowhere, absent = (one["problem"] for one in found["samples"])
    assert "no window of" in nowhere
    assert "has no 20180101_20180113" in absent


def test_samples_of_other_frames_are_counted_and_left_out(cube, published, compare, tmp_path):
    one = plain_sample(*item(published))
    other = {**one, "sample.pth": encode_plain_values(about(SERIES, OTHER))}
    code, found, _ = compare(write_shard(tmp_path / "a.tar", one, other), "--data-dir", cube.parents[2])
    assert (code, found["elsewhere"], len(found["samples"])) == (0, {OTHER: 1}, len(SERIES))
    code, _, err = compare(write_shard(tmp_path / "b.tar", other), cube)
    assert (code, err.count("\n")) == (2, 1)
    assert f"it holds 1 of {OTHER}" in err


def test_people_read_a_row_a_sample_and_a_summary(cube, published, hephaestus, tmp_path):
    shard = write_shard(
        tmp_path / "a.tar", plain_sample(*changed_item(published, 0, np.negative), PAIRS[1:2])
    )
    code, out, err = hephaestus("compare", str(cube), "--samples", str(shard))
    assert code == 1
    [row] = [line for line in out.splitlines() if line.startswith("sample000000")]
    assert PAIRS[1] in row
    assert "sign swapped" in row
    assert "1 interferogram of 1 sample, 0 equal" in out
    assert "differ: 1 finding" in err


# what a stranger may hand over


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/was-run",)


def zipped(
    pickled: bytes, raw: bytes | None = None, *, compression: int = zipfile.ZIP_STORED, more: int = 0
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        if raw is not None:
            archive.writestr("archive/data/0", raw)
        for number in range(more):
            archive.writestr(f"archive/more/{number}", b"")
    return stream.getvalue()


def tensor_pickle(
    size: str = "K\x02K\x02\x86", stride: str = "K\x02K\x01\x86", storage: str = "FloatStorage"
) -> bytes:
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n" + storage.encode()
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00" + size.encode("latin1")
        + stride.encode("latin1")
        + b"\x89ccollections\nOrderedDict\n)Rt"
        b"R."
    )  # fmt: skip


HOSTILE = {
    "a call of the system": (
        zipped(pickle.dumps(Runs(), 2)),
        "system, which is neither a tensor nor a plain value",
    ),
    "a call in a newer protocol": (zipped(pickle.dumps(Runs(), 4)), "the instruction FRAME"),
    "a class with a state": (zipped(pickle.dumps(collections.Counter(a=1), 2)), "collections.Counter"),
    "an object that is built": (zipped(b"\x80\x02}}b."), "the instruction BUILD"),
    "a memo of gigabytes": (zipped(b"\x80\x02Nr\xff\xff\xff\x7f."), "numbers more values than it has"),
    "tuples in tuples": (zipped(b"\x80\x02)" + b"\x85" * 5000 + b"."), "5000 tuples"),
    "a pickle of megabytes": (zipped(b"\x80\x02" + b"N0" * (1 << 20) + b"."), "one pickle of at most 1 MiB"),
    "a pickle that ends early": (zipped(b"\x80\x02]"), "exhausted before seeing STOP"),
    "a compressed bomb": (
        zipped(b"\x80\x02N.", bytes(1 << 24), compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "many entries": (zipped(b"\x80\x02N.", more=100), "more than 64 entries"),
    "a tensor that is larger than its values": (
        zipped(tensor_pickle(), bytes(12)),
        "does not fit its storage",
    ),
    "a tensor of terabytes": (
        zipped(tensor_pickle("J\xff\xff\xff\x0fJ\xff\xff\xff\x0f\x86", "K\x00K\x00\x86"), bytes(16)),
        "does not fit its storage",
    ),
    "a tensor of negative size": (
        zipped(tensor_pickle("J\xff\xff\xff\xffK\x02\x86"), bytes(16)),
        "invalid shape",
    ),
    "a storage that is not there": (zipped(tensor_pickle()), "damaged"),
    "a storage of another kind": (
        zipped(tensor_pickle(storage="QInt8Storage"), bytes(16)),
        "torch.QInt8Storage",
    ),
    "no zip file": (pickle.dumps([1], 2), "no file of torch.save"),
    "nothing": (b"", "no file of torch.save"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_nothing_is_run(name, cube, published, compare, tmp_path):
    content, words = HOSTILE[name]
    sample = {**plain_sample(*item(published)), "sample.pth": content}
    code, found, err = compare(write_shard(tmp_path / "a.tar", sample), cube)
    assert (code, found, err.count("\n")) == (1, None, 1)
    assert words in err
    assert "sample000000.sample.pth" in err
    assert not Path("/tmp/was-run").exists()


def test_tensors_of_torch_are_read_whatever_their_strides_and_types():
    torch = pytest.importorskip("torch")
    values = torch.arange(60, dtype=torch.float64).reshape(3, 4, 5)
    for tensor in (
        values,
        values[1:, ::2, 1:4],
        values.permute(2, 0, 1),
        values[:0],
        values.int(),
        values > 7,
    ):
        found = decode_torch_file(saved(tensor))
        assert found.dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found, tensor.numpy())
    plain = {"text": "höher", "list": [1, 2.5, None, True, 1 << 40], "tensor": values}
    found = decode_torch_file(saved(plain))
    np.testing.assert_array_equal(found.pop("tensor"), plain.pop("tensor").numpy())
    assert found == plain


def test_a_bit_that_was_turned_in_the_values_is_found(published):
    content = bytearray(encode_tensor(item(published)[0]))
    content[len(content) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        decode_torch_file(bytes(content))


SHAPES = {
    "too few channels": (
        "image.pth",
        encode_tensor(np.zeros((5, 4, 4), "f4")),
        "5 channels in place of 9 for each of 2",
    ),
    "two dimensions": ("image.pth", encode_tensor(np.zeros((4, 4), "f4")), "no tensor of three dimensions"),
    "no tensor": ("labels.pth", encode_plain_values([1]), "but list"),
    "one mask of two": (
        "labels.pth",
        encode_tensor(np.zeros((1, SIZE, SIZE), "i8")),
        "1 masks, and there are 2 pairs",
    ),
    "no dates": (
        "sample.pth",
        encode_plain_values({"frame_id": FRAME, "annotation": [{}]}),
        "no pair of dates",
    ),
    "no annotation": (
        "sample.pth",
        encode_plain_values({"frame_id": FRAME}),
        "no list of 1 to 100 annotations",
    ),
    "no frame": (
        "sample.pth",
        encode_plain_values({"frame_id": "../../etc", "annotation": [{}]}),
        "frame_id",
    ),
    "no dictionary": ("sample.pth", encode_plain_values([1, 2]), "no dictionary"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_sample_of_another_form_is_named_in_one_line(name, cube, published, compare, tmp_path):
    file, content, words = SHAPES[name]
    code, found, err = compare(
        write_shard(tmp_path / "a.tar", {**plain_sample(*item(published)), file: content}), cube
    )
    assert (code, found, err.count("\n")) == (1, None, 1)
    assert words in err


def test_a_shard_that_is_cut_or_no_shard_or_lacks_a_file_is_named(cube, published, compare, tmp_path):
    sample = plain_sample(*item(published))
    shard = write_shard(tmp_path / "a.tar", sample)
    content = shard.read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(content[: len(content) // 2])
    code, _, err = compare(cut, cube)
    assert (code, "is no whole tar file" in err, err.count("\n")) == (1, True, 1)
    code, _, err = compare(write_shard(tmp_path / "lacking.tar", {"sample.pth": sample["sample.pth"]}), cube)
    assert (code, "image.pth cannot be compared: it is not in the shard" in err) == (1, True)
    code, _, err = compare(write_shard(tmp_path / "empty.tar"), cube)
    assert (code, "holds no samples" in err) == (2, True)
    code, _, err = compare(tmp_path / "nowhere.tar", cube)
    assert (code, "is not there" in err) == (2, True)
    assert compare(shard, cube, cube)[0] == 2
    assert CHANNELS[0] == "insar_difference"
