"""Tests of folders that others can write to: nothing outside is touched, and one bad frame gives one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hephaestus_build.core.atomic_io import hash_bytes, link_files
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.manifest import encode_manifest
from hephaestus_build.cube.validation.checksums import verify_generation, verify_objects
from hephaestus_build.operations.run_log import BuildRun, read_last_runs, record_run
from hephaestus_build.operations.status import read_frame_status
from toy_cube import FRAME, toy_cube

OTHER = "198A_00001_131313"
AGES = timedelta(0)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    for _ in range(2):
        toy_cube(folder / "simulated" / "cubes")
    toy_cube(folder / "simulated" / "cubes", frame=OTHER)
    return folder


@pytest.fixture
def data(pristine, tmp_path, monkeypatch) -> Path:
    shutil.copytree(pristine, tmp_path / "data", symlinks=True)
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def frame_store(data) -> FrameStore:
    return FrameStore(data / "simulated" / "cubes", Frame(FRAME))


@pytest.fixture
def outside(tmp_path) -> Path:
    """Folder outside the data folder that looks like one that cleanup removes."""
    folder = tmp_path / "photos"
    for name in ("202401", "202402", ".draft-mine", ".draft-0123456789ab", ".removed-0123456789ab"):
        (folder / name).mkdir(parents=True)
        (folder / name / "precious").write_text("x")
        os.utime(folder / name, (1, 1))
    return folder


def contents_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def reseal(generation: Generation, change: Callable[[bytes], bytes] | None = None, **listed: list) -> None:
    """Change a cube's record and recompute its hashes, as an attacker would."""
    objects = generation.read_manifest()
    content = (generation.store / PROVENANCE).read_bytes()
    content = change(content) if change else content
    objects |= {PROVENANCE: [hash_bytes(content), len(content)], **listed}
    for folder in generation.record_folders:
        for name, new in ((PROVENANCE, content), (MANIFEST, encode_manifest(objects))):
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(new)


def changed(**units: object) -> Callable[[bytes], bytes]:
    """Return a change of the record: new values by their path of keys, joined by two underscores."""

    def change(content: bytes) -> bytes:
        value = json.loads(content)
        for path, new in units.items():
            *way, last = (int(key) if key.isdigit() else key for key in path.split("__"))
            place = value
            for key in way:
                place = place[key]
            place[last] = new
        return json.dumps(value).encode()

    return change


# --- cleanup


@pytest.mark.parametrize("part", ["frame", "generations"])
def test_gc_removes_nothing_through_a_linked_folder(frame_store, outside, hephaestus, part):
    before = contents_of(outside)
    linked = frame_store.root if part == "frame" else frame_store.root.parent
    linked.rename(linked.with_name("away"))
    if part == "generations":
        shutil.copytree(outside, outside / FRAME)
        before = contents_of(outside)
    linked.symlink_to(outside)
    code, _, err = hephaestus("gc", FRAME, "--keep", "1", "--older-than", "0")
    assert code == 1
    assert "is a link" in err
    assert FRAME in err
    assert contents_of(outside) == before


def test_gc_removes_only_what_builds_made(frame_store, outside):
    for path in outside.iterdir():
        shutil.copytree(path, frame_store.root / path.name)
    (frame_store.root / ".draft-aaaaaaaaaaaa").symlink_to(outside)
    killed = frame_store.root / ".draft-bbbbbbbbbbbb" / f"{FRAME}.zarr"
    killed.mkdir(parents=True)
    (killed / "zarr.json").write_text("{")
    (killed / "linked").symlink_to(outside)
    (frame_store.root / ".upstream.json.0123456789ab").write_text("{")
    (frame_store.root / "123456").symlink_to(outside)
    before = contents_of(outside)
    with frame_store.lock():
        assert frame_store.generation_numbers() == [1, 2]
        assert frame_store.remove_old(keep=1, older_than=AGES) == [1]
    assert contents_of(outside) == before
    left = {path.name for path in frame_store.root.iterdir()}
    assert left >= {path.name for path in outside.iterdir()} | {".draft-aaaaaaaaaaaa", "000002"}
    assert not left & {"000001", ".draft-bbbbbbbbbbbb", ".upstream.json.0123456789ab"}


