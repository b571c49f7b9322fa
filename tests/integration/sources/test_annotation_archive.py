"""Tests of reading annotation files: safely, and with every defect recorded."""

from __future__ import annotations

import gzip
import json
import math
import random
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_files import SQUARE, good_file, quiet_file, real_annotations, tar_of
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.sources.annotations.archive import load_annotations
from hephaestus_build.sources.annotations.archive_members import UnreadableArchiveError, read_members
from hephaestus_build.sources.annotations.record import Annotation, parse_annotation

ETNA = Frame("124D_05291_081406")


def read_one(content: dict[str, Any]) -> tuple[Annotation | None, list[str]]:
    defects: list[Any] = []
    result = parse_annotation(content, "1.json", defects)
    return result, [defect.kind for defect in defects]


def test_a_good_file_is_read_as_the_expert_wrote_it() -> None:
    jsonschema.validate(good_file(), load_schema("annotation.json"))
    result, defects = read_one(good_file())
    assert result is not None
    assert defects == []
    assert (result.unique_id, result.frame, result.pair.name) == (1, ETNA, "20180101_20180202")
    assert (result.label, result.phase, result.confidence) == (("Deformation",), "Unrest", 0.8)
    assert (result.atmospheric_fringes, result.is_crowd, result.caption) == (1, 0, "A dyke.")
    np.testing.assert_array_equal(result.polygons[0], np.reshape(SQUARE, (4, 2)))
    [(_, activity, level)] = result.labeled_polygons
    assert (activity, level) == ("Dyke", "High")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"uniqueID": "one"}, "unusable"),
        ({"uniqueID": True}, "unusable"),
        ({"frameID": "nowhere"}, "unknown frame"),
        ({"frameID": 12}, "unusable"),
        ({"primary_date": "20180230"}, "unusable"),
        ({"primary_date": 20180101}, "unusable"),
        ({"secondary_date": "20170101"}, "unusable"),
        ({"secondary_date": None}, "unusable"),
    ],
)
def test_a_file_that_names_no_interferogram_is_left_out_and_said(changes: dict[str, Any], kind: str) -> None:
    assert read_one(good_file(**changes)) == (None, [kind])


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"frameID": "001D_00001_010101"}, ["unknown frame"]),
        ({"frameID": "198A_00210_131313"}, []),  # simulated frames are not reported
        ({"surprise": 1}, ["unknown field"]),
        ({"glacier_fringes": 2}, ["undocumented value"]),
        ({"processing_error": 3}, ["undocumented value"]),
        ({"corrupted": None}, ["missing"]),
        ({"corrupted": 300}, ["missing"]),
        ({"confidence": 7}, ["missing"]),
        ({"caption": None}, ["missing"]),
        ({"activity_type": ["Geyser"]}, ["unknown word"]),
        ({"phase": "Sleep"}, ["unknown word"]),
        ({"activity_type": ["Sill", "Mogi"]}, ["uneven lists"]),
        ({"activity_type": [], "intensity_level": []}, ["uneven lists"]),
        ({"is_crowd": 1}, ["is_crowd"]),
        ({"label": ["Non_Deformation"]}, ["label", "label"]),
        ({"phase": "Rest"}, ["label"]),
        ({"segmentation_mask": [[1.0, 2.0, 3.0]]}, ["polygon"]),
        ({"segmentation_mask": [[*SQUARE[:7], math.nan]]}, ["polygon"]),
        ({"segmentation_mask": [[*SQUARE[:7], 1e30]]}, ["polygon"]),
        ({"segmentation_mask": [[SQUARE]]}, ["polygon"]),
        ({"segmentation_mask": [["a"] * 6]}, ["polygon"]),
        ({"segmentation_mask": [[*SQUARE, 10.0, 10.0]]}, ["repeated vertex"]),
        ({"segmentation_mask": [[10.0, 10.0, 13.0, 10.0, 13.0, 13.0]]}, ["tiny polygon"]),
    ],
)
def test_a_file_with_a_defect_is_kept_and_said(changes: dict[str, Any], kinds: list[str]) -> None:
    result, found = read_one(good_file(**changes))
    assert result is not None
    assert found == kinds


