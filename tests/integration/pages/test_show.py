"""Tests of ``show``: the page is written, and a browser is asked to open it only where there is a screen."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hephaestus_build.cli import app
from toy_cube import FRAME, toy_cube


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    toy_cube(folder / "simulated" / "cubes")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a browser was asked to open."""
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) is None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return addresses


def show(data: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["show", FRAME, "--data-dir", str(data), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_page_is_opened_where_there_is_a_screen(
    data: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert json.loads(show(data, "--json"))["opened"] is True
    page = data / "simulated" / "pages" / f"{FRAME}.html"
    assert asked == [page.resolve().as_uri()]
    assert page.stat().st_size > 10_000


def test_without_a_screen_the_path_is_said_and_nothing_opened(data: Path, asked: list[str]) -> None:
    said = show(data)
    assert f"{FRAME}.html" in said
    assert "no browser was found here" in said
    assert asked == []


def test_no_browser_opens_none(data: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert "no browser" not in show(data, "--no-browser")
    assert asked == []


def test_a_browser_that_fails_is_no_error(
    data: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(address: str) -> bool:
        raise webbrowser.Error("no runnable browser")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", fail)
    assert "open this file in one" in show(data)
