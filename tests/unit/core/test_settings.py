"""Tests of wrong and untrusted settings: one line, exit code 2, and no value that may be secret."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.settings import Settings, load_settings

SECRET = "open-sesame"


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "settings.yaml"
    monkeypatch.setenv("HEPHAESTUS_SETTINGS", str(path))
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 5000, "nested deeper"),
        (b"connections: " + b"{a: " * 5000, "nested deeper"),
        (b"a: &a [1]\nb: *a\n", "aliases"),
        (b"x" * (2 << 20), "larger than"),
        (b"- 1\n- 2\n", "name: value"),
        (b"just text", "name: value"),
        (b"1: 2\n", "name: value"),
        (b"\xff\xfe\x00\x01", "not UTF-8 text"),
        (b"a: !!python/object/apply:os.system [id]\n", "not YAML"),
        (b"connections: " + b"9" * 6000, "digits"),
        (b"a: [1\n", "not YAML"),
        (b'data_dir: "a\\0b"\n', "null character"),
        (b"timeout: .nan\n", "timeout"),
        (b"timeout: .inf\n", "timeout"),
        (b"timeout: 1.0e+308\n", "timeout"),
        (b"era5_deadline: .inf\n", "era5_deadline"),
        (b"era5_deadline: -1\n", "era5_deadline"),
        (b"cache_limit_gb: .nan\n", "cache_limit_gb"),
        (b"workers: 99999999999999999999\n", "workers"),
        (b"licsar_url: [https://user:open-sesame@portal]\n", "licsar_url"),
        (b"licsar_url:\n  user: open-sesame\n", "licsar_url"),
    ],
)
def test_a_settings_file_that_is_wrong_is_one_line(file, content, said):
    file.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        load_settings()
    message = str(refused.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 500
    assert SECRET not in message


def test_an_empty_settings_file_sets_nothing(file):
    file.write_text("# nothing\n")
    assert load_settings() == Settings()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_settings_file_that_is_no_plain_file_is_not_read(file, monkeypatch):
    os.mkfifo(file)
    for path in (str(file), os.devnull, "/dev/zero", str(file.parent), "x" * 5000):
        monkeypatch.setenv("HEPHAESTUS_SETTINGS", path)
        with pytest.raises(UsageError, match="is not a file"):
            load_settings()


@pytest.mark.parametrize("value", ["[" * 5000, '["a"', "[" + "9" * 5000 + "]", "[{}]", "[1e999]"])
def test_lists_in_the_environment_are_read_in_bounds(monkeypatch, value):
    monkeypatch.setenv("HEPHAESTUS_DATA_ROOTS", value)
    with pytest.raises(UsageError, match="data_roots") as refused:
        load_settings()
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("value", ['["/a", "/b c"]', os.pathsep.join(["/a", "/b c"])])
def test_data_roots_are_a_list_or_written_as_in_path(monkeypatch, file, value):
    file.write_text("data_roots: [/a, /b c]\n")
    assert load_settings().data_roots == (Path("/a"), Path("/b c"))
    file.write_text("")
    assert load_settings().data_roots == ()
    monkeypatch.setenv("HEPHAESTUS_DATA_ROOTS", value)
    assert load_settings().data_roots == (Path("/a"), Path("/b c"))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_content_of_a_settings_file_is_a_traceback(content):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "settings.yaml"
        path.write_bytes(content)
        patch.setenv("HEPHAESTUS_SETTINGS", str(path))
        with suppress(UsageError):
            load_settings()