def test_an_unreadable_polygon_keeps_its_place_so_that_words_still_fit() -> None:
    result, _ = read_one(
        good_file(
            segmentation_mask=[[1.0], SQUARE],
            activity_type=["Mogi", "Sill"],
            intensity_level=["Low", "High"],
            is_crowd=1,
        )
    )
    assert result is not None
    assert [(activity, level) for _, activity, level in result.labeled_polygons] == [("Sill", "High")]


def test_words_left_over_belong_to_no_polygon() -> None:
    result, _ = read_one(good_file(activity_type=["Sill", "Mogi"], intensity_level=[]))
    assert result is not None
    assert [(activity, level) for _, activity, level in result.labeled_polygons] == [("Sill", "None")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(good_file())), JSON, max_size=4))
def test_no_json_object_breaks_the_reader(changes: dict[str, Any]) -> None:
    result, kinds = read_one(good_file() | changes)
    assert result is not None or kinds


def test_archives_of_every_kind_hold_the_same(tmp_path: Path) -> None:
    files = {f"deep/folder/{n}.json": good_file(n) for n in (1, 2)} | {"readme.txt": b"not me"}
    tar_gz = tar_of(tmp_path / "a.tar.gz", files)
    tar = tmp_path / "a.tar"
    tar.write_bytes(gzip.decompress(tar_gz.read_bytes()))
    folder, zipped = tmp_path / "folder", tmp_path / "a.zip"
    folder.mkdir()
    with zipfile.ZipFile(zipped, "w") as archive:
        for n in (1, 2):
            (folder / f"{n}.json").write_text(json.dumps(good_file(n)))
            archive.writestr(f"{n}.json", json.dumps(good_file(n)))
    single = tmp_path / "all.json"
    single.write_text(json.dumps([good_file(1), good_file(2)]))
    for source in (tar_gz, tar, zipped, folder, single):
        annotations = load_annotations(source)
        assert [item.unique_id for item in annotations] == [1, 2]
        assert annotations.defects == ()
        assert list(annotations.for_frame(ETNA)) == sorted(annotations.for_frame(ETNA))
    assert not annotations.for_frame(Frame("005A_07021_131313"))


