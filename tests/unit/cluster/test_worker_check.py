"""Tests of what a worker must have, as the worker finds it."""

from __future__ import annotations

import pytest

from hephaestus_build.cluster.worker_check import (
    WorkerReport,
    describe_unfit,
    find_worker_problem,
    require_of_workers,
)
from hephaestus_build.core.settings import EmbeddedArchive, load_settings


@pytest.fixture
def caller(monkeypatch, tmp_path):
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "2")
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "https://user:secret@portal.example.org/")
    return load_settings(data_dir=tmp_path / "data", era5="arco")


def test_a_worker_with_the_same_environment_can_build_and_leaves_nothing(caller):
    with require_of_workers(caller) as requirements:
        assert find_worker_problem(requirements) == ""
    assert list(caller.data_dir.iterdir()) == []


def test_a_worker_without_any_settings_can_build(caller, monkeypatch):
    with require_of_workers(caller) as requirements:
        monkeypatch.delenv("HEPHAESTUS_RETRIES")
        monkeypatch.delenv("HEPHAESTUS_LICSAR_URL")
        assert find_worker_problem(requirements) == ""


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "HEPHAESTUS_RETRIES",
            "3",
            "it sets HEPHAESTUS_RETRIES otherwise than this command: remove it there",
        ),
        ("HEPHAESTUS_DATA_DIR", "/elsewhere", "it sets HEPHAESTUS_DATA_DIR otherwise"),
        ("HEPHAESTUS_RETRYS", "3", "did you mean HEPHAESTUS_RETRIES?"),
        (
            "HEPHAESTUS_LICSAR_URL",
            "https://user:other@portal.example.org/",
            "sets HEPHAESTUS_LICSAR_URL other",
        ),
    ],
)
def test_other_settings_are_named_without_their_values(caller, monkeypatch, variable, value, said):
    with require_of_workers(caller) as requirements:
        assert "secret" not in repr(requirements)
        monkeypatch.setenv(variable, value)
        problem = find_worker_problem(requirements)
    assert said in problem
    assert "secret" not in problem
    assert "user:other" not in problem


def test_a_settings_file_of_the_worker_counts_too(caller, monkeypatch, tmp_path):
    (tmp_path / "settings.yaml").write_text("timeout: 5\n")
    with require_of_workers(caller) as requirements:
        monkeypatch.setenv("HEPHAESTUS_SETTINGS", str(tmp_path / "settings.yaml"))
        assert "timeout in its settings file otherwise" in find_worker_problem(requirements)


def test_another_folder_at_the_same_path_is_seen(caller):
    with require_of_workers(caller) as requirements:
        (caller.data_dir / requirements.note).write_text("of another machine")
        assert f"does not see the data folder {caller.data_dir}" in find_worker_problem(requirements)
        (caller.data_dir / requirements.note).unlink()
        assert f"does not see the data folder {caller.data_dir}" in find_worker_problem(requirements)


def test_a_folder_that_cannot_be_written_is_said(caller, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with require_of_workers(caller) as requirements:
        monkeypatch.setattr("hephaestus_build.cluster.worker_check.write_atomic", refuse)
        assert "it cannot write to the data folder" in find_worker_problem(requirements)


def test_another_source_of_the_atmosphere_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("CDSAPI_URL", "https://cds.example.org/api")
    monkeypatch.setenv("CDSAPI_KEY", "0123456789-secret")
    with require_of_workers(load_settings(data_dir=tmp_path)) as requirements:
        assert find_worker_problem(requirements) == ""
        monkeypatch.delenv("CDSAPI_KEY")
        problem = find_worker_problem(requirements)
    assert problem.startswith("it would take ERA5 from arco (https://storage.googleapis.com/")
    assert "this command from cds (https://cds.example.org/api)" in problem
    assert "secret" not in problem


def test_an_archive_on_the_machine_of_the_caller_alone_is_said(tmp_path):
    far = EmbeddedArchive(
        "http://127.0.0.1:9/licsar/", "http://127.0.0.1:9/a", "http://127.0.0.1:9/arco",
        "http://127.0.0.1:9/api", "key", ("198A_00210_131313",),
    )  # fmt: skip
    settings = load_settings(data_dir=tmp_path).with_embedded_archive(far).for_simulated()
    with require_of_workers(settings) as requirements:
        assert "does not reach the simulated archive" in find_worker_problem(requirements)


def test_workers_that_cannot_build_are_counted():
    reports = {
        "tcp://a:1": WorkerReport(""),
        "tcp://b:1": WorkerReport("why"),
        "tcp://c:1": WorkerReport("x"),
    }
    assert describe_unfit(reports) == "the worker tcp://b:1 cannot build: why (1 other worker cannot either)"
    assert describe_unfit({"tcp://a:1": WorkerReport("")}) == ""
