"""Tests of variables that containers set: services that are no settings, sizes that no terminal has."""

from __future__ import annotations

import io

import pytest

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.machine.environment import find_unusable_sizes
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.core.terminal import PlainConsole

KUBERNETES = {
    "SERVICE_HOST": "10.0.0.11",
    "SERVICE_PORT": "4200",
    "SERVICE_PORT_HTTP": "4200",
    "SERVICE_PORT_DATA_DIR": "4200",
    "PORT": "tcp://10.0.0.11:4200",
    "PORT_4200_TCP": "tcp://10.0.0.11:4200",
    "PORT_4200_TCP_PROTO": "tcp",
    "PORT_4200_TCP_PORT": "4200",
    "PORT_4200_TCP_ADDR": "10.0.0.11",
}
KUBERNETES_IPV6 = {
    "SERVICE_HOST": "fd00:10:96::b",
    "PORT": "udp://[fd00:10:96::b]:53",
    "PORT_53_UDP": "udp://[fd00:10:96::b]:53",
    "PORT_53_UDP_PROTO": "udp",
    "PORT_53_UDP_PORT": "53",
    "PORT_53_UDP_ADDR": "fd00:10:96::b",
    "PORT_99_SCTP": "sctp://[fd00:10:96::b]:99",
}
DOCKER_LINKS = {
    "NAME": "/web/hephaestus",
    "ENV_PATH": "/usr/bin:/bin",
    "ENV_DATA_DIR": "",
    "ENV_TEXT": "two\nlines",
    "PORT": "tcp://172.17.0.5:5432",
    "PORT_5432_TCP_START": "tcp://172.17.0.5:5432",
    "PORT_5432_TCP_END": "tcp://172.17.0.5:5440",
    "PORT_5432_TCP_PORT_START": "5432",
    "PORT_5432_TCP_PORT_END": "5440",
}


@pytest.mark.parametrize("service", ["HEPHAESTUS", "HEPHAESTUS_BUILD", "HEPHAESTUS_DATA_DIR", "HEPHAESTUS_2"])
@pytest.mark.parametrize("variables", [KUBERNETES, KUBERNETES_IPV6, DOCKER_LINKS])
def test_a_service_named_as_this_program_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, service: str, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert load_settings() == Settings()
    monkeypatch.setenv("HEPHAESTUS_CONNECTIONS", "7")
    assert load_settings().connections == 7


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("DATADIR", "/data", "HEPHAESTUS_DATA_DIR"),
        ("DATA_DRI", "/data", "HEPHAESTUS_DATA_DIR"),
        ("CONECTIONS", "3", "HEPHAESTUS_CONNECTIONS"),
        ("LICSAR_ULR", "https://portal.invalid", "HEPHAESTUS_LICSAR_URL"),
        ("PORT", "8080", "hephaestus settings"),
        ("NAME", "mine", "hephaestus settings"),
        ("SERVICE_HOST", "", "hephaestus settings"),
        ("PORT_80_TCP_ADDR", "not an address", "hephaestus settings"),
        ("REPORT", "tcp-or-not", "HEPHAESTUS_REPORT"),
        ("", "", "hephaestus settings"),
    ],
)
def test_a_typing_error_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, hint: str) -> None:
    monkeypatch.setenv(f"HEPHAESTUS_{name}", value)
    with pytest.raises(UsageError, match=f"HEPHAESTUS_{name}") as refused:
        load_settings()
    assert hint in str(refused.value)


@pytest.mark.parametrize("columns", ["0", "00", "-1", "abc", "1", "", "²", "٣", "1e2", "9" * 50, "99999999"])
@pytest.mark.parametrize("lines", ["0", "²", None])
def test_a_console_of_no_size_has_80_columns(
    monkeypatch: pytest.MonkeyPatch, columns: str, lines: str | None
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    if lines is not None:
        monkeypatch.setenv("LINES", lines)
    assert PlainConsole(file=io.StringIO()).width == 80


def test_a_size_that_is_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    assert PlainConsole(file=io.StringIO()).width == 132
    assert find_unusable_sizes({"COLUMNS": "132", "LINES": "43"}) == []