def test_hostile_names_links_and_sizes_do_no_harm(tmp_path: Path) -> None:
    link = tarfile.TarInfo("3.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    inside = tmp_path / "inside"
    inside.mkdir()
    source = tar_of(
        inside / "a.tar.gz",
        {
            "../../2.json": good_file(2),
            "/etc/1.json": good_file(1),
            "3.json": link,
            "4\n[red].json": b"{}",
            "5.json": b" " * (2 << 20),
        },
    )
    before = sorted(tmp_path.rglob("*"))
    annotations = load_annotations(source)
    assert [item.unique_id for item in annotations] == [1, 2]
    assert {(item.file, item.action) for item in annotations.defects} == {
        ("3.json", "left out"), ("4 [red].json", "left out"), ("5.json", "left out"),
    }  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "bomb.tar.gz"
    source.write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(UnreadableArchiveError, match="beyond 4 MB"):
        list(read_members(source, total_limit=4 << 20))


def test_files_that_are_not_json_are_said(tmp_path: Path) -> None:
    files = {
        "1.json": good_file(1),
        "2.json": b"",
        "3.json": b"<html>",
        "4.json": b"[" * 100_000,
        "5.json": b"7",
    }
    annotations = load_annotations(tar_of(tmp_path / "a.tar.gz", files))
    assert [item.file for item in annotations.defects] == ["2.json", "3.json", "4.json", "5.json"]
    assert len(annotations) == 1


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_archive_is_an_error_not_a_shorter_one(tmp_path: Path, share: float, compressed: bool) -> None:
    whole = tar_of(tmp_path / "a.tar.gz", {f"{n}.json": good_file(n) for n in range(1, 60)}).read_bytes()
    whole = whole if compressed else gzip.decompress(whole)
    source = tmp_path / "cut.tar"
    for cut in (int(len(whole) * share), int(len(whole) * share) // 512 * 512):
        source.write_bytes(whole[:cut])
        with pytest.raises(HephaestusError, match=r"cannot be read.*hephaestus annotations fetch"):
            load_annotations(source)


def test_rubbish_between_two_members_is_noticed(tmp_path: Path) -> None:
    whole = gzip.decompress(
        tar_of(tmp_path / "a.tar.gz", {f"{n}.json": good_file(n) for n in (1, 2)}).read_bytes()
    )
    second = whole.index(b"2.json")
    source = tmp_path / "a.tar"
    source.write_bytes(whole[:second] + b"rubbish".ljust(512, b"x") + whole[second + 512 :])
    with pytest.raises(HephaestusError, match="cut or damaged"):
        load_annotations(source)


@pytest.mark.parametrize("content", [b"", b"<html>not here</html>", b"PK\x03\x04 no", bytes(5000)])
def test_what_is_no_archive_is_one_line_saying_what_to_do(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.tar.gz"
    source.write_bytes(content)
    with pytest.raises(HephaestusError) as caught:
        load_annotations(source)
    assert "\n" not in str(caught.value)
    assert "hephaestus annotations fetch" in str(caught.value)


def test_a_missing_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HephaestusError, match="No such file"):
        load_annotations(tmp_path / "none.tar.gz")


def test_duplicates_are_said_and_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    files = {
        "a/1.json": good_file(1),
        "b/1.json": quiet_file(1),
        "7.json": good_file(7, secondary_date=good_file(1)["secondary_date"]),
        "9.json": good_file(8),
    }
    results = []
    for seed in range(4):
        names = list(files)
        random.Random(seed).shuffle(names)
        annotations = load_annotations(
            tar_of(tmp_path / f"{seed}.tar.gz", {name: files[name] for name in names})
        )
        results.append(([(a.unique_id, a.phase) for a in annotations], annotations.defects))
    assert results[0][0] == [(1, "Unrest"), (8, "Unrest")]
    assert Counter(item.kind for item in results[0][1]) == {"duplicate": 2, "file name": 1}
    assert all(result == results[0] for result in results)


def test_the_registry_holds_the_38_frames() -> None:
    frames = published_frames()
    assert len(frames) == 38
    assert sum(frame.annotations for frame in frames.values()) == 19_919
    assert {frame.id for frame in frames.values() if frame.uncertain_geometry} == {
        "144A_SM_REUN_S6", "151D_SM_REUN_S4",
    }  # fmt: skip
    assert {frame.id[:4] for frame in frames.values() if frame.preview == "mercator"} == {"155D"}
    assert all(Frame(frame.id) for frame in frames.values())


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Any:
    return real_annotations(shared_data)


def test_the_real_archive_is_whole_and_its_known_defects_are_found(real: Any) -> None:
    assert len(real) == 19_919
    assert {frame.id: len(real.for_frame(frame)) for frame in real.frames} == {
        frame.id: frame.annotations for frame in published_frames().values()
    }
    assert sum(len(item.polygons) for item in real) == 2253
    found: dict[str, set[str]] = {}
    for defect in real.defects:
        found.setdefault(defect.kind, set()).add(defect.file)
    assert found["uneven lists"] == {"850.json", "6176.json"}
    assert found["is_crowd"] == {"6176.json", "6950.json"}
    assert found["repeated vertex"] == {"5774.json", "5779.json", "8440.json", "9035.json"}
    assert found["tiny polygon"] == {"1111.json"}
    assert "332.json" in found["undocumented value"]
    assert len(found["undocumented value"]) == 325  # and 324 with processing_error 3


def test_the_cube_can_tell_the_real_positives_by_their_phase(real: Any) -> None:
    assert all(item.is_deforming == (item.phase != "Rest") for item in real)


def test_real_pairs_are_found_by_frame_and_date(real: Any) -> None:
    item = real.for_frame(Frame("087D_07004_060904"))[Pair.parse("20180517_20180529")]
    assert item.unique_id == 6176
    [(polygon, activity, level)] = item.labeled_polygons
    assert (len(polygon), activity, level) == (11, "Dyke", "High")
