"""Tests that text from external sources is inert on terminals and in logs, JSON, Markdown and pictures."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.table import Table

from checkout import ROOT
from hephaestus_build.core.machine.log_lines import PlainFormatter
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.terminal import PlainConsole, json_text, sanitize_lines
from hephaestus_build.report import markdown
from hephaestus_build.report.text_rendering import escape_mathtext

EVIL = (
    "\x1b]0;owned\x07\x1b[2J[bold red]x[/] [link=http://x.invalid]y[/link] :smile: \x9b31m\u202e \x00\x7f\r"
)
TEXTS = st.text(st.characters(exclude_characters="\n")) | st.just(EVIL)


def printed(*values, terminal=True, **options):
    stream = io.StringIO()
    colours = "truecolor" if terminal else None
    console = PlainConsole(file=stream, force_terminal=terminal, width=400, color_system=colours)
    console.print(*values, **options)
    return stream.getvalue()


def is_harmless(text):
    return all(character.isprintable() or character == "\n" for character in text)


@given(TEXTS)
@example(EVIL)
@example("file\udc80name")
def test_a_console_sends_no_command_that_data_holds(text):
    assert is_harmless(printed(text, soft_wrap=True))
    printed(text).encode()  # no lone surrogate is left, either


def test_markup_and_emoji_are_not_interpreted_and_a_style_is_the_programs_own():
    assert printed("[bold]x[/bold] :smile:") == "[bold]x[/bold] :smile:\n"
    assert printed("[/] x\x1b[1m", style="bold") == "\x1b[1m[/] x\N{REPLACEMENT CHARACTER}[1m\x1b[0m\n"


def test_cells_and_heads_of_tables_are_text():
    table = Table(box=None)
    table.add_column(EVIL)
    table.add_row(EVIL)
    shown = printed(table, terminal=False)
    assert is_harmless(shown)
    assert shown.count("[bold red]x[/]") == shown.count(":smile: \N{REPLACEMENT CHARACTER}31m") == 2


def test_names_of_stages_and_notes_beside_bars_are_text():
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, width=300, color_system=None)
    with show_progress(console) as listener:
        listener.stage(EVIL, 3)
        listener.advance(EVIL)
        listener.note(EVIL)
    shown = stream.getvalue()
    for command in ("\x1b]", "\x1b[2J\x1b", "\x9b", "\u202e", "\x07", "\x00"):
        assert command not in shown
    assert "[bold red]x[/]" in shown


def test_no_bars_are_drawn_where_colours_are_forced_on_a_file(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    with show_progress() as listener:
        listener.stage("interferograms", 3)
        listener.advance("interferograms")
        listener.note("one is absent")
    assert capfd.readouterr() == ("", "one is absent\n")


@pytest.mark.parametrize("columns", ["0", "00"])
def test_a_terminal_without_columns_gets_the_text(columns, tmp_path):
    command = [sys.executable, "-m", "hephaestus_build", "plan", "nonsense"]
    if not (ROOT / "hephaestus_build" / "__main__.py").exists():
        command = [Path(sys.executable).with_name("hephaestus"), "plan", "nonsense"]
    done = subprocess.run(
        command, env={**os.environ, "COLUMNS": columns, "HEPHAESTUS_DATA_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "not a frame id" in done.stderr


@given(
    st.recursive(
        TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
    )
)
@example({EVIL: [EVIL, "Piton de la Fournaise, Réunion, 桜島, 🌋", "\udc80", "a\nb"]})
def test_json_is_read_back_and_holds_nothing_unseen(value):
    for indent in (None, 2):
        text = json_text(value, indent)
        assert is_harmless(text)
        assert json.loads(text) == json.loads(json.dumps(value))


def test_letters_of_all_scripts_stay_in_json():
    assert json_text(["Réunion 桜島 🌋"], None) == '["Réunion 桜島 🌋"]'


def test_a_log_record_is_one_line_with_its_traceback():
    formatter = PlainFormatter("%(levelname)s %(name)s: %(message)s")
    try:
        raise ValueError(EVIL)
    except ValueError:
        record = logging.LogRecord(
            "urllib3", logging.WARNING, __file__, 1, "asked %s\nfor it", (EVIL,), sys.exc_info()
        )
    line = formatter.format(record)
    assert line.isprintable()
    assert "ValueError" in line


def test_a_page_keeps_its_lines_and_nothing_else():
    assert sanitize_lines(f"# a\n\n| b\t| {EVIL} |\n").count("\n") == 3
    assert is_harmless(sanitize_lines(f"# a\n{EVIL}\r\n\v"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("20200101_20200113.geo.cc.tif: absent", "20200101_20200113.geo.cc.tif: absent"),
        ("![x](http://x.invalid/p.png)", "\\!\\[x\\](http\\://x.invalid/p.png)"),
        ("[x](javascript:alert)", "\\[x\\](javascript:alert)"),
        ("<img src=x onerror=alert()>", "\\<img src=x onerror=alert()\\>"),
        ("**bold** _it_ `code` ~~no~~", "\\*\\*bold\\*\\* \\_it\\_ \\`code\\` \\~\\~no\\~\\~"),
        ("www.x.invalid a@x.invalid", "www\\.x.invalid a\\@x.invalid"),
        ("# head", "\\# head"),
        ("1. item", "1\\. item"),
        ("| a | b |\n|---|", "\\| a \\| b \\| \\|---\\|"),
        ("&lt;b&gt;", "\\&lt;b\\&gt;"),
    ],
)
def test_markdown_shows_what_is_written(text, shown):
    assert markdown.escape_markdown(text) == shown


@given(st.text())
def test_code_cannot_be_left(text):
    made = markdown.code_span(text)
    fence = made[: len(made) - len(made.lstrip("`"))]
    inside = made[len(fence) : len(made) - len(fence)]
    assert made.endswith(fence)
    assert fence not in inside.split("`" + fence) or "`" not in inside
    assert "\n" not in made


def test_numbers_in_cells_stay_numbers():
    assert [markdown.table_cell(value) for value in (1, 0.5, None, True)] == [1, 0.5, None, True]
    assert markdown.table_cell(Path("a*b")) == "a\\*b"


@given(st.text(st.sampled_from("$\\_^{}ab \n\x1b"), max_size=12))
@example("$\\frac{$")
@example("costs $1 to $2")
def test_a_picture_draws_dollars_as_dollars(text):
    drawn = Figure().text(0, 0, escape_mathtext(text))
    shown, formula = drawn._preprocess_math(drawn.get_text())
    assert not formula
    assert shown == escape_mathtext(text).replace("\\$", "$")
    assert shown.isprintable()
