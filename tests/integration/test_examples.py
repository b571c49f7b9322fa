"""Tests of the examples of docs/operating.md: a compose file and units of systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from checkout import ROOT
from hephaestus_build.cli import app
from hephaestus_build.core.settings import Settings

EXAMPLES = ROOT / "docs" / "examples"
CONTAINERFILE = (ROOT / "Containerfile").read_text()


def assert_accepted(words: list[str]) -> None:
    """Check that the command line takes the words, without running them."""
    group = typer.main.get_command(app)
    command = group.get_command(None, words[0])  # type: ignore[attr-defined, arg-type]
    assert not command.make_context(words[0], words[1:]).args


def assert_settings(names: list[str]) -> None:
    known = {f"HEPHAESTUS_{name.upper()}" for name in Settings.model_fields}
    known |= {"HEPHAESTUS_SETTINGS", "CDSAPI_URL", "CDSAPI_KEY"}
    assert set(names) <= known


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=True, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((EXAMPLES / name).read_text())
    return parser


@pytest.fixture
def watch() -> dict[str, Any]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]
    return services["watch"]


def test_the_service_of_compose_is_built_of_the_containerfile(watch: dict[str, Any]) -> None:
    context = (EXAMPLES / watch["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / watch["build"]["dockerfile"]).is_file()
    assert_accepted(watch["command"])  # the image's entry point is `hephaestus`
    assert 'ENTRYPOINT ["hephaestus"]' in CONTAINERFILE
    assert_settings(list(watch["environment"]))


def test_the_service_of_compose_can_write_to_its_data_and_nowhere_else(watch: dict[str, Any]) -> None:
    targets = {volume.split(":")[1] for volume in watch["volumes"]} | set(watch["tmpfs"])
    (volume,) = re.findall(r"^VOLUME (\S+)$", CONTAINERFILE, re.MULTILINE)
    assert watch["read_only"]
    assert volume in targets
    metrics = Path(watch["command"][watch["command"].index("--metrics") + 1])
    assert str(metrics.parent) in targets
    exporter = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]["node-exporter"]
    read = {part.split(":")[0]: part.split(":")[1] for part in exporter["volumes"]}
    host = next(part.split(":")[0] for part in watch["volumes"] if part.split(":")[1] == str(metrics.parent))
    assert f"--collector.textfile.directory={read[host]}" in exporter["command"]
    assert metrics.suffix == ".prom"
    assert all(port.startswith("127.0.0.1:") for port in exporter["ports"])


def test_the_unit_of_systemd_runs_a_command_line_that_is_accepted() -> None:
    service = unit("hephaestus.service")["Service"]
    program, *words = service["ExecStart"].split()
    assert Path(program).name == "hephaestus"
    assert_accepted(words)
    assert_settings([service["Environment"].partition("=")[0]])
    written = [Path(path) for path in service["ReadWritePaths"].split()]
    assert Path(words[words.index("--metrics") + 1]).parent in written
    assert service["SuccessExitStatus"].split() == ["3", "143"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_in_the_units(tmp_path: Path) -> None:
    units = []
    for name in ("hephaestus.service", "hephaestus.timer"):
        text = (EXAMPLES / name).read_text()
        units.append(tmp_path / name)
        # the program has to be there
        units[-1].write_text(re.sub(r"(?<=ExecStart=)\S+", "/bin/true", text))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    if "Failed to" in done.stderr and "unit" not in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr[:200]}")
    assert (done.returncode, done.stderr) == (0, "")