def test_a_generation_with_files_of_others_stays(frame_store):
    (frame_store.root / "000001" / "notes.txt").write_text("precious")
    with frame_store.lock():
        assert frame_store.remove_old(keep=1, older_than=AGES) == []
    assert (frame_store.root / "000001" / "notes.txt").exists()


def test_the_published_generation_is_never_removed(frame_store):
    frame_store.published_link.unlink()
    frame_store.published_link.symlink_to(f".generations/{FRAME}/000001/{FRAME}.zarr")
    assert frame_store.remove_old(keep=1, older_than=AGES) == []
    assert frame_store.published_generation().number == 1


@pytest.mark.parametrize("name", ["lock", "staging", "staging/objects"])
def test_nothing_is_written_through_a_link_in_a_frames_folder(frame_store, tmp_path, name):
    target = tmp_path / "outside"
    target.mkdir()
    victim = target / "victim"
    victim.write_text("precious")
    place = frame_store.root / name
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim if name == "lock" else target)
    with pytest.raises(HephaestusError, match="is a link"), frame_store.lock():
        pass
    assert victim.read_text() == "precious"
    assert contents_of(target) == ["victim"]


# --- selection of the published generation


@pytest.mark.parametrize(
    "target",
    [
        f"../cubes/.generations/{FRAME}/000001/{FRAME}.zarr",
        f".generations/{FRAME}/000001/../000001/{FRAME}.zarr",
        f".generations/{FRAME}/1/{FRAME}.zarr",
        f".generations/{FRAME}/000001/other.zarr",
        f".generations/{FRAME}/\u0661\u0661\u0661\u0661\u0661\u0661/{FRAME}.zarr",
        f".generations/{OTHER}/000001/{FRAME}.zarr",
        f"{FRAME}.zarr",
        "/etc",
        "second.zarr",
    ],
)
def test_only_a_link_of_this_program_is_followed(frame_store, hephaestus, target):
    frame_store.published_link.unlink()
    frame_store.published_link.symlink_to(target)
    (frame_store.published_link.parent / "second.zarr").symlink_to(
        f".generations/{FRAME}/000001/{FRAME}.zarr"
    )
    with pytest.raises(HephaestusError, match=f"^{FRAME}: .*move it away"):
        frame_store.published_generation()
    for command in ("status", "verify", "gc"):
        code, out, err = hephaestus(command)
        assert code == 1
        assert f"{FRAME}: " in err
        assert OTHER in out


def test_an_absolute_link_and_a_linked_generation_are_not_followed(frame_store, tmp_path):
    store = frame_store.published_generation().store
    frame_store.published_link.unlink()
    frame_store.published_link.symlink_to(store.resolve())
    with pytest.raises(HephaestusError, match="did not make"):
        frame_store.published_generation()
    frame_store.published_link.unlink()
    frame_store.published_link.symlink_to(f".generations/{FRAME}/000002/{FRAME}.zarr")
    store.parent.rename(tmp_path / "away")
    store.parent.symlink_to(tmp_path / "away")
    with pytest.raises(HephaestusError, match="is a link"):
        frame_store.published_generation()


# --- hashing and linking


