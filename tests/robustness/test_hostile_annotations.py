"""Tests of untrusted annotation archives: limits on bytes, members, depth and numbers, and no traceback."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_files import SQUARE, good_file, tar_of
from fuzzing import Reader as FuzzedReader
from fuzzing import fuzz
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.tar_members import TarError, read_tar
from hephaestus_build.core.settings import load_settings
from hephaestus_build.sources.annotations import archive_members
from hephaestus_build.sources.annotations.archive import find_annotations, load_annotations
from hephaestus_build.sources.annotations.archive_members import (
    UnreadableArchiveError,
    hash_archive,
    read_members,
)
from hephaestus_build.sources.annotations.record import parse_annotation


def listed(source: Path) -> dict[str, str]:
    """Return the defects by file, after checking that the valid annotation beside them was read."""
    annotations = load_annotations(source)
    assert [item.unique_id for item in annotations] == [1]
    return {defect.file: defect.what for defect in annotations.defects}


# --- content of files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"uniqueID":' * 20_000, "nested"),
        (json.dumps(good_file(2)).replace("0.8", "9" * 5000).encode(), "integer of 5000 digits"),
        (b"[" + b"{}," * 300_000 + b"{}]", "it has 900003 bytes|not a JSON object|uniqueID is missing"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'"\\ud800"', "not a JSON object"),
        (b"NaN", "not a JSON object"),
    ],
)
def test_a_file_without_bounds_is_a_listed_defect(tmp_path: Path, content: bytes, what: str) -> None:
    import re

    found = listed(tar_of(tmp_path / "a.tar.gz", {"1.json": good_file(1), "2.json": content}))
    assert any(re.search(what, text) for file, text in found.items() if file.startswith("2.json"))


def test_a_file_of_too_many_lists_is_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_build.sources.annotations.archive._MAX_JSON_VALUES", 50)
    source = tar_of(tmp_path / "a.tar.gz", {"1.json": good_file(1), "2.json": b"[" + b"[]," * 60 + b"[]]"})
    assert listed(source) == {"2.json": "not JSON (too many lists and objects)"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"segmentation_mask": [[0.5] * 2_000_000]}, "polygon 0 has 1000000 vertices"),
        ({"segmentation_mask": [[float("nan")] * 8]}, "not finite"),
        ({"segmentation_mask": [[1e308] * 8]}, "far outside"),
        ({"segmentation_mask": [[10**29] * 8]}, "far outside"),
        ({"segmentation_mask": [["1"] * 8]}, "value that is not a number"),
        ({"segmentation_mask": [[True] * 8]}, "value that is not a number"),
        ({"segmentation_mask": [SQUARE] * 100_000}, "holds 100000 polygons"),
        ({"label": ["a"] * 100_000}, "label holds 100000 words"),
        ({"primary_date": "9" * 100_000}, "the dates"),
        ({"frameID": "9" * 100_000}, "frameID 999"),
        ({"caption": "a" * 100_000}, "caption is too long"),
        ({"caption": "a\0b\ud800"}, "caption is too long or has invalid characters"),
        ({f"\x1b[{n}m": 1 for n in range(100)}, "more findings"),
        ({"confidence": float("inf")}, "confidence is inf"),
        ({"phase": "\x1b[2J"}, "phase is"),
    ],
)
def test_what_no_expert_wrote_is_said_on_one_line(changes: dict[str, Any], what: str) -> None:
    defects: list[Any] = []
    annotation = parse_annotation(good_file(**changes), "2.json", defects)
    assert any(what in defect.what for defect in defects)
    assert len(defects) <= 21
    assert all(len(defect.what) <= 301 and defect.what.isprintable() for defect in defects)
    if annotation is not None:
        assert len(annotation.caption.encode()) <= 10_000
        assert "\0" not in annotation.caption


def test_a_caption_is_kept_as_the_expert_wrote_it() -> None:
    defects: list[Any] = []
    caption = "Une dyke,\n\tsouth \x1b[1m of $x_1$ <b>"
    annotation = parse_annotation(good_file(caption=caption), "1.json", defects)
    assert annotation is not None
    assert annotation.caption == caption
    assert not defects


# --- content of archives -----------------------------------------------------------------------------------


def special(kind: bytes, **fields: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("2.json")
    entry.type = kind
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (special(tarfile.SYMTYPE, linkname="/etc/passwd"), "it is a link"),
        (special(tarfile.LNKTYPE, linkname="1.json"), "it is a link"),
        (special(tarfile.LNKTYPE, linkname="1.json", size=1 << 30), "it is a link"),
        (special(tarfile.FIFOTYPE), "it is not a plain file"),
        (special(tarfile.CHRTYPE, devmajor=1, devminor=5), "it is not a plain file"),
        (special(tarfile.BLKTYPE), "it is not a plain file"),
    ],
)
def test_links_pipes_and_devices_in_a_tar_are_listed(
    tmp_path: Path, entry: tarfile.TarInfo, what: str
) -> None:
    assert listed(tar_of(tmp_path / "a.tar.gz", {"2.json": entry, "1.json": good_file(1)})) == {
        "2.json": what
    }


def sealed(header: bytes) -> bytes:
    """Return a tar header with a correct checksum."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + f"{sum(blank):06o}\0 ".encode() + blank[156:]


