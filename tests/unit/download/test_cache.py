"""Tests of the download cache: what is removed when it is full, and what never is."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec
import pytest

from hephaestus_build.core.atomic_io import encode_json, hash_bytes
from hephaestus_build.core.provenance import Outcome, Receipt, receipt_path
from hephaestus_build.download.cache import DownloadCache, read_receipt
from hephaestus_build.download.partial import PartialDownload
from hephaestus_build.download.validators import Validators


def fill(cache: DownloadCache, name: str, size: int, age: float) -> Path:
    target = cache.folder / "licsar" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(bytes(size))
    receipt = Receipt(name, Outcome.DOWNLOADED, "http://x/", size=size, blake3=hash_bytes(bytes(size)))
    receipt_path(target).write_bytes(encode_json(receipt))
    os.utime(receipt_path(target), (time.time() - age, time.time() - age))
    return target


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_a_copy_is_checked_by_the_algorithm_that_its_receipt_names(tmp_path, algorithm):
    cache = DownloadCache(tmp_path, limit=1e9)
    target = fill(cache, "a.tif", 1000, age=0)
    content = bytes(1000)
    right = {"blake3": hash_bytes(content), "sha256": hashlib.sha256(content).hexdigest()}
    note = {"product": "a.tif", "outcome": "downloaded", "size": 1000}
    receipt_path(target).write_bytes(encode_json({**note, algorithm: right[algorithm]}))
    receipt = cache.verified_receipt(target, "a.tif")
    assert receipt is not None
    assert receipt.digest == (algorithm, right[algorithm])
    wrong = {"blake3": right["sha256"], "sha256": right["blake3"]}
    for hashes in ({algorithm: wrong[algorithm]}, {}, {"sha512": "0" * 128}):
        receipt_path(target).write_bytes(encode_json({**note, **hashes}))
        assert cache.verified_receipt(target, "a.tif") is None
    receipt_path(target).write_bytes(encode_json({**note, algorithm: right[algorithm]}))
    target.write_bytes(b"x" + content[1:])
    assert cache.verified_receipt(target, "a.tif") is None


def test_the_least_recently_used_go_first_and_foreign_files_stay(tmp_path):
    cache = DownloadCache(tmp_path, limit=3000)  # pruned to 2700
    paths = [fill(cache, f"{n}.tif", 1000, age=1000 - n) for n in range(5)]
    foreign = [tmp_path / "holiday.jpg", tmp_path / "thesis.tif", tmp_path / "thesis.tif.receipt.json"]
    for path in foreign:
        path.write_bytes(b"[]")
    assert cache.verified_receipt(paths[0], "0.tif")  # used just now
    with cache.pin(paths[1]):
        cache.prune()
        assert [path.exists() for path in paths] == [True, True, False, False, False]
    assert all(path.exists() for path in foreign)
    assert sorted(path.name for path in (tmp_path / "licsar").iterdir()) == [
        "0.tif",
        "0.tif.receipt.json",
        "1.tif",
        "1.tif.receipt.json",
    ]


def test_a_cache_within_its_limit_is_left_alone_but_for_old_parts(tmp_path):
    cache = DownloadCache(tmp_path, limit=1e6)
    kept = fill(cache, "a.tif", 1000, age=1e7)
    old, young = tmp_path / "licsar" / "old.tif.part", tmp_path / "licsar" / "young.tif.part"
    for part, age in ((old, 1e6), (young, 60)):
        part.write_bytes(b"II*")
        os.utime(part, (time.time() - age, time.time() - age))
    cache.prune()
    assert (kept.exists(), old.exists(), young.exists()) == (True, False, True)


def test_parts_that_others_left_are_never_touched(tmp_path):
    path = tmp_path / "films" / "film.mkv.part"
    path.parent.mkdir()
    for name in (path, path.with_name("film.mkv.part.json"), tmp_path / "thesis.pdf.part"):
        name.write_bytes(b"theirs")
        os.utime(name, (1, 1))
    DownloadCache(tmp_path, limit=1).prune()
    assert path.exists()
    assert (tmp_path / "thesis.pdf.part").exists()


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "gone",
        b"",
        b"[]",
        b'{"limit":1e5,"unseen":NaN}',
        b'{"limit":1e5,"unseen":1%s}' % (b"0" * 400),
        b"[" * 200_000,
    ],
    ids=["none", "gone", "empty", "list", "nan", "huge", "deep"],
)
def test_the_cache_is_looked_through_once_per_hundredth_whoever_adds_to_it(tmp_path, damage):
    DownloadCache(tmp_path, limit=1e5).record_growth(1)  # the size is unknown so far, so it is measured
    path = fill(DownloadCache(tmp_path, limit=1e5), "a.tif", 200_000, age=60)
    note = tmp_path / ".hephaestus-growth.json"
    if damage is None:
        DownloadCache(tmp_path, limit=1e5).record_growth(500)
        assert path.exists()
    elif damage == "gone":
        note.unlink()
    else:
        note.write_bytes(damage)
    DownloadCache(tmp_path, limit=1e5).record_growth(500)
    assert not path.exists()


def test_another_limit_counts_at_once(tmp_path):
    DownloadCache(tmp_path, limit=1e6).record_growth(1)
    path = fill(DownloadCache(tmp_path, limit=1e6), "a.tif", 200_000, age=60)
    DownloadCache(tmp_path, limit=1e5).record_growth(1)
    assert not path.exists()


# --- files of others in a shared cache -------------------------------------------------------------------


def kept(cache: DownloadCache, name: str = "a.tif", size: int = 1000) -> Path:
    path = fill(cache, name, size, age=60)
    assert cache.verified_receipt(path, name) is not None
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 60_000,
        b'{"product":"a.tif","outcome":"downloaded","size":%s}' % (b"9" * 5000),
        b'{"product":"a.tif","outcome":"downloaded","x":' + b"[" * 50_000,
        b'{"product":"a.tif","outcome":"good"}',
        b'{"product":1,"outcome":"downloaded"}',
        b" " * 100_000,
        b"\xff",
    ],
    ids=["empty", "list", "deep", "digits", "deep field", "outcome", "type", "long", "bytes"],
)
def test_a_receipt_that_is_none_is_none(tmp_path, content):
    cache = DownloadCache(tmp_path, limit=1e9)
    path = kept(cache)
    receipt_path(path).write_bytes(content)
    assert cache.verified_receipt(path, "a.tif") is None
    with pytest.raises(ValueError, match=r"."):
        read_receipt(path)
    cache.prune(0)
    assert path.exists()


@pytest.mark.parametrize("name", ["a.tif", "a.tif.receipt.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder"])
def test_only_plain_files_count(tmp_path, name, kind):
    cache = DownloadCache(tmp_path / "cache", limit=1e9)
    path = kept(cache)
    odd = path.with_name(name)
    outside = tmp_path / "outside"
    odd.rename(outside)
    match kind:
        case "link":
            odd.symlink_to(outside)
        case "pipe":
            os.mkfifo(odd)
        case "device":
            odd.symlink_to("/dev/zero")
        case "folder":
            odd.mkdir()
    assert cache.verified_receipt(path, "a.tif") is None
    cache.prune(0)
    assert outside.stat().st_size > 0


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "dangling"])
def test_a_part_in_disguise_leads_nowhere(tmp_path, kind):
    target, outside = tmp_path / "cache" / "a.tif", tmp_path / "theirs"
    target.parent.mkdir()
    outside.write_bytes(b"theirs")
    part = target.with_name("a.tif.part")
    note = target.with_name("a.tif.part.json")
    note.symlink_to(outside)
    match kind:
        case "link":
            part.symlink_to(outside)
        case "hard link":
            os.link(outside, part)
        case "pipe":
            os.mkfifo(part)
        case "dangling":
            part.symlink_to(tmp_path / "new")
    with PartialDownload.acquire(target, 5) as own:
        assert own.resume("http://h/a.tif", 1000) == (0, None)
        own.restart()
        own.record_origin(Validators('"tag"', None), 3)
        own.write(b"abc")
        own.publish(target, Receipt("a.tif", Outcome.DOWNLOADED))
    assert outside.read_bytes() == b"theirs"
    assert not (tmp_path / "new").exists()
    assert target.read_bytes() == b"abc"
    assert not target.is_symlink()


def test_a_part_is_not_read_beyond_what_the_product_may_have(tmp_path):
    target = tmp_path / "a.tif"
    with target.with_name("a.tif.part").open("wb") as stream:
        stream.truncate(1 << 50)
    target.with_name("a.tif.part.json").write_text('{"url":"http://h/a.tif","etag":"\\"x\\""}')
    with PartialDownload.acquire(target, 5) as own:
        assert own.resume("http://h/a.tif", 1 << 20) == (0, None)


def test_marks_of_a_receipt_are_clean(tmp_path):
    cache = DownloadCache(tmp_path, limit=1e9)
    path = kept(cache)
    receipt = read_receipt(path).replace(
        etag='"a"\r\nX: y',
        last_modified="\x1b",
        detail="\x1b[2J",
        url="http://me:secret@h/?x",
        notes=("\x07",),
    )
    receipt_path(path).write_bytes(msgspec.json.encode(receipt))
    read = read_receipt(path)
    assert (read.etag, read.last_modified, read.url) == (None, None, "http://h/")
    assert read.detail.isprintable()
    assert read.notes[0].isprintable()