@pytest.mark.parametrize(
    ("kind", "said"), [("pipe", "a pipe"), ("zero", "a link"), ("loop", "a link"), ("folder", "a folder")]
)
def test_verify_reads_plain_files_only(frame_store, kind, said):
    generation = frame_store.published_generation()
    strange = generation.store / "extra.bin"
    match kind:
        case "pipe":
            os.mkfifo(strange)
        case "zero":
            strange.symlink_to("/dev/zero")
        case "loop":
            strange.symlink_to(strange)
        case "folder":
            strange.mkdir()
    reseal(generation, **{"extra.bin": [hash_bytes(b""), 0]})
    for found in (verify_generation(generation), verify_objects(generation, ["extra.bin"])):
        assert [(damage.path, damage.what) for damage in found] == [("extra.bin", "damaged")]
        assert said in found[0].detail


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/hostname", "dem/../../secret", "a\0b", "x" * 5000, "a/" * 3000 + "b", "", "."]
)
def test_verify_reads_nothing_outside_the_store(frame_store, path):
    generation = frame_store.published_generation()
    (generation.store.parent / "secret").write_bytes(b"")
    reseal(generation, **{path: [hash_bytes(b""), 0]})
    (damage,) = verify_generation(generation)
    assert damage.path == path
    assert damage.what in ("damaged", "unreadable", "missing")


def test_a_linked_folder_of_an_array_is_not_read(frame_store, tmp_path):
    generation = frame_store.published_generation()
    (generation.store / "dem").rename(tmp_path / "dem")
    (generation.store / "dem").symlink_to(tmp_path / "dem")
    strips = {f"dem/c.0.{strip}" for strip in range(3)}
    assert {damage.path for damage in verify_generation(generation)} == {"dem", "dem/zarr.json", *strips}