def plain_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        content = json.dumps(good_file(1)).encode()
        entry = tarfile.TarInfo("1.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_sparse_files_are_listed_and_what_follows_is_read(tmp_path: Path) -> None:
    header = special(b"S", size=512).tobuf(tarfile.USTAR_FORMAT)
    header = sealed(header[:482] + b"\1" + header[483:])  # its sparse map continues in two more blocks
    maps = bytes(504) + b"\1" + bytes(7) + bytes(512)
    (tmp_path / "a.tar").write_bytes(header + maps + bytes(512) + plain_tar())
    assert listed(tmp_path / "a.tar") == {"2.json": "it is a sparse file"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("2.json")
        entry.size, entry.pax_headers = 5, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(entry, io.BytesIO(b"7\n0\n1"))
    (tmp_path / "b.tar").write_bytes(stream.getvalue()[:2048] + plain_tar())
    assert listed(tmp_path / "b.tar") == {"2.json": "it is a sparse file"}


@pytest.mark.parametrize(
    "make",
    [
        lambda good: sealed(good[:124] + b"\xff" * 12 + good[136:512]) + good[512:],  # a negative size
        lambda good: sealed(good[:124] + b"\x80" + b"\xff" * 11 + good[136:512]) + good[512:],
        lambda good: sealed(good[:124] + b"-0000001000\0" + good[136:512]) + good[512:],
        lambda good: special(b"x", size=40_000).tobuf() + b"1" * 40_448 + good,  # a number without an end
        lambda good: special(b"x", size=1 << 20).tobuf() + b"1" * (1 << 20) + good,
        lambda good: special(b"L", size=1 << 20).tobuf() + b"1" * (1 << 20) + good,
        lambda good: special(b"x", size=20).tobuf() + b"20 size=-512\n".ljust(512, b"\0") + good,
        lambda good: special(b"x", size=13).tobuf() + b"13 size=-512\n".ljust(512, b"\0") + good,
        lambda good: good[:100] + b"\xff" + good[101:],  # a wrong checksum
        lambda good: good[:700],
        lambda good: good[:1024],
        lambda good: gzip.compress(good),  # compressed twice
    ],
)
def test_damaged_tars_end_at_once(tmp_path: Path, make: Any) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(make(plain_tar())))
    with pytest.raises(HephaestusError, match=r"cannot be read \(.*hephaestus annotations fetch") as caught:
        load_annotations(tmp_path / "a.tar.gz")
    assert str(caught.value).isprintable()


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=300)


