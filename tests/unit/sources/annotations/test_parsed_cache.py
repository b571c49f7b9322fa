"""Tests of the cache of parsed annotation archives, and of its invalidation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annotation_files import good_file, tar_of
from hephaestus_build.core.settings import Settings
from hephaestus_build.sources.annotations import archive as module
from hephaestus_build.sources.annotations import parsed_cache
from hephaestus_build.sources.annotations.archive import Annotations, find_annotations, load_annotations

FILES = {
    "1.json": good_file(1),
    "2.json": good_file(2, segmentation_mask=[[1, 2, 3]], confidence="sure", caption="Ätna"),
    "3.json": good_file(3, segmentation_mask=[], label=["Non_Deformation"], phase="Rest", unknown=1),
    "4.json": good_file(4, frameID="no frame"),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "cache").mkdir(parents=True)
    archive = tar_of(tmp_path / "annotations.tar.gz", FILES)
    return Settings(data_dir=tmp_path / "data", annotations=str(archive))


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Archives that were parsed completely."""
    read: list[Path] = []

    def counted(source: Path) -> Annotations:
        read.append(source)
        return load_annotations(source)

    monkeypatch.setattr(module, "load_annotations", counted)
    return read


def found(settings: Settings) -> Annotations:
    module._load_file.cache_clear()  # as another process would
    return find_annotations(settings)


def kept(settings: Settings) -> list[Path]:
    return sorted((settings.data_dir / "cache").rglob("*.reading"))


def written(annotations: Annotations) -> list[str]:
    def plain(polygon: Any) -> Any:
        return polygon.tolist(), polygon.shape, polygon.flags.writeable

    facts = [vars(item) | {"polygons": list(map(plain, item.polygons))} for item in annotations]
    return [json.dumps(item, default=str) for item in facts]


def test_another_process_has_it_without_reading_the_archive(settings, once):
    first, second = found(settings), found(settings)
    assert len(once) == 1
    assert len(first) == 3
    assert written(second) == written(first)
    assert second.defects == first.defects != ()
    assert (second.source, second.sha256, second.frames) == (first.source, first.sha256, first.frames)
    assert [type(item.pair) for item in second] == [type(item.pair) for item in first]


@pytest.mark.parametrize("damage", ["empty", "cut", "start", "middle", "end"])
def test_what_is_damaged_is_read_again(settings, once, damage):
    first = found(settings)
    [path] = kept(settings)
    content = path.read_bytes()
    spoilt = bytearray(content)
    if damage in ("start", "middle", "end"):
        spoilt[{"start": 0, "middle": len(spoilt) // 2, "end": -1}[damage]] ^= 1
    else:
        del spoilt[-9 if damage == "cut" else 0 :]
    path.write_bytes(spoilt)
    assert written(found(settings)) == written(first)
    assert len(once) == 2
    assert path.read_bytes() == content


def test_another_archive_and_another_version_are_read_anew(settings, once, monkeypatch):
    found(settings)
    [before] = kept(settings)
    tar_of(Path(settings.annotations), {"1.json": good_file(1, caption="changed")})
    assert [item.caption for item in found(settings)] == ["changed"]
    [after] = kept(settings)
    assert after != before
    monkeypatch.setattr(parsed_cache, "_parser_fingerprint", lambda: "another")
    found(settings)
    assert len(once) == 3
    assert len(kept(settings)) == 1


def test_who_only_looks_gets_no_folder_of_data(settings, once):
    (settings.data_dir / "cache").rmdir()
    settings.data_dir.rmdir()
    assert len(found(settings)) == 3
    assert not settings.data_dir.exists()


def test_a_cache_that_cannot_be_written_is_no_obstacle(settings, once):
    (settings.data_dir / "cache" / "annotations").write_text("a file stands here")
    assert len(found(settings)) == len(found(settings)) == 3
    assert len(once) == 2
