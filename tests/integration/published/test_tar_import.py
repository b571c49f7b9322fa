"""Tests of imports from tar files, which are never unpacked, and of what such a file may hold instead."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from archives import FRAME, frame_store_of, objects, settings_for
from hephaestus_build.core.frames import Frame
from hephaestus_build.published.cube_import import import_cube
from hephaestus_build.published.found_cubes import find_published_cubes
from hephaestus_build.published.published_cube import PublishedCube
from json_page import differences
from published_cubes import pack_cube, write_published_cube
from toy_published import PAIRS, toy_published

OTHER = "199D_02214_131313"


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    """A cube in the published layout, of which no test changes anything."""
    return write_published_cube(toy_published(), tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def tar(cube, tmp_path_factory) -> Path:
    """A tar file of that cube."""
    return pack_cube(cube, tmp_path_factory.mktemp("tar") / f"{FRAME}.zarr.tar")


@pytest.fixture
def import_path(hephaestus, tmp_path):
    """Return a function that imports a path and returns the exit code, the JSON of each frame, and errors."""

    def call(path: Path, *arguments: str):
        code, out, err = hephaestus(
            "import", str(path), *arguments, "--data-dir", str(tmp_path / "data"), "--json"
        )
        found = json.loads(out) if out else {"frames": []}
        assert differences("import", found) == []
        return code, found["frames"], err

    return call


def imported_in_process(path: Path, data: Path, frame: Frame = FRAME) -> None:
    [found] = find_published_cubes(path, [frame])
    import_cube(PublishedCube.open(found.objects, found.frame), settings_for(data))


def nothing_imported(data: Path) -> bool:
    return frame_store_of(settings_for(data)).published_generation() is None


def test_a_tar_file_is_imported_as_the_folder_is_and_not_unpacked(cube, tar, import_path, tmp_path):
    code, [frame], _ = import_path(tar)
    assert (code, frame["imported"], frame["source"]) == (0, len(PAIRS), f"{tar.name}/{cube.name}")
    assert [path.name for path in tar.parent.iterdir()] == [tar.name]
    imported_in_process(cube, tmp_path / "folder")
    here, there = (objects(settings_for(tmp_path / name)) for name in ("data", "folder"))
    images = [path for path in here if any(part in path for part in ("insar", "mask", "dem/", "surface"))]
    assert len(images) > 3 * len(PAIRS)
    assert all(here[path] == there[path] for path in images if not path.endswith(".json"))
    granules = (
        frame_store_of(settings_for(tmp_path / "data")).published_generation().read_inventory().granules
    )
    files = {receipt.file for granule in granules.values() for receipt in granule.receipts}
    assert f"{tar.name}/{cube.name}/dem/0.0" in files
    assert all(file.startswith(f"{tar.name}/{cube.name}/") for file in files)


def test_a_tar_file_of_several_frames_is_imported_as_a_whole_or_in_part(cube, import_path, tmp_path):
    tar = tmp_path / "all.tar"
    second = write_published_cube(toy_published(frame=OTHER, pairs=PAIRS[:2]), tmp_path / "second")
    with tarfile.open(tar, "w") as archive:
        archive.add(cube, f"./minicubes/{cube.name}")
        archive.add(second, f"./minicubes/{second.name}")
    code, [frame], _ = import_path(tar, OTHER)
    assert (code, frame["frame"], frame["imported"]) == (0, OTHER, 2)
    code, frames, _ = import_path(tar)
    assert (code, [frame["frame"] for frame in frames]) == (0, [FRAME.id, OTHER])
    code, _, err = import_path(tar, "124D_04854_171313")
    assert (code, "holds no cube of 124D_04854_171313" in err) == (2, True)


def test_members_without_a_folder_take_their_frame_from_the_tar_file(cube, import_path, tmp_path):
    tar = tmp_path / f"{FRAME}.tar"
    with tarfile.open(tar, "w") as archive:
        for path in sorted(cube.iterdir()):
            archive.add(path, path.name)
    code, [frame], _ = import_path(tar)
    assert (code, frame["imported"], frame["source"]) == (0, len(PAIRS), tar.name)


def test_hard_links_to_members_are_these_members(cube, import_path, tmp_path):
    folder = shutil.copytree(cube, tmp_path / "linked" / cube.name)
    chunk = folder / "insar_difference" / "0.0.0.0"
    twin = folder / "insar_difference" / "0.1.0.0"
    twin.unlink()
    twin.hardlink_to(chunk)
    code, [frame], _ = import_path(pack_cube(folder, tmp_path / "linked.tar"))
    assert (code, frame["imported"]) == (0, len(PAIRS))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_tar_file_that_is_cut_is_named_and_nothing_is_imported(share, tar, import_path, tmp_path):
    cut = tmp_path / "cut.tar"
    content = tar.read_bytes().rstrip(b"\0")
    cut.write_bytes(content[: int(len(content) * share)])
    code, frames, err = import_path(cut)
    assert (code, frames, err.count("\n")) == (1, [], 1)
    assert str(cut) in err
    assert "cut" in err
    assert "nothing of it was used, copy it again" in err
    assert nothing_imported(tmp_path / "data")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        (member(f"{FRAME}.zarr/dem/9.9", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (
            member(f"{FRAME}.zarr/dem/9.9", tarfile.LNKTYPE, "../../etc/passwd"),
            "a link to no member before it",
        ),
        (member("/etc/cron.d/job"), "leads out of the file"),
        (member(f"{FRAME}.zarr/../../job"), "leads out of the file"),
        (member(f"{FRAME}.zarr/dem/9.9", tarfile.CHRTYPE), "is not a plain file"),
        (member(f"{FRAME}.zarr/dem/\x1b[2J"), "cannot be printed"),
    ],
)
def test_a_member_that_no_cube_has_is_named_and_nothing_is_imported(
    hostile, said, cube, import_path, tmp_path
):
    tar = tmp_path / "hostile.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(cube, cube.name)
        archive.addfile(hostile)
    code, frames, err = import_path(tar)
    assert (code, frames, err.count("\n")) == (1, [], 1)
    assert said in err
    assert "\x1b" not in err
    assert nothing_imported(tmp_path / "data")


def test_what_is_compressed_or_no_tar_file_leads_to_the_command_that_helps(tar, import_path, tmp_path):
    packed = tmp_path / "cube.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes(), 1))
    code, _, err = import_path(packed)
    assert (code, f"`gunzip -k {packed}`" in err) == (2, True)
    other = tmp_path / "notes.tar"
    other.write_bytes(b"no tar file\n" * 100)
    code, _, err = import_path(other)
    assert (code, "is no whole tar file" in err) == (1, True)
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    code, _, err = import_path(empty)
    assert (code, "holds no cube in Zarr format 2" in err) == (2, True)


def test_a_chunk_that_would_fill_the_memory_is_refused_before_it_is_decoded(cube, import_path, tmp_path):
    from numcodecs import Blosc

    folder = shutil.copytree(cube, tmp_path / "bomb" / cube.name)
    bomb = Blosc("zstd", 1).encode(np.zeros(1 << 26, "u1"))
    assert len(bomb) < 1 << 16
    (folder / "insar_coherence" / "0.0.0.0").write_bytes(bomb)
    code, [frame], err = import_path(pack_cube(folder, tmp_path / "bomb.tar"))
    assert (code, frame["imported"]) == (3, len(PAIRS) - 1)
    assert "would decode to 67108864 bytes" in err