@given(
    st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=4),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_a_tar_is_read_as_python_reads_it(files: list[tuple[str, bytes]], kind: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), 1.5
            archive.addfile(entry, io.BytesIO(content))
    found = [(entry.name, bytes(entry.content)) for entry in read_tar(stream.getvalue())]
    assert found == files


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_of_any_packing_is_refused(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.tar.gz").write_bytes(pack(bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableArchiveError, match="expands beyond 4 MB"):
            list(read_members(tmp_path / "a.tar.gz", total_limit=4 << 20))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_every_packing_is_read(tmp_path: Path) -> None:
    for pack in (bytes, gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "a.tar.gz").write_bytes(pack(plain_tar()))
        assert not listed(tmp_path / "a.tar.gz")


def test_an_xz_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [
        {
            "id": lzma.FILTER_LZMA2,
            "dict_size": 512 << 20,
            "mode": lzma.MODE_FAST,
            "mf": lzma.MF_HC3,
            "depth": 1,
        }
    ]
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)
    (tmp_path / "a.tar").write_bytes(packer.compress(plain_tar()) + packer.flush())
    with pytest.raises(HephaestusError, match="cannot be read"):
        load_annotations(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (zipfile.ZIP_BZIP2, "it is packed by another method than deflate"),
        (zipfile.ZIP_LZMA, "it is packed by another method than deflate"),
        (zipfile.ZIP_DEFLATED, "it has more than 1048576 bytes"),
        (zipfile.ZIP_STORED, "it has more than 1048576 bytes"),
    ],
)
def test_bombs_in_a_zip_are_listed(tmp_path: Path, method: int, what: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.json", json.dumps(good_file(1)))
        archive.writestr("2.json", bytes(50 << 20), method)
    tracemalloc.start()
    try:
        assert listed(tmp_path / "a.zip") == {"2.json": what}
        most = 80 << 20 if method == zipfile.ZIP_STORED else 16 << 20
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_links_and_encrypted_files_in_a_zip_are_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.json", json.dumps(good_file(1)))
        link = zipfile.ZipInfo("2.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("/etc/3.json", b"{}")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert listed(tmp_path / "a.zip") == {"2.json": "it is a link", "3.json": "it is encrypted"}


def test_a_zip_that_lies_about_its_sizes_is_read_within_bounds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("2.json", bytes(50 << 20))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for place in (22, data.rindex(b"PK\x01\x02") + 24):
        struct.pack_into("<I", data, place, 10)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(HephaestusError, match="annotation archive"):
        load_annotations(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_members_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 3)
    source = tmp_path / "a"
    files = {f"{n}.json": good_file(n) for n in range(1, 6)}
    if kind == "tar":
        tar_of(source, files)
    elif kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, json.dumps(content))
    else:
        source.mkdir()
        for name, content in files.items():
            (source / name).write_text(json.dumps(content))
    with pytest.raises(HephaestusError, match="more than 3 files"):
        load_annotations(source)


# --- folders and special files -----------------------------------------------------------------------------


def test_a_folder_gives_plain_files_only_and_says_what_it_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "9.json").mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps(good_file(1)))
    os.mkfifo(folder / "2.json")
    (folder / "3.json").symlink_to("/dev/zero")
    (folder / "4.json").symlink_to(folder / "1.json")
    with (folder / "5.json").open("wb") as stream:
        stream.truncate(1 << 40)  # a sparse file of one terabyte
    (folder / "loop").symlink_to(folder)
    assert listed(folder) == {
        "2.json": "it is not a plain file",
        "3.json": "it is a link",
        "4.json": "it is a link",
        "5.json": f"it has {1 << 40} bytes",
    }
    before = hash_archive(folder)
    (folder / "4.json").unlink()
    assert hash_archive(folder) != before


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "link to a device"])
def test_what_is_no_archive_at_all_ends_at_once(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(source)
    elif kind == "device":
        source = Path("/dev/zero")
    elif kind == "huge":
        with source.open("wb") as stream:
            stream.truncate(1 << 40)
    else:
        source.symlink_to("/dev/zero")
    settings = load_settings(data_dir=tmp_path / "data", annotations=str(source))
    with pytest.raises(HephaestusError, match=r"neither a file nor a folder|larger than 256 MB"):
        find_annotations(settings)


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(json.dumps([good_file(1)]))
    (tmp_path / "named.json").symlink_to(tmp_path / "real.json")
    assert not listed(tmp_path / "named.json")


# --- mutated files -----------------------------------------------------------------------------------------


def read(path: Path) -> None:
    load_annotations(path)


def tar(path: Path) -> None:
    for entry in read_tar(path.read_bytes()):
        assert isinstance(entry.name, str)


def one(path: Path) -> None:
    """Read a single annotation file."""
    load_annotations(path)


def samples(tmp_path: Path) -> list[bytes]:
    files = {f"{n}.json": good_file(n) for n in range(1, 4)} | {"a" * 150 + ".json": good_file(4)}
    packed = tar_of(tmp_path / "a.tar.gz", files).read_bytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, json.dumps(content))
    return [gzip.decompress(packed), stream.getvalue(), packed]


def test_mutated_archives_end_as_a_reason(tmp_path: Path) -> None:
    errors = ["hephaestus_build.core.errors:HephaestusError"]
    with FuzzedReader(f"{__file__}:read", errors=errors, memory=200 << 20) as fuzzed:
        counts = fuzz(fuzzed, samples(tmp_path), tmp_path)
    assert counts["read"]
    assert counts["refused"]


def test_mutated_tars_end_as_a_reason(tmp_path: Path) -> None:
    with FuzzedReader(f"{__file__}:tar", memory=64 << 20) as fuzzed:
        counts = fuzz(fuzzed, samples(tmp_path)[:1], tmp_path)
    assert counts["read"]
    assert counts["refused"]


def test_mutated_files_end_as_a_reason(tmp_path: Path) -> None:
    errors = ["hephaestus_build.core.errors:HephaestusError"]
    sample = json.dumps({"caption": "", **good_file(1, caption="A dyke. " * 100)}).encode()
    with FuzzedReader(f"{__file__}:one", errors=errors, memory=64 << 20) as fuzzed:
        counts = fuzz(fuzzed, [sample], tmp_path, suffix=".json")
    assert counts["read"]
    assert counts["refused"]


def test_errors_of_a_tar_name_no_python(tmp_path: Path) -> None:
    with pytest.raises(TarError, match="cut or damaged between two members"):
        list(read_tar(b"x" * 5000))
