"""Which mounts keep file locks to the machine is told from the system's table."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hephaestus_build.core.filesystem import locks, manners
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.filesystem.manners import probe_filesystem
from hephaestus_build.core.filesystem.mounts import find_local_locks, parse_mounts
from hephaestus_build.doctor.data_folder import check_manners


def line(place: Path | str, kind: str, options: str = "rw", shared: str = "shared:1") -> str:
    return f"46 27 0:42 / {place} rw,relatime {shared} - {kind} server:/data {options}\n"


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("ext4", "rw", ""),
        ("fuseblk", "rw,user_id=0", ""),
        ("fuse.glusterfs", "rw", ""),
        ("fuse.sshfs", "rw,user_id=0", "fuse.sshfs"),
        ("nfs4", "rw,vers=4.2,local_lock=none", ""),
        ("nfs", "rw,vers=3,nolock,local_lock=all", "nfs mounted with local_lock=all"),
        ("nfs", "rw,vers=3,local_lock=posix", ""),
        ("lustre", "rw,flock", ""),
        ("lustre", "rw,localflock", "lustre mounted with localflock"),
        ("lustre", "rw", "lustre mounted without flock"),
    ],
)
def test_a_mount_keeps_its_locks_by_its_type_and_options(kind: str, options: str, reason: str) -> None:
    [mount] = parse_mounts(line("/data", kind, options))
    assert mount.local_locks == reason


def test_the_innermost_and_latest_mount_is_the_one_of_a_folder(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    (data / "cubes").mkdir(parents=True)
    escaped = str(data).replace(" ", "\\040")
    table = tmp_path / "mountinfo"
    table.write_text(line("/", "ext4") + line(escaped, "nfs4") + line(escaped, "fuse.sshfs", shared=""))
    assert find_local_locks(data / "cubes", table) == "fuse.sshfs"
    assert find_local_locks(data / "not yet" / "there", table) == "fuse.sshfs"
    assert find_local_locks(tmp_path, table) == ""
    # a folder whose name only begins like the mount's
    assert find_local_locks(tmp_path / "my data 2", table) == ""


def test_no_table_or_an_odd_one_says_nothing(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    assert find_local_locks(tmp_path, table) == ""
    table.write_bytes(b"\xff\xfe - \n\n46 27\n - fuse.sshfs\n46 27 0:42 / / rw - fuse.sshfs\n")
    assert find_local_locks(tmp_path, table) == ""


def test_plan_doctor_and_locks_say_that_other_machines_do_not_see_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (manners, locks):
        monkeypatch.setattr(module, "find_local_locks", lambda folder: "fuse.sshfs")
    monkeypatch.setattr(locks, "_warned", set())
    found = probe_filesystem(tmp_path)
    assert any("(fuse.sshfs)" in lack for lack in found.describe_lacks())
    [check] = [check for check in check_manners(found) if check.name == "locks"]
    assert (check.verdict, "fuse.sshfs" in check.detail) == ("warning", True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # warned once
            with try_lock_file(tmp_path / "lock") as locked, try_lock_file(tmp_path / "lock") as other:
                assert (locked, other) == (True, False)
    assert [record.getMessage().count("(fuse.sshfs)") for record in caplog.records] == [1]
