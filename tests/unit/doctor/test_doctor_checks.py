"""Tests that each check of the doctor says what is wrong, in a line with the next step, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from filelock import FileLock

from hephaestus_build.core.atomic_io import write_json
from hephaestus_build.core.configuration.settings_reference import find_setting_origins
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.manners import FilesystemManners
from hephaestus_build.core.machine.limits import MachineLimits
from hephaestus_build.core.settings import load_settings
from hephaestus_build.doctor import installation
from hephaestus_build.doctor.check import Check, run_checks
from hephaestus_build.doctor.checkup import check_this_machine
from hephaestus_build.doctor.configuration import check_keys, check_settings
from hephaestus_build.doctor.data_folder import check_manners, check_writers
from hephaestus_build.doctor.machine import check_clock, check_limits, check_open_files

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
REFUSED = "EPERM, Operation not permitted"


def verdicts(checks: Iterable[Check]) -> dict[str, str]:
    """Return the verdicts that are not ok, each of which must name a next step."""
    found = {check.name: check for check in checks if check.verdict != "ok"}
    assert all(check.next and check.detail for check in found.values())
    return {name: check.verdict for name, check in found.items()}


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("3.12.1", {}), ("3.10.4", {"python": "warning"}), ("3.14.0", {"python": "warning"})],
)
def test_python_is_compared_with_the_versions_that_are_tested(version, wrong):
    tested = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)]
    assert verdicts([installation.check_python(tested, version)]) == wrong


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"numpy": "2.1", "zarr": "3.2"}, ""),
        ({"numpy": "1.26", "zarr": "3.2"}, "numpy 1.26 (allowed: >=2.1)"),
        ({"numpy": "2.1"}, "not installed: zarr"),
        ({"numpy": "2.1", "zarr": "3.2", "torch": "1.0"}, "torch 1.0 (allowed: >=2.10)"),
    ],
)
def test_packages_are_compared_with_the_bounds_of_the_distribution(installed, said):
    lines = [
        "numpy>=2.1",
        "zarr<4,>=3",
        'torch>=2.10; extra == "baselines"',
        'tzdata; sys_platform == "win32"',
    ]
    check = installation.check_packages(lines, installed.get, ["baselines"])
    assert said in check.detail
    assert verdicts([check]) == ({"packages": "failed"} if said else {})


def test_a_program_that_is_not_installed_has_unknown_bounds(monkeypatch):
    monkeypatch.setattr(installation, "DISTRIBUTION", "no-such-distribution-anywhere")
    assert verdicts(installation.check_installation()) == {"packages": "failed"}


def test_a_gdal_that_does_not_work_and_data_of_another_one_are_said(monkeypatch):
    def broken(**_: object) -> None:
        raise HephaestusError("GDAL does not work here")

    monkeypatch.setattr(installation, "check_gdal", broken)
    assert verdicts([installation.check_raster_library()]) == {"gdal": "failed"}
    variables = {"PROJ_LIB": "/opt/qgis/proj"}
    assert verdicts([installation.check_foreign_data(variables)]) == {"gdal_environment": "warning"}
    assert verdicts([installation.check_foreign_data({})]) == {}


def test_a_coordinate_system_that_is_not_understood_is_said(monkeypatch):
    def broken() -> None:
        raise RuntimeError("proj.db not found")

    monkeypatch.setattr(installation, "wgs84_crs", broken)
    assert verdicts([installation.check_raster_library()]) == {"gdal": "failed"}


@pytest.mark.parametrize(
    ("manner", "wrong"),
    [
        ({}, {}),
        ({"write_error": REFUSED}, {"data_folder": "failed"}),
        ({"rename_error": REFUSED}, {"renames": "failed"}),
        ({"disk_error": REFUSED}, {"disk": "failed"}),
        ({"symlink_error": REFUSED}, {"symbolic_links": "warning"}),
        ({"hard_link_error": REFUSED}, {"hard_links": "warning"}),
        ({"lock_error": REFUSED}, {"locks": "warning"}),
        ({"folder_sync_error": REFUSED}, {"folder_sync": "warning"}),
        ({"is_case_sensitive": False}, {"letter_case": "warning"}),
        ({"free_bytes": 5 << 30}, {"free_space": "warning"}),
        ({"free_bytes": 1 << 20}, {"free_space": "failed"}),
        (
            {"symlink_error": REFUSED, "lock_error": REFUSED},
            {"symbolic_links": "warning", "locks": "warning"},
        ),
    ],
)
def test_what_the_file_system_lacks_is_said(manner, wrong):
    checks = list(check_manners(FilesystemManners(Path("/data"), **{"is_case_sensitive": True, **manner})))
    assert verdicts(checks) == wrong
    refused = [check for check in checks if check.verdict != "ok" and REFUSED in str(manner)]
    assert all(REFUSED in check.detail for check in refused)


def test_who_builds_now_is_said_and_notes_of_the_dead_are_told_from_them(tmp_path):
    check = check_writers(tmp_path / "none")
    assert check.detail == "nobody else writes here"
    folder = tmp_path / ".generations" / "198A_00210_131313"
    folder.mkdir(parents=True)
    write_json(folder / "lock.json", {"pid": 7, "host": "node\x1b[2J3", "since": "2026-11-01 11:00:00+00:00"})
    with FileLock(folder / "lock"):
        check = check_writers(tmp_path)
        assert check.verdict == "ok"
        assert "198A_00210_131313: process 7 on node" in check.detail
        assert "\x1b" not in check.detail
    assert verdicts([check_writers(tmp_path)]) == {"writers": "warning"}


def limits(**options: object) -> MachineLimits:
    plain = {"machine_cores": 8, "allowed_cores": 8, "cpu_quota": None, "machine_memory": 64 << 30}
    return MachineLimits(**{**plain, "memory_limit": None, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, {}),
        ({"machine_memory": None}, {}),
        ({"cpu_quota": 0.5}, {"cpu": "warning"}),
        ({"memory_limit": 1 << 30}, {"memory": "warning"}),
        ({"memory_limit": 256 << 20}, {"memory": "failed"}),
    ],
)
def test_small_machines_are_said(given, wrong):
    assert verdicts(check_limits(limits(**given))) == wrong


@pytest.mark.parametrize(("limit", "wrong"), [(None, {}), (1024, {}), (64, {"open_files": "failed"})])
def test_too_few_open_files_are_said(limit, wrong):
    assert verdicts([check_open_files(limit)]) == wrong


@pytest.mark.parametrize(
    ("now", "date", "wrong"),
    [
        (NOW, None, {}),
        (NOW, format_datetime(NOW + timedelta(seconds=50)), {}),
        (NOW, format_datetime(NOW + timedelta(minutes=20)), {"clock": "warning"}),
        (NOW, format_datetime(NOW - timedelta(days=2)), {"clock": "failed"}),
        (NOW, "yesterday", {"clock": "warning"}),
        (datetime(1970, 1, 1, tzinfo=UTC), None, {"clock": "failed"}),
    ],
)
def test_the_clock_is_compared_with_a_date(now, date, wrong):
    assert verdicts([check_clock(now, date)]) == wrong


def test_settings_are_shown_with_their_origin_and_without_secrets(tmp_path, monkeypatch):
    file = tmp_path / "settings.yaml"
    file.write_text("connections: 2\nretries: 1\n")
    monkeypatch.setenv("HEPHAESTUS_SETTINGS", str(file))
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "3")
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "https://me:hunter22@mirror.example/LiCSAR/?token=abcdef")
    settings = load_settings(data_dir=tmp_path)
    check, addresses = check_settings(settings, find_setting_origins({"data_dir"}))
    assert f"data_dir = {tmp_path} (option)" in check.detail
    assert "connections = 2 (file)" in check.detail
    assert "retries = 3 (environment)" in check.detail
    assert "timeout" not in check.detail
    for said in (check.detail, addresses.detail):
        assert "mirror.example" in said
        assert "hunter22" not in said
        assert "abcdef" not in said


def test_addresses_that_are_none_and_annotations_that_are_not_there_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "ftp//nowhere")
    monkeypatch.setenv("HEPHAESTUS_ANNOTATIONS", str(tmp_path / "none.tar.gz"))
    checks = list(check_settings(load_settings(), find_setting_origins()))
    assert verdicts(checks) == {"addresses": "failed"}
    assert "HEPHAESTUS_LICSAR_URL" in checks[-1].detail
    assert "none.tar.gz" in checks[-1].detail


@pytest.mark.parametrize(
    ("content", "era5", "wrong"),
    [
        (None, "auto", {}),
        (None, "cds", {"cds_key": "failed"}),
        ("url: https://cds.example/api\nkey: 1234-secret\n", "auto", {}),
        ("url: https://cds.example/api/v2\nkey: 12:secret\n", "auto", {"cds_key": "warning"}),
        ("url: https://cds.example/api/v2\nkey: 12:secret\n", "cds", {"cds_key": "failed"}),
        ("url: https://cds.example/api\nkey: 1234-secret\nverify: 0\n", "auto", {"cds_key": "warning"}),
        ("url: https://cds.example/api\n", "auto", {"cds_key": "failed"}),
    ],
)
def test_the_key_of_the_cds_is_judged_and_never_shown(tmp_path, monkeypatch, content, era5, wrong):
    file = tmp_path / "cdsapirc"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("CDSAPI_RC", str(file))
    checks = list(check_keys(load_settings(era5=era5)))
    assert verdicts(checks) == wrong
    assert not any("secret" in check.detail + check.next for check in checks)


@pytest.mark.parametrize(
    ("content", "address", "wrong", "said"),
    [
        (None, "https://portal.example/x/", {}, "none"),
        ("machine portal.example login me password secret\n", "https://portal.example/x/", {}, "netrc"),
        (None, "http://me:secret@127.0.0.1:9/x/", {}, "HEPHAESTUS_LICSAR_URL"),
        (
            "machine portal.example secret me\n",
            "https://portal.example/",
            {"portal_login": "warning"},
            "line 1",
        ),
        ("x" * (1 << 20 | 1), "https://portal.example/", {"portal_login": "warning"}, "larger than 1 MB"),
        ("", "https://portal.example/", {}, "none"),
    ],
    ids=["none", "file", "address", "unreadable", "large", "empty"],
)
def test_the_login_of_the_portal_is_judged_and_never_shown(
    tmp_path, monkeypatch, content, address, wrong, said
):
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    if content is not None:
        file.write_text(content)
    checks = [
        check for check in check_keys(load_settings(licsar_url=address)) if check.name == "portal_login"
    ]
    assert verdicts(checks) == wrong
    assert said in checks[0].detail
    assert "secret" not in checks[0].detail + checks[0].next


def test_a_check_that_raises_is_a_failed_check_and_the_others_go_on():
    def broken() -> list[Check]:
        raise KeyError("x")

    checks = list(run_checks([("odd", broken), ("fine", lambda: [Check("fine", "ok", "well")])]))
    assert [(check.name, check.verdict) for check in checks] == [("odd", "failed"), ("fine", "ok")]
    assert "KeyError" in checks[0].detail


def test_this_machine_is_checked_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "http://127.0.0.1:9/")
    settings = load_settings(data_dir=tmp_path / "data")
    checks = list(check_this_machine(settings, find_setting_origins()))
    assert len({check.name for check in checks}) == len(checks) >= 20
    assert not (tmp_path / "data").exists()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 (nothing is left behind)