def test_only_plain_files_become_objects_of_a_new_generation(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "plain").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "plain")
    (tmp_path / "folder").symlink_to(tmp_path / "there")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "folder/plain"):
        with pytest.raises(OSError, match=r"a link|a pipe"):
            link_files(tmp_path / "new", {"a/b": str(tmp_path / name)})
    assert not (tmp_path / "new" / "a" / "b").exists()
    link_files(tmp_path / "new", {"a/b": str(tmp_path / "there" / "plain")})


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_the_record_of_runs_is_a_plain_file(tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    place = tmp_path / "data" / "runs.jsonl"
    place.parent.mkdir()
    match kind:
        case "link":
            place.symlink_to(victim)
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
    with pytest.raises(HephaestusError, match=f"^{FRAME}: .*move it away"):
        record_run(place.parent, BuildRun(Frame(FRAME), datetime.now(UTC), 1.0, error="x"))
    assert victim.read_text() == "precious\n"
    assert read_last_runs(place.parent) == {}


# --- a bad record gives a one-line error


DEEP = b"[" * 100_000 + b"]" * 100_000
ODD: dict[str, Callable[[FrameStore], None]] = {
    "provenance of other types": lambda frame_store: reseal(
        frame_store.published_generation(), lambda _: b'{"units":[1,2]}'
    ),
    "deep provenance": lambda frame_store: reseal(
        frame_store.published_generation(), lambda _: b'{"attributes":' + DEEP + b"}"
    ),
    "deep attributes": lambda frame_store: reseal(
        frame_store.published_generation(), changed(attributes__x=json.loads("[" * 200 + "]" * 200))
    ),
    "provenance that is not text": lambda frame_store: reseal(
        frame_store.published_generation(), lambda _: b"\xff\xfe"
    ),
    "no grid of pixels": lambda frame_store: reseal(
        frame_store.published_generation(), changed(grid__width=10**9)
    ),
    "grid beyond the pole": lambda frame_store: reseal(
        frame_store.published_generation(), changed(grid__north=1e300)
    ),
    "name of a unit": lambda frame_store: reseal(
        frame_store.published_generation(), changed(units__3__name="../../x")
    ),
    "facts of other types": lambda frame_store: reseal(
        frame_store.published_generation(), changed(units__0__facts={"grid": 3})
    ),
    "variable that leads out": lambda frame_store: reseal(
        frame_store.published_generation(), changed(units__0__objects={"../../x": ["0" * 64, 1]})
    ),
    "hash that leads out": lambda frame_store: reseal(
        frame_store.published_generation(), changed(units__0__objects={"dem": ["../../../../tmp/x", 1]})
    ),
    "unit twice": lambda frame_store: reseal(
        frame_store.published_generation(),
        lambda content: content.replace(b'"units":[', b'"units":[{"kind":"dem","name":"dem"},'),
    ),
    "deep manifest": lambda frame_store: [
        (folder / MANIFEST).write_bytes(DEEP) for folder in frame_store.published_generation().record_folders
    ],
    "manifest of other types": lambda frame_store: [
        (folder / MANIFEST).write_bytes(encode_manifest({"a": ["x", "y"]}))
        for folder in frame_store.published_generation().record_folders
    ],
    "pipes for records": lambda frame_store: [
        ((folder / name).unlink(), os.mkfifo(folder / name))
        for folder in frame_store.published_generation().record_folders
        for name in (MANIFEST, PROVENANCE)
    ],
    "a file for a frame's folder": lambda frame_store: (
        shutil.rmtree(frame_store.root),
        frame_store.root.write_text("x"),
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_one_odd_record_is_one_line_and_the_rest_goes_on(frame_store, data, hephaestus, kind, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "http://127.0.0.1:9/")  # or `repair` builds the cube again
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    ODD[kind](frame_store)
    before = contents_of(data.parent)
    for command in ("status", "verify", "repair"):
        code, out, err = hephaestus(command)
        if command == "repair" and code == 0:  # repaired from the rest of the record
            assert "manifest" in kind
            continue
        assert code == 1, command
        lines = err.splitlines()
        assert any(line.startswith(f"hephaestus: {FRAME}: ") for line in lines), (command, err)
        assert all(len(line) < 700 and line.isprintable() for line in lines)
        assert OTHER in out
    assert not [
        path for path in contents_of(data.parent) if path not in before and ".generations" not in path
    ]
    code, _, err = hephaestus("gc")  # may succeed, since it reads no record
    assert code in (0, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("upstream.json", DEEP),
        ("upstream.json", b'{"changed": [1], "gone": 3, "checked": {}}'),
        ("upstream.json", b'{"changed": {"a": 1}, "gone": ["\\u001b[2J"], "checked": 1' + b"9" * 5000 + b"}"),
        ("lock.json", DEEP),
        ("lock.json", b"[]"),
        ("staging/ledger.jsonl", DEEP + b"\n" + b'{"kind":"pair","name":"../x"}\n[]\n\xff\n'),
        (
            "staging/ledger.jsonl",
            b'{"kind":"dem","name":"dem","objects":{"../../../x":["' + b"0" * 64 + b'",1]}}\n',
        ),
        (
            "staging/ledger.jsonl",
            b'{"kind":"mask","name":"20190101_20190113","facts":{"annotation":{"is_crowd":999}}}',
        ),
    ],
)
def test_an_odd_file_beside_the_generations_says_nothing(frame_store, data, hephaestus, name, content):
    place = frame_store.root / name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(content)
    assert frame_store.staging.read_granules() == {}
    row = read_frame_status(load_settings(data_dir=data), Frame(FRAME))
    assert not row.problem
    assert "\x1b" not in "".join(row.gone)
    for command in ("verify", "gc"):
        assert hephaestus(command)[0] == 0


def test_a_folder_that_may_not_be_read_is_one_line(frame_store, hephaestus, monkeypatch):
    """The system call is patched, since removing permissions has no effect when tests run as root."""
    real = os.listdir

    def listdir(path=".") -> list[str]:
        if str(path).endswith(FRAME):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    for command in ("status", "gc"):
        code, out, err = hephaestus(command)
        assert OTHER in out
        assert command == "status" or (code == 1 and f"{FRAME}: " in err and "Permission denied" in err)


def test_odd_lines_of_the_record_of_runs_are_passed_over(data):
    lines = [DEEP, b"[]", b'"x"', b"1" * 6000, b"\xff", json.dumps({"frame": FRAME, "began": 3}).encode()]
    home = data / "simulated"
    (home / "runs.jsonl").write_bytes(b"\n".join(lines))
    assert read_last_runs(home)[FRAME]["began"] == 3
    assert read_frame_status(load_settings(data_dir=data), Frame(FRAME)).last_run == ""  # no moment
