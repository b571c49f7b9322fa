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
        (b"\xff\xfe\x00\x01", "UTF-16 text"),
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


def test_clusters_are_a_list_or_have_commas(monkeypatch, file):
    file.write_text("clusters: [tcp://a:1, tcp://b:2]\n")
    assert load_settings().clusters == ("tcp://a:1", "tcp://b:2")
    monkeypatch.setenv("HEPHAESTUS_CLUSTERS", "tcp://a:1, tcp://b:2,")
    assert load_settings().clusters == ("tcp://a:1", "tcp://b:2")


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_content_of_a_settings_file_is_a_traceback(content):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "settings.yaml"
        path.write_bytes(content)
        patch.setenv("HEPHAESTUS_SETTINGS", str(path))
        with suppress(UsageError):
            load_settings()


HOME_PATHS = [
    ("~/cubes", "{home}/cubes"),
    ("~", "{home}"),
    ("$HOME/cubes", "{home}/cubes"),
    ("${HOME}/a b", "{home}/a b"),
    ("$VOLUME/$PART", "/volume/one"),
    ("/a/$PART.d/${PART}x", "/a/one.d/onex"),
    ("./~", "~"),
    ("/a/~/b", "/a/~/b"),
    ("100$", "100$"),
    ("$5", "$5"),
]


@pytest.fixture
def variables(monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name, value in {"HOME": str(home), "VOLUME": "/volume", "PART": "one"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOWHERE", raising=False)
    return home


@pytest.mark.parametrize(("written", "meant"), HOME_PATHS)
@pytest.mark.parametrize("setting", ["data_dir", "cache_dir", "data_roots", "annotations"])
def test_a_path_is_expanded_wherever_it_is_set(variables, file, monkeypatch, written, meant, setting):
    meant = str(Path(meant.format(home=variables)))

    def found():
        value = getattr(load_settings(), setting)
        return str(Path(value[0] if setting == "data_roots" else value))

    file.write_text(f"{setting}: {[written] if setting == 'data_roots' else written!r}\n")
    assert found() == meant
    file.write_text("")
    monkeypatch.setenv(f"HEPHAESTUS_{setting.upper()}", written)
    assert found() == meant


@pytest.mark.parametrize("setting", ["data_dir", "cache_dir", "data_roots", "annotations", "settings"])
@pytest.mark.parametrize("written", ["$NOWHERE/x", "${NOWHERE}", "${}/x", "/a/$NOWHERE", "~nobody-at-all/x"])
def test_a_variable_that_is_not_set_is_named(variables, monkeypatch, setting, written):
    monkeypatch.setenv(f"HEPHAESTUS_{setting.upper()}", written)
    with pytest.raises(
        UsageError, match=setting if setting != "settings" else "HEPHAESTUS_SETTINGS"
    ) as refused:
        load_settings()
    assert "{}" in written or written.strip("/ax$~{}") in str(refused.value)
    assert "write the path out" in str(refused.value)


def test_a_folder_whose_name_has_a_dollar_is_taken_as_it_is(variables):
    (variables / "$NOWHERE").mkdir()
    assert load_settings(data_dir="$NOWHERE/data").data_dir == Path("$NOWHERE/data")
    (variables / "~").mkdir()
    assert load_settings(data_dir="~/data").data_dir == variables / "data"


def test_a_home_that_nobody_knows_is_named(monkeypatch):
    monkeypatch.setattr("hephaestus_build.core.machine.user_paths.find_home", lambda: None)
    with pytest.raises(UsageError, match=r"data_dir: the home folder of user .* is unknown"):
        load_settings(data_dir="~/data")


def test_the_settings_file_may_be_named_from_home(variables, monkeypatch):
    (variables / "mine.yaml").write_text("connections: 3\r\nretries: 2\r\n")
    monkeypatch.setenv("HEPHAESTUS_SETTINGS", "~/mine.yaml")
    assert (load_settings().connections, load_settings().retries) == (3, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("connections: 3\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ("connections: 3\n".encode("utf-16-le"), "null characters"),
        ("connections: 3\n".encode("utf-32"), "UTF-32 text"),
        ("# é\nconnections: 3\n".encode("latin-1"), r"not UTF-8 text \(line 1\)"),
        (b"connections: 3\n\tretries: 2\n", r"a tab.* in line 2"),
        (b"connections: 3\nretries: 1\nconnections: 4\n", "connections twice, again in line 3"),
        (b"accept: {'*': [dem], '*': [era5]}\n", r"\* twice"),
        (b"workers: !!int ''\n", "value cannot be read"),
        (b"since: 2020-13-45\n", "value cannot be read"),
        (b"---\nworkers: 1\n---\nworkers: 2\n", "not YAML"),
        (b"connections: 3\n\0\n", "null characters"),
        (b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
    ],
)
def test_a_text_that_no_settings_are_read_from_is_one_line(file, content, said):
    file.write_bytes(content)
    with pytest.raises(UsageError, match=said) as refused:
        load_settings()
    assert str(refused.value).isprintable()
    assert str(file) in str(refused.value)


def test_a_huge_settings_file_is_not_read_whole(file):
    with file.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(UsageError, match="larger than"):
        load_settings()


def test_a_byte_order_mark_of_utf_8_and_crlf_are_read(file):
    file.write_bytes("connections: 3\r\nretries: 2\r\n".encode("utf-8-sig"))
    assert (load_settings().connections, load_settings().retries) == (3, 2)


def test_center_times_come_from_a_file_and_as_json(file, monkeypatch):
    file.write_text('center_time: {106a_09048_000909: " 24:00:01"}', encoding="utf-8")
    assert load_settings().center_time == {"106A_09048_000909": "24:00:01"}
    monkeypatch.setenv("HEPHAESTUS_CENTER_TIME", '{"106A_09048_000909": "18:41"}')
    assert load_settings().center_time == {"106A_09048_000909": "18:41"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{106A_09048_000909: 18:41:07}", "in quotes"),  # YAML reads a number
        ("{106A_09048_000909: noon}", "'noon' is not a time of day"),
        ("{etna: '18:41'}", "'etna' is no frame id"),
        ("'18:41'", "JSON object"),
        ("['18:41']", "a mapping of frames"),
    ],
)
def test_a_center_time_that_cannot_be_meant_is_one_line_with_an_example(file, content, said):
    file.write_text(f"center_time: {content}", encoding="utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        load_settings()
    assert "write it as center_time: {124D_04854_171313" in str(caught.value)
